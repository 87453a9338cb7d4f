/*
 * Lists of clients in orders that the registry does not keep, against a plain sort of all of them:
 * every order, with filters, page by page; and clients that go, come back or change while a page is
 * made.
 */
#include "admin/sorted.h"
#include "admin/stream.h"

#include "base/hash.h"
#include "registry/glob.h"
#include "registry/registry.h"

#include "failing_alloc.h"
#include "unit.h"

#include <jansson.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CLIENTS 2000

static const char *const orders[] = {"cid",    "-cid",      "sid",        "-sid",   "since",
                                     "-since", "last_seen", "-last_seen", "rtt_ms", "-rtt_ms"};

struct fixture {
    struct registry *registry;
    struct admin admin;
    const struct registry_record *records[CLIENTS];
};

/* Few times and round trips among many clients, so that most of them are tied, and times of before
 * 1970; a third have no round trip. */
static int set_up(void **state)
{
    static const char *const prefixes[] = {"web-", "db-", "A", "z_"};
    struct fixture *fixture = calloc(1, sizeof(*fixture));

    assert_non_null(fixture);
    srand(7);
    fixture->registry = registry_new();
    fixture->admin = (struct admin){.registry = fixture->registry, .node = "vm"};
    for (int i = 0; i < CLIENTS; i++) {
        char cid[32];
        snprintf(cid, sizeof(cid), "%s%d", prefixes[rand() % 4], i * 37 % CLIENTS);
        struct registry_record *record = registry_find_or_add(fixture->registry, cid, strlen(cid));
        assert_non_null(record);
        if (rand() % 3 == 0)
            registry_connect(fixture->registry, record, &(struct peer_address){.port = 1}, 0, 1);
        record->stored = true;
        record->since = rand() % 7 - 2;
        record->last_seen = 1795000000 + rand() % 40;
        record->rtt_us = (uint32_t)(rand() % 3 * (rand() % 50));
        fixture->records[i] = record;
    }
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;

    registry_free(fixture->registry);
    free(fixture);
    return 0;
}

/* --- what it should be -------------------------------------------------------------------------*/

static const char *order_of_compare;

static int compare_numbers(int64_t left, int64_t right)
{
    return (left > right) - (left < right);
}

static int compare_records(const void *one, const void *other)
{
    const struct registry_record *left = *(const struct registry_record *const *)one;
    const struct registry_record *right = *(const struct registry_record *const *)other;
    const char *word = order_of_compare;
    const int sign = word[0] == '-' ? -1 : 1;
    int result = 0;

    word += word[0] == '-';
    if (strcmp(word, "cid") == 0)
        return sign * strcmp(left->cid, right->cid);
    if (strcmp(word, "sid") == 0)
        result = compare_numbers(left->sid, right->sid);
    else if (strcmp(word, "since") == 0)
        result = compare_numbers(left->since, right->since);
    else if (strcmp(word, "last_seen") == 0)
        result = compare_numbers(left->last_seen, right->last_seen);
    else if (left->rtt_us != 0 && right->rtt_us != 0)
        result = compare_numbers(left->rtt_us, right->rtt_us);
    else
        result = sign * ((left->rtt_us == 0) - (right->rtt_us == 0));
    return result != 0 ? sign * result : strcmp(left->cid, right->cid);
}

/* Those who pass the filter, in its order. Returns how many. */
static size_t expect(const struct fixture *fixture, const char *order,
                     const struct stream_filter *filter, const struct registry_record **wanted)
{
    size_t count = 0;

    for (int i = 0; i < CLIENTS; i++) {
        const struct registry_record *record = fixture->records[i];

        if (record && (filter->connected < 0 || record->connected == (filter->connected != 0)) &&
            (!filter->match || glob_matches(filter->match, record->cid)))
            wanted[count++] = record;
    }
    order_of_compare = order;
    qsort(wanted, count, sizeof(wanted[0]), compare_records);
    return count;
}

/* --- what it is ------------------------------------------------------------------------------- */

static struct stream_filter filter_of(const char *order, unsigned limit)
{
    struct stream_filter filter = {.limit = limit, .connected = -1, .target = -1};

    assert_int_equal(sort_order_parse(&filter.order, order), 0);
    return filter;
}

