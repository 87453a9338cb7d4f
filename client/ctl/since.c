/* The only place that knows local time. Asks no clock: now is an argument. */
#include "since.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <time.h>

#define MINUTE 60
#define HOUR   (60 * MINUTE)
#define DAY    (24 * HOUR)

struct unit {
    int64_t seconds;
    const char *name;
};

static const struct unit units[] = {{DAY, "d"}, {HOUR, "h"}, {MINUTE, "m"}, {1, "s"}};

#define UNIT_COUNT (sizeof(units) / sizeof(units[0]))

static const char *day(int64_t unix_s, char *buf);
static bool local_time(int64_t unix_s, struct tm *local, char *buf);

const char *since_age(int64_t unix_s, int64_t now_s, char *buf)
{
    /* Both may be anything that a server sent. */
    if (unix_s >= now_s || now_s < 0) {
        snprintf(buf, SINCE_BYTES, "now");
        return buf;
    }
    if (unix_s < now_s - (int64_t)100 * DAY)
        return day(unix_s, buf);

    const int64_t age = now_s - unix_s;
    size_t i = 0;
    while (age < units[i].seconds)
        i++;
    snprintf(buf, SINCE_BYTES, "%" PRId64 "%s", age / units[i].seconds, units[i].name);
    return buf;
}

const char *since_span(uint64_t seconds, char *buf)
{
    size_t i = 0;

    while (i < UNIT_COUNT - 1 && seconds < (uint64_t)units[i].seconds)
        i++;
    const uint64_t unit = (uint64_t)units[i].seconds;
    const uint64_t rest = i < UNIT_COUNT - 1 ? seconds % unit / (uint64_t)units[i + 1].seconds : 0;

    if (rest > 0)
        snprintf(buf, SINCE_BYTES, "%" PRIu64 "%s %" PRIu64 "%s", seconds / unit, units[i].name,
                 rest, units[i + 1].name);
    else
        snprintf(buf, SINCE_BYTES, "%" PRIu64 "%s", seconds / unit, units[i].name);
    return buf;
}

const char *since_clock(int64_t unix_s, int64_t now_s, char *buf)
{
    struct tm then;
    struct tm now;

    if (!local_time(unix_s, &then, buf) || !local_time(now_s, &now, buf))
        return buf;
    if (then.tm_yday != now.tm_yday || then.tm_year != now.tm_year)
        return since_date(unix_s, buf);
    strftime(buf, SINCE_BYTES, "%H:%M:%S", &then);
    return buf;
}

const char *since_date(int64_t unix_s, char *buf)
{
    struct tm then;

    if (local_time(unix_s, &then, buf))
        strftime(buf, SINCE_BYTES, "%Y-%m-%d %H:%M:%S", &then);
    return buf;
}

static const char *day(int64_t unix_s, char *buf)
{
    struct tm then;

    if (local_time(unix_s, &then, buf))
        strftime(buf, SINCE_BYTES, "%Y-%m-%d", &then);
    return buf;
}

/* Fails for years that a calendar of ours does not have; then the number itself is in buf. */
static bool local_time(int64_t unix_s, struct tm *local, char *buf)
{
    const time_t time = (time_t)unix_s;

    if (localtime_r(&time, local) && local->tm_year < 8100)
        return true;
    snprintf(buf, SINCE_BYTES, "%" PRId64, unix_s);
    return false;
}
