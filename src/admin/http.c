/*
 * Carries requests and answers between libmicrohttpd and routes.c. The library runs without
 * threads: its epoll descriptor and its next timeout are one event of our loop. A request that has
 * to wait, for its turn, a client's answer, the store or an event, is suspended and in the queue
 * that says for what. Owns the requests, from the first line until the library says that they are
 * over.
 */
#include "admin/http.h"

#include "admin/entrance.h"
#include "admin/events.h"
#include "admin/metrics.h"
#include "admin/request.h"
#include "admin/stream.h"
#include "base/log.h"
#include "net/listen_socket.h"
#include "net/server.h"
#include "registry/credential.h"

#include <event2/event.h>
#include <microhttpd.h>

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
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
#define SILENCE_S          30
#define CONNECTION_BYTES   (32 * 1024) /* of headers, and of what is being sent */
#define MAX_EVENT_STREAMS  32
#define EVENT_DELAY_US     (20 * CLOCK_US_PER_MS) /* for some to be sent together */
#define HEARTBEAT_US       (15 * CLOCK_US_PER_SEC)
#define STREAM_BLOCK_BYTES (16 * 1024)
#define MAX_BY_BYTES       96
/* The library wants to run at once also when it can do nothing: it is stuck with a peer's bytes
 * that do not fit, until the peer's time is up. */
#define STUCK_US   (2 * CLOCK_US_PER_MS)
#define STUCK_RUNS 16 /* in a row: some requests need a few without anything new */

struct connection {
    TAILQ_ENTRY(connection) link; /* while it is idle */
    struct endpoint *endpoint;
    int fd;
    uint64_t due_us; /* while it is idle: when its request has to be there */
    bool is_idle;
    char by[MAX_BY_BYTES];
};

/* What a suspended request waits for. */
enum queue { QUEUE_TURN, QUEUE_CLIENT, QUEUE_ORDER, QUEUE_EVENTS, QUEUE_COUNT };

TAILQ_HEAD(connection_list, connection);
TAILQ_HEAD(exchange_list, exchange);

/* A request with what the library wants of it. */
struct exchange {
    TAILQ_ENTRY(exchange) link; /* in the queue that it is in */
    struct request request;     /* its user is this */
    struct endpoint *endpoint;
    struct MHD_Connection *connection;
    uint8_t queue; /* enum queue, while it is suspended */
    bool is_suspended;
    bool has_begun;
    bool is_handled;
    bool has_nul; /* in its path */
    bool is_framed_twice;
    bool is_last;              /* nobody knows where the next request would begin */
    const char *body_length;   /* as the headers say, or NULL */
    const char *body_encoding; /* the same */
    bool is_too_large;
    bool is_event_stream;
    size_t body_capacity;
    uint64_t events_seen;
    uint64_t sent_us; /* an event stream: when it last was sent anything */
};

/* The unix socket, or the port. */
struct endpoint {
    struct http *http;
    struct request_scope scope;
    struct listen_socket socket;
    struct MHD_Daemon *daemon; /* NULL while it is not there */
    struct event *ready;       /* the library's epoll descriptor */
    struct entrance *entrance;
    struct event *timer; /* its next timeout. Not one event with the other: that would be out
                          * of epoll once its time was up. */
    struct connection_list idle;
    struct exchange_list queues[QUEUE_COUNT]; /* of those that are suspended */
    unsigned connections;
    unsigned event_streams;
    uint64_t run_us;     /* when the run began that goes on */
    unsigned stuck_runs; /* in which the library came to nothing new */
    bool must_run; /* of somebody who came or was resumed the library's descriptor says nothing */
};

enum { ENDPOINT_SOCKET, ENDPOINT_PORT, ENDPOINT_COUNT };

struct http {
    struct event_base *base;
    struct admin *admin;
    struct events *events;
    struct credentials *tokens;
    struct endpoint endpoints[ENDPOINT_COUNT];
    struct event *housekeeping; /* idle connections, and heartbeats of event streams */
    struct event *deliver;      /* events that are new, in a moment */
    char address[ADDRESS_TEXT_BYTES];
    uint64_t answers[METRICS_STATUS_CLASSES];
    struct process_start process;
    struct log_limit log_limit;
};

static int open_endpoint(struct endpoint *endpoint, const char *address, char *message,
                         size_t message_size);
