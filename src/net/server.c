/*
 * Owns every connection and the order of things in a loop turn. Decides when connections are freed
 * and how the server comes to its end. Knows no rule of the protocol and none of the registry.
 */
#include "net/server.h"

#include "base/log.h"
#include "net/conn.h"
#include "net/listener.h"
#include "net/tls.h"

#include <event2/event.h>

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* A turn in which so many connections were read: newcomers are looked for, and at, at its end. */
#define CROWDED_READS 256
/* Closing so many connections takes long enough to be worth a look at the clock. */
#define MANY_FREED 64
/* While draining, this many times a second some sessions are ended. */
#define DRAIN_STEP_US (20 * CLOCK_US_PER_MS)

/* TLS handshakes may take so long a turn; those that are left go on in the next one. */
#define HANDSHAKE_BUDGET_US (4 * CLOCK_US_PER_MS)
/* While so many can go on, no more are accepted: work for some tens of milliseconds, so that nobody
 * who was accepted waits for a large part of its deadline. */
#define MANY_HANDSHAKES 64

enum server_phase { SERVER_SERVING, SERVER_DRAINING, SERVER_STOPPING, SERVER_DONE };

struct server {
    struct server_options options;
    struct event_base *base;
    struct listeners *listeners; /* NULL once closed */
    struct sessions *sessions;
    struct store *store;
    struct conn_env conn_env;
    size_t handshakes_left; /* that can go on, in the next turn */

    struct conn_list live;
    struct conn_list dying;     /* to be finished at the end of this turn */
    struct conn_list lingering; /* oldest first */
    size_t live_count;
    size_t conn_count; /* in all lists */

    struct event *timer;
    uint64_t timer_us; /* when it fires; UINT64_MAX while it is not set */

    enum server_phase phase;
    uint64_t drain_start_us;
    uint64_t drain_next_us;
    size_t drain_total;

    struct server_stats stats; /* what is counted elsewhere is added when somebody asks */
};

static void server_on_timer(evutil_socket_t fd, short what, void *user);
static void server_on_accept(void *user, int fd, const struct address *from, bool is_tls);
static bool drop_oldest_lingering(struct server *server);
static void server_on_dying(void *user, struct conn *conn);
static void turn_away(struct server *server, int fd, const struct peer_address *peer, bool is_tls,
                      enum reason reason, struct moment now);
static void refuse_at_the_door(struct server *server, int fd, int refusal);
static void end_turn(struct server *server);
static size_t free_dying(struct server *server, struct moment now);
static void drain_some(struct server *server, struct moment now);
static void set_timer(struct server *server, struct moment now);
static uint64_t next_us(const struct server *server);
static void close_listeners(struct server *server);
static void end_all_sessions(struct server *server);

struct server *server_new(const struct server_options *options, struct event_base *base,
                          struct listeners *listeners, struct tls *tls, struct sessions *sessions,
                          struct store *store)
{
    struct server *server = calloc(1, sizeof(*server));

    if (!server)
        return NULL;
    *server = (struct server){
        .options = *options,
        .base = base,
        .listeners = listeners,
        .sessions = sessions,
        .store = store,
        .timer_us = UINT64_MAX,
        .conn_env = {.base = base,
                     .sessions = sessions,
                     .on_dying = server_on_dying,
                     .user = server,
                     .user_timeout_ms = options->user_timeout_ms,
                     .tls = tls},
    };
    conn_env_init(&server->conn_env);
    TAILQ_INIT(&server->live);
    TAILQ_INIT(&server->dying);
    TAILQ_INIT(&server->lingering);
    server->timer = evtimer_new(base, server_on_timer, server);
    if (!server->timer || listeners_start(listeners, base, server_on_accept, server) != 0) {
        server->listeners = NULL;
        server->conn_env.tls = NULL;
        server_free(server);
        return NULL;
    }
    return server;
}

