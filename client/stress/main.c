/*
 * cliser-stress: opens many clients, holds them, and reports what became of each. Puts the modules
 * together: options, what this host can reach, the run, the report. The exit status is decided
 * here.
 */
#include "base/clock.h"
#include "base/std_fds.h"
#include "endpoint.h"
#include "fleet.h"
#include "live.h"
#include "options.h"
#include "preflight.h"
#include "report.h"
#include "server_usage.h"
#include "sources.h"
#include "tally.h"
#include "terminal.h"
#include "tls/spare.h"

#include <event2/event.h>

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/resource.h>

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_OUT_OF_REACH = 3 };

/* Everything that one run needs; zeroed is nothing yet. */
struct run {
    struct stress_options options;
    struct address server;
    struct sources sources;
    struct tls_client *tls;
    struct fleet_options fleet_options;
    FILE *json;
    struct tally *tally;
    struct event_base *base;
    struct event *signals[2];
    struct fleet *fleet;
    struct report_server usage;
    char usage_why_not[128];
};

static int prepare(struct run *run);
static int find_server(struct run *run);
static int prepare_tls(struct run *run, const struct endpoint *endpoint);
static int take_tls_file(struct run *run, const char *option, enum tls_client_file which,
                         const char *path);
static int choose_sources(struct run *run);
static int check_reach(const struct run *run);
static int open_json(struct run *run);
static int build(struct run *run);
static struct event_base *make_base(void);
static int run_to_end(struct run *run);
static void clear(struct run *run);
static void on_phase(void *arg, enum fleet_phase phase);
static void main_on_signal(evutil_socket_t number, short what, void *arg);
static int report_all(struct run *run, const struct fleet_progress *progress, bool ok);
static uint64_t microseconds(const struct timeval *time);
static void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

int main(int argc, char **argv)
{
    struct run run = {0};
    int status = EXIT_FAILED;

    std_fds_fill();
    spare_install();
    switch (options_parse(argc, argv, &run.options)) {
    case OPTIONS_DONE:
        return EXIT_DONE;
    case OPTIONS_WRONG:
        return EXIT_USAGE;
    case OPTIONS_RUN:
        break;
    }

    /* A bufferevent writes without MSG_NOSIGNAL. */
    signal(SIGPIPE, SIG_IGN);
    status = prepare(&run);
    if (status == EXIT_DONE)
        status = build(&run);
    if (status == EXIT_DONE)
        status = run_to_end(&run);
    clear(&run);
    return status;
}

/* Everything that can be found out without opening a connection. */
static int prepare(struct run *run)
{
    int status = find_server(run);

    if (status == EXIT_DONE)
        status = choose_sources(run);
    if (status != EXIT_DONE)
        return status;
    run->fleet_options = (struct fleet_options){
        .plan = {.clients = run->options.clients,
                 .rate = run->options.rate,
                 .inflight = run->options.inflight,
                 .silent = run->options.silent},
        .server = &run->server,
        .sources = &run->sources,
        .tls = run->tls,
        .password = run->options.password,
        .id_prefix = run->options.id_prefix,
        .hold_us = run->options.hold_ms * CLOCK_US_PER_MS,
        .timeout_us = run->options.timeout_ms * CLOCK_US_PER_MS,
        .churn = run->options.churn,
    };
    status = check_reach(run);
    return status == EXIT_DONE ? open_json(run) : status;
}

/* One address, because a measurement has one subject: of a name the first of IPv4, or else the
 * first. */
static int find_server(struct run *run)
{
    struct endpoint endpoint;
    struct endpoint_addresses found;
    char message[256];

    if (endpoint_parse(run->options.server, &endpoint, message, sizeof(message)) < 0) {
        complain("--server: %s", message);
        return EXIT_USAGE;
    }
    const char *failure = endpoint_resolve(&endpoint, &found);
    if (failure) {
        complain("--server: %s: %s", endpoint.host, failure);
        return EXIT_FAILED;
    }
    run->server = found.items[0];
    for (size_t i = found.count; i-- > 0;) {
        if (found.items[i].storage.ss_family == AF_INET)
            run->server = found.items[i];
    }
    return run->options.tls ? prepare_tls(run, &endpoint) : EXIT_DONE;
}

