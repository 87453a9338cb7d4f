/*
 * The two sides of the control API: who is let in, and how much of a loop turn they get. The
 * library runs without threads: its epoll descriptor and its next timeout are events of our loop.
 * What becomes of a request is exchange.c's. Owns the connections.
 */
#include "admin/http.h"

#include "admin/entrance.h"
#include "admin/events.h"
#include "admin/http_internal.h"
#include "net/server.h"
#include "registry/credential.h"

#include <event2/event.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* What each of the two may take of a loop turn; clients wait for no more than both. */
#define RUN_US CLOCK_US_PER_MS
/* Requests of those that wait for their turn which are looked at in one. */
#define TURN_BUDGET 16
/* From here on a newcomer takes the place of whoever has been silent for longest. */
#define CROWDED (HTTP_MAX_CONNECTIONS - 8)
/* A request has to be there within this time from the connect or from the one before. */
#define REQUEST_US (10 * CLOCK_US_PER_SEC)
/* The library's own limit, for readers that take nothing. */
#define SILENCE_S         30
#define CONNECTION_BYTES  (32 * 1024) /* of headers, and of what is being sent */
#define MAX_EVENT_STREAMS 32
#define EVENT_DELAY_US    (20 * CLOCK_US_PER_MS) /* for some to be sent together */
/* The library wants to run at once also when it can do nothing: it is stuck with a peer's bytes
 * that do not fit, until the peer's time is up. */
#define STUCK_US   (2 * CLOCK_US_PER_MS)
#define STUCK_RUNS 16 /* in a row: some requests need a few without anything new */

static int open_endpoint(struct endpoint *endpoint, const char *address, char *message,
                         size_t message_size);
static int start_library(struct endpoint *endpoint);
static void close_endpoint(struct endpoint *endpoint);
static bool has_room(void *user);
static void take_connection(void *user, int fd, const struct address *from);
static void http_on_ready(evutil_socket_t fd, short what, void *user);
static void http_on_timer(evutil_socket_t fd, short what, void *user);
static void run(struct endpoint *endpoint);
static void set_timeout(struct endpoint *endpoint);
static void http_on_housekeeping(evutil_socket_t fd, short what, void *user);
static void http_on_deliver(evutil_socket_t fd, short what, void *user);
static void http_on_connection(void *user, struct MHD_Connection *library_connection,
                               void **context, enum MHD_ConnectionNotificationCode what);
static void say_who(struct http_connection *connection);
static void drop_oldest(struct endpoint *endpoint);
static void http_on_library_log(void *user, const char *format, va_list args)
    __attribute__((format(printf, 2, 0)));
static char *print_metrics(void *user, size_t *len);
static bool may_stream_events(void *user);

static const struct entrance_ops entrance_ops = {has_room, take_connection};

struct http *http_new(struct event_base *base, struct admin *admin,
                      const struct http_options *options, struct credentials *tokens, char *message,
                      size_t message_size)
{
    struct http *http = calloc(1, sizeof(*http));
    char path[ADDRESS_TEXT_BYTES];

    if (!http)
        abort(); /* out of memory while starting */
    http->base = base;
    http->admin = admin;
    http->tokens = tokens;
    http->events = events_new(clock_wall_ms());
    http->housekeeping = evtimer_new(base, http_on_housekeeping, http);
    http->deliver = evtimer_new(base, http_on_deliver, http);
    if (!http->events || !http->housekeeping || !http->deliver)
        abort();
    for (int i = 0; i < ENDPOINT_COUNT; i++) {
        http->endpoints[i].http = http;
        http->endpoints[i].socket.fd = -1;
    }
    snprintf(path, sizeof(path), "unix:%s", options->socket);
    if (open_endpoint(&http->endpoints[ENDPOINT_SOCKET], path, message, message_size) != 0 ||
        (options->listen && open_endpoint(&http->endpoints[ENDPOINT_PORT], options->listen, message,
                                          message_size) != 0)) {
        http_free(http);
        return NULL;
    }
    if (options->listen)
        address_format(&http->endpoints[ENDPOINT_PORT].socket.address, http->address);
    process_start_note(&http->process);
    return http;
}

void http_set_tokens(struct http *http, struct credentials *tokens)
{
    credentials_free(http->tokens);
    http->tokens = tokens;
    for (int i = 0; i < ENDPOINT_COUNT; i++)
        http->endpoints[i].scope.tokens = tokens;
}

