/* Escapes more than it must, which is always right. */
#include "uri.h"

#include "say.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static bool is_unreserved(char c);

char *uri_escape(const char *text)
{
    static const char digits[] = "0123456789ABCDEF";
    char *escaped = malloc(3 * strlen(text) + 1);
    char *out = escaped;

    if (!escaped)
        say_no_memory();
    for (const char *c = text; *c; c++) {
        if (is_unreserved(*c)) {
            *out++ = *c;
        } else {
            *out++ = '%';
            *out++ = digits[(unsigned char)*c >> 4];
            *out++ = digits[(unsigned char)*c & 15];
        }
    }
    *out = '\0';
    return escaped;
}

/* Not isalnum(), which would ask the locale. */
static bool is_unreserved(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr("-._~", c));
}
