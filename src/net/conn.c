/*
 * Joins a socket and a session. Decides how lines are cut out of what comes, how a short line
 * leaves without a detour, when a peer is too slow, and how a connection says its last word. Knows
 * no rule of the protocol. The session's end is the only way in which a connection ends.
 *
 * Lines are short and come whole, and the kernel takes what is sent: so a connection begins with an
 * event alone, is read into the stack and written straight into the socket. From the first time on
 * that something has to wait, half a line or a line that the kernel does not take, it has a
 * bufferevent for it.
 *
 * A TLS connection is the same with OpenSSL between it and its socket, once its handshake is done,
 * which is conn_handshake.c's.
 */
#include "net/conn.h"

#include "base/container_of.h"
#include "cliser/proto.h"
#include "net/conn_internal.h"
#include "tls/spare.h"
#include "net/tls.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <event2/bufferevent_struct.h>
#include <event2/event.h>
#include <openssl/ssl.h>

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Read at a time, which bounds the lines of one wake-up as well. It is what a bufferevent reads. */
#define READ_BYTES 4096
/* While lines are held, this much may gather before reading stops. */
#define MAX_HELD_BYTES 1024

/* The build sets variables to zero that we do not set (cmake/hardening.cmake). Not this one: 4 KiB
 * of zeros for a line of 5 bytes, at each of them. */
#if defined(__has_attribute)
#if __has_attribute(uninitialized)
#define UNINITIALIZED __attribute__((uninitialized))
#endif
#endif
#ifndef UNINITIALIZED
#define UNINITIALIZED
#endif

static void conn_on_readable(evutil_socket_t fd, short what, void *user);
static void conn_on_read(struct bufferevent *bev, void *user);
static void conn_on_write(struct bufferevent *bev, void *user);
static void conn_on_event(struct bufferevent *bev, short what, void *user);
static void read_socket(struct conn *conn);
static bool read_once(struct conn *conn);
static void wait_for_write(struct conn *conn);
static void take_bytes(struct conn *conn, const char *bytes, size_t len);
static ssize_t receive(struct conn *conn, void *bytes, size_t size);
static ssize_t transmit(struct conn *conn, const void *bytes, size_t len);
static bool is_open(const struct conn *conn);
static void end_our_side(struct conn *conn);
static void take_kept_lines(struct conn *conn);
static size_t take_lines(struct conn *conn, const char *bytes, size_t len);
static void drain_kept(struct conn *conn, size_t len);
static void keep(struct conn *conn, const char *bytes, size_t len);
static struct bufferevent *bufferevent_of(struct conn *conn);
static struct bufferevent *new_tls_bufferevent(struct conn *conn);
static size_t unsent(const struct conn *conn);
static bool will_be_sent(const struct conn *conn);
static void send_line(struct session *session, const char *line, size_t len);
static void resume(struct session *session);
static void look(struct session *session);
static void close_conn(struct session *session, bool said_why);
static void apply_user_timeout(struct conn *conn);
static enum reason reason_of_bufferevent(const struct conn *conn, int error);
static bool may_have_id(struct session *session, const char *id, size_t len);
static struct conn *conn_of(struct session *session);

const struct session_ops conn_session_ops = {
    .send = send_line,
    .resume = resume,
    .look = look,
    .may_have_id = may_have_id,
    .close = close_conn,
};

void conn_env_init(struct conn_env *env)
{
    TAILQ_INIT(&env->shaking);
}

struct conn *conn_new(struct conn_env *env, int fd, const struct peer_address *peer, bool is_tls,
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
        (is_tls && !conn_handshake_start(conn, fd)) || event_add(&conn->readable, NULL) != 0) {
        conn_handshake_free(conn);
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
        end_our_side(conn);
    return false;
}

void conn_free(struct conn *conn)
{
    const int fd = conn_fd(conn);

    if (is_open(conn) && conn->tls)
        tls_say_end(conn->tls->ssl);
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
    conn_handshake_free(conn);
    free(conn);
}

bool conn_watch(struct conn *conn, short what, event_callback_fn callback)
{
    const int fd = conn_fd(conn);

    return event_assign(&conn->readable, conn->env->base, fd, what, callback, conn) == 0 &&
           event_add(&conn->readable, NULL) == 0;
}

bool conn_watch_lines(struct conn *conn)
{
    return conn_watch(conn, EV_READ | EV_PERSIST, conn_on_readable);
}

void conn_end_by_peer(struct conn *conn, enum reason reason)
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

