/*
 * Decides how a connection is made, how its bytes become lines, and when it is over. What the lines
 * mean is client_fsm.c's to know, what to do about it the owner's. Owns the bufferevent, which owns
 * the socket; the struct around it belongs to whoever embeds it.
 *
 * With TLS a plain bufferevent waits for the TCP connection and then leaves its socket to one of
 * OpenSSL. The callbacks of that one are deferred: libevent 2.1 would report the end of a
 * connection before the last bytes of it, and from within every function that may read.
 *
 * The owner may close the link inside every callback. After each call that can lead there,
 * link->bev is looked at before anything else: NULL means that this session is none of our business
 * any more.
 */
#include "link.h"

#include "base/container_of.h"
#include "tls/spare.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <event2/event.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <unistd.h>

/* A server that asks and never reads answers must not fill our memory. */
#define MAX_UNSENT_BYTES ((size_t)64 * 1024)

/* A server that is gone without a word is noticed after 30 s + 3 probes of 10 s. */
#define KEEPALIVE_IDLE_S     30
#define KEEPALIVE_INTERVAL_S 10
#define KEEPALIVE_COUNT      3

enum taken {
    TAKEN_LINE,
    TAKEN_NOTHING, /* no complete line is there */
    TAKEN_LAST,    /* the session is over: the link may be closed, or open anew */
};

static void send_bytes(struct client_fsm *fsm, const char *bytes, size_t len);
static void hold_shutdown(struct client_fsm *fsm);
static void report_change(struct client_fsm *fsm, enum client_fsm_state old);

static const struct client_fsm_ops fsm_ops = {
    .send = send_bytes,
    .shutdown = hold_shutdown,
    .changed = report_change,
};

static int open_socket(const struct link_env *env, const struct link_target *target);
static void set_tcp_options(int fd, bool keepalive);
static int count_bytes(struct link *link);
static void count_received(struct evbuffer *buffer, const struct evbuffer_cb_info *info, void *arg);
static void count_sent(struct evbuffer *buffer, const struct evbuffer_cb_info *info, void *arg);
static void link_on_event(struct bufferevent *bev, short what, void *arg);
static void take_connection(struct link *link);
static int start_tls(struct link *link);
static void note_tls_failure(struct link *link, short what);
static SSL *ssl_of(const struct link *link);
static int restart(struct link *link, short way);
static void link_on_read(struct bufferevent *bev, void *arg);
static void link_on_written(struct bufferevent *bev, void *arg);
static bool take_lines(struct link *link);
static enum taken take_line(struct link *link);
static void hand_over(struct link *link, const char *line, size_t len);
static void end(struct link *link, int error);
static struct link *link_of(struct client_fsm *fsm);

int link_open(struct link *link, const struct link_env *env, const struct link_target *target,
              const char *password, const char *id)
{
    assert(!link->bev);
    client_fsm_start(&link->fsm);
    link->shutdown_due = false;
    link->send_error = 0;
    link->write_error = 0;
    link->tls_failure = TLS_FAILURE_NONE;
    link->env = env;
    link->client = (struct client_fsm_env){
        .ops = &fsm_ops,
        .password = password,
        .password_len = strlen(password),
        .id = id,
        .id_len = strlen(id),
    };

    const int fd = open_socket(env, target);
    if (fd < 0)
        return -1;
    link->bev = bufferevent_socket_new(env->base, fd, BEV_OPT_CLOSE_ON_FREE);
    if (!link->bev) {
        close(fd);
        errno = ENOMEM;
        return -1;
    }

    bufferevent_setcb(link->bev, link_on_read, link_on_written, link_on_event, link);
    /* Without an address: the socket is connecting already, say when it is done. */
    if ((!env->tls && count_bytes(link) != 0) ||
        bufferevent_socket_connect(link->bev, NULL, 0) != 0) {
        const int error = errno;
        link_close(link);
        errno = error;
        return -1;
    }
    return 0;
}

void link_close(struct link *link)
{
    SSL *ssl = ssl_of(link);

    if (!link->bev)
        return;
    if (ssl)
        tls_client_say_end(ssl);
    bufferevent_free(link->bev);
    link->bev = NULL;
}

const char *link_tls_version(const struct link *link)
{
    const SSL *ssl = ssl_of(link);

    return ssl && SSL_is_init_finished(ssl) ? SSL_get_version(ssl) : NULL;
}

/*
 * The socket is made and connected here rather than by the bufferevent: options and source have to
 * be set before the connect, and an errno is worth more than libevent's word that something failed.
 */
static int open_socket(const struct link_env *env, const struct link_target *target)
{
    const int one = 1;
    const int family = target->server->sa_family;
    const int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -1;
    if (family != AF_UNIX)
        set_tcp_options(fd, env->tcp_keepalive);

    if (target->source) {
        /* The port is chosen at the connect, where it only has to be free towards this server: a
         * source address serves each server with all its ports. */
        (void)setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
        if (bind(fd, target->source, target->source_len) != 0)
            goto failed;
    }
    if (connect(fd, target->server, target->server_len) == 0 || errno == EINPROGRESS)
        return fd;

failed:;
    const int error = errno;
    close(fd);
    errno = error;
    return -1;
}

