/*
 * The life of a session: joins one server_fsm to its record, its deadlines and its connection, and
 * says when a client counts as gone. Who may come in is door.c's, who may have an ID claim.c's.
 * Owns no session and no connection; must never know what a socket is.
 */
#include "session/session.h"

#include "base/container_of.h"
#include "base/hash.h"
#include "session/claim.h"
#include "session/door.h"
#include "session/internal.h"
#include "session/session_log.h"

#include <stdlib.h>

/* A deadline noticed this late was missed by us: stopped, or held up by a disk. */
#define LATE_US (250 * CLOCK_US_PER_MS)
/* Newcomers that are looked at in a crowded turn. */
#define LOOK_BUDGET 256
/* Records that one housekeeping looks at: a million are seen within some minutes. */
#define FORGET_BUDGET   4096
#define HOUSEKEEPING_US CLOCK_US_PER_SEC
/* Seconds by which the wall clock may gain on the other before that is a jump. */
#define WALL_JUMP_S 60

/* clang-format off */
const char *const duplicate_policy_names[] = {
    [DUPLICATE_PROBE] = "probe", [DUPLICATE_TAKEOVER] = "takeover", [DUPLICATE_REJECT] = "reject", NULL,
};
const char *const require_reply_names[] = {
    [SERVER_FSM_REPLY_AUTO] = "auto", [SERVER_FSM_REPLY_YES] = "yes", [SERVER_FSM_REPLY_NO] = "no", NULL,
};
/* clang-format on */

static void on_send(struct server_fsm *fsm, const struct proto_code_info *code);
static bool on_check_password(struct server_fsm *fsm, const char *line, size_t len);
static void on_claim_id(struct server_fsm *fsm, const char *id, size_t len);
static void on_answered(struct server_fsm *fsm, enum proto_code code);
static void on_changed(struct server_fsm *fsm, enum server_fsm_state old, int why);
static void on_connected(struct session *session);
static void on_closed(struct session *session, enum server_fsm_state old, int refusal);
static void expire_handshakes(struct sessions *all);
static void renew_if_late(struct session *session);
static uint64_t handshake_due_us(const struct session *session);
static void ask_who_is_due(struct sessions *all);
static void keep_house(struct sessions *all);
static void note_wall_jump(struct sessions *all);
static void forget_some(struct sessions *all);
static void tell_client(void *user, struct registry_record *record);
static void note_order(void *user, const struct order_news *news);
static void note_end(struct session *session, bool was_connected, enum reason reason);
static struct server_fsm_rules rules_of(const struct sessions_options *options);
static struct session *session_of(struct server_fsm *fsm);

static const struct server_fsm_ops fsm_ops = {
    .send = on_send,
    .check_password = on_check_password,
    .claim_id = on_claim_id,
    .answered = on_answered,
    .give_back = NULL, /* claim.c finds out whether the session is still there */
    .changed = on_changed,
};

static const struct order_ops order_ops = {
    .tell = tell_client,
    .news = note_order,
};

struct sessions *sessions_new(const struct sessions_options *options, struct registry *registry,
                              struct credentials *credentials, const struct session_ops *ops,
                              struct moment now)
{
    struct sessions *all = calloc(1, sizeof(*all));

    if (!all)
        abort(); /* out of memory while starting */
    all->orders = orders_new(registry, &order_ops, all);
    if (!all->orders)
        abort();
    all->registry = registry;
    all->credentials = credentials;
    all->ops = ops;
    all->options = *options;
    all->env = (struct server_fsm_env){.ops = &fsm_ops, .rules = rules_of(options)};
    all->next_serial = 1;
    all->now = now;
    all->housekeeping_us = now.mono_us + HOUSEKEEPING_US;
    TAILQ_INIT(&all->pending);
    TAILQ_INIT(&all->probes);
    TAILQ_INIT(&all->pings);
    keepalive_init(&all->keepalive, options->interval_ms * CLOCK_US_PER_MS, now.mono_us);
    door_reload(all);
    return all;
}

void sessions_set_watch(struct sessions *all, session_watch_fn *watch, void *user)
{
    all->watch = watch;
    all->watch_user = user;
}

void sessions_set_store(struct sessions *all, struct store *store, struct moment now)
{
    all->now = now;
    all->store = store;
    orders_set_store(all->orders, store);
    orders_restore(all->orders, store_order(store), now);
}

