/*
 * Metrics: that the text is what Prometheus reads, that each number comes from where it should, and
 * that it is there from the start. The server, its sessions and one connection are real; the store
 * is the test's own.
 *
 * test_metrics --print prints a sample, for promtool.
 */
#include "admin/metrics.h"

#include "base/hash.h"
#include "base/log.h"
#include "net/conn.h"
#include "net/listener.h"
#include "net/server.h"
#include "session/internal.h"

#include "unit.h"

#include <event2/event.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_SAMPLES 2000
#define PATIENCE_MS 10000

/* The functions of store/store.h are defined here, over this: it answers at the end of the turn. */
struct store {
    struct store_answer answers[8];
    size_t count;
    struct store_stats stats;
    bool healthy;
};

/* A line of the text that is no comment. */
struct sample {
    char series[128]; /* the name with its labels */
    char name[96];    /* without */
    char value[32];
};

struct world {
    struct event_base *base;
    struct registry *registry;
    struct sessions *sessions;
    struct server *server;
    struct store store;
    uint64_t requests[METRICS_STATUS_CLASSES];
    struct metrics_sources sources;

    char *text;
    size_t len;
    struct sample samples[MAX_SAMPLES];
    size_t sample_count;

    /* The one client of a real run. */
    int client;
    const char *says;    /* once connected */
    const char *awaited; /* then it hears this, metrics are printed and the server stops */
    char heard[256];
    size_t heard_len;
    int polls;
    struct event *poll;
    bool starves;      /* there are no descriptors left for it */
    struct rlimit fds; /* until accepting has had to pause: then these are given back */
};

/* ---- the store ---- */

int store_register(struct store *store, const struct registry_record *record,
                   const struct peer_address *peer, uint16_t credential, uint64_t serial,
                   struct moment now)
{
    (void)peer;
    (void)credential;
    (void)now;
    store->answers[store->count++] =
        (struct store_answer){.serial = serial, .sid = record->sid, .result = STORE_OK};
    return 0;
}

void store_turn(struct store *store, bool busy, struct moment now)
{
    struct world *world = (struct world *)((char *)store - offsetof(struct world, store));

    (void)busy;
    for (size_t i = 0; i < store->count; i++)
        sessions_on_answer(world->sessions, &store->answers[i], now);
    store->count = 0;
}

void store_disconnect(struct store *store, const struct registry_record *record, struct moment now)
{
    (void)store;
    (void)record;
    (void)now;
}

void store_forget(struct store *store, const struct registry_record *record, struct moment now)
{
    (void)store;
    (void)record;
    (void)now;
}

int store_save_order(struct store *store, const struct store_order *order, struct moment now)
{
    (void)store;
    (void)order;
    (void)now;
    return 0;
}

void store_save_target(struct store *store, const struct registry_record *record, struct moment now)
{
    (void)store;
    (void)record;
    (void)now;
}

const struct store_order *store_order(const struct store *store)
{
    (void)store;
    return NULL;
}

uint64_t store_next_us(const struct store *store)
{
    (void)store;
    return UINT64_MAX;
}

const struct store_stats *store_stats(struct store *store)
{
    return &store->stats;
}

bool store_healthy(const struct store *store)
{
    return store->healthy;
}

/* ---- the world ---- */

static struct world *set_up_world(void)
{
    static char address[] = "127.0.0.1:0";
    static char *const addresses[] = {address};
    static const struct listeners_options listening = {
        .addresses = addresses, .count = 1, .backlog = 8, .user_timeout_ms = 30000};
    static const struct server_options serving = {.user_timeout_ms = 30000, .max_connections = 20};
    static const struct sessions_options options = {
        .interval_ms = 3600000,
        .misses = 3,
        .handshake_timeout_ms = 60000,
        .forget_after_ms = UINT64_MAX,
        .explain_refusals = true,
        .limits = {.max_clients = 1000, .max_pending = 1000},
    };
    struct credentials *credentials = credentials_new();
    struct world *world = calloc(1, sizeof(*world));
    char message[256] = "";

