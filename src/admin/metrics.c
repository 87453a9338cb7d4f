/*
 * The table of metrics, and how each kind of them is printed. Counts nothing itself: the modules
 * do. docs/operations.md says what each is good for.
 */
#include "admin/metrics.h"

#include "base/duration_histogram.h"
#include "base/text.h"
#include "cliser/proto.h"
#include "net/server.h"
#include "registry/reason.h"
#include "registry/registry.h"
#include "session/order.h"
#include "session/session.h"
#include "store/store.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define US_PER_S   1000000
#define MS_PER_S   1000

#define TEXT_BYTES 32

/* Passwords that are shown one by one: the first ones of the configuration. More would make a page
 * that nobody reads, and hold the loop up for it. */
#define PASSWORDS_SHOWN 200

/* All that was asked for once, so that a line costs no more than its printing. */
struct view {
    const struct metrics_sources *sources;
    const struct sessions_counters *sessions;
    const struct server_stats *server;
    const struct store_stats *store;
    struct process_info process;
};

enum metric_type { COUNTER, GAUGE, HISTOGRAM };

/* The struct in which a number or a histogram is found. */
enum origin { ELSEWHERE, SOURCES, SESSIONS, SERVER, STORE, PROCESS };

struct metric;
typedef void print_fn(struct text *out, const struct metric *metric, const struct view *view);

struct metric {
    const char *name;
    enum metric_type type;
    print_fn *print;
    enum origin origin;
    size_t offset;
    const char *help;
};

static print_fn print_number, print_histogram, print_clients, print_connections, print_refusals,
    print_disconnects, print_abandoned, print_healthy, print_targets, print_requests, print_ready,
    print_build, print_cpu, print_start, print_tls_handshakes, print_tls_expiry, print_logins,
    print_last_logins, print_penalised, print_sources;

#define FROM_SOURCES(member)  SOURCES, offsetof(struct metrics_sources, member)
#define FROM_SESSIONS(member) SESSIONS, offsetof(struct sessions_counters, member)
#define FROM_SERVER(member)   SERVER, offsetof(struct server_stats, member)
#define FROM_STORE(member)    STORE, offsetof(struct store_stats, member)
#define FROM_PROCESS(member)  PROCESS, offsetof(struct process_info, member)
#define FROM_ITS_PRINTER      ELSEWHERE, 0

