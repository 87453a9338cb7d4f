/* Reads the command line and checks every value on its own. What values mean together, and whether
 * this host can do it, is decided elsewhere. */
#include "options.h"

#include "base/units.h"
#include "cliser/proto.h"
#include "plan.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* More could be counted, but no host has them. */
#define MAX_CLIENTS   UINT64_C(1000000000)
#define MAX_RATE      UINT64_C(10000000)
#define MAX_DURATION  (UINT64_C(365) * 24 * 3600 * 1000)

#define MESSAGE_BYTES 256

/* Takes one value. Returns 0, or -1 with what would be right in message. */
typedef int take_fn(struct stress_options *options, const char *value, char *message);

static take_fn take_server, take_clients, take_rate, take_inflight, take_hold, take_churn,
    take_password, take_id_prefix, take_sources, take_silent, take_timeout, take_tls, take_ca,
    take_cert, take_key, take_insecure, take_json;

struct option_row {
    const char *name;
    int letter;
    const char *argument; /* NULL: takes none */
    take_fn *take;        /* NULL: help and version */
    const char *help;
};

/* clang-format off */
static const struct option_row rows[] = {
    { "server",    's', "HOST:PORT", take_server,    "the server (127.0.0.1:1111); also unix:/path" },
    { "clients",   'n', "N",         take_clients,   "clients in all (1000)" },
    { "rate",      'r', "R/s",       take_rate,      "connects a second (as fast as --inflight allows)" },
    { "inflight",  'i', "N",         take_inflight,  "handshakes that may be unfinished at once (512)" },
    { "hold",      'd', "D",         take_hold,      "how long all stay once the last is up (10s)" },
    { "churn",     'c', NULL,        take_churn,     "each leaves at its 140 and makes room for the next" },
    { "password",  'p', "P",         take_password,  "the password (cliser, as in the shipped cliser.ini)" },
    { "id-prefix", 'P', "P",         take_id_prefix, "IDs are this and a number from 1 (stress-)" },
    { "sources",   'S', "A-B",       take_sources,   "local addresses to connect from, in turn" },
    { "silent",    'q', "PCT",       take_silent,    "share of clients that never answer a 100 (0)" },
    { "timeout",   't', "D",         take_timeout,   "give a handshake up after this time (30s)" },
    { "tls",       'T', NULL,        take_tls,       "speak TLS; its certificate has to name the host" },
    { "ca",        'a', "FILE",      take_ca,        "who vouches for it (the CAs of this system)" },
    { "insecure",  'I', NULL,        take_insecure,  "verify no certificate: anybody gets the password" },
    { "cert",      'C', "FILE",      take_cert,      "certificate that all clients show" },
    { "key",       'k', "FILE",      take_key,       "its private key" },
    { "json",      'j', "FILE",      take_json,      "write the report as JSON too; - for stdout" },
    { "help",      'h', NULL,        NULL,           "show this" },
    { "version",   'V', NULL,        NULL,           "show the version" },
};
/* clang-format on */

#define ROW_COUNT (sizeof(rows) / sizeof(rows[0]))

static void fill_getopt(struct option *long_options, char *short_options);
static const struct option_row *row_of(int letter);
static enum options_result show_help(void);
static enum options_result wrong(const char *format, ...) __attribute__((format(printf, 1, 2)));
static enum options_result check_tls(const struct stress_options *options);
static enum options_result check_ids(const struct stress_options *options);
static int take_number(const char *value, uint64_t minimum, uint64_t maximum, uint64_t *number,
                       char *message);
static int take_duration(const char *value, uint64_t minimum, uint64_t *ms, char *message);

enum options_result options_parse(int argc, char **argv, struct stress_options *options)
{
    struct option long_options[ROW_COUNT + 1];
    char short_options[2 * ROW_COUNT + 1];
    char message[MESSAGE_BYTES];
    int letter = 0;