static int start_library(struct endpoint *endpoint);
static void close_endpoint(struct endpoint *endpoint);
static bool has_room(void *user);
static void take_connection(void *user, int fd, const struct address *from);
static void http_on_ready(evutil_socket_t fd, short what, void *user);
static void http_on_housekeeping(evutil_socket_t fd, short what, void *user);
static bool has_left(const struct exchange *exchange);
static void http_on_deliver(evutil_socket_t fd, short what, void *user);
static void http_on_timer(evutil_socket_t fd, short what, void *user);
static void run(struct endpoint *endpoint);
static void set_timeout(struct endpoint *endpoint);
static bool turn_is_over(const struct endpoint *endpoint);
static void http_on_connection(void *user, struct MHD_Connection *library_connection,
                               void **context, enum MHD_ConnectionNotificationCode what);
static void say_who(struct connection *connection);
static void set_idle(struct connection *connection, bool idle);
static void drop_oldest(struct endpoint *endpoint);
static void *http_on_uri(void *user, const char *uri, struct MHD_Connection *connection);
static enum MHD_Result http_on_request(void *user, struct MHD_Connection *connection,
                                       const char *path, const char *method, const char *version,
                                       const char *upload, size_t *upload_len, void **context);
static enum MHD_Result begin(struct exchange *exchange, const char *path, const char *method);
static const char *what_is_unclear(const struct exchange *exchange);
static enum MHD_Result http_on_header(void *user, enum MHD_ValueKind kind, const char *name,
                                      const char *value);
static enum MHD_Result http_on_parameter(void *user, enum MHD_ValueKind kind, const char *name,
                                         const char *value);
static void take_body(struct exchange *exchange, const char *bytes, size_t len);
static enum MHD_Result handle(struct exchange *exchange);
static enum MHD_Result send_answer(struct exchange *exchange);
static struct MHD_Response *response_of(struct exchange *exchange);
static ssize_t http_on_read_stream(void *user, uint64_t position, char *buf, size_t size);
static ssize_t http_on_read_events(void *user, uint64_t position, char *buf, size_t size);
static void http_on_completed(void *user, struct MHD_Connection *connection, void **context,
                              enum MHD_RequestTerminationCode how);
static void suspend(struct exchange *exchange, enum queue queue);
static void resume(struct exchange *exchange);
static void run_soon(struct endpoint *endpoint);
static void resume_all(struct endpoint *endpoint, enum queue queue);
static void resume_request(struct request *request);
static void http_on_library_log(void *user, const char *format, va_list args)
    __attribute__((format(printf, 2, 0)));
static char *print_metrics(void *user, size_t *len);
static bool may_stream_events(void *user);
static struct connection *connection_of(struct MHD_Connection *connection);

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
    static const struct timeval delay = {.tv_usec = EVENT_DELAY_US};
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
            0 &&
        !event_pending(http->deliver, EV_TIMEOUT, NULL))
        (void)event_add(http->deliver, &delay);
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
        (unsigned)SILENCE_S, MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1,
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
            resume_all(endpoint, (enum queue)i);
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
    run_soon(endpoint);
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
        resume(first);
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

static bool turn_is_over(const struct endpoint *endpoint)
{
    return clock_monotonic_us() - endpoint->run_us > RUN_US;
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
        TAILQ_FOREACH (exchange, &endpoint->queues[QUEUE_EVENTS], link) {
            if (has_left(exchange))
                exchange->sent_us = 0; /* writing to it is how the library learns of that */
            is_due |= now_us - exchange->sent_us >= HEARTBEAT_US;
        }
        if (is_due)
            resume_all(endpoint, QUEUE_EVENTS);
    }
    if (connections > 0)
        (void)event_add(http->housekeeping, &second);
}

/* The library does not watch a suspended connection: without a look a stream would keep its place
 * for up to two heartbeats. */
static bool has_left(const struct exchange *exchange)
{
    struct pollfd look = {.fd = connection_of(exchange->connection)->fd, .events = POLLRDHUP};

    if (poll(&look, 1, 0) <= 0)
        return false;
    (void)shutdown(look.fd, SHUT_RDWR);
    return true;
}

static void http_on_deliver(evutil_socket_t fd, short what, void *user)
{
    struct http *http = user;

    (void)fd;
    (void)what;
    for (int i = 0; i < ENDPOINT_COUNT; i++) {
        if (http->endpoints[i].daemon)
            resume_all(&http->endpoints[i], QUEUE_EVENTS);
    }
}