int server_run(struct server *server)
{
    set_timer(server, clock_now());
    while (server->phase != SERVER_DONE) {
        /* What is kept for the next turn must not wait for anybody to say something. */
        const bool at_once = store_next_us(server->store) == 0 || server->handshakes_left > 0;
        const int flags = at_once ? EVLOOP_ONCE | EVLOOP_NONBLOCK : EVLOOP_ONCE;

        if (event_base_loop(server->base, flags) < 0)
            return -1;
        end_turn(server);
    }
    return 0;
}

char *server_describe(const struct server *server, const char *begin)
{
    return listeners_describe(server->listeners, begin);
}

const struct server_stats *server_stats(struct server *server)
{
    struct server_stats *stats = &server->stats;

    stats->received_bytes = server->conn_env.received_bytes;
    stats->sent_bytes = server->conn_env.sent_bytes;
    if (server->listeners)
        stats->accept_pauses = listeners_pauses(server->listeners);
    stats->pending = sessions_pending(server->sessions);
    stats->leaving = sessions_leaving(server->sessions);
    stats->connected = sessions_connected(server->sessions) - stats->leaving;
    stats->closing = server->conn_count - server->live_count;
    stats->room = server->options.max_connections > server->conn_count
                      ? server->options.max_connections - server->conn_count
                      : 0;
    stats->tls = server->conn_env.tls_stats;
    stats->tls_expires = server->conn_env.tls ? tls_expires(server->conn_env.tls) : 0;
    return stats;
}

bool server_is_serving(const struct server *server)
{
    return server->phase == SERVER_SERVING;
}

void server_work_begins(struct server *server, struct moment now)
{
    conn_env_begin_work(&server->conn_env, now);
}

void server_reload(struct server *server, const struct server_options *options, struct tls *tls)
{
    server->options = *options;
    if (server->conn_env.tls && tls) {
        tls_free(server->conn_env.tls);
        server->conn_env.tls = tls;
    } else {
        tls_free(tls);
    }
    if (server->conn_env.user_timeout_ms != options->user_timeout_ms) {
        server->conn_env.user_timeout_ms = options->user_timeout_ms;
        server->conn_env.generation++;
        if (server->listeners)
            listeners_set_user_timeout(server->listeners, options->user_timeout_ms);
    }
}

void server_stop(struct server *server)
{
    if (server->phase == SERVER_STOPPING) {
        server->phase = SERVER_DONE;
        return;
    }
    server->phase = SERVER_STOPPING;
    sessions_freeze_orders(server->sessions);
    close_listeners(server);
    end_all_sessions(server);
}

void server_drain(struct server *server)
{
    if (server->phase != SERVER_SERVING)
        return;
    server->phase = SERVER_DRAINING;
    sessions_freeze_orders(server->sessions);
    server->drain_start_us = server->drain_next_us = clock_monotonic_us();
    server->drain_total = server->live_count;
    close_listeners(server);
}

void server_free(struct server *server)
{
    if (!server)
        return;

    struct conn_list *const lists[] = {&server->live, &server->dying, &server->lingering};
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        struct conn *conn;
        while ((conn = TAILQ_FIRST(lists[i])) != NULL) {
            TAILQ_REMOVE(lists[i], conn, link);
            conn_free(conn);
        }
    }
    listeners_close(server->listeners);
    tls_free(server->conn_env.tls);
    if (server->timer)
        event_free(server->timer);
    free(server);
}

static void server_on_timer(evutil_socket_t fd, short what, void *user)
{
    struct server *server = user;
    const struct moment now = clock_now();

    (void)fd;
    (void)what;
    conn_env_begin_work(&server->conn_env, now);
    server->timer_us = UINT64_MAX;
    sessions_tick(server->sessions, now);
    if (server->listeners)
        listeners_tick(server->listeners, now);
    if (server->phase == SERVER_DRAINING && now.mono_us >= server->drain_next_us)
        drain_some(server, now);
}

