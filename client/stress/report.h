/* What a run came to: as a table for people, as JSON for programs. Both say the same. */
#ifndef STRESS_REPORT_H
#define STRESS_REPORT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include <sys/types.h>

#include "fleet.h"
#include "server_usage.h"

struct stress_options;
struct tally;

/* Changes whenever a field of the JSON report changes its meaning or goes away. */
#define REPORT_SCHEMA 1

/* Of the server's process, if it could be read. */
struct report_server {
    pid_t pid; /* 0: not known */
    const char *why_not;
    bool held; /* while_held was read: there was a time when all were up */
    struct server_usage before;
    struct server_usage while_held; /* as soon as all were up */
    struct server_usage after;      /* before they were closed */
};

struct report {
    const struct stress_options *options;
    const char *server;  /* as text */
    const char *sources; /* as text; NULL when the kernel chooses */
    const struct fleet_progress *progress;
    const struct tally *tally;
    struct report_server usage;
    uint64_t own_cpu_us;
    uint64_t own_rss_bytes;
    bool ok;
};

/* At most 80 columns and below 40 lines. */
void report_print(const struct report *report, FILE *out, bool colours);

/* Writes one object and a line end. Returns 0, or -1 with errno. */
int report_write_json(const struct report *report, FILE *out);

/* 140s a second, from the first to the last. */
double report_rate(const struct report *report);

/* What a connected client costs the server, by its RSS. Negative when it cannot be said. */
double report_bytes_per_client(const struct report *report);

#endif