/* TCP gives up on a peer that acknowledges nothing (TCP_USER_TIMEOUT); TLS has EPROTO; and a
 * bufferevent that finds no memory for what it reads says so like the kernel. */
enum reason conn_reason_of_errno(int error)
{
    switch (error) {
    case ETIMEDOUT:
        return REASON_TIMED_OUT;
    case EPROTO:
        return REASON_TLS;
    case ENOMEM:
        return REASON_RESOURCES;
    default:
        return REASON_RESET;
    }
}

int conn_fd(const struct conn *conn)
{
    return (int)event_get_fd(&conn->readable);
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
    if (conn->tls && conn->tls->end != REASON_NONE)
        conn_end_by_peer(conn, (enum reason)conn->tls->end);
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
        end_our_side(conn);
}

static void conn_on_event(struct bufferevent *bev, short what, void *user)
{
    const int error = EVUTIL_SOCKET_ERROR();
    struct conn *conn = user;
    const enum reason reason =
        what & BEV_EVENT_ERROR ? reason_of_bufferevent(conn, error) : REASON_LEFT;

    if (!conn->tls || conn->closing) {
        conn_end_by_peer(conn, reason);
        return;
    }
    /* OpenSSL's bufferevent tells the end before it has added the bytes that came with it. */
    conn->tls->end = (uint8_t)reason;
    bufferevent_trigger(bev, EV_READ, BEV_TRIG_IGNORE_WATERMARKS | BEV_TRIG_DEFER_CALLBACKS);
}

/* Straight from the kernel; from OpenSSL, a whole record, since nobody would wake us for what is
 * left of one. That is 16 KiB at most. */
static void read_socket(struct conn *conn)
{
    while (read_once(conn) && conn->tls && !conn->closing && tls_has_more(conn->tls->ssl))
        ;
}

/* Returns whether something came. */
static bool read_once(struct conn *conn)
{
    UNINITIALIZED char bytes[READ_BYTES];
    const ssize_t got = receive(conn, bytes, sizeof(bytes));

    if (got > 0) {
        conn->env->received_bytes += (size_t)got;
        if (!conn->closing)
            take_bytes(conn, bytes, (size_t)got);
        explicit_bzero(bytes, (size_t)got); /* it may have been a password */
    } else if (got == 0) {
        conn_end_by_peer(conn, REASON_LEFT);
    } else if (errno != EAGAIN && errno != EINTR) {
        conn_end_by_peer(conn, conn_reason_of_errno(errno));
    } else if (conn->tls && !conn->closing && tls_wants_write(conn->tls->ssl)) {
        wait_for_write(conn);
    }
    return got > 0;
}

/* OpenSSL owes the peer an answer, such as a new key, and reads no more before the socket has taken
 * it. The socket stays readable meanwhile, so our own event would keep us busy; a bufferevent waits
 * for what OpenSSL waits for. */
static void wait_for_write(struct conn *conn)
{
    if (!bufferevent_of(conn))
        session_end(&conn->session, REASON_RESOURCES, clock_now());
}

/* Behind what is kept already, if something is. */
static void take_bytes(struct conn *conn, const char *bytes, size_t len)
{
    if (conn->bev) {
        keep(conn, bytes, len);
        if (!conn->closing)
            take_kept_lines(conn);
        return;
    }
    const size_t taken = take_lines(conn, bytes, len);
    if (!conn->closing && taken < len)
        keep(conn, bytes + taken, len - taken);
}

/* As recv(). What comes when the session is over is of no interest, nor whether it is TLS. */
static ssize_t receive(struct conn *conn, void *bytes, size_t size)
{
    if (conn->tls && !conn->closing)
        return tls_receive(conn->tls->ssl, bytes, size);
    return recv(conn_fd(conn), bytes, size, MSG_DONTWAIT);
}