static int prepare_tls(struct run *run, const struct endpoint *endpoint)
{
    const struct stress_options *options = &run->options;

    if (endpoint->host[0] == '\0') {
        complain("--tls: needs HOST:PORT; no certificate is for a unix socket");
        return EXIT_USAGE;
    }
    run->tls = tls_client_new(endpoint->host);
    if (!run->tls) {
        complain("--tls: not enough memory");
        return EXIT_FAILED;
    }
    if (options->insecure)
        tls_client_trust_anybody(run->tls);
    if (take_tls_file(run, "ca", TLS_CLIENT_CA, options->ca) != 0 ||
        take_tls_file(run, "cert", TLS_CLIENT_CERT, options->cert) != 0 ||
        take_tls_file(run, "key", TLS_CLIENT_KEY, options->key) != 0)
        return EXIT_USAGE;
    return EXIT_DONE;
}

/* path NULL: not asked for. */
static int take_tls_file(struct run *run, const char *option, enum tls_client_file which,
                         const char *path)
{
    char message[512];

    if (!path || tls_client_take_file(run->tls, which, path, message, sizeof(message)) == 0)
        return 0;
    complain("--%s: %s", option, message);
    return -1;
}

static int choose_sources(struct run *run)
{
    if (run->options.sources.count == 0) {
        sources_choose(&run->sources, &run->server, run->options.clients);
        return EXIT_DONE;
    }
    run->sources = run->options.sources;
    if (run->sources.family == run->server.storage.ss_family)
        return EXIT_DONE;
    complain("--sources: not addresses of the kind that --server has");
    return EXIT_USAGE;
}

static int check_reach(const struct run *run)
{
    struct preflight_shortage shortages[PREFLIGHT_SHORTAGES_MAX];
    const struct preflight_demand demand = {
        .server = &run->server,
        .sources = &run->sources,
        .connects = run->options.clients,
        .at_once = fleet_size(&run->fleet_options),
        .rate = run->options.rate,
        .tls = run->options.tls,
    };
    const size_t count = preflight_check(&demand, shortages);

    for (size_t i = 0; i < count; i++)
        complain("out of reach: %s", shortages[i].text);
    return count == 0 ? EXIT_DONE : EXIT_OUT_OF_REACH;
}

/* Opened before the run: a report that cannot be written should not be found out afterwards. */
static int open_json(struct run *run)
{
    const char *path = run->options.json_path;

    if (!path)
        return EXIT_DONE;
    run->json = strcmp(path, "-") == 0 ? stdout : fopen(path, "we");
    if (run->json)
        return EXIT_DONE;
    complain("--json: %s: %s", path, strerror(errno));
    return EXIT_FAILED;
}

static int build(struct run *run)
{
    run->tally = calloc(1, sizeof(*run->tally));
    run->base = make_base();
    if (!run->tally || !run->base)
        goto no_memory;

    run->fleet = fleet_new(run->base, &run->fleet_options, run->tally, on_phase, run);
    run->signals[0] = evsignal_new(run->base, SIGINT, main_on_signal, run->fleet);
    run->signals[1] = evsignal_new(run->base, SIGTERM, main_on_signal, run->fleet);
    if (!run->fleet || !run->signals[0] || !run->signals[1] ||
        event_add(run->signals[0], NULL) != 0 || event_add(run->signals[1], NULL) != 0)
        goto no_memory;

    run->usage.why_not = run->usage_why_not;
    run->usage.pid =
        server_usage_find(&run->server, run->usage_why_not, sizeof(run->usage_why_not));
    return EXIT_DONE;

no_memory:
    complain("not enough memory for %" PRIu64 " clients", run->options.clients);
    return EXIT_FAILED;
}

/* Due times are finer than the millisecond that libevent's timers have by default. */
static struct event_base *make_base(void)
{
    struct event_config *config = event_config_new();
    struct event_base *base = NULL;

