/*
 * Options and [agent] of the ini file, from one table. Decides what a complete and sensible
 * configuration is, and words what is wrong with one that is not. Must know nothing of connections.
 */
#include "agent_config.h"

#include "base/settings.h"
#include "cliser/proto.h"

#include <assert.h>
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PROGRAM           "cliser-agent"
#define SECTION           "agent"
#define MAX_MESSAGE_BYTES 512
#define MAX_DELAY_MS      UINT64_C(86400000) /* a day: more is a typing error */

enum key {
    KEY_SERVER,
    KEY_ID,
    KEY_PASSWORD_FILE,
    KEY_TLS,
    KEY_CA,
    KEY_CERT,
    KEY_KEY,
    KEY_ON_SHUTDOWN,
    KEY_SHUTDOWN_DELAY,
    KEY_ONCE,
    KEY_COUNT,
};

#define AT(member) offsetof(struct agent_config, member)

/* clang-format off */
static const struct setting table[] = {
    [KEY_SERVER] = {SECTION, "server", SETTING_TEXT, AT(server),
                    .help = "the server: HOST:PORT, [IPv6]:PORT or unix:/path"},
    [KEY_ID] = {SECTION, "id", SETTING_TEXT, AT(id),
                .help = "this machine's ID (default: the host's name)"},
    [KEY_PASSWORD_FILE] = {SECTION, "password_file", SETTING_TEXT, AT(password_file),
                           .help = "file whose first line is the password"},
    [KEY_TLS] = {SECTION, "tls", SETTING_BOOL, AT(use_tls), .def = "no",
                 .help = "speak TLS; the certificate must name the server"},
    [KEY_CA] = {SECTION, "ca", SETTING_TEXT, AT(ca),
                .help = "file of CAs for it (default: this system's)"},
    [KEY_CERT] = {SECTION, "cert", SETTING_TEXT, AT(cert),
                  .help = "certificate to show to the server"},
    [KEY_KEY] = {SECTION, "key", SETTING_TEXT, AT(key), .help = "its private key"},
    /* Not secret, but as bad to cut: "sync ; poweroff" would quietly become "sync". */
    [KEY_ON_SHUTDOWN] = {SECTION, "on_shutdown", SETTING_TEXT, AT(on_shutdown), .whole = true,
                         .help = "shell command that shuts this machine down"},
    [KEY_SHUTDOWN_DELAY] = {SECTION, "shutdown_delay", SETTING_DURATION, AT(shutdown_delay_ms),
                            .maximum = MAX_DELAY_MS, .def = "0s",
                            .help = "pause between order and command (default: 0s)"},
    [KEY_ONCE] = {SECTION, "once", SETTING_BOOL, AT(once), .def = "no",
                  .help = "one session, then exit"},
};

/* How each key looks as an option. */
static const struct {
    int letter;
    const char *value; /* its name in --help; NULL for a switch */
} options[] = {
    [KEY_SERVER]         = {'s', "HOST:PORT"},
    [KEY_ID]             = {'i', "ID"},
    [KEY_PASSWORD_FILE]  = {'p', "FILE"},
    [KEY_TLS]            = {'t', NULL},
    [KEY_CA]             = {'a', "FILE"},
    [KEY_CERT]           = {'c', "FILE"},
    [KEY_KEY]            = {'k', "FILE"},
    [KEY_ON_SHUTDOWN]    = {'x', "CMD"},
    [KEY_SHUTDOWN_DELAY] = {'d', "DURATION"},
    [KEY_ONCE]           = {'1', NULL},
};
/* clang-format on */

static_assert(sizeof(table) / sizeof(table[0]) == KEY_COUNT, "every key has a row");
static_assert(sizeof(options) / sizeof(options[0]) == KEY_COUNT, "every key is an option");

/* What the command line says, before anything is made of it. */
struct command_line {
    const char *given[KEY_COUNT]; /* NULL where the option is not there */
    const char *file;
    bool wrong; /* and said so */
};

