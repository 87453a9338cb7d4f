/*
 * cliserd: options, signals, and the order in which everything is built and taken down. Everything
 * that is decided while the server runs is decided elsewhere.
 */
#include "main/daemon.h"

#include "admin/http.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/std_fds.h"
#include "base/units.h"
#include "main/host.h"
#include "main/sandbox.h"
#include "net/conn.h"
#include "net/listener.h"
#include "tls/spare.h"
#include "net/tls.h"
#include "registry/registry.h"
#include "store/store.h"

#include <event2/event.h>
#include <systemd/sd-daemon.h>

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEFAULT_FILE "cliser.ini"
/* Ours, all of which are made at the start: none is a client's. */
#define TIMERS_AT_MOST 32

enum exit_status { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

struct options {
    const char *file;
    bool check_only;
};

static bool parse_options(int argc, char **argv, struct options *options, int *status);
static void print_help(void);
static void print_key(const struct setting *row);
static int open_network(struct daemon *daemon);
static int open_registry(struct daemon *daemon);
static int open_server(struct daemon *daemon);
static int reserve_timers(struct event_base *base);
static int open_control(struct daemon *daemon);
static int open_signals(struct daemon *daemon);
static int start_watchdog(struct daemon *daemon);
static int enter_sandbox(const struct daemon *daemon);
static int start_daily(struct daemon *daemon);
static void say_ready(const struct daemon *daemon);
static void take_down(struct daemon *daemon);
static void main_on_stop(evutil_socket_t signal_number, short what, void *user);
static void main_on_drain(evutil_socket_t signal_number, short what, void *user);
static void main_on_hangup(evutil_socket_t signal_number, short what, void *user);
static void main_on_reload(evutil_socket_t fd, short what, void *user);
static void main_on_watchdog(evutil_socket_t fd, short what, void *user);
static void main_on_day(evutil_socket_t fd, short what, void *user);
static void main_on_event_log(int severity, const char *text);
static void main_on_event_fatal(int error);

int main(int argc, char **argv)
{
    struct options options = {.file = DEFAULT_FILE};
    struct daemon daemon = {.base = NULL};
    struct settings_report report;
    int status = EXIT_FAILED;

    std_fds_fill();
    if (!parse_options(argc, argv, &options, &status))
        return status;
    if (hash_init() != 0) {
        fprintf(stderr, PROGRAM ": the system has no random numbers to give\n");
        return EXIT_FAILED;
    }

    daemon.file = options.file;
    (void)config_load(options.file, &daemon.started, &report);
    config_check_start(&daemon.started, &report);
    if (!settings_report_is_empty(&report)) {
        settings_report_print(&report, PROGRAM);
        status = EXIT_USAGE;
        goto out;
    }
    if (options.check_only) {
        printf("%s: ok\n", options.file);
        status = EXIT_DONE;
        goto out;
    }

    /* A peer that is gone, and a file that may not grow, are errors of a write and no more. */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    /* Not ours yet, and nothing that should end everyone's session. */
    signal(SIGUSR1, SIG_IGN);
    signal(SIGUSR2, SIG_IGN);
    daemon.started.log.program = PROGRAM;
    if (log_open(&daemon.started.log) != 0)
        fprintf(stderr, PROGRAM ": syslog cannot be reached now; its lines are counted as lost\n");

    if (open_network(&daemon) != 0 || open_registry(&daemon) != 0 || open_server(&daemon) != 0 ||
        open_control(&daemon) != 0 || open_signals(&daemon) != 0 || start_watchdog(&daemon) != 0 ||
        start_daily(&daemon) != 0 || enter_sandbox(&daemon) != 0)
        goto out;
    say_ready(&daemon);
    if (server_run(daemon.server) == 0)
        status = EXIT_DONE;
    else
        fprintf(stderr, PROGRAM ": the event loop failed\n");

out:
    settings_report_clear(&report);
    take_down(&daemon);
    return status;
}

/* Returns false when the program ends here, with this status. */
static bool parse_options(int argc, char **argv, struct options *options, int *status)
{
    static const struct option known[] = {
        {"config", required_argument, NULL, 'c'},
        {"test", no_argument, NULL, 't'},
        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'V'},
        {NULL, 0, NULL, 0},
    };
    static char name[] = PROGRAM; /* getopt's messages begin with it, not with a path */
    bool file_given = false;
    int option;

    argv[0] = name;
    while ((option = getopt_long(argc, argv, "c:thV", known, NULL)) != -1) {
        switch (option) {
        case 'c':
            options->file = optarg;
            file_given = true;
            break;
        case 't':
            options->check_only = true;
            break;
        case 'h':
            print_help();
            *status = EXIT_DONE;
            return false;
        case 'V':
            printf(PROGRAM " " CLISER_VERSION "\n");
            *status = EXIT_DONE;
            return false;
        default:
            fprintf(stderr, PROGRAM ": --help shows the options\n");
            *status = EXIT_USAGE;
            return false;
        }
    }
    if (optind < argc && !file_given)
        options->file = argv[optind++];
    if (optind < argc) {
        fprintf(stderr, PROGRAM ": %s is one file too many; give one\n", argv[optind]);
        *status = EXIT_USAGE;
        return false;
    }
    return true;
}

