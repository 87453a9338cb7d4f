/*
 * A text that grows. What finds no memory is not forgotten until the end: a text that is cut off
 * may say something else than what was meant. (open_memstream() keeps silent about that.)
 */
#ifndef BASE_TEXT_H
#define BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>

/* Begins as {.bytes = NULL}. */
struct text {
    char *bytes; /* ends with a NUL, unless it is NULL */
    size_t len;
    size_t capacity;
    bool failed; /* something is missing */
};

void text_add(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));

void text_add_bytes(struct text *text, const char *bytes, size_t len);

/* Returns what was added, to be freed, and its length without the NUL; NULL when memory was out at
 * any time, or nothing was added. The text is as at its begin then. */
char *text_take(struct text *text, size_t *len);

#endif
