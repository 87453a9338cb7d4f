/* The registry: sids from 1 and the lowest free first, one record an ID, and the counts. */
#include "registry/registry.h"

#include "base/hash.h"

#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MANY 100000

static int start(void **state)
{
    (void)state;
    return hash_init();
}

static int setup(void **state)
{
    *state = registry_new();
    return *state ? 0 : -1;
}

static int teardown(void **state)
{
    registry_free(*state);
    return 0;
}

static struct registry_record *add(struct registry *registry, const char *cid)
{
    return registry_add(registry, cid, strlen(cid));
}

/* Adds "PREFIXn" and returns its record. */
static struct registry_record *add_numbered(struct registry *registry, const char *prefix,
                                            unsigned n)
{
    char cid[PROTO_MAX_ID_BYTES + 1];

    snprintf(cid, sizeof(cid), "%s%u", prefix, n);
    return add(registry, cid);
}

static void remove_sid(struct registry *registry, uint32_t sid)
{
    struct registry_record *record = registry_by_sid(registry, sid);

    assert_non_null(record);
    registry_remove(registry, record);
}

static void fill(struct registry *registry, uint32_t up_to)
{
    for (uint32_t sid = 1; sid <= up_to; sid++)
        assert_int_equal(add_numbered(registry, "c", sid)->sid, sid);
}

static void registry_when_empty_has_nothing(void **state)
{
    struct registry *registry = *state;

    assert_int_equal(registry_count(registry), 0);
    assert_int_equal(registry_connected(registry), 0);
    assert_null(registry_find(registry, "a", 1));
    assert_null(registry_by_sid(registry, 0));
    assert_null(registry_by_sid(registry, 1));
    assert_null(registry_by_sid(registry, UINT32_MAX));
    assert_null(registry_next(registry, 0));
    assert_null(registry_next(registry, UINT32_MAX));
    registry_free(NULL);
}

static void registry_first_record_gets_sid_one(void **state)
{
    struct registry *registry = *state;
    struct registry_record *record = registry_add(registry, "web-1xx", 5);

    assert_non_null(record);
    assert_int_equal(record->sid, 1);
    assert_string_equal(record->cid, "web-1");
    assert_int_equal(record->cid_len, 5);
    assert_false(record->connected);
    assert_false(record->stored);
    assert_int_equal(record->reason, REASON_NONE);
    assert_int_equal(record->claims, 0);
    assert_null(record->holder);
    assert_null(record->probe);
    assert_ptr_equal(registry_find(registry, "web-1", 5), record);
    assert_ptr_equal(registry_by_sid(registry, 1), record);
    assert_null(registry_find(registry, "web-1", 4));
    assert_null(registry_find(registry, "web-1x", 6));
    assert_null(registry_find(registry, "WEB-1", 5));
}

static void registry_sids_count_up_over_word_and_array_boundaries(void **state)
{
    struct registry *registry = *state;

    fill(registry, 3000);
    assert_int_equal(registry_count(registry), 3000);
    for (uint32_t sid = 1; sid <= 3000; sid++)
        assert_int_equal(registry_by_sid(registry, sid)->sid, sid);
    assert_null(registry_by_sid(registry, 3001));
}

/* Each sid around the boundaries of a word and of the first array is freed alone and given again.
 */
static void registry_freed_sid_is_the_next_one_given(void **state)
{
    static const uint32_t sids[] = {1,   2,    63,   64,   65,   127,  128,
                                    129, 1023, 1024, 1025, 1088, 1089, 2048};
    struct registry *registry = *state;

    fill(registry, 2048);
    for (size_t i = 0; i < COUNT(sids); i++) {
        remove_sid(registry, sids[i]);
        assert_null(registry_by_sid(registry, sids[i]));
        assert_int_equal(add_numbered(registry, "again", sids[i])->sid, sids[i]);
    }
    assert_int_equal(add(registry, "behind")->sid, 2049);
}

static void registry_sids_freed_in_odd_orders_come_back_lowest_first(void **state)
{
    static const uint32_t freed[] = {1025, 64, 2000, 1, 1024, 65, 700, 63, 2, 1999};
    static const uint32_t given[] = {1, 2, 63, 64, 65, 700, 1024, 1025, 1999, 2000, 2001, 2002};
    struct registry *registry = *state;

    fill(registry, 2000);
    for (size_t i = 0; i < COUNT(freed); i++)
        remove_sid(registry, freed[i]);
    for (size_t i = 0; i < COUNT(given); i++)
        assert_int_equal(add_numbered(registry, "n", given[i])->sid, given[i]);
}