static void http_on_connection(void *user, struct MHD_Connection *library_connection,
                               void **context, enum MHD_ConnectionNotificationCode what)
{
    static const struct timeval second = {.tv_sec = 1};
    struct endpoint *endpoint = user;
    struct connection *connection = *context;

    endpoint->stuck_runs = 0;
    if (what == MHD_CONNECTION_NOTIFY_CLOSED) {
        endpoint->connections--;
        if (connection)
            set_idle(connection, false);
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
    set_idle(connection, true);
}

/* For the log: the user behind a unix socket, or where a token came from. */
static void say_who(struct connection *connection)
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

/* Idle is who has no whole request: in the order in which their time is up. */
static void set_idle(struct connection *connection, bool idle)
{
    struct connection_list *list = &connection->endpoint->idle;

    if (connection->is_idle)
        TAILQ_REMOVE(list, connection, link);
    connection->is_idle = idle;
    if (!idle)
        return;
    connection->due_us = clock_monotonic_us() + REQUEST_US;
    TAILQ_INSERT_TAIL(list, connection, link);
}

/* The library notices that the socket has ended, and closes. */
static void drop_oldest(struct endpoint *endpoint)
{
    struct connection *oldest = TAILQ_FIRST(&endpoint->idle);

    if (!oldest)
        return;
    (void)shutdown(oldest->fd, SHUT_RDWR);
    set_idle(oldest, false);
}

/* The first that is heard of a request, and what the library calls its context from here on. */
static void *http_on_uri(void *user, const char *uri, struct MHD_Connection *connection)
{
    struct exchange *exchange = calloc(1, sizeof(*exchange));

    if (!exchange)
        return NULL;
    exchange->endpoint = user;
    exchange->endpoint->stuck_runs = 0;
    exchange->connection = connection;
    exchange->has_nul = strstr(uri, "%00") != NULL;
    exchange->request.scope = &exchange->endpoint->scope;
    exchange->request.resume = resume_request;
    exchange->request.user = exchange;
    return exchange;
}

/* Called for the headers, for each part of a body, at its end, and again when it was suspended. */
static enum MHD_Result http_on_request(void *user, struct MHD_Connection *connection,
                                       const char *path, const char *method, const char *version,
                                       const char *upload, size_t *upload_len, void **context)
{
    struct exchange *exchange = *context;

    (void)user;
    (void)version;
    if (!exchange || !connection_of(connection))
        return MHD_NO;
    exchange->endpoint->stuck_runs = 0;
    if (!exchange->has_begun)
        return begin(exchange, path, method);
    if (*upload_len > 0) {
        take_body(exchange, upload, *upload_len);
        *upload_len = 0;
        return MHD_YES;
    }
    return handle(exchange);
}

static enum MHD_Result begin(struct exchange *exchange, const char *path, const char *method)
{
    struct request *request = &exchange->request;
    const char *unclear = NULL;

    exchange->has_begun = true;
    request->method = method;
    request->path = path;
    request->by = connection_of(exchange->connection)->by;
    (void)MHD_get_connection_values(exchange->connection, MHD_HEADER_KIND, http_on_header,
                                    exchange);
    unclear = what_is_unclear(exchange);
    exchange->is_last = unclear != NULL;
    (void)MHD_get_connection_values(exchange->connection, MHD_GET_ARGUMENT_KIND, http_on_parameter,
                                    request);
    if (exchange->has_nul)
        request_refuse(request, 400, "there is a NUL in the path");
    else if (unclear)
        request_refuse(request, 400, unclear);
    else if (exchange->body_length &&
             strtoull(exchange->body_length, NULL, 10) > REQUEST_MAX_BODY_BYTES)
        request_refuse(request, 413, "the body is longer than 256 KiB");
    else if (request_begin(request))
        return MHD_YES;
    set_idle(connection_of(exchange->connection), false);
    return send_answer(exchange);
}

/* What the library takes in one way and a proxy before us may take in another, so that they would
 * not agree on where the next request begins. Chunks are not for GET, which may need no token: the
 * library gets stuck with bad ones. */
static const char *what_is_unclear(const struct exchange *exchange)
{
    const char *encoding = exchange->body_encoding;

    if (exchange->is_framed_twice || (encoding && exchange->body_length))
        return "the length of the body is given twice";
    if (!encoding)
        return NULL;
    if (strcasecmp(encoding, "chunked") != 0)
        return "the only Transfer-Encoding here is chunked";
    if (strcmp(exchange->request.method, "GET") == 0 ||
        strcmp(exchange->request.method, "HEAD") == 0)
        return "a GET has no body";
    return NULL;
}

static enum MHD_Result http_on_header(void *user, enum MHD_ValueKind kind, const char *name,
                                      const char *value)
{
    struct exchange *exchange = user;
    struct request *request = &exchange->request;
    const struct {
        const char *name;
        const char **place;
    } wanted[] = {
        {"Host", &request->headers.host},
        {"Origin", &request->headers.origin},
        {"Authorization", &request->headers.authorization},
        {"Content-Type", &request->headers.content_type},
        {"Last-Event-ID", &request->last_event_id},
        {"Content-Length", &exchange->body_length},
        {"Transfer-Encoding", &exchange->body_encoding},
    };

    (void)kind;
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
        if (strcasecmp(name, wanted[i].name) != 0)
            continue;
        if (wanted[i].place == &exchange->body_length ||
            wanted[i].place == &exchange->body_encoding)
            exchange->is_framed_twice |= *wanted[i].place != NULL;
        else
            request->headers.repeated |= *wanted[i].place != NULL;
        *wanted[i].place = value ? value : "";
    }
    return MHD_YES;
}

