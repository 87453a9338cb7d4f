/* Moments and spans as people read them. Each writes into buf of SINCE_BYTES and returns it. */
#ifndef CTL_SINCE_H
#define CTL_SINCE_H

#include <stdint.h>

#define SINCE_BYTES 40

/* How long ago: "now", "12s", "3m", "5h", "99d"; what is longer ago is a local date. A moment that
 * is still to come, because clocks differ, is "now". */
const char *since_age(int64_t unix_s, int64_t now_s, char *buf);

/* A span, rounded down to its largest two units: "45s", "3m 10s", "1h 5m", "12d 3h". */
const char *since_span(uint64_t seconds, char *buf);

/* The local time of day, or with the date when that is another day than now: "12:01:42",
 * "2026-11-23 12:01:42". */
const char *since_clock(int64_t unix_s, int64_t now_s, char *buf);

/* The local date and time: "2026-11-23 12:01:42". */
const char *since_date(int64_t unix_s, char *buf);

#endif
