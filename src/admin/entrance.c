/* Our own loop around accept4(), and the descriptors that are kept. Knows nothing of HTTP. */
#include "admin/entrance.h"

#include "base/clock.h"
#include "base/log.h"

#include <event2/event.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Connections that are taken in one loop turn. */
#define ACCEPT_BUDGET 16
/* Operators that get in when nothing else does. */
#define SPARES 4
/* Between two attempts when even these are in use. */
#define REST_MS 100

struct entrance {
    const struct entrance_ops *ops;
    void *user;
    int fd;
    struct event *ready;
    struct event *rest;
    int spares[SPARES];
    unsigned spare_count;
    bool is_open; /* ready is added */
    struct log_limit log_limit;
};

static void entrance_on_ready(evutil_socket_t fd, short what, void *user);
static void entrance_on_rested(evutil_socket_t fd, short what, void *user);
static void take_some(struct entrance *entrance);
static void keep_spares(struct entrance *entrance);
static int accept_one(struct entrance *entrance, struct address *from);
static void shut(struct entrance *entrance);
static void rest(struct entrance *entrance, int error);

struct entrance *entrance_new(struct event_base *base, int fd, const struct entrance_ops *ops,
                              void *user)
{
    struct entrance *entrance = calloc(1, sizeof(*entrance));

    if (!entrance)
        return NULL;
    entrance->ops = ops;
    entrance->user = user;
    entrance->fd = fd;
    entrance->ready = event_new(base, fd, EV_READ | EV_PERSIST, entrance_on_ready, entrance);
    entrance->rest = evtimer_new(base, entrance_on_rested, entrance);
    if (!entrance->ready || !entrance->rest || event_add(entrance->ready, NULL) != 0) {
        entrance_free(entrance);
        return NULL;
    }
    entrance->is_open = true;
    entrance_tend(entrance);
    return entrance;
}

void entrance_tend(struct entrance *entrance)
{
    keep_spares(entrance);
    if (!entrance->is_open && !event_pending(entrance->rest, EV_TIMEOUT, NULL) &&
        entrance->ops->has_room(entrance->user))
        entrance_on_rested(-1, 0, entrance);
}

void entrance_free(struct entrance *entrance)
{
    if (!entrance)
        return;
    if (entrance->ready)
        event_free(entrance->ready);
    if (entrance->rest)
        event_free(entrance->rest);
    while (entrance->spare_count > 0)
        close(entrance->spares[--entrance->spare_count]);
    free(entrance);
}

static void entrance_on_ready(evutil_socket_t fd, short what, void *user)
{
    (void)fd;
    (void)what;
    take_some(user);
    /* The last attempt has given up one for nobody; clients are waiting for it as well. */
    keep_spares(user);
}

static void take_some(struct entrance *entrance)
{
    for (int i = 0; i < ACCEPT_BUDGET; i++) {
        struct address from = {.len = sizeof(from.storage)};

        if (!entrance->ops->has_room(entrance->user)) {
            shut(entrance);
            return;
        }
        const int accepted = accept_one(entrance, &from);
        if (accepted >= 0) {
            entrance->ops->take(entrance->user, accepted, &from);
        } else if (errno != EINTR && errno != ECONNABORTED && errno != EPROTO) {
            if (errno != EAGAIN)
                rest(entrance, errno);
            return;
        }
    }
}

static void entrance_on_rested(evutil_socket_t fd, short what, void *user)
{
    struct entrance *entrance = user;

    (void)fd;
    (void)what;
    if (event_add(entrance->ready, NULL) == 0)
        entrance->is_open = true;
    else
        rest(entrance, ENOMEM);
}

static void keep_spares(struct entrance *entrance)
{
    while (entrance->spare_count < SPARES) {
        const int spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
        if (spare < 0)
            break;
        entrance->spares[entrance->spare_count++] = spare;
    }
}

/* With a descriptor that was kept, when there is no other. Returns -1 and errno. */
static int accept_one(struct entrance *entrance, struct address *from)
{
    for (;;) {
        const int accepted = accept4(entrance->fd, (struct sockaddr *)&from->storage, &from->len,
                                     SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (accepted >= 0 || (errno != EMFILE && errno != ENFILE) || entrance->spare_count == 0)
            return accepted;
        close(entrance->spares[--entrance->spare_count]);
    }
}

static void shut(struct entrance *entrance)
{
    (void)event_del(entrance->ready);
    entrance->is_open = false;
}

static void rest(struct entrance *entrance, int error)
{
    static const struct timeval pause = {.tv_usec = REST_MS * 1000};

    shut(entrance);
    (void)event_add(entrance->rest, &pause);
    if (log_limit_allows(&entrance->log_limit, clock_monotonic_us()))
        log_event(LOG_LEVEL_WARN, "control_accept_paused", LOG_STR("error", strerror(error)));
}
