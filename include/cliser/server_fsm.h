/*
 * One session as the server sees it: what a client may do next, and what is sent to it.
 *
 * The machine does no I/O, allocates nothing and has no clock. It is told what happened (a line
 * came, the store answered, a deadline passed) and says through its ops what is to be done. Whoever
 * embeds it owns the struct; four bytes of state are all there is. docs/protocol.md, section "A
 * session", has the rules in words.
 *
 *   start ─► AWAIT_PASSWORD ─► AWAIT_ID ─► REGISTERING ─► CONNECTED ─► LEAVING ─► CLOSED
 *
 * Any state can go to CLOSED. A state is never entered twice.
 */
#ifndef CLISER_SERVER_FSM_H
#define CLISER_SERVER_FSM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cliser/proto.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Lines that are no answer, allowed between two keep-alives once connected. */
#define SERVER_FSM_MAX_UNASKED 8

enum server_fsm_state {
    SERVER_FSM_AWAIT_PASSWORD, /* 110 sent */
    SERVER_FSM_AWAIT_ID,       /* 120 sent */
    SERVER_FSM_REGISTERING,    /* ID taken, waiting for the owner's verdict */
    SERVER_FSM_CONNECTED,      /* 140 sent */
    SERVER_FSM_LEAVING,        /* 130 sent */
    SERVER_FSM_CLOSED,         /* the last line, if any, is sent */
    SERVER_FSM_STATE_COUNT
};

enum server_fsm_event {
    SERVER_FSM_LINE,     /* the client sent a line */
    SERVER_FSM_STORED,   /* the registration is durable */
    SERVER_FSM_DEADLINE, /* handshake overdue, or the next keep-alive is due */
    SERVER_FSM_PING,     /* ask now whether the client is there */
    SERVER_FSM_ORDER,    /* tell the client to shut its machine down */
    SERVER_FSM_DROP,     /* end the session */
    SERVER_FSM_EVENT_COUNT
};

enum server_fsm_result {
    SERVER_FSM_TAKEN, /* the event was used up */
    SERVER_FSM_HELD,  /* a line came too early: offer it again after the next state change */
    SERVER_FSM_LATER, /* an order came too early: give it again once CONNECTED */
    SERVER_FSM_BUG,   /* the owner may not give this event in this state; nothing was done */
};

/* Does silence count against a client? */
enum server_fsm_require_reply {
    SERVER_FSM_REPLY_AUTO, /* for one that has answered a keep-alive in this session */
    SERVER_FSM_REPLY_YES,  /* for everyone */
    SERVER_FSM_REPLY_NO,   /* for no one: TCP has the last word */
};

struct server_fsm_rules {
    uint8_t misses; /* 1 to 255 keep-alives that may pass unanswered */
    enum server_fsm_require_reply require_reply;
    bool explain_refusals; /* false: close without the 4xx line */
};

/* Opaque in use: read it through the functions below. */
struct server_fsm {
    uint8_t state;      /* enum server_fsm_state; written by one function only */
    uint8_t unanswered; /* keep-alives that were due and sent since the last answer, saturating */
    uint8_t unasked;    /* lines that were no answer, since the last keep-alive */
    bool has_been_asked : 1; /* a 100 was sent in this session */
    bool has_answered : 1;   /* and answered */
};

/*
 * What the machine asks of its owner. Every function gets the machine it is about; an owner that
 * embeds the struct finds itself from there. "May feed events" says that the op may call back into
 * the machine; the others must not. None may free the machine.
 */
struct server_fsm_ops {
    /* Sends code->line. May feed SERVER_FSM_DROP when sending finds the peer gone. */
    void (*send)(struct server_fsm *fsm, const struct proto_code_info *code);

    /* Is this the password? The line has no CR LF, may be up to 254 bytes and may be no valid
     * password at all. */
    bool (*check_password)(struct server_fsm *fsm, const char *line, size_t len);

    /* The client claims this ID, which is valid by the grammar. The owner answers now or later with
     * SERVER_FSM_STORED or SERVER_FSM_DROP. The text is gone when the call returns. May feed
     * events. */
    void (*claim_id)(struct server_fsm *fsm, const char *id, size_t len);

    /* The client answered code: PROTO_KEEP_ALIVE or PROTO_SHUTDOWN. May feed events. */
    void (*answered)(struct server_fsm *fsm, enum proto_code code);

    /* A registration was granted to a session that had ended: undo it. May be NULL in an owner that
     * finds out for itself whether the session it has an answer for is still there. */
    void (*give_back)(struct server_fsm *fsm);

    /* The state changed; why is the code sent on the way, or, into CLOSED, the refusal (also when
     * explain_refusals keeps it from being sent), or 0 for an end without one. Into CLOSED this is
     * the last call for this machine but for give_back. Must not feed events. */
    void (*changed)(struct server_fsm *fsm, enum server_fsm_state old, int why);
};

/* Everything that sessions share. Must outlive every call it is passed to. */
struct server_fsm_env {
    const struct server_fsm_ops *ops;
    struct server_fsm_rules rules;
};

/* Starts a session: puts *fsm in AWAIT_PASSWORD and sends 110. May call send. */
void server_fsm_start(struct server_fsm *fsm, const struct server_fsm_env *env);

/*
 * A line came, as proto_take_line() returned it. Returns SERVER_FSM_HELD when it has to be offered
 * again after the next change of state (the client was early), else SERVER_FSM_TAKEN. The session
 * may be CLOSED afterwards; look before offering the next line.
 */
enum server_fsm_result server_fsm_line(struct server_fsm *fsm, const struct server_fsm_env *env,
                                       const char *line, size_t len);

/* The registration is durable: sends 140. On a CLOSED session calls give_back instead. */
enum server_fsm_result server_fsm_stored(struct server_fsm *fsm, const struct server_fsm_env *env);

/*
 * The handshake deadline passed, or the next keep-alive is due: refuses with 408, or sends a 100,
 * or refuses with 408 a client that let too many pass (docs/protocol.md, "Keep-alives").
 */
enum server_fsm_result server_fsm_deadline(struct server_fsm *fsm,
                                           const struct server_fsm_env *env);

/* Would server_fsm_deadline() refuse now? Lets the owner take a last look at its socket first. */
bool server_fsm_deadline_refuses(const struct server_fsm *fsm, const struct server_fsm_env *env);

/* Is a keep-alive that was due still unanswered? Asked when the next one is due, it was missed.
 * Never on CLOSED. */
bool server_fsm_is_unanswered(const struct server_fsm *fsm);

/* Sends a 100 at once. Only CONNECTED and LEAVING; nothing on CLOSED. */
enum server_fsm_result server_fsm_ping(struct server_fsm *fsm, const struct server_fsm_env *env);

/*
 * Sends 130 and enters LEAVING. The only way a 130 can ever be sent. Returns SERVER_FSM_LATER
 * before 140, SERVER_FSM_BUG when the session was told before or is over: a session is told once.
 */
enum server_fsm_result server_fsm_order(struct server_fsm *fsm, const struct server_fsm_env *env);

/*
 * Ends the session: sends the refusal (a code of 400 and above) if rules.explain_refusals, or
 * nothing for 0. On a CLOSED session does nothing.
 */
enum server_fsm_result server_fsm_drop(struct server_fsm *fsm, const struct server_fsm_env *env,
                                       int refusal);

/* The state in a word, for logs. Never NULL. */
const char *server_fsm_state_name(enum server_fsm_state state);

#ifdef __cplusplus
}
#endif

#endif