    assert_non_null(world);
    assert_int_equal(credentials_add(credentials, "secret", 6), 0);
    world->store.healthy = true;
    world->client = -1;
    world->base = event_base_new();
    world->registry = registry_new();
    world->sessions =
        sessions_new(&options, world->registry, credentials, &conn_session_ops, clock_now());
    sessions_set_store(world->sessions, &world->store, clock_now());
    struct listeners *listeners = listeners_open(&listening, message, sizeof(message));
    if (!listeners)
        fail_msg("%s", message);
    world->server =
        server_new(&serving, world->base, listeners, NULL, world->sessions, &world->store);
    assert_non_null(world->server);
    world->sources = (struct metrics_sources){
        .registry = world->registry,
        .sessions = world->sessions,
        .server = world->server,
        .store = &world->store,
        .version = "1.2.3",
        .max_clients = 1000,
        .control_requests = world->requests,
    };
    process_start_note(&world->sources.process);
    return world;
}

static void tear_down_world(struct world *world)
{
    server_free(world->server);
    sessions_free(world->sessions);
    registry_free(world->registry);
    event_base_free(world->base);
    if (world->client >= 0)
        close(world->client);
    free(world->text);
    free(world);
}

static int setup(void **state)
{
    *state = set_up_world();
    return 0;
}

static int teardown(void **state)
{
    tear_down_world(*state);
    return 0;
}

static bool is_one_of(char c, const char *more)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           (c != '\0' && strchr(more, c));
}

/* "name{label="value",label="value"} 1" */
static void read_sample(struct sample *sample, const char *line)
{
    const char *at = line;

    while (is_one_of(*at, ""))
        at++;
    assert_true(at > line && (line[0] < '0' || line[0] > '9'));
    snprintf(sample->name, sizeof(sample->name), "%.*s", (int)(at - line), line);
    if (*at == '{') {
        do {
            const char *label = ++at;

            while (is_one_of(*at, ""))
                at++;
            assert_true(at > label && (label[0] < '0' || label[0] > '9'));
            assert_memory_equal(at, "=\"", 2);
            for (at += 2; *at != '"'; at++)
                assert_true(is_one_of(*at, ".+-"));
            at++;
        } while (*at == ',');
        assert_int_equal(*at, '}');
        at++;
    }
    snprintf(sample->series, sizeof(sample->series), "%.*s", (int)(at - line), line);
    assert_int_equal(*at, ' ');
    snprintf(sample->value, sizeof(sample->value), "%s", at + 1);
    char *end;
    (void)strtod(sample->value, &end);
    assert_true(end > sample->value && *end == '\0');
}

/* Prints, and takes all samples out of the text. */
static void print(struct world *world)
{
    free(world->text);
    assert_int_equal(metrics_print(&world->sources, &world->text, &world->len), 0);
    assert_int_equal(strlen(world->text), world->len);
    assert_true(world->len > 0 && world->text[world->len - 1] == '\n');

    char *copy = strdup(world->text);
    char *rest = copy;
    const char *line;
    world->sample_count = 0;
    while ((line = strsep(&rest, "\n")) != NULL && rest) {
        assert_true(line[0] != '\0');
        if (line[0] == '#')
            continue;
        assert_true(world->sample_count < MAX_SAMPLES);
        read_sample(&world->samples[world->sample_count++], line);
    }
    free(copy);
}

static const char *value_text(const struct world *world, const char *series)
{
    for (size_t i = 0; i < world->sample_count; i++) {
        if (strcmp(world->samples[i].series, series) == 0)
            return world->samples[i].value;
    }
    fail_msg("there is no %s", series);
    return "";
}

static uint64_t value(const struct world *world, const char *series)
{
    const char *text = value_text(world, series);
    char *end;
    const uint64_t number = strtoull(text, &end, 10);

    assert_int_equal(*end, '\0');
    return number;
}

static bool ends_with(const char *text, const char *end)
{
    const size_t len = strlen(text);

    return len >= strlen(end) && strcmp(text + len - strlen(end), end) == 0;
}

/* ---- the text ---- */