void sessions_on_answer(void *user, const struct store_answer *answer, struct moment now)
{
    struct sessions *all = user;

    all->now = now;
    if (answer->sid == 0)
        orders_on_saved(all->orders, answer->result);
    else
        claim_answered(all, answer);
}

void sessions_free(struct sessions *all)
{
    if (!all)
        return;
    claim_clear(all);
    orders_free(all->orders);
    sources_clear(&all->door.sources);
    credentials_free(all->credentials);
    free(all);
}

void sessions_reload(struct sessions *all, const struct sessions_options *options,
                     struct credentials *credentials, struct moment now)
{
    all->now = now;
    credentials_free(all->credentials);
    all->credentials = credentials;
    all->options = *options;
    all->env.rules = rules_of(options);
    keepalive_set_interval(&all->keepalive, options->interval_ms * CLOCK_US_PER_MS, now.mono_us);
    door_reload(all);
}

uint64_t sessions_next_us(const struct sessions *all)
{
    const struct session *oldest = TAILQ_FIRST(&all->pending);
    const uint64_t wishes[] = {
        oldest ? handshake_due_us(oldest) : UINT64_MAX, claim_next_us(all),   ping_next_us(all),
        orders_next_us(all->orders, all->now),          all->housekeeping_us, door_next_us(all),
    };
    uint64_t next_us = keepalive_next_us(&all->keepalive);

    for (size_t i = 0; i < sizeof(wishes) / sizeof(wishes[0]); i++)
        next_us = wishes[i] < next_us ? wishes[i] : next_us;
    return next_us;
}

void sessions_tick(struct sessions *all, struct moment now)
{
    all->now = now;
    expire_handshakes(all);
    claim_expire_probes(all);
    ping_expire(all);
    ask_who_is_due(all);
    orders_tick(all->orders, now);
    door_tick(all);
    if (now.mono_us >= all->housekeeping_us)
        keep_house(all);
}

void sessions_look_at_pending(struct sessions *all, struct moment now)
{
    struct session *newest[LOOK_BUDGET];
    struct session *session;
    size_t count = 0;

    all->now = now;
    TAILQ_FOREACH_REVERSE(session, &all->pending, session_list, pending)
    {
        if (count == LOOK_BUDGET)
            break;
        newest[count++] = session;
    }
    /* A look may end any of them, or bring it to 140; all are there until the turn ends. */
    while (count-- > 0) {
        session = newest[count];
        if (!session_is_over(session))
            all->ops->look(session);
    }
}

const struct sessions_options *sessions_options(const struct sessions *all)
{
    return &all->options;
}

const struct sessions_counters *sessions_counters(const struct sessions *all)
{
    return &all->counters;
}

const struct credentials *sessions_credentials(const struct sessions *all)
{
    return all->credentials;
}

size_t sessions_connected(const struct sessions *all)
{
    return all->connected_count;
}

size_t sessions_pending(const struct sessions *all)
{
    return all->pending_count;
}

size_t sessions_leaving(const struct sessions *all)
{
    return all->leaving_count;
}

struct orders *sessions_orders(const struct sessions *all)
{
    return all->orders;
}

void sessions_freeze_orders(struct sessions *all)
{
    orders_freeze(all->orders);
}

enum order_result sessions_give_order(struct sessions *all, struct order_request *request,
                                      struct moment now)
{
    all->now = now;
    return orders_start(all->orders, request, now);
}

enum order_result sessions_cancel_order(struct sessions *all, const char *by, struct moment now)
{
    all->now = now;
    return orders_cancel(all->orders, by, now);
}

void sessions_disconnect(struct sessions *all, struct registry_record *record, struct moment now)
{
    (void)all;
    session_end(record->holder, REASON_OPERATOR, now);
}

bool sessions_may_forget(const struct sessions *all, const struct registry_record *record)
{
    return !record->connected && !record->holder && record->claims == 0 &&
           !orders_need(all->orders, record);
}

void sessions_forget(struct sessions *all, struct registry_record *record, struct moment now)
{
    all->now = now;
    store_forget(all->store, record, now);
    orders_forget_client(all->orders, record);
    registry_remove(all->registry, record);
}