static enum MHD_Result http_on_parameter(void *user, enum MHD_ValueKind kind, const char *name,
                                         const char *value)
{
    struct request *request = user;

    (void)kind;
    if (request->parameter_count < REQUEST_MAX_PARAMETERS)
        request->parameters[request->parameter_count] =
            (struct request_parameter){.name = name, .value = value};
    request->parameter_count++;
    return MHD_YES;
}

/* What is too much is read, and forgotten. */
static void take_body(struct exchange *exchange, const char *bytes, size_t len)
{
    struct request *request = &exchange->request;
    const size_t wanted = request->body_len + len;

    request->has_body = true;
    if (exchange->is_too_large || wanted > REQUEST_MAX_BODY_BYTES) {
        exchange->is_too_large = true;
        return;
    }
    if (wanted > exchange->body_capacity) {
        const size_t capacity = wanted * 2;
        char *body = realloc(request->body, capacity);
        if (!body) {
            exchange->is_too_large = true;
            return;
        }
        request->body = body;
        exchange->body_capacity = capacity;
    }
    memcpy(request->body + request->body_len, bytes, len);
    request->body_len = wanted;
}

/* The whole request is there, or an answer that it waited for is. */
static enum MHD_Result handle(struct exchange *exchange)
{
    struct request *request = &exchange->request;

    if (!exchange->is_handled && turn_is_over(exchange->endpoint)) {
        set_idle(connection_of(exchange->connection), false);
        suspend(exchange, QUEUE_TURN);
        return MHD_YES;
    }
    if (!exchange->is_handled) {
        exchange->is_handled = true;
        set_idle(connection_of(exchange->connection), false);
        if (exchange->is_too_large)
            request_refuse(request, 413, "the body is longer than 256 KiB");
        else if (!request_handle(request)) {
            suspend(exchange, request->waits_for_order ? QUEUE_ORDER : QUEUE_CLIENT);
            return MHD_YES;
        }
    }
    return send_answer(exchange);
}

static enum MHD_Result send_answer(struct exchange *exchange)
{
    const struct answer *answer = &exchange->request.answer;
    const unsigned status = answer->status;
    struct MHD_Response *response = response_of(exchange);

    if (!response)
        return MHD_NO;
    exchange->endpoint->http->answers[status / 100 % METRICS_STATUS_CLASSES]++;
    (void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, answer->type);
    (void)MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    (void)MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    if (answer->allow[0] != '\0')
        (void)MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, answer->allow);
    if (exchange->is_last)
        (void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
    if (status == MHD_HTTP_UNAUTHORIZED)
        (void)MHD_add_response_header(response, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer");
    const enum MHD_Result result = MHD_queue_response(exchange->connection, status, response);
    MHD_destroy_response(response);
    return result;
}

static struct MHD_Response *response_of(struct exchange *exchange)
{
    struct answer *answer = &exchange->request.answer;
    struct MHD_Response *response = NULL;

    if (answer->stream)
        return MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK_BYTES,
                                                 http_on_read_stream, exchange, NULL);
    if (answer->is_events) {
        exchange->events_seen = answer->events_seen;
        exchange->sent_us = clock_monotonic_us();
        exchange->is_event_stream = true;
        exchange->endpoint->event_streams++;
        return MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK_BYTES,
                                                 http_on_read_events, exchange, NULL);
    }
    response = MHD_create_response_from_buffer(answer->len, answer->text, MHD_RESPMEM_MUST_FREE);
    if (response)
        answer->text = NULL; /* the response's now */
    return response;
}

