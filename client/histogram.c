/* Where a value is counted, and what a rank means. Knows nothing of what is measured or in which
 * unit. */
#include "histogram.h"

#include <assert.h>
#include <stddef.h>

/* Bits kept of a value above HISTOGRAM_LINEAR; the topmost is always set. */
#define KEPT_BITS 10

static_assert(HISTOGRAM_LINEAR == 1 << KEPT_BITS, "the linear part ends where octaves begin");
static_assert(HISTOGRAM_OCTAVE == 1 << (KEPT_BITS - 1), "an octave has a bucket per kept value");
static_assert(HISTOGRAM_OCTAVES == 64 - KEPT_BITS, "every 64-bit value has a bucket");

static size_t bucket_of(uint64_t value);
static uint64_t bucket_top(size_t bucket);

void histogram_record(struct histogram *histogram, uint64_t value)
{
    if (histogram->total == 0 || value < histogram->min)
        histogram->min = value;
    if (value > histogram->max)
        histogram->max = value;
    histogram->sum += (double)value;
    histogram->total++;
    histogram->counts[bucket_of(value)]++;
}

void histogram_merge(struct histogram *into, const struct histogram *from)
{
    if (from->total == 0)
        return;
    if (into->total == 0 || from->min < into->min)
        into->min = from->min;
    if (from->max > into->max)
        into->max = from->max;
    into->sum += from->sum;
    into->total += from->total;
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        /* Writing only where there is something leaves untouched pages untouched. */
        if (from->counts[i] != 0)
            into->counts[i] += from->counts[i];
    }
}

uint64_t histogram_percentile(const struct histogram *histogram, uint32_t milli_percent)
{
    const uint64_t whole = histogram->total / HISTOGRAM_P100 * milli_percent;
    const uint64_t part = histogram->total % HISTOGRAM_P100 * milli_percent;
    uint64_t rank = whole + (part + HISTOGRAM_P100 - 1) / HISTOGRAM_P100;
    uint64_t seen = 0;

    if (histogram->total == 0)
        return 0;
    if (rank == 0)
        return histogram->min;

    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += histogram->counts[i];
        if (seen >= rank) {
            const uint64_t top = bucket_top(i);
            return top < histogram->max ? top : histogram->max;
        }
    }
    return histogram->max;
}

uint64_t histogram_count(const struct histogram *histogram)
{
    return histogram->total;
}

uint64_t histogram_min(const struct histogram *histogram)
{
    return histogram->total > 0 ? histogram->min : 0;
}

uint64_t histogram_max(const struct histogram *histogram)
{
    return histogram->max;
}

double histogram_mean(const struct histogram *histogram)
{
    return histogram->total > 0 ? histogram->sum / (double)histogram->total : 0;
}

static size_t bucket_of(uint64_t value)
{
    if (value < HISTOGRAM_LINEAR)
        return (size_t)value;

    const unsigned shift = 64 - KEPT_BITS - (unsigned)__builtin_clzll(value);
    const size_t kept = (size_t)(value >> shift);
    return HISTOGRAM_LINEAR + (shift - 1) * (size_t)HISTOGRAM_OCTAVE + (kept - HISTOGRAM_OCTAVE);
}

/* The largest value that falls into the bucket. */
static uint64_t bucket_top(size_t bucket)
{
    if (bucket < HISTOGRAM_LINEAR)
        return bucket;

    const size_t behind = bucket - HISTOGRAM_LINEAR;
    const unsigned shift = (unsigned)(behind / HISTOGRAM_OCTAVE) + 1;
    const uint64_t kept = HISTOGRAM_OCTAVE + behind % HISTOGRAM_OCTAVE;
    return (kept << shift) + ((UINT64_C(1) << shift) - 1);
}