/* Worst case: it vanished just after an answer, so one interval passes until it is asked, and as
 * many as it may miss until that counts. TCP_USER_TIMEOUT is set to the same. */
uint64_t sessions_dead_client_max_ms(const struct sessions_options *options)
{
    return options->interval_ms * (options->misses + 1);
}

void session_start(struct session *session, struct sessions *all, const struct peer_address *peer,
                   struct moment now)
{
    all->now = now;
    *session = (struct session){
        .all = all,
        .peer = *peer,
        .serial = all->next_serial++,
        .since_us = now.mono_us,
    };
    TAILQ_INSERT_TAIL(&all->pending, session, pending);
    all->pending_count++;
    all->counters.started++;
    door_enter(session);
    server_fsm_start(&session->fsm, &all->env);
}

bool session_line(struct session *session, const char *line, size_t len, struct moment now)
{
    struct sessions *all = session->all;

    all->now = now;
    if (session_state(session) == SERVER_FSM_AWAIT_PASSWORD && door_is_closed_to(session)) {
        session_end(session, REASON_TOO_MANY, now);
        return true;
    }
    /* Nothing but an ID may come into the log; a password line never does. */
    all->id_line = session_state(session) == SERVER_FSM_AWAIT_ID ? line : NULL;
    all->id_line_len = len;
    const enum server_fsm_result result = server_fsm_line(&session->fsm, &all->env, line, len);
    all->id_line = NULL;
    return result != SERVER_FSM_HELD;
}

void session_went_on(struct session *session, struct moment now)
{
    session->all->now = now;
    renew_if_late(session);
}

bool session_bad_line(struct session *session, int error, struct moment now)
{
    if (session_state(session) == SERVER_FSM_REGISTERING)
        return false;
    log_event(LOG_LEVEL_DEBUG, "bad_line", LOG_NUM("serial", session->serial),
              LOG_STR("error", proto_strerror(error)));
    session_end(session, REASON_PROTOCOL, now);
    return true;
}

void session_end(struct session *session, enum reason reason, struct moment now)
{
    struct sessions *all = session->all;

    if (session_is_over(session))
        return;
    all->now = now;
    /* A refusal that could not be sent stays the reason; that the peer was gone came second. */
    if (session->reason == REASON_NONE)
        session->reason = (uint8_t)reason;
    (void)server_fsm_drop(&session->fsm, &all->env, reason_refusal(reason));
}

bool session_is_over(const struct session *session)
{
    return session_state(session) == SERVER_FSM_CLOSED;
}

static void on_send(struct server_fsm *fsm, const struct proto_code_info *code)
{
    struct session *session = session_of(fsm);
    struct sessions *all = session->all;

    if (code->code == PROTO_KEEP_ALIVE) {
        all->counters.keepalives_sent++;
        if (session->since_us == 0)
            session->since_us = all->now.mono_us;
    }
    if (code->retry != PROTO_RETRY_NONE)
        session->reason = (uint8_t)reason_of_refusal(code->code);
    all->ops->send(session, code->line, code->line_len);
}

static bool on_check_password(struct server_fsm *fsm, const char *line, size_t len)
{
    struct session *session = session_of(fsm);
    struct sessions *all = session->all;
    const bool is_right =
        credentials_log_in(all->credentials, line, len, sessions_now_s(all), &session->login);

    if (!is_right)
        door_note_wrong_password(session);
    return is_right;
}

static void on_claim_id(struct server_fsm *fsm, const char *id, size_t len)
{
    claim_id(session_of(fsm), id, len);
}

static void on_answered(struct server_fsm *fsm, enum proto_code code)
{
    struct session *session = session_of(fsm);
    struct sessions *all = session->all;
    struct registry_record *record = session->record;

    record->last_seen = sessions_now_s(all);
    if (code == PROTO_SHUTDOWN)
        orders_client_acknowledged(all->orders, record, all->now);
    if (code != PROTO_KEEP_ALIVE)
        return;
    all->counters.keepalives_answered++;
    if (session->since_us != 0) {
        const uint64_t rtt_us = all->now.mono_us - session->since_us;
        /* 0 is "unknown", and what does not fit is more than an hour. */
        record->rtt_us = rtt_us == 0 ? 1 : rtt_us > UINT32_MAX ? UINT32_MAX : (uint32_t)rtt_us;
        session->since_us = 0;
        duration_histogram_record(&all->counters.keepalives, rtt_us);
    }
    if (!TAILQ_EMPTY(&all->pings))
        ping_note_answer(session);
    claim_holder_answered(record);
}

