/*
 * What session.c, claim.c, door.c, ping.c and session_log.c share: the state of all sessions.
 * Private to src/session.
 */
#ifndef SESSION_INTERNAL_H
#define SESSION_INTERNAL_H

#include "base/log.h"
#include "session/order.h"
#include "session/ping.h"
#include "session/session.h"
#include "session/sources.h"

/* How much of each kind one tick may do before the loop looks at its sockets again. */
#define TICK_BUDGET 256

TAILQ_HEAD(session_list, session);
TAILQ_HEAD(probe_list, probe);
TAILQ_HEAD(ping_list, ping);

/* Client-caused events that are logged at a bounded rate. */
struct limits_on_log {
    struct log_limit connected;
    struct log_limit disconnected;
    struct log_limit refused;
    struct log_limit penalty;
};

/* What door.c keeps. */
struct door {
    struct sources sources;
    uint32_t counting; /* which counting of connections this is; 0: they are not counted */
    uint32_t last_counting;
    bool is_behind;       /* those who were there when it began are not all counted yet */
    uint32_t counted_sid; /* they are up to this one */
    uint64_t draws;
};

struct sessions {
    struct server_fsm_env env;
    struct sessions_options options;
    struct registry *registry;
    struct store *store;
    struct credentials *credentials;
    const struct session_ops *ops;

    struct session_list pending; /* before 140, oldest accept first */
    size_t pending_count;
    struct keepalive keepalive; /* connected */
    size_t connected_count;
    size_t leaving_count; /* of those, the ones that were told 130 */
    size_t held_count;    /* IDs that a session has or is registering: these fill max_clients */
    struct probe_list probes;
    struct ping_list pings; /* earliest due first */
    struct orders *orders;
    struct door door;
    session_watch_fn *watch; /* or NULL */
    void *watch_user;

    struct moment now;   /* of the call that is running: the machine's ops carry no time */
    const char *id_line; /* while an ID is taken: its line, for the log of a refusal */
    size_t id_line_len;

    uint64_t next_serial;
    uint64_t housekeeping_us;
    uint32_t forget_cursor; /* sid */
    int64_t wall_offset_s;  /* wall clock minus monotonic clock, at the last housekeeping */
    int64_t wall_jump_s;    /* by which the wall clock has jumped ahead since the start */
    struct sessions_counters counters;
    struct limits_on_log log;
};

static inline enum server_fsm_state session_state(const struct session *session)
{
    return (enum server_fsm_state)session->fsm.state;
}

/* Unix seconds of the call that is running. */
static inline int64_t sessions_now_s(const struct sessions *all)
{
    return all->now.wall_ms / 1000;
}

/* Hands an event to whoever watches (sessions_set_watch()), with the time of the call that is
 * running put into it. Calls back to nothing else. */
void sessions_tell_watch(struct sessions *all, struct session_event *event);

#endif
