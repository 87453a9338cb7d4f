/*
 * What this host can reach: known before the first packet, so that nobody takes the generator's
 * limit for the server's.
 */
#ifndef STRESS_PREFLIGHT_H
#define STRESS_PREFLIGHT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/address.h"
#include "sources.h"

struct preflight_demand {
    const struct address *server;
    const struct sources *sources;
    uint64_t connects; /* in all */
    uint64_t at_once;  /* connections open at the same time */
    uint64_t rate;     /* connects a second, 0: unlimited */
    bool tls;
};

/* Something this host has less of than was asked for. */
struct preflight_shortage {
    char text[320]; /* what is short and what to change */
};

#define PREFLIGHT_SHORTAGES_MAX 4

/*
 * Raises the descriptor limit as far as needed and allowed, then compares what is there with what
 * is asked. Returns how many shortages were found; 0: the run can begin.
 */
size_t preflight_check(const struct preflight_demand *demand,
                       struct preflight_shortage shortages[PREFLIGHT_SHORTAGES_MAX]);

/* Ports in the text of /proc/sys/net/ipv4/ip_local_port_range. Returns 0 when it makes no sense. */
uint64_t preflight_parse_port_range(const char *text);

/* Ports that the demand takes at the worst moment. reuse: ports of closed connections can be taken
 * again within a second, otherwise they rest for a minute. */
uint64_t preflight_ports_needed(const struct preflight_demand *demand, bool reuse);

#endif