/* clang-format off */
static const struct metric metrics[] = {
    {"cliser_clients", GAUGE, print_clients, FROM_ITS_PRINTER,
     "Clients that are known, by whether they are connected."},
    {"cliser_max_clients", GAUGE, print_number, FROM_SOURCES(max_clients),
     "Clients that may be connected at the same time."},
    {"cliser_connections", GAUGE, print_connections, FROM_ITS_PRINTER,
     "Open connections of clients, by phase."},
    {"cliser_connections_room", GAUGE, print_number, FROM_SERVER(room),
     "Connections for which there are descriptors left."},
    {"cliser_connections_accepted_total", COUNTER, print_number, FROM_SERVER(accepted),
     "Connections accepted."},
    {"cliser_accept_pauses_total", COUNTER, print_number, FROM_SERVER(accept_pauses),
     "Pauses of accepting, for want of descriptors or memory."},
    {"cliser_received_bytes_total", COUNTER, print_number, FROM_SERVER(received_bytes),
     "Bytes received from clients."},
    {"cliser_sent_bytes_total", COUNTER, print_number, FROM_SERVER(sent_bytes),
     "Bytes sent to clients."},

    {"cliser_handshake_duration_seconds", HISTOGRAM, print_histogram, FROM_SESSIONS(handshakes),
     "Time from accepting a client to its 140."},
    {"cliser_handshakes_abandoned_total", COUNTER, print_abandoned, FROM_ITS_PRINTER,
     "Connections that ended before 140 without a refusal, by reason."},
    {"cliser_refusals_total", COUNTER, print_refusals, FROM_ITS_PRINTER,
     "Connections that were refused or ended with a 4xx, by code."},
    {"cliser_credential_logins_total", COUNTER, print_logins, FROM_ITS_PRINTER,
     "Clients that gave this password since the last reload."},
    {"cliser_credential_last_login_timestamp_seconds", GAUGE, print_last_logins, FROM_ITS_PRINTER,
     "When the last of them did, in Unix seconds; 0 if none has."},
    {"cliser_penalties_total", COUNTER, print_number, FROM_SESSIONS(penalties),
     "Penalties that sources have earned by wrong passwords."},
    {"cliser_penalised_sources", GAUGE, print_penalised, FROM_ITS_PRINTER,
     "Sources that are refused because of wrong passwords."},
    {"cliser_known_sources", GAUGE, print_sources, FROM_ITS_PRINTER,
     "Sources of which wrong passwords or connections are counted."},
    {"cliser_sources_evicted_total", COUNTER, print_number, FROM_SESSIONS(sources_evicted),
     "Sources whose wrong passwords were forgotten early, because there were too many."},
    {"cliser_disconnects_total", COUNTER, print_disconnects, FROM_ITS_PRINTER,
     "Connections that ended after 140, by reason."},

    {"cliser_tls_connections", GAUGE, print_number, FROM_SERVER(tls.open),
     "Open connections of clients that speak TLS, or are about to."},
    {"cliser_tls_handshakes_total", COUNTER, print_tls_handshakes, FROM_ITS_PRINTER,
     "TLS handshakes, by what has become of them."},
    {"cliser_tls_handshake_work_seconds", HISTOGRAM, print_histogram, FROM_SERVER(tls.work),
     "Time that the server was busy with a TLS handshake that came to its end."},
    {"cliser_tls_certificate_expiry_timestamp_seconds", GAUGE, print_tls_expiry, FROM_ITS_PRINTER,
     "When the certificate for clients ends, in Unix seconds; nothing without one."},

    {"cliser_keepalives_sent_total", COUNTER, print_number, FROM_SESSIONS(keepalives_sent),
     "Keep-alives sent."},
    {"cliser_keepalives_answered_total", COUNTER, print_number, FROM_SESSIONS(keepalives_answered),
     "Answers to keep-alives."},
    {"cliser_keepalives_missed_total", COUNTER, print_number, FROM_SESSIONS(keepalives_missed),
     "Keep-alives that had no answer when the next one was due."},
    {"cliser_keepalive_rtt_seconds", HISTOGRAM, print_histogram, FROM_SESSIONS(keepalives),
     "Time from a keep-alive to its answer."},

    {"cliser_loop_lag_seconds", HISTOGRAM, print_histogram, FROM_SERVER(turns),
     "Time that a turn of the event loop took, and that who spoke in it waited at most."},

    {"cliser_store_healthy", GAUGE, print_healthy, FROM_ITS_PRINTER,
     "Whether the registry could be written the last time."},
    {"cliser_store_commits_total", COUNTER, print_number, FROM_STORE(commits),
     "Transactions that wrote the registry."},
    {"cliser_store_failures_total", COUNTER, print_number, FROM_STORE(failures),
     "Attempts to write the registry that failed."},
    {"cliser_store_set_aside_total", COUNTER, print_number, FROM_STORE(set_aside),
     "Damaged registries that an empty one took the place of."},
    {"cliser_store_waiting_changes", GAUGE, print_number, FROM_STORE(waiting),
     "Changes that are not written yet."},
    {"cliser_store_commit_duration_seconds", HISTOGRAM, print_histogram, FROM_STORE(commit),
     "Time that a transaction took."},
    {"cliser_store_checkpoint_duration_seconds", HISTOGRAM, print_histogram, FROM_STORE(checkpoint),
     "Time that a checkpoint of the database took."},

    {"cliser_shutdown_targets", GAUGE, print_targets, FROM_ITS_PRINTER,
     "Clients that the shutdown order under way, or the last one, is about, by state."},

    {"cliser_control_connections", GAUGE, print_number, FROM_SOURCES(control_connections),
     "Open connections to the control API."},
    {"cliser_control_requests_total", COUNTER, print_requests, FROM_ITS_PRINTER,
     "Requests to the control API that were answered, by class of status."},
    {"cliser_event_subscribers", GAUGE, print_number, FROM_SOURCES(event_subscribers),
     "Open event streams."},
    {"cliser_log_lines_dropped_total", COUNTER, print_number, FROM_SOURCES(log_lines_lost),
     "Lines of the log that nobody took."},

    {"cliser_ready", GAUGE, print_ready, FROM_ITS_PRINTER,
     "Whether clients can be registered."},
    {"cliser_build_info", GAUGE, print_build, FROM_ITS_PRINTER,
     "Always 1; its label says which cliserd this is."},

    {"process_cpu_seconds_total", COUNTER, print_cpu, FROM_ITS_PRINTER,
     "Processor time of user and system."},
    {"process_resident_memory_bytes", GAUGE, print_number, FROM_PROCESS(resident_bytes),
     "Memory that is in RAM."},
    {"process_virtual_memory_bytes", GAUGE, print_number, FROM_PROCESS(virtual_bytes),
     "Address space in use."},
    {"process_open_fds", GAUGE, print_number, FROM_PROCESS(open_fds),
     "Open descriptors."},
    {"process_max_fds", GAUGE, print_number, FROM_PROCESS(max_fds),
     "Descriptors that may be open."},
    {"process_start_time_seconds", GAUGE, print_start, FROM_ITS_PRINTER,
     "When the process started, in Unix seconds."},
};