static void registry_freeing_the_lower_one_between_adds_is_noticed(void **state)
{
    struct registry *registry = *state;

    fill(registry, 200);
    remove_sid(registry, 150);
    remove_sid(registry, 130);
    assert_int_equal(add(registry, "x1")->sid, 130);
    remove_sid(registry, 3);
    assert_int_equal(add(registry, "x2")->sid, 3);
    assert_int_equal(add(registry, "x3")->sid, 150);
    assert_int_equal(add(registry, "x4")->sid, 201);
}

/* Random removals and adds against the plainest model there is: an array of flags. */
static void registry_sid_is_always_the_lowest_of_a_naive_model(void **state)
{
    enum { SIDS = 2600 };
    static bool taken[SIDS + 1];
    struct registry *registry = *state;
    size_t count = 0;
    unsigned names = 0;

    srand(7);
    memset(taken, 0, sizeof(taken));
    for (int step = 0; step < 40000; step++) {
        const uint32_t sid = 1 + (uint32_t)rand() % SIDS;
        uint32_t lowest = 1;

        /* Grows for a while, shrinks for a while. */
        if (taken[sid] && (step / 5000 % 2 == 1 || rand() % 3 == 0)) {
            remove_sid(registry, sid);
            taken[sid] = false;
            count--;
        }
        while (lowest <= SIDS && taken[lowest])
            lowest++;
        if (lowest <= SIDS && (step / 5000 % 2 == 0 || rand() % 3 == 0)) {
            assert_int_equal(add_numbered(registry, "r", names++)->sid, lowest);
            taken[lowest] = true;
            count++;
        }
        assert_int_equal(registry_count(registry), count);
    }
    for (uint32_t sid = 1; sid <= SIDS; sid++)
        assert_int_equal(registry_by_sid(registry, sid) != NULL, taken[sid]);
}

static void registry_restored_record_keeps_its_sid_and_is_stored(void **state)
{
    static const uint32_t sids[] = {5000, 64, 1, 1025, 65, 1024, 200000};
    struct registry *registry = *state;

    for (size_t i = 0; i < COUNT(sids); i++) {
        char cid[32];

        snprintf(cid, sizeof(cid), "old-%u", sids[i]);
        struct registry_record *record = registry_restore(registry, sids[i], cid, strlen(cid));
        assert_non_null(record);
        assert_int_equal(record->sid, sids[i]);
        assert_true(record->stored);
        assert_false(record->connected);
        assert_ptr_equal(registry_find(registry, cid, strlen(cid)), record);
    }
    assert_int_equal(registry_count(registry), COUNT(sids));
    for (uint32_t sid = 2; sid < 64; sid++)
        assert_int_equal(add_numbered(registry, "new", sid)->sid, sid);
    assert_int_equal(add(registry, "over")->sid, 66);
}

static void registry_refuses_to_restore_what_cannot_be(void **state)
{
    char long_id[PROTO_MAX_ID_BYTES + 1];
    struct registry *registry = *state;

    memset(long_id, 'i', sizeof(long_id));
    assert_non_null(registry_restore(registry, 7, "seven", 5));
    assert_null(registry_restore(registry, 7, "other", 5));
    assert_null(registry_restore(registry, 8, "seven", 5));
    assert_null(registry_restore(registry, 0, "zero", 4));
    assert_null(registry_restore(registry, 9, "", 0));
    assert_null(registry_restore(registry, 9, "a b", 3));
    assert_null(registry_restore(registry, 9, "a\0b", 3));
    assert_null(registry_restore(registry, 9, long_id, sizeof(long_id)));
    assert_int_equal(registry_count(registry), 1);
    assert_non_null(registry_restore(registry, 9, long_id, PROTO_MAX_ID_BYTES));
    assert_int_equal(registry_find(registry, long_id, PROTO_MAX_ID_BYTES)->cid_len, 64);
    assert_int_equal(registry_count(registry), 2);
    assert_int_equal(add(registry, "first")->sid, 1);
}

static void registry_counts_the_connected_once_each(void **state)
{
    const struct peer_address peer = {.family = AF_INET, .ip = {10, 0, 0, 1}, .port = 4711};
    struct registry *registry = *state;
    struct registry_record *a = add(registry, "a");
    struct registry_record *b = add(registry, "b");

    registry_connect(registry, a, &peer, 100);
    registry_connect(registry, b, &peer, 101);
    registry_connect(registry, a, &peer, 102);
    assert_int_equal(registry_connected(registry), 2);
    registry_disconnect(registry, a, REASON_LEFT, 103);
    registry_disconnect(registry, a, REASON_RESET, 104);
    assert_int_equal(registry_connected(registry), 1);
    registry_remove(registry, b);
    assert_int_equal(registry_connected(registry), 0);
    assert_int_equal(registry_count(registry), 1);
}