/* None of them can fail on a fresh TCP socket; and without them a session works, only less well. */
static void set_tcp_options(int fd, bool keepalive)
{
    const int one = 1;
    const int idle_s = KEEPALIVE_IDLE_S;
    const int interval_s = KEEPALIVE_INTERVAL_S;
    const unsigned dead_after_ms =
        (KEEPALIVE_IDLE_S + KEEPALIVE_INTERVAL_S * KEEPALIVE_COUNT) * 1000U;

    /* An answer is one small segment, and somebody measures how long it takes. */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (!keepalive)
        return;

    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof(interval_s));
    /* Probes are not sent while an answer waits to be acknowledged; this bounds that wait too,
     * which would else be a quarter of an hour. It also takes the place of TCP_KEEPCNT. */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &dead_after_ms, sizeof(dead_after_ms));
}

/* Returns 0, or -1 with errno. */
static int count_bytes(struct link *link)
{
    struct link_bytes *bytes = link->env->bytes;

    if (!bytes || (evbuffer_add_cb(bufferevent_get_input(link->bev), count_received, bytes) &&
                   evbuffer_add_cb(bufferevent_get_output(link->bev), count_sent, bytes)))
        return 0;
    errno = ENOMEM;
    return -1;
}

static void count_received(struct evbuffer *buffer, const struct evbuffer_cb_info *info, void *arg)
{
    struct link_bytes *bytes = arg;

    (void)buffer;
    bytes->in += info->n_added;
}

static void count_sent(struct evbuffer *buffer, const struct evbuffer_cb_info *info, void *arg)
{
    struct link_bytes *bytes = arg;

    (void)buffer;
    bytes->out += info->n_deleted;
}

static void link_on_event(struct bufferevent *bev, short what, void *arg)
{
    int error = what & BEV_EVENT_ERROR ? EVUTIL_SOCKET_ERROR() : 0;
    struct link *link = arg;

    if (what & BEV_EVENT_CONNECTED) {
        take_connection(link);
        return;
    }
    note_tls_failure(link, what);
    if (link->tls_failure != TLS_FAILURE_NONE)
        error = EPROTO;

    /* A server that refuses and closes breaks our writing before we have read why: leave the end to
     * the reading side, which comes to it in any case. */
    const bool reset = error == EPIPE || error == ECONNRESET;
    if ((what & BEV_EVENT_WRITING) && reset && (bufferevent_get_enabled(bev) & EV_READ)) {
        link->write_error = error;
        if (ssl_of(link) && restart(link, EV_READ) != 0)
            end(link, ENOMEM);
        return;
    }

    /* With TLS an end can come together with a 130, before its answer was sent. It is told again
     * when that is done and reading goes on. */
    if (link->shutdown_due && (what & BEV_EVENT_EOF) && restart(link, EV_WRITE) == 0)
        return;

    /* A last line can come together with the end; it is what the owner wants to hear. */
    if (take_lines(link))
        end(link, error != 0 ? error : link->write_error);
}

/* Of TCP, or of TLS over it. */
static void take_connection(struct link *link)
{
    const struct link_ops *ops = link->env->ops;
    const bool is_secure = ssl_of(link);

    if (link->env->tls && !is_secure) {
        if (ops->opened)
            ops->opened(link);
        if (link->bev && start_tls(link) != 0)
            end(link, ENOMEM);
    } else if (bufferevent_enable(link->bev, EV_READ) != 0) {
        end(link, ENOMEM);
    } else if (is_secure && ops->secured) {
        ops->secured(link);
    } else if (!is_secure && ops->opened) {
        ops->opened(link);
    }
}

/* The connection's socket gets another bufferevent. Returns 0, or -1 when memory is out. */
static int start_tls(struct link *link)
{
    SSL *ssl = spare_begin() ? tls_client_connect(link->env->tls) : NULL;
    struct bufferevent *bev = NULL;

    if (ssl) /* owned by the bufferevent, even if there is none */
        bev = bufferevent_openssl_socket_new(link->env->base, bufferevent_getfd(link->bev), ssl,
                                             BUFFEREVENT_SSL_CONNECTING,
                                             BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS);
    spare_end();
    if (!bev)
        return -1;
    (void)bufferevent_setfd(link->bev, -1);
    bufferevent_free(link->bev);
    link->bev = bev;
    bufferevent_setcb(bev, link_on_read, link_on_written, link_on_event, link);
    return count_bytes(link);
}

/* A bufferevent of OpenSSL keeps the errors of its connection, and gives the last one first. */
static void note_tls_failure(struct link *link, short what)
{
    const SSL *ssl = ssl_of(link);
    unsigned long first = 0;

    if (!ssl)
        return;
    for (unsigned long kept = bufferevent_get_openssl_error(link->bev); kept != 0;
         kept = bufferevent_get_openssl_error(link->bev)) {
        if (ERR_GET_LIB(kept) != 0 && !ERR_SYSTEM_ERROR(kept)) /* else OpenSSL's kind of error */
            first = kept;
    }
    if (first != 0 || (what & BEV_EVENT_EOF))
        link->tls_failure = tls_client_failure(ssl, first);
}