static const char *const type_names[] = {
    [COUNTER] = "counter", [GAUGE] = "gauge", [HISTOGRAM] = "histogram",
};
/* clang-format on */

static struct view look(const struct metrics_sources *sources);
static const void *find(const struct metric *metric, const struct view *view);
static void print_labelled(struct text *out, const struct metric *metric, const char *label,
                           const char *value, uint64_t number);
static void print_password(struct text *out, const struct metric *metric,
                           struct credential_match who, uint64_t number);
static void print_flag(struct text *out, const struct metric *metric, bool is_set);
static uint64_t refusals_with(const struct sessions_counters *counters, int code);
static bool is_abandoned(enum reason reason);
static const char *seconds_text(uint64_t units, uint64_t units_per_s, char *buf);

int metrics_print(const struct metrics_sources *sources, char **text, size_t *len)
{
    const struct view view = look(sources);
    struct text out = {.bytes = NULL};

    for (size_t i = 0; i < sizeof(metrics) / sizeof(metrics[0]); i++) {
        const struct metric *metric = &metrics[i];

        text_add(&out, "# HELP %s %s\n# TYPE %s %s\n", metric->name, metric->help, metric->name,
                 type_names[metric->type]);
        metric->print(&out, metric, &view);
    }
    *text = text_take(&out, len);
    return *text ? 0 : -1;
}

static struct view look(const struct metrics_sources *sources)
{
    struct view view = {
        .sources = sources,
        .sessions = sessions_counters(sources->sessions),
        .server = server_stats(sources->server),
        .store = store_stats(sources->store),
    };
    const struct server_stats *server = view.server;

    process_info_read(&view.process, &sources->process,
                      server->pending + server->connected + server->leaving + server->closing +
                          sources->control_connections);
    return view;
}

static const void *find(const struct metric *metric, const struct view *view)
{
    const void *const origins[] = {
        [ELSEWHERE] = NULL,      [SOURCES] = view->sources, [SESSIONS] = view->sessions,
        [SERVER] = view->server, [STORE] = view->store,     [PROCESS] = &view->process,
    };

    return (const char *)origins[metric->origin] + metric->offset;
}

static void print_number(struct text *out, const struct metric *metric, const struct view *view)
{
    const uint64_t *number = find(metric, view);

    text_add(out, "%s %" PRIu64 "\n", metric->name, *number);
}

