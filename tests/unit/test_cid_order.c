/*
 * The order of IDs, against the plainest one there is: all that should be in it, sorted anew by
 * strcmp. Records are the test's own.
 */
#include "registry/cid_order.h"

#include "registry/registry.h"

#include "failing_alloc.h"
#include "unit.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SIDS 6000

struct fixture {
    struct cid_order order;
    struct registry_record *by_sid[SIDS];
    bool inside[SIDS]; /* [sid - 1]: is in the order */
    size_t count;
    struct registry_record *expected[SIDS]; /* sorted by sort_expected() */
    struct registry_record *page[SIDS + 1];
};

static int set_up(void **state)
{
    *state = calloc(1, sizeof(struct fixture));
    allocations_left = -1;
    srand(11);
    return *state ? 0 : -1;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;

    allocations_left = -1;
    cid_order_clear(&fixture->order);
    assert_null(fixture->order.blocks);
    assert_int_equal(fixture->order.count, 0);
    for (size_t i = 0; i < SIDS; i++)
        free(fixture->by_sid[i]);
    free(fixture);
    return 0;
}

/* Makes the record of a sid, which has none. */
static void make(struct fixture *fixture, uint32_t sid, const char *cid)
{
    const size_t len = strlen(cid);
    struct registry_record *record = calloc(1, sizeof(*record) + len + 1);

    assert_non_null(record);
    assert_null(fixture->by_sid[sid - 1]);
    record->sid = sid;
    record->cid_len = (uint8_t)len;
    memcpy(record->cid, cid, len);
    fixture->by_sid[sid - 1] = record;
}

static int try_add(struct fixture *fixture, uint32_t sid)
{
    const int result = cid_order_add(&fixture->order, fixture->by_sid, sid);

    if (result == 0) {
        fixture->inside[sid - 1] = true;
        fixture->count++;
    }
    return result;
}

static void add(struct fixture *fixture, uint32_t sid, const char *cid)
{
    make(fixture, sid, cid);
    assert_int_equal(try_add(fixture, sid), 0);
}

/* With an ID of the number, in six digits. */
static void add_numbered(struct fixture *fixture, uint32_t sid, uint32_t number)
{
    char cid[PROTO_MAX_ID_BYTES + 1];

    snprintf(cid, sizeof(cid), "n-%06u", number);
    add(fixture, sid, cid);
}

static uint32_t number_of(const char *cid)
{
    return (uint32_t)strtoul(cid + strlen("n-"), NULL, 10);
}

/* Takes a record out and frees it, as the registry does: its sid may be given again. */
static void take_out(struct fixture *fixture, uint32_t sid)
{
    cid_order_remove(&fixture->order, fixture->by_sid, sid);
    fixture->inside[sid - 1] = false;
    fixture->count--;
    free(fixture->by_sid[sid - 1]);
    fixture->by_sid[sid - 1] = NULL;
}

static size_t page(struct fixture *fixture, const char *after, size_t size)
{
    return cid_order_page(&fixture->order, fixture->by_sid, after, fixture->page, size);
}

static int compare(const void *left, const void *right)
{
    struct registry_record *const *a = left;
    struct registry_record *const *b = right;

    return strcmp((*a)->cid, (*b)->cid);
}

static void sort_expected(struct fixture *fixture)
{
    size_t count = 0;

    for (size_t i = 0; i < SIDS; i++) {
        if (fixture->inside[i])
            fixture->expected[count++] = fixture->by_sid[i];
    }
    assert_int_equal(count, fixture->count);
    qsort(fixture->expected, count, sizeof(fixture->expected[0]), compare);
}

/* Everything is there, in order, and takes no more memory than was promised. */
static void check(struct fixture *fixture)
{
    const struct cid_order *order = &fixture->order;

    sort_expected(fixture);
    assert_int_equal(order->count, fixture->count);
    assert_int_equal(page(fixture, "", SIDS + 1), fixture->count);
    for (size_t i = 0; i < fixture->count; i++)
        assert_ptr_equal(fixture->page[i], fixture->expected[i]);
    /* Of any two neighbours together more than half is full. */
    assert_true(order->block_count / 2 * (CID_ORDER_BLOCK / 2 + 1) <= order->count);
    assert_int_equal(order->block_count == 0, order->count == 0);
}

/* The page behind an ID is what a look at each of the sorted records finds. */
static void check_page(struct fixture *fixture, const char *after, size_t size)
{
    size_t begin = 0;

    while (begin < fixture->count && strcmp(fixture->expected[begin]->cid, after) <= 0)
        begin++;
    const size_t left = fixture->count - begin;
    const size_t count = page(fixture, after, size);
    assert_int_equal(count, left < size ? left : size);
    for (size_t i = 0; i < count; i++)
        assert_ptr_equal(fixture->page[i], fixture->expected[begin + i]);
}

