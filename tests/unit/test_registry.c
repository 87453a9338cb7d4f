/* The registry: sids from 1 and the lowest free first, one record an ID, the counts, and lists in
 * the order of IDs. */
#include "registry/registry.h"

#include "base/hash.h"

#include "failing_alloc.h"
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
    return registry_find_or_add(registry, cid, strlen(cid));
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
    struct registry_record *record = registry_find_or_add(registry, "web-1xx", 5);

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

    registry_connect(registry, a, &peer, 7, 100);
    registry_connect(registry, b, &peer, 7, 101);
    registry_connect(registry, a, &peer, 7, 102);
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

    registry_connect(registry, record, &first, 7, 100);
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

    registry_connect(registry, record, &second, 7, 200);
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

/* How many records the whole list has, read in pages of size; each is where it belongs. */
static size_t length_of_list(const struct registry *registry, size_t size)
{
    struct registry_record *page[100];
    char after[PROTO_MAX_ID_BYTES + 1] = "";
    size_t length = 0;
    size_t count;

    do {
        count = registry_page(registry, after, page, size);
        assert_true(count <= size);
        for (size_t i = 0; i < count; i++) {
            assert_true(strcmp(page[i]->cid, after) > 0);
            assert_ptr_equal(registry_by_sid(registry, page[i]->sid), page[i]);
            strcpy(after, page[i]->cid);
        }
        length += count;
    } while (count == size);
    return length;
}

static void order_all(struct registry *registry)
{
    assert_int_equal(registry_order_some(registry, SIZE_MAX), 0);
    assert_int_equal(registry_unordered(registry), 0);
}

static void registry_list_of_nobody_is_in_order_and_empty(void **state)
{
    struct registry *registry = *state;
    struct registry_record *page[1];

    assert_int_equal(registry_unordered(registry), 0);
    assert_int_equal(registry_order_some(registry, 10), 0);
    assert_int_equal(registry_page(registry, "", page, 1), 0);
}

static void registry_puts_in_order_as_many_as_it_is_told(void **state)
{
    static const size_t budgets[] = {0, 1, 63, 64, 65, 1000, 0, 1, 10000};
    struct registry *registry = *state;
    size_t ordered = 0;

    fill(registry, 2500);
    assert_int_equal(registry_unordered(registry), 2500);
    assert_int_equal(length_of_list(registry, 10), 0);
    for (size_t i = 0; i < COUNT(budgets); i++) {
        assert_int_equal(registry_order_some(registry, budgets[i]), 0);
        ordered = ordered + budgets[i] < 2500 ? ordered + budgets[i] : 2500;
        assert_int_equal(registry_unordered(registry), 2500 - ordered);
        assert_int_equal(length_of_list(registry, 100), ordered);
    }
    assert_int_equal(registry_unordered(registry), 0);
}

static void registry_list_has_restored_records_too(void **state)
{
    struct registry *registry = *state;
    struct registry_record *page[3];

    assert_non_null(registry_restore(registry, 5000, "b", 1));
    assert_non_null(registry_restore(registry, 2, "c", 1));
    (void)add(registry, "a");
    order_all(registry);
    assert_int_equal(registry_page(registry, "", page, 3), 3);
    assert_string_equal(page[0]->cid, "a");
    assert_string_equal(page[1]->cid, "b");
    assert_string_equal(page[2]->cid, "c");
    assert_int_equal(registry_page(registry, "aa", page, 1), 1);
    assert_string_equal(page[0]->cid, "b");
}

/* Whoever came after the others were put in order is noticed wherever its sid is. */
static void registry_newcomers_wait_until_they_are_put_in_order(void **state)
{
    static const uint32_t sids[] = {1, 64, 65, 1024, 1025, 2000};
    struct registry *registry = *state;

    fill(registry, 2000);
    order_all(registry);
    for (size_t i = 0; i < COUNT(sids); i++) {
        remove_sid(registry, sids[i]);
        assert_int_equal(registry_unordered(registry), 0);
        assert_int_equal(length_of_list(registry, 100), 1999);
        assert_int_equal(add_numbered(registry, "other", sids[i])->sid, sids[i]);
        assert_int_equal(registry_unordered(registry), 1);
        assert_int_equal(length_of_list(registry, 100), 1999);
        order_all(registry);
        assert_int_equal(length_of_list(registry, 100), 2000);
    }
}

