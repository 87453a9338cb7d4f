/*
 * What is asked of the control API, without its transport: a first byte that says where it comes
 * from and what the server is doing, and then the request as text: method, path and parameters;
 * headers; an empty line; a body.
 *
 * Nothing may change by a request that has no token, or asks in the name of another page, or is a
 * GET; 130 is sent by a POST to /v1/shutdown alone; every answer is whole and can be read; who
 * waits for an answer gets one.
 */
#include "admin/dashboard.h"
#include "admin/events.h"
#include "admin/metrics.h"
#include "admin/request.h"
#include "admin/stream.h"
#include "fake_clock.h"
#include "folder.h"
#include "fuzz.h"
#include "http_text.h"
#include "registry/credential.h"
#include "world.h"

#include <strings.h>

#define ADDRESS     "127.0.0.1:3333"
#define CLIENTS     3
#define MAX_REQUEST 4096

/* The first byte. */
#define FROM_PORT        1
#define ORDER_UNDER_WAY  2
#define ONE_HAS_LEFT     4
#define STREAMS_ARE_FULL 8
#define CLIENT_ANSWERS   16

struct client {
    struct session session; /* first, so that a session is its client */
    bool is_closed;
};

/* What only an operator may change. */
struct state {
    size_t records;
    size_t connected;
    uint64_t ended;
    uint64_t questions; /* 100s */
    uint64_t told;      /* 130s */
    unsigned reloads;
    int64_t order;
    enum order_state order_state;
};

static struct {
    struct world world;
    struct client clients[CLIENTS];
    struct events *events;
    struct request *request;
    uint64_t told;
    bool streams_are_full;
    unsigned resumed;
} run;

static void open_world(uint8_t what);
static void close_world(void);
static void ask(struct request *request, bool is_port, bool client_answers);
static char *read_request(struct request *request, char *text);
static void read_parameters(struct request *request, char *text);
static void read_header(struct request *request, char *line);
static void decode(char *text);
static bool naive_is_allowed(const struct request *request);
static bool naive_is_json(const struct request *request);
static bool naive_is_ours(const char *host);
static void check_answer(struct request *request);
static void read_stream(struct request *request);
static struct state look(void);
static void turn(void);
static void on_event(void *user, const struct session_event *event);
static char *print_metrics(void *user, size_t *len);
static bool may_stream_events(void *user);
static void resume_request(struct request *request);
static void send_line(struct session *session, const char *line, size_t len);
static void ignore(struct session *session);
static void close_session(struct session *session, bool said_why);

static const struct session_ops ops = {
    .send = send_line,
    .resume = ignore,
    .look = ignore,
    .close = close_session,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = fuzz_input_of(data, size);
    const uint8_t what = fuzz_byte(&input);
    struct request request = {.by = "fuzz"};
    size_t len = 0;

    if (size > MAX_REQUEST)
        return -1;
    const char *bytes = fuzz_bytes(&input, MAX_REQUEST, &len);
    char *text = malloc(len + 1);
    fuzz_require(text);
    if (len > 0)
        memcpy(text, bytes, len);
    text[len] = '\0';
    char *body = read_request(&request, text);
    const size_t body_len = body ? len - (size_t)(body - text) : 0;
    request.has_body = body_len > 0;
    if (request.has_body)
        request.body = fuzz_copy(body, body_len);
    request.body_len = body_len;

    if (request.method && request.path) {
        open_world(what);
        ask(&request, what & FROM_PORT, what & CLIENT_ANSWERS);
        close_world();
    }
    free(request.body);
    free(text);
    return 0;
}

static void ask(struct request *request, bool is_port, bool client_answers)
{
    static struct address address;
    struct credentials *tokens = credentials_new();
    char message[256];

    fuzz_require(address_parse(ADDRESS, &address, message, sizeof(message)) == 0);
    fuzz_require(tokens && credentials_add(tokens, WORLD_TOKEN, strlen(WORLD_TOKEN)) == 0);
    const struct request_scope scope = {
        .admin = &run.world.admin,
        .events = run.events,
        .address = is_port ? &address : NULL,
        .tokens = tokens,
        .metrics = print_metrics,
        .may_stream_events = may_stream_events,
    };
    const struct state before = look();
    const bool is_change =
        strcmp(request->method, "POST") == 0 || strcmp(request->method, "DELETE") == 0;
    const bool is_allowed =
        !is_port || (naive_is_allowed(request) && (!is_change || naive_is_json(request)));
    const bool is_order =
        strcmp(request->method, "POST") == 0 && strcmp(request->path, "/v1/shutdown") == 0;
    const bool is_open = strcmp(request->path, "/healthz") == 0 ||
                         strcmp(request->path, "/readyz") == 0 || dashboard_find(request->path);

    request->scope = &scope;
    request->resume = resume_request;
    run.request = request;
    bool is_answered = !request_begin(request) || request_handle(request);
    const struct state at_once = look();
    if (!is_allowed || !is_change)
        fuzz_require(memcmp(&before, &at_once, sizeof(before)) == 0);
    fuzz_require(is_answered == (request->answer.status != 0) && run.resumed == 0);
    if (is_answered && !is_allowed && !is_open)
        fuzz_require(request->answer.status >= 400 && request->answer.status < 500);

    /* Who waits is answered in the end. */
    if (!is_answered && client_answers)
        (void)session_line(&run.clients[0].session, "100", 3, clock_now());
    for (int i = 0; i < 200; i++)
        turn();
    const struct state after = look();
    fuzz_require(request->answer.status != 0 && run.resumed == !is_answered);
    if (!is_order)
        fuzz_require(after.told == before.told || before.order_state == ORDER_RUNNING ||
                     before.order_state == ORDER_HOLDING);
    if (!is_allowed || !is_change)
        fuzz_require(after.reloads == before.reloads && after.order == before.order &&
                     after.records == before.records);
    check_answer(request);
    run.request = NULL;
    request_clear(request);
    credentials_free(tokens);
}

