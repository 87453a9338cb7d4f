/*
 * The one table of configuration keys, and the checks that need more than one key or the system.
 * How a file is read is settings.c's; what a value does is its module's; passwords, and whose they
 * are, are config_credential.c's.
 */
#include "main/config.h"

#include "base/address.h"
#include "cliser/proto.h"
#include "main/config_credential.h"
#include "net/tls.h"

#include <pwd.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DAY_MS UINT64_C(86400000)

static const char *const log_level_names[] = {"error", "warn", "info", "debug", NULL};
static const char *const log_target_names[] = {"stderr", "syslog", NULL};
static const char *const log_format_names[] = {"text", "json", NULL};

#define AT(member) offsetof(struct config, member)

/* clang-format off */
const struct setting config_table[] = {
    {"server", "listen", SETTING_LIST, AT(listen), .def = "127.0.0.1:1111",
     .help = "IP:PORT, [IPv6]:PORT or unix:/path"},
    {"server", "tls_listen", SETTING_LIST, AT(tls_listen),
     .help = "addresses for TLS, like listen; needs tls_cert and tls_key"},
    {"server", "tls_cert", SETTING_TEXT, AT(tls_cert), .reloadable = true,
     .help = "PEM file: the certificate, then those that issued it"},
    {"server", "tls_key", SETTING_TEXT, AT(tls_key), .reloadable = true,
     .help = "PEM file: its private key, which nobody else may read"},
    {"server", "tls_client_ca", SETTING_TEXT, AT(tls_client_ca), .reloadable = true,
     .help = "PEM file: clients need a certificate of these, with their ID"},
    {"server", "max_clients", SETTING_NUMBER, AT(sessions.limits.max_clients), 1, UINT32_MAX,
     .def = "1000000", .reloadable = true,
     .help = "registered clients at the same time; more get 450"},
    {"server", "backlog", SETTING_NUMBER, AT(backlog), 1, 65535, .def = "4096",
     .help = "connections the kernel holds until they are accepted"},
    {"server", "reuse_port", SETTING_BOOL, AT(reuse_port), .def = "no",
     .help = "let several processes listen on the same port"},
    {"server", "user", SETTING_TEXT, AT(user),
     .help = "started as root: become this user once the ports are open"},
    {"server", "seccomp", SETTING_BOOL, AT(seccomp), .def = "yes",
     .help = "allow only the system calls that are needed"},
    {"server", "drain", SETTING_DURATION, AT(drain_ms), 0, DAY_MS, .def = "30s", .reloadable = true,
     .help = "SIGQUIT spreads the ends of sessions over this time"},
    {"server", "explain_refusals", SETTING_BOOL, AT(sessions.explain_refusals), .def = "yes",
     .reloadable = true, .help = "send a 4xx line before closing"},

    {"auth", "password", SETTING_LINES, AT(auth.passwords), .reloadable = true, .whole = true,
     .help = "a password for clients; repeat the key to accept several"},
    {"auth", "password_file", SETTING_LINES, AT(auth.password_files), .reloadable = true,
     .help = "a file whose first line is such a password; may be repeated"},

    {"keepalive", "interval", SETTING_DURATION, AT(sessions.interval_ms), 1, DAY_MS, .def = "10s",
     .reloadable = true, .help = "time between two 100s to the same client"},
    {"keepalive", "misses", SETTING_NUMBER, AT(sessions.misses), 1, 255, .def = "3",
     .reloadable = true, .help = "unanswered 100s after which a client is dropped"},
    {"keepalive", "require_reply", SETTING_CHOICE, AT(sessions.require_reply),
     .choices = require_reply_names, .def = "auto", .reloadable = true,
     .help = "does silence count: auto (once it answered), yes, no"},

    {"limits", "handshake_timeout", SETTING_DURATION, AT(sessions.handshake_timeout_ms), 10, DAY_MS,
     .def = "10s", .reloadable = true, .help = "time from connecting to 140, all in all"},
    {"limits", "max_pending", SETTING_NUMBER, AT(sessions.limits.max_pending), 1, UINT32_MAX,
     .def = "16384", .reloadable = true,
     .help = "connections not yet registered; too many get 450"},
    {"limits", "max_tls_pending", SETTING_NUMBER, AT(sessions.limits.max_tls_pending), 1, UINT32_MAX,
     .def = "2048", .reloadable = true,
     .help = "TLS handshakes under way; too many are closed"},
    {"limits", "max_per_source", SETTING_NUMBER, AT(sessions.limits.max_per_source), 0, UINT32_MAX,
     .def = "0", .reloadable = true,
     .help = "connections from one address, or IPv6 /64; 0: no limit"},
    {"limits", "auth_failures", SETTING_NUMBER, AT(sessions.limits.auth_failures), 0, 1000000,
     .def = "10", .reloadable = true,
     .help = "wrong passwords that shut their address out; 0: none do"},
    {"limits", "auth_penalty", SETTING_DURATION, AT(sessions.limits.auth_penalty_ms), 1, DAY_MS,
     .def = "60s", .reloadable = true, .help = "it gets 429 for so long"},

    {"registry", "store", SETTING_CHOICE, AT(store.kind), .choices = store_kind_names,
     .def = "sqlite", .help = "sqlite, or memory (until the server ends)"},
    {"registry", "path", SETTING_TEXT, AT(store.path), .def = "cliser.db",
     .help = "the database file of store = sqlite"},
    {"registry", "sync", SETTING_CHOICE, AT(store.sync), .choices = store_sync_names,
     .def = "normal", .help = "normal: survives a kill; full: a power failure too"},
    {"registry", "duplicate_id", SETTING_CHOICE, AT(sessions.duplicate_id),
     .choices = duplicate_policy_names, .def = "probe", .reloadable = true,
     .help = "second client with an ID: probe, takeover, reject"},
    {"registry", "forget_after", SETTING_DURATION, AT(sessions.forget_after_ms), 1, 36500 * DAY_MS,
     .word = "never", .def = "never", .reloadable = true,
     .help = "forget clients that have been gone for so long"},

    {"control", "socket", SETTING_TEXT, AT(control_socket), .def = "cliser.sock",
     .help = "unix socket for cliserctl and other programs"},
    {"control", "http", SETTING_TEXT, AT(control_http),
     .help = "an address for HTTP, such as 127.0.0.1:3333"},
    {"control", "token_file", SETTING_TEXT, AT(control_token_file), .reloadable = true,
     .help = "its first line is the token for http"},

    {"log", "level", SETTING_CHOICE, AT(log.level), .choices = log_level_names, .def = "info",
     .reloadable = true, .help = "error, warn, info or debug"},
    {"log", "target", SETTING_CHOICE, AT(log.target), .choices = log_target_names, .def = "stderr",
     .reloadable = true, .help = "stderr or syslog"},
    {"log", "format", SETTING_CHOICE, AT(log.format), .choices = log_format_names, .def = "text",
     .reloadable = true, .help = "text or json"},
};

