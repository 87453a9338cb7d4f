/*
 * Accepting. Our own loop around accept4(): libevent's listener takes the whole backlog in one go
 * and spins when descriptors run out. Knows nothing of what becomes of a connection. Owns the
 * listening sockets and their paths.
 */
#include "net/listener.h"

#include "base/log.h"

#include <event2/event.h>

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* Connections that one listener takes in one loop turn: a flood shares the turn with everyone else.
 */
#define ACCEPT_BUDGET 64

/* The plainest congestion control there is, and always built in. */
#define CONGESTION "reno"

/* A rest begins short and doubles while it does not help. */
#define REST_MIN_US (10 * CLOCK_US_PER_MS)
#define REST_MAX_US CLOCK_US_PER_SEC

struct listener {
    struct listeners *all;
    struct address address; /* the real one, with the port that port 0 became */
    int fd;                 /* -1 while not open */
    struct event *event;
    struct stat path; /* of a unix socket's path, as we made it */
};

struct listeners {
    struct listener *items;
    size_t count;
    listener_accept_fn *on_accept;
    void *user;
    bool resting;
    bool in_trouble;  /* has rested, and not accepted anything since */
    uint64_t rest_us; /* the length of the next rest */
    uint64_t rest_until_us;
    uint64_t pauses;
    struct log_limit log_limit; /* descriptors may come and go by the hundred a second */
};

static int open_listener(struct listener *listener, const struct listeners_options *options,
                         const char *text, char *message, size_t message_size);
static int set_options(int fd, const struct listeners_options *options, sa_family_t family);
static bool is_tcp(const struct listener *listener);
static void remove_stale_socket(const struct address *address);
static void note_path(struct listener *listener);
static void remove_own_socket(const struct listener *listener);
static void listener_on_ready(evutil_socket_t fd, short what, void *user);
static bool handle_accept_error(struct listeners *all, int error);
static void note_success(struct listeners *all);
static void rest(struct listeners *all, int error);

struct listeners *listeners_open(const struct listeners_options *options, char *message,
                                 size_t message_size)
{
    struct listeners *all = calloc(1, sizeof(*all));

    if (!all)
        abort(); /* out of memory while starting */
    all->items = calloc(options->count, sizeof(*all->items));
    if (!all->items)
        abort();
    all->rest_us = REST_MIN_US;
    for (size_t i = 0; i < options->count; i++) {
        all->items[i].all = all;
        all->items[i].fd = -1;
        all->count++;
        if (open_listener(&all->items[i], options, options->addresses[i], message, message_size) !=
            0) {
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
            event_new(base, listener->fd, EV_READ | EV_PERSIST, listener_on_ready, listener);
        if (!listener->event || event_add(listener->event, NULL) != 0)
            return -1;
    }
    return 0;
}

void listeners_set_user_timeout(struct listeners *all, unsigned user_timeout_ms)
{
    for (size_t i = 0; i < all->count; i++) {
        if (is_tcp(&all->items[i]))
            (void)setsockopt(all->items[i].fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout_ms,
                             sizeof(user_timeout_ms));
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
        if (event_add(all->items[i].event, NULL) != 0) {
            rest(all, ENOMEM);
            return;
        }
    }
}

void listeners_look(struct listeners *all)
{
    for (size_t i = 0; i < all->count; i++)
        listener_on_ready(all->items[i].fd, EV_READ, &all->items[i]);
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
    const size_t size = strlen(begin) + all->count * (ADDRESS_TEXT_BYTES + 2) + 1;
    char *buf = malloc(size);
    char text[ADDRESS_TEXT_BYTES];

    if (!buf)
        return NULL;
    size_t len = (size_t)snprintf(buf, size, "%s", begin);
    for (size_t i = 0; i < all->count; i++)
        len += (size_t)snprintf(buf + len, size - len, "%s%s", i > 0 ? ", " : "",
                                address_format(&all->items[i].address, text));
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
        if (listener->fd < 0)
            continue;
        close(listener->fd);
        remove_own_socket(listener);
    }
    free(all->items);
    free(all);
}