void http_on_event(void *user, const struct session_event *event)
{
    struct http *http = user;

    if (event->kind == SESSION_ORDER && event->order->what == ORDER_SAVED) {
        for (int i = 0; i < ENDPOINT_COUNT; i++) {
            struct exchange *exchange;

            while ((exchange = TAILQ_FIRST(&http->endpoints[i].queues[QUEUE_ORDER])) != NULL)
                request_order_saved(&exchange->request);
        }
        return;
    }
    events_add(http->events, event);
    if (http->endpoints[ENDPOINT_SOCKET].event_streams +
            http->endpoints[ENDPOINT_PORT].event_streams >
        0)
        http_deliver_soon(http);
}

const char *http_address(const struct http *http)
{
    return http->address;
}

void http_free(struct http *http)
{
    if (!http)
        return;
    for (int i = 0; i < ENDPOINT_COUNT; i++)
        close_endpoint(&http->endpoints[i]);
    event_free(http->housekeeping);
    event_free(http->deliver);
    events_free(http->events);
    credentials_free(http->tokens);
    free(http);
}

void http_deliver_soon(struct http *http)
{
    static const struct timeval delay = {.tv_usec = EVENT_DELAY_US};

    if (!event_pending(http->deliver, EV_TIMEOUT, NULL))
        (void)event_add(http->deliver, &delay);
}

bool endpoint_turn_is_over(const struct endpoint *endpoint)
{
    return clock_monotonic_us() - endpoint->run_us > RUN_US;
}

void endpoint_run_soon(struct endpoint *endpoint)
{
    static const struct timeval now = {.tv_sec = 0};

    endpoint->must_run = true;
    if (endpoint->timer)
        (void)event_add(endpoint->timer, &now);
}

/* Idle is who has no whole request: in the order in which their time is up. */
void http_connection_set_idle(struct http_connection *connection, bool idle)
{
    struct http_connection_list *list = &connection->endpoint->idle;

    if (connection->is_idle)
        TAILQ_REMOVE(list, connection, link);
    connection->is_idle = idle;
    if (!idle)
        return;
    connection->due_us = clock_monotonic_us() + REQUEST_US;
    TAILQ_INSERT_TAIL(list, connection, link);
}

/* What was made when it was accepted; NULL when there was no memory for it. */
struct http_connection *http_connection_of(struct MHD_Connection *connection)
{
    return MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
}

static int open_endpoint(struct endpoint *endpoint, const char *address, char *message,
                         size_t message_size)
{
    const struct listen_socket_options options = {
        .backlog = 128,
        .user_timeout_ms = SILENCE_S * 1000,
        .path_mode = 0660, /* who may open it is an operator */
    };
    struct http *http = endpoint->http;

    TAILQ_INIT(&endpoint->idle);
    for (int i = 0; i < QUEUE_COUNT; i++)
        TAILQ_INIT(&endpoint->queues[i]);
    if (listen_socket_open(&endpoint->socket, address, &options, message, message_size) != 0)
        return -1;
    endpoint->scope = (struct request_scope){
        .admin = http->admin,
        .events = http->events,
        .address = listen_socket_is_tcp(&endpoint->socket) ? &endpoint->socket.address : NULL,
        .tokens = http->tokens,
        .metrics = print_metrics,
        .may_stream_events = may_stream_events,
        .user = endpoint,
    };
    if (start_library(endpoint) != 0) {
        snprintf(message, message_size, "cannot set up HTTP on %s", address);
        return -1;
    }
    return 0;
}

static int start_library(struct endpoint *endpoint)
{
    endpoint->daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0,
        NULL, NULL, http_on_request, endpoint, MHD_OPTION_EXTERNAL_LOGGER, http_on_library_log,
        endpoint, MHD_OPTION_CONNECTION_LIMIT, (unsigned)HTTP_MAX_CONNECTIONS,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_BYTES, MHD_OPTION_CONNECTION_TIMEOUT,
        (unsigned)SILENCE_S, MHD_OPTION_STRICT_FOR_CLIENT, 0, MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1,
        MHD_OPTION_NOTIFY_CONNECTION, http_on_connection, endpoint, MHD_OPTION_URI_LOG_CALLBACK,
        http_on_uri, endpoint, MHD_OPTION_NOTIFY_COMPLETED, http_on_completed, endpoint,
        MHD_OPTION_END);
    if (!endpoint->daemon)
        return -1;

    const union MHD_DaemonInfo *info =
        MHD_get_daemon_info(endpoint->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    endpoint->ready = event_new(endpoint->http->base, info->epoll_fd, EV_READ | EV_PERSIST,
                                http_on_ready, endpoint);
    endpoint->timer = evtimer_new(endpoint->http->base, http_on_timer, endpoint);
    endpoint->entrance =
        entrance_new(endpoint->http->base, endpoint->socket.fd, &entrance_ops, endpoint);
    if (!endpoint->ready || !endpoint->timer || !endpoint->entrance ||
        event_add(endpoint->ready, NULL) != 0)
        return -1;
    return 0;
}

