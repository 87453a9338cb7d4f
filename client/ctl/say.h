/* How cliserctl speaks to whoever called it: errors on stderr, and the exit status. */
#ifndef CTL_SAY_H
#define CTL_SAY_H

#include <stdbool.h>
#include <stddef.h>

#define PROGRAM "cliserctl"

enum ctl_exit {
    CTL_DONE = 0,
    CTL_FAILED = 1,
    CTL_USAGE = 2,
    CTL_NOBODY = 3,   /* no client matched */
    CTL_STILL_UP = 4, /* a shutdown order is over, and some are still up */
};

/* One line on stderr, "cliserctl: what". Control bytes, which only a server could have put in, are
 * shown as '?'. */
void say_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The same without the program's name, for the lines that belong to an error. */
void say_more(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* As printf() to stdout, with control bytes but line ends shown as '?'. */
void say_out(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Flushes stdout. Returns false when what was printed did not arrive, having said so unless the
 * reader has merely gone away. */
bool say_flush(void);

/* Ends the program: a command without memory can do nothing better. */
void say_no_memory(void) __attribute__((noreturn));

/* Makes a text safe to be written to a terminal, in place. Returns it. */
char *say_printable(char *text);

/* As asprintf(), but never fails. The result is to be freed. */
char *say_format(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
