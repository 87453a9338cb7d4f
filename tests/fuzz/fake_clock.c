/*
 * Stands in for the C library's clock_gettime(), in libevent and libmicrohttpd as well. Leaves
 * CLOCK_REALTIME alone: libFuzzer looks at it to find inputs that take too long, and nobody else
 * does.
 */
#include "fake_clock.h"

#include <stdbool.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define START_MS UINT64_C(1000000000)
#define WALL_S   1700000000

static bool is_fake;
static uint64_t now_ms;

int clock_gettime(clockid_t clock, struct timespec *time)
{
    const bool is_monotonic = clock == CLOCK_MONOTONIC || clock == CLOCK_MONOTONIC_COARSE;

    if (!is_fake || (!is_monotonic && clock != CLOCK_REALTIME_COARSE))
        return (int)syscall(SYS_clock_gettime, clock, time);
    time->tv_sec = (time_t)(now_ms / 1000) + (is_monotonic ? 0 : WALL_S);
    time->tv_nsec = (long)(now_ms % 1000) * 1000000;
    return 0;
}

void fake_clock_start(void)
{
    is_fake = true;
    now_ms = START_MS;
}

void fake_clock_advance_ms(uint64_t ms)
{
    now_ms += ms;
}

void fake_clock_stop(void)
{
    is_fake = false;
}
