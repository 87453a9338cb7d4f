/*
 * A whole server but for main.c: listener, connections, sessions, registry, store (memory) and, if
 * wanted, the control API, in a real event loop that never waits and under a clock that stands
 * still. The target's step function is called once in each turn of the loop.
 */
#ifndef FUZZ_WORLD_H
#define FUZZ_WORLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "admin/admin.h"
#include "net/server.h"
#include "session/session.h"

struct event_base;
struct http;
struct tls;

#define WORLD_PASSWORD "secret"
#define WORLD_TOKEN    "token-of-20-characters"

/* After something was done: turns until all that it sets off has happened. */
#define WORLD_SETTLE_TURNS 6

struct world {
    struct event_base *base;
    struct registry *registry;
    struct sessions *sessions;
    struct store *store;
    struct store_options store_options;
    struct server *server;
    struct tls *tls; /* the server's; NULL: none */
    struct admin admin;
    struct http *http; /* NULL: none */
    unsigned reloads;  /* that an operator asked for */
    struct event *stepper;
    bool (*step)(void *user); /* false: it is over */
    void *user;
    unsigned turns;
};

/* Opens everything; the clock is fake from here on. With ops of its own a target plays the
 * connections itself, and there is no loop to be run. */
void world_open(struct world *world, const struct sessions_options *options,
                const struct session_ops *ops, bool with_http, bool with_tls);

/* Runs the loop until step says that it is over, and the server has stopped. */
void world_run(struct world *world, bool (*step)(void *user), void *user);

/* Closes everything, and looks whether anybody is left. */
void world_close(struct world *world);

/* Options that suit most. */
struct sessions_options world_options(void);

/* The same set of passwords, for sessions_reload(). */
struct credentials *world_credentials(void);

/* A non-blocking socket that is connected to the clients' listener, to the control socket or to the
 * control port; -1 when nobody listens. */
enum world_door { WORLD_CLIENTS, WORLD_CONTROL_SOCKET, WORLD_CONTROL_PORT, WORLD_TLS };
int world_connect(const struct world *world, enum world_door door);

/* A shutdown order for these IDs and patterns. Returns what sessions_give_order() does. */
enum order_result world_order(struct world *world, const char *match, uint64_t grace_ms,
                              uint64_t hold_ms);

#endif
