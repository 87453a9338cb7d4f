/* Buckets of durations: bounds belong to the bucket below, and nothing is lost above the last. */
#include "base/duration_histogram.h"

#include "unit.h"

static void bounds_ascend(void **state)
{
    (void)state;
    for (int i = 1; i < DURATION_BUCKETS; i++)
        assert_true(duration_bounds_us[i - 1] < duration_bounds_us[i]);
}

static void bound_belongs_to_its_own_bucket_and_one_more_to_the_next(void **state)
{
    (void)state;
    for (int i = 0; i < DURATION_BUCKETS; i++) {
        struct duration_histogram histogram = {.total = 0};

        duration_histogram_record(&histogram, duration_bounds_us[i]);
        assert_int_equal(histogram.counts[i], 1);
        duration_histogram_record(&histogram, duration_bounds_us[i] + 1);
        assert_int_equal(histogram.counts[i], 1);
        if (i + 1 < DURATION_BUCKETS)
            assert_int_equal(histogram.counts[i + 1], 1);
        assert_int_equal(histogram.total, 2);
        assert_int_equal(histogram.sum_us, UINT64_C(2) * duration_bounds_us[i] + 1);
    }
}

static void longest_duration_counts_in_the_total_alone(void **state)
{
    struct duration_histogram histogram = {.total = 0};

    (void)state;
    duration_histogram_record(&histogram, UINT64_C(1) << 40);
    duration_histogram_record(&histogram, 0);
    assert_int_equal(histogram.counts[0], 1);
    for (int i = 1; i < DURATION_BUCKETS; i++)
        assert_int_equal(histogram.counts[i], 0);
    assert_int_equal(histogram.total, 2);
    assert_int_equal(histogram.sum_us, UINT64_C(1) << 40);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bounds_ascend),
        cmocka_unit_test(bound_belongs_to_its_own_bucket_and_one_more_to_the_next),
        cmocka_unit_test(longest_duration_counts_in_the_total_alone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
