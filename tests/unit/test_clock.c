/* Both clocks in their units, against the system's own. */
#include "base/clock.h"

#include "unit.h"

#include <time.h>

static void monotonic_clock_counts_microseconds_and_never_goes_back(void **state)
{
    const struct timespec pause = {.tv_nsec = 20000000};
    const uint64_t start = clock_monotonic_us();
    uint64_t last = start;

    (void)state;
    for (int i = 0; i < 10000; i++) {
        const uint64_t now = clock_monotonic_us();

        assert_true(now >= last);
        last = now;
    }
    nanosleep(&pause, NULL);
    const uint64_t passed_us = clock_monotonic_us() - last;
    assert_true(passed_us >= 20000);
    assert_true(passed_us < 20 * CLOCK_US_PER_SEC);
}

static void wall_clock_counts_milliseconds_since_1970(void **state)
{
    const int64_t before = (int64_t)time(NULL) * 1000;
    const int64_t now = clock_wall_ms();
    const int64_t after = ((int64_t)time(NULL) + 1) * 1000;

    (void)state;
    /* time() may lag behind by one tick of the kernel. */
    assert_true(now >= before && now <= after + 20);
}

/* It may lag behind by some milliseconds, as long as a tick of the kernel takes, and is never
 * ahead. Half of the samples are let off, for a machine that was busy with something else. */
static void wall_clock_is_good_to_some_milliseconds(void **state)
{
    enum { SAMPLES = 100, LAG_MS = 20 };
    const struct timespec pause = {.tv_nsec = 1000000};
    int good = 0;

    (void)state;
    for (int i = 0; i < SAMPLES; i++) {
        struct timespec exact;
        clock_gettime(CLOCK_REALTIME, &exact);
        const int64_t before = (int64_t)exact.tv_sec * 1000 + exact.tv_nsec / 1000000;
        const int64_t now = clock_wall_ms();
        clock_gettime(CLOCK_REALTIME, &exact);
        const int64_t after = (int64_t)exact.tv_sec * 1000 + exact.tv_nsec / 1000000;

        assert_true(now <= after);
        good += now >= before - LAG_MS;
        nanosleep(&pause, NULL);
    }
    assert_true(good >= SAMPLES / 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(monotonic_clock_counts_microseconds_and_never_goes_back),
        cmocka_unit_test(wall_clock_counts_milliseconds_since_1970),
        cmocka_unit_test(wall_clock_is_good_to_some_milliseconds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
