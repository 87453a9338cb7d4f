/*
 * Counts durations in buckets that grow with the value, so that percentiles of a million
 * measurements cost as much as those of ten. A bucket is at most 1/512 of its value wide (three
 * significant digits) and one microsecond wide below 1024. There is no largest value.
 *
 * Pure: no clock, no allocation. A zeroed struct is an empty histogram; it is large, but pages that
 * no value fell into are never touched, so take it from calloc().
 */
#ifndef CLIENT_HISTOGRAM_H
#define CLIENT_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_LINEAR  1024 /* values below it have a bucket each */
#define HISTOGRAM_OCTAVE  512  /* buckets between one power of two and the next */
#define HISTOGRAM_OCTAVES 54   /* from 2^10 up to 2^64 */
#define HISTOGRAM_BUCKETS (HISTOGRAM_LINEAR + HISTOGRAM_OCTAVES * HISTOGRAM_OCTAVE)

/* Percentiles are named in thousandths of a percent: whole numbers, so that a rank is never off by
 * one. */
#define HISTOGRAM_P50   50000
#define HISTOGRAM_P90   90000
#define HISTOGRAM_P99   99000
#define HISTOGRAM_P99_9 99900
#define HISTOGRAM_P100  100000

/* Read it through the functions below. */
struct histogram {
    uint64_t total;
    uint64_t min; /* of no meaning while total is 0 */
    uint64_t max;
    double sum;
    uint64_t counts[HISTOGRAM_BUCKETS];
};

void histogram_record(struct histogram *histogram, uint64_t value);

/* Adds everything that from holds to into. */
void histogram_merge(struct histogram *into, const struct histogram *from);

/*
 * The smallest value that this share of all values does not exceed, to the width of a bucket: never
 * less than the true one and never more than the maximum. 0 when empty.
 */
uint64_t histogram_percentile(const struct histogram *histogram, uint32_t milli_percent);

uint64_t histogram_count(const struct histogram *histogram);

/* Exact; 0 when empty. */
uint64_t histogram_min(const struct histogram *histogram);
uint64_t histogram_max(const struct histogram *histogram);
double histogram_mean(const struct histogram *histogram);

#endif