/* NULL without TLS, or before TCP is up. */
static SSL *ssl_of(const struct link *link)
{
    return link->bev ? bufferevent_openssl_get_ssl(link->bev) : NULL;
}

/* A bufferevent of OpenSSL stops both ways when one has come to its end. */
static int restart(struct link *link, short way)
{
    (void)bufferevent_disable(link->bev, way);
    return bufferevent_enable(link->bev, way);
}

static void link_on_read(struct bufferevent *bev, void *arg)
{
    (void)bev;
    (void)take_lines(arg);
}

/* Everything queued has gone to the kernel. */
static void link_on_written(struct bufferevent *bev, void *arg)
{
    struct link *link = arg;

    if (!link->shutdown_due)
        return;
    link->shutdown_due = false;
    if (bufferevent_enable(bev, EV_READ) != 0) {
        link->shutdown_due = true;
        end(link, ENOMEM);
        return;
    }
    if (link->env->ops->shutdown)
        link->env->ops->shutdown(link);
    (void)take_lines(link); /* what came behind the 130 */
}

/*
 * Takes every line that is there; one wake-up reads at most 4 KiB, or a TLS record of 16, which
 * bounds this loop. Safe on a closed link. Returns false when the session is over.
 */
static bool take_lines(struct link *link)
{
    enum taken taken = link->bev ? TAKEN_LINE : TAKEN_LAST;

    while (taken == TAKEN_LINE && !link->shutdown_due)
        taken = take_line(link);
    return taken != TAKEN_LAST;
}

static enum taken take_line(struct link *link)
{
    struct evbuffer *input = bufferevent_get_input(link->bev);
    const size_t held = evbuffer_get_length(input);
    const size_t window = held < PROTO_MAX_LINE_BYTES ? held : PROTO_MAX_LINE_BYTES;
    const char *line = NULL;
    size_t len = 0;

    if (window == 0)
        return TAKEN_NOTHING;
    const char *bytes = (const char *)evbuffer_pullup(input, (ev_ssize_t)window);
    if (!bytes) {
        end(link, ENOMEM);
        return TAKEN_LAST;
    }

    const int taken = proto_take_line(bytes, window, &line, &len);
    if (taken == 0)
        return TAKEN_NOTHING;
    if (taken > 0)
        hand_over(link, line, len);
    else
        client_fsm_bad_line(&link->fsm, &link->client);
    if (!link->bev)
        return TAKEN_LAST;

    if (taken > 0)
        evbuffer_drain(input, (size_t)taken);
    if (link->fsm.state == CLIENT_FSM_CLOSED || link->send_error != 0) {
        end(link, link->send_error);
        return TAKEN_LAST;
    }
    return TAKEN_LINE;
}

/* The line lies in the input buffer, which outlives even a link_close() until we have returned. */
static void hand_over(struct link *link, const char *line, size_t len)
{
    const int code = proto_parse_code(line, len);

    if (code >= 0 && link->env->ops->received)
        link->env->ops->received(link, code);
    if (link->bev)
        client_fsm_line(&link->fsm, &link->client, line, len);
}

/* A session ends here and nowhere else, unless the owner closed it. Afterwards the link may be open
 * again: whoever called this returns without touching it. */
static void end(struct link *link, int error)
{
    /* The order was understood; that its answer got lost does not take it back. */
    if (link->shutdown_due) {
        link->shutdown_due = false;
        if (link->env->ops->shutdown)
            link->env->ops->shutdown(link);
        if (!link->bev)
            return;
    }
    client_fsm_lost(&link->fsm, &link->client);
    link_close(link);
    link->env->ops->ended(link, error);
}

static struct link *link_of(struct client_fsm *fsm)
{
    return container_of(fsm, struct link, fsm);
}

/* A failure is only noted: the machine is in the middle of a step and must not be fed. */
static void send_bytes(struct client_fsm *fsm, const char *bytes, size_t len)
{
    struct link *link = link_of(fsm);

    if (!link->bev)
        return;
    if (evbuffer_get_length(bufferevent_get_output(link->bev)) > MAX_UNSENT_BYTES)
        link->send_error = ENOBUFS;
    else if (bufferevent_write(link->bev, bytes, len) != 0)
        link->send_error = ENOMEM;
}

/*
 * The owner is told when the answer has left. Until then nothing further is read, so that no end of
 * the connection can overtake the answer.
 */
static void hold_shutdown(struct client_fsm *fsm)
{
    struct link *link = link_of(fsm);

    if (!link->bev)
        return;
    link->shutdown_due = true;
    (void)bufferevent_disable(link->bev, EV_READ);
}

static void report_change(struct client_fsm *fsm, enum client_fsm_state old)
{
    struct link *link = link_of(fsm);

    if (link->bev && fsm->state != CLIENT_FSM_CLOSED && link->env->ops->changed)
        link->env->ops->changed(link, old);
}
