/*
 * The server: listeners, all connections, the one timer, and the end of each loop turn.
 *
 * One turn is one pass of the event loop, and then, always in this order: commit what the store has
 * gathered, deliver its answers, free the connections that ended. docs/architecture.md tells why.
 */
#ifndef NET_SERVER_H
#define NET_SERVER_H

#include <stddef.h>
#include <stdint.h>

#include "session/session.h"
#include "store/store.h"

struct event_base;
struct listeners;
struct server;

struct server_options {
    uint64_t drain_ms;        /* how long server_drain() spreads the ends over */
    unsigned user_timeout_ms; /* TCP_USER_TIMEOUT of the connections */
    size_t max_connections;   /* as many as there are descriptors for; more are refused with 450 */
};

/*
 * Everything it gets but the options must outlive it; the listeners become owned. Returns NULL when
 * memory is out; the listeners are the caller's then.
 */
struct server *server_new(const struct server_options *options, struct event_base *base,
                          struct listeners *listeners, struct sessions *sessions,
                          struct store *store);

/* Accepts and serves until server_stop() or server_drain() have run their course. Returns 0, or -1
 * when the event loop itself failed. */
int server_run(struct server *server);

/* A text of this begin and the addresses that are listened on, to be freed; NULL when memory is
 * out. Only while it serves. */
char *server_describe(const struct server *server, const char *begin);

/* Options that take effect from now on; nobody is disconnected. */
void server_reload(struct server *server, const struct server_options *options);

/*
 * Stops: closes the listeners, ends every session with REASON_STOPPED and without a line, commits.
 * Those who were refused just before have up to 2 s to read why. Called again: ends server_run()
 * with this turn. From event callbacks only.
 */
void server_stop(struct server *server);

/* Closes the listeners, ends the sessions with 460, spread over drain_ms, and stops. */
void server_drain(struct server *server);

/* Closes whatever connection is still there, and frees. Not while server_run() runs. NULL is
 * allowed. */
void server_free(struct server *server);

#endif
