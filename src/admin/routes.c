/*
 * The one table of what can be asked, and for each line of it the function that answers. They
 * translate between HTTP and admin.h; what may be done and what comes of it is decided there and
 * below. docs/control.md has every line of the table in words.
 */
#include "admin/request.h"

#include "admin/dashboard.h"
#include "admin/events.h"
#include "admin/json.h"
#include "admin/order_body.h"
#include "admin/stream.h"
#include "base/units.h"
#include "registry/glob.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_ERROR_BYTES 512

#define TYPE_JSON       "application/json"
#define TYPE_METRICS    "text/plain; version=0.0.4; charset=utf-8"
#define TYPE_EVENTS     "text/event-stream"

typedef void handle_fn(struct request *request);

#define OPEN 0x1 /* to everybody who reaches the port */
#define BODY 0x2 /* takes one with something in it */

/* In a path, * is an ID; NULL is that of any file of the page. */
struct route {
    const char *method;
    const char *path;
    handle_fn *handle;
    unsigned flags;
    const char *parameters; /* that it knows, separated by blanks */
};

static handle_fn get_status, get_clients, get_client, forget_client, ping_client, disconnect_client,
    give_order, get_order, get_targets, cancel_order, get_events, reload, get_metrics, get_health,
    get_readiness, get_file;

#define PAGE_PARAMETERS "limit after"

/* clang-format off */
static const struct route routes[] = {
    { "GET",    NULL,                         get_file,          OPEN, "" },
    { "GET",    "/healthz",                   get_health,        OPEN, "" },
    { "GET",    "/readyz",                    get_readiness,     OPEN, "" },
    { "GET",    "/metrics",                   get_metrics,       0,    "" },
    { "GET",    "/v1/status",                 get_status,        0,    "" },
    { "GET",    "/v1/clients",                get_clients,       0,    "status match sort " PAGE_PARAMETERS },
    { "GET",    "/v1/clients/*",              get_client,        0,    "" },
    { "DELETE", "/v1/clients/*",              forget_client,     0,    "" },
    { "POST",   "/v1/clients/*/ping",         ping_client,       0,    "" },
    { "POST",   "/v1/clients/*/disconnect",   disconnect_client, 0,    "" },
    { "POST",   "/v1/shutdown",               give_order,        BODY, "" },
    { "GET",    "/v1/shutdown",               get_order,         0,    "" },
    { "DELETE", "/v1/shutdown",               cancel_order,      0,    "" },
    { "GET",    "/v1/shutdown/targets",       get_targets,       0,    "state wave " PAGE_PARAMETERS },
    { "GET",    "/v1/events",                 get_events,        0,    "" },
    { "POST",   "/v1/reload",                 reload,            0,    "" },
};
/* clang-format on */

#define ROUTE_COUNT (sizeof(routes) / sizeof(routes[0]))

static bool find_route(struct request *request);
static void answer_no_path(struct request *request);
static bool path_matches(const char *pattern, const char *path, char *id);
static bool is_change(const struct request *request);
static bool is_allowed(struct request *request);
static bool parameters_are_known(struct request *request);
static bool body_is_right(struct request *request);
static const char *parameter(const struct request *request, const char *name);
static bool read_page(struct request *request, struct stream_filter *filter);
static bool read_number(struct request *request, const char *name, uint64_t minimum,
                        uint64_t maximum, uint64_t *number);
