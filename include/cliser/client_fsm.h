/*
 * One session as the client sees it: what to answer, and when to shut the machine down.
 *
 * The machine does no I/O, allocates nothing and has no clock: feed it the lines that
 * proto_take_line() finds and send what it asks to be sent. client/example.c is a whole client
 * around it with a plain blocking socket. docs/protocol.md, section "Writing a client", has the
 * rules in words.
 *
 *   AWAIT_PASSWORD ─110─► AWAIT_ID ─120─► AWAIT_CONNECTED ─140─► CONNECTED ─130─► LEAVING
 *
 * Any state goes to CLOSED by a 4xx, by a line the server may not send there, or by
 * client_fsm_lost().
 */
#ifndef CLISER_CLIENT_FSM_H
#define CLISER_CLIENT_FSM_H

#include <stddef.h>
#include <stdint.h>

#include "cliser/proto.h"

#ifdef __cplusplus
extern "C" {
#endif

enum client_fsm_state {
    CLIENT_FSM_AWAIT_PASSWORD,  /* waiting for 110 */
    CLIENT_FSM_AWAIT_ID,        /* password sent, waiting for 120 */
    CLIENT_FSM_AWAIT_CONNECTED, /* ID sent, waiting for 140 */
    CLIENT_FSM_CONNECTED,       /* the server has this client in its registry */
    CLIENT_FSM_LEAVING,         /* told to shut down */
    CLIENT_FSM_CLOSED,
    CLIENT_FSM_STATE_COUNT
};

enum client_fsm_event {
    CLIENT_FSM_ASK_PASSWORD, /* 110 */
    CLIENT_FSM_ASK_ID,       /* 120 */
    CLIENT_FSM_WELCOME,      /* 140 */
    CLIENT_FSM_KEEP_ALIVE,   /* 100 */
    CLIENT_FSM_SHUTDOWN,     /* 130 */
    CLIENT_FSM_REFUSED,      /* 400 to 499, known or not */
    CLIENT_FSM_UNKNOWN,      /* another code: of a newer server, so not for this client */
    CLIENT_FSM_GARBAGE,      /* not a line of this protocol */
    CLIENT_FSM_LOST,         /* the connection ended */
    CLIENT_FSM_EVENT_COUNT
};

/* How a session ended when it was not by a refusal; see client_fsm_why(). */
enum {
    CLIENT_FSM_WHY_LOST = 0,     /* the connection ended */
    CLIENT_FSM_WHY_PROTOCOL = -1 /* the server sent what it may not send: not a cliser server? */
};

/* Opaque in use: read it through the functions below. */
struct client_fsm {
    uint8_t state; /* enum client_fsm_state; written by one function only */
    int16_t why;   /* once CLOSED: the refusal, or a CLIENT_FSM_WHY_… */
};

/*
 * What the machine asks of its owner. Every function gets the machine it is about. None may feed
 * events or free the machine.
 */
struct client_fsm_ops {
    /* Sends len bytes, a whole line with its end; they are gone when the call returns. */
    void (*send)(struct client_fsm *fsm, const char *bytes, size_t len);

    /* Shut the machine down. Called once a session, by a 130 and by nothing else, after the answer
     * to it was sent. */
    void (*shutdown)(struct client_fsm *fsm);

    /* The state changed; the new one is in the machine. */
    void (*changed)(struct client_fsm *fsm, enum client_fsm_state old);
};

/* What this client answers. Must outlive every call it is passed to; so must the two texts. */
struct client_fsm_env {
    const struct client_fsm_ops *ops;
    const char *password; /* proto_password_valid(); need not end with NUL */
    size_t password_len;
    const char *id; /* proto_id_valid(); need not end with NUL */
    size_t id_len;
};

/* Starts a session on a connection that was just made. Calls nothing. */
void client_fsm_start(struct client_fsm *fsm);

/*
 * A line came, as proto_take_line() returned it. The session may be CLOSED afterwards: then close
 * the connection and read no further.
 */
void client_fsm_line(struct client_fsm *fsm, const struct client_fsm_env *env, const char *line,
                     size_t len);

/* proto_take_line() returned an error: the same end as a line that is not of this protocol. */
void client_fsm_bad_line(struct client_fsm *fsm, const struct client_fsm_env *env);

/* The connection ended. On a CLOSED session does nothing. */
void client_fsm_lost(struct client_fsm *fsm, const struct client_fsm_env *env);

/* Hands the machine one event; the functions above do this. Public so that tests can walk the
 * table. */
void client_fsm_handle(struct client_fsm *fsm, const struct client_fsm_env *env,
                       enum client_fsm_event event, int code);

/* Why a CLOSED session ended: a refusal (400 to 499), CLIENT_FSM_WHY_LOST or _PROTOCOL. */
int client_fsm_why(const struct client_fsm *fsm);

/*
 * What to do before the next try of a CLOSED session. Unknown refusals and lost connections back
 * off; a server that does not speak this protocol asks for a long pause.
 */
enum proto_retry client_fsm_retry(const struct client_fsm *fsm);

/* The state in a word, for logs. Never NULL. */
const char *client_fsm_state_name(enum client_fsm_state state);

#ifdef __cplusplus
}
#endif

#endif
