/*
 * Metrics: everything that the modules count, in the text format of Prometheus (version 0.0.4).
 *
 * What it costs does not depend on how many clients there are, and no label is ever an ID or an
 * address: there would be a series for each.
 */
#ifndef ADMIN_METRICS_H
#define ADMIN_METRICS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "admin/process_info.h"

struct registry;
struct server;
struct sessions;
struct store;

/* Answers to requests are counted by the first digit of their status. */
#define METRICS_STATUS_CLASSES 6

/* Where the numbers come from. All that is not said to be allowed to be NULL is needed. */
struct metrics_sources {
    const struct registry *registry;
    const struct sessions *sessions;
    struct server *server;
    struct store *store;
    struct process_start process;

    const char *version;
    bool ready; /* can clients be registered? As /readyz says. */
    uint64_t max_clients;
    uint64_t log_lines_lost;

    uint64_t control_connections;
    uint64_t event_subscribers;
    const uint64_t *control_requests; /* answered, by status / 100; METRICS_STATUS_CLASSES */
};

/*
 * Prints all metrics. Returns 0 with *text, which has *len bytes and a NUL behind them and is to be
 * freed; or -1 when memory is out.
 */
int metrics_print(const struct metrics_sources *sources, char **text, size_t *len);

#endif