static void close_endpoint(struct endpoint *endpoint)
{
    entrance_free(endpoint->entrance);
    endpoint->entrance = NULL;
    if (endpoint->ready)
        event_free(endpoint->ready);
    if (endpoint->timer)
        event_free(endpoint->timer);
    endpoint->timer = NULL; /* nobody is resumed by it any more */
    if (endpoint->daemon) {
        for (int i = 0; i < QUEUE_COUNT; i++)
            exchange_resume_all(endpoint, (enum queue)i);
        MHD_stop_daemon(endpoint->daemon);
    }
    listen_socket_close(&endpoint->socket);
}

static bool has_room(void *user)
{
    const struct endpoint *endpoint = user;

    return endpoint->connections < HTTP_MAX_CONNECTIONS;
}

/* The library closes the connection as well when it cannot take it. */
static void take_connection(void *user, int fd, const struct address *from)
{
    struct endpoint *endpoint = user;

    (void)MHD_add_connection(endpoint->daemon, fd, (const struct sockaddr *)&from->storage,
                             from->len);
    endpoint_run_soon(endpoint);
}

static void http_on_ready(evutil_socket_t fd, short what, void *user)
{
    (void)fd;
    (void)what;
    run(user);
}

static void http_on_timer(evutil_socket_t fd, short what, void *user)
{
    (void)fd;
    (void)what;
    run(user);
}

static void run(struct endpoint *endpoint)
{
    const struct moment now = clock_now();
    int budget = TURN_BUDGET;

    server_work_begins(endpoint->http->admin->server, now);
    endpoint->run_us = now.mono_us;
    for (struct exchange *first = TAILQ_FIRST(&endpoint->queues[QUEUE_TURN]); first && budget > 0;
         first = TAILQ_FIRST(&endpoint->queues[QUEUE_TURN])) {
        exchange_resume(first);
        budget--;
    }
    endpoint->must_run = false;
    endpoint->stuck_runs++;
    (void)MHD_run(endpoint->daemon);
    entrance_tend(endpoint->entrance);
    set_timeout(endpoint);
}

/* The sooner of what the library wants and what waits for its turn. */
static void set_timeout(struct endpoint *endpoint)
{
    MHD_UNSIGNED_LONG_LONG ms = 0;
    struct timeval timeout = {.tv_sec = 0};

    if (TAILQ_EMPTY(&endpoint->queues[QUEUE_TURN]) && !endpoint->must_run) {
        if (MHD_get_timeout(endpoint->daemon, &ms) != MHD_YES) {
            (void)event_del(endpoint->timer);
            return;
        }
        timeout.tv_sec = (time_t)(ms / 1000);
        timeout.tv_usec = (suseconds_t)(ms % 1000 * 1000);
        if (ms == 0 && endpoint->stuck_runs > STUCK_RUNS)
            timeout.tv_usec = STUCK_US;
    }
    (void)event_add(endpoint->timer, &timeout);
}

/* Drops who has not sent a request in time, and lets event streams show that they are alive. Runs
 * once a second while there is anybody. */
static void http_on_housekeeping(evutil_socket_t fd, short what, void *user)
{
    static const struct timeval second = {.tv_sec = 1};
    struct http *http = user;
    const uint64_t now_us = clock_monotonic_us();
    unsigned connections = 0;

    (void)fd;
    (void)what;
    for (int i = 0; i < ENDPOINT_COUNT; i++) {
        struct endpoint *endpoint = &http->endpoints[i];
        struct exchange *exchange = NULL;
        bool is_due = false;

        if (!endpoint->daemon)
            continue;
        connections += endpoint->connections;
        while (!TAILQ_EMPTY(&endpoint->idle) && now_us >= TAILQ_FIRST(&endpoint->idle)->due_us)
            drop_oldest(endpoint);
        TAILQ_FOREACH (exchange, &endpoint->queues[QUEUE_EVENTS], link)
            is_due |= exchange_is_heartbeat_due(exchange, now_us);
        if (is_due)
            exchange_resume_all(endpoint, QUEUE_EVENTS);
    }
    if (connections > 0)
        (void)event_add(http->housekeeping, &second);
}