static void each_family_has_its_help_and_type_once_and_before_its_samples(void **state)
{
    struct world *world = *state;
    char seen[64][96];
    char type[16] = "";
    size_t families = 0;

    print(world);
    char *copy = strdup(world->text);
    char *rest = copy;
    const char *line;
    while ((line = strsep(&rest, "\n")) != NULL && rest) {
        char name[96] = "";
        char typed[96] = "";

        if (line[0] != '#') {
            struct sample sample;
            const char *family = seen[families - 1];

            read_sample(&sample, line);
            assert_memory_equal(sample.name, family, strlen(family));
            const char *suffix = sample.name + strlen(family);
            if (strcmp(type, "histogram") == 0)
                assert_true(strcmp(suffix, "_bucket") == 0 || strcmp(suffix, "_sum") == 0 ||
                            strcmp(suffix, "_count") == 0);
            else
                assert_string_equal(suffix, "");
            assert_int_equal(strcmp(type, "counter") == 0, ends_with(family, "_total"));
            continue;
        }
        assert_int_equal(sscanf(line, "# HELP %95s", name), 1);
        assert_int_equal(line[strlen(line) - 1], '.');
        assert_null(strchr(line, '\\'));
        line = strsep(&rest, "\n");
        assert_int_equal(sscanf(line, "# TYPE %95s %15s", typed, type), 2);
        assert_string_equal(name, typed);
        for (size_t i = 0; i < families; i++)
            assert_string_not_equal(name, seen[i]);
        assert_true(families < COUNT(seen));
        strcpy(seen[families++], name);
    }
    free(copy);
    assert_int_equal(families, 47);
}

static void no_series_is_there_twice(void **state)
{
    struct world *world = *state;

    print(world);
    for (size_t i = 0; i < world->sample_count; i++) {
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(world->samples[i].series, world->samples[j].series);
    }
}

static void histograms_are_cumulative_and_in_seconds(void **state)
{
    struct world *world = *state;
    struct duration_histogram *commits = &world->store.stats.commit;
    static const uint64_t durations_us[] = {0, 10, 11, 1500, 1500, 1000000, 10000000, 12345678};

    for (size_t i = 0; i < COUNT(durations_us); i++)
        duration_histogram_record(commits, durations_us[i]);
    print(world);

#define BUCKET(le) value(world, "cliser_store_commit_duration_seconds_bucket{le=\"" le "\"}")
    assert_int_equal(BUCKET("0.00001"), 2);
    assert_int_equal(BUCKET("0.00002"), 3);
    assert_int_equal(BUCKET("0.001"), 3);
    assert_int_equal(BUCKET("0.002"), 5);
    assert_int_equal(BUCKET("0.5"), 5);
    assert_int_equal(BUCKET("1"), 6);
    assert_int_equal(BUCKET("10"), 7);
    assert_int_equal(BUCKET("+Inf"), 8);
#undef BUCKET
    assert_int_equal(value(world, "cliser_store_commit_duration_seconds_count"), 8);
    assert_string_equal(value_text(world, "cliser_store_commit_duration_seconds_sum"), "23.348699");

    static const char *const names[] = {"cliser_handshake_duration_seconds",
                                        "cliser_keepalive_rtt_seconds", "cliser_loop_lag_seconds",
                                        "cliser_store_commit_duration_seconds",
                                        "cliser_store_checkpoint_duration_seconds"};
    for (size_t i = 0; i < COUNT(names); i++) {
        char series[128];
        uint64_t before = 0;
        double bound = 0;
        int buckets = 0;

        for (size_t j = 0; j < world->sample_count; j++) {
            const struct sample *sample = &world->samples[j];
            snprintf(series, sizeof(series), "%s_bucket", names[i]);
            if (strcmp(sample->name, series) != 0)
                continue;
            const double le = strtod(strchr(sample->series, '"') + 1, NULL);
            const uint64_t count = strtoull(sample->value, NULL, 10);
            assert_true(le > bound && count >= before);
            bound = le;
            before = count;
            buckets++;
        }
        snprintf(series, sizeof(series), "%s_count", names[i]);
        assert_int_equal(before, value(world, series));
        assert_int_equal(buckets, DURATION_BUCKETS + 1);
    }
}

