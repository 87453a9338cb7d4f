/*
 * Joins a socket and a session. Decides how lines are cut out of what comes, how a short line
 * leaves without a detour, when a peer is too slow, and how a connection says its last word. Knows
 * no rule of the protocol. The session's end is the only way in which a connection ends.
 *
 * Lines are short and come whole, and the kernel takes what is sent: so a connection begins with an
 * event alone, is read into the stack and written straight into the socket. From the first time on
 * that something has to wait, half a line or a line that the kernel does not take, it has a
 * bufferevent for it.
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

/* Read at a time, which bounds the lines of one wake-up as well. It is what a bufferevent reads. */
#define READ_BYTES 4096
/* While lines are held, this much may gather before reading stops. */
#define MAX_HELD_BYTES 1024

static void conn_on_readable(evutil_socket_t fd, short what, void *user);
static void conn_on_read(struct bufferevent *bev, void *user);
static void conn_on_write(struct bufferevent *bev, void *user);
static void conn_on_event(struct bufferevent *bev, short what, void *user);
static void read_socket(struct conn *conn);
static void take_kept_lines(struct conn *conn);
static size_t take_lines(struct conn *conn, const char *bytes, size_t len);
static void drain_kept(struct conn *conn, size_t len);
static void keep(struct conn *conn, const char *bytes, size_t len);
static struct bufferevent *bufferevent_of(struct conn *conn);
static size_t unsent(const struct conn *conn);
static void end_by_peer(struct conn *conn, enum reason reason);
static void send_line(struct session *session, const char *line, size_t len);
static void resume(struct session *session);
static void look(struct session *session);
static void close_conn(struct session *session, bool said_why);
static void apply_user_timeout(struct conn *conn);
static enum reason reason_of_errno(int error);
static int fd_of(const struct conn *conn);
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
    if (event_assign(&conn->readable, env->base, fd, EV_READ | EV_PERSIST, conn_on_readable,
                     conn) != 0 ||
        event_add(&conn->readable, NULL) != 0) {
        free(conn);
        return NULL;
    }
    session_start(&conn->session, env->sessions, peer, now);
    return conn;
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
    if (unsent(conn) == 0)
        (void)shutdown(fd_of(conn), SHUT_WR);
    return false;
}

void conn_free(struct conn *conn)
{
    const int fd = fd_of(conn);

    if (conn->bev) {
        conn->env->received_bytes += evbuffer_get_length(bufferevent_get_input(conn->bev));
        /* Out of epoll before the descriptor is closed: with a deferred callback pending, freeing
         * alone would do that only later, and a new connection with the same number would go
         * unheard. */
        (void)bufferevent_disable(conn->bev, EV_READ | EV_WRITE);
        bufferevent_free(conn->bev);
        close(fd);
    } else {
        /* The other way round: closing takes it out of epoll, as long as no other process has the
         * socket too, and what is left to do for libevent, at once, is to forget the number. */
        close(fd);
        (void)event_del(&conn->readable);
    }
    free(conn);
}

static void conn_on_readable(evutil_socket_t fd, short what, void *user)
{
    struct conn *conn = user;

    (void)fd;
    (void)what;
    conn->env->reads++;
    read_socket(conn);
}

static void conn_on_read(struct bufferevent *bev, void *user)
{
    struct conn *conn = user;

    conn->env->reads++;
    if (!conn->closing)
        take_kept_lines(conn);
    if (conn->closing) {
        struct evbuffer *input = bufferevent_get_input(bev);
        drain_kept(conn, evbuffer_get_length(input));
    }
}

/* Everything that had to wait is sent. */
static void conn_on_write(struct bufferevent *bev, void *user)
{
    struct conn *conn = user;

    (void)bev;
    if (conn->lingering)
        (void)shutdown(fd_of(conn), SHUT_WR);
}

static void conn_on_event(struct bufferevent *bev, short what, void *user)
{
    (void)bev;
    end_by_peer(user,
                what & BEV_EVENT_ERROR ? reason_of_errno(EVUTIL_SOCKET_ERROR()) : REASON_LEFT);
}

/* Straight from the kernel, while there is no bufferevent. */
static void read_socket(struct conn *conn)
{
    char bytes[READ_BYTES];
    const ssize_t got = recv(fd_of(conn), bytes, sizeof(bytes), MSG_DONTWAIT);

    if (got > 0) {
        conn->env->received_bytes += (size_t)got;
        const size_t taken = conn->closing ? (size_t)got : take_lines(conn, bytes, (size_t)got);
        if (!conn->closing && taken < (size_t)got)
            keep(conn, bytes + taken, (size_t)got - taken);
    } else if (got == 0) {
        end_by_peer(conn, REASON_LEFT);
    } else if (errno != EAGAIN && errno != EINTR) {
        end_by_peer(conn, reason_of_errno(errno));
    }
}

static void take_kept_lines(struct conn *conn)
{
    struct evbuffer *input = bufferevent_get_input(conn->bev);
    const size_t len = evbuffer_get_length(input);
    const char *bytes = (const char *)evbuffer_pullup(input, -1);

    if (len == 0)
        return;
    if (bytes)
        drain_kept(conn, take_lines(conn, bytes, len));
    else
        session_end(&conn->session, REASON_RESOURCES, clock_now());
}

/* Takes every whole line, and returns how many bytes that were: what is left over is the begin of
 * one, or lines that are held, or of no interest any more. */