static void empty_order_has_empty_pages(void **state)
{
    struct fixture *fixture = *state;

    assert_int_equal(page(fixture, "", 10), 0);
    assert_int_equal(page(fixture, "a", 10), 0);
    check(fixture);
    cid_order_clear(&fixture->order);
}

static void one_record_comes_goes_and_comes(void **state)
{
    struct fixture *fixture = *state;

    for (int i = 0; i < 3; i++) {
        add(fixture, 7, "m");
        check(fixture);
        check_page(fixture, "", 1);
        check_page(fixture, "", 0);
        check_page(fixture, "l", 1);
        check_page(fixture, "m", 1);
        check_page(fixture, "n", 1);
        take_out(fixture, 7);
        check(fixture);
    }
}

/* All bytes that an ID may have, and IDs that begin like others. */
static void ids_stand_in_the_order_of_their_bytes(void **state)
{
    static const char *const sorted[] = {"-",  "-a",  ".",   "0",  "00",  "1",         "10", "100",
                                         "2",  "9",   ":",   "@",  "A",   "AA",        "Z",  "_",
                                         "a",  "a-1", "a.1", "a1", "a:1", "a@",        "aA", "a_",
                                         "aa", "aaa", "ab",  "b",  "z",   "zzzzzzzzzz"};
    struct fixture *fixture = *state;

    for (uint32_t i = 0; i < COUNT(sorted); i++) {
        const uint32_t other = i * 7 % COUNT(sorted); /* 7 and their number share no divisor */
        add(fixture, i + 1, sorted[other]);
    }
    check(fixture);
    assert_int_equal(page(fixture, "", SIDS), COUNT(sorted));
    for (size_t i = 0; i < COUNT(sorted); i++)
        assert_string_equal(fixture->page[i]->cid, sorted[i]);
}

static void ids_that_count_up_fill_their_blocks(void **state)
{
    const uint32_t count = 10 * CID_ORDER_BLOCK;
    struct fixture *fixture = *state;

    for (uint32_t i = 0; i < count; i++)
        add_numbered(fixture, i + 1, i);
    assert_int_equal(fixture->order.block_count, 10);
    check(fixture);
}

static void ids_in_no_order_leave_less_than_half_empty(void **state)
{
    struct fixture *fixture = *state;

    for (uint32_t i = 0; i < 10 * CID_ORDER_BLOCK; i++)
        add_numbered(fixture, i + 1, (uint32_t)(rand() % 100000) * 10000 + i);
    check(fixture);
    assert_in_range(fixture->order.block_count, 11, 18);
}

static void ids_that_count_down_fill_their_blocks(void **state)
{
    const uint32_t count = 10 * CID_ORDER_BLOCK;
    struct fixture *fixture = *state;

    for (uint32_t i = 0; i < count; i++)
        add_numbered(fixture, i + 1, count - i);
    assert_int_equal(fixture->order.block_count, 10);
    check(fixture);
}

/* A full block is split by an ID that belongs into each of its places. */
static void full_block_is_split_wherever_the_next_one_belongs(void **state)
{
    struct fixture *fixture = *state;

    for (uint32_t at = 0; at <= CID_ORDER_BLOCK; at++) {
        for (uint32_t i = 0; i < CID_ORDER_BLOCK; i++)
            add_numbered(fixture, i + 1, 2 * i + 1);
        assert_int_equal(fixture->order.block_count, 1);
        add_numbered(fixture, SIDS, 2 * at);
        assert_int_equal(fixture->order.block_count, 2);
        check(fixture);
        for (uint32_t i = 0; i < CID_ORDER_BLOCK; i++)
            take_out(fixture, i + 1);
        take_out(fixture, SIDS);
        assert_int_equal(fixture->order.block_count, 0);
    }
}

/* What comes between a full block and one that is not goes into the latter. */
static void neighbour_with_room_takes_what_comes_behind_a_full_block(void **state)
{
    struct fixture *fixture = *state;

    for (uint32_t i = 0; i < 2 * CID_ORDER_BLOCK; i++)
        add_numbered(fixture, i + 1, 2 * i);
    for (uint32_t i = CID_ORDER_BLOCK + 10; i < 2 * CID_ORDER_BLOCK; i++)
        take_out(fixture, i + 1);
    assert_int_equal(fixture->order.block_count, 2);
    add_numbered(fixture, SIDS, 2 * CID_ORDER_BLOCK - 1);
    assert_int_equal(fixture->order.block_count, 2);
    check(fixture);
}

