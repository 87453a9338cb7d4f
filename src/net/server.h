/*
 * The server: listeners, all connections, the one timer, and the end of each loop turn.
 *
 * One turn is one pass of the event loop, and then, always in this order: go on with TLS
 * handshakes, commit what the store has gathered, deliver its answers, free the connections that
 * ended. docs/architecture.md tells why.
 */
#ifndef NET_SERVER_H
#define NET_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/duration_histogram.h"
#include "net/conn.h"
#include "session/session.h"
#include "store/store.h"

struct event_base;
struct listeners;
struct server;
struct tls;

struct server_options {
    uint64_t drain_ms;        /* how long server_drain() spreads the ends over */
    unsigned user_timeout_ms; /* TCP_USER_TIMEOUT of the connections */
    size_t max_connections;   /* as many as there are descriptors for; more are refused with 450 */
};

/* What has happened since the start, of client connections. */
struct server_stats {
    uint64_t accepted;       /* those refused at the door too */
    uint64_t received_bytes; /* but those that wait for the rest of their line */
    uint64_t sent_bytes;     /* and those that wait for the peer to read, which it may never do */
    uint64_t accept_pauses;  /* how often descriptors or memory had run out */

    /* How long each turn took: from the first thing done in it to its end. So long did somebody who
     * spoke in it, or was due, wait at most. */
    struct duration_histogram turns;

    /* Now: connections by what their session is doing. They make up all of them. */
    uint64_t pending;   /* not yet registered */
    uint64_t connected; /* registered, and not told to shut down */
    uint64_t leaving;   /* told */
    uint64_t closing;   /* over, reading its last line */
    uint64_t room;      /* connections for which there are descriptors left */

    struct conn_tls_stats tls;
    int64_t tls_expires; /* the certificate: Unix seconds; 0 without TLS */
};

/*
 * Everything it gets but the options must outlive it; the listeners become owned, and so does tls,
 * which is NULL where no listener wants it. Returns NULL when memory is out; both are the caller's
 * then.
 */
struct server *server_new(const struct server_options *options, struct event_base *base,
                          struct listeners *listeners, struct tls *tls, struct sessions *sessions,
                          struct store *store);

/* Accepts and serves until server_stop() or server_drain() have run their course. Returns 0, or -1
 * when the event loop itself failed. */
int server_run(struct server *server);

/* A text of this begin and the addresses that are listened on, to be freed; NULL when memory is
 * out. Only while it serves. */
char *server_describe(const struct server *server, const char *begin);

/* Valid until the server is freed, and up to date as of this call. */
const struct server_stats *server_stats(struct server *server);

/* Does it accept clients, or has it begun to end? */
bool server_is_serving(const struct server *server);

/*
 * Something is being done in the loop since now, for others than clients: their work counts in the
 * turn's duration as well. Costs nothing; every callback that reads the clock may call it.
 */
void server_work_begins(struct server *server, struct moment now);

/* Options and certificates (owned again) that take effect from now on; nobody is disconnected, and
 * TLS connections go on with what they have begun with. Where no listener wants certificates they
 * are of no use, and where they are NULL the old ones stay. */
void server_reload(struct server *server, const struct server_options *options, struct tls *tls);

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