/* One reading: where complaints go. */
struct reading {
    const struct command_line *line;
    struct settings_report report;
    bool wrong;
};

static enum agent_config_verdict parse_command_line(struct command_line *line, int argc,
                                                    char **argv);
static void take_option(struct command_line *line, int letter, const char *value);
static void refuse_option(struct command_line *line, int letter, char **argv);
static bool is_letter(int letter);
static void option_name(enum key key, char *name, size_t size);
static void print_help(void);
static void apply_options(struct agent_config *config, struct reading *reading);
static void check(struct agent_config *config, struct reading *reading);
static void check_id(struct agent_config *config, struct reading *reading);
static void check_password(struct agent_config *config, struct reading *reading);
static void check_tls(struct agent_config *config, struct reading *reading);
static void take_tls_file(struct agent_config *config, struct reading *reading, enum key key,
                          enum tls_client_file which, const char *path);
static bool is_given(const struct reading *reading, enum key key);
static void miss(struct reading *reading, enum key key, const char *why);
static void complain(struct reading *reading, enum key key, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

enum agent_config_verdict agent_config_read(struct agent_config *config, int argc, char **argv)
{
    struct command_line line = {.file = NULL};
    struct reading reading = {.line = &line};

    const enum agent_config_verdict verdict = parse_command_line(&line, argc, argv);
    if (verdict != AGENT_CONFIG_RUN)
        return verdict;

    if (!line.file)
        reading.wrong = settings_set_defaults(table, KEY_COUNT, config) != 0;
    else if (settings_load(line.file, table, KEY_COUNT, config, &reading.report) != 0)
        reading.wrong = true;
    apply_options(config, &reading);
    /* What stands in a file that cannot be read is not missing. */
    if (reading.report.count == 0 || reading.report.errors[0].line > 0)
        check(config, &reading);

    settings_report_print(&reading.report, PROGRAM);
    settings_report_clear(&reading.report);
    return reading.wrong ? AGENT_CONFIG_WRONG : AGENT_CONFIG_RUN;
}

void agent_config_clear(struct agent_config *config)
{
    settings_free_secret(config->password);
    config->password = NULL;
    tls_client_free(config->tls);
    config->tls = NULL;
    settings_clear(table, KEY_COUNT, config);
}

static enum agent_config_verdict parse_command_line(struct command_line *line, int argc,
                                                    char **argv)
{
    char names[KEY_COUNT][32];
    char letters[2 * KEY_COUNT + 4] =
        ":hV"; /* ":": a missing value is told from an unknown option */
    struct option longs[KEY_COUNT + 3] = {{.name = NULL}};
    size_t used = strlen(letters);
    int letter;

    for (int i = 0; i < KEY_COUNT; i++) {
        option_name((enum key)i, names[i], sizeof(names[i]));
        longs[i].name = names[i];
        longs[i].has_arg = options[i].value ? required_argument : no_argument;
        longs[i].val = options[i].letter;
        letters[used++] = (char)options[i].letter;
        if (options[i].value)
            letters[used++] = ':';
    }
    longs[KEY_COUNT] = (struct option){.name = "help", .val = 'h'};
    longs[KEY_COUNT + 1] = (struct option){.name = "version", .val = 'V'};

    opterr = 0; /* getopt would name the program by its path */
    while ((letter = getopt_long(argc, argv, letters, longs, NULL)) != -1) {
        switch (letter) {
        case 'h':
            print_help();
            return AGENT_CONFIG_DONE;
        case 'V':
            printf(PROGRAM " " CLISER_VERSION "\n");
            return AGENT_CONFIG_DONE;
        case '?':
        case ':':
            refuse_option(line, letter, argv);
            break;
        default:
            take_option(line, letter, optarg);
        }
    }

    if (optind < argc)
        line->file = argv[optind++];
    if (optind < argc) {
        fprintf(stderr, PROGRAM ": \"%s\" is one argument too many; one FILE is all it takes\n",
                argv[optind]);
        line->wrong = true;
    }
    return line->wrong ? AGENT_CONFIG_WRONG : AGENT_CONFIG_RUN;
}

static void take_option(struct command_line *line, int letter, const char *value)
{
    for (int i = 0; i < KEY_COUNT; i++) {
        if (options[i].letter == letter)
            line->given[i] = value ? value : "yes";
    }
}

/* getopt leaves the letter of what it could not take in optopt, or 0 for a long option it does not
 * know. */
static void refuse_option(struct command_line *line, int letter, char **argv)
{
    const bool known = optopt == 'h' || optopt == 'V' || is_letter(optopt);

    line->wrong = true;
    if (optopt == 0)
        fprintf(stderr, PROGRAM ": %s is no option", argv[optind - 1]);
    else if (letter == ':')
        fprintf(stderr, PROGRAM ": %s needs a value", argv[optind - 1]);
    else if (known)
        fprintf(stderr, PROGRAM ": %s should have no value", argv[optind - 1]);
    else
        fprintf(stderr, PROGRAM ": -%c is no option", optopt);
    fprintf(stderr, "; --help lists the options\n");
}

static bool is_letter(int letter)
{
    for (int i = 0; i < KEY_COUNT; i++) {
        if (options[i].letter == letter)
            return true;
    }
    return false;
}

static void option_name(enum key key, char *name, size_t size)
{
    snprintf(name, size, "%s", table[key].key);
    for (char *c = name; *c; c++) {
        if (*c == '_')
            *c = '-';
    }
}

static void print_help(void)
{
    char name[32];
    char left[64];

    printf("Usage: " PROGRAM " [OPTION]... [FILE]\n"
           "Keeps this machine connected to a cliser server and shuts it down on its order.\n"
           "\n"
           "FILE is an ini file with one section [" SECTION "], whose keys are the long options\n"
           "without their dashes; options on the command line count more.\n"
           "\n");
    for (int i = 0; i < KEY_COUNT; i++) {
        option_name((enum key)i, name, sizeof(name));
        snprintf(left, sizeof(left), "-%c, --%s%s%s", options[i].letter, name,
                 options[i].value ? " " : "", options[i].value ? options[i].value : "");
        printf("  %-29s %s\n", left, table[i].help);
    }
    printf("  %-29s %s\n  %-29s %s\n", "-h, --help", "show this and exit", "-V, --version",
           "show the version and exit");
    printf("\n"
           "The command runs through /bin/sh when the server sends 130, for no other reason.\n"
           "Exit status: 0 done, 1 failed, 2 wrong usage or configuration.\n");
}

static void apply_options(struct agent_config *config, struct reading *reading)
{
    char message[MAX_MESSAGE_BYTES];

    for (int i = 0; i < KEY_COUNT; i++) {
        if (reading->line->given[i] &&
            settings_set(table, KEY_COUNT, config, SECTION, table[i].key, reading->line->given[i],
                         message, sizeof(message)) != 0)
            complain(reading, (enum key)i, "%s", message);
    }
}

static void check(struct agent_config *config, struct reading *reading)
{
    char message[MAX_MESSAGE_BYTES];

    if (!config->server)
        miss(reading, KEY_SERVER, "it names the server to connect to, HOST:PORT");
    else if (endpoint_parse(config->server, &config->endpoint, message, sizeof(message)) != 0)
        complain(reading, KEY_SERVER, "%s", message);
    check_id(config, reading);
    check_password(config, reading);
    check_tls(config, reading);
}

static void check_id(struct agent_config *config, struct reading *reading)
{
    static const char grammar[] = "an ID is 1 to 64 of A-Z a-z 0-9 . _ : @ -";
    char host[HOST_NAME_MAX + 1] = "";

    if (config->id) {
        if (!proto_id_valid(config->id, strlen(config->id)))
            complain(reading, KEY_ID, "\"%s\" is no valid ID; %s", config->id, grammar);
        return;
    }

    if (is_given(reading, KEY_ID))
        return;
    if (gethostname(host, sizeof(host) - 1) != 0 || !proto_id_valid(host, strlen(host))) {
        char text[sizeof(host) + sizeof(grammar) + 64];

        snprintf(text, sizeof(text), "the host's name \"%s\" cannot stand in for it, because %s",
                 host, grammar);
        miss(reading, KEY_ID, text);
        return;
    }
    config->id = strdup(host);
    if (!config->id)
        abort(); /* out of memory while starting */
}

static void check_password(struct agent_config *config, struct reading *reading)
{
    char message[MAX_MESSAGE_BYTES];

    if (!config->password_file) {
        miss(reading, KEY_PASSWORD_FILE, "it names a file whose first line is the password");
        return;
    }
    config->password = settings_read_secret(config->password_file, message, sizeof(message));
    if (!config->password)
        complain(reading, KEY_PASSWORD_FILE, "%s", message);
    else if (!proto_password_valid(config->password, strlen(config->password)))
        complain(reading, KEY_PASSWORD_FILE,
                 "the first line of %s has %zu bytes; a password has 1 to %d",
                 config->password_file, strlen(config->password), PROTO_MAX_PASSWORD_BYTES);
}

static void check_tls(struct agent_config *config, struct reading *reading)
{
    const bool has_files = config->ca || config->cert || config->key;

    if (!config->use_tls) {
        /* Whoever names a CA wants the server verified, and must not find out late. */
        const enum key named = config->ca ? KEY_CA : config->cert ? KEY_CERT : KEY_KEY;
        if (has_files && !is_given(reading, KEY_TLS))
            complain(reading, named, "means nothing without tls; add tls = yes");
        else if (has_files)
            complain(reading, named, "means nothing with tls = no; it should be tls = yes");
        return;
    }
    if (config->server && strncmp(config->server, "unix:", 5) == 0)
        complain(reading, KEY_TLS, "needs a server HOST:PORT; no certificate is for a unix socket");
    if (config->cert && !config->key)
        complain(reading, KEY_CERT, "needs key as well, the file with its private key");
    if (config->key && !config->cert)
        complain(reading, KEY_KEY, "needs cert as well, the file with its certificate");

    config->tls = tls_client_new(config->endpoint.host);
    if (!config->tls)
        abort(); /* out of memory while starting */
    take_tls_file(config, reading, KEY_CA, TLS_CLIENT_CA, config->ca);
    take_tls_file(config, reading, KEY_CERT, TLS_CLIENT_CERT, config->cert);
    if (config->cert)
        take_tls_file(config, reading, KEY_KEY, TLS_CLIENT_KEY, config->key);
}

static void take_tls_file(struct agent_config *config, struct reading *reading, enum key key,
                          enum tls_client_file which, const char *path)
{
    char message[MAX_MESSAGE_BYTES];

    if (path && tls_client_take_file(config->tls, which, path, message, sizeof(message)) != 0)
        complain(reading, key, "%s", message);
}

/* A key that was given, though wrong, has been complained about already. */
static bool is_given(const struct reading *reading, enum key key)
{
    return reading->line->given[key] ||
           settings_line(&reading->report, SECTION, table[key].key) > 0;
}

static void miss(struct reading *reading, enum key key, const char *why)
{
    char name[32];

    if (is_given(reading, key))
        return;
    option_name(key, name, sizeof(name));
    fprintf(stderr, PROGRAM ": --%s, or %s in [" SECTION "], is missing; %s\n", name,
            table[key].key, why);
    reading->wrong = true;
}

/* Names the place to correct: the option, or the line of the file. */
static void complain(struct reading *reading, enum key key, const char *format, ...)
{
    char text[MAX_MESSAGE_BYTES + 128];
    char name[32];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    option_name(key, name, sizeof(name));
    reading->wrong = true;
    if (reading->line->given[key])
        fprintf(stderr, PROGRAM ": --%s: %s\n", name, text);
    else
        settings_report_add(&reading->report,
                            settings_line(&reading->report, SECTION, table[key].key), "%s: %s",
                            table[key].key, text);
}