static void blocks_that_empty_are_given_back(void **state)
{
    const uint32_t count = 10 * CID_ORDER_BLOCK;
    struct fixture *fixture = *state;

    for (uint32_t i = 0; i < count; i++)
        add_numbered(fixture, i + 1, i);
    /* One of a hundred stays in each, so none is ever empty. */
    for (uint32_t i = 0; i < count; i++) {
        if (i % 100 != 0)
            take_out(fixture, i + 1);
        if (i % 500 == 0)
            check(fixture);
    }
    assert_int_equal(fixture->order.block_count, 1);
    check(fixture);
    for (uint32_t i = 0; i < count; i += 100)
        take_out(fixture, i + 1);
    check(fixture);
}

/* Of two blocks either one becomes small, and then the other. */
static void small_block_joins_its_neighbour_on_either_side(void **state)
{
    struct fixture *fixture = *state;

    for (uint32_t first = 0; first < 2; first++) {
        const uint32_t few = 10;
        for (uint32_t i = 0; i < 2 * CID_ORDER_BLOCK; i++)
            add_numbered(fixture, i + 1, i);
        for (uint32_t i = few; i < CID_ORDER_BLOCK; i++)
            take_out(fixture, first * CID_ORDER_BLOCK + i + 1);
        assert_int_equal(fixture->order.block_count, 2);
        for (uint32_t i = CID_ORDER_BLOCK / 2 - few; i < CID_ORDER_BLOCK; i++) {
            assert_int_equal(fixture->order.block_count, 2);
            take_out(fixture, (1 - first) * CID_ORDER_BLOCK + i + 1);
        }
        assert_int_equal(fixture->order.block_count, 1);
        check(fixture);
        for (uint32_t sid = 1; sid <= 2 * CID_ORDER_BLOCK; sid++) {
            if (fixture->by_sid[sid - 1])
                take_out(fixture, sid);
        }
    }
}

/* The middle one of three full blocks becomes empty between neighbours that cannot take it in. */
static void empty_block_between_full_ones_is_dropped(void **state)
{
    struct fixture *fixture = *state;

    for (uint32_t i = 0; i < 3 * CID_ORDER_BLOCK; i++)
        add_numbered(fixture, i + 1, i);
    for (uint32_t i = CID_ORDER_BLOCK; i < 2 * CID_ORDER_BLOCK; i++)
        take_out(fixture, i + 1);
    assert_int_equal(fixture->order.block_count, 2);
    check(fixture);
}

static void page_begins_behind_any_id_whether_there_or_not(void **state)
{
    static const size_t sizes[] = {0, 1, 2, CID_ORDER_BLOCK, CID_ORDER_BLOCK + 1, SIDS};
    const uint32_t count = 3 * CID_ORDER_BLOCK;
    struct fixture *fixture = *state;
    char after[PROTO_MAX_ID_BYTES + 1];

    for (uint32_t i = 0; i < count; i++)
        add_numbered(fixture, i + 1, 2 * i + 1);
    sort_expected(fixture);
    for (size_t s = 0; s < COUNT(sizes); s++) {
        for (uint32_t i = 0; i <= 2 * count + 1; i += s == 1 ? 1 : 17) {
            snprintf(after, sizeof(after), "n-%06u", i);
            check_page(fixture, after, sizes[s]);
        }
        check_page(fixture, "", sizes[s]);
        check_page(fixture, "n-000001-and-more", sizes[s]);
        check_page(fixture, "n", sizes[s]);
        check_page(fixture, "o", sizes[s]);
        check_page(fixture, "\xff", sizes[s]); /* no ID has it, but a request may */
    }
}

/* Comes and goes at random, mostly coming for a while, then mostly going; the same few IDs under
 * changing sids, and so the same sids with changing IDs. */
static void random_operations_agree_with_a_sorted_list(void **state)
{
    struct fixture *fixture = *state;
    static const char letters[] = "zAb-Cy9Ba_c.Z@";
    uint32_t sid_of[SIDS] = {0}; /* by number of the ID */
    char cid[PROTO_MAX_ID_BYTES + 1];

    for (int step = 0; step < 60000; step++) {
        const uint32_t number = (uint32_t)rand() % SIDS;
        const bool growing = step / 10000 % 2 == 0;

        snprintf(cid, sizeof(cid), "%c%u", letters[number % strlen(letters)], number);
        if (sid_of[number] != 0 && (!growing || rand() % 4 == 0)) {
            take_out(fixture, sid_of[number]);
            sid_of[number] = 0;
        } else if (sid_of[number] == 0 && (growing || rand() % 4 == 0)) {
            uint32_t sid = (uint32_t)rand() % SIDS;
            while (fixture->by_sid[sid])
                sid = (sid + 1) % SIDS;
            add(fixture, sid + 1, cid);
            sid_of[number] = sid + 1;
        }
        if (step % 500 == 0) {
            check(fixture);
            check_page(fixture, cid, (size_t)(rand() % 700));
        }
    }
}