static void registry_that_was_never_listed_forgets_who_has_gone(void **state)
{
    struct registry *registry = *state;

    for (unsigned round = 0; round < 100; round++) {
        for (unsigned i = 0; i < 70; i++)
            (void)add_numbered(registry, "r", round * 100 + i);
        for (uint32_t sid = 1; sid <= 70; sid++)
            remove_sid(registry, sid);
        assert_int_equal(registry_unordered(registry), 0);
    }
    (void)add(registry, "last");
    assert_int_equal(registry_unordered(registry), 1);
    order_all(registry);
    assert_int_equal(length_of_list(registry, 1), 1);
}

/* At any moment some are in order, some are not, and some sids have changed hands. */
static void registry_comes_and_goes_while_it_is_put_in_order(void **state)
{
    struct registry *registry = *state;
    unsigned names = 0;

    srand(5);
    for (int step = 0; step < 20000; step++) {
        const uint32_t sid = 1 + (uint32_t)rand() % 1500;

        if (rand() % 5 < 2 && registry_by_sid(registry, sid))
            remove_sid(registry, sid);
        else if (registry_count(registry) < 1500)
            (void)add_numbered(registry, rand() % 2 ? "a" : "z", names++);
        if (rand() % 3 == 0)
            assert_int_equal(registry_order_some(registry, (size_t)(rand() % 4)), 0);
        if (step % 100 == 0)
            assert_int_equal(length_of_list(registry, 1 + (size_t)(rand() % 100)),
                             registry_count(registry) - registry_unordered(registry));
    }
    order_all(registry);
    assert_int_equal(length_of_list(registry, 100), registry_count(registry));
}

/* Nothing is lost, and everything else goes on; the next call does what this one could not. */
static void registry_without_memory_puts_in_order_later(void **state)
{
    struct registry *registry = *state;

    fill(registry, 2000);
    allocations_left = 0;
    assert_int_equal(registry_order_some(registry, 10), -1);
    assert_int_equal(registry_unordered(registry), 2000);
    allocations_left = 3; /* the array, and two blocks */
    assert_int_equal(registry_order_some(registry, SIZE_MAX), -1);
    allocations_left = -1;

    const size_t unordered = registry_unordered(registry);
    assert_in_range(unordered, 1, 1999);
    assert_int_equal(length_of_list(registry, 100), 2000 - unordered);
    remove_sid(registry, 1);
    remove_sid(registry, 2000);
    assert_int_equal(registry_unordered(registry), unordered - 1);
    order_all(registry);
    assert_int_equal(length_of_list(registry, 100), 1998);
}

/* A new record that finds no memory anywhere on its way leaves everything as it was. */
static void registry_without_memory_for_a_record_has_none(void **state)
{
    struct registry *registry = *state;

    fill(registry, 1024);
    for (int left = 0;; left++) {
        allocations_left = left;
        const struct registry_record *record = add(registry, "new");
        allocations_left = -1;
        if (record) {
            assert_int_equal(record->sid, 1025);
            assert_true(left > 3); /* the record, the array and two bitmaps */
            break;
        }
        assert_null(registry_find(registry, "new", 3));
        assert_int_equal(registry_count(registry), 1024);
        assert_int_equal(registry_unordered(registry), 1024);
    }
    order_all(registry);
    assert_int_equal(length_of_list(registry, 100), 1025);
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
        WITH_REGISTRY(registry_list_of_nobody_is_in_order_and_empty),
        WITH_REGISTRY(registry_puts_in_order_as_many_as_it_is_told),
        WITH_REGISTRY(registry_list_has_restored_records_too),
        WITH_REGISTRY(registry_newcomers_wait_until_they_are_put_in_order),
        WITH_REGISTRY(registry_that_was_never_listed_forgets_who_has_gone),
        WITH_REGISTRY(registry_comes_and_goes_while_it_is_put_in_order),
        WITH_REGISTRY(registry_without_memory_puts_in_order_later),
        WITH_REGISTRY(registry_without_memory_for_a_record_has_none),
    };

    return cmocka_run_group_tests(tests, start, NULL);
}
