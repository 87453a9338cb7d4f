/* Latency buckets: what a percentile may be off by, at both ends of the range and after a merge. */
#include "histogram.h"

#include "unit.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static struct histogram *made(void)
{
    struct histogram *histogram = calloc(1, sizeof(*histogram));

    assert_non_null(histogram);
    return histogram;
}

/* Never below the true value, and above it by at most one part in 512. */
static void assert_close(uint64_t value, uint64_t truth)
{
    if (value < truth || value - truth > truth / 512)
        fail_msg("%" PRIu64 " is not %" PRIu64 " to three digits", value, truth);
}

static void empty_histogram_is_all_zero(void **state)
{
    struct histogram *histogram = made();

    (void)state;
    assert_int_equal(histogram_count(histogram), 0);
    assert_int_equal(histogram_min(histogram), 0);
    assert_int_equal(histogram_max(histogram), 0);
    assert_int_equal(histogram_percentile(histogram, HISTOGRAM_P50), 0);
    assert_int_equal(histogram_percentile(histogram, HISTOGRAM_P100), 0);
    assert_true(histogram_mean(histogram) == 0);
    free(histogram);
}

static void single_value_is_every_percentile(void **state)
{
    static const uint64_t values[] = {0, 1, 1023, 1024, 1025, 123456789, UINT64_MAX};

    (void)state;
    for (size_t i = 0; i < COUNT(values); i++) {
        struct histogram *histogram = made();

        histogram_record(histogram, values[i]);
        assert_true(histogram_percentile(histogram, 0) == values[i]);
        assert_true(histogram_percentile(histogram, HISTOGRAM_P50) == values[i]);
        assert_true(histogram_percentile(histogram, HISTOGRAM_P100) == values[i]);
        assert_true(histogram_min(histogram) == values[i]);
        assert_true(histogram_max(histogram) == values[i]);
        free(histogram);
    }
}

static void small_values_are_exact(void **state)
{
    struct histogram *histogram = made();

    (void)state;
    for (uint64_t value = 1; value <= 1000; value++)
        histogram_record(histogram, value);
    assert_int_equal(histogram_percentile(histogram, HISTOGRAM_P50), 500);
    assert_int_equal(histogram_percentile(histogram, HISTOGRAM_P90), 900);
    assert_int_equal(histogram_percentile(histogram, HISTOGRAM_P99), 990);
    /* The rank that floating point gets wrong. */
    assert_int_equal(histogram_percentile(histogram, HISTOGRAM_P99_9), 999);
    assert_int_equal(histogram_percentile(histogram, HISTOGRAM_P100), 1000);
    assert_true(histogram_mean(histogram) == 500.5);
    free(histogram);
}

static void one_slow_value_shows_only_in_the_tail(void **state)
{
    struct histogram *histogram = made();

    (void)state;
    for (int i = 0; i < 999; i++)
        histogram_record(histogram, 100);
    histogram_record(histogram, 5000000);
    assert_int_equal(histogram_percentile(histogram, HISTOGRAM_P99_9), 100);
    assert_int_equal(histogram_percentile(histogram, HISTOGRAM_P99_9 + 1), 5000000);
    assert_int_equal(histogram_max(histogram), 5000000);
    free(histogram);
}

/* Two values, so that the clip at the maximum cannot hide a wrong bucket: around every power of two
 * and at a spread in between. */
static void every_size_keeps_three_digits(void **state)
{
    (void)state;
    for (unsigned bit = 0; bit < 63; bit++) {
        const uint64_t power = UINT64_C(1) << bit;
        const uint64_t values[] = {power - 1,           power,        power + 1, power + power / 3,
                                   power + power / 512, 2 * power - 1};

        for (size_t i = 0; i < COUNT(values); i++) {
            struct histogram *histogram = made();

            histogram_record(histogram, values[i]);
            histogram_record(histogram, UINT64_MAX);
            assert_close(histogram_percentile(histogram, HISTOGRAM_P50), values[i]);
            free(histogram);
        }
    }
}

static void bucket_order_follows_value_order(void **state)
{
    struct histogram *histogram = made();
    uint64_t value = 0;

    (void)state;
    /* Recorded from large to small; ranks must come out from small to large. */
    for (unsigned bit = 60; bit > 0; bit--)
        histogram_record(histogram, (UINT64_C(1) << bit) + (UINT64_C(1) << bit) / 5);
    for (uint32_t percent = 0; percent <= HISTOGRAM_P100; percent += 1000) {
        const uint64_t next = histogram_percentile(histogram, percent);

        assert_true(next >= value);
        value = next;
    }
    free(histogram);
}

static void merge_equals_recording_everything_in_one(void **state)
{
    struct histogram *all = made();
    struct histogram *odd = made();
    struct histogram *even = made();
    uint64_t value = 7;

    (void)state;
    for (int i = 0; i < 20000; i++) {
        value = value * 6364136223846793005 + 1442695040888963407;
        const uint64_t sample = (value >> 20) >> (value >> 58);

        histogram_record(all, sample);
        histogram_record(i % 2 ? odd : even, sample);
    }
    histogram_merge(odd, even);
    odd->sum = all->sum; /* the order of adding shows in the last bits */
    assert_memory_equal(odd, all, sizeof(*all));
    free(all);
    free(odd);
    free(even);
}

static void merge_with_empty_changes_nothing(void **state)
{
    struct histogram *some = made();
    struct histogram *none = made();

    (void)state;
    histogram_record(some, 42);
    histogram_merge(some, none);
    assert_int_equal(histogram_min(some), 42);
    histogram_merge(none, some);
    assert_int_equal(histogram_min(none), 42);
    assert_int_equal(histogram_max(none), 42);
    assert_int_equal(histogram_count(none), 1);
    free(some);
    free(none);
}

static void rank_of_huge_counts_does_not_overflow(void **state)
{
    struct histogram *histogram = made();

    (void)state;
    histogram_record(histogram, 5);
    histogram_record(histogram, 9);
    histogram->counts[5] = UINT64_MAX / 2;
    histogram->counts[9] = UINT64_MAX / 2;
    histogram->total = UINT64_MAX - 1;
    assert_int_equal(histogram_percentile(histogram, HISTOGRAM_P50), 5);
    assert_int_equal(histogram_percentile(histogram, HISTOGRAM_P90), 9);
    free(histogram);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(empty_histogram_is_all_zero),
        cmocka_unit_test(single_value_is_every_percentile),
        cmocka_unit_test(small_values_are_exact),
        cmocka_unit_test(one_slow_value_shows_only_in_the_tail),
        cmocka_unit_test(every_size_keeps_three_digits),
        cmocka_unit_test(bucket_order_follows_value_order),
        cmocka_unit_test(merge_equals_recording_everything_in_one),
        cmocka_unit_test(merge_with_empty_changes_nothing),
        cmocka_unit_test(rank_of_huge_counts_does_not_overflow),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