#undef AT
#define AT(member) offsetof(struct config_credential, member)

const struct setting config_credential_table[] = {
    {"credential", "password", SETTING_LINES, AT(passwords), .reloadable = true, .whole = true,
     .help = "a password for some IDs only; may be repeated"},
    {"credential", "password_file", SETTING_LINES, AT(password_files), .reloadable = true,
     .help = "a file whose first line is such a password; may be repeated"},
    {"credential", "ids", SETTING_LIST, AT(ids), .reloadable = true,
     .help = "the IDs that it is for, such as web-*, nas-1"},
};
/* clang-format on */

const size_t config_rows = sizeof(config_table) / sizeof(config_table[0]);
const size_t config_credential_rows =
    sizeof(config_credential_table) / sizeof(config_credential_table[0]);

static void trust_user(const struct config *config);
static void check_listen(const struct config *config, struct settings_report *report);
static void check_twice(const struct settings_list *tls_listen, size_t index,
                        const struct settings_list *listen, struct settings_report *report);
static void check_tls(struct config *config, struct settings_report *report);
static void check_control(struct config *config, struct settings_report *report);
static bool can_be_sent(const char *token);

int config_load(const char *path, struct config *config, struct settings_report *report)
{
    static const struct settings_named named = {
        .section = "credential",
        .table = config_credential_table,
        .rows = sizeof(config_credential_table) / sizeof(config_credential_table[0]),
        .begin = config_credential_begin,
    };

    *config = (struct config){.auth = {.name = CREDENTIAL_NAME_AUTH}};
    (void)settings_load_named(path, config_table, config_rows, &named, config, report);

    /* A file that cannot be read at all has one error, not those of an empty file as well. */
    if (report->out_of_memory || (report->count == 1 && report->errors[0].line == 0))
        return -1;
    trust_user(config);
    check_listen(config, report);
    check_tls(config, report);
    config_credentials_check(config, report);
    check_control(config, report);
    return settings_report_is_empty(report) ? 0 : -1;
}

