/* Reads the system's clocks, and does nothing else: whoever needs time takes it as an argument. */
#include "base/clock.h"

#include <time.h>

struct moment clock_now(void)
{
    return (struct moment){.mono_us = clock_monotonic_us(), .wall_ms = clock_wall_ms()};
}

uint64_t clock_monotonic_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * CLOCK_US_PER_SEC + (uint64_t)now.tv_nsec / 1000;
}

int64_t clock_wall_ms(void)
{
    struct timespec now;

    /* Read for every event, and good to some milliseconds; the coarse one costs next to nothing. */
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}
