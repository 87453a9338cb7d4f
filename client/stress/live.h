/* The line that shows a run while it goes on. Only on a terminal. */
#ifndef STRESS_LIVE_H
#define STRESS_LIVE_H

#include <stdbool.h>
#include <stdint.h>

struct event_base;
struct fleet;
struct live;
struct tally;

struct live_options {
    const struct fleet *fleet;
    const struct tally *tally;
    uint64_t clients;
    bool churn;
};

/*
 * Starts rewriting a line on stderr about once a second. Returns NULL when stderr is no terminal,
 * or without memory: a run goes on without its line. The fleet must outlive it.
 */
struct live *live_new(struct event_base *base, const struct live_options *options);

/* Takes the line away. NULL is allowed. */
void live_free(struct live *live);

#endif