struct credentials *config_tokens(const struct config *config)
{
    struct credentials *tokens = credentials_new();

    if (tokens && config->control_token &&
        credentials_add(tokens, config->control_token, strlen(config->control_token)) !=
            CREDENTIAL_ADDED) {
        credentials_free(tokens);
        return NULL;
    }
    return tokens;
}

void config_check_start(const struct config *config, struct settings_report *report)
{
    const unsigned line = settings_line(report, "server", "user");
    const struct passwd *entry = config->user ? getpwnam(config->user) : NULL;

    if (config->user && !entry)
        settings_report_add(report, line, "user: there is no user \"%s\" on this host",
                            config->user);
    else if (entry && entry->pw_uid == 0)
        settings_report_add(report, line,
                            "user: \"%s\" is root, who has nothing to drop to; name another user, "
                            "or leave the key out",
                            config->user);
}

void config_forget_passwords(struct config *config)
{
    config_credentials_forget(config);
    settings_free_secret(config->control_token);
    config->control_token = NULL;
}

void config_clear(struct config *config)
{
    config_forget_passwords(config);
    for (size_t i = 0; i < config->credential_count; i++)
        settings_clear(config_credential_table, config_credential_rows, &config->credentials[i]);
    free(config->credentials);
    config->credentials = NULL;
    config->credential_count = 0;
    settings_clear(config_table, config_rows, config);
    tls_free(config->tls);
}

struct tls *config_take_tls(struct config *config)
{
    struct tls *tls = config->tls;

    config->tls = NULL;
    return tls;
}

/* Once, before we are that user: we become no other, and a reload must not wait for who knows
 * users. */
static void trust_user(const struct config *config)
{
    static bool is_done;

    if (!is_done && geteuid() == 0)
        settings_trust_user(config->user);
    is_done = true;
}

static void check_listen(const struct config *config, struct settings_report *report)
{
    struct address address;
    char message[256];

    for (size_t i = 0; i < config->listen.count; i++) {
        if (address_parse(config->listen.items[i], &address, message, sizeof(message)) != 0)
            settings_report_add(report, config->listen.lines[i], "listen: %s", message);
    }
    for (size_t i = 0; i < config->tls_listen.count; i++) {
        const char *text = config->tls_listen.items[i];

        if (address_parse(text, &address, message, sizeof(message)) != 0)
            settings_report_add(report, config->tls_listen.lines[i],
                                "tls_listen: \"%s\" should be an address such as 127.0.0.1:1112 "
                                "or [::1]:1112",
                                text);
        else if (address.storage.ss_family == AF_UNIX)
            settings_report_add(report, config->tls_listen.lines[i],
                                "tls_listen: %s never leaves this host; it belongs to listen",
                                text);
        else
            check_twice(&config->tls_listen, i, &config->listen, report);
    }
    if (config->listen.count == 0)
        settings_report_add(report, settings_line(report, "server", "listen"),
                            "listen: at least one address is needed, such as 127.0.0.1:1111");
}

