/*
 * What one client may do next, seen from the server. The table below is the whole machine; each
 * cell is one small function. Knows nothing of sockets, time, registries or stores; the owner of
 * the struct does what the ops say.
 */
#include "cliser/server_fsm.h"

#include <assert.h>
#include <string.h>

/* What an event carries; unused parts are zero. */
struct event_args {
    const struct server_fsm_env *env;
    const char *line;
    size_t len;
    int refusal;
};

typedef enum server_fsm_result step_fn(struct server_fsm *fsm, const struct event_args *args);

static step_fn take_password, take_id, hold_line, welcome, time_out, ask, ask_or_drop, later, tell,
    take_answer, refuse, give_back, ignore;

/*
 * An empty cell: from the peer (LINE) it is a protocol error, from the owner it is a bug.
 */
/* clang-format off */
static step_fn *const steps[SERVER_FSM_STATE_COUNT][SERVER_FSM_EVENT_COUNT] = {
    /*                              LINE           STORED     DEADLINE     PING    ORDER  DROP   */
    [SERVER_FSM_AWAIT_PASSWORD] = { take_password, NULL,      time_out,    NULL,   later, refuse },
    [SERVER_FSM_AWAIT_ID]       = { take_id,       NULL,      time_out,    NULL,   later, refuse },
    [SERVER_FSM_REGISTERING]    = { hold_line,     welcome,   time_out,    NULL,   later, refuse },
    [SERVER_FSM_CONNECTED]      = { take_answer,   NULL,      ask_or_drop, ask,    tell,  refuse },
    [SERVER_FSM_LEAVING]        = { take_answer,   NULL,      ask_or_drop, ask,    NULL,  refuse },
    [SERVER_FSM_CLOSED]         = { ignore,        give_back, ignore,      ignore, NULL,  ignore },
};

static const char *const state_names[] = {
    [SERVER_FSM_AWAIT_PASSWORD] = "await_password",
    [SERVER_FSM_AWAIT_ID]       = "await_id",
    [SERVER_FSM_REGISTERING]    = "registering",
    [SERVER_FSM_CONNECTED]      = "connected",
    [SERVER_FSM_LEAVING]        = "leaving",
    [SERVER_FSM_CLOSED]         = "closed",
};
/* clang-format on */

static_assert(sizeof(state_names) / sizeof(state_names[0]) == SERVER_FSM_STATE_COUNT,
              "every state has a name");

static enum server_fsm_result handle(struct server_fsm *fsm, enum server_fsm_event event,
                                     const struct event_args *args);
static void set_state(struct server_fsm *fsm, const struct server_fsm_env *env,
                      enum server_fsm_state next, int why);
static void send_code(struct server_fsm *fsm, const struct server_fsm_env *env, int code);
static enum server_fsm_result refuse_with(struct server_fsm *fsm, const struct server_fsm_env *env,
                                          int refusal);
static bool silence_counts(const struct server_fsm *fsm, const struct server_fsm_rules *rules);
static bool begins_with(const char *line, size_t len, const char *digits);

void server_fsm_start(struct server_fsm *fsm, const struct server_fsm_env *env)
{
    *fsm = (struct server_fsm){.state = SERVER_FSM_AWAIT_PASSWORD};
    send_code(fsm, env, PROTO_PASSWORD);
}

enum server_fsm_result server_fsm_line(struct server_fsm *fsm, const struct server_fsm_env *env,
                                       const char *line, size_t len)
{
    return handle(fsm, SERVER_FSM_LINE, &(struct event_args){.env = env, .line = line, .len = len});
}

enum server_fsm_result server_fsm_stored(struct server_fsm *fsm, const struct server_fsm_env *env)
{
    return handle(fsm, SERVER_FSM_STORED, &(struct event_args){.env = env});
}

enum server_fsm_result server_fsm_deadline(struct server_fsm *fsm, const struct server_fsm_env *env)
{
    return handle(fsm, SERVER_FSM_DEADLINE, &(struct event_args){.env = env});
}

