/*
 * What conn.c and conn_handshake.c share: what a TLS connection has beside, and the few steps that
 * the one has the other take. Private to these two.
 */
#ifndef NET_CONN_INTERNAL_H
#define NET_CONN_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sys/queue.h>

#include <event2/event.h>
#include <openssl/ssl.h>

#include "net/conn.h"

/* What a TLS connection has beside: its handshake, and its keys. */
struct conn_tls {
    SSL *ssl;
    struct conn *conn;
    TAILQ_ENTRY(conn_tls) link; /* in conn_env.shaking, while is_ready */
    const char *held;           /* the line that waits for the end of the handshake, of the table of
                                   codes; NULL if there is none */
    size_t held_len;
    uint32_t work_us; /* that the handshake has taken so far */
    bool is_ready;    /* something has come, or can be sent */
    bool is_open;     /* the handshake is done */
    uint8_t end;      /* enum reason: how the peer has ended, when its last lines are taken */
    bool has_failed;  /* and will never be */
};

/* The handshake of a connection whose socket this is begins; it is not yet watched. Returns false
 * when memory is out; conn_handshake_free() is due in either case. */
bool conn_handshake_start(struct conn *conn, int fd);

/* The session looks whether its peer is alive, before the handshake is done: answers it with
 * session_went_on() when the peer has done its part. */
void conn_handshake_look(struct conn *conn);

/* Frees what is TLS about the connection, also in the middle of a handshake. It may be plain. */
void conn_handshake_free(struct conn *conn);

/* Our own event, which must not be pending, waits for this from now on. False: memory is out. */
bool conn_watch(struct conn *conn, short what, event_callback_fn callback);

/* The same, for lines of the peer. */
bool conn_watch_lines(struct conn *conn);

/* The peer has ended it, for this reason: ends the session, or a linger that waited for that. */
void conn_end_by_peer(struct conn *conn, enum reason reason);

/* What an errno of the socket says about the end. */
enum reason conn_reason_of_errno(int error);

/* The socket. */
int conn_fd(const struct conn *conn);

#endif
