/* Numbers as people read them. Each writes into buf of TEXT_BYTES and returns it. */
#ifndef CLIENT_TEXT_H
#define CLIENT_TEXT_H

#include <stdint.h>

#define TEXT_BYTES 40

/* 15000 is "15,000". */
const char *text_count(uint64_t count, char *buf);

/* Microseconds as milliseconds with three digits that count: "0.412", "12.3", "1,234". What is
 * longer than a quarter of an hour gets a unit of its own, "1234s", "5d", to stay short. */
const char *text_ms(uint64_t us, char *buf);

/* Microseconds as a time with its unit: "412us", "12.3ms", "9.87s", "63s". */
const char *text_time(uint64_t us, char *buf);

/* "512 B", "1.35 KiB", "28.3 MiB". */
const char *text_bytes(uint64_t bytes, char *buf);

/* Thousandths of a percent: "12.5%". */
const char *text_share(uint32_t milli_percent, char *buf);

#endif
