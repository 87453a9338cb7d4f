/* A clock that stands still unless it is turned by hand, for all code of ours and of the libraries
 * it uses, so that a script takes the same course each time and no time at all. */
#ifndef FUZZ_FAKE_CLOCK_H
#define FUZZ_FAKE_CLOCK_H

#include <stdint.h>

/* From now on it is some moment, the same each time. */
void fake_clock_start(void);

void fake_clock_advance_ms(uint64_t ms);

/* From now on it is the real time again. */
void fake_clock_stop(void);

#endif