static void server_on_accept(void *user, int fd, const struct address *from, bool is_tls)
{
    struct server *server = user;
    const struct moment now = clock_now();
    struct peer_address peer;

    conn_env_begin_work(&server->conn_env, now);
    server->stats.accepted++;
    peer_address_set(&peer, from);
    enum reason reason = sessions_admit(server->sessions, &peer, now);
    if (reason == REASON_NONE && is_tls)
        reason = sessions_admit_tls(server->sessions, server->conn_env.tls_stats.pending);
    if (reason == REASON_NONE && server->conn_count >= server->options.max_connections &&
        !drop_oldest_lingering(server))
        reason = REASON_FULL;
    if (reason != REASON_NONE) {
        turn_away(server, fd, &peer, is_tls, reason, now);
        return;
    }

    struct conn *conn = conn_new(&server->conn_env, fd, &peer, is_tls, now);
    if (!conn) {
        turn_away(server, fd, &peer, is_tls, REASON_RESOURCES, now);
        return;
    }
    server->conn_count++;
    if (conn->place == CONN_NOWHERE) {
        TAILQ_INSERT_TAIL(&server->live, conn, link);
        conn->place = CONN_LIVE;
        server->live_count++;
    }
}

/* Who has been refused may read why while there is room, and keeps nobody out: no limit counts them
 * any more, so they could be as many as there are descriptors. Returns false if there is none. */
static bool drop_oldest_lingering(struct server *server)
{
    struct conn *oldest = TAILQ_FIRST(&server->lingering);

    if (!oldest)
        return false;
    TAILQ_REMOVE(&server->lingering, oldest, link);
    conn_free(oldest);
    server->conn_count--;
    return true;
}

/* Its session is over, or it lingered and has nothing to wait for any more. */
static void server_on_dying(void *user, struct conn *conn)
{
    struct server *server = user;

    switch ((enum conn_place)conn->place) {
    case CONN_DYING:
        return;
    case CONN_LIVE:
        TAILQ_REMOVE(&server->live, conn, link);
        server->live_count--;
        break;
    case CONN_LINGERING:
        TAILQ_REMOVE(&server->lingering, conn, link);
        break;
    case CONN_NOWHERE: /* it died while it was made */
        break;
    }
    TAILQ_INSERT_TAIL(&server->dying, conn, link);
    conn->place = CONN_DYING;
}

/* Who would speak TLS is not told why: that would take a handshake. */
static void turn_away(struct server *server, int fd, const struct peer_address *peer, bool is_tls,
                      enum reason reason, struct moment now)
{
    const int refusal = sessions_turn_away(server->sessions, peer, reason, now);

    refuse_at_the_door(server, fd, is_tls ? 0 : refusal);
}

/*
 * No session, no event, no memory: one line and the end. What the newcomer has sent already
 * is read, since bytes left unread would make the kernel reset the connection and lose the line.
 */
static void refuse_at_the_door(struct server *server, int fd, int refusal)
{
    const struct proto_code_info *info = proto_code_info(refusal);
    char unread[PROTO_MAX_LINE_BYTES];

    if (info) {
        const ssize_t sent = send(fd, info->line, info->line_len, MSG_NOSIGNAL | MSG_DONTWAIT);
        (void)shutdown(fd, SHUT_WR);
        const ssize_t got = recv(fd, unread, sizeof(unread), MSG_DONTWAIT);
        server->conn_env.sent_bytes += sent > 0 ? (size_t)sent : 0;
        server->conn_env.received_bytes += got > 0 ? (size_t)got : 0;
    }
    close(fd);
}

static void end_turn(struct server *server)
{
    const unsigned reads = server->conn_env.reads;
    struct moment now = clock_now();

    conn_env_begin_work(&server->conn_env, now); /* if nobody has: what is kept for later is done */
    server->conn_env.reads = 0;
    if (reads >= CROWDED_READS) {
        if (server->listeners)
            listeners_look(server->listeners);
        sessions_look_at_pending(server->sessions, now);
    }
    server->handshakes_left = conn_env_shake_hands(&server->conn_env, HANDSHAKE_BUDGET_US);
    if (server->listeners)
        listeners_hold_tls(server->listeners, server->handshakes_left >= MANY_HANDSHAKES);
    store_turn(server->store, reads > 0 && server->phase == SERVER_SERVING, now);
    now = clock_now(); /* a commit may have waited for a disk */
    if (free_dying(server, now) >= MANY_FREED)
        now = clock_now();
    set_timer(server, now);
    duration_histogram_record(&server->stats.turns, now.mono_us - server->conn_env.turn_began_us);
    server->conn_env.turn_began_us = 0;

    if (server->phase == SERVER_DRAINING && server->live_count == 0)
        server->phase = SERVER_STOPPING;
    if (server->phase == SERVER_STOPPING && server->conn_count == 0)
        server->phase = SERVER_DONE;
}