static void print_help(void)
{
    printf("Usage: " PROGRAM " [OPTIONS] [FILE]\n"
           "\n"
           "Keeps clients connected and knows at any moment which of them are there.\n"
           "\n"
           "  FILE, -c, --config FILE  the configuration (" DEFAULT_FILE ")\n"
           "  -t, --test               check the configuration and exit\n"
           "  -h, --help               show this\n"
           "  -V, --version            show the version\n"
           "\n"
           "Signals:\n"
           "  SIGHUP           read the configuration again; a broken one changes nothing\n"
           "  SIGTERM, SIGINT  stop; a second one stops at once\n"
           "  SIGQUIT          take no newcomers, end all sessions over [server] drain, stop\n"
           "\n"
           "Keys of the configuration, with their defaults:\n");
    for (size_t i = 0; i < config_rows; i++) {
        const struct setting *row = &config_table[i];

        if (i == 0 || strcmp(row->section, config_table[i - 1].section) != 0)
            printf("  [%s]\n", row->section);
        print_key(row);
    }
    printf("  [credential NAME]\n");
    for (size_t i = 0; i < config_credential_rows; i++)
        print_key(&config_credential_table[i]);
    printf("\nExit status: 0 done, 1 failed, 2 wrong usage or configuration.\n");
}

static void print_key(const struct setting *row)
{
    printf("  %-17s %s%s%s%s\n", row->key, row->help, row->def ? " (" : "",
           row->def ? row->def : "", row->def ? ")" : "");
}

/* Ports first, while we may still be root; then we are somebody else for good. */
static int open_network(struct daemon *daemon)
{
    const struct config *config = &daemon->started;
    const struct listeners_options options = {
        .addresses = config->listen.items,
        .count = config->listen.count,
        .tls_addresses = config->tls_listen.items,
        .tls_count = config->tls_listen.count,
        .backlog = config->backlog,
        .reuse_port = config->reuse_port,
        .user_timeout_ms = daemon_user_timeout_ms(config),
    };
    char message[256];

    daemon_make_room(daemon, config);
    daemon->listeners = listeners_open(&options, message, sizeof(message));
    if (!daemon->listeners) {
        fprintf(stderr, PROGRAM ": %s\n", message);
        return -1;
    }
    if (config->user && host_become_user(config->user, message, sizeof(message)) != 0) {
        fprintf(stderr, PROGRAM ": %s\n", message);
        return -1;
    }
    return 0;
}

static int open_registry(struct daemon *daemon)
{
    struct config *config = &daemon->started;
    struct credentials *credentials = config_credentials(config);
    char message[512];

    daemon->registry = registry_new();
    if (!daemon->registry || !credentials)
        abort(); /* out of memory while starting */
    const struct sessions_options options = daemon_sessions_options(daemon, config);
    daemon->sessions =
        sessions_new(&options, daemon->registry, credentials, &conn_session_ops, clock_now());
    config->store.node = host_name(daemon->node, sizeof(daemon->node));
    daemon->store = store_open(&config->store, daemon->registry, sessions_on_answer,
                               daemon->sessions, message, sizeof(message));
    if (!daemon->store) {
        fprintf(stderr, PROGRAM ": %s\n", message);
        return -1;
    }
    sessions_set_store(daemon->sessions, daemon->store, clock_now());
    return 0;
}

static int open_server(struct daemon *daemon)
{
    spare_install();
    struct event_config *event_config = event_config_new();
    struct tls *tls = config_take_tls(&daemon->started);
    const struct server_options options = daemon_server_options(daemon, &daemon->started);

    event_set_log_callback(main_on_event_log);
    event_set_fatal_callback(main_on_event_fatal);
    if (event_config) {
        /* The environment must not switch on epoll change lists. */
        (void)event_config_set_flag(event_config, EVENT_BASE_FLAG_IGNORE_ENV);
        daemon->base = event_base_new_with_config(event_config);
        event_config_free(event_config);
    }
    if (daemon->base && reserve_timers(daemon->base) == 0)
        daemon->server = server_new(&options, daemon->base, daemon->listeners, tls,
                                    daemon->sessions, daemon->store);
    if (!daemon->server) {
        tls_free(tls);
        fprintf(stderr, PROGRAM ": cannot set up the event loop\n");
        return -1;
    }
    daemon->listeners = NULL; /* the server's now */
    return 0;
}