/* Prometheus wants each bucket to count the shorter ones as well. */
static void print_histogram(struct text *out, const struct metric *metric, const struct view *view)
{
    const struct duration_histogram *histogram = find(metric, view);
    char buf[TEXT_BYTES];
    uint64_t count = 0;

    for (int i = 0; i < DURATION_BUCKETS; i++) {
        count += histogram->counts[i];
        text_add(out, "%s_bucket{le=\"%s\"} %" PRIu64 "\n", metric->name,
                 seconds_text(duration_bounds_us[i], US_PER_S, buf), count);
    }
    text_add(out, "%s_bucket{le=\"+Inf\"} %" PRIu64 "\n", metric->name, histogram->total);
    text_add(out, "%s_sum %s\n", metric->name, seconds_text(histogram->sum_us, US_PER_S, buf));
    text_add(out, "%s_count %" PRIu64 "\n", metric->name, histogram->total);
}

static void print_clients(struct text *out, const struct metric *metric, const struct view *view)
{
    const uint64_t connected = registry_connected(view->sources->registry);
    const uint64_t known = registry_count(view->sources->registry);

    print_labelled(out, metric, "status", "connected", connected);
    print_labelled(out, metric, "status", "disconnected", known - connected);
}

static void print_connections(struct text *out, const struct metric *metric,
                              const struct view *view)
{
    print_labelled(out, metric, "phase", "handshake", view->server->pending);
    print_labelled(out, metric, "phase", "connected", view->server->connected);
    print_labelled(out, metric, "phase", "leaving", view->server->leaving);
    print_labelled(out, metric, "phase", "closing", view->server->closing);
}

static void print_refusals(struct text *out, const struct metric *metric, const struct view *view)
{
    const struct proto_code_info *info;
    char code[TEXT_BYTES];

    for (size_t i = 0; (info = proto_code_at(i)) != NULL; i++) {
        if (info->retry == PROTO_RETRY_NONE)
            continue;
        snprintf(code, sizeof(code), "%d", (int)info->code);
        print_labelled(out, metric, "code", code, refusals_with(view->sessions, (int)info->code));
    }
}

static void print_penalised(struct text *out, const struct metric *metric, const struct view *view)
{
    text_add(out, "%s %zu\n", metric->name, sessions_penalised_sources(view->sources->sessions));
}

static void print_sources(struct text *out, const struct metric *metric, const struct view *view)
{
    text_add(out, "%s %zu\n", metric->name, sessions_known_sources(view->sources->sessions));
}

static void print_disconnects(struct text *out, const struct metric *metric,
                              const struct view *view)
{
    for (int i = REASON_NONE + 1; i < REASON_COUNT; i++)
        print_labelled(out, metric, "reason", reason_word((enum reason)i),
                       view->sessions->ended[i]);
}

static void print_abandoned(struct text *out, const struct metric *metric, const struct view *view)
{
    for (int i = REASON_NONE + 1; i < REASON_COUNT; i++) {
        if (!is_abandoned((enum reason)i))
            continue;
        const uint64_t told = i == REASON_RESOURCES ? view->sessions->turned_away : 0;
        print_labelled(out, metric, "reason", reason_word((enum reason)i),
                       view->sessions->refused[i] - told);
    }
}

static void print_tls_handshakes(struct text *out, const struct metric *metric,
                                 const struct view *view)
{
    const struct conn_tls_stats *tls = &view->server->tls;

    print_labelled(out, metric, "result", "full", tls->full);
    print_labelled(out, metric, "result", "resumed", tls->resumed);
    print_labelled(out, metric, "result", "failed", tls->failed);
    print_labelled(out, metric, "result", "abandoned", tls->abandoned);
}

static void print_tls_expiry(struct text *out, const struct metric *metric, const struct view *view)
{
    if (view->server->tls_expires != 0)
        text_add(out, "%s %" PRId64 "\n", metric->name, view->server->tls_expires);
}

static void print_logins(struct text *out, const struct metric *metric, const struct view *view)
{
    const struct credentials *credentials = sessions_credentials(view->sources->sessions);
    struct credential_use use;

    for (size_t i = 0; i < PASSWORDS_SHOWN && credentials_use(credentials, i, &use); i++)
        print_password(out, metric, use.who, use.logins);
}

