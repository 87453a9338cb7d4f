/* Numbers, durations and sizes as people write them in cliser.ini and on command lines. */
#ifndef BASE_UNITS_H
#define BASE_UNITS_H

#include <stddef.h>
#include <stdint.h>

/* "0" to "18446744073709551615", digits only. Returns 0, or -1 when the text is anything else. */
int units_parse_number(const char *text, uint64_t *number);

/* A whole number and ms, s, m, h or d: "250ms", "10s". Returns 0, or -1 when the text is anything
 * else. */
int units_parse_duration(const char *text, uint64_t *ms);

/* A whole number, alone or with K, M or G (powers of 1024). Returns 0, or -1. */
int units_parse_size(const char *text, uint64_t *bytes);

/*
 * Writes a duration the way units_parse_duration() reads it, in the largest unit that is exact:
 * 90000 is "90s", 60000 is "1m". Returns buf, which must have UNITS_TEXT_BYTES.
 */
#define UNITS_TEXT_BYTES 32
const char *units_format_duration(uint64_t ms, char *buf);

#endif