/* Reads a page whose beginning may have been read, and frees the stream. */
static json_t *read_rest(struct stream *stream, const char *begin, size_t begin_len)
{
    char *text = NULL;
    size_t len = 0;
    FILE *whole = open_memstream(&text, &len);
    char buf[4096];
    ssize_t got = 0;

    assert_non_null(whole);
    fwrite(begin, 1, begin_len, whole);
    while ((got = stream_read(stream, buf, sizeof(buf))) >= 0)
        fwrite(buf, 1, (size_t)got, whole);
    assert_int_equal(got, STREAM_END);
    fclose(whole);
    stream_free(stream);
    json_t *page = json_loadb(text, len, 0, NULL);
    assert_non_null(page);
    free(text);
    return page;
}

static json_t *read_page(const struct fixture *fixture, const struct stream_filter *filter)
{
    struct stream *stream = stream_clients(&fixture->admin, filter);

    assert_non_null(stream);
    return read_rest(stream, "", 0);
}

static const char *cid_at(const json_t *page, size_t i)
{
    const json_t *record = json_array_get(json_object_get(page, "clients"), i);

    return json_string_value(json_object_get(record, "cid"));
}

static size_t size_of(const json_t *page)
{
    return json_array_size(json_object_get(page, "clients"));
}

static const char *next_of(const json_t *page)
{
    return json_string_value(json_object_get(page, "next"));
}

/* Walks up to so many pages and compares each with its part of a plain sort. */
static void check_walk(const struct fixture *fixture, const char *order,
                       struct stream_filter filter, int pages)
{
    static const struct registry_record *wanted[CLIENTS];
    const size_t count = expect(fixture, order, &filter, wanted);
    char after[SORT_PLACE_TEXT_BYTES];
    size_t seen = 0;
    bool has_more = true;

    for (; has_more && pages > 0; pages--) {
        json_t *page = read_page(fixture, &filter);
        const size_t left = count - seen;
        const size_t size = size_of(page);

        assert_int_equal(size, left < filter.limit ? left : filter.limit);
        for (size_t i = 0; i < size; i++)
            assert_string_equal(cid_at(page, i), wanted[seen + i]->cid);
        seen += size;
        has_more = next_of(page) != NULL;
        assert_int_equal(has_more, seen < count);
        if (has_more)
            snprintf(after, sizeof(after), "%s", next_of(page));
        filter.after = after;
        json_decref(page);
    }
}

static void pages_give_everybody_once_in_every_order(void **state)
{
    static const unsigned limits[] = {1, 7, 100, 999, 1000};

    for (size_t i = 0; i < COUNT(orders); i++) {
        for (size_t j = 0; j < COUNT(limits); j++)
            check_walk(*state, orders[i], filter_of(orders[i], limits[j]),
                       limits[j] < 100 ? 40 : CLIENTS);
    }
}

static void filters_hold_in_every_order(void **state)
{
    static const char *const globs[] = {NULL, "web-*", "*7", "db-1??", "nobody*"};

    for (size_t i = 0; i < COUNT(orders); i++) {
        for (size_t j = 0; j < COUNT(globs); j++) {
            for (int connected = -1; connected <= 1; connected++) {
                struct stream_filter filter = filter_of(orders[i], 90);

                filter.match = globs[j];
                filter.connected = connected;
                check_walk(*state, orders[i], filter, CLIENTS);
            }
        }
    }
}

static void page_that_is_exactly_full_has_no_successor(void **state)
{
    struct stream_filter filter = filter_of("-since", 1);
    static const struct registry_record *wanted[CLIENTS];

    filter.match = "*77*";
    filter.limit = (unsigned)expect(*state, "-since", &filter, wanted);
    json_t *page = read_page(*state, &filter);
    assert_int_equal(size_of(page), filter.limit);
    assert_null(next_of(page));
    json_decref(page);
}

static void unknown_round_trips_come_last_in_both_directions(void **state)
{
    for (int i = 0; i < 2; i++) {
        struct stream_filter filter = filter_of(i == 0 ? "rtt_ms" : "-rtt_ms", 1000);

        filter.match = "web-*";
        json_t *page = read_page(*state, &filter);
        const json_t *clients = json_object_get(page, "clients");
        const size_t size = json_array_size(clients);
        assert_false(json_is_null(json_object_get(json_array_get(clients, 0), "rtt_ms")));
        assert_true(json_is_null(json_object_get(json_array_get(clients, size - 1), "rtt_ms")));
        json_decref(page);
    }
}