/* Returns how many were freed. */
static size_t free_dying(struct server *server, struct moment now)
{
    size_t freed = 0;
    struct conn *conn = TAILQ_FIRST(&server->lingering);

    /* Those whose time to read the last line is over. */
    for (; conn && now.mono_us >= conn->linger_until_us; conn = TAILQ_FIRST(&server->lingering))
        server_on_dying(server, conn);

    while ((conn = TAILQ_FIRST(&server->dying)) != NULL) {
        TAILQ_REMOVE(&server->dying, conn, link);
        if (!conn_finish(conn, now)) {
            TAILQ_INSERT_TAIL(&server->lingering, conn, link);
            conn->place = CONN_LINGERING;
            continue;
        }
        conn_free(conn);
        freed++;
        if (server->listeners)
            listeners_descriptor_freed(server->listeners);
    }
    server->conn_count -= freed;
    return freed;
}

/* As many as should have gone by now, so that they come back spread out, wherever that is. */
static void drain_some(struct server *server, struct moment now)
{
    const uint64_t elapsed_us = now.mono_us - server->drain_start_us;
    const uint64_t drain_us = server->options.drain_ms * CLOCK_US_PER_MS;
    size_t should_remain = 0;

    server->drain_next_us = now.mono_us + DRAIN_STEP_US;
    if (elapsed_us < drain_us)
        should_remain = server->drain_total - (size_t)((double)server->drain_total *
                                                       ((double)elapsed_us / (double)drain_us));
    while (server->live_count > should_remain)
        session_end(&TAILQ_FIRST(&server->live)->session, REASON_RESTARTING, now);
}

/* The one timer: set to the next moment at which anybody here wants to be called. */
static void set_timer(struct server *server, struct moment now)
{
    const uint64_t wanted_us = next_us(server);

    if (wanted_us == server->timer_us)
        return;
    server->timer_us = UINT64_MAX;
    if (wanted_us == UINT64_MAX) {
        (void)event_del(server->timer);
        return;
    }
    const uint64_t wait_us = wanted_us > now.mono_us ? wanted_us - now.mono_us : 0;
    const struct timeval wait = {.tv_sec = (time_t)(wait_us / CLOCK_US_PER_SEC),
                                 .tv_usec = (suseconds_t)(wait_us % CLOCK_US_PER_SEC)};
    /* If memory is out, the next turn tries again. */
    if (event_add(server->timer, &wait) == 0)
        server->timer_us = wanted_us;
}

static uint64_t next_us(const struct server *server)
{
    const struct conn *lingering = TAILQ_FIRST(&server->lingering);
    const uint64_t store_us = store_next_us(server->store);
    const uint64_t wishes[] = {
        sessions_next_us(server->sessions),
        store_us == 0 ? UINT64_MAX : store_us, /* the next turn comes without being asked for */
        lingering ? lingering->linger_until_us : UINT64_MAX,
        server->listeners ? listeners_next_us(server->listeners) : UINT64_MAX,
        server->phase == SERVER_DRAINING ? server->drain_next_us : UINT64_MAX,
    };
    uint64_t next = UINT64_MAX;

    for (size_t i = 0; i < sizeof(wishes) / sizeof(wishes[0]); i++)
        next = wishes[i] < next ? wishes[i] : next;
    return next;
}

static void close_listeners(struct server *server)
{
    if (server->listeners)
        server->stats.accept_pauses = listeners_pauses(server->listeners);
    listeners_close(server->listeners);
    server->listeners = NULL;
}

static void end_all_sessions(struct server *server)
{
    const struct moment now = clock_now();
    struct conn *conn;

    while ((conn = TAILQ_FIRST(&server->live)) != NULL)
        session_end(&conn->session, REASON_STOPPED, now);
}
