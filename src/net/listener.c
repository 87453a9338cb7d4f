/*
 * Accepting. Our own loop around accept4(): libevent's listener takes the whole backlog in one go
 * and spins when descriptors run out. Knows nothing of what becomes of a connection. Owns the
 * listening sockets and their paths.
 */
#include "net/listener.h"

#include "base/log.h"
#include "net/listen_socket.h"

#include <event2/event.h>

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* Connections that one listener takes in one loop turn: a flood shares the turn with everyone else.
 */
#define ACCEPT_BUDGET 64
/* The same where each brings a TLS handshake along, and takes some kilobytes of memory. */
#define TLS_ACCEPT_BUDGET 16
/* What describes an address that TLS is spoken on. */
#define TLS_PREFIX "tls:"

/* A rest begins short and doubles while it does not help. */
#define REST_MIN_US (10 * CLOCK_US_PER_MS)
#define REST_MAX_US CLOCK_US_PER_SEC

struct listener {
    struct listeners *all;
    struct listen_socket socket;
    struct event *event;
    bool is_tls;
};

struct listeners {
    struct listener *items;
    size_t count;
    listener_accept_fn *on_accept;
    void *user;
    bool resting;
    bool tls_held;    /* those of TLS do not accept */
    bool in_trouble;  /* has rested, and not accepted anything since */
    uint64_t rest_us; /* the length of the next rest */
    uint64_t rest_until_us;
    uint64_t pauses;
    struct log_limit log_limit; /* descriptors may come and go by the hundred a second */
};

static void listener_on_ready(evutil_socket_t fd, short what, void *user);
static bool is_held(const struct listener *listener);
static bool handle_accept_error(struct listeners *all, int error);
static void note_success(struct listeners *all);
static void rest(struct listeners *all, int error);

struct listeners *listeners_open(const struct listeners_options *options, char *message,
                                 size_t message_size)
{
    struct listeners *all = calloc(1, sizeof(*all));

    if (!all)
        abort(); /* out of memory while starting */
    all->items = calloc(options->count + options->tls_count, sizeof(*all->items));
    if (!all->items)
        abort();
    all->rest_us = REST_MIN_US;
    const struct listen_socket_options socket_options = {
        .backlog = options->backlog,
        .reuse_port = options->reuse_port,
        .user_timeout_ms = options->user_timeout_ms,
        .path_mode = 0666, /* as open as a TCP port: the password decides */
    };
    for (size_t i = 0; i < options->count + options->tls_count; i++) {
        struct listener *listener = &all->items[all->count++];

        listener->all = all;
        listener->is_tls = i >= options->count;
        const char *address =
            listener->is_tls ? options->tls_addresses[i - options->count] : options->addresses[i];
        if (listen_socket_open(&listener->socket, address, &socket_options, message,
                               message_size) != 0) {
            listeners_close(all);
            return NULL;
        }
    }
    return all;
}

int listeners_start(struct listeners *all, struct event_base *base, listener_accept_fn *on_accept,
                    void *user)
{
    all->on_accept = on_accept;
    all->user = user;
    for (size_t i = 0; i < all->count; i++) {
        struct listener *listener = &all->items[i];

        listener->event =
            event_new(base, listener->socket.fd, EV_READ | EV_PERSIST, listener_on_ready, listener);
        if (!listener->event || event_add(listener->event, NULL) != 0)
            return -1;
    }
    return 0;
}

void listeners_set_user_timeout(struct listeners *all, unsigned user_timeout_ms)
{
    for (size_t i = 0; i < all->count; i++) {
        if (listen_socket_is_tcp(&all->items[i].socket))
            (void)setsockopt(all->items[i].socket.fd, IPPROTO_TCP, TCP_USER_TIMEOUT,
                             &user_timeout_ms, sizeof(user_timeout_ms));
    }
}

uint64_t listeners_next_us(const struct listeners *all)
{
    return all->resting ? all->rest_until_us : UINT64_MAX;
}

void listeners_tick(struct listeners *all, struct moment now)
{
    if (!all->resting || now.mono_us < all->rest_until_us)
        return;
    all->resting = false;
    for (size_t i = 0; i < all->count; i++) {
        if (!is_held(&all->items[i]) && event_add(all->items[i].event, NULL) != 0) {
            rest(all, ENOMEM);
            return;
        }
    }
}

