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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(monotonic_clock_counts_microseconds_and_never_goes_back),
        cmocka_unit_test(wall_clock_counts_milliseconds_since_1970),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