static void order_of_ids_is_the_usual_list(void **state)
{
    struct stream_filter plain = {.limit = 50, .connected = -1, .target = -1, .after = "db-5"};
    struct stream_filter sorted = filter_of("cid", 50);

    sorted.after = "db-5";
    json_t *one = read_page(*state, &plain);
    json_t *other = read_page(*state, &sorted);
    assert_true(json_equal(one, other));
    assert_string_equal(next_of(other), cid_at(other, 49));
    json_decref(one);
    json_decref(other);
}

/* --- what happens meanwhile ------------------------------------------------------------------- */

/* Has a page picked, and the first of it shown. */
static struct stream *begin_page(const struct fixture *fixture, const struct stream_filter *filter,
                                 char *begin, size_t size, size_t *len)
{
    struct stream *stream = stream_clients(&fixture->admin, filter);
    ssize_t got = 0;

    assert_non_null(stream);
    while ((got = stream_read(stream, begin, size)) == 0)
        ;
    assert_true(got > 0);
    *len = (size_t)got;
    return stream;
}

static struct registry_record *find(const struct fixture *fixture, const char *cid)
{
    return registry_find(fixture->registry, cid, strlen(cid));
}

static void who_goes_or_changes_behind_the_pick_is_left_out(void **state)
{
    const struct fixture *fixture = *state;
    static const struct registry_record *wanted[CLIENTS];
    struct stream_filter filter = filter_of("-last_seen", 500);
    char begin[1024];
    char gone[3][64];
    size_t len = 0;

    filter.connected = 1;
    expect(fixture, "-last_seen", &filter, wanted);
    for (int i = 0; i < 3; i++)
        snprintf(gone[i], sizeof(gone[i]), "%s", wanted[497 + i]->cid);
    json_t *undisturbed = read_page(fixture, &filter);
    struct stream *stream = begin_page(fixture, &filter, begin, sizeof(begin), &len);

    registry_remove(fixture->registry, find(fixture, gone[0]));
    registry_disconnect(fixture->registry, find(fixture, gone[1]), REASON_LEFT, 5);
    find(fixture, gone[2])->stored = false;
    json_t *page = read_rest(stream, begin, len);
    assert_int_equal(size_of(page), 497);
    for (size_t i = 0; i < 497; i++)
        assert_string_equal(cid_at(page, i), cid_at(undisturbed, i));
    assert_string_equal(next_of(page), next_of(undisturbed));
    json_decref(page);
    json_decref(undisturbed);
}

/* It may be picked twice, as the one that it was and as the one that it is. */
static void who_comes_back_as_another_record_is_not_shown_as_the_old_one(void **state)
{
    const struct fixture *fixture = *state;
    static const struct registry_record *wanted[CLIENTS];
    struct stream_filter filter = filter_of("since", 500);
    char begin[1024];
    char cid[64];
    size_t len = 0;

    expect(fixture, "since", &filter, wanted);
    snprintf(cid, sizeof(cid), "%s", wanted[499]->cid);
    struct stream *stream = begin_page(fixture, &filter, begin, sizeof(begin), &len);
    registry_remove(fixture->registry, find(fixture, cid));
    assert_non_null(registry_find_or_add(fixture->registry, "takes-its-sid", 13));
    registry_find_or_add(fixture->registry, cid, strlen(cid))->stored = true;
    json_t *page = read_rest(stream, begin, len);
    assert_int_equal(size_of(page), 499);
    json_decref(page);
}

static void all_may_go_while_it_is_read(void **state)
{
    struct fixture *fixture = *state;
    const struct stream_filter filter = filter_of("-rtt_ms", 1000);
    struct stream *stream = stream_clients(&fixture->admin, &filter);
    char buf[64];
    ssize_t got = 0;
    int gone = 0;

    assert_non_null(stream);
    while ((got = stream_read(stream, buf, sizeof(buf))) >= 0) {
        for (int i = 0; i < 5 && gone < CLIENTS; i++)
            registry_remove(fixture->registry, find(fixture, fixture->records[gone++]->cid));
    }
    assert_int_equal(got, STREAM_END);
    stream_free(stream);
    stream_free(stream_clients(&fixture->admin, &filter)); /* unread */
}

