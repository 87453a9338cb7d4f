/* The command line of cliserctl. */
#ifndef CTL_OPTIONS_H
#define CTL_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct command;

#define OPTIONS_MAX_WAVES 64 /* as the server */

/* Texts point into argv or are constants. */
struct ctl_options {
    const struct command *command;
    char **arguments; /* what stands behind the command */
    size_t argument_count;
    const char *socket;
    const char *url; /* NULL: the socket is asked */
    const char *token_file;
    bool json;
    bool connected;
    bool disconnected;
    bool all;
    bool dry_run;
    bool yes;
    const char *grace; /* NULL: the server's default */
    const char *hold;  /* NULL: not given */
    uint64_t hold_ms;
    const char *waves[OPTIONS_MAX_WAVES]; /* each a list with commas */
    size_t wave_count;
};

enum options_result {
    OPTIONS_RUN,
    OPTIONS_DONE,  /* help or version was shown */
    OPTIONS_WRONG, /* said on stderr */
};

/* Sorts argv: options first. */
enum options_result ctl_options_parse(int argc, char **argv, struct ctl_options *options);

#endif
