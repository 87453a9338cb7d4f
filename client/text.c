/* Formatting only; no number is computed here that is not shown. */
#include "text.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static int decimals_for(double value);

const char *text_count(uint64_t count, char *buf)
{
    char digits[TEXT_BYTES];
    const int len = snprintf(digits, sizeof(digits), "%" PRIu64, count);
    char *out = buf;

    for (int i = 0; i < len; i++) {
        if (i > 0 && (len - i) % 3 == 0)
            *out++ = ',';
        *out++ = digits[i];
    }
    *out = '\0';
    return buf;
}

const char *text_ms(uint64_t us, char *buf)
{
    const double ms = (double)us / 1000;

    if (ms >= 1e8)
        snprintf(buf, TEXT_BYTES, "%.0fd", ms / (24 * 3600 * 1000));
    else if (ms >= 1e6)
        snprintf(buf, TEXT_BYTES, "%.0fs", ms / 1000);
    else if (ms >= 999.5)
        text_count((uint64_t)(ms + 0.5), buf);
    else /* below a millisecond the microsecond is the last digit there is */
        snprintf(buf, TEXT_BYTES, "%.*f", ms < 1 ? 3 : decimals_for(ms), ms);
    return buf;
}

const char *text_time(uint64_t us, char *buf)
{
    const double s = (double)us / 1000000;

    if (us < 1000)
        snprintf(buf, TEXT_BYTES, "%" PRIu64 "us", us);
    else if (us < 1000000)
        snprintf(buf, TEXT_BYTES, "%.*fms", decimals_for(s * 1000), s * 1000);
    else
        snprintf(buf, TEXT_BYTES, "%.*fs", decimals_for(s), s);
    return buf;
}

const char *text_bytes(uint64_t bytes, char *buf)
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes / 1024;
    size_t unit = 0;

    if (bytes < 1024) {
        snprintf(buf, TEXT_BYTES, "%" PRIu64 " B", bytes);
        return buf;
    }
    while (value >= 1024 && unit < sizeof(units) / sizeof(units[0]) - 1) {
        value /= 1024;
        unit++;
    }
    snprintf(buf, TEXT_BYTES, "%.*f %s", decimals_for(value), value, units[unit]);
    return buf;
}

const char *text_share(uint32_t milli_percent, char *buf)
{
    snprintf(buf, TEXT_BYTES, "%g%%", (double)milli_percent / 1000);
    return buf;
}

/* So many that three digits are shown. */
static int decimals_for(double value)
{
    if (value < 9.995)
        return 2;
    return value < 99.95 ? 1 : 0;
}