static int open_listener(struct listener *listener, const struct listeners_options *options,
                         const char *text, char *message, size_t message_size)
{
    struct address *address = &listener->address;
    int fd = -1;

    if (address_parse(text, address, message, message_size) != 0)
        return -1;
    const sa_family_t family = address->storage.ss_family;
    if (family == AF_UNIX)
        remove_stale_socket(address);

    fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || set_options(fd, options, family) != 0 ||
        bind(fd, (const struct sockaddr *)&address->storage, address->len) != 0 ||
        listen(fd, (int)options->backlog) != 0) {
        snprintf(message, message_size, "cannot listen on %s: %s", text, strerror(errno));
        if (fd >= 0)
            close(fd);
        return -1;
    }
    if (family == AF_UNIX)
        note_path(listener);
    if (family != AF_UNIX)
        (void)getsockname(fd, (struct sockaddr *)&address->storage, &address->len);
    listener->fd = fd;
    return 0;
}

/*
 * Options that a connection inherits are set here, once, instead of on each connection: no delay
 * for short lines, and the time after which TCP gives a silent peer up. TCP_DEFER_ACCEPT stays off:
 * in this protocol the server speaks first.
 */
static int set_options(int fd, const struct listeners_options *options, sa_family_t family)
{
    const int on = 1;
    const int reuse_port = options->reuse_port;
    const unsigned user_timeout_ms = options->user_timeout_ms;

    if (family == AF_UNIX)
        return 0;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &reuse_port, sizeof(reuse_port)) != 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout_ms, sizeof(user_timeout_ms)) !=
            0)
        return -1;
    /* For lines of 20 bytes there is no congestion to control, and the dearer algorithms estimate
     * bandwidth and set a timer for each of them. Where this one is not allowed, the system's will
     * do. */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, CONGESTION, sizeof(CONGESTION) - 1);
    /* So that 0.0.0.0 and [::] can be listened on beside each other. */
    return family == AF_INET6 ? setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) : 0;
}

static bool is_tcp(const struct listener *listener)
{
    return listener->address.storage.ss_family != AF_UNIX;
}

/* A server that was killed leaves its socket behind. One that somebody answers on is left alone,
 * and bind will say that it is in use. */
static void remove_stale_socket(const struct address *address)
{
    const char *path = ((const struct sockaddr_un *)&address->storage)->sun_path;
    struct stat info;

    if (lstat(path, &info) != 0 || !S_ISSOCK(info.st_mode))
        return;
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    if (connect(fd, (const struct sockaddr *)&address->storage, address->len) != 0 &&
        errno == ECONNREFUSED)
        unlink(path);
    close(fd);
}

/* As open as a TCP port: the password decides. */
static void note_path(struct listener *listener)
{
    const char *path = ((const struct sockaddr_un *)&listener->address.storage)->sun_path;

    (void)chmod(path, 0666);
    (void)stat(path, &listener->path);
}

/* Unless somebody else's is there by now. */
static void remove_own_socket(const struct listener *listener)
{
    const char *path = ((const struct sockaddr_un *)&listener->address.storage)->sun_path;
    struct stat now;

    if (!is_tcp(listener) && stat(path, &now) == 0 && now.st_ino == listener->path.st_ino &&
        now.st_dev == listener->path.st_dev)
        unlink(path);
}

static void listener_on_ready(evutil_socket_t fd, short what, void *user)
{
    struct listener *listener = user;
    struct listeners *all = listener->all;

    int failures = 0;

    (void)what;
    for (int i = 0; i < ACCEPT_BUDGET && !all->resting; i++) {
        struct address from = {.len = sizeof(from.storage)};
        const int accepted =
            accept4(fd, (struct sockaddr *)&from.storage, &from.len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (accepted < 0) {
            if (!handle_accept_error(all, errno))
                return;
            /* Errors of single connections pass; nothing else for a whole budget does not. */
            if (++failures == ACCEPT_BUDGET)
                rest(all, errno);
            continue;
        }
        note_success(all);
        from.storage.ss_family = listener->address.storage.ss_family;
        all->on_accept(all->user, accepted, &from);
    }
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