/* With reuse_port the kernel would take both, and give each client to either. */
static void check_twice(const struct settings_list *tls_listen, size_t index,
                        const struct settings_list *listen, struct settings_report *report)
{
    const char *text = tls_listen->items[index];
    const char *port = strrchr(text, ':');

    for (size_t i = 0; i < listen->count; i++) {
        if (strcmp(listen->items[i], text) == 0 && strcmp(port, ":0") != 0)
            settings_report_add(report, tls_listen->lines[index],
                                "tls_listen: %s stands in listen as well; TLS needs a port of its "
                                "own",
                                text);
    }
}

/* The files are read here, so that one that is no good is found by whoever checks or reloads. */
static void check_tls(struct config *config, struct settings_report *report)
{
    static const char *const keys[] = {
        [TLS_CERT] = "tls_cert", [TLS_KEY] = "tls_key", [TLS_CLIENT_CA] = "tls_client_ca"};
    const char *const paths[] = {
        [TLS_CERT] = config->tls_cert,
        [TLS_KEY] = config->tls_key,
        [TLS_CLIENT_CA] = config->tls_client_ca,
    };
    const struct tls_options options = {
        .cert = config->tls_cert, .key = config->tls_key, .client_ca = config->tls_client_ca};
    enum tls_file file = TLS_CERT;
    char message[512];

    if (config->tls_listen.count == 0) {
        for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
            if (paths[i])
                settings_report_add(report, settings_line(report, "server", keys[i]),
                                    "%s is for the addresses of tls_listen, and there are none",
                                    keys[i]);
        }
        return;
    }
    if (!config->tls_cert || !config->tls_key) {
        settings_report_add(report, config->tls_listen.lines[0],
                            "tls_listen needs tls_cert and tls_key, a certificate and its key");
        return;
    }
    config->tls = tls_new(&options, &file, message, sizeof(message));
    if (!config->tls)
        settings_report_add(report, settings_line(report, "server", keys[file]), "%s: %s",
                            keys[file], message);
}

static void check_control(struct config *config, struct settings_report *report)
{
    const unsigned http_line = settings_line(report, "control", "http");
    char path[ADDRESS_TEXT_BYTES];
    char message[512];
    struct address address;

    snprintf(path, sizeof(path), "unix:%s", config->control_socket ? config->control_socket : "");
    if (config->control_socket && address_parse(path, &address, message, sizeof(message)) != 0)
        settings_report_add(report, settings_line(report, "control", "socket"), "socket: %s",
                            message);
    if (config->control_http &&
        (address_parse(config->control_http, &address, message, sizeof(message)) != 0 ||
         address.storage.ss_family == AF_UNIX))
        settings_report_add(report, http_line,
                            "http: \"%s\" should be an address such as 127.0.0.1:3333",
                            config->control_http);
    if (config->control_http && !config->control_token_file)
        settings_report_add(report, http_line,
                            "http needs token_file, a file whose first line is the token that "
                            "requests must have");
    if (!config->control_token_file)
        return;
    config->control_token =
        settings_read_secret(config->control_token_file, message, sizeof(message));
    if (!config->control_token)
        settings_report_add(report, settings_line(report, "control", "token_file"),
                            "token_file: %s", message);
    else if (!can_be_sent(config->control_token))
        settings_report_add(report, settings_line(report, "control", "token_file"),
                            "token_file: the first line of %s should have 1 to %d printable "
                            "characters, without blanks at its ends",
                            config->control_token_file, PROTO_MAX_PASSWORD_BYTES);
}

/* What no request can have in its header would keep everybody out. */
static bool can_be_sent(const char *token)
{
    const size_t len = strlen(token);

    for (size_t i = 0; i < len; i++) {
        if (token[i] < ' ' || token[i] > '~')
            return false;
    }
    return len > 0 && len <= PROTO_MAX_PASSWORD_BYTES && token[0] != ' ' && token[len - 1] != ' ';
}
