/* What a server on this host costs: finds its process by the socket it listens on. */
#ifndef STRESS_SERVER_USAGE_H
#define STRESS_SERVER_USAGE_H

#include <stddef.h>
#include <stdint.h>

#include <sys/types.h>

#include "base/address.h"

struct server_usage {
    uint64_t cpu_us; /* user and system, since the process began */
    uint64_t rss_bytes;
};

/* Returns the process that listens on this address; or 0, and why says in a few words what is
 * missing. */
pid_t server_usage_find(const struct address *server, char *why, size_t why_size);

/* Returns 0, or -1 when the process is gone or cannot be read. */
int server_usage_read(pid_t pid, struct server_usage *usage);

#endif