static void codes_and_reasons_are_there_from_the_start(void **state)
{
    static const char *const series[] = {
        "cliser_refusals_total{code=\"400\"}",
        "cliser_refusals_total{code=\"408\"}",
        "cliser_refusals_total{code=\"410\"}",
        "cliser_refusals_total{code=\"420\"}",
        "cliser_refusals_total{code=\"421\"}",
        "cliser_refusals_total{code=\"422\"}",
        "cliser_refusals_total{code=\"429\"}",
        "cliser_refusals_total{code=\"430\"}",
        "cliser_refusals_total{code=\"431\"}",
        "cliser_refusals_total{code=\"450\"}",
        "cliser_refusals_total{code=\"451\"}",
        "cliser_refusals_total{code=\"460\"}",
        "cliser_disconnects_total{reason=\"left\"}",
        "cliser_disconnects_total{reason=\"operator\"}",
        "cliser_disconnects_total{reason=\"restarting\"}",
        "cliser_handshakes_abandoned_total{reason=\"left\"}",
        "cliser_handshakes_abandoned_total{reason=\"reset\"}",
        "cliser_handshakes_abandoned_total{reason=\"slow\"}",
        "cliser_handshakes_abandoned_total{reason=\"stopped\"}",
        "cliser_handshakes_abandoned_total{reason=\"resources\"}",
        "cliser_tls_connections",
        "cliser_tls_handshakes_total{result=\"full\"}",
        "cliser_tls_handshakes_total{result=\"resumed\"}",
        "cliser_tls_handshakes_total{result=\"failed\"}",
        "cliser_tls_handshakes_total{result=\"abandoned\"}",
        "cliser_tls_handshake_work_seconds_count",
        "cliser_clients{status=\"connected\"}",
        "cliser_clients{status=\"disconnected\"}",
        "cliser_shutdown_targets{state=\"still_up\"}",
        "cliser_control_requests_total{code=\"2xx\"}",
        "cliser_control_requests_total{code=\"5xx\"}",
    };
    struct world *world = *state;
    size_t disconnects = 0;

    print(world);
    for (size_t i = 0; i < COUNT(series); i++)
        assert_int_equal(value(world, series[i]), 0);
    for (size_t i = 0; i < world->sample_count; i++)
        disconnects += strcmp(world->samples[i].name, "cliser_disconnects_total") == 0;
    assert_int_equal(disconnects, REASON_COUNT - 1);
}

/* ---- the numbers ---- */

static void ends_are_counted_by_code_and_by_reason(void **state)
{
    struct world *world = *state;
    struct sessions_counters *counters = &world->sessions->counters;
    const struct peer_address peer = {.family = AF_INET, .ip = {192, 0, 2, 1}, .port = 1};

    counters->refused[REASON_PASSWORD] = 3;
    counters->refused[REASON_TIMED_OUT] = 4;
    counters->ended[REASON_TIMED_OUT] = 5;
    counters->ended[REASON_OPERATOR] = 6;
    counters->refused[REASON_LEFT] = 7;
    counters->ended[REASON_LEFT] = 8;
    counters->refused[REASON_RESOURCES] = 9;
    (void)sessions_turn_away(world->sessions, &peer, REASON_RESOURCES, clock_now());
    (void)sessions_turn_away(world->sessions, &peer, REASON_FULL, clock_now());
    (void)sessions_turn_away(world->sessions, &peer, REASON_TOO_MANY, clock_now());
    counters->penalties = 13;
    counters->sources_evicted = 14;
    counters->keepalives_sent = 10;
    counters->keepalives_answered = 11;
    counters->keepalives_missed = 12;
    print(world);

    assert_int_equal(value(world, "cliser_refusals_total{code=\"410\"}"), 3);
    assert_int_equal(value(world, "cliser_refusals_total{code=\"408\"}"), 9);
    assert_int_equal(value(world, "cliser_refusals_total{code=\"430\"}"), 6);
    assert_int_equal(value(world, "cliser_refusals_total{code=\"429\"}"), 1);
    assert_int_equal(value(world, "cliser_refusals_total{code=\"450\"}"), 2);
    assert_int_equal(value(world, "cliser_penalties_total"), 13);
    assert_int_equal(value(world, "cliser_sources_evicted_total"), 14);
    assert_int_equal(value(world, "cliser_penalised_sources"), 0);
    assert_int_equal(value(world, "cliser_known_sources"), 0);
    assert_int_equal(value(world, "cliser_refusals_total{code=\"460\"}"), 0);
    assert_int_equal(value(world, "cliser_disconnects_total{reason=\"timed_out\"}"), 5);
    assert_int_equal(value(world, "cliser_disconnects_total{reason=\"operator\"}"), 6);
    assert_int_equal(value(world, "cliser_disconnects_total{reason=\"left\"}"), 8);
    assert_int_equal(value(world, "cliser_handshakes_abandoned_total{reason=\"left\"}"), 7);
    assert_int_equal(value(world, "cliser_handshakes_abandoned_total{reason=\"resources\"}"), 9);
    assert_int_equal(value(world, "cliser_keepalives_sent_total"), 10);
    assert_int_equal(value(world, "cliser_keepalives_answered_total"), 11);
    assert_int_equal(value(world, "cliser_keepalives_missed_total"), 12);
}

