/* The ring of events, read as a stream: what is kept, what was missed, and what fits. */
#include "admin/events.h"

#include "session/order.h"

#include "unit.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int set_up(void **state)
{
    *state = events_new(0);
    return *state ? 0 : -1;
}

static int tear_down(void **state)
{
    events_free(*state);
    events_free(NULL);
    return 0;
}

static void add(struct events *events, const char *cid)
{
    static const struct peer_address peer = {.port = 7};

    events_add(events, &(struct session_event){.kind = SESSION_CONNECTED,
                                               .at = {.wall_ms = INT64_C(1700000000123)},
                                               .cid = cid,
                                               .cid_len = strlen(cid),
                                               .sid = 3,
                                               .peer = &peer});
}

static void add_many(struct events *events, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        add(events, "web-1");
}

/* Reads all that is there in blocks of this size; returns how many events that were. */
static unsigned read_all(const struct events *events, uint64_t *seen, size_t block)
{
    char *buf = malloc(block);
    unsigned count = 0;
    size_t len = 0;

    assert_non_null(buf);
    while ((len = events_read(events, seen, buf, block)) > 0) {
        assert_true(len <= block);
        assert_memory_equal(buf + len - 2, "\n\n", 2);
        for (size_t i = 1; i < len; i++)
            count += buf[i] == '\n' && buf[i - 1] == '\n';
    }
    free(buf);
    return count;
}

static void nothing_is_read_before_something_happens(void **state)
{
    uint64_t seen = 0;
    char buf[EVENTS_MAX_TEXT_BYTES];

    assert_true(events_last(*state) == 0);
    assert_int_equal(events_read(*state, &seen, buf, sizeof(buf)), 0);
    assert_true(seen == 0);
}

static void text_is_that_of_an_event_stream(void **state)
{
    static const char expected[] = "id: 1\nevent: connected\ndata: {\"time\":1700000000.123,"
                                   "\"cid\":\"web-1\",\"sid\":3,\"cip\":\"";
    char buf[EVENTS_MAX_TEXT_BYTES];
    uint64_t seen = 0;

    add(*state, "web-1");
    const size_t len = events_read(*state, &seen, buf, sizeof(buf));
    assert_true(len > strlen(expected));
    assert_memory_equal(buf, expected, strlen(expected));
    assert_memory_equal(buf + len - 2, "\n\n", 2);
    assert_true(seen == 1);
}

static void refusal_without_id_or_code_has_nulls(void **state)
{
    static const struct peer_address peer = {.port = 7};
    char buf[EVENTS_MAX_TEXT_BYTES] = "";
    uint64_t seen = 0;

    events_add(*state, &(struct session_event){
                           .kind = SESSION_REFUSED, .reason = REASON_LEFT, .peer = &peer});
    events_add(*state, &(struct session_event){.kind = SESSION_REFUSED,
                                               .reason = REASON_DUPLICATE,
                                               .cid = "web-1",
                                               .cid_len = 5,
                                               .peer = &peer});
    buf[events_read(*state, &seen, buf, sizeof(buf) - 1)] = '\0';
    assert_non_null(strstr(buf, "\"cid\":null"));
    assert_non_null(strstr(buf, "\"reason\":\"left\",\"code\":null"));
    assert_non_null(strstr(buf, "\"cid\":\"web-1\""));
    assert_non_null(strstr(buf, "\"code\":421"));
}

static void news_of_orders_have_what_they_are_about(void **state)
{
    const struct order_news started = {.what = ORDER_WAS_STARTED, .order = 9};
    const struct order_news told = {.what = ORDER_CLIENT_TOLD, .order = 9, .wave = 2};
    char buf[EVENTS_MAX_TEXT_BYTES] = "";
    uint64_t seen = 0;

    add(*state, "whose text must not stay in the ring");
    events_add(*state, &(struct session_event){.kind = SESSION_ORDER, .order = &started});
    events_add(*state, &(struct session_event){
                           .kind = SESSION_ORDER, .order = &told, .cid = "web-1", .cid_len = 5});
    seen = 1;
    buf[events_read(*state, &seen, buf, sizeof(buf) - 1)] = '\0';
    assert_non_null(strstr(buf, "event: shutdown\n"));
    assert_non_null(strstr(buf, "\"order\":9,\"what\":\"started\"}\n"));
    assert_non_null(strstr(buf, "\"what\":\"told\",\"wave\":2,\"cid\":\"web-1\"}\n"));
}

