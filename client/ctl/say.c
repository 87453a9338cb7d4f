/* Words errors in one form. Whatever comes from elsewhere is made harmless here, before a terminal
 * sees it. */
#include "say.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *format_va(const char *format, va_list args) __attribute__((format(printf, 1, 0)));

void say_error(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    char *text = format_va(format, args);
    va_end(args);
    fprintf(stderr, PROGRAM ": %s\n", say_printable(text));
    free(text);
}

void say_more(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    char *text = format_va(format, args);
    va_end(args);
    fprintf(stderr, "%s\n", say_printable(text));
    free(text);
}

void say_out(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    char *text = format_va(format, args);
    va_end(args);
    for (char *line = text; line;) {
        char *end = strchr(line, '\n');

        if (end)
            *end = '\0';
        fputs(say_printable(line), stdout);
        if (end)
            putchar('\n');
        line = end ? end + 1 : NULL;
    }
    free(text);
}

bool say_flush(void)
{
    static bool failed;

    errno = 0;
    if (!failed && fflush(stdout) == 0 && !ferror(stdout))
        return true;
    /* A write that failed earlier may have left no errno; a reader that went away needs no words.
     */
    if (!failed && errno != EPIPE)
        say_error("cannot write the output%s%s", errno ? ": " : "", errno ? strerror(errno) : "");
    failed = true;
    return false;
}

void say_no_memory(void)
{
    fputs(PROGRAM ": out of memory\n", stderr);
    exit(CTL_FAILED);
}

/* IDs, addresses and our own words are ASCII: other bytes could only mislead. */
char *say_printable(char *text)
{
    for (char *c = text; *c; c++) {
        if (*c < ' ' || *c > '~')
            *c = '?';
    }
    return text;
}

char *say_format(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    char *text = format_va(format, args);
    va_end(args);
    return text;
}

static char *format_va(const char *format, va_list args)
{
    char *text = NULL;

    if (vasprintf(&text, format, args) < 0)
        say_no_memory();
    return text;
}
