/*
 * What the run does and when: which connect is due, how many may be under way, who stays silent.
 *
 * Pure: time is an argument, counted in microseconds from the start of the run. Connects are
 * counted from 0.
 */
#ifndef STRESS_PLAN_H
#define STRESS_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#define PLAN_NEVER UINT64_MAX

/* A share is given in thousandths of a percent. */
#define PLAN_WHOLE UINT32_C(100000)

struct plan_options {
    uint64_t clients;  /* connects in all */
    uint64_t rate;     /* connects a second; 0: as fast as inflight allows */
    uint64_t inflight; /* handshakes that may be unfinished at once, at least 1 */
    uint32_t silent;   /* share of clients that never answer a keep-alive, up to PLAN_WHOLE */
};

struct plan {
    struct plan_options options;
    uint64_t started;
    uint64_t settled; /* of the started: handshakes that came to their end, good or bad */
};

void plan_init(struct plan *plan, const struct plan_options *options);

/* How many connects may start at this moment. */
uint64_t plan_startable(const struct plan *plan, uint64_t now_us);

/*
 * How long until the next connect may start: 0 for now, PLAN_NEVER when only a finished handshake
 * can make room or nothing is left to start.
 */
uint64_t plan_wait_us(const struct plan *plan, uint64_t now_us);

/* Counts one connect as started. Returns its number. */
uint64_t plan_start(struct plan *plan);

/* Counts one handshake as finished. */
void plan_settle(struct plan *plan);

/*
 * When this connect should have started. Latency counts from here, so that a server which stalls
 * the generator cannot hide it. Without a rate there is no such moment, and it is now_us.
 */
uint64_t plan_due_us(const struct plan *plan, uint64_t number, uint64_t now_us);

/* Is this one of those that never answer? The same for every run, and evenly spread. */
bool plan_is_silent(const struct plan *plan, uint64_t number);

uint64_t plan_unfinished(const struct plan *plan);
bool plan_all_started(const struct plan *plan);
bool plan_all_settled(const struct plan *plan);

#endif