static size_t take_lines(struct conn *conn, const char *bytes, size_t len)
{
    const struct moment now = clock_now();
    const char *line = NULL;
    size_t line_len = 0;
    size_t taken = 0;
    bool held = false;

    conn_env_begin_work(conn->env, now);
    while (!conn->closing && !held) {
        const int got = proto_take_line(bytes + taken, len - taken, &line, &line_len);
        if (got == 0)
            break;
        if (got < 0)
            held = !session_bad_line(&conn->session, got, now);
        else if (session_line(&conn->session, line, line_len, now))
            taken += (size_t)got;
        else
            held = true;
    }
    if (held && conn->bev && len - taken >= MAX_HELD_BYTES && !conn->reading_paused) {
        conn->reading_paused = true;
        (void)bufferevent_disable(conn->bev, EV_READ);
    }
    return taken;
}

/* Done with so many bytes that the bufferevent has kept. */
static void drain_kept(struct conn *conn, size_t len)
{
    conn->env->received_bytes += len;
    evbuffer_drain(bufferevent_get_input(conn->bev), len);
}

/* Puts bytes by that cannot be used yet: before all that is still to be read. They are counted as
 * received when they are taken out again. */
static void keep(struct conn *conn, const char *bytes, size_t len)
{
    struct bufferevent *bev = bufferevent_of(conn);

    conn->env->received_bytes -= len;
    /* A bufferevent keeps others from adding to its input; here we are the bufferevent. */
    if (bev)
        evbuffer_unfreeze(bufferevent_get_input(bev), 0);
    if (!bev || evbuffer_add(bufferevent_get_input(bev), bytes, len) != 0)
        session_end(&conn->session, REASON_RESOURCES, clock_now());
    if (bev)
        evbuffer_freeze(bufferevent_get_input(bev), 0);
}

/* The bufferevent takes the socket over from our own event. Returns NULL when memory is out. */
static struct bufferevent *bufferevent_of(struct conn *conn)
{
    if (conn->bev)
        return conn->bev;

    struct bufferevent *bev = bufferevent_socket_new(conn->env->base, fd_of(conn), 0);
    if (!bev)
        return NULL;
    bufferevent_setcb(bev, conn_on_read, conn_on_write, conn_on_event, conn);
    (void)event_del(&conn->readable);
    conn->bev = bev;
    /* It was in epoll a moment ago, so there is room for it. */
    if (bufferevent_enable(bev, EV_READ) != 0)
        conn->gone = true;
    return conn->gone ? NULL : bev;
}

static size_t unsent(const struct conn *conn)
{
    return conn->bev ? evbuffer_get_length(bufferevent_get_output(conn->bev)) : 0;
}

static void end_by_peer(struct conn *conn, enum reason reason)
{
    conn->gone = true;
    if (conn->lingering) {
        conn->env->on_dying(conn->env->user, conn);
        return;
    }
    const struct moment now = clock_now();
    conn_env_begin_work(conn->env, now);
    session_end(&conn->session, reason, now);
}

/*
 * Straight into the socket when nothing waits before it, which is nearly always: no copy, no event
 * to learn that the socket takes bytes. What the kernel does not take goes the usual way.
 */
static void send_line(struct session *session, const char *line, size_t len)
{
    struct conn *conn = conn_of(session);
    const size_t waiting = unsent(conn);
    ssize_t sent = 0;

    if (conn->gone)
        return;
    if (conn->generation != conn->env->generation)
        apply_user_timeout(conn);
    if (waiting == 0) {
        sent = send(fd_of(conn), line, len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent == (ssize_t)len) {
            conn->env->sent_bytes += len;
            return;
        }
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
    else if (!bufferevent_of(conn) || bufferevent_write(conn->bev, line + sent, rest) != 0)
        session_end(session, REASON_RESOURCES, clock_now());
    else
        conn->env->sent_bytes += len;
}

/* Lines that are held are kept in the bufferevent. */
static void resume(struct session *session)
{
    struct conn *conn = conn_of(session);

    if (conn->reading_paused) {
        conn->reading_paused = false;
        if (bufferevent_enable(conn->bev, EV_READ) != 0)
            conn->reading_paused = true; /* it will not answer, and be dropped for that */
    }
    if (conn->bev && evbuffer_get_length(bufferevent_get_input(conn->bev)) > 0)
        bufferevent_trigger(conn->bev, EV_READ, BEV_TRIG_DEFER_CALLBACKS);
}

static void look(struct session *session)
{
    struct conn *conn = conn_of(session);

    if (conn->closing || conn->reading_paused)
        return;
    if (!conn->bev) {
        read_socket(conn);
        return;
    }
    struct evbuffer *input = bufferevent_get_input(conn->bev);
    evbuffer_unfreeze(input, 0);
    const int got = evbuffer_read(input, fd_of(conn), READ_BYTES);
    const int error = errno;
    evbuffer_freeze(input, 0);
    if (got > 0)
        take_kept_lines(conn);
    else if (got == 0)
        end_by_peer(conn, REASON_LEFT);
    else if (error != EAGAIN && error != EINTR)
        end_by_peer(conn, reason_of_errno(error));
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
        (void)setsockopt(fd_of(conn), IPPROTO_TCP, TCP_USER_TIMEOUT, &conn->env->user_timeout_ms,
                         sizeof(conn->env->user_timeout_ms));
}

/* TCP gives up on a peer that acknowledges nothing (TCP_USER_TIMEOUT). */
static enum reason reason_of_errno(int error)
{
    return error == ETIMEDOUT ? REASON_TIMED_OUT : REASON_RESET;
}

static int fd_of(const struct conn *conn)
{
    return (int)event_get_fd(&conn->readable);
}

static struct conn *conn_of(struct session *session)
{
    return container_of(session, struct conn, session);
}
