/*
 * Reads the configuration again while the server runs. All or nothing: nothing is touched before
 * everything new has been read and checked, and from then on nothing can fail.
 */
#include "main/daemon.h"

#include "admin/http.h"
#include "base/log.h"
#include "registry/credential.h"

#include <systemd/sd-daemon.h>

#include <inttypes.h>
#include <stdio.h>

/* Who is told how a reload went, beside the log: an operator who asked for it. */
struct listener_to_reload {
    admin_line_fn *say; /* or NULL */
    void *user;
};

static bool reload_file(struct daemon *daemon, const struct listener_to_reload *listener);
static void apply(struct daemon *daemon, struct config *wanted, struct credentials *credentials,
                  struct credentials *tokens);
static void report_failed_reload(const struct settings_report *report,
                                 const struct listener_to_reload *listener);
static void report_failure(const char *error, const struct listener_to_reload *listener);
static void warn_of_restart(const struct config *started, const struct config *wanted,
                            const struct listener_to_reload *listener);

bool daemon_reload(void *user, admin_line_fn *say, void *say_user)
{
    const struct listener_to_reload listener = {.say = say, .user = say_user};
    struct daemon *daemon = user;

    (void)sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64, clock_monotonic_us());
    const bool done = reload_file(daemon, &listener);
    if (done)
        log_event(LOG_LEVEL_INFO, "reloaded", LOG_STR("config", daemon->file));
    (void)sd_notify(0, "READY=1");
    return done;
}

static bool reload_file(struct daemon *daemon, const struct listener_to_reload *listener)
{
    struct config wanted;
    struct settings_report report;
    struct credentials *credentials = NULL;
    struct credentials *tokens = NULL;
    bool done = false;

    if (config_load(daemon->file, &wanted, &report) != 0) {
        report_failed_reload(&report, listener);
        goto out;
    }
    /* Where we really listen is what the start said, whatever the file says now. */
    if (config_exposes_shipped_password(&wanted, &daemon->started.listen, &report) ||
        config_exposes_shipped_password(&wanted, &daemon->started.tls_listen, &report)) {
        report_failed_reload(&report, listener);
        goto out;
    }
    credentials = config_credentials(&wanted);
    tokens = config_tokens(&wanted);
    if (!credentials || !tokens) {
        report.out_of_memory = true;
        report_failed_reload(&report, listener);
        credentials_free(credentials);
        credentials_free(tokens);
        goto out;
    }

    apply(daemon, &wanted, credentials, tokens);
    warn_of_restart(&daemon->started, &wanted, listener);
    daemon_warn_of_shown_passwords(daemon, &wanted);
    done = true;

out:
    settings_report_clear(&report);
    config_clear(&wanted);
    return done;
}

/* Cannot fail. Owns credentials and tokens from here on. */
static void apply(struct daemon *daemon, struct config *wanted, struct credentials *credentials,
                  struct credentials *tokens)
{
    daemon_make_room(daemon, wanted);
    const struct server_options options = daemon_server_options(daemon, wanted);
    const struct sessions_options sessions_options = daemon_sessions_options(daemon, wanted);

    wanted->log.program = PROGRAM;
    (void)log_open(&wanted->log); /* what syslog cannot take is counted */
    sessions_reload(daemon->sessions, &sessions_options, credentials, clock_now());
    server_reload(daemon->server, &options, config_take_tls(wanted));
    http_set_tokens(daemon->http, tokens);
    daemon_warn_of_expiry(daemon);
}

static void report_failed_reload(const struct settings_report *report,
                                 const struct listener_to_reload *listener)
{
    char text[512];

    for (size_t i = 0; i < report->count; i++)
        report_failure(settings_report_text(report, i, text, sizeof(text)), listener);
    if (report->out_of_memory)
        report_failure("out of memory", listener);
}

static void report_failure(const char *error, const struct listener_to_reload *listener)
{
    log_event(LOG_LEVEL_ERROR, "reload_failed", LOG_STR("error", error));
    if (listener->say)
        listener->say(listener->user, error);
}

static void warn_of_restart(const struct config *started, const struct config *wanted,
                            const struct listener_to_reload *listener)
{
    char key[64];

    for (size_t i = 0; i < config_rows; i++) {
        const struct setting *row = &config_table[i];

        if (row->reloadable || settings_equal(row, started, wanted))
            continue;
        log_event(LOG_LEVEL_WARN, "restart_needed", LOG_STR("section", row->section),
                  LOG_STR("key", row->key));
        snprintf(key, sizeof(key), "%s.%s", row->section, row->key);
        if (listener->say)
            listener->say(listener->user, key);
    }
}
