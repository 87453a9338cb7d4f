/*
 * Lists of clients that are made while they are read, from a real registry of thousands: exact
 * pages whatever the filter, and no more than a slice of work in one call.
 */
#include "admin/stream.h"

#include "base/hash.h"
#include "registry/glob.h"
#include "registry/registry.h"

#include "unit.h"

#include <jansson.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CLIENTS       5000
#define MANY_CALLS    100000
#define A_SLICE_BYTES (64 * 1024) /* what one call may make, more or less */

struct fixture {
    struct registry *registry;
    struct admin admin;
    char (*cids)[PROTO_MAX_ID_BYTES + 1]; /* sorted */
    bool connected[CLIENTS];
    unsigned calls; /* of the last reading */
};

static int compare(const void *left, const void *right)
{
    return strcmp(left, right);
}

static int set_up(void **state)
{
    static const char *const prefixes[] = {"web-", "web", "db-", "A", "z_", "web.", "we"};
    struct fixture *fixture = calloc(1, sizeof(*fixture));

    assert_non_null(fixture);
    srand(5);
    fixture->registry = registry_new();
    fixture->admin = (struct admin){.registry = fixture->registry, .node = "vm"};
    fixture->cids = calloc(CLIENTS, sizeof(*fixture->cids));
    assert_non_null(fixture->cids);
    for (int i = 0; i < CLIENTS; i++)
        snprintf(fixture->cids[i], sizeof(fixture->cids[i]), "%s%d", prefixes[rand() % 7], i);
    /* In another order than that of the IDs. */
    for (int i = 0; i < CLIENTS; i++) {
        struct registry_record *record =
            registry_find_or_add(fixture->registry, fixture->cids[i], strlen(fixture->cids[i]));
        assert_non_null(record);
        record->stored = true;
    }
    qsort(fixture->cids, CLIENTS, sizeof(*fixture->cids), compare);
    for (int i = 0; i < CLIENTS; i++) {
        fixture->connected[i] = rand() % 3 == 0;
        if (fixture->connected[i])
            registry_connect(
                fixture->registry,
                registry_find(fixture->registry, fixture->cids[i], strlen(fixture->cids[i])),
                &(struct peer_address){.port = 1}, 0, 1);
    }
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;

    registry_free(fixture->registry);
    free(fixture->cids);
    free(fixture);
    return 0;
}

/* Reads it to its end, by so many bytes at once, and frees it. */
static json_t *read_all(struct fixture *fixture, struct stream *stream, size_t at_once)
{
    char *text = NULL;
    size_t len = 0;
    FILE *whole = open_memstream(&text, &len);
    char *buf = malloc(at_once);
    ssize_t got = 0;
    json_error_t error;

    assert_non_null(stream);
    assert_non_null(whole);
    assert_non_null(buf);
    fixture->calls = 0;
    while ((got = stream_read(stream, buf, at_once)) >= 0) {
        assert_true((size_t)got <= at_once);
        assert_true(++fixture->calls < MANY_CALLS);
        fwrite(buf, 1, (size_t)got, whole);
    }
    assert_int_equal(got, STREAM_END);
    stream_free(stream);
    fclose(whole);
    free(buf);
    json_t *json = json_loadb(text, len, 0, &error);
    assert_non_null(json);
    free(text);
    return json;
}

static bool is_wanted(const struct fixture *fixture, int i, const struct stream_filter *filter)
{
    const char *cid = fixture->cids[i];

    return (filter->connected < 0 || fixture->connected[i] == (filter->connected != 0)) &&
           (!filter->match || glob_matches(filter->match, cid)) &&
           (!filter->after || strcmp(cid, filter->after) > 0);
}

/* One page has to be exactly what a plain walk over all of them says. Returns next, or "". */
static const char *check_page(struct fixture *fixture, const struct stream_filter *filter,
                              char next[PROTO_MAX_ID_BYTES + 1])
{
    json_t *page = read_all(fixture, stream_clients(&fixture->admin, filter), 16384);
    const json_t *clients = json_object_get(page, "clients");
    const json_t *given = json_object_get(page, "next");
    size_t count = 0;
    bool more = false;

    assert_int_equal(json_object_size(page), 2);
    for (int i = 0; i < CLIENTS; i++) {
        if (!is_wanted(fixture, i, filter))
            continue;
        if (count == filter->limit) {
            more = true;
            break;
        }
        const json_t *record = json_array_get(clients, count++);
        assert_string_equal(json_string_value(json_object_get(record, "cid")), fixture->cids[i]);
        assert_int_equal(json_is_true(json_object_get(record, "cstatus")), fixture->connected[i]);
    }
    assert_int_equal(json_array_size(clients), count);
    assert_int_equal(json_is_null(given), !more);
    snprintf(next, PROTO_MAX_ID_BYTES + 1, "%s", more ? json_string_value(given) : "");
    if (more)
        assert_string_equal(
            next, json_string_value(json_object_get(json_array_get(clients, count - 1), "cid")));
    json_decref(page);
    return next;
}