/* A list is read page by page while records come and go: those that were there all the time are
 * seen, and no ID is seen twice, also when its sid is another's by now. */
static void list_read_in_pages_misses_and_repeats_nobody(void **state)
{
    enum { NAMES = 4000 };
    static bool stays[NAMES];
    static bool seen[NAMES];
    static uint32_t sid_of[NAMES];
    struct fixture *fixture = *state;
    char after[PROTO_MAX_ID_BYTES + 1] = "";
    size_t count;

    for (uint32_t i = 0; i < NAMES; i++) {
        stays[i] = rand() % 2;
        sid_of[i] = stays[i] || rand() % 2 ? i + 1 : 0;
        if (sid_of[i] != 0)
            add_numbered(fixture, sid_of[i], i);
    }
    do {
        count = page(fixture, after, 1 + (size_t)(rand() % 50));
        for (size_t i = 0; i < count; i++) {
            const uint32_t number = number_of(fixture->page[i]->cid);
            assert_true(strcmp(fixture->page[i]->cid, after) > 0);
            assert_false(seen[number]);
            seen[number] = true;
            strcpy(after, fixture->page[i]->cid);
        }
        /* Now and then the one where the list stands is among those that go. */
        for (int change = 0; change < 60; change++) {
            const uint32_t number = change == 0 ? number_of(after) : (uint32_t)rand() % NAMES;
            if (stays[number])
                continue;
            if (sid_of[number] != 0) {
                take_out(fixture, sid_of[number]);
                sid_of[number] = 0;
            } else {
                uint32_t sid = 1;
                while (fixture->by_sid[sid - 1])
                    sid++;
                add_numbered(fixture, sid, number);
                sid_of[number] = sid;
            }
        }
    } while (count > 0);
    for (uint32_t i = 0; i < NAMES; i++)
        assert_true(seen[i] || !stays[i]);
    check(fixture);
}

/* Each allocation fails once where it is made: nothing changes, and the next try succeeds. */
static void without_memory_nothing_changes(void **state)
{
    const uint32_t count = 10 * CID_ORDER_BLOCK;
    struct fixture *fixture = *state;
    unsigned failures = 0;

    for (uint32_t i = 0; i < count; i++) {
        char cid[PROTO_MAX_ID_BYTES + 1];

        snprintf(cid, sizeof(cid), "%x", i * 2654435761U);
        make(fixture, i + 1, cid);
        for (int left = 0;; left++) {
            const size_t blocks = fixture->order.block_count;
            allocations_left = left;
            const int result = try_add(fixture, i + 1);
            allocations_left = -1;
            if (result == 0)
                break;
            assert_int_equal(result, -1);
            failures++;
            assert_int_equal(fixture->order.block_count, blocks);
            check(fixture);
        }
    }
    check(fixture);
    assert_true(failures > fixture->order.block_count); /* blocks, and the array of them */
}

#define WITH_ORDER(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_ORDER(empty_order_has_empty_pages),
        WITH_ORDER(one_record_comes_goes_and_comes),
        WITH_ORDER(ids_stand_in_the_order_of_their_bytes),
        WITH_ORDER(ids_that_count_up_fill_their_blocks),
        WITH_ORDER(ids_in_no_order_leave_less_than_half_empty),
        WITH_ORDER(ids_that_count_down_fill_their_blocks),
        WITH_ORDER(full_block_is_split_wherever_the_next_one_belongs),
        WITH_ORDER(neighbour_with_room_takes_what_comes_behind_a_full_block),
        WITH_ORDER(blocks_that_empty_are_given_back),
        WITH_ORDER(small_block_joins_its_neighbour_on_either_side),
        WITH_ORDER(empty_block_between_full_ones_is_dropped),
        WITH_ORDER(page_begins_behind_any_id_whether_there_or_not),
        WITH_ORDER(random_operations_agree_with_a_sorted_list),
        WITH_ORDER(list_read_in_pages_misses_and_repeats_nobody),
        WITH_ORDER(without_memory_nothing_changes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
