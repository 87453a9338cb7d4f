/* The index of numbers by hash, also against a plain list of what should be in it. */
#include "base/hash_index.h"

#include "unit.h"

#include <stdbool.h>
#include <stdlib.h>

#define NUMBERS 500

static bool holds(const struct hash_index *index, uint32_t hash, uint32_t number)
{
    size_t cursor = 0;
    uint32_t found;

    while ((found = hash_index_next(index, hash, &cursor)) != 0) {
        if (found == number)
            return true;
    }
    return false;
}

static void empty_index_holds_nothing(void **state)
{
    struct hash_index index = {0};
    size_t cursor = 0;

    (void)state;
    assert_int_equal(hash_index_next(&index, 7, &cursor), 0);
    hash_index_clear(&index);
}

static void numbers_of_one_hash_are_all_found_once(void **state)
{
    struct hash_index index = {0};
    unsigned seen = 0;
    size_t cursor = 0;
    uint32_t number;

    (void)state;
    for (uint32_t i = 1; i <= 3; i++)
        assert_int_equal(hash_index_add(&index, 42, i), 0);
    assert_int_equal(hash_index_add(&index, 42 + 64, 4), 0); /* the same home, another hash */
    while ((number = hash_index_next(&index, 42, &cursor)) != 0)
        seen |= 1U << number;
    assert_int_equal(seen, 1U << 1 | 1U << 2 | 1U << 3);
    assert_int_equal(index.count, 4);
    hash_index_clear(&index);
    assert_int_equal(index.count, 0);
}

static void removal_lets_those_behind_be_found(void **state)
{
    struct hash_index index = {0};

    (void)state;
    /* One run of slots that goes over the end of the table: homes 62, 62, 63, 62, 0. */
    const uint32_t homes[] = {62, 62 + 64, 63, 62 + 128, 0};
    for (uint32_t removed = 0; removed < 5; removed++) {
        for (uint32_t i = 0; i < 5; i++)
            assert_int_equal(hash_index_add(&index, homes[i], i + 1), 0);
        hash_index_remove(&index, homes[removed], removed + 1);
        for (uint32_t i = 0; i < 5; i++)
            assert_int_equal(holds(&index, homes[i], i + 1), i != removed);
        hash_index_clear(&index);
    }
}

/* Few different hashes, so that there are long runs; all of them low, so that they meet. */
static void random_additions_and_removals_agree_with_a_list(void **state)
{
    struct hash_index index = {0};
    uint32_t hashes[NUMBERS + 1] = {0};
    bool there[NUMBERS + 1] = {false};
    size_t count = 0;

    (void)state;
    srand(1);
    for (int round = 0; round < 20000; round++) {
        const uint32_t number = (uint32_t)(rand() % NUMBERS) + 1;
        if (there[number]) {
            hash_index_remove(&index, hashes[number], number);
            count--;
        } else {
            hashes[number] = (uint32_t)(rand() % 300);
            assert_int_equal(hash_index_add(&index, hashes[number], number), 0);
            count++;
        }
        there[number] = !there[number];
        assert_int_equal(index.count, count);
        if (round % 100 != 0)
            continue;
        for (uint32_t i = 1; i <= NUMBERS; i++)
            assert_int_equal(holds(&index, hashes[i], i), there[i]);
    }
    hash_index_clear(&index);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(empty_index_holds_nothing),
        cmocka_unit_test(numbers_of_one_hash_are_all_found_once),
        cmocka_unit_test(removal_lets_those_behind_be_found),
        cmocka_unit_test(random_additions_and_removals_agree_with_a_list),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