static void on_changed(struct server_fsm *fsm, enum server_fsm_state old, int why)
{
    struct session *session = session_of(fsm);

    switch (session_state(session)) {
    case SERVER_FSM_CONNECTED:
        on_connected(session);
        break;
    case SERVER_FSM_CLOSED:
        on_closed(session, old, why);
        break;
    case SERVER_FSM_AWAIT_ID:
    case SERVER_FSM_REGISTERING:
        renew_if_late(session);
        break;
    case SERVER_FSM_LEAVING:
        session->all->leaving_count++;
        break;
    case SERVER_FSM_AWAIT_PASSWORD:
    case SERVER_FSM_STATE_COUNT:
        break;
    }
}

static void on_connected(struct session *session)
{
    struct sessions *all = session->all;

    TAILQ_REMOVE(&all->pending, session, pending);
    all->pending_count--;
    all->connected_count++;
    all->counters.registered++;
    duration_histogram_record(&all->counters.handshakes, all->now.mono_us - session->since_us);
    session->since_us = 0;
    keepalive_add(&all->keepalive, &session->keepalive, hash_number(session->serial),
                  all->now.mono_us);
    registry_connect(all->registry, session->record, &session->peer, session->login.credential,
                     sessions_now_s(all));
    session_log_connected(session);
    sessions_tell_watch(all, &(struct session_event){.kind = SESSION_CONNECTED,
                                                     .cid = session->record->cid,
                                                     .cid_len = session->record->cid_len,
                                                     .sid = session->record->sid,
                                                     .credential = session->login.credential,
                                                     .peer = &session->peer});
    all->ops->resume(session);
}

static void on_closed(struct session *session, enum server_fsm_state old, int refusal)
{
    struct sessions *all = session->all;
    const bool was_connected = old == SERVER_FSM_CONNECTED || old == SERVER_FSM_LEAVING;
    enum reason reason = refusal != 0 ? reason_of_refusal(refusal) : (enum reason)session->reason;

    if (old == SERVER_FSM_LEAVING && (reason == REASON_LEFT || reason == REASON_RESET))
        reason = REASON_SHUTDOWN;
    if (was_connected) {
        keepalive_remove(&all->keepalive, &session->keepalive);
        all->connected_count--;
        all->leaving_count -= old == SERVER_FSM_LEAVING;
        all->counters.ended[reason]++;
    } else {
        TAILQ_REMOVE(&all->pending, session, pending);
        all->pending_count--;
        all->counters.refused[reason]++;
    }
    door_leave(session);
    session_log_ended(session, old, reason);
    note_end(session, was_connected, reason);
    claim_release(session, was_connected, reason);
    all->ops->close(session, refusal != 0 && all->env.rules.explain_refusals);
}

/* For all who want to know; its record is still known. */
static void note_end(struct session *session, bool was_connected, enum reason reason)
{
    struct sessions *all = session->all;
    const struct registry_record *record = session->record;
    struct session_event event = {.kind = was_connected ? SESSION_DISCONNECTED : SESSION_REFUSED,
                                  .reason = reason,
                                  .peer = &session->peer};

    if (record) {
        event.cid = record->cid;
        event.cid_len = record->cid_len;
        event.sid = was_connected ? record->sid : 0;
    } else if (all->id_line && proto_id_valid(all->id_line, all->id_line_len)) {
        event.cid = all->id_line;
        event.cid_len = all->id_line_len;
    }
    sessions_tell_watch(all, &event);
    if (was_connected) {
        if (!TAILQ_EMPTY(&all->pings))
            ping_note_end(session);
        orders_client_gone(all->orders, session->record);
    }
}

/* The only way to a 130. */
static void tell_client(void *user, struct registry_record *record)
{
    struct sessions *all = user;

    (void)server_fsm_order(&record->holder->fsm, &all->env);
}

static void note_order(void *user, const struct order_news *news)
{
    struct session_event event = {.kind = SESSION_ORDER, .order = news};

    if (news->client) {
        event.cid = news->client->cid;
        event.cid_len = news->client->cid_len;
        event.sid = news->client->sid;
    }
    sessions_tell_watch(user, &event);
}