static void pages_are_exact_with_every_filter(void **state)
{
    static const char *const globs[] = {NULL,    "*",        "web-*",   "web*",   "web",    "we*",
                                        "A*",    "z_*",      "db-1???", "*7",     "[A-d]*", "?eb-*",
                                        "web.*", "nobody-*", "0*",      "zzzzz*", "web-1"};
    static const unsigned limits[] = {1, 7, 100, 1000};
    struct fixture *fixture = *state;

    for (size_t i = 0; i < COUNT(globs); i++) {
        for (int connected = -1; connected <= 1; connected++) {
            for (size_t j = 0; j < COUNT(limits); j++) {
                struct stream_filter filter = {
                    .match = globs[i], .limit = limits[j], .connected = connected, .target = -1};
                char next[PROTO_MAX_ID_BYTES + 1];
                char after[PROTO_MAX_ID_BYTES + 1];

                /* To the end, and with few of them only the first pages. */
                for (int pages = 0; pages < (limits[j] < 100 ? 4 : 60); pages++) {
                    check_page(fixture, &filter, next);
                    if (next[0] == '\0')
                        break;
                    memcpy(after, next, sizeof(after));
                    filter.after = after;
                }
            }
        }
    }
}

static void after_may_lie_anywhere(void **state)
{
    static const char *const afters[] = {"-",    "A",    "db-", "web",
                                         "web-", "web.", "zzz", "web-99999"};
    static const char *const globs[] = {NULL, "web-*", "db-*"};

    for (size_t i = 0; i < COUNT(afters); i++) {
        for (size_t j = 0; j < COUNT(globs); j++) {
            char next[PROTO_MAX_ID_BYTES + 1];

            check_page(*state,
                       &(struct stream_filter){.match = globs[j],
                                               .after = afters[i],
                                               .limit = 1000,
                                               .connected = -1,
                                               .target = -1},
                       next);
        }
    }
}

static void who_is_not_stored_is_not_shown(void **state)
{
    struct fixture *fixture = *state;
    const struct stream_filter filter = {
        .match = "web-x", .limit = 10, .connected = -1, .target = -1};
    struct registry_record *record = registry_find_or_add(fixture->registry, "web-x", 5);

    json_t *page = read_all(fixture, stream_clients(&fixture->admin, &filter), 4096);
    assert_int_equal(json_array_size(json_object_get(page, "clients")), 0);
    json_decref(page);
    record->stored = true;
    page = read_all(fixture, stream_clients(&fixture->admin, &filter), 4096);
    assert_int_equal(json_array_size(json_object_get(page, "clients")), 1);
    json_decref(page);
}

static void bytes_are_the_same_in_pieces_of_any_size(void **state)
{
    static const size_t sizes[] = {1, 7, 1000, 1 << 20};
    struct fixture *fixture = *state;
    const struct stream_filter filter = {.limit = 100, .connected = -1, .target = -1};
    json_t *first = read_all(fixture, stream_clients(&fixture->admin, &filter), 4096);

    for (size_t i = 0; i < COUNT(sizes); i++) {
        json_t *page = read_all(fixture, stream_clients(&fixture->admin, &filter), sizes[i]);
        assert_true(json_equal(page, first));
        json_decref(page);
    }
    json_decref(first);
}

/* Putting all in order takes several calls, and none of them makes more than a buffer's worth. How
 * many records are looked at in one is a matter of time, and so not of tests. */
static void no_call_does_more_than_a_slice(void **state)
{
    struct fixture *fixture = *state;
    const struct stream_filter nobody = {
        .match = "*nobody*", .limit = 1000, .connected = -1, .target = -1};
    const struct stream_filter all = {.limit = 1000, .connected = -1, .target = -1};

    json_decref(read_all(fixture, stream_clients(&fixture->admin, &nobody), 1 << 20));
    const unsigned first = fixture->calls; /* has put all in order as well */
    json_decref(read_all(fixture, stream_clients(&fixture->admin, &nobody), 1 << 20));
    assert_true(first >= fixture->calls + 2);

    struct stream *stream = stream_clients(&fixture->admin, &all);
    char *buf = malloc(1 << 20);
    ssize_t got = 0;
    assert_non_null(buf);
    while ((got = stream_read(stream, buf, 1 << 20)) >= 0)
        assert_true(got < A_SLICE_BYTES);
    stream_free(stream);
    free(buf);
}

/* Between two calls anybody may go, also whom it has just shown and all that it was about to. */
static void records_may_go_while_it_is_read(void **state)
{
    struct fixture *fixture = *state;
    const struct stream_filter all = {.limit = 1000, .connected = -1, .target = -1};
    struct stream *stream = stream_clients(&fixture->admin, &all);
    char buf[512];
    ssize_t got = 0;
    int gone = 0;

    while ((got = stream_read(stream, buf, sizeof(buf))) >= 0) {
        for (int i = 0; i < 50 && gone < CLIENTS; i++) {
            const char *cid = fixture->cids[gone++];
            registry_remove(fixture->registry, registry_find(fixture->registry, cid, strlen(cid)));
        }
    }
    assert_int_equal(got, STREAM_END);
    stream_free(stream);
    stream_free(stream_clients(&fixture->admin, &all)); /* unread */
    stream_free(NULL);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(pages_are_exact_with_every_filter), TEST(after_may_lie_anywhere),
        TEST(who_is_not_stored_is_not_shown),    TEST(bytes_are_the_same_in_pieces_of_any_size),
        TEST(no_call_does_more_than_a_slice),    TEST(records_may_go_while_it_is_read),
    };

    return hash_init() == 0 ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
}