static void check_answer(struct request *request)
{
    const struct answer *answer = &request->answer;
    const int bodies = (answer->text != NULL) + (answer->stream != NULL) + (answer->file != NULL) +
                       answer->is_events;

    switch (answer->status) {
    case 200:
    case 202:
    case 304:
    case 400:
    case 401:
    case 403:
    case 404:
    case 405:
    case 409:
    case 415:
    case 503:
    case 504:
        break;
    default:
        fuzz_require(!"a status that docs/control.md knows");
    }
    fuzz_require(bodies == 1);
    fuzz_require(answer->status != 304 || (answer->file && request->if_none_match));
    fuzz_require((answer->status == 405) == (answer->allow[0] != '\0'));
    if (answer->stream)
        read_stream(request);
    else if (answer->text && strcmp(answer->type, "application/json") == 0)
        http_text_check_json(answer->text, answer->len);
    else if (answer->text)
        http_text_check_metrics(answer->text, answer->len);
}

static void read_stream(struct request *request)
{
    char text[64 * 1024];
    size_t len = 0;
    ssize_t got = 0;
    size_t size = 1024;

    while ((got = stream_read(request->answer.stream, text + len, size)) >= 0) {
        len += (size_t)got;
        fuzz_require(len + 4096 < sizeof(text));
        size = size * 3 % 4001 + 1024;
    }
    fuzz_require(got == STREAM_END);
    http_text_check_json(text, len);
}

/* Three clients are known, in whatever state the first byte says. */
static void open_world(uint8_t what)
{
    static const char *const cids[CLIENTS] = {"web-1", "db-1", "nas"};
    const struct peer_address from = {.ip = {127, 0, 0, 1}, .port = 1, .family = AF_INET};
    struct sessions_options options = world_options();

    memset(&run, 0, sizeof(run));
    options.interval_ms = 86400000;
    world_open(&run.world, &options, &ops, false, false);
    run.events = events_new(clock_wall_ms());
    fuzz_require(run.events);
    sessions_set_watch(run.world.sessions, on_event, NULL);
    run.streams_are_full = what & STREAMS_ARE_FULL;
    for (int i = 0; i < CLIENTS; i++) {
        struct session *session = &run.clients[i].session;
        session_start(session, run.world.sessions, &from, clock_now());
        (void)session_line(session, WORLD_PASSWORD, strlen(WORLD_PASSWORD), clock_now());
        (void)session_line(session, cids[i], strlen(cids[i]), clock_now());
    }
    turn();
    if (what & ONE_HAS_LEFT)
        session_end(&run.clients[2].session, REASON_LEFT, clock_now());
    if (what & ORDER_UNDER_WAY)
        fuzz_require(world_order(&run.world, "web-*,nas", 60000, 900000) == ORDER_OK);
    for (int i = 0; i < 4; i++)
        turn();
}

static void close_world(void)
{
    for (int i = 0; i < CLIENTS; i++) {
        if (!run.clients[i].is_closed)
            session_end(&run.clients[i].session, REASON_STOPPED, clock_now());
    }
    turn();
    events_free(run.events);
    world_close(&run.world);
}

/* Fills the request in, and returns where the body begins, NULL if there is none. Ends with NUL in
 * the places where the transport would have cut. */
static char *read_request(struct request *request, char *text)
{
    char *rest = text;
    char *line = strsep(&rest, "\n");
    char *target = NULL;

    request->method = strsep(&line, " ");
    target = line;
    if (!target)
        return NULL;
    char *parameters = strchr(target, '?');
    if (parameters)
        *parameters++ = '\0';
    decode(target);
    request->path = target;
    if (parameters)
        read_parameters(request, parameters);
    while (rest && (line = strsep(&rest, "\n")) != NULL && line[0] != '\0')
        read_header(request, line);
    return rest;
}

