/*
 * One client's connection: a socket with its event, and a session inside. A callback translates and
 * returns; it never frees. Whoever owns the connection (server.c) frees it at the end of the loop
 * turn.
 */
#ifndef NET_CONN_H
#define NET_CONN_H

#include <stdbool.h>
#include <stdint.h>

#include <sys/queue.h>

#include <event2/event_struct.h>

#include "base/duration_histogram.h"
#include "session/session.h"

struct bufferevent;
struct conn_tls;
struct event_base;
struct conn;
struct tls;

/* Bytes that may wait for a peer that does not read. */
#define CONN_MAX_UNSENT_BYTES (64 * 1024)

/* How long a peer may take to read its last line. */
#define CONN_LINGER_US (2 * CLOCK_US_PER_SEC)

TAILQ_HEAD(conn_tls_list, conn_tls);

/* What has become of TLS handshakes since the start, and what is left of them. */
struct conn_tls_stats {
    uint64_t full;      /* that a client has not resumed with a ticket */
    uint64_t resumed;   /* with one */
    uint64_t failed;    /* the peer spoke no TLS, or none that is allowed here */
    uint64_t abandoned; /* the connection ended before it had come to one or the other */
    uint64_t open;      /* TLS connections that are there now, handshakes too */
    uint64_t pending;   /* of those, the ones whose handshake is not done */

    /* How long each that came to its end has kept us busy, all its steps together. */
    struct duration_histogram work;
};

/* What all connections share; owned by the server. */
struct conn_env {
    struct event_base *base;
    struct sessions *sessions;

    /* The connection is to be taken to conn_finish() at the end of this turn; user is the server.
     * Called again for a lingering one that has nothing more to wait for. */
    void (*on_dying)(void *user, struct conn *conn);
    void *user;

    /* TCP gives a connection up when data is unacknowledged for so long. */
    unsigned user_timeout_ms;
    /* Counts changes of it; new sockets have it from the listener. */
    uint8_t generation;
    unsigned reads; /* how often a connection was read in this turn; the server sets it back */
    uint64_t turn_began_us;  /* the first thing done in this turn; 0 before, set back as well */
    uint64_t received_bytes; /* looked at so far; what waits in a bufferevent is not */
    uint64_t sent_bytes;     /* handed to the kernel, or to a bufferevent */

    struct tls *tls;              /* for new TLS connections; NULL without */
    struct conn_tls_list shaking; /* can go on with their handshake, in the order of that */
    size_t shaking_count;
    struct conn_tls_stats tls_stats;
};

struct conn {
    struct session session;
    struct event readable;   /* its descriptor is the socket, which the connection owns */
    struct bufferevent *bev; /* NULL until something had to wait; reads in readable's place */
    struct conn_tls *tls;    /* NULL for a plain one */
    struct conn_env *env;
    TAILQ_ENTRY(conn) link; /* the server's: in the list that place names */
    uint64_t linger_until_us;
    uint8_t place;      /* the server's: enum conn_place */
    uint8_t generation; /* of the user timeout its socket has */
    bool is_tcp;
    bool reading_paused; /* lines are held, and enough of them */
    bool closing;        /* the session is over */
    bool said_why;       /* a last line is on its way */
    bool gone;           /* nothing can be sent or read any more */
    bool lingering;      /* waits for the peer to read the last line and close */
};

/* Which of the server's lists a connection is in. */
enum conn_place { CONN_NOWHERE, CONN_LIVE, CONN_DYING, CONN_LINGERING };

TAILQ_HEAD(conn_list, conn);

/* Something is being done since now: keeps the first such moment of a turn. */
static inline void conn_env_begin_work(struct conn_env *env, struct moment now)
{
    if (env->turn_began_us == 0)
        env->turn_began_us = now.mono_us;
}

/* Zeroed but for what the server knows, it becomes ready by this. */
void conn_env_init(struct conn_env *env);

/*
 * Goes on with TLS handshakes for which something has come, one step each, the first come first,
 * until budget_us are over. Returns how many are left. A handshake costs as much as thousands of
 * lines, so it is not done where it comes up but at the end of the turn.
 */
size_t conn_env_shake_hands(struct conn_env *env, uint64_t budget_us);

/* For sessions_new(): connects sessions to connections. */
extern const struct session_ops conn_session_ops;

/*
 * Makes a connection of an accepted, non-blocking socket and starts its session; with is_tls, what
 * the session says leaves when the TLS handshake is done (docs/protocol.md, "TLS"). Returns it,
 * possibly closing already; or NULL when memory or epoll watches are out, in which case the socket
 * is still the caller's.
 */
struct conn *conn_new(struct conn_env *env, int fd, const struct peer_address *peer, bool is_tls,
                      struct moment now);

/*
 * Takes a closing connection further, when it has come to be dying or its time to linger is over:
 * returns true when it can be freed now, false when it has to wait for the peer, until
 * linger_until_us at the latest.
 */
bool conn_finish(struct conn *conn, struct moment now);

/* Closes the socket and frees. The session must be over. Not from within any callback. */
void conn_free(struct conn *conn);

#endif