bool server_fsm_deadline_refuses(const struct server_fsm *fsm, const struct server_fsm_env *env)
{
    switch ((enum server_fsm_state)fsm->state) {
    case SERVER_FSM_AWAIT_PASSWORD:
    case SERVER_FSM_AWAIT_ID:
    case SERVER_FSM_REGISTERING:
        return true;
    case SERVER_FSM_CONNECTED:
    case SERVER_FSM_LEAVING:
        return fsm->unanswered >= env->rules.misses && silence_counts(fsm, &env->rules);
    case SERVER_FSM_CLOSED:
    case SERVER_FSM_STATE_COUNT:
        break;
    }
    return false;
}

bool server_fsm_is_unanswered(const struct server_fsm *fsm)
{
    return fsm->unanswered > 0 && fsm->state != SERVER_FSM_CLOSED;
}

enum server_fsm_result server_fsm_ping(struct server_fsm *fsm, const struct server_fsm_env *env)
{
    return handle(fsm, SERVER_FSM_PING, &(struct event_args){.env = env});
}

enum server_fsm_result server_fsm_order(struct server_fsm *fsm, const struct server_fsm_env *env)
{
    return handle(fsm, SERVER_FSM_ORDER, &(struct event_args){.env = env});
}

enum server_fsm_result server_fsm_drop(struct server_fsm *fsm, const struct server_fsm_env *env,
                                       int refusal)
{
    return handle(fsm, SERVER_FSM_DROP, &(struct event_args){.env = env, .refusal = refusal});
}

const char *server_fsm_state_name(enum server_fsm_state state)
{
    return state < SERVER_FSM_STATE_COUNT ? state_names[state] : "unknown";
}

static enum server_fsm_result handle(struct server_fsm *fsm, enum server_fsm_event event,
                                     const struct event_args *args)
{
    step_fn *step = steps[fsm->state][event];

    if (step)
        return step(fsm, args);
    if (event == SERVER_FSM_LINE)
        return refuse_with(fsm, args->env, PROTO_PROTOCOL_ERROR);
    return SERVER_FSM_BUG;
}

static enum server_fsm_result take_password(struct server_fsm *fsm, const struct event_args *args)
{
    if (args->len == 0)
        return refuse_with(fsm, args->env, PROTO_PROTOCOL_ERROR);
    if (!args->env->ops->check_password(fsm, args->line, args->len))
        return refuse_with(fsm, args->env, PROTO_WRONG_PASSWORD);

    set_state(fsm, args->env, SERVER_FSM_AWAIT_ID, PROTO_ID);
    send_code(fsm, args->env, PROTO_ID);
    return SERVER_FSM_TAKEN;
}

static enum server_fsm_result take_id(struct server_fsm *fsm, const struct event_args *args)
{
    if (args->len == 0)
        return refuse_with(fsm, args->env, PROTO_PROTOCOL_ERROR);
    if (!proto_id_valid(args->line, args->len))
        return refuse_with(fsm, args->env, PROTO_INVALID_ID);

    /* Before the claim, so that the owner may answer it from inside. */
    set_state(fsm, args->env, SERVER_FSM_REGISTERING, 0);
    args->env->ops->claim_id(fsm, args->line, args->len);
    return SERVER_FSM_TAKEN;
}

static enum server_fsm_result hold_line(struct server_fsm *fsm, const struct event_args *args)
{
    (void)fsm;
    (void)args;
    return SERVER_FSM_HELD;
}

static enum server_fsm_result welcome(struct server_fsm *fsm, const struct event_args *args)
{
    set_state(fsm, args->env, SERVER_FSM_CONNECTED, PROTO_CONNECTED);
    send_code(fsm, args->env, PROTO_CONNECTED);
    return SERVER_FSM_TAKEN;
}

static enum server_fsm_result time_out(struct server_fsm *fsm, const struct event_args *args)
{
    return refuse_with(fsm, args->env, PROTO_TIMED_OUT);
}

/*
 * A 100 out of turn is not counted as unanswered: its answer may still be on the way at the next
 * deadline, and asking often must not drop a client sooner. The regular ones find the dead.
 */