void listeners_look(struct listeners *all)
{
    for (size_t i = 0; i < all->count; i++)
        listener_on_ready(all->items[i].socket.fd, EV_READ, &all->items[i]);
}

void listeners_hold_tls(struct listeners *all, bool held)
{
    if (all->tls_held == held)
        return;
    all->tls_held = held;
    for (size_t i = 0; i < all->count && !all->resting; i++) {
        struct listener *listener = &all->items[i];

        if (!listener->is_tls)
            continue;
        if (held)
            (void)event_del(listener->event);
        else if (event_add(listener->event, NULL) != 0)
            rest(all, ENOMEM);
    }
}

void listeners_descriptor_freed(struct listeners *all)
{
    if (all->resting)
        all->rest_until_us = 0;
}

uint64_t listeners_pauses(const struct listeners *all)
{
    return all->pauses;
}

char *listeners_describe(const struct listeners *all, const char *begin)
{
    const size_t size =
        strlen(begin) + all->count * (ADDRESS_TEXT_BYTES + strlen(TLS_PREFIX) + 2) + 1;
    char *buf = malloc(size);
    char text[ADDRESS_TEXT_BYTES];

    if (!buf)
        return NULL;
    size_t len = (size_t)snprintf(buf, size, "%s", begin);
    for (size_t i = 0; i < all->count; i++)
        len += (size_t)snprintf(buf + len, size - len, "%s%s%s", i > 0 ? ", " : "",
                                all->items[i].is_tls ? TLS_PREFIX : "",
                                address_format(&all->items[i].socket.address, text));
    return buf;
}

void listeners_close(struct listeners *all)
{
    if (!all)
        return;
    for (size_t i = 0; i < all->count; i++) {
        struct listener *listener = &all->items[i];

        if (listener->event)
            event_free(listener->event);
        listen_socket_close(&listener->socket);
    }
    free(all->items);
    free(all);
}

static void listener_on_ready(evutil_socket_t fd, short what, void *user)
{
    struct listener *listener = user;
    struct listeners *all = listener->all;
    const int budget = listener->is_tls ? TLS_ACCEPT_BUDGET : ACCEPT_BUDGET;
    int failures = 0;

    (void)what;
    for (int i = 0; i < budget && !all->resting && !is_held(listener); i++) {
        struct address from = {.len = sizeof(from.storage)};
        const int accepted =
            accept4(fd, (struct sockaddr *)&from.storage, &from.len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (accepted < 0) {
            if (!handle_accept_error(all, errno))
                return;
            /* Errors of single connections pass; nothing else for a whole budget does not. */
            if (++failures == budget)
                rest(all, errno);
            continue;
        }
        note_success(all);
        from.storage.ss_family = listener->socket.address.storage.ss_family;
        all->on_accept(all->user, accepted, &from, listener->is_tls);
    }
}

static bool is_held(const struct listener *listener)
{
    return listener->is_tls && listener->all->tls_held;
}

/* Returns true to try again at once. */
static bool handle_accept_error(struct listeners *all, int error)
{
    switch (error) {
    case EAGAIN:
        return false;
    case EINTR:
    case ECONNABORTED: /* the peer has gone again: on to the next one */
    case EPROTO:
        return true;
    default:
        /* Descriptors, memory, or a network that is down: all pass, and none by spinning. */
        rest(all, error);
        return false;
    }
}

static void note_success(struct listeners *all)
{
    if (!all->in_trouble)
        return;
    all->in_trouble = false;
    all->rest_us = REST_MIN_US;
    if (log_limit_allows(&all->log_limit, clock_monotonic_us()))
        log_event(LOG_LEVEL_INFO, "accept_resumed", LOG_NOTHING);
}

static void rest(struct listeners *all, int error)
{
    for (size_t i = 0; i < all->count; i++)
        (void)event_del(all->items[i].event);
    all->resting = true;
    all->pauses++;
    all->rest_until_us = clock_monotonic_us() + all->rest_us;
    if (!all->in_trouble && log_limit_allows(&all->log_limit, clock_monotonic_us()))
        log_event(LOG_LEVEL_WARN, "accept_paused", LOG_STR("error", strerror(error)));
    all->in_trouble = true;
    all->rest_us = all->rest_us * 2 > REST_MAX_US ? REST_MAX_US : all->rest_us * 2;
}