    *options = (struct stress_options){
        .server = "127.0.0.1:1111",
        .clients = 1000,
        .inflight = 512,
        .hold_ms = 10000,
        .timeout_ms = 30000,
        .password = "cliser",
        .id_prefix = "stress-",
    };
    fill_getopt(long_options, short_options);
    while ((letter = getopt_long(argc, argv, short_options, long_options, NULL)) != -1) {
        const struct option_row *row = row_of(letter);

        if (letter == 'h')
            return show_help();
        if (letter == 'V') {
            printf("cliser-stress %s\n", CLISER_VERSION);
            return OPTIONS_DONE;
        }
        if (!row) /* getopt has said what is wrong */
            return wrong(NULL);
        if (row->take(options, optarg, message) < 0)
            return wrong("--%s: %s", row->name, message);
    }
    if (optind < argc)
        return wrong("'%s' is not an option", argv[optind]);
    const enum options_result result = check_tls(options);
    return result == OPTIONS_RUN ? check_ids(options) : result;
}

static void fill_getopt(struct option *long_options, char *short_options)
{
    char *out = short_options;

    for (size_t i = 0; i < ROW_COUNT; i++) {
        long_options[i] = (struct option){
            .name = rows[i].name,
            .has_arg = rows[i].argument ? required_argument : no_argument,
            .val = rows[i].letter,
        };
        *out++ = (char)rows[i].letter;
        if (rows[i].argument)
            *out++ = ':';
    }
    *out = '\0';
    long_options[ROW_COUNT] = (struct option){0};
}

static const struct option_row *row_of(int letter)
{
    for (size_t i = 0; i < ROW_COUNT; i++) {
        if (rows[i].letter == letter)
            return &rows[i];
    }
    return NULL;
}

static enum options_result show_help(void)
{
    printf("Usage: cliser-stress [OPTION]...\n"
           "Opens many clients to a cliser server, holds them, and reports what happened.\n\n");
    for (size_t i = 0; i < ROW_COUNT; i++) {
        char name[32];

        snprintf(name, sizeof(name), "--%s%s%s", rows[i].name, rows[i].argument ? " " : "",
                 rows[i].argument ? rows[i].argument : "");
        printf("  -%c, %-20s %s\n", rows[i].letter, name, rows[i].help);
    }
    printf("\n"
           "Durations take ms, s, m, h, d. A server on IPv4 loopback is reached from several\n"
           "addresses of 127.0.0.0/8 when there are many clients. With --json - the table\n"
           "goes to stderr. Ctrl-C ends the run with a full report.\n"
           "\n"
           "Exit status: 0 every client stayed up as long as it should; 1 not every one did;\n"
           "2 wrong usage; 3 this host cannot reach what was asked.\n");
    return OPTIONS_DONE;
}

static enum options_result wrong(const char *format, ...)
{
    if (format) {
        va_list args;

        va_start(args, format);
        fprintf(stderr, "cliser-stress: ");
        vfprintf(stderr, format, args);
        fprintf(stderr, "\n");
        va_end(args);
    }
    fprintf(stderr, "cliser-stress: try --help\n");
    return OPTIONS_WRONG;
}

static enum options_result check_tls(const struct stress_options *options)
{
    if (!options->tls && (options->ca || options->cert || options->key || options->insecure))
        return wrong("--ca, --insecure, --cert and --key mean nothing without --tls");
    if (options->insecure && options->ca)
        return wrong("--ca and --insecure: it is one or the other");
    if (!options->cert != !options->key)
        return wrong("--cert and --key: a certificate and its key belong together");
    return OPTIONS_RUN;
}

/* The longest ID is that of the last client. */
static enum options_result check_ids(const struct stress_options *options)
{
    char id[PROTO_MAX_ID_BYTES + 32];
    const int len = snprintf(id, sizeof(id), "%s%" PRIu64, options->id_prefix, options->clients);

    if (!proto_id_valid(id, (size_t)len))
        return wrong("--id-prefix: '%s' makes IDs longer than %d bytes", options->id_prefix,
                     PROTO_MAX_ID_BYTES);
    return OPTIONS_RUN;
}

static int take_server(struct stress_options *options, const char *value, char *message)
{
    (void)message;
    options->server = value;
    return 0;
}

static int take_clients(struct stress_options *options, const char *value, char *message)
{
    return take_number(value, 1, MAX_CLIENTS, &options->clients, message);
}

/* The "/s" may be left out. */
static int take_rate(struct stress_options *options, const char *value, char *message)
{
    char digits[32];
    size_t len = strlen(value);

    if (len >= 2 && strcmp(value + len - 2, "/s") == 0)
        len -= 2;
    if (len >= sizeof(digits))
        len = 0;
    memcpy(digits, value, len);
    digits[len] = '\0';
    if (take_number(digits, 1, MAX_RATE, &options->rate, message) == 0)
        return 0;
    snprintf(message, MESSAGE_BYTES, "'%s' should be a whole number a second, such as 500/s",
             value);
    return -1;
}