static int find_word(const char *const *words, const char *word);
static void answer_stream(struct request *request, struct stream *stream);
static void note_done(struct request *request, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void answer_json(struct request *request, unsigned status, json_t *json);
static void answer_order(struct request *request, unsigned status);
static void answer_result(struct request *request, enum admin_result result, const char *done);
static void answer_error(struct request *request, unsigned status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static void on_ping_done(struct ping *ping, enum ping_result result, uint64_t rtt_us);
static void settle_order(struct request *request, unsigned status);
static void collect_line(void *user, const char *line);

bool request_begin(struct request *request)
{
    request->is_running = true;
    const bool goes_on =
        find_route(request) && is_allowed(request) && parameters_are_known(request);
    request->is_running = false;
    return goes_on;
}

bool request_handle(struct request *request)
{
    request->is_running = true;
    if (body_is_right(request))
        request->route->handle(request);
    request->is_running = false;
    return request->answer.status != 0;
}

void request_refuse(struct request *request, unsigned status, const char *why)
{
    request->is_running = true;
    answer_error(request, status, "%s", why);
    request->is_running = false;
}

void request_order_saved(struct request *request)
{
    struct order_progress order;

    if (!request->waits_for_order)
        return;
    request->waits_for_order = false;
    orders_progress(sessions_orders(request->scope->admin->sessions), &order);
    if (order.id != request->order_id) {
        answer_error(request, 409, "another order was given meanwhile");
        return;
    }
    answer_order(request, strcmp(request->method, "POST") == 0 ? 202 : 200);
}

void request_clear(struct request *request)
{
    if (request->waits_for_ping)
        ping_cancel(request->scope->admin->sessions, &request->ping);
    request->waits_for_ping = request->waits_for_order = false;
    if (!request->answer.is_static)
        free(request->answer.text);
    stream_free(request->answer.stream);
    request->answer = (struct answer){.status = 0};
}

/* Sets request->route, or answers 404, or 405 where the path knows other methods. */
static bool find_route(struct request *request)
{
    char *allow = request->answer.allow;
    const size_t size = sizeof(request->answer.allow);
    const bool is_head = strcmp(request->method, "HEAD") == 0;
    size_t len = 0;

    for (size_t i = 0; i < ROUTE_COUNT; i++) {
        if (!path_matches(routes[i].path, request->path, request->id))
            continue;
        if (strcmp(is_head ? "GET" : request->method, routes[i].method) == 0) {
            request->route = &routes[i];
            allow[0] = '\0';
            return true;
        }
        len += (size_t)snprintf(allow + len, size - len, "%s%s", len > 0 ? ", " : "",
                                routes[i].method);
    }
    if (len == 0) {
        answer_no_path(request);
        return false;
    }
    answer_error(request, 405, "this path knows other methods");
    return false;
}

static void answer_no_path(struct request *request)
{
    if (dashboard_file_count == 0 && strcmp(request->path, "/") == 0)
        answer_error(request, 404,
                     "this cliserd is built without its page for browsers, by "
                     "-DCLISER_DASHBOARD=OFF; cliserctl shows the same");
    else
        answer_error(request, 404, "there is nothing at this path; docs/control.md has all paths");
}

/* Copies what stands for * to id, which has room for an ID; a longer text matches nothing. A =
 * before it is no part of it: "." and ".." are IDs that a browser would never send as they are. */
static bool path_matches(const char *pattern, const char *path, char *id)
{
    if (!pattern)
        return dashboard_find(path) != NULL;

    const char *star = strchr(pattern, '*');
    if (!star)
        return strcmp(pattern, path) == 0;
    const size_t before = (size_t)(star - pattern);
    if (strncmp(pattern, path, before) != 0)
        return false;
    const char *begin = path + before;
    begin += begin[0] == '=';
    const size_t len = strcspn(begin, "/");
    if (len == 0 || len > PROTO_MAX_ID_BYTES || strcmp(star + 1, begin + len) != 0)
        return false;
    memcpy(id, begin, len);
    id[len] = '\0';
    return true;
}

static bool is_change(const struct request *request)
{
    return strcmp(request->route->method, "GET") != 0;
}

static bool is_allowed(struct request *request)
{
    const struct request_scope *scope = request->scope;
    const char *why = "";
    unsigned status = 0;

    if (!scope->address)
        return true;
    status = access_check_origin(scope->address, &request->headers, &why);
    if (status == 0 && !(request->route->flags & OPEN))
        status = access_check_token(scope->tokens, &request->headers, &why);
    if (status == 0 && is_change(request))
        status = access_check_type(&request->headers, &why);
    if (status != 0)
        answer_error(request, status, "%s", why);
    return status == 0;
}

static bool parameters_are_known(struct request *request)
{
    const char *known = request->route->parameters;

    for (size_t i = 0; i < request->parameter_count; i++) {
        const char *name = i < REQUEST_MAX_PARAMETERS ? request->parameters[i].name : "";
        const size_t len = strlen(name);
        const char *at = len > 0 && !strchr(name, ' ') ? strstr(known, name) : NULL;
        const bool is_word = at && (at == known || at[-1] == ' ') && (at[len] == ' ' || !at[len]);

        for (size_t j = 0; j < i && is_word; j++) {
            if (strcmp(request->parameters[j].name, name) == 0) {
                answer_error(request, 400, "the parameter %s is given twice", name);
                return false;
            }
        }
        if (is_word && request->parameters[i].value)
            continue;
        if (known[0] == '\0')
            answer_error(request, 400, "this path takes no parameters");
        else
            answer_error(request, 400, "\"%s\" is no parameter with a value here; there are: %s",
                         name, known);
        return false;
    }
    return true;
}

/* A change that wants no body may have an empty object; what else it has would be ignored. */
static bool body_is_right(struct request *request)
{
    json_error_t error;

    if (!request->has_body || (request->route->flags & BODY) != 0)
        return true;
    json_t *body = json_loadb(request->body ? request->body : "", request->body_len,
                              JSON_REJECT_DUPLICATES, &error);
    if (!body && json_lacked_memory(&error)) {
        answer_json(request, 503, NULL);
        return false;
    }
    /* The size of what is no object is 0 as well. */
    const bool is_empty = json_is_object(body) && json_object_size(body) == 0;
    json_decref(body);
    if (!is_empty)
        answer_error(request, 400, "this request takes no body, or {}");
    return is_empty;
}

static const char *parameter(const struct request *request, const char *name)
{
    for (size_t i = 0; i < request->parameter_count; i++) {
        if (strcmp(request->parameters[i].name, name) == 0)
            return request->parameters[i].value;
    }
    return NULL;
}

/* No ETag can be a part of another one, as each has its quotes. */
static void get_file(struct request *request)
{
    const struct dashboard_file *file = dashboard_find(request->path);
    const char *known = request->if_none_match;
    const bool is_known = known && (strstr(known, file->etag) || strcmp(known, "*") == 0);

    request->answer = (struct answer){
        .status = is_known ? 304 : 200, .type = file->type, .file = file, .len = file->len};
}

static void get_health(struct request *request)
{
    answer_json(request, 200, json_pack("{s:b}", "ok", 1));
}

static void get_readiness(struct request *request)
{
    const char *why = admin_not_ready(request->scope->admin);

    if (why)
        answer_json(request, 503, json_pack("{s:b, s:s}", "ready", 0, "why", why));
    else
        answer_json(request, 200, json_pack("{s:b}", "ready", 1));
}

static void get_metrics(struct request *request)
{
    const struct request_scope *scope = request->scope;

    request->answer = (struct answer){.type = TYPE_METRICS};
    request->answer.text = scope->metrics(scope->user, &request->answer.len);
    if (request->answer.text)
        request->answer.status = 200;
    else
        answer_error(request, 503, "out of memory");
}

static void get_status(struct request *request)
{
    answer_json(request, 200, json_of_status(request->scope->admin, clock_now()));
}

static void get_clients(struct request *request)
{
    static const char *const statuses[] = {"disconnected", "connected", NULL};
    struct stream_filter filter = {
        .match = parameter(request, "match"), .connected = -1, .target = -1};
    const char *status = parameter(request, "status");
    const char *sort = parameter(request, "sort");
    char message[256];

    if (status)
        filter.connected = find_word(statuses, status);
    if (status && filter.connected < 0) {
        answer_error(request, 400, "status: \"%s\" should be connected or disconnected", status);
        return;
    }
    if (filter.match && glob_check(filter.match, message, sizeof(message)) != 0) {
        answer_error(request, 400, "match: %s", message);
        return;
    }
    if (sort && sort_order_parse(&filter.order, sort) != 0) {
        answer_error(
            request, 400,
            "sort: \"%s\" should be cid, sid, since, last_seen or rtt_ms, perhaps with a - "
            "before it",
            sort);
        return;
    }
    if (read_page(request, &filter))
        answer_stream(request, stream_clients(request->scope->admin, &filter));
}

static void get_targets(struct request *request)
{
    struct stream_filter filter = {.connected = -1, .target = -1};
    const char *state = parameter(request, "state");
    uint64_t wave = 0;

    if (state)
        filter.target = find_word(order_target_words, state);
    if (state && filter.target <= ORDER_TARGET_NONE) {
        answer_error(request, 400,
                     "state: \"%s\" should be pending, told, acknowledged, gone, still_up, "
                     "not_connected or late",
                     state);
        return;
    }
    if (!read_number(request, "wave", 1, ORDER_MAX_WAVES, &wave) || !read_page(request, &filter))
        return;
    filter.wave = (unsigned)wave;
    answer_stream(request, stream_targets(request->scope->admin, &filter));
}

static bool read_page(struct request *request, struct stream_filter *filter)
{
    uint64_t limit = STREAM_DEFAULT_LIMIT;
    struct sort_place place;

    filter->after = parameter(request, "after");
    if (filter->after && sort_place_parse(&place, filter->order, filter->after) != 0) {
        answer_error(request, 400,
                     "after: should be the next of the page before, in the same order");
        return false;
    }
    if (!read_number(request, "limit", 1, STREAM_MAX_LIMIT, &limit))
        return false;
    filter->limit = (unsigned)limit;
    return true;
}

/* Leaves the number as it is when the parameter is not given. */
static bool read_number(struct request *request, const char *name, uint64_t minimum,
                        uint64_t maximum, uint64_t *number)
{
    const char *text = parameter(request, name);

    if (!text ||
        (units_parse_number(text, number) == 0 && *number >= minimum && *number <= maximum))
        return true;
    answer_error(request, 400, "%s: \"%s\" should be a whole number from %u to %u", name, text,
                 (unsigned)minimum, (unsigned)maximum);
    return false;
}

/* The index of the word, or -1. */
static int find_word(const char *const *words, const char *word)
{
    for (int i = 0; words[i]; i++) {
        if (strcmp(words[i], word) == 0)
            return i;
    }
    return -1;
}

static void get_client(struct request *request)
{
    const struct admin *admin = request->scope->admin;
    const struct registry_record *record = admin_find(admin, request->id);

    if (record)
        answer_json(request, 200, json_of_record(admin, record));
    else
        answer_result(request, ADMIN_ERR_UNKNOWN, NULL);
}

static void forget_client(struct request *request)
{
    answer_result(request, admin_forget(request->scope->admin, request->id, clock_now()),
                  "forgotten");
}

static void disconnect_client(struct request *request)
{
    answer_result(request, admin_disconnect(request->scope->admin, request->id, clock_now()),
                  "disconnected");
}

static void ping_client(struct request *request)
{
    request->ping.done = on_ping_done;
    request->ping.user = request;
    request->waits_for_ping = true;
    const enum admin_result result =
        admin_ping(request->scope->admin, request->id, &request->ping, clock_now());
    if (result != ADMIN_OK) {
        request->waits_for_ping = false;
        answer_result(request, result, NULL);
    }
}

static void on_ping_done(struct ping *ping, enum ping_result result, uint64_t rtt_us)
{
    struct request *request = ping->user;

    request->waits_for_ping = false;
    switch (result) {
    case PING_ANSWERED:
        answer_json(request, 200, json_pack("{s:f}", "rtt_ms", (double)rtt_us / 1000));
        break;
    case PING_TIMED_OUT:
        answer_error(request, 504, "%s did not answer within %d s", request->id,
                     PING_TIMEOUT_MS / 1000);
        break;
    case PING_LEFT:
        answer_error(request, 409, "%s disconnected before it answered", request->id);
        break;
    }
}

static void give_order(struct request *request)
{
    struct admin *admin = request->scope->admin;
    struct order_request order;
    char message[MAX_ERROR_BYTES];
    bool dry_run = false;

    const int result = order_body_read(request->body, request->body_len, &order, &dry_run, message,
                                       sizeof(message));
    if (result != 0) {
        answer_error(request, result == -2 ? 503 : 400, "%s", message);
        return;
    }
    if (dry_run) {
        answer_stream(request, stream_dry_run(admin, &order.waves));
        return;
    }
    order.by = request->by;
    switch (sessions_give_order(admin->sessions, &order, clock_now())) {
    case ORDER_OK:
        settle_order(request, 202);
        break;
    case ORDER_ERR_BUSY:
        answer_error(request, 409, "a shutdown order is under way; wait for its end, or cancel it");
        break;
    case ORDER_ERR_ENDING:
        answer_error(request, 503, "the server is stopping; give the order to the next one");
        break;
    case ORDER_ERR_NONE:
    case ORDER_ERR_NO_MEMORY:
        answer_error(request, 503, "out of memory");
        break;
    }
}

static void get_order(struct request *request)
{
    answer_json(request, 200, json_of_order(request->scope->admin));
}

static void cancel_order(struct request *request)
{
    struct admin *admin = request->scope->admin;

    if (sessions_cancel_order(admin->sessions, request->by, clock_now()) == ORDER_OK)
        settle_order(request, 200);
    else
        answer_error(request, 404, "no shutdown order is under way");
}

/* Answers once it is known whether the order is kept. */
static void settle_order(struct request *request, unsigned status)
{
    struct admin *admin = request->scope->admin;
    struct order_progress order;

    orders_progress(sessions_orders(admin->sessions), &order);
    request->order_id = order.id;
    if (order.is_settling)
        request->waits_for_order = true;
    else
        answer_order(request, status);
}

static void answer_order(struct request *request, unsigned status)
{
    struct admin *admin = request->scope->admin;
    struct order_progress order;

    orders_progress(sessions_orders(admin->sessions), &order);
    note_done(request, "{\"id\":%" PRId64 ",\"state\":\"%s\",\"durable\":%s}", order.id,
              order_state_words[order.state], order.durable ? "true" : "false");
    answer_json(request, status, json_of_order(admin));
}

static void get_events(struct request *request)
{
    const struct request_scope *scope = request->scope;
    uint64_t seen = events_last(scope->events);

    if (!scope->may_stream_events(scope->user)) {
        answer_error(request, 503, "there are too many event streams already");
        return;
    }
    if (request->last_event_id && units_parse_number(request->last_event_id, &seen) != 0) {
        answer_error(request, 400, "Last-Event-ID: should be the id of an event");
        return;
    }
    request->answer =
        (struct answer){.status = 200, .type = TYPE_EVENTS, .is_events = true, .events_seen = seen};
}

static void reload(struct request *request)
{
    struct admin *admin = request->scope->admin;
    json_t *lines = json_array();

    const bool done = admin->reload(admin->user, collect_line, &lines);
    if (done)
        note_done(request, "{\"reloaded\":true}");
    const char *first = json_string_value(json_array_get(lines, 0));
    if (done)
        answer_json(request, 200,
                    lines ? json_pack("{s:b, s:o}", "reloaded", 1, "restart_needed", lines) : NULL);
    else if (!first)
        answer_json(request, 503, NULL);
    else
        answer_json(request, 409, json_pack("{s:s, s:o}", "error", first, "errors", lines));
}

/* Without memory for one of them there are none. */
static void collect_line(void *user, const char *line)
{
    json_t **lines = user;

    if (*lines && json_array_append_new(*lines, json_string(line)) != 0) {
        json_decref(*lines);
        *lines = NULL;
    }
}

static void answer_result(struct request *request, enum admin_result result, const char *done)
{
    switch (result) {
    case ADMIN_OK:
        note_done(request, "{\"%s\":\"%s\"}", done, request->id);
        answer_json(request, 200, json_pack("{s:s}", done, request->id));
        break;
    case ADMIN_ERR_UNKNOWN:
        answer_error(request, 404, "no client %s", request->id);
        break;
    case ADMIN_ERR_CONNECTED:
        answer_error(request, 409, "%s is connected; disconnect it first", request->id);
        break;
    case ADMIN_ERR_NOT_CONNECTED:
        answer_error(request, 409, "%s is not connected", request->id);
        break;
    case ADMIN_ERR_IN_ORDER:
        answer_error(request, 409, "%s is part of the shutdown order that is under way",
                     request->id);
        break;
    }
}

static void answer_stream(struct request *request, struct stream *stream)
{
    if (stream)
        request->answer = (struct answer){.status = 200, .type = TYPE_JSON, .stream = stream};
    else
        answer_error(request, 503, "out of memory");
}

/* What is to be said when there is no memory to say it at length: that it is done must not look as
 * if it were not. */
static void note_done(struct request *request, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(request->brief, sizeof(request->brief), format, args);
    va_end(args);
}

/* Owns json, which is NULL when memory was out. */
static void answer_json(struct request *request, unsigned status, json_t *json)
{
    static char out_of_memory[] = "{\"error\":\"out of memory\"}";
    struct answer *answer = &request->answer;

    answer->type = TYPE_JSON;
    answer->status = status;
    answer->text = json ? json_text(json, &answer->len) : NULL;
    answer->is_static = !answer->text;
    if (!answer->text && request->brief[0] != '\0') {
        answer->text = request->brief;
    } else if (!answer->text) {
        answer->status = 503;
        answer->allow[0] = '\0';
        answer->text = out_of_memory;
    }
    answer->len = strlen(answer->text);
    json_decref(json);
    if (!request->is_running)
        request->resume(request);
}

/* What came from outside is shown as far as it is printable: as it stands it may be no UTF-8. */
static void answer_error(struct request *request, unsigned status, const char *format, ...)
{
    char text[MAX_ERROR_BYTES];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    for (char *at = text; *at; at++) {
        if (*at < ' ' || *at > '~')
            *at = '?';
    }
    answer_json(request, status, json_pack("{s:s}", "error", text));
}
