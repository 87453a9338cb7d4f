/*
 * Carries out an order to shut down: waits the delay, runs the command, reports how it ended. While
 * it does, the event loop goes on. Knows nothing of servers; whoever starts it has understood a
 * 130.
 */
#ifndef CLIENT_AGENT_ORDER_H
#define CLIENT_AGENT_ORDER_H

#include <stdbool.h>
#include <stdint.h>

struct event_base;
struct agent_order;

struct agent_order_options {
    struct event_base *base;
    char *command; /* NULL: say what would be done; must outlive the order */
    uint64_t delay_ms;

    /* The order was carried out: ok if the command exited with 0, or there is none. May free the
     * order, and may start it again. */
    void (*done)(void *owner, bool ok);
    void *owner;
};

/* Returns NULL when memory or descriptors ran out. */
struct agent_order *agent_order_new(const struct agent_order_options *options);

/* Gives up waiting; a command that runs goes on by itself. Logs either. NULL is allowed. */
void agent_order_free(struct agent_order *order);

/* An order came. Does nothing but log it when one is under way: an order is carried out once. */
void agent_order_start(struct agent_order *order);

/* Is one under way? */
bool agent_order_is_active(const struct agent_order *order);

#endif