static int take_inflight(struct stress_options *options, const char *value, char *message)
{
    return take_number(value, 1, MAX_CLIENTS, &options->inflight, message);
}

static int take_hold(struct stress_options *options, const char *value, char *message)
{
    return take_duration(value, 0, &options->hold_ms, message);
}

static int take_timeout(struct stress_options *options, const char *value, char *message)
{
    return take_duration(value, 1, &options->timeout_ms, message);
}

static int take_churn(struct stress_options *options, const char *value, char *message)
{
    (void)value;
    (void)message;
    options->churn = true;
    return 0;
}

static int take_password(struct stress_options *options, const char *value, char *message)
{
    if (!proto_password_valid(value, strlen(value))) {
        snprintf(message, MESSAGE_BYTES, "should be 1 to %d bytes without a line end",
                 PROTO_MAX_PASSWORD_BYTES);
        return -1;
    }
    options->password = value;
    return 0;
}

/* Empty is fine: digits alone are an ID. */
static int take_id_prefix(struct stress_options *options, const char *value, char *message)
{
    if (value[0] != '\0' && !proto_id_valid(value, strlen(value))) {
        snprintf(message, MESSAGE_BYTES, "'%s' should be made of A-Z a-z 0-9 . _ : @ - only",
                 value);
        return -1;
    }
    options->id_prefix = value;
    return 0;
}

static int take_sources(struct stress_options *options, const char *value, char *message)
{
    return sources_parse(&options->sources, value, message, MESSAGE_BYTES);
}

/* A whole number or one with up to three decimals; a percent sign may follow. */
static int take_silent(struct stress_options *options, const char *value, char *message)
{
    uint64_t share = 0;
    const char *at = value;
    int decimals = -1;

    while ((*at >= '0' && *at <= '9') || (*at == '.' && decimals < 0 && at > value)) {
        if (*at == '.') {
            decimals = 0;
        } else {
            share = share * 10 + (uint64_t)(*at - '0');
            decimals += decimals >= 0;
        }
        if (share > PLAN_WHOLE || decimals > 3)
            break;
        at++;
    }
    const bool complete = at > value && decimals != 0;
    for (int i = decimals < 0 ? 0 : decimals; i < 3; i++)
        share *= 10;
    if (*at == '%')
        at++;
    if (!complete || *at != '\0' || share > PLAN_WHOLE) {
        snprintf(message, MESSAGE_BYTES, "'%s' should be a percentage, 0 to 100", value);
        return -1;
    }
    options->silent = (uint32_t)share;
    return 0;
}

static int take_tls(struct stress_options *options, const char *value, char *message)
{
    (void)value;
    (void)message;
    options->tls = true;
    return 0;
}

static int take_ca(struct stress_options *options, const char *value, char *message)
{
    (void)message;
    options->ca = value;
    return 0;
}

static int take_insecure(struct stress_options *options, const char *value, char *message)
{
    (void)value;
    (void)message;
    options->insecure = true;
    return 0;
}

static int take_cert(struct stress_options *options, const char *value, char *message)
{
    (void)message;
    options->cert = value;
    return 0;
}

static int take_key(struct stress_options *options, const char *value, char *message)
{
    (void)message;
    options->key = value;
    return 0;
}

static int take_json(struct stress_options *options, const char *value, char *message)
{
    (void)message;
    options->json_path = value;
    return 0;
}

static int take_number(const char *value, uint64_t minimum, uint64_t maximum, uint64_t *number,
                       char *message)
{
    if (units_parse_number(value, number) == 0 && *number >= minimum && *number <= maximum)
        return 0;
    snprintf(message, MESSAGE_BYTES, "'%s' should be a number from %" PRIu64 " to %" PRIu64, value,
             minimum, maximum);
    return -1;
}

static int take_duration(const char *value, uint64_t minimum, uint64_t *ms, char *message)
{
    if (units_parse_duration(value, ms) == 0 && *ms >= minimum && *ms <= MAX_DURATION)
        return 0;
    snprintf(message, MESSAGE_BYTES, "'%s' should be a duration such as 10s, 250ms or 5m", value);
    return -1;
}