/*
 * To set a timer libevent may have to make room for it, and one that finds no memory then is a
 * deadline that never comes. There will not be as many as these, and the room for them stays.
 */
static int reserve_timers(struct event_base *base)
{
    static const struct timeval some_time = {.tv_sec = 3600};
    struct event *timers[TIMERS_AT_MOST] = {NULL};
    int result = 0;

    for (size_t i = 0; i < TIMERS_AT_MOST && result == 0; i++) {
        timers[i] = evtimer_new(base, main_on_watchdog, NULL);
        result = timers[i] ? event_add(timers[i], &some_time) : -1;
    }
    for (size_t i = 0; i < TIMERS_AT_MOST; i++) {
        if (timers[i])
            event_free(timers[i]);
    }
    return result;
}

/* As the user that we have become: the socket is that user's. */
static int open_control(struct daemon *daemon)
{
    struct config *config = &daemon->started;
    const struct http_options options = {.socket = config->control_socket,
                                         .listen = config->control_http};
    struct credentials *tokens = config_tokens(config);
    char message[256];

    if (!tokens)
        abort(); /* out of memory while starting */
    config_forget_passwords(config);
    daemon->admin = (struct admin){
        .registry = daemon->registry,
        .sessions = daemon->sessions,
        .store = daemon->store,
        .server = daemon->server,
        .node = daemon->node,
        .store_kind = store_kind_names[config->store.kind],
        .started_us = clock_monotonic_us(),
        .reload = daemon_reload,
        .user = daemon,
    };
    daemon->http =
        http_new(daemon->base, &daemon->admin, &options, tokens, message, sizeof(message));
    if (!daemon->http) {
        fprintf(stderr, PROGRAM ": [control]: %s\n", message);
        return -1;
    }
    sessions_set_watch(daemon->sessions, http_on_event, daemon->http);
    return 0;
}

static int open_signals(struct daemon *daemon)
{
    static const struct {
        int number;
        event_callback_fn callback;
    } handlers[SIGNAL_COUNT] = {
        [SIGNAL_STOP] = {SIGTERM, main_on_stop},
        [SIGNAL_INTERRUPT] = {SIGINT, main_on_stop},
        [SIGNAL_DRAIN] = {SIGQUIT, main_on_drain},
        [SIGNAL_RELOAD] = {SIGHUP, main_on_hangup},
    };

    daemon->reload = evtimer_new(daemon->base, main_on_reload, daemon);
    if (!daemon->reload)
        abort(); /* out of memory while starting */
    for (int i = 0; i < SIGNAL_COUNT; i++) {
        /* What libevent goes back to when the event is freed: while everything is taken down and
         * committed for the last time, no signal may end us. */
        signal(handlers[i].number, SIG_IGN);
        daemon->signals[i] =
            evsignal_new(daemon->base, handlers[i].number, handlers[i].callback, daemon);
        if (!daemon->signals[i] || event_add(daemon->signals[i], NULL) != 0)
            abort();
    }
    return 0;
}

/* systemd, if it watches over us, wants to hear from the loop at half the time it allows. */
static int start_watchdog(struct daemon *daemon)
{
    uint64_t allowed_us = 0;

    if (sd_watchdog_enabled(0, &allowed_us) <= 0)
        return 0;
    const uint64_t every_us = allowed_us / 2;
    const struct timeval every = {.tv_sec = (time_t)(every_us / CLOCK_US_PER_SEC),
                                  .tv_usec = (suseconds_t)(every_us % CLOCK_US_PER_SEC)};
    daemon->watchdog = event_new(daemon->base, -1, EV_PERSIST, main_on_watchdog, daemon);
    if (!daemon->watchdog || event_add(daemon->watchdog, &every) != 0)
        abort(); /* out of memory while starting */
    return 0;
}

/* Everything is open. What can be given up is given up before the first byte of a client is read.
 */
static int enter_sandbox(const struct daemon *daemon)
{
    struct sandbox sandbox;
    char message[256];

    if (sandbox_enter(daemon->started.seccomp, &sandbox, message, sizeof(message)) != 0) {
        fprintf(stderr, PROGRAM ": %s\n", message);
        return -1;
    }
    log_event(LOG_LEVEL_INFO, "sandbox", LOG_STR("seccomp", sandbox.seccomp),
              LOG_STR("no_new_privs", sandbox.no_new_privs), LOG_NUM("uid", geteuid()),
              LOG_STR("capabilities", sandbox.capabilities));
    if (geteuid() == 0)
        log_event(LOG_LEVEL_WARN, "running_as_root",
                  LOG_STR("mend", "set [server] user, or User= in the unit"));
    if (daemon->started.seccomp && !sandbox.is_filtered)
        log_event(LOG_LEVEL_WARN, "seccomp_unavailable",
                  LOG_STR("text", "this kernel cannot filter system calls; the server goes on"));
    return 0;
}