static void read_parameters(struct request *request, char *text)
{
    char *parameter = NULL;

    while ((parameter = strsep(&text, "&")) != NULL) {
        char *value = strchr(parameter, '=');

        if (value)
            *value++ = '\0';
        decode(parameter);
        if (value)
            decode(value);
        if (request->parameter_count < REQUEST_MAX_PARAMETERS)
            request->parameters[request->parameter_count] =
                (struct request_parameter){.name = parameter, .value = value};
        request->parameter_count++;
    }
}

static void read_header(struct request *request, char *line)
{
    struct access_headers *headers = &request->headers;
    const struct {
        const char *name;
        const char **place;
    } known[] = {
        {"Host", &headers->host},
        {"Origin", &headers->origin},
        {"Authorization", &headers->authorization},
        {"Content-Type", &headers->content_type},
        {"Last-Event-ID", &request->last_event_id},
        {"If-None-Match", &request->if_none_match},
    };
    char *value = strchr(line, ':');

    if (!value)
        return;
    *value++ = '\0';
    value += strspn(value, " \t");
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (strcasecmp(line, known[i].name) != 0)
            continue;
        headers->repeated |= *known[i].place != NULL;
        *known[i].place = value;
    }
}

/* As the library does it: %XX, and + is a blank. */
static void decode(char *text)
{
    char *to = text;

    for (const char *at = text; *at; at++) {
        unsigned byte = 0;
        if (at[0] == '%' && at[1] && at[2] && sscanf(at + 1, "%2x", &byte) == 1 && byte != 0) {
            *to++ = (char)byte;
            at += 2;
        } else {
            *to++ = *at == '+' ? ' ' : *at;
        }
    }
    *to = '\0';
}

/* docs/control.md, "Who may ask", once more. */
static bool naive_is_allowed(const struct request *request)
{
    const struct access_headers *headers = &request->headers;
    char expected[64];

    if (headers->repeated || !headers->host || !naive_is_ours(headers->host))
        return false;
    if (headers->origin &&
        (strncmp(headers->origin, "http://", 7) != 0 || !naive_is_ours(headers->origin + 7)))
        return false;
    snprintf(expected, sizeof(expected), "Bearer %s", WORLD_TOKEN);
    return headers->authorization && strlen(headers->authorization) == strlen(expected) &&
           strncasecmp(headers->authorization, expected, 7) == 0 &&
           strcmp(headers->authorization + 7, expected + 7) == 0;
}

static bool naive_is_json(const struct request *request)
{
    static const char json[] = "application/json";
    const char *type = request->headers.content_type;

    return type && strncasecmp(type, json, strlen(json)) == 0 &&
           (type[strlen(json)] == '\0' || strchr("; ", type[strlen(json)]));
}

static bool naive_is_ours(const char *host)
{
    return strcasecmp(host, ADDRESS) == 0 || strcasecmp(host, "localhost:3333") == 0 ||
           strcasecmp(host, "[::1]:3333") == 0;
}

static struct state look(void)
{
    const struct sessions_counters *counters = sessions_counters(run.world.sessions);
    struct order_progress order;
    struct state state;

    orders_progress(sessions_orders(run.world.sessions), &order);
    memset(&state, 0, sizeof(state)); /* compared as bytes */
    state.records = registry_count(run.world.registry);
    state.connected = registry_connected(run.world.registry);
    for (int i = 0; i < REASON_COUNT; i++)
        state.ended += counters->ended[i] + counters->refused[i];
    state.questions = counters->keepalives_sent;
    state.told = run.told;
    state.reloads = run.world.reloads;
    state.order = order.id;
    state.order_state = order.state;
    return state;
}

static void turn(void)
{
    fake_clock_advance_ms(50);
    const struct moment now = clock_now();
    if (sessions_next_us(run.world.sessions) <= now.mono_us)
        sessions_tick(run.world.sessions, now);
    store_turn(run.world.store, false, now);
}

static void on_event(void *user, const struct session_event *event)
{
    (void)user;
    if (event->kind != SESSION_ORDER || event->order->what != ORDER_SAVED)
        events_add(run.events, event);
    else if (run.request)
        request_order_saved(run.request);
}

static char *print_metrics(void *user, size_t *len)
{
    static const uint64_t answers[METRICS_STATUS_CLASSES] = {0};
    const struct metrics_sources sources = {
        .registry = run.world.registry,
        .sessions = run.world.sessions,
        .server = run.world.server,
        .store = run.world.store,
        .version = "fuzz",
        .control_requests = answers,
    };
    char *text = NULL;

    (void)user;
    return metrics_print(&sources, &text, len) == 0 ? text : NULL;
}

static bool may_stream_events(void *user)
{
    (void)user;
    return !run.streams_are_full;
}

static void resume_request(struct request *request)
{
    fuzz_require(request == run.request);
    run.resumed++;
}

static void send_line(struct session *session, const char *line, size_t len)
{
    (void)session;
    run.told += proto_parse_code(line, len) == PROTO_SHUTDOWN;
}

static void ignore(struct session *session)
{
    (void)session;
}

static void close_session(struct session *session, bool said_why)
{
    (void)said_why;
    ((struct client *)session)->is_closed = true;
}
