/*
 * Counts durations in a few buckets with round bounds, the way Prometheus wants them. Small enough
 * to be kept for everything that is worth knowing, and cheap enough to be used on every connection.
 */
#ifndef BASE_DURATION_HISTOGRAM_H
#define BASE_DURATION_HISTOGRAM_H

#include <stdint.h>

/* From 10 µs to 10 s, three a decade; what is longer is in no bucket but the total. */
#define DURATION_BUCKETS 19

/* The largest duration that each bucket takes, in microseconds, ascending. */
extern const uint32_t duration_bounds_us[DURATION_BUCKETS];

/* All zero is empty. Counts are since the start and only grow. */
struct duration_histogram {
    uint64_t counts[DURATION_BUCKETS]; /* of this bucket alone */
    uint64_t total;                    /* of all durations, also those above the last bound */
    uint64_t sum_us;
};

void duration_histogram_record(struct duration_histogram *histogram, uint64_t us);

#endif
