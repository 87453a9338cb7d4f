/* A text that grows by doubling. Knows nothing of what it says. */
#include "base/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_CAPACITY 256

static int reserve(struct text *text, size_t more);

void text_add(struct text *text, const char *format, ...)
{
    char *end = text->bytes ? text->bytes + text->len : NULL;
    va_list args;

    if (text->failed)
        return;
    va_start(args, format);
    int wanted = vsnprintf(end, text->capacity - text->len, format, args);
    va_end(args);
    if (wanted >= 0 && text->len + (size_t)wanted >= text->capacity) {
        if (reserve(text, (size_t)wanted + 1) != 0)
            return;
        va_start(args, format);
        wanted = vsnprintf(text->bytes + text->len, text->capacity - text->len, format, args);
        va_end(args);
    }
    if (wanted < 0)
        text->failed = true;
    else
        text->len += (size_t)wanted;
}

void text_add_bytes(struct text *text, const char *bytes, size_t len)
{
    if (text->failed || (text->len + len >= text->capacity && reserve(text, len + 1) != 0))
        return;
    memcpy(text->bytes + text->len, bytes, len);
    text->len += len;
    text->bytes[text->len] = '\0';
}

char *text_take(struct text *text, size_t *len)
{
    char *bytes = text->bytes;

    if (text->failed) {
        free(bytes);
        bytes = NULL;
    }
    *len = bytes ? text->len : 0;
    *text = (struct text){.bytes = NULL};
    return bytes;
}

/* Returns 0, or -1 when memory is out, which is noted. */
static int reserve(struct text *text, size_t more)
{
    size_t capacity = text->capacity > 0 ? text->capacity : FIRST_CAPACITY;

    while (capacity - text->len < more)
        capacity *= 2;
    char *bytes = realloc(text->bytes, capacity);
    if (!bytes) {
        text->failed = true;
        return -1;
    }
    text->bytes = bytes;
    text->capacity = capacity;
    return 0;
}