static void numbers_of_store_and_control_are_shown(void **state)
{
    struct order_request order = {.grace_ms = 1000, .by = "a test"};
    char message[256];
    struct world *world = *state;
    struct metrics_sources *sources = &world->sources;

    world->store.healthy = false;
    world->store.stats.commits = 21;
    world->store.stats.failures = 22;
    world->store.stats.waiting = 23;
    sources->ready = true;
    sources->log_lines_lost = 24;
    sources->control_connections = 25;
    sources->event_subscribers = 26;
    world->requests[2] = 27;
    world->requests[4] = 28;
    struct registry_record *record = registry_find_or_add(world->registry, "web-1", 5);
    assert_non_null(record);
    record->stored = true;
    assert_int_equal(order_waves_add(&order.waves, "web-*", message, sizeof(message)), 0);
    assert_int_equal(orders_start(sessions_orders(world->sessions), &order, clock_now()), ORDER_OK);
    print(world);

    assert_int_equal(value(world, "cliser_store_healthy"), 0);
    assert_int_equal(value(world, "cliser_store_commits_total"), 21);
    assert_int_equal(value(world, "cliser_store_failures_total"), 22);
    assert_int_equal(value(world, "cliser_store_waiting_changes"), 23);
    assert_int_equal(value(world, "cliser_ready"), 1);
    assert_int_equal(value(world, "cliser_log_lines_dropped_total"), 24);
    assert_int_equal(value(world, "cliser_control_connections"), 25);
    assert_int_equal(value(world, "cliser_event_subscribers"), 26);
    assert_int_equal(value(world, "cliser_control_requests_total{code=\"2xx\"}"), 27);
    assert_int_equal(value(world, "cliser_control_requests_total{code=\"4xx\"}"), 28);
    assert_int_equal(value(world, "cliser_max_clients"), 1000);
    assert_int_equal(value(world, "cliser_build_info{version=\"1.2.3\"}"), 1);
    assert_int_equal(value(world, "cliser_clients{status=\"disconnected\"}"), 1);
    assert_int_equal(value(world, "cliser_shutdown_targets{state=\"pending\"}"), 0);
    assert_int_equal(value(world, "cliser_shutdown_targets{state=\"not_connected\"}"), 1);
}

static void process_is_as_the_system_says(void **state)
{
    struct world *world = *state;
    struct rlimit limit;
    int fds[2];

    print(world);
    const uint64_t open_fds = value(world, "process_open_fds");
    assert_in_range(open_fds, 3, 1000);
    assert_int_equal(pipe(fds), 0);
    print(world);
    if (world->sources.process.other_fds == 0)
        assert_int_equal(value(world, "process_open_fds"), open_fds + 2);
    close(fds[0]);
    close(fds[1]);

    /* An older kernel. */
    world->sources.process.other_fds = 100;
    world->sources.control_connections = 7;
    print(world);
    assert_int_equal(value(world, "process_open_fds"), 107);

    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_true(value(world, "process_max_fds") == limit.rlim_cur);
    const uint64_t resident = value(world, "process_resident_memory_bytes");
    assert_true(resident > 100000);
    assert_true(value(world, "process_virtual_memory_bytes") > resident);
    assert_true(strtod(value_text(world, "process_cpu_seconds_total"), NULL) > 0);
    const double started = strtod(value_text(world, "process_start_time_seconds"), NULL);
    const double now = (double)time(NULL);
    assert_true(started > now - 3600 && started < now + 2);
}

/* ---- a real run ---- */

