/*
 * One request on its way: from what the library calls for it to routes.c, and the answer back. One
 * that has to wait, for its turn, a client's answer, the store or an event, is suspended and in the
 * queue that says for what. Owns the exchanges, from the first line of a request until the library
 * says that it is over.
 */
#include "admin/http_internal.h"

#include "admin/dashboard.h"
#include "admin/events.h"
#include "admin/stream.h"

#include <event2/event.h>

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define STREAM_BLOCK_BYTES (16 * 1024)
#define HEARTBEAT_US       (15 * CLOCK_US_PER_SEC)

static enum MHD_Result begin(struct exchange *exchange, const char *path, const char *method,
                             const char *version);
static enum MHD_Result http_on_header(void *user, enum MHD_ValueKind kind, const char *name,
                                      const char *value);
static void check_framing(struct exchange *exchange);
static enum MHD_Result http_on_parameter(void *user, enum MHD_ValueKind kind, const char *name,
                                         const char *value);
static void take_body(struct exchange *exchange, const char *bytes, size_t len);
static enum MHD_Result handle(struct exchange *exchange);
static enum MHD_Result send_answer(struct exchange *exchange);
static bool add_headers(const struct exchange *exchange, struct MHD_Response *response);
static struct MHD_Response *response_of(struct exchange *exchange);
static struct MHD_Response *begin_event_stream(struct exchange *exchange);
static void http_on_left(evutil_socket_t fd, short what, void *user);
static ssize_t http_on_read_stream(void *user, uint64_t position, char *buf, size_t size);
static ssize_t http_on_read_events(void *user, uint64_t position, char *buf, size_t size);
static void suspend(struct exchange *exchange, enum queue queue);
static void resume_request(struct request *request);

/* The first that is heard of a request, and what the library calls its context from here on. */
void *http_on_uri(void *user, const char *uri, struct MHD_Connection *connection)
{
    struct exchange *exchange = calloc(1, sizeof(*exchange));

    if (!exchange)
        return NULL;
    exchange->endpoint = user;
    exchange->endpoint->stuck_runs = 0;
    exchange->connection = connection;
    if (strstr(uri, "%00"))
        exchange->malformed = "there is a NUL in the path";
    exchange->request.scope = &exchange->endpoint->scope;
    exchange->request.resume = resume_request;
    exchange->request.user = exchange;
    return exchange;
}

/* Called for the headers, for each part of a body, at its end, and again when it was suspended. */
enum MHD_Result http_on_request(void *user, struct MHD_Connection *connection, const char *path,
                                const char *method, const char *version, const char *upload,
                                size_t *upload_len, void **context)
{
    struct exchange *exchange = *context;

    (void)user;
    if (!exchange || !http_connection_of(connection))
        return MHD_NO;
    exchange->endpoint->stuck_runs = 0;
    if (!exchange->has_begun)
        return begin(exchange, path, method, version);
    if (*upload_len > 0) {
        take_body(exchange, upload, *upload_len);
        *upload_len = 0;
        return MHD_YES;
    }
    return handle(exchange);
}

void http_on_completed(void *user, struct MHD_Connection *library_connection, void **context,
                       enum MHD_RequestTerminationCode how)
{
    struct exchange *exchange = *context;
    struct http_connection *connection = http_connection_of(library_connection);

    (void)user;
    (void)how;
    if (connection)
        http_connection_set_idle(connection, true);
    if (!exchange)
        return;
    exchange->endpoint->stuck_runs = 0;
    if (exchange->is_suspended)
        TAILQ_REMOVE(&exchange->endpoint->queues[exchange->queue], exchange, link);
    if (exchange->is_event_stream)
        exchange->endpoint->event_streams--;
    if (exchange->left)
        event_free(exchange->left);
    request_clear(&exchange->request);
    free(exchange->request.body);
    free(exchange);
    *context = NULL;
}

void exchange_resume(struct exchange *exchange)
{
    if (!exchange->is_suspended)
        return;
    TAILQ_REMOVE(&exchange->endpoint->queues[exchange->queue], exchange, link);
    exchange->is_suspended = false;
    MHD_resume_connection(exchange->connection);
    endpoint_run_soon(exchange->endpoint);
}

void exchange_resume_all(struct endpoint *endpoint, enum queue queue)
{
    struct exchange *exchange;

    while ((exchange = TAILQ_FIRST(&endpoint->queues[queue])) != NULL)
        exchange_resume(exchange);
}

bool exchange_is_heartbeat_due(const struct exchange *exchange, uint64_t now_us)
{
    return now_us - exchange->sent_us >= HEARTBEAT_US;
}

