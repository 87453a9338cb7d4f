/* Bounds and counting. How the counts are shown is the reader's. */
#include "base/duration_histogram.h"

const uint32_t duration_bounds_us[DURATION_BUCKETS] = {
    10,    20,    50,     100,    200,    500,     1000,    2000,    5000,     10000,
    20000, 50000, 100000, 200000, 500000, 1000000, 2000000, 5000000, 10000000,
};

void duration_histogram_record(struct duration_histogram *histogram, uint64_t us)
{
    histogram->total++;
    histogram->sum_us += us;
    for (int i = 0; i < DURATION_BUCKETS; i++) {
        if (us <= duration_bounds_us[i]) {
            histogram->counts[i]++;
            return;
        }
    }
}