    if (!config)
        return NULL;
    if (event_config_set_flag(config, EVENT_BASE_FLAG_PRECISE_TIMER) == 0 &&
        event_config_set_flag(config, EVENT_BASE_FLAG_IGNORE_ENV) == 0)
        base = event_base_new_with_config(config);
    event_config_free(config);
    return base;
}

static int run_to_end(struct run *run)
{
    const struct live_options live_options = {
        .fleet = run->fleet,
        .tally = run->tally,
        .clients = run->options.clients,
        .churn = run->options.churn,
    };
    struct live *live = live_new(run->base, &live_options);
    struct fleet_progress progress;

    const int loop = fleet_run(run->fleet);
    live_free(live);
    fleet_progress(run->fleet, &progress);

    /* Checked in every build: a report that does not add up is worth nothing. */
    const uint64_t sum = tally_sum(run->tally);
    if (sum != run->options.clients)
        complain("bug: %" PRIu64 " clients are accounted for, not %" PRIu64, sum,
                 run->options.clients);
    if (loop < 0)
        complain("the event loop failed");

    const bool ok = loop == 0 && sum == run->options.clients && tally_failures(run->tally) == 0;
    if (report_all(run, &progress, ok) < 0)
        return EXIT_FAILED;
    return ok ? EXIT_DONE : EXIT_FAILED;
}

static void clear(struct run *run)
{
    fleet_free(run->fleet);
    tls_client_free(run->tls);
    for (size_t i = 0; i < sizeof(run->signals) / sizeof(run->signals[0]); i++) {
        if (run->signals[i])
            event_free(run->signals[i]);
    }
    if (run->base)
        event_base_free(run->base);
    if (run->json && run->json != stdout)
        fclose(run->json);
    free(run->tally);
}

/* The server is measured at the seams of the run. If it cannot be read any more, it is left out. */
static void on_phase(void *arg, enum fleet_phase phase)
{
    struct run *run = arg;
    struct report_server *usage = &run->usage;
    struct server_usage *reading = &usage->after;

    if (usage->pid == 0)
        return;
    if (phase == FLEET_CONNECTING)
        reading = &usage->before;
    else if (phase == FLEET_HOLDING)
        reading = &usage->while_held;

    if (server_usage_read(usage->pid, reading) < 0) {
        usage->pid = 0;
        snprintf(run->usage_why_not, sizeof(run->usage_why_not), "its process went away");
    } else if (phase == FLEET_HOLDING) {
        usage->held = true;
    }
}

static void main_on_signal(evutil_socket_t number, short what, void *arg)
{
    (void)number;
    (void)what;
    fleet_interrupt(arg);
}

static int report_all(struct run *run, const struct fleet_progress *progress, bool ok)
{
    char server[ADDRESS_TEXT_BYTES];
    char sources[SOURCES_TEXT_BYTES];
    struct rusage resources;
    const bool json_on_stdout = run->json == stdout;

    getrusage(RUSAGE_SELF, &resources);
    const struct report report = {
        .options = &run->options,
        .server = address_format(&run->server, server),
        .sources = run->sources.count > 0 ? sources_format(&run->sources, sources) : NULL,
        .progress = progress,
        .tally = run->tally,
        .usage = run->usage,
        .own_cpu_us = microseconds(&resources.ru_utime) + microseconds(&resources.ru_stime),
        .own_rss_bytes = (uint64_t)resources.ru_maxrss * 1024,
        .ok = ok,
    };

    report_print(&report, json_on_stdout ? stderr : stdout,
                 terminal_colours(json_on_stdout ? STDERR_FILENO : STDOUT_FILENO));
    if (run->json && report_write_json(&report, run->json) < 0) {
        complain("--json: %s: %s", run->options.json_path, strerror(errno));
        return -1;
    }
    return 0;
}

static uint64_t microseconds(const struct timeval *time)
{
    return (uint64_t)time->tv_sec * CLOCK_US_PER_SEC + (uint64_t)time->tv_usec;
}

static void complain(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fprintf(stderr, "cliser-stress: ");
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
}