static enum MHD_Result begin(struct exchange *exchange, const char *path, const char *method,
                             const char *version)
{
    struct request *request = &exchange->request;

    exchange->has_begun = true;
    request->method = method;
    request->path = path;
    request->by = http_connection_of(exchange->connection)->by;
    (void)MHD_get_connection_values(exchange->connection, MHD_HEADER_KIND, http_on_header,
                                    exchange);
    (void)MHD_get_connection_values(exchange->connection, MHD_GET_ARGUMENT_KIND, http_on_parameter,
                                    request);
    check_framing(exchange);
    if (!exchange->malformed && !request->headers.host &&
        strcmp(version, MHD_HTTP_VERSION_1_1) == 0)
        exchange->malformed = "there is no Host header";
    if (exchange->malformed)
        request_refuse(request, 400, exchange->malformed);
    else if (exchange->body_length &&
             strtoull(exchange->body_length, NULL, 10) > REQUEST_MAX_BODY_BYTES)
        request_refuse(request, 413, "the body is longer than 256 KiB");
    else if (request_begin(request))
        return MHD_YES;
    http_connection_set_idle(http_connection_of(exchange->connection), false);
    return send_answer(exchange);
}

static enum MHD_Result http_on_header(void *user, enum MHD_ValueKind kind, const char *name,
                                      const char *value)
{
    struct exchange *exchange = user;
    struct access_headers *headers = &exchange->request.headers;
    const struct {
        const char *name;
        const char **place;
        bool *repeated;
    } wanted[] = {
        {"Host", &headers->host, &headers->repeated},
        {"Origin", &headers->origin, &headers->repeated},
        {"Authorization", &headers->authorization, &headers->repeated},
        {"Content-Type", &headers->content_type, &headers->repeated},
        {"Last-Event-ID", &exchange->request.last_event_id, &headers->repeated},
        {"If-None-Match", &exchange->request.if_none_match, &headers->repeated},
        {"Content-Length", &exchange->body_length, &exchange->is_framed_twice},
        {"Transfer-Encoding", &exchange->body_encoding, &exchange->is_framed_twice},
    };

    (void)kind;
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
        if (strcasecmp(name, wanted[i].name) != 0)
            continue;
        *wanted[i].repeated |= *wanted[i].place != NULL;
        *wanted[i].place = value ? value : "";
    }
    return MHD_YES;
}

/* What the library takes in one way and a proxy before us may take in another, so that they would
 * not agree on where the next request begins. Chunks are not for GET, which may need no token: the
 * library gets stuck with bad ones. */