static enum server_fsm_result ask(struct server_fsm *fsm, const struct event_args *args)
{
    fsm->unasked = 0;
    fsm->has_been_asked = true;
    send_code(fsm, args->env, PROTO_KEEP_ALIVE);
    return SERVER_FSM_TAKEN;
}

static enum server_fsm_result ask_or_drop(struct server_fsm *fsm, const struct event_args *args)
{
    if (server_fsm_deadline_refuses(fsm, args->env))
        return time_out(fsm, args);
    if (fsm->unanswered < UINT8_MAX)
        fsm->unanswered++;
    return ask(fsm, args);
}

static enum server_fsm_result later(struct server_fsm *fsm, const struct event_args *args)
{
    (void)fsm;
    (void)args;
    return SERVER_FSM_LATER;
}

static enum server_fsm_result tell(struct server_fsm *fsm, const struct event_args *args)
{
    set_state(fsm, args->env, SERVER_FSM_LEAVING, PROTO_SHUTDOWN);
    send_code(fsm, args->env, PROTO_SHUTDOWN);
    return SERVER_FSM_TAKEN;
}

static enum server_fsm_result take_answer(struct server_fsm *fsm, const struct event_args *args)
{
    if (begins_with(args->line, args->len, "100")) {
        fsm->unanswered = 0;
        /* One sent ahead, before any question, says nothing about what the client does when asked.
         */
        fsm->has_answered = fsm->has_been_asked;
        args->env->ops->answered(fsm, PROTO_KEEP_ALIVE);
        return SERVER_FSM_TAKEN;
    }
    if (fsm->state == SERVER_FSM_LEAVING && begins_with(args->line, args->len, "130")) {
        args->env->ops->answered(fsm, PROTO_SHUTDOWN);
        return SERVER_FSM_TAKEN;
    }
    if (++fsm->unasked > SERVER_FSM_MAX_UNASKED)
        return refuse_with(fsm, args->env, PROTO_PROTOCOL_ERROR);
    return SERVER_FSM_TAKEN;
}

static enum server_fsm_result refuse(struct server_fsm *fsm, const struct event_args *args)
{
    return refuse_with(fsm, args->env, args->refusal);
}

static enum server_fsm_result give_back(struct server_fsm *fsm, const struct event_args *args)
{
    if (args->env->ops->give_back)
        args->env->ops->give_back(fsm);
    return SERVER_FSM_TAKEN;
}

static enum server_fsm_result ignore(struct server_fsm *fsm, const struct event_args *args)
{
    (void)fsm;
    (void)args;
    return SERVER_FSM_TAKEN;
}

static enum server_fsm_result refuse_with(struct server_fsm *fsm, const struct server_fsm_env *env,
                                          int refusal)
{
    if (refusal != 0 && env->rules.explain_refusals)
        send_code(fsm, env, refusal);
    /* Sending may have found the peer gone and closed the session from inside. */
    if (fsm->state != SERVER_FSM_CLOSED)
        set_state(fsm, env, SERVER_FSM_CLOSED, refusal);
    return SERVER_FSM_TAKEN;
}

/* The only place that writes the state after the start. */
static void set_state(struct server_fsm *fsm, const struct server_fsm_env *env,
                      enum server_fsm_state next, int why)
{
    const enum server_fsm_state old = (enum server_fsm_state)fsm->state;

    fsm->state = (uint8_t)next;
    env->ops->changed(fsm, old, why);
}

static void send_code(struct server_fsm *fsm, const struct server_fsm_env *env, int code)
{
    const struct proto_code_info *info = proto_code_info(code);

    assert(info);
    env->ops->send(fsm, info);
}

static bool silence_counts(const struct server_fsm *fsm, const struct server_fsm_rules *rules)
{
    switch (rules->require_reply) {
    case SERVER_FSM_REPLY_YES:
        return true;
    case SERVER_FSM_REPLY_NO:
        return false;
    case SERVER_FSM_REPLY_AUTO:
        break;
    }
    return fsm->has_answered;
}

static bool begins_with(const char *line, size_t len, const char *digits)
{
    return len >= 3 && memcmp(line, digits, 3) == 0;
}
