/* The two clocks. Deadlines use the first, what people read uses the second. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>

#define CLOCK_US_PER_MS  UINT64_C(1000)
#define CLOCK_US_PER_SEC UINT64_C(1000000)

/* One moment on both clocks. */
struct moment {
    uint64_t mono_us;
    int64_t wall_ms;
};

struct moment clock_now(void);

/* Microseconds since some fixed moment; never jumps, goes on while the process is stopped. */
uint64_t clock_monotonic_us(void);

/* Milliseconds since 1970 UTC, up to some too few; may jump either way when somebody sets the
 * clock. */
int64_t clock_wall_ms(void);

#endif