static void connect_client(struct world *world)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    char *described = server_describe(world->server, "");
    const char *port = strrchr(described, ':');

    assert_non_null(port);
    address.sin_port = htons((uint16_t)strtoul(port + 1, NULL, 10));
    free(described);
    world->client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(world->client, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(send(world->client, world->says, strlen(world->says), MSG_NOSIGNAL),
                     strlen(world->says));
    if (world->starves) {
        struct rlimit none_left = world->fds;
        const int next = dup(world->client);

        assert_true(next > 0);
        close(next);
        none_left.rlim_cur = (rlim_t)next;
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &none_left), 0);
    }
}

/* Listens until it has heard enough; then the server is looked at and ended. */
static void client_on_poll(evutil_socket_t fd, short what, void *user)
{
    static const struct timeval pause = {.tv_usec = 1000};
    struct world *world = user;
    const ssize_t got = recv(world->client, world->heard + world->heard_len,
                             sizeof(world->heard) - 1 - world->heard_len, MSG_DONTWAIT);

    (void)fd;
    (void)what;
    if (got > 0)
        world->heard_len += (size_t)got;
    if (world->starves && server_stats(world->server)->accept_pauses > 0)
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &world->fds), 0);
    if (!strstr(world->heard, world->awaited)) {
        assert_true(++world->polls < PATIENCE_MS);
        event_add(world->poll, &pause);
        return;
    }
    world->sources.ready = server_is_serving(world->server);
    print(world);
    server_stop(world->server);
    server_stop(world->server);
}

static void run_until(struct world *world, const char *says, const char *awaited)
{
    static const struct timeval at_once = {0};

    world->says = says;
    world->awaited = awaited;
    connect_client(world);
    world->poll = evtimer_new(world->base, client_on_poll, world);
    assert_int_equal(event_add(world->poll, &at_once), 0);
    assert_int_equal(server_run(world->server), 0);
    event_free(world->poll);
}

static void connected_client_is_seen_and_not_named(void **state)
{
    struct world *world = *state;

    run_until(world, "secret\nweb-1\n", "140: Connected\r\n");
    assert_int_equal(value(world, "cliser_clients{status=\"connected\"}"), 1);
    assert_int_equal(value(world, "cliser_connections{phase=\"connected\"}"), 1);
    assert_int_equal(value(world, "cliser_connections{phase=\"handshake\"}"), 0);
    assert_int_equal(value(world, "cliser_connections{phase=\"closing\"}"), 0);
    assert_int_equal(value(world, "cliser_connections_room"), 19);
    assert_int_equal(value(world, "cliser_connections_accepted_total"), 1);
    assert_int_equal(value(world, "cliser_received_bytes_total"), 13);
    assert_int_equal(
        value(world, "cliser_credential_logins_total{credential=\"auth\",password=\"1\"}"), 1);
    const uint64_t last = value(world, "cliser_credential_last_login_timestamp_seconds"
                                       "{credential=\"auth\",password=\"1\"}");
    assert_in_range(last, (uint64_t)time(NULL) - 60, (uint64_t)time(NULL));
    assert_int_equal(value(world, "cliser_sent_bytes_total"), world->heard_len);
    assert_int_equal(value(world, "cliser_handshake_duration_seconds_count"), 1);
    assert_true(value(world, "cliser_loop_lag_seconds_count") >= 1);
    assert_int_equal(value(world, "cliser_accept_pauses_total"), 0);
    assert_int_equal(value(world, "cliser_ready"), 1);
    assert_null(strstr(world->text, "web-1"));
    assert_null(strstr(world->text, "127.0.0.1"));

    assert_false(server_is_serving(world->server));
    print(world);
    assert_int_equal(value(world, "cliser_disconnects_total{reason=\"stopped\"}"), 1);
    assert_int_equal(value(world, "cliser_clients{status=\"disconnected\"}"), 1);
    assert_int_equal(value(world, "cliser_connections_room"), 20);
}

