/*
 * What to answer the server, seen from the client. The table below is the whole machine. Knows
 * nothing of sockets and time; shutting the machine down is the owner's, and only a 130 asks for
 * it.
 */
#include "cliser/client_fsm.h"

#include <assert.h>
#include <string.h>

typedef void step_fn(struct client_fsm *fsm, const struct client_fsm_env *env, int code);

static step_fn send_password, send_id, enter, answer, shut_down, answer_again, refused, violated,
    lost, ignore;

/* Every cell is written out; "violated" is a server that does not keep to the protocol. */
/* clang-format off */
static step_fn *const steps[CLIENT_FSM_STATE_COUNT][CLIENT_FSM_EVENT_COUNT] = {
    /*                               110            120       140       100       130           4xx      unknown garbage   lost  */
    [CLIENT_FSM_AWAIT_PASSWORD]  = { send_password, violated, violated, violated, violated,     refused, ignore, violated, lost   },
    [CLIENT_FSM_AWAIT_ID]        = { violated,      send_id,  violated, violated, violated,     refused, ignore, violated, lost   },
    [CLIENT_FSM_AWAIT_CONNECTED] = { violated,      violated, enter,    violated, violated,     refused, ignore, violated, lost   },
    [CLIENT_FSM_CONNECTED]       = { violated,      violated, violated, answer,   shut_down,    refused, ignore, violated, lost   },
    [CLIENT_FSM_LEAVING]         = { violated,      violated, violated, answer,   answer_again, refused, ignore, violated, lost   },
    [CLIENT_FSM_CLOSED]          = { ignore,        ignore,   ignore,   ignore,   ignore,       ignore,  ignore, ignore,   ignore },
};

static const char *const state_names[] = {
    [CLIENT_FSM_AWAIT_PASSWORD]  = "await_password",
    [CLIENT_FSM_AWAIT_ID]        = "await_id",
    [CLIENT_FSM_AWAIT_CONNECTED] = "await_connected",
    [CLIENT_FSM_CONNECTED]       = "connected",
    [CLIENT_FSM_LEAVING]         = "leaving",
    [CLIENT_FSM_CLOSED]          = "closed",
};
/* clang-format on */

static_assert(sizeof(state_names) / sizeof(state_names[0]) == CLIENT_FSM_STATE_COUNT,
              "every state has a name");

static enum client_fsm_event event_of(int code);
static void set_state(struct client_fsm *fsm, const struct client_fsm_env *env,
                      enum client_fsm_state next);
static void close_with(struct client_fsm *fsm, const struct client_fsm_env *env, int why);
static void send_line(struct client_fsm *fsm, const struct client_fsm_env *env, const char *text,
                      size_t len);

void client_fsm_start(struct client_fsm *fsm)
{
    *fsm = (struct client_fsm){.state = CLIENT_FSM_AWAIT_PASSWORD};
}

void client_fsm_line(struct client_fsm *fsm, const struct client_fsm_env *env, const char *line,
                     size_t len)
{
    const int code = proto_parse_code(line, len);

    client_fsm_handle(fsm, env, event_of(code), code);
}

void client_fsm_bad_line(struct client_fsm *fsm, const struct client_fsm_env *env)
{
    client_fsm_handle(fsm, env, CLIENT_FSM_GARBAGE, -1);
}

void client_fsm_lost(struct client_fsm *fsm, const struct client_fsm_env *env)
{
    client_fsm_handle(fsm, env, CLIENT_FSM_LOST, -1);
}

void client_fsm_handle(struct client_fsm *fsm, const struct client_fsm_env *env,
                       enum client_fsm_event event, int code)
{
    steps[fsm->state][event](fsm, env, code);
}

int client_fsm_why(const struct client_fsm *fsm)
{
    return fsm->why;
}

enum proto_retry client_fsm_retry(const struct client_fsm *fsm)
{
    if (fsm->why == CLIENT_FSM_WHY_PROTOCOL)
        return PROTO_RETRY_LONG_PAUSE;

