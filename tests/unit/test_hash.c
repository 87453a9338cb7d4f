/* Keyed hashing: the same within a process, different with another key, and well mixed. */
#include "base/hash.h"

#include "unit.h"

#include <string.h>

static int start(void **state)
{
    (void)state;
    return hash_init();
}

static void hash_of_the_same_bytes_is_the_same_wherever_they_lie(void **state)
{
    const char first[] = "web-1";
    const char second[] = "?web-1?";

    (void)state;
    assert_true(hash_bytes(first, 5) == hash_bytes(second + 1, 5));
    assert_true(hash_bytes(first, 5) != hash_bytes(first, 4));
    assert_true(hash_bytes(first, 0) == hash_bytes(second, 0));
}

static void hash_changes_with_the_key(void **state)
{
    const uint64_t before = hash_bytes("web-1", 5);
    const uint64_t number_before = hash_number(1);

    (void)state;
    assert_int_equal(hash_init(), 0);
    assert_true(hash_bytes("web-1", 5) != before);
    assert_true(hash_number(1) != number_before);
}

/* 65,536 hashes into 256 boxes: 256 each on average, sixteen its standard deviation. */
static void hash_of_a_counter_fills_all_boxes_evenly(void **state)
{
    (void)state;
    for (unsigned shift = 0; shift < 64; shift += 8) {
        unsigned boxes[256] = {0};

        for (uint64_t i = 0; i < 65536; i++)
            boxes[hash_number(i) >> shift & 255]++;
        for (size_t box = 0; box < 256; box++)
            assert_in_range(boxes[box], 256 - 128, 256 + 128);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hash_of_the_same_bytes_is_the_same_wherever_they_lie),
        cmocka_unit_test(hash_changes_with_the_key),
        cmocka_unit_test(hash_of_a_counter_fills_all_boxes_evenly),
    };

    return cmocka_run_group_tests(tests, start, NULL);
}