static int start_daily(struct daemon *daemon)
{
    static const struct timeval day = {.tv_sec = SECONDS_A_DAY};

    daemon->daily = event_new(daemon->base, -1, EV_PERSIST, main_on_day, daemon);
    if (!daemon->daily || event_add(daemon->daily, &day) != 0)
        abort(); /* out of memory while starting */
    return 0;
}

static void say_ready(const struct daemon *daemon)
{
    char *line = server_describe(daemon->server, "ready: ");
    char dead_max[UNITS_TEXT_BYTES];

    units_format_duration(sessions_dead_client_max_ms(&daemon->started.sessions), dead_max);
    log_event(LOG_LEVEL_INFO, "start", LOG_STR("version", CLISER_VERSION),
              LOG_STR("config", daemon->file), LOG_NUM("pid", getpid()),
              LOG_NUM("registered", registry_count(daemon->registry)));
    log_event(LOG_LEVEL_INFO, "keepalive", LOG_STR("dead_client_max", dead_max));
    log_event(LOG_LEVEL_INFO, "control", LOG_STR("socket", daemon->started.control_socket),
              LOG_STR("http", http_address(daemon->http)));
    daemon_warn_of_expiry(daemon);
    daemon_warn_of_shown_passwords(daemon, &daemon->started);
    log_announce("ready", line ? line : "ready");
    free(line);
    (void)sd_notify(0, "READY=1");
}

/* In the opposite order of building; everything may be missing. */
static void take_down(struct daemon *daemon)
{
    for (int i = 0; i < SIGNAL_COUNT; i++) {
        if (daemon->signals[i])
            event_free(daemon->signals[i]);
    }
    if (daemon->reload)
        event_free(daemon->reload);
    if (daemon->watchdog)
        event_free(daemon->watchdog);
    if (daemon->daily)
        event_free(daemon->daily);
    if (daemon->sessions)
        sessions_set_watch(daemon->sessions, NULL, NULL);
    http_free(daemon->http);
    store_close(daemon->store, clock_now());
    if (daemon->server)
        log_event(LOG_LEVEL_INFO, "stopped",
                  LOG_NUM("sessions", sessions_counters(daemon->sessions)->started),
                  LOG_NUM("registered", sessions_counters(daemon->sessions)->registered));
    server_free(daemon->server);
    listeners_close(daemon->listeners);
    sessions_free(daemon->sessions);
    registry_free(daemon->registry);
    if (daemon->base)
        event_base_free(daemon->base);
    libevent_global_shutdown();
    config_clear(&daemon->started);
    log_close();
}

static void main_on_stop(evutil_socket_t signal_number, short what, void *user)
{
    struct daemon *daemon = user;

    (void)what;
    log_event(LOG_LEVEL_INFO, "stopping", LOG_STR("signal", strsignal((int)signal_number)),
              LOG_NUM("clients", sessions_connected(daemon->sessions)));
    (void)sd_notify(0, "STOPPING=1");
    server_stop(daemon->server);
}

static void main_on_drain(evutil_socket_t signal_number, short what, void *user)
{
    struct daemon *daemon = user;

    (void)signal_number;
    (void)what;
    (void)sd_notify(0, "STOPPING=1");
    server_drain(daemon->server);
    log_event(LOG_LEVEL_INFO, "draining", LOG_NUM("clients", sessions_connected(daemon->sessions)));
}

/* libevent calls this once for every signal: only note that there was one. */
static void main_on_hangup(evutil_socket_t signal_number, short what, void *user)
{
    static const struct timeval now = {.tv_sec = 0};
    struct daemon *daemon = user;

    (void)signal_number;
    (void)what;
    (void)event_add(daemon->reload, &now);
}

static void main_on_reload(evutil_socket_t fd, short what, void *user)
{
    (void)fd;
    (void)what;
    (void)daemon_reload(user, NULL, NULL);
}

static void main_on_watchdog(evutil_socket_t fd, short what, void *user)
{
    (void)fd;
    (void)what;
    (void)user;
    (void)sd_notify(0, "WATCHDOG=1");
}

static void main_on_day(evutil_socket_t fd, short what, void *user)
{
    (void)fd;
    (void)what;
    daemon_warn_of_expiry(user);
}

static void main_on_event_log(int severity, const char *text)
{
    static struct log_limit limit;

    if (severity >= EVENT_LOG_WARN && log_limit_allows(&limit, clock_monotonic_us()))
        log_event(LOG_LEVEL_WARN, "libevent", LOG_STR("text", text));
}

/* libevent cannot go on. What was registered is in the store, so a fresh start knows it. */
static void main_on_event_fatal(int error)
{
    log_event(LOG_LEVEL_ERROR, "libevent_fatal", LOG_NUM("error", error));
    abort();
}