    const struct proto_code_info *info = proto_code_info(fsm->why);
    return info ? info->retry : PROTO_RETRY_BACK_OFF;
}

const char *client_fsm_state_name(enum client_fsm_state state)
{
    return state < CLIENT_FSM_STATE_COUNT ? state_names[state] : "unknown";
}

static enum client_fsm_event event_of(int code)
{
    switch (code) {
    case PROTO_PASSWORD:
        return CLIENT_FSM_ASK_PASSWORD;
    case PROTO_ID:
        return CLIENT_FSM_ASK_ID;
    case PROTO_CONNECTED:
        return CLIENT_FSM_WELCOME;
    case PROTO_KEEP_ALIVE:
        return CLIENT_FSM_KEEP_ALIVE;
    case PROTO_SHUTDOWN:
        return CLIENT_FSM_SHUTDOWN;
    case -1:
        return CLIENT_FSM_GARBAGE;
    default:
        return code >= 400 && code <= 499 ? CLIENT_FSM_REFUSED : CLIENT_FSM_UNKNOWN;
    }
}

static void send_password(struct client_fsm *fsm, const struct client_fsm_env *env, int code)
{
    (void)code;
    set_state(fsm, env, CLIENT_FSM_AWAIT_ID);
    send_line(fsm, env, env->password, env->password_len);
}

static void send_id(struct client_fsm *fsm, const struct client_fsm_env *env, int code)
{
    (void)code;
    set_state(fsm, env, CLIENT_FSM_AWAIT_CONNECTED);
    send_line(fsm, env, env->id, env->id_len);
}

static void enter(struct client_fsm *fsm, const struct client_fsm_env *env, int code)
{
    (void)code;
    set_state(fsm, env, CLIENT_FSM_CONNECTED);
}

static void answer(struct client_fsm *fsm, const struct client_fsm_env *env, int code)
{
    (void)code;
    send_line(fsm, env, "100", 3);
}

static void shut_down(struct client_fsm *fsm, const struct client_fsm_env *env, int code)
{
    (void)code;
    set_state(fsm, env, CLIENT_FSM_LEAVING);
    /* Answer first: the machine may be gone before anything could be sent after it. */
    send_line(fsm, env, "130", 3);
    env->ops->shutdown(fsm);
}

/* The server repeats itself: say again that it was understood, but act only once. */
static void answer_again(struct client_fsm *fsm, const struct client_fsm_env *env, int code)
{
    (void)code;
    send_line(fsm, env, "130", 3);
}

static void refused(struct client_fsm *fsm, const struct client_fsm_env *env, int code)
{
    close_with(fsm, env, code);
}

static void violated(struct client_fsm *fsm, const struct client_fsm_env *env, int code)
{
    (void)code;
    close_with(fsm, env, CLIENT_FSM_WHY_PROTOCOL);
}

static void lost(struct client_fsm *fsm, const struct client_fsm_env *env, int code)
{
    (void)code;
    close_with(fsm, env, CLIENT_FSM_WHY_LOST);
}

static void ignore(struct client_fsm *fsm, const struct client_fsm_env *env, int code)
{
    (void)fsm;
    (void)env;
    (void)code;
}

static void close_with(struct client_fsm *fsm, const struct client_fsm_env *env, int why)
{
    fsm->why = (int16_t)why;
    set_state(fsm, env, CLIENT_FSM_CLOSED);
}

/* The only place that writes the state after the start. */
static void set_state(struct client_fsm *fsm, const struct client_fsm_env *env,
                      enum client_fsm_state next)
{
    const enum client_fsm_state old = (enum client_fsm_state)fsm->state;

    fsm->state = (uint8_t)next;
    env->ops->changed(fsm, old);
}

/* One send for the whole line, so that it leaves as one segment. */
static void send_line(struct client_fsm *fsm, const struct client_fsm_env *env, const char *text,
                      size_t len)
{
    char line[PROTO_MAX_LINE_BYTES];

    assert(len < sizeof(line));
    memcpy(line, text, len);
    line[len] = '\n';
    env->ops->send(fsm, line, len + 1);
}
