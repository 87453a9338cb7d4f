/* Parsing is strict: a value that could mean two things is an error, not a guess. */
#include "base/units.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct unit {
    const char *name;
    uint64_t factor;
};

/* From large to small: formatting takes the first that divides exactly. */
static const struct unit duration_units[] = {
    {"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1},
};

static const struct unit size_units[] = {
    {"", 1},
    {"K", 1U << 10},
    {"M", 1U << 20},
    {"G", 1U << 30},
};

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

static int parse_with_unit(const char *text, const struct unit *units, size_t count,
                           uint64_t *value);

int units_parse_number(const char *text, uint64_t *number)
{
    static const struct unit none[] = {{"", 1}};

    return parse_with_unit(text, none, COUNT(none), number);
}

int units_parse_duration(const char *text, uint64_t *ms)
{
    return parse_with_unit(text, duration_units, COUNT(duration_units), ms);
}

int units_parse_size(const char *text, uint64_t *bytes)
{
    return parse_with_unit(text, size_units, COUNT(size_units), bytes);
}

const char *units_format_duration(uint64_t ms, char *buf)
{
    size_t i = 0;

    while (i < COUNT(duration_units) - 1 && ms % duration_units[i].factor != 0)
        i++;
    if (ms == 0)
        i = 3; /* "0s", not "0d" */
    snprintf(buf, UNITS_TEXT_BYTES, "%" PRIu64 "%s", ms / duration_units[i].factor,
             duration_units[i].name);
    return buf;
}

static int parse_with_unit(const char *text, const struct unit *units, size_t count,
                           uint64_t *value)
{
    char *end = NULL;

    /* strtoull would take blanks and signs. */
    if (text[0] < '0' || text[0] > '9')
        return -1;
    errno = 0;
    const unsigned long long number = strtoull(text, &end, 10);
    if (errno != 0)
        return -1;

    for (size_t i = 0; i < count; i++) {
        if (strcmp(end, units[i].name) != 0)
            continue;
        if (number > UINT64_MAX / units[i].factor)
            return -1;
        *value = number * units[i].factor;
        return 0;
    }
    return -1;
}