static void full_ring_is_read_whole_in_blocks_of_any_size(void **state)
{
    static const size_t blocks[] = {EVENTS_MAX_TEXT_BYTES, EVENTS_MAX_TEXT_BYTES + 1, 4096,
                                    1 << 20};

    add_many(*state, EVENTS_KEPT);
    for (size_t i = 0; i < COUNT(blocks); i++) {
        uint64_t seen = 0;

        assert_int_equal(read_all(*state, &seen, blocks[i]), EVENTS_KEPT);
        assert_true(seen == EVENTS_KEPT);
    }
}

static void what_is_no_longer_kept_is_one_event_that_counts(void **state)
{
    char buf[EVENTS_MAX_TEXT_BYTES] = "";
    uint64_t seen = 0;

    add_many(*state, EVENTS_KEPT + 1);
    assert_int_equal(read_all(*state, &seen, 4096), 1 + EVENTS_KEPT);
    assert_true(seen == EVENTS_KEPT + 1);

    seen = 1; /* just still there */
    assert_int_equal(read_all(*state, &seen, 4096), EVENTS_KEPT);

    add_many(*state, 3 * EVENTS_KEPT);
    seen = 10;
    buf[events_read(*state, &seen, buf, sizeof(buf) - 1)] = '\0';
    char expected[128];
    const unsigned missed = 3 * EVENTS_KEPT + 1 - 10;
    const int len = snprintf(expected, sizeof(expected),
                             "id: %u\nevent: missed\ndata: {\"missed\":%u}\n\nid: %u\n",
                             missed + 10, missed, missed + 11);
    assert_memory_equal(buf, expected, (size_t)len);
}

static void number_of_another_life_gets_all_that_is_kept(void **state)
{
    static const uint64_t others[] = {0, 4711, UINT64_C(1700000000122999),
                                      UINT64_C(1700000000123006), UINT64_MAX};
    static const char expected[] =
        "id: 1700000000123000\nevent: missed\ndata: {\"missed\":null}\n\nid: 1700000000123001\n";
    struct events *events = events_new(INT64_C(1700000000123));

    (void)state;
    add_many(events, 5);
    assert_true(events_last(events) == UINT64_C(1700000000123005));
    for (size_t i = 0; i < COUNT(others); i++) {
        char buf[EVENTS_MAX_TEXT_BYTES];
        uint64_t seen = others[i];

        assert_true(events_read(events, &seen, buf, sizeof(buf)) > strlen(expected));
        assert_memory_equal(buf, expected, strlen(expected));
        read_all(events, &seen, sizeof(buf));
        assert_true(seen == events_last(events));
    }
    events_free(events);
}

static void without_room_nothing_is_lost(void **state)
{
    char buf[EVENTS_MAX_TEXT_BYTES];
    uint64_t seen = 0;

    add(*state, "web-1");
    const size_t whole = events_read(*state, &seen, buf, sizeof(buf));
    for (size_t size = 0; size < whole; size++) {
        char *exact = malloc(size + 1);

        assert_non_null(exact);
        exact[size] = '#';
        seen = 0;
        assert_int_equal(events_read(*state, &seen, exact, size), 0);
        assert_true(seen == 0);
        assert_int_equal(exact[size], '#');
        free(exact);
    }
    seen = 0;
    assert_int_equal(events_read(*state, &seen, buf, whole), whole);

    add_many(*state, 2 * EVENTS_KEPT);
    seen = 0;
    assert_int_equal(events_read(*state, &seen, buf, 10), 0); /* no room for "missed" */
    assert_true(seen == 0);
}

static void longest_event_fits(void **state)
{
    char cid[PROTO_MAX_ID_BYTES + 1];
    char buf[EVENTS_MAX_TEXT_BYTES];
    uint64_t seen = 0;

    memset(cid, 'x', PROTO_MAX_ID_BYTES);
    cid[PROTO_MAX_ID_BYTES] = '\0';
    add(*state, cid);
    assert_true(events_read(*state, &seen, buf, sizeof(buf)) > PROTO_MAX_ID_BYTES);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(nothing_is_read_before_something_happens),
        TEST(text_is_that_of_an_event_stream),
        TEST(refusal_without_id_or_code_has_nulls),
        TEST(news_of_orders_have_what_they_are_about),
        TEST(full_ring_is_read_whole_in_blocks_of_any_size),
        TEST(what_is_no_longer_kept_is_one_event_that_counts),
        TEST(number_of_another_life_gets_all_that_is_kept),
        TEST(without_room_nothing_is_lost),
        TEST(longest_event_fits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
