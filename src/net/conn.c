/*
 * Joins a bufferevent and a session. Decides how lines are cut out of the input, how a short line
 * leaves without a detour, when a peer is too slow, and how a connection says its last word. Knows
 * no rule of the protocol. The session's end is the only way in which a connection ends.
 */
#include "net/conn.h"

#include "base/container_of.h"
#include "cliser/proto.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* libevent reads at most this much at a time, which bounds the lines of one wake-up as well. */
#define READ_BYTES 4096
/* While lines are held, this much may gather before reading stops. */
#define MAX_HELD_BYTES 1024

static void conn_on_read(struct bufferevent *bev, void *user);
static void conn_on_write(struct bufferevent *bev, void *user);
static void conn_on_event(struct bufferevent *bev, short what, void *user);
static void take_lines(struct conn *conn, struct moment now);
static void send_line(struct session *session, const char *line, size_t len);
static void resume(struct session *session);
static void look(struct session *session);
static void close_conn(struct session *session, bool said_why);
static void apply_user_timeout(struct conn *conn);
static enum reason reason_of_errno(int error);
static struct conn *conn_of(struct session *session);

const struct session_ops conn_session_ops = {
    .send = send_line,
    .resume = resume,
    .look = look,
    .close = close_conn,
};

struct conn *conn_new(struct conn_env *env, int fd, const struct peer_address *peer,
                      struct moment now)
{
    struct conn *conn = calloc(1, sizeof(*conn));

    if (!conn)
        return NULL;
    conn->env = env;
    conn->generation = env->generation;
    conn->is_tcp = peer->family != AF_UNIX;
    /* Not BEV_OPT_CLOSE_ON_FREE: that closes a loop pass later, and a descriptor is wanted back at
     * once. */
    conn->bev = bufferevent_socket_new(env->base, fd, 0);
    if (!conn->bev)
        goto failed;
    bufferevent_setcb(conn->bev, conn_on_read, conn_on_write, conn_on_event, conn);
    if (bufferevent_enable(conn->bev, EV_READ) != 0)
        goto failed;
    session_start(&conn->session, env->sessions, peer, now);
    return conn;

failed:
    if (conn->bev)
        bufferevent_free(conn->bev);
    free(conn);
    return NULL;
}

bool conn_finish(struct conn *conn, struct moment now)
{
    if (conn->gone || !conn->said_why)
        return true;
    if (conn->lingering)
        return now.mono_us >= conn->linger_until_us;

    /* Closing with unread bytes would reset the connection and could take the last line from under
     * the peer's eyes: so end our side only, and read and forget until the peer ends its own. */
    conn->lingering = true;
    conn->linger_until_us = now.mono_us + CONN_LINGER_US;
    if (conn->reading_paused && bufferevent_enable(conn->bev, EV_READ) != 0)
        return true;
    if (evbuffer_get_length(bufferevent_get_output(conn->bev)) == 0)
        (void)shutdown(bufferevent_getfd(conn->bev), SHUT_WR);
    return false;
}

void conn_free(struct conn *conn)
{
    const int fd = bufferevent_getfd(conn->bev);

    /* Out of epoll before the descriptor is closed: with a deferred callback pending, freeing alone
     * would do that only later, and a new connection with the same number would go unheard. */
    (void)bufferevent_disable(conn->bev, EV_READ | EV_WRITE);
    bufferevent_free(conn->bev);
    close(fd);
    free(conn);
}

static void conn_on_read(struct bufferevent *bev, void *user)
{
    struct conn *conn = user;

    if (!conn->closing)
        take_lines(conn, clock_now());
    if (conn->closing) {
        struct evbuffer *input = bufferevent_get_input(bev);
        evbuffer_drain(input, evbuffer_get_length(input));
    }
}

/* Everything that had to wait is sent. */
static void conn_on_write(struct bufferevent *bev, void *user)
{
    struct conn *conn = user;

    if (conn->lingering)
        (void)shutdown(bufferevent_getfd(bev), SHUT_WR);
}

static void conn_on_event(struct bufferevent *bev, short what, void *user)
{
    struct conn *conn = user;
    const enum reason reason =
        what & BEV_EVENT_ERROR ? reason_of_errno(EVUTIL_SOCKET_ERROR()) : REASON_LEFT;

    (void)bev;
    conn->gone = true;
    if (conn->lingering)
        conn->env->on_dying(conn->env->user, conn);
    else
        session_end(&conn->session, reason, clock_now());
}