static void refused_client_is_closing_while_it_may_read_why(void **state)
{
    struct world *world = *state;

    run_until(world, "wrong\n", "410: wrong password\r\n");
    assert_int_equal(value(world, "cliser_connections{phase=\"closing\"}"), 1);
    assert_int_equal(value(world, "cliser_connections{phase=\"connected\"}"), 0);
    assert_int_equal(value(world, "cliser_connections_room"), 19);
    assert_int_equal(value(world, "cliser_refusals_total{code=\"410\"}"), 1);
    assert_int_equal(value(world, "cliser_handshake_duration_seconds_count"), 0);
    assert_int_equal(
        value(world, "cliser_credential_logins_total{credential=\"auth\",password=\"1\"}"), 0);
}

/* However many there are, the page stays one that can be read. */
static void passwords_are_shown_up_to_a_number(void **state)
{
    struct world *world = *state;
    const struct sessions_options options = *sessions_options(world->sessions);
    struct credentials *credentials = credentials_new();
    char text[32];
    size_t shown = 0;

    assert_int_equal(credentials_begin(credentials, "web", "web-*"), CREDENTIAL_ADDED);
    for (int i = 0; i < 1000; i++) {
        snprintf(text, sizeof(text), "password-%d", i);
        assert_int_equal(credentials_add(credentials, text, strlen(text)), CREDENTIAL_ADDED);
    }
    sessions_reload(world->sessions, &options, credentials, clock_now());
    print(world);
    for (size_t i = 0; i < world->sample_count; i++)
        shown += strcmp(world->samples[i].name, "cliser_credential_logins_total") == 0;
    assert_int_equal(shown, 200);
    assert_int_equal(
        value(world, "cliser_credential_logins_total{credential=\"web\",password=\"200\"}"), 0);
}

static void pause_of_accepting_is_counted(void **state)
{
    struct world *world = *state;

    assert_int_equal(getrlimit(RLIMIT_NOFILE, &world->fds), 0);
    world->starves = true;
    run_until(world, "secret\nweb-1\n", "140: Connected\r\n");
    const uint64_t pauses = value(world, "cliser_accept_pauses_total");
    assert_true(pauses > 0);
    /* The listeners have gone, and what they counted has not. */
    print(world);
    assert_int_equal(value(world, "cliser_accept_pauses_total"), pauses);
}

/* Others' work counts from where they say it began. */
static void turn_lasts_from_the_first_work_in_it(void **state)
{
    struct world *world = *state;
    struct moment now = clock_now();

    now.mono_us -= 15 * CLOCK_US_PER_SEC;
    server_work_begins(world->server, now);
    now.mono_us += CLOCK_US_PER_SEC;
    server_work_begins(world->server, now);
    run_until(world, "secret\nweb-1\n", "140: Connected\r\n");
    assert_int_equal(value(world, "cliser_loop_lag_seconds_count"),
                     value(world, "cliser_loop_lag_seconds_bucket{le=\"10\"}") + 1);
    assert_in_range(strtod(value_text(world, "cliser_loop_lag_seconds_sum"), NULL), 15, 60);
}

static int print_sample(void)
{
    struct world *world = set_up_world();

    if (metrics_print(&world->sources, &world->text, &world->len) != 0)
        return 1;
    fputs(world->text, stdout);
    tear_down_world(world);
    return 0;
}

#define IN_WORLD(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(int argc, char **argv)
{
    static const struct log_options quiet = {.program = "test_metrics", .level = LOG_LEVEL_ERROR};
    const struct CMUnitTest tests[] = {
        IN_WORLD(each_family_has_its_help_and_type_once_and_before_its_samples),
        IN_WORLD(no_series_is_there_twice),
        IN_WORLD(histograms_are_cumulative_and_in_seconds),
        IN_WORLD(codes_and_reasons_are_there_from_the_start),
        IN_WORLD(ends_are_counted_by_code_and_by_reason),
        IN_WORLD(numbers_of_store_and_control_are_shown),
        IN_WORLD(process_is_as_the_system_says),
        IN_WORLD(connected_client_is_seen_and_not_named),
        IN_WORLD(refused_client_is_closing_while_it_may_read_why),
        IN_WORLD(passwords_are_shown_up_to_a_number),
        IN_WORLD(pause_of_accepting_is_counted),
        IN_WORLD(turn_lasts_from_the_first_work_in_it),
    };

    if (hash_init() != 0 || log_open(&quiet) != 0)
        return 1;
    if (argc == 2 && strcmp(argv[1], "--print") == 0)
        return print_sample();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
