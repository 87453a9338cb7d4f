/*
 * All the clients of one loop: opens them by the plan, lets them answer, closes them, and counts
 * what became of each.
 *
 * The fleet owns its clients and their links, and the plan's progress; the tally is the caller's.
 */
#ifndef STRESS_FLEET_H
#define STRESS_FLEET_H

#include <stdbool.h>
#include <stdint.h>

#include "base/address.h"
#include "plan.h"
#include "sources.h"

struct event_base;
struct fleet;
struct tally;
struct tls_client;

enum fleet_phase {
    FLEET_CONNECTING, /* until every client is up or has failed */
    FLEET_HOLDING,    /* those that are up stay; not with churn */
    FLEET_CLOSING,    /* about to be closed */
};

struct fleet_options {
    struct plan_options plan;
    const struct address *server;
    const struct sources *sources;
    struct tls_client *tls; /* NULL: plain TCP */
    const char *password;
    const char *id_prefix;
    uint64_t hold_us;
    uint64_t timeout_us; /* a handshake that takes longer is given up */
    bool churn;          /* leave at the 140 and make room for the next */
};

/* Told at the beginning of each phase, from the event loop; must not free the fleet. */
typedef void fleet_phase_fn(void *arg, enum fleet_phase phase);

struct fleet_progress {
    enum fleet_phase phase;
    bool interrupted;
    uint64_t elapsed_us;
    uint64_t connecting_us; /* until the last client was up or had failed */
    uint64_t held_us;
    uint64_t welcoming_us; /* from the first 140 to the last */
    uint64_t started;
    uint64_t unfinished;     /* in handshake */
    uint64_t welcomed;       /* got a 140 */
    uint64_t up;             /* now */
    uint64_t up_most;        /* at once */
    const char *tls_version; /* that was agreed on; NULL without TLS, or before anybody had it */
};

/* How many clients exist at the same time at most. */
uint64_t fleet_size(const struct fleet_options *options);

/*
 * Everything passed in must outlive the fleet. Returns NULL when there is no memory; freed by
 * fleet_free(), NULL allowed.
 */
struct fleet *fleet_new(struct event_base *base, const struct fleet_options *options,
                        struct tally *tally, fleet_phase_fn *on_phase, void *arg);
void fleet_free(struct fleet *fleet);

/* Runs to the end. Afterwards every client is in the tally. Returns 0, or -1 when the loop failed.
 */
int fleet_run(struct fleet *fleet);

/* Ends the run early; for signal callbacks in the loop. */
void fleet_interrupt(struct fleet *fleet);

/* Where the run is. After fleet_run() the times are final. */
void fleet_progress(const struct fleet *fleet, struct fleet_progress *progress);

#endif