static ssize_t http_on_read_stream(void *user, uint64_t position, char *buf, size_t size)
{
    struct exchange *exchange = user;
    ssize_t len = 0;

    (void)position;
    exchange->endpoint->stuck_runs = 0;
    if (!turn_is_over(exchange->endpoint))
        len = stream_read(exchange->request.answer.stream, buf, size);
    switch (len) {
    case 0:
        suspend(exchange, QUEUE_TURN);
        return 0;
    case STREAM_END:
        return MHD_CONTENT_READER_END_OF_STREAM;
    case STREAM_FAILED:
        return MHD_CONTENT_READER_END_WITH_ERROR;
    default:
        return len;
    }
}

static ssize_t http_on_read_events(void *user, uint64_t position, char *buf, size_t size)
{
    static const char heartbeat[] = ":\n\n";
    struct exchange *exchange = user;
    const uint64_t now_us = clock_monotonic_us();

    exchange->endpoint->stuck_runs = 0;
    if (turn_is_over(exchange->endpoint)) {
        suspend(exchange, QUEUE_TURN);
        return 0;
    }
    /* The first thing that is said tells a reader that the stream has begun. */
    size_t len = position == 0 ? 0
                               : events_read(exchange->endpoint->http->events,
                                             &exchange->events_seen, buf, size);
    if (len == 0 && (position == 0 || now_us - exchange->sent_us >= HEARTBEAT_US)) {
        len = sizeof(heartbeat) - 1;
        memcpy(buf, heartbeat, len);
    }
    if (len == 0)
        suspend(exchange, QUEUE_EVENTS);
    else
        exchange->sent_us = now_us;
    return (ssize_t)len;
}

static void http_on_completed(void *user, struct MHD_Connection *library_connection, void **context,
                              enum MHD_RequestTerminationCode how)
{
    struct exchange *exchange = *context;
    struct connection *connection = connection_of(library_connection);

    (void)user;
    (void)how;
    if (connection)
        set_idle(connection, true);
    if (!exchange)
        return;
    exchange->endpoint->stuck_runs = 0;
    if (exchange->is_suspended)
        TAILQ_REMOVE(&exchange->endpoint->queues[exchange->queue], exchange, link);
    if (exchange->is_event_stream)
        exchange->endpoint->event_streams--;
    request_clear(&exchange->request);
    free(exchange->request.body);
    free(exchange);
    *context = NULL;
}

static void suspend(struct exchange *exchange, enum queue queue)
{
    exchange->queue = (uint8_t)queue;
    exchange->is_suspended = true;
    TAILQ_INSERT_TAIL(&exchange->endpoint->queues[queue], exchange, link);
    MHD_suspend_connection(exchange->connection);
}

/* The library calls it with the next run. */
static void resume(struct exchange *exchange)
{
    if (!exchange->is_suspended)
        return;
    TAILQ_REMOVE(&exchange->endpoint->queues[exchange->queue], exchange, link);
    exchange->is_suspended = false;
    MHD_resume_connection(exchange->connection);
    run_soon(exchange->endpoint);
}

static void run_soon(struct endpoint *endpoint)
{
    static const struct timeval now = {.tv_sec = 0};

    endpoint->must_run = true;
    if (endpoint->timer)
        (void)event_add(endpoint->timer, &now);
}

static void resume_all(struct endpoint *endpoint, enum queue queue)
{
    struct exchange *exchange;

    while ((exchange = TAILQ_FIRST(&endpoint->queues[queue])) != NULL)
        resume(exchange);
}

static void resume_request(struct request *request)
{
    resume(request->user);
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

/* What was made when it was accepted; NULL when there was no memory for it. */
static struct connection *connection_of(struct MHD_Connection *connection)
{
    return MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
}