static void print_last_logins(struct text *out, const struct metric *metric,
                              const struct view *view)
{
    const struct credentials *credentials = sessions_credentials(view->sources->sessions);
    struct credential_use use;

    for (size_t i = 0; i < PASSWORDS_SHOWN && credentials_use(credentials, i, &use); i++)
        print_password(out, metric, use.who, (uint64_t)use.last);
}

static void print_healthy(struct text *out, const struct metric *metric, const struct view *view)
{
    print_flag(out, metric, store_healthy(view->sources->store));
}

static void print_targets(struct text *out, const struct metric *metric, const struct view *view)
{
    size_t counts[ORDER_TARGET_COUNT];

    orders_count_targets(sessions_orders(view->sources->sessions), counts);
    for (int i = ORDER_TARGET_NONE + 1; i < ORDER_TARGET_COUNT; i++)
        print_labelled(out, metric, "state", order_target_words[i], counts[i]);
}

static void print_requests(struct text *out, const struct metric *metric, const struct view *view)
{
    char class[TEXT_BYTES];

    /* There is no answer below 200. */
    for (int i = 2; i < METRICS_STATUS_CLASSES; i++) {
        snprintf(class, sizeof(class), "%dxx", i);
        print_labelled(out, metric, "code", class, view->sources->control_requests[i]);
    }
}

static void print_ready(struct text *out, const struct metric *metric, const struct view *view)
{
    print_flag(out, metric, view->sources->ready);
}

static void print_build(struct text *out, const struct metric *metric, const struct view *view)
{
    print_labelled(out, metric, "version", view->sources->version, 1);
}

static void print_cpu(struct text *out, const struct metric *metric, const struct view *view)
{
    char buf[TEXT_BYTES];

    text_add(out, "%s %s\n", metric->name, seconds_text(view->process.cpu_us, US_PER_S, buf));
}

static void print_start(struct text *out, const struct metric *metric, const struct view *view)
{
    char buf[TEXT_BYTES];

    text_add(out, "%s %s\n", metric->name,
             seconds_text(view->sources->process.time_ms, MS_PER_S, buf));
}

static void print_password(struct text *out, const struct metric *metric,
                           struct credential_match who, uint64_t number)
{
    text_add(out, "%s{credential=\"%s\",password=\"%u\"} %" PRIu64 "\n", metric->name,
             credential_name(who.credential), (unsigned)who.password, number);
}

/* No value of ours needs escaping: they are words from tables, names that are like IDs, and the
 * version. */
static void print_labelled(struct text *out, const struct metric *metric, const char *label,
                           const char *value, uint64_t number)
{
    text_add(out, "%s{%s=\"%s\"} %" PRIu64 "\n", metric->name, label, value, number);
}

static void print_flag(struct text *out, const struct metric *metric, bool is_set)
{
    text_add(out, "%s %d\n", metric->name, is_set);
}

/* A code that no reason has yet is not sent yet. */
static uint64_t refusals_with(const struct sessions_counters *counters, int code)
{
    uint64_t count = code == PROTO_SERVER_FULL ? counters->turned_away : 0;

    for (int i = 0; i < REASON_COUNT; i++) {
        if (reason_refusal((enum reason)i) == code)
            count += counters->ended[i] + counters->refused[i];
    }
    return count;
}

/* Can a connection end for this reason before 140, and without a refusal? */
static bool is_abandoned(enum reason reason)
{
    return reason_refusal(reason) == 0 && reason != REASON_SHUTDOWN && reason != REASON_CRASH;
}

/* By hand, since printf() asks the locale what a decimal point is: 1.25, 0.00001, 10. */
static const char *seconds_text(uint64_t units, uint64_t units_per_s, char *buf)
{
    uint64_t rest = units % units_per_s;
    int len = snprintf(buf, TEXT_BYTES, "%" PRIu64, units / units_per_s);

    if (rest > 0)
        buf[len++] = '.';
    for (; rest > 0; rest %= units_per_s) {
        rest *= 10;
        buf[len++] = (char)('0' + rest / units_per_s);
    }
    buf[len] = '\0';
    return buf;
}