/* As send(). */
static ssize_t transmit(struct conn *conn, const void *bytes, size_t len)
{
    if (conn->tls)
        return tls_send(conn->tls->ssl, bytes, len);
    return send(conn_fd(conn), bytes, len, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Can anything be said? Not before the end of a TLS handshake. */
static bool is_open(const struct conn *conn)
{
    return !conn->tls || conn->tls->is_open;
}

/* Everything is said. */
static void end_our_side(struct conn *conn)
{
    if (conn->tls)
        tls_say_end(conn->tls->ssl);
    (void)shutdown(conn_fd(conn), SHUT_WR);
}

static void take_kept_lines(struct conn *conn)
{
    struct evbuffer *input = bufferevent_get_input(conn->bev);
    const size_t len = evbuffer_get_length(input);
    char *bytes = (char *)evbuffer_pullup(input, -1);

    if (len == 0)
        return;
    if (bytes) {
        const size_t taken = take_lines(conn, bytes, len);
        explicit_bzero(bytes, taken); /* it may have been a password */
        drain_kept(conn, taken);
    } else {
        session_end(&conn->session, REASON_RESOURCES, clock_now());
    }
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
    /* A bufferevent of a socket keeps others from adding to its input; here we are the bufferevent.
     * That of OpenSSL does not, and could not add itself to what is frozen. */
    if (bev && !conn->tls)
        evbuffer_unfreeze(bufferevent_get_input(bev), 0);
    if (!bev || evbuffer_add(bufferevent_get_input(bev), bytes, len) != 0)
        session_end(&conn->session, REASON_RESOURCES, clock_now());
    if (bev && !conn->tls)
        evbuffer_freeze(bufferevent_get_input(bev), 0);
}

/* The bufferevent takes the socket over from our own event. Returns NULL when memory is out. */
static struct bufferevent *bufferevent_of(struct conn *conn)
{
    if (conn->bev)
        return conn->bev;

    struct bufferevent *bev = conn->tls ? new_tls_bufferevent(conn)
                                        : bufferevent_socket_new(conn->env->base, conn_fd(conn), 0);
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

static struct bufferevent *new_tls_bufferevent(struct conn *conn)
{
    if (!spare_begin())
        return NULL;
    struct bufferevent *bev = bufferevent_openssl_socket_new(
        conn->env->base, conn_fd(conn), conn->tls->ssl, BUFFEREVENT_SSL_OPEN, 0);
    spare_end();
    return bev;
}

static size_t unsent(const struct conn *conn)
{
    return conn->bev ? evbuffer_get_length(bufferevent_get_output(conn->bev)) : 0;
}

/* Without memory libevent makes bufferevents that keep for ever what they are given to write. */
static bool will_be_sent(const struct conn *conn)
{
    return unsent(conn) == 0 || event_pending(&conn->bev->ev_write, EV_WRITE, NULL) != 0;
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
    if (!is_open(conn)) {
        /* The first line asks for the password. Another one can only be the last, and is not told.
         */
        if (!conn->tls->held) {
            conn->tls->held = line;
            conn->tls->held_len = len;
        }
        return;
    }
    if (waiting == 0) {
        sent = transmit(conn, line, len);
        if (sent == (ssize_t)len) {
            conn->env->sent_bytes += len;
            return;
        }
        if (sent < 0 && errno != EAGAIN && errno != EINTR && errno != ENOBUFS) {
            const enum reason reason = conn_reason_of_errno(errno);
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
    else if (!bufferevent_of(conn) || bufferevent_write(conn->bev, line + sent, rest) != 0 ||
             !will_be_sent(conn))
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
    if (is_open(conn))
        read_socket(conn);
    else
        conn_handshake_look(conn);
}

static bool may_have_id(struct session *session, const char *id, size_t len)
{
    const struct conn *conn = conn_of(session);

    return !conn->tls || tls_covers(conn->tls->ssl, id, len);
}

static void close_conn(struct session *session, bool said_why)
{
    struct conn *conn = conn_of(session);

    conn->closing = true;
    if (!is_open(conn) && !conn->tls->has_failed)
        conn->env->tls_stats.abandoned++;
    conn->said_why = said_why && !conn->gone && is_open(conn);
    conn->env->on_dying(conn->env->user, conn);
}

/* A reload changed it; new sockets inherit it from their listener, old ones get it when they are
 * next spoken to, so that no reload has to walk through everyone. */
static void apply_user_timeout(struct conn *conn)
{
    conn->generation = conn->env->generation;
    if (conn->is_tcp)
        (void)setsockopt(conn_fd(conn), IPPROTO_TCP, TCP_USER_TIMEOUT, &conn->env->user_timeout_ms,
                         sizeof(conn->env->user_timeout_ms));
}

/* Why a bufferevent has had an error. OpenSSL's kind of it is among those that it keeps. */
static enum reason reason_of_bufferevent(const struct conn *conn, int error)
{
    unsigned long kept;

    while (conn->tls && (kept = bufferevent_get_openssl_error(conn->bev)) != 0) {
        if (kept == SSL_ERROR_SSL)
            return REASON_TLS;
    }
    return conn_reason_of_errno(error);
}

static struct conn *conn_of(struct session *session)
{
    return container_of(session, struct conn, session);
}