static void registry_record_tells_the_story_of_its_client(void **state)
{
    const struct peer_address first = {.family = AF_INET, .ip = {10, 0, 0, 1}, .port = 1};
    const struct peer_address second = {.family = AF_INET, .ip = {10, 0, 0, 2}, .port = 2};
    struct registry *registry = *state;
    struct registry_record *record = add(registry, "a");

    registry_connect(registry, record, &first, 100);
    assert_true(record->connected);
    assert_int_equal(record->since, 100);
    assert_int_equal(record->last_seen, 100);
    record->rtt_us = 55;
    record->last_seen = 140;

    registry_disconnect(registry, record, REASON_TIMED_OUT, 150);
    assert_false(record->connected);
    assert_int_equal(record->since, 150);
    assert_int_equal(record->last_seen, 140);
    assert_int_equal(record->reason, REASON_TIMED_OUT);
    assert_memory_equal(&record->peer, &first, sizeof(first));

    registry_connect(registry, record, &second, 200);
    assert_int_equal(record->sid, 1);
    assert_int_equal(record->since, 200);
    assert_int_equal(record->rtt_us, 0);
    assert_int_equal(record->reason, REASON_TIMED_OUT);
    assert_memory_equal(&record->peer, &second, sizeof(second));
}

static void registry_walk_visits_each_record_once_in_order(void **state)
{
    struct registry *registry = *state;
    struct registry_record *record;
    uint32_t last = 0;
    size_t seen = 0;

    fill(registry, 1500);
    for (uint32_t sid = 1; sid <= 1500; sid++) {
        if (sid % 3 == 0 || (sid > 1000 && sid < 1200))
            remove_sid(registry, sid);
    }
    while ((record = registry_next(registry, last)) != NULL) {
        assert_true(record->sid > last);
        assert_true(record->sid % 3 != 0 && (record->sid <= 1000 || record->sid >= 1200));
        last = record->sid;
        seen++;
    }
    assert_int_equal(seen, registry_count(registry));
    assert_int_equal(last, 1499);
}

static void registry_walk_survives_the_removal_of_where_it_stands(void **state)
{
    struct registry *registry = *state;
    struct registry_record *record;

    fill(registry, 300);
    for (uint32_t last = 0; (record = registry_next(registry, last)) != NULL;) {
        last = record->sid;
        registry_remove(registry, record);
    }
    assert_int_equal(registry_count(registry), 0);
}

static void registry_holds_a_hundred_thousand_and_finds_each(void **state)
{
    struct registry *registry = *state;

    fill(registry, MANY);
    assert_int_equal(registry_count(registry), MANY);
    for (uint32_t sid = 1; sid <= MANY; sid++) {
        char cid[32];

        snprintf(cid, sizeof(cid), "c%u", sid);
        struct registry_record *record = registry_find(registry, cid, strlen(cid));
        assert_non_null(record);
        assert_int_equal(record->sid, sid);
        assert_ptr_equal(registry_by_sid(registry, sid), record);
    }
    for (uint32_t sid = 1; sid <= MANY; sid += 2)
        remove_sid(registry, sid);
    assert_int_equal(registry_count(registry), MANY / 2);
    for (uint32_t sid = 1; sid <= MANY; sid += 2)
        assert_int_equal(add_numbered(registry, "d", sid)->sid, sid);
    assert_int_equal(add(registry, "last")->sid, MANY + 1);
}

#define WITH_REGISTRY(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_REGISTRY(registry_when_empty_has_nothing),
        WITH_REGISTRY(registry_first_record_gets_sid_one),
        WITH_REGISTRY(registry_sids_count_up_over_word_and_array_boundaries),
        WITH_REGISTRY(registry_freed_sid_is_the_next_one_given),
        WITH_REGISTRY(registry_sids_freed_in_odd_orders_come_back_lowest_first),
        WITH_REGISTRY(registry_freeing_the_lower_one_between_adds_is_noticed),
        WITH_REGISTRY(registry_sid_is_always_the_lowest_of_a_naive_model),
        WITH_REGISTRY(registry_restored_record_keeps_its_sid_and_is_stored),
        WITH_REGISTRY(registry_refuses_to_restore_what_cannot_be),
        WITH_REGISTRY(registry_counts_the_connected_once_each),
        WITH_REGISTRY(registry_record_tells_the_story_of_its_client),
        WITH_REGISTRY(registry_walk_visits_each_record_once_in_order),
        WITH_REGISTRY(registry_walk_survives_the_removal_of_where_it_stands),
        WITH_REGISTRY(registry_holds_a_hundred_thousand_and_finds_each),
    };

    return cmocka_run_group_tests(tests, start, NULL);
}