/* Takes every whole line; what is left over is the begin of one, or lines that are held. */
static void take_lines(struct conn *conn, struct moment now)
{
    struct evbuffer *input = bufferevent_get_input(conn->bev);
    const size_t len = evbuffer_get_length(input);
    const char *bytes = (const char *)evbuffer_pullup(input, -1);
    const char *line = NULL;
    size_t line_len = 0;
    size_t taken = 0;
    bool held = false;

    if (len == 0)
        return;
    if (!bytes) {
        session_end(&conn->session, REASON_RESOURCES, now);
        return;
    }
    while (!conn->closing && !held) {
        const int got = proto_take_line(bytes + taken, len - taken, &line, &line_len);
        if (got == 0)
            break;
        if (got < 0)
            session_bad_line(&conn->session, got, now);
        else if (session_line(&conn->session, line, line_len, now))
            taken += (size_t)got;
        else
            held = true;
    }
    evbuffer_drain(input, taken);

    if (held && len - taken >= MAX_HELD_BYTES && !conn->reading_paused) {
        conn->reading_paused = true;
        (void)bufferevent_disable(conn->bev, EV_READ);
    }
}

/*
 * Straight into the socket when nothing waits before it, which is nearly always: no copy, no event
 * to learn that the socket takes bytes. What the kernel does not take goes the usual way.
 */
static void send_line(struct session *session, const char *line, size_t len)
{
    struct conn *conn = conn_of(session);
    const size_t waiting = evbuffer_get_length(bufferevent_get_output(conn->bev));
    ssize_t sent = 0;

    if (conn->gone)
        return;
    if (conn->generation != conn->env->generation)
        apply_user_timeout(conn);
    if (waiting == 0) {
        sent = send(bufferevent_getfd(conn->bev), line, len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent == (ssize_t)len)
            return;
        if (sent < 0 && errno != EAGAIN && errno != EINTR && errno != ENOBUFS) {
            const enum reason reason = reason_of_errno(errno);
            conn->gone = true;
            session_end(session, reason, clock_now());
            return;
        }
        if (sent < 0)
            sent = 0;
    }

    const size_t rest = len - (size_t)sent;
    if (waiting + rest > CONN_MAX_UNSENT_BYTES)
        session_end(session, REASON_SLOW, clock_now());
    else if (bufferevent_write(conn->bev, line + sent, rest) != 0)
        session_end(session, REASON_RESOURCES, clock_now());
}

static void resume(struct session *session)
{
    struct conn *conn = conn_of(session);

    if (conn->reading_paused) {
        conn->reading_paused = false;
        if (bufferevent_enable(conn->bev, EV_READ) != 0)
            conn->reading_paused = true; /* it will not answer, and be dropped for that */
    }
    if (evbuffer_get_length(bufferevent_get_input(conn->bev)) > 0)
        bufferevent_trigger(conn->bev, EV_READ, BEV_TRIG_DEFER_CALLBACKS);
}

static void look(struct session *session)
{
    struct conn *conn = conn_of(session);
    struct evbuffer *input = bufferevent_get_input(conn->bev);

    if (conn->closing || conn->reading_paused)
        return;
    /* A bufferevent keeps others from adding to its input; here we are the bufferevent. An end or
     * an error is left for the event loop to find: it is there then, too. */
    evbuffer_unfreeze(input, 0);
    const int got = evbuffer_read(input, bufferevent_getfd(conn->bev), READ_BYTES);
    evbuffer_freeze(input, 0);
    if (got > 0)
        take_lines(conn, clock_now());
}

static void close_conn(struct session *session, bool said_why)
{
    struct conn *conn = conn_of(session);

    conn->closing = true;
    conn->said_why = said_why && !conn->gone;
    conn->env->on_dying(conn->env->user, conn);
}

/* A reload changed it; new sockets inherit it from their listener, old ones get it when they are
 * next spoken to, so that no reload has to walk through everyone. */
static void apply_user_timeout(struct conn *conn)
{
    conn->generation = conn->env->generation;
    if (conn->is_tcp)
        (void)setsockopt(bufferevent_getfd(conn->bev), IPPROTO_TCP, TCP_USER_TIMEOUT,
                         &conn->env->user_timeout_ms, sizeof(conn->env->user_timeout_ms));
}

/* TCP gives up on a peer that acknowledges nothing (TCP_USER_TIMEOUT). */
static enum reason reason_of_errno(int error)
{
    return error == ETIMEDOUT ? REASON_TIMED_OUT : REASON_RESET;
}

static struct conn *conn_of(struct session *session)
{
    return container_of(session, struct conn, session);
}
