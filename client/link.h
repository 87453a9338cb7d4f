/*
 * One outgoing connection that speaks the protocol, over TCP or over TLS: a bufferevent with a
 * client_fsm behind it. Shared by cliser-agent (one link) and cliser-stress (thousands).
 *
 * The struct is public so that it can be embedded; its owner finds itself from it. Programs that
 * use links ignore SIGPIPE: a bufferevent writes without MSG_NOSIGNAL.
 */
#ifndef CLIENT_LINK_H
#define CLIENT_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sys/socket.h>

#include "cliser/client_fsm.h"
#include "tls.h"

struct bufferevent;
struct event_base;
struct link;

/*
 * All run from the event loop, none from inside link_open(). Each may call link_close(), after
 * which no other one comes; none may free the link's memory, and only ended may open the link
 * again.
 */
struct link_ops {
    /* TCP is up; no line has come yet. May be NULL. */
    void (*opened)(struct link *link);

    /* The TLS handshake is done, and the server is who it should be; not called without TLS. May be
     * NULL. */
    void (*secured)(struct link *link);

    /* A line with this code came; the machine answers it when this returns. May be NULL. */
    void (*received)(struct link *link, int code);

    /* The machine entered another state; not called for CLOSED, see ended. May be NULL. */
    void (*changed)(struct link *link, enum client_fsm_state old);

    /* A 130 came, and its answer has left this process, or can no longer leave because the
     * connection broke. Until then nothing further is read. May be NULL. */
    void (*shutdown)(struct link *link);

    /* The session or the attempt is over and the link closed; it may be opened again from here.
     * error is the errno of a failed connect or of a broken connection, else 0; when TLS is the
     * reason, EPROTO, and link->tls_failure says more. The refusal, if there was one, is
     * client_fsm_why(&link->fsm). Not called by link_close(). */
    void (*ended)(struct link *link, int error);
};

/* What all links of a program share; outlives them. */
struct link_env {
    struct event_base *base;
    const struct link_ops *ops;
    struct tls_client *tls; /* NULL: plain TCP */
    bool
        tcp_keepalive; /* notice within a minute that the server's machine is gone without a word */
    /* Where the bytes of all lines are added up, without what TLS puts around them; NULL: nobody
     * counts. */
    struct link_bytes {
        uint64_t in;
        uint64_t out;
    } * bytes;
};

/* Zeroed before it is opened for the first time. */
struct link {
    struct client_fsm fsm;
    bool shutdown_due; /* a 130 was answered, the answer is still on its way out */
    int send_error;    /* errno of an answer that could not be queued: ends the session */
    int write_error;   /* errno of a broken write: the reading side may still have a last line */
    enum tls_failure tls_failure; /* NONE, or why the last session or attempt ended */
    struct client_fsm_env client; /* ops are link.c's; texts belong to the owner */
    const struct link_env *env;
    struct bufferevent *bev; /* NULL while closed */
};

struct link_target {
    const struct sockaddr *server;
    socklen_t server_len;
    const struct sockaddr *source; /* NULL: the kernel chooses */
    socklen_t source_len;
};

/*
 * Starts connecting. password and id must stay as they are until the link ends; target need not.
 * Returns 0, after which ended or link_close() comes exactly once; or -1 with errno, and the link
 * is closed. The link must be closed.
 */
int link_open(struct link *link, const struct link_env *env, const struct link_target *target,
              const char *password, const char *id) __attribute__((warn_unused_result));

/* Closes without a word, but for TLS's own, and without calling back; the machine keeps its last
 * state. On a closed link does nothing. */
void link_close(struct link *link);

/* "TLSv1.3" and the like; NULL before the TLS handshake is done, and without TLS. */
const char *link_tls_version(const struct link *link);

#endif
