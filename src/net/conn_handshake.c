/*
 * Decides when a TLS handshake goes on and what comes of it. A step costs as much as thousands of
 * lines: so none is taken where it comes up, but in a queue at the end of turns, with a budget. The
 * session has begun before, since its one deadline counts from the accept; what it says waits here.
 * Knows neither lines nor how they are sent: that is conn.c's, and begins when the handshake ends.
 */
#include "net/conn_internal.h"

#include "base/log.h"
#include "net/tls.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

static void conn_on_shaking(evutil_socket_t fd, short what, void *user);
static void make_ready(struct conn_tls *tls);
static void unready(struct conn_tls *tls);
static void take_step(struct conn *conn, struct moment now);
static void finish_handshake(struct conn *conn);
static void fail_handshake(struct conn *conn);

size_t conn_env_shake_hands(struct conn_env *env, uint64_t budget_us)
{
    struct conn_tls *tls = TAILQ_FIRST(&env->shaking);

    if (!tls)
        return 0;
    struct moment now = clock_now();
    const uint64_t end_us = now.mono_us + budget_us;
    for (; tls && now.mono_us < end_us; tls = TAILQ_FIRST(&env->shaking)) {
        unready(tls);
        take_step(tls->conn, now);
        now = clock_now();
    }
    return env->shaking_count;
}

bool conn_handshake_start(struct conn *conn, int fd)
{
    struct conn_env *env = conn->env;

    conn->tls = calloc(1, sizeof(*conn->tls));
    if (!conn->tls)
        return false;
    conn->tls->conn = conn;
    conn->tls->ssl = env->tls ? tls_accept(env->tls, fd) : NULL;
    env->tls_stats.open++;
    env->tls_stats.pending++;
    return conn->tls->ssl &&
           event_assign(&conn->readable, env->base, fd, EV_READ, conn_on_shaking, conn) == 0;
}

/* Its step is taken when its turn comes, however many are looked at. */
void conn_handshake_look(struct conn *conn)
{
    char byte;

    if (!conn->tls->is_ready && recv(conn_fd(conn), &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0) {
        (void)event_del(&conn->readable);
        make_ready(conn->tls);
    }
    if (conn->tls->is_ready)
        session_went_on(&conn->session, clock_now());
}

void conn_handshake_free(struct conn *conn)
{
    struct conn_tls *tls = conn->tls;

    if (!tls)
        return;
    unready(tls);
    conn->env->tls_stats.open--;
    conn->env->tls_stats.pending -= !tls->is_open;
    SSL_free(tls->ssl);
    free(tls);
    conn->tls = NULL;
}

/* The handshake can go on: when the turn ends, and not before it is watched again. */
static void conn_on_shaking(evutil_socket_t fd, short what, void *user)
{
    struct conn *conn = user;

    (void)fd;
    (void)what;
    make_ready(conn->tls);
}

static void make_ready(struct conn_tls *tls)
{
    struct conn_env *env = tls->conn->env;

    if (tls->is_ready)
        return;
    tls->is_ready = true;
    TAILQ_INSERT_TAIL(&env->shaking, tls, link);
    env->shaking_count++;
}

static void unready(struct conn_tls *tls)
{
    struct conn_env *env = tls->conn->env;

    if (!tls->is_ready)
        return;
    tls->is_ready = false;
    TAILQ_REMOVE(&env->shaking, tls, link);
    env->shaking_count--;
}

/* Its event is not pending; it is one of ours again if something is still to come. */
static void take_step(struct conn *conn, struct moment now)
{
    struct conn_tls *tls = conn->tls;
    bool watched = true;

    if (conn->closing)
        return;
    conn_env_begin_work(conn->env, now);
    const enum tls_step step = tls_take_step(tls->ssl);
    const int error = errno;
    tls->work_us += (uint32_t)(clock_monotonic_us() - now.mono_us);
    switch (step) {
    case TLS_DONE:
        finish_handshake(conn);
        return;
    case TLS_WANTS_READ:
        watched = conn_watch(conn, EV_READ, conn_on_shaking);
        break;
    case TLS_WANTS_WRITE:
        watched = conn_watch(conn, EV_WRITE, conn_on_shaking);
        break;
    case TLS_PEER_GONE:
        conn_end_by_peer(conn, error == 0 ? REASON_LEFT : conn_reason_of_errno(error));
        return;
    case TLS_FAILED:
        fail_handshake(conn);
        return;
    }
    if (!watched)
        session_end(&conn->session, REASON_RESOURCES, now);
}

/* From here on all is as with a plain connection; and what the session has said goes out. */
static void finish_handshake(struct conn *conn)
{
    struct conn_tls *tls = conn->tls;
    struct conn_tls_stats *stats = &conn->env->tls_stats;

    if (SSL_session_reused(tls->ssl))
        stats->resumed++;
    else
        stats->full++;
    duration_histogram_record(&stats->work, tls->work_us);
    tls->is_open = true;
    stats->pending--;
    if (!conn_watch_lines(conn)) {
        session_end(&conn->session, REASON_RESOURCES, clock_now());
        return;
    }
    if (tls->held)
        conn_session_ops.send(&conn->session, tls->held, tls->held_len);
    tls->held = NULL;
}

/* The alert that says why is on its way, and gets the time that a last line gets. */
static void fail_handshake(struct conn *conn)
{
    conn->env->tls_stats.failed++;
    conn->tls->has_failed = true;
    log_event(LOG_LEVEL_DEBUG, "tls_failed", LOG_NUM("serial", conn->session.serial),
              LOG_STR("error", tls_reason()));
    session_end(&conn->session, REASON_TLS, clock_now());
    conn->said_why = conn_watch_lines(conn);
}