static void without_memory_there_is_no_list_or_it_fails(void **state)
{
    const struct fixture *fixture = *state;
    struct stream_filter filter = filter_of("-since", 1000);
    struct stream *stream = NULL;
    char buf[4096];
    ssize_t got = 0;
    int needed = 0;

    filter.match = "*";
    for (; !stream; needed++) {
        allocations_left = needed;
        stream = stream_clients(&fixture->admin, &filter);
        allocations_left = -1;
    }
    assert_true(needed > 2); /* the stream, and the page */
    allocations_left = 0;
    while ((got = stream_read(stream, buf, sizeof(buf))) >= 0)
        ;
    allocations_left = -1;
    assert_int_equal(got, STREAM_FAILED);
    stream_free(stream);
}

/* --- texts ------------------------------------------------------------------------------------ */

static void words_of_orders_are_those_and_no_others(void **state)
{
    static const char *const wrong[] = {"",     "-",    "--cid",  "+cid",   "CID",        "rtt",
                                        "cid ", " cid", "-sid,-", "since-", "last_seen_", "cip"};
    struct sort_order order;

    (void)state;
    for (size_t i = 0; i < COUNT(orders); i++) {
        assert_int_equal(sort_order_parse(&order, orders[i]), 0);
        assert_int_equal(order.key, i / 2);
        assert_int_equal(order.is_descending, i % 2);
        assert_int_equal(sort_order_is_by_id(order), i == 0);
    }
    for (size_t i = 0; i < COUNT(wrong); i++)
        assert_int_equal(sort_order_parse(&order, wrong[i]), -1);
}

static void place_is_read_in_its_own_order_only(void **state)
{
    static const char *const wrong[] = {"",
                                        "web-1",
                                        "since~1~web-1",
                                        "-sid~1~web-1",
                                        "-since~~web-1",
                                        "-since~1~",
                                        "-since~-1~web-1",
                                        "-since~1x~web-1",
                                        "-since~1~a~b",
                                        "-since~1",
                                        "-since~1~*",
                                        "-since1~web-1",
                                        "~1~web-1",
                                        "-since~1~web-1\n",
                                        "-since~18446744073709551616~web-1"};
    struct sort_order order;
    struct sort_place place;
    char text[3 * SORT_PLACE_TEXT_BYTES];
    char cid[PROTO_MAX_ID_BYTES + 2];

    (void)state;
    assert_int_equal(sort_order_parse(&order, "-since"), 0);
    for (size_t i = 0; i < COUNT(wrong); i++)
        assert_int_equal(sort_place_parse(&place, order, wrong[i]), -1);
    assert_int_equal(sort_place_parse(&place, order, "-since~18446744073709551615~a:b@c"), 0);
    assert_true(place.rank == UINT64_MAX);
    assert_string_equal(place.cid, "a:b@c");

    /* As long as can be, and longer. */
    for (int more = 0; more < 2; more++) {
        memset(cid, 'x', sizeof(cid));
        cid[PROTO_MAX_ID_BYTES + more] = '\0';
        snprintf(text, sizeof(text), "-since~18446744073709551615~%s", cid);
        assert_int_equal(sort_place_parse(&place, order, text), -more);
    }
    memset(text, 'x', sizeof(text));
    text[sizeof(text) - 1] = '\0';
    assert_int_equal(sort_place_parse(&place, order, text), -1);
    assert_int_equal(sort_place_parse(&place, (struct sort_order){.key = SORT_CID}, text), -1);
    assert_int_equal(sort_place_parse(&place, (struct sort_order){.key = SORT_CID}, "web-1"), 0);
    assert_string_equal(place.cid, "web-1");
}

static void place_behind_everybody_is_an_empty_page(void **state)
{
    struct stream_filter filter = filter_of("sid", 10);

    filter.after = "sid~18446744073709551615~zzz";
    json_t *page = read_page(*state, &filter);
    assert_int_equal(size_of(page), 0);
    assert_null(next_of(page));
    json_decref(page);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(pages_give_everybody_once_in_every_order),
        TEST(filters_hold_in_every_order),
        TEST(page_that_is_exactly_full_has_no_successor),
        TEST(unknown_round_trips_come_last_in_both_directions),
        TEST(order_of_ids_is_the_usual_list),
        TEST(who_goes_or_changes_behind_the_pick_is_left_out),
        TEST(who_comes_back_as_another_record_is_not_shown_as_the_old_one),
        TEST(all_may_go_while_it_is_read),
        TEST(without_memory_there_is_no_list_or_it_fails),
        cmocka_unit_test(words_of_orders_are_those_and_no_others),
        cmocka_unit_test(place_is_read_in_its_own_order_only),
        TEST(place_behind_everybody_is_an_empty_page),
    };

    return hash_init() == 0 ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
}