void sessions_tell_watch(struct sessions *all, struct session_event *event)
{
    if (!all->watch)
        return;
    event->at = all->now;
    all->watch(all->watch_user, event);
}

static void expire_handshakes(struct sessions *all)
{
    for (int i = 0; i < TICK_BUDGET; i++) {
        struct session *session = TAILQ_FIRST(&all->pending);
        if (!session || all->now.mono_us < handshake_due_us(session))
            return;

        all->ops->look(session);
        if (session_is_over(session) || all->now.mono_us < handshake_due_us(session))
            continue;
        (void)server_fsm_deadline(&session->fsm, &all->env);
    }
}

/*
 * A client whose answer came in time, but was read only after its deadline because we were late
 * (stopped, or held up by a disk), is given the time again; and so is one that has done its part
 * and waits for the store. One that drips its bytes is not.
 */
static void renew_if_late(struct session *session)
{
    struct sessions *all = session->all;
    const uint64_t due_us = handshake_due_us(session);

    if (all->now.mono_us < due_us)
        return;
    if (session_state(session) != SERVER_FSM_REGISTERING && all->now.mono_us - due_us < LATE_US)
        return;
    TAILQ_REMOVE(&all->pending, session, pending);
    session->since_us = all->now.mono_us;
    TAILQ_INSERT_TAIL(&all->pending, session, pending);
}

static uint64_t handshake_due_us(const struct session *session)
{
    return session->since_us + session->all->options.handshake_timeout_ms * CLOCK_US_PER_MS;
}

static void ask_who_is_due(struct sessions *all)
{
    for (int i = 0; i < TICK_BUDGET; i++) {
        struct keepalive_entry *entry = keepalive_next(&all->keepalive, all->now.mono_us);
        if (!entry)
            return;

        struct session *session = container_of(entry, struct session, keepalive);
        if (server_fsm_deadline_refuses(&session->fsm, &all->env))
            all->ops->look(session);
        all->counters.keepalives_missed += server_fsm_is_unanswered(&session->fsm);
        (void)server_fsm_deadline(&session->fsm, &all->env);
    }
}

static void keep_house(struct sessions *all)
{
    all->housekeeping_us = all->now.mono_us + HOUSEKEEPING_US;
    note_wall_jump(all);
    door_keep_house(all);
    if (all->options.forget_after_ms != UINT64_MAX)
        forget_some(all);
    session_log_suppressed(all);
    (void)log_report_lost();
}

/*
 * A machine without a battery starts in 1970 and learns the time later: that the wall clock jumped
 * must not look like years of absence. Forgetting waits for so much longer, until the next start.
 */
static void note_wall_jump(struct sessions *all)
{
    const int64_t offset_s = sessions_now_s(all) - (int64_t)(all->now.mono_us / CLOCK_US_PER_SEC);
    const int64_t jump_s = offset_s - all->wall_offset_s;

    if (all->wall_offset_s != 0 && jump_s > WALL_JUMP_S)
        all->wall_jump_s += jump_s;
    all->wall_offset_s = offset_s;
}

static void forget_some(struct sessions *all)
{
    /* Seconds are cut on both sides, so one more makes sure that nobody is forgotten early. */
    const int64_t keep_s = (int64_t)(all->options.forget_after_ms / 1000) + 1;
    const int64_t cutoff = sessions_now_s(all) - all->wall_jump_s - keep_s;

    for (int i = 0; i < FORGET_BUDGET; i++) {
        struct registry_record *record = registry_next(all->registry, all->forget_cursor);
        if (!record) {
            all->forget_cursor = 0;
            return;
        }
        all->forget_cursor = record->sid;
        if (record->since <= cutoff && sessions_may_forget(all, record))
            sessions_forget(all, record, all->now);
    }
}

static struct server_fsm_rules rules_of(const struct sessions_options *options)
{
    return (struct server_fsm_rules){
        .misses = (uint8_t)options->misses,
        .require_reply = (enum server_fsm_require_reply)options->require_reply,
        .explain_refusals = options->explain_refusals,
    };
}

static struct session *session_of(struct server_fsm *fsm)
{
    return container_of(fsm, struct session, fsm);
}