static void check_framing(struct exchange *exchange)
{
    const char *method = exchange->request.method;
    const char *encoding = exchange->body_encoding;
    const char *unclear = NULL;

    if (exchange->is_framed_twice || (encoding && exchange->body_length))
        unclear = "the length of the body is given more than once";
    else if (encoding && strcasecmp(encoding, "chunked") != 0)
        unclear = "Transfer-Encoding: should be chunked, or not there";
    else if (encoding && (strcmp(method, MHD_HTTP_METHOD_GET) == 0 ||
                          strcmp(method, MHD_HTTP_METHOD_HEAD) == 0))
        unclear = "a GET has no body";
    exchange->is_last = unclear != NULL;
    if (unclear)
        exchange->malformed = unclear;
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
            exchange->is_too_large = exchange->is_out_of_memory = true;
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

    if (!exchange->is_handled && endpoint_turn_is_over(exchange->endpoint)) {
        http_connection_set_idle(http_connection_of(exchange->connection), false);
        suspend(exchange, QUEUE_TURN);
        return MHD_YES;
    }
    if (!exchange->is_handled) {
        exchange->is_handled = true;
        http_connection_set_idle(http_connection_of(exchange->connection), false);
        if (exchange->is_out_of_memory)
            request_refuse(request, 503, "out of memory");
        else if (exchange->is_too_large)
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
    if (!add_headers(exchange, response)) {
        MHD_destroy_response(response);
        return MHD_NO;
    }
    exchange->endpoint->http->answers[status / 100 % METRICS_STATUS_CLASSES]++;
    const enum MHD_Result result = MHD_queue_response(exchange->connection, status, response);
    MHD_destroy_response(response);
    return result;
}

/* Returns false when memory is out: an answer without one of them says something else. */
static bool add_headers(const struct exchange *exchange, struct MHD_Response *response)
{
    const struct answer *answer = &exchange->request.answer;
    const struct dashboard_file *file = answer->file;
    /* The library would end the chunks that a HEAD does not get. */
    const bool is_last =
        exchange->is_last ||
        (answer->len == 0 && strcmp(exchange->request.method, MHD_HTTP_METHOD_HEAD) == 0);
    const struct {
        const char *name;
        const char *value; /* NULL: not in this answer */
    } headers[] = {
        {MHD_HTTP_HEADER_CONTENT_TYPE, answer->type},
        {MHD_HTTP_HEADER_CACHE_CONTROL, file ? "no-cache" : "no-store"},
        {"X-Content-Type-Options", "nosniff"},
        {MHD_HTTP_HEADER_ETAG, file ? file->etag : NULL},
        {"Content-Security-Policy", file ? DASHBOARD_POLICY : NULL},
        {"X-Frame-Options", file ? "DENY" : NULL},
        {"Referrer-Policy", file ? "no-referrer" : NULL},
        {"Cross-Origin-Opener-Policy", file ? "same-origin" : NULL},
        {"Cross-Origin-Resource-Policy", file ? "same-origin" : NULL},
        {MHD_HTTP_HEADER_ALLOW, answer->allow[0] != '\0' ? answer->allow : NULL},
        {MHD_HTTP_HEADER_CONNECTION, is_last ? "close" : NULL},
        {MHD_HTTP_HEADER_WWW_AUTHENTICATE,
         answer->status == MHD_HTTP_UNAUTHORIZED ? "Bearer" : NULL},
    };

    for (size_t i = 0; i < sizeof(headers) / sizeof(headers[0]); i++) {
        if (headers[i].value &&
            MHD_add_response_header(response, headers[i].name, headers[i].value) != MHD_YES)
            return false;
    }
    return true;
}

static struct MHD_Response *response_of(struct exchange *exchange)
{
    struct answer *answer = &exchange->request.answer;
    struct MHD_Response *response = NULL;

    if (answer->stream)
        return MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK_BYTES,
                                                 http_on_read_stream, exchange, NULL);
    if (answer->is_events)
        return begin_event_stream(exchange);
    if (answer->file)
        return MHD_create_response_from_iovec(
            &(struct MHD_IoVec){answer->file->bytes, answer->file->len}, 1, NULL, NULL);
    response = MHD_create_response_from_buffer(answer->len, answer->text,
                                               answer->is_static ? MHD_RESPMEM_PERSISTENT
                                                                 : MHD_RESPMEM_MUST_FREE);
    if (response)
        answer->text = NULL; /* the response's now */
    return response;
}

static struct MHD_Response *begin_event_stream(struct exchange *exchange)
{
    struct endpoint *endpoint = exchange->endpoint;

    exchange->left = event_new(endpoint->http->base, http_connection_of(exchange->connection)->fd,
                               EV_CLOSED, http_on_left, exchange);
    if (!exchange->left || event_add(exchange->left, NULL) != 0)
        return NULL;
    exchange->events_seen = exchange->request.answer.events_seen;
    exchange->sent_us = clock_monotonic_us();
    exchange->is_event_stream = true;
    endpoint->event_streams++;
    return MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK_BYTES,
                                             http_on_read_events, exchange, NULL);
}

/* Nothing may happen for long, and its place is wanted. */
static void http_on_left(evutil_socket_t fd, short what, void *user)
{
    struct exchange *exchange = user;

    (void)fd;
    (void)what;
    exchange->has_left = true;
    exchange_resume(exchange);
}

static ssize_t http_on_read_stream(void *user, uint64_t position, char *buf, size_t size)
{
    struct exchange *exchange = user;
    ssize_t len = 0;

    (void)position;
    exchange->endpoint->stuck_runs = 0;
    if (!endpoint_turn_is_over(exchange->endpoint))
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
    if (exchange->has_left)
        return MHD_CONTENT_READER_END_OF_STREAM;
    if (endpoint_turn_is_over(exchange->endpoint)) {
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
    /* Without memory for one it is tried again. */
    if (len == 0 && exchange->events_seen != events_last(exchange->endpoint->http->events))
        http_deliver_soon(exchange->endpoint->http);
    return (ssize_t)len;
}

static void suspend(struct exchange *exchange, enum queue queue)
{
    exchange->queue = (uint8_t)queue;
    exchange->is_suspended = true;
    TAILQ_INSERT_TAIL(&exchange->endpoint->queues[queue], exchange, link);
    MHD_suspend_connection(exchange->connection);
}

static void resume_request(struct request *request)
{
    exchange_resume(request->user);
}