static void http_on_deliver(evutil_socket_t fd, short what, void *user)
{
    struct http *http = user;

    (void)fd;
    (void)what;
    for (int i = 0; i < ENDPOINT_COUNT; i++) {
        if (http->endpoints[i].daemon)
            exchange_resume_all(&http->endpoints[i], QUEUE_EVENTS);
    }
}

static void http_on_connection(void *user, struct MHD_Connection *library_connection,
                               void **context, enum MHD_ConnectionNotificationCode what)
{
    static const struct timeval second = {.tv_sec = 1};
    struct endpoint *endpoint = user;
    struct http_connection *connection = *context;

    endpoint->stuck_runs = 0;
    if (what == MHD_CONNECTION_NOTIFY_CLOSED) {
        endpoint->connections--;
        if (connection)
            http_connection_set_idle(connection, false);
        free(connection);
        return;
    }
    endpoint->connections++;
    if (!event_pending(endpoint->http->housekeeping, EV_TIMEOUT, NULL))
        (void)event_add(endpoint->http->housekeeping, &second);
    if (endpoint->connections > CROWDED)
        drop_oldest(endpoint);
    connection = calloc(1, sizeof(*connection));
    *context = connection;
    if (!connection)
        return; /* its requests will be refused */
    connection->endpoint = endpoint;
    connection->fd =
        MHD_get_connection_info(library_connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    say_who(connection);
    http_connection_set_idle(connection, true);
}

/* For the log: the user behind a unix socket, or where a token came from. */
static void say_who(struct http_connection *connection)
{
    struct ucred credentials = {.uid = (uid_t)-1};
    socklen_t len = sizeof(credentials);
    struct address address = {.len = sizeof(address.storage)};
    char text[ADDRESS_TEXT_BYTES];

    if (!connection->endpoint->scope.address) {
        (void)getsockopt(connection->fd, SOL_SOCKET, SO_PEERCRED, &credentials, &len);
        snprintf(connection->by, sizeof(connection->by), "uid %u", (unsigned)credentials.uid);
        return;
    }
    if (getpeername(connection->fd, (struct sockaddr *)&address.storage, &address.len) == 0)
        snprintf(connection->by, sizeof(connection->by), "token from %.64s",
                 address_format(&address, text));
}

/* The library notices that the socket has ended, and closes. */
static void drop_oldest(struct endpoint *endpoint)
{
    struct http_connection *oldest = TAILQ_FIRST(&endpoint->idle);

    if (!oldest)
        return;
    (void)shutdown(oldest->fd, SHUT_RDWR);
    http_connection_set_idle(oldest, false);
}

/* What the library complains about is what a peer did, or what the system does not have. */
static void http_on_library_log(void *user, const char *format, va_list args)
{
    struct endpoint *endpoint = user;
    char text[256];

    if (!log_limit_allows(&endpoint->http->log_limit, clock_monotonic_us()))
        return;
    vsnprintf(text, sizeof(text), format, args);
    text[strcspn(text, "\n")] = '\0';
    log_event(LOG_LEVEL_DEBUG, "http", LOG_STR("text", text));
}

static char *print_metrics(void *user, size_t *len)
{
    const struct http *http = ((const struct endpoint *)user)->http;
    const struct admin *admin = http->admin;
    struct metrics_sources sources = {
        .registry = admin->registry,
        .sessions = admin->sessions,
        .server = admin->server,
        .store = admin->store,
        .process = http->process,
        .version = CLISER_VERSION,
        .ready = admin_not_ready(admin) == NULL,
        .max_clients = admin_max_clients(admin),
        .log_lines_lost = log_lines_lost(),
        .control_requests = http->answers,
    };
    char *text = NULL;

    for (int i = 0; i < ENDPOINT_COUNT; i++) {
        sources.control_connections += http->endpoints[i].connections;
        sources.event_subscribers += http->endpoints[i].event_streams;
    }
    return metrics_print(&sources, &text, len) == 0 ? text : NULL;
}

static bool may_stream_events(void *user)
{
    const struct endpoint *endpoint = user;

    return endpoint->event_streams < MAX_EVENT_STREAMS;
}
