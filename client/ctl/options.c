/* Reads the command line: options from one table, which says for which commands each is; then
 * what the values mean together. Must know nothing of how a command works. */
#include "options.h"

#include "base/units.h"
#include "cliser/proto.h"
#include "commands.h"

#include <assert.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#define SOCKET_HERE      "cliser.sock"
#define SOCKET_INSTALLED "/run/cliser/cliser.sock"

#define MAX_GRACE_MS     (UINT64_C(24) * 3600 * 1000)
#define MAX_HOLD_MS      (30 * MAX_GRACE_MS)

#define MESSAGE_BYTES    256

#define NOT_A_LIST       "'%.100s' should be IDs or patterns with commas between, such as a-*,b-1"

#define BIT(id)          (1U << (id))
#define ALL              (BIT(COMMAND_COUNT) - 1)
#define SHUTDOWN         BIT(COMMAND_SHUTDOWN)
#define LIST             BIT(COMMAND_LIST)

/* Takes one value. Returns 0, or -1 with what would be right in message. */
typedef int take_fn(struct ctl_options *options, const char *value, char *message);

static take_fn take_socket, take_url, take_token_file, take_json, take_connected, take_disconnected,
    take_all, take_wave, take_grace, take_hold, take_dry_run, take_yes;

struct option_row {
    const char *name;
    int letter;
    const char *argument; /* NULL: takes none */
    take_fn *take;        /* NULL: help and version */
    unsigned commands;    /* for which it is */
    const char *help;
};

/* clang-format off */
static const struct option_row rows[] = {
    { "socket",       's', "PATH",   take_socket,       ALL,      "the server's control socket (see below)" },
    { "url",          'u', "URL",    take_url,          ALL,      "ask over TCP instead: http://HOST:PORT" },
    { "token-file",   't', "FILE",   take_token_file,   ALL,      "file whose first line is the token for --url" },
    { "json",         'j', NULL,     take_json,         ALL,      "print JSON, one object a line" },
    { "connected",    'c', NULL,     take_connected,    LIST,     "list: only who is connected" },
    { "disconnected", 'd', NULL,     take_disconnected, LIST,     "list: only who is not" },
    { "all",          'a', NULL,     take_all,          SHUTDOWN, "shutdown: everybody, as the last wave" },
    { "wave",         'w', "GLOB,...", take_wave,       SHUTDOWN, "shutdown: one more wave; may be repeated" },
    { "grace",        'g', "D",      take_grace,        SHUTDOWN, "shutdown: how long a wave may take (60s)" },
    { "hold",         'H', "D",      take_hold,         SHUTDOWN, "shutdown: late comers too (0s; 15m with --all)" },
    { "dry-run",      'n', NULL,     take_dry_run,      SHUTDOWN, "shutdown: only show who would be told" },
    { "yes",          'y', NULL,     take_yes,          SHUTDOWN, "shutdown: do not ask" },
    { "help",         'h', NULL,     NULL,              ALL,      "show this, or more about a command" },
    { "version",      'V', NULL,     NULL,              ALL,      "show the version" },
};
/* clang-format on */

#define ROW_COUNT (sizeof(rows) / sizeof(rows[0]))

static_assert(ROW_COUNT <= 32, "a bit for each option");

/* One reading of a command line. */
struct reading {
    struct ctl_options *options;
    unsigned given; /* a bit for each row */
    bool help;
    bool version;
};

static enum options_result read_options(struct reading *reading, int argc, char **argv);
static void fill_getopt(struct option *long_options, char *short_options);
static size_t row_of(int letter);
static enum options_result refuse(int letter, char **argv);
static enum options_result read_command(struct reading *reading, int argc, char **argv);
static enum options_result check_arguments(const struct ctl_options *options);
static enum options_result check_given(const struct reading *reading);
static enum options_result check_server(struct ctl_options *options);
static enum options_result find_socket(struct ctl_options *options);
static enum options_result check_shutdown(const struct ctl_options *options);
static bool list_is_whole(const char *list);
static enum options_result show_help(const struct command *command);
static void print_options(unsigned commands);
static int take_duration(const char *value, uint64_t maximum, uint64_t *ms, char *message);

enum options_result ctl_options_parse(int argc, char **argv, struct ctl_options *options)
{
    struct reading reading = {.options = options};

    *options = (struct ctl_options){.socket = NULL};
    enum options_result result = read_options(&reading, argc, argv);
    if (result != OPTIONS_RUN)
        return result;
    if (reading.version) {
        printf(PROGRAM " %s\n", CLISER_VERSION);
        return OPTIONS_DONE;
    }
    if (reading.help && optind >= argc)
        return show_help(NULL);
    result = read_command(&reading, argc, argv);
    if (result == OPTIONS_RUN && reading.help)
        return show_help(options->command);
    if (result == OPTIONS_RUN)
        result = check_given(&reading);
    if (result == OPTIONS_RUN)
        result = check_arguments(options);
    if (result == OPTIONS_RUN)
        result = check_server(options);
    if (result == OPTIONS_RUN && options->command == &commands[COMMAND_SHUTDOWN])
        result = check_shutdown(options);
    return result;
}

static enum options_result read_options(struct reading *reading, int argc, char **argv)
{
    struct option long_options[ROW_COUNT + 1];
    char short_options[2 * ROW_COUNT + 2];
    char message[MESSAGE_BYTES];
    int letter = 0;

    fill_getopt(long_options, short_options);
    opterr = 0; /* getopt would name the program by its path */
    optind = 0; /* starts anew, also for the second line that a test reads */
    while ((letter = getopt_long(argc, argv, short_options, long_options, NULL)) != -1) {
        const size_t i = row_of(letter);

        if (i == ROW_COUNT)
            return refuse(letter, argv);
        reading->given |= 1U << i;
        reading->help = reading->help || letter == 'h';
        reading->version = reading->version || letter == 'V';
        if (rows[i].take && rows[i].take(reading->options, optarg, message) < 0) {
            say_error("--%s: %s", rows[i].name, message);
            return OPTIONS_WRONG;
        }
    }
    return OPTIONS_RUN;
}

static void fill_getopt(struct option *long_options, char *short_options)
{
    char *out = short_options;

    *out++ = ':'; /* a missing value is told from an unknown option */
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

/* Returns ROW_COUNT when there is no such letter. */
static size_t row_of(int letter)
{
    size_t i = 0;

    while (i < ROW_COUNT && rows[i].letter != letter)
        i++;
    return i;
}

/* getopt leaves the letter of what it could not take in optopt, or 0 for a long option it does not
 * know. */
static enum options_result refuse(int letter, char **argv)
{
    if (letter == ':')
        say_error("%s needs a value; --help lists the options", argv[optind - 1]);
    else if (optopt == 0)
        say_error("%s is no option; --help lists them", argv[optind - 1]);
    else if (row_of(optopt) < ROW_COUNT)
        say_error("%s should have no value", argv[optind - 1]);
    else
        say_error("-%c is no option; --help lists them", optopt);
    return OPTIONS_WRONG;
}

static enum options_result read_command(struct reading *reading, int argc, char **argv)
{
    struct ctl_options *options = reading->options;

    if (optind >= argc) {
        say_error("a command is missing; --help lists them");
        return OPTIONS_WRONG;
    }
    const char *name = argv[optind++];
    const char *meant = command_nearest(name);

    options->command = command_find(name);
    options->arguments = argv + optind;
    options->argument_count = (size_t)(argc - optind);
    if (options->command)
        return OPTIONS_RUN;
    if (meant)
        say_error("no command '%s'; did you mean %s?", name, meant);
    else
        say_error("no command '%s'; --help lists them", name);
    return OPTIONS_WRONG;
}

static enum options_result check_given(const struct reading *reading)
{
    const struct command *command = reading->options->command;
    const unsigned mine = BIT(command - commands);

    for (size_t i = 0; i < ROW_COUNT; i++) {
        if (!(reading->given & (1U << i)) || rows[i].commands & mine)
            continue;
        say_error("--%s is not for %s; '%s --help' lists what is", rows[i].name, command->name,
                  command->name);
        return OPTIONS_WRONG;
    }
    return OPTIONS_RUN;
}

static enum options_result check_arguments(const struct ctl_options *options)
{
    const struct command *command = options->command;

    if (options->argument_count < (size_t)command->min_arguments) {
        say_error("%s needs %s: " PROGRAM " %s %s", command->name, command->wants, command->name,
                  command->arguments);
        return OPTIONS_WRONG;
    }
    if (options->argument_count > (size_t)command->max_arguments) {
        say_error("'%s' is one argument too many: " PROGRAM " %s%s%s",
                  options->arguments[command->max_arguments], command->name,
                  command->arguments[0] ? " " : "", command->arguments);
        return OPTIONS_WRONG;
    }
    for (size_t i = 0; i < options->argument_count; i++) {
        const char *argument = options->arguments[i];

        if (command->min_arguments == 0 ? argument[0] != '\0'
                                        : proto_id_valid(argument, strlen(argument)))
            continue;
        say_error("'%s' is no %s", argument,
                  command->min_arguments == 0
                      ? "pattern: it should have at least one character"
                      : "ID: 1 to 64 of A-Z a-z 0-9 . _ : @ -; 'list' takes patterns");
        return OPTIONS_WRONG;
    }
    return OPTIONS_RUN;
}

static enum options_result check_server(struct ctl_options *options)
{
    if (options->url && !options->token_file)
        say_error("--url needs --token-file: a file whose first line is the server's token");
    else if (!options->url && options->token_file)
        say_error("--token-file goes with --url; a socket wants no token");
    else
        return options->url || options->socket ? OPTIONS_RUN : find_socket(options);
    return OPTIONS_WRONG;
}

/* Where it was said to be, where a server has it that was started here, or an installed one. */
static enum options_result find_socket(struct ctl_options *options)
{
    const char *named = getenv("CLISER_SOCKET");
    char message[MESSAGE_BYTES];

    options->socket = SOCKET_HERE;
    if (named && named[0] != '\0') {
        if (take_socket(options, named, message) == 0)
            return OPTIONS_RUN;
        say_error("CLISER_SOCKET: %s", message);
        return OPTIONS_WRONG;
    }
    if (access(SOCKET_HERE, F_OK) != 0 && access(SOCKET_INSTALLED, F_OK) == 0)
        options->socket = SOCKET_INSTALLED;
    return OPTIONS_RUN;
}

static enum options_result check_shutdown(const struct ctl_options *options)
{
    for (size_t i = 0; i < options->argument_count; i++) {
        if (!list_is_whole(options->arguments[i])) {
            say_error(NOT_A_LIST, options->arguments[i]);
            return OPTIONS_WRONG;
        }
    }
    if (options->argument_count == 0 && options->wave_count == 0 && !options->all)
        say_error("shutdown whom? IDs or patterns, or --all");
    else if (options->argument_count > 0 && options->all)
        say_error("--all takes no patterns beside it; to have some go first: --wave GLOB --all");
    else if ((options->argument_count > 0) + options->wave_count + options->all > OPTIONS_MAX_WAVES)
        say_error("there can be %d waves at most", OPTIONS_MAX_WAVES);
    else
        return OPTIONS_RUN;
    return OPTIONS_WRONG;
}

static enum options_result show_help(const struct command *command)
{
    if (command) {
        printf("Usage: " PROGRAM " %s%s%s [OPTION]...\n%c%s.\n\n", command->name,
               command->arguments[0] ? " " : "", command->arguments, command->help[0] & ~' ',
               command->help + 1);
        print_options(BIT(command - commands));
        if (command->more)
            printf("\n%s", command->more);
        return OPTIONS_DONE;
    }
    printf("Usage: " PROGRAM " COMMAND [ARGUMENT]... [OPTION]...\n"
           "Asks a running cliserd, and tells it what to do.\n\n");
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        const int room = 22 - (int)strlen(commands[i].name);

        printf("  %s %-*s %s\n", commands[i].name, room, commands[i].arguments, commands[i].help);
    }
    putchar('\n');
    print_options(ALL);
    printf("\n"
           "Durations take ms, s, m, h, d. '" PROGRAM " COMMAND --help' says more.\n"
           "\n"
           "Exit status: 0 done; 1 failed; 2 wrong usage; 3 no client matched; 4 a shutdown\n"
           "order is over and some are still up.\n");
    return OPTIONS_DONE;
}

static void print_options(unsigned commands_shown)
{
    for (size_t i = 0; i < ROW_COUNT; i++) {
        char name[32];

        if (!(rows[i].commands & commands_shown))
            continue;
        snprintf(name, sizeof(name), "--%s%s%s", rows[i].name, rows[i].argument ? " " : "",
                 rows[i].argument ? rows[i].argument : "");
        printf("  -%c, %-20s %s\n", rows[i].letter, name, rows[i].help);
    }
    printf("\nWithout --socket it is $CLISER_SOCKET, or " SOCKET_HERE
           " in this folder, or\n" SOCKET_INSTALLED ".\n");
}

static int take_socket(struct ctl_options *options, const char *value, char *message)
{
    const size_t most = sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1;

    if (value[0] == '\0' || strlen(value) > most) {
        snprintf(message, MESSAGE_BYTES, "a path of 1 to %zu bytes, which is what sockets can have",
                 most);
        return -1;
    }
    options->socket = value;
    return 0;
}

static int take_url(struct ctl_options *options, const char *value, char *message)
{
    const char *host = strstr(value, "://");

    if ((strncmp(value, "http://", 7) != 0 && strncmp(value, "https://", 8) != 0) ||
        host[3] == '\0' || host[3] == '/' || strpbrk(value, "?# \t\r\n")) {
        snprintf(message, MESSAGE_BYTES,
                 "'%.100s' should be the server's address, such as http://127.0.0.1:3333", value);
        return -1;
    }
    options->url = value;
    return 0;
}

static int take_token_file(struct ctl_options *options, const char *value, char *message)
{
    (void)message;
    options->token_file = value;
    return 0;
}

static int take_json(struct ctl_options *options, const char *value, char *message)
{
    (void)value;
    (void)message;
    options->json = true;
    return 0;
}

/* The last of the two counts, as with options that are given twice. */
static int take_connected(struct ctl_options *options, const char *value, char *message)
{
    (void)value;
    (void)message;
    options->connected = true;
    options->disconnected = false;
    return 0;
}

static int take_disconnected(struct ctl_options *options, const char *value, char *message)
{
    (void)value;
    (void)message;
    options->disconnected = true;
    options->connected = false;
    return 0;
}

static int take_all(struct ctl_options *options, const char *value, char *message)
{
    (void)value;
    (void)message;
    options->all = true;
    return 0;
}

static int take_wave(struct ctl_options *options, const char *value, char *message)
{
    if (options->wave_count == OPTIONS_MAX_WAVES) {
        snprintf(message, MESSAGE_BYTES, "there can be %d waves at most", OPTIONS_MAX_WAVES);
        return -1;
    }
    if (!list_is_whole(value)) {
        snprintf(message, MESSAGE_BYTES, NOT_A_LIST, value);
        return -1;
    }
    options->waves[options->wave_count++] = value;
    return 0;
}

/* Nothing between two commas is more likely a slip than meant: "web-*, db-*" is two words. */
static bool list_is_whole(const char *list)
{
    const size_t len = strlen(list);

    return len > 0 && list[0] != ',' && list[len - 1] != ',' && !strstr(list, ",,") &&
           !strpbrk(list, " \t\r\n");
}

static int take_grace(struct ctl_options *options, const char *value, char *message)
{
    uint64_t ms = 0;

    options->grace = value;
    return take_duration(value, MAX_GRACE_MS, &ms, message);
}

static int take_hold(struct ctl_options *options, const char *value, char *message)
{
    options->hold = value;
    return take_duration(value, MAX_HOLD_MS, &options->hold_ms, message);
}

static int take_dry_run(struct ctl_options *options, const char *value, char *message)
{
    (void)value;
    (void)message;
    options->dry_run = true;
    return 0;
}

static int take_yes(struct ctl_options *options, const char *value, char *message)
{
    (void)value;
    (void)message;
    options->yes = true;
    return 0;
}

static int take_duration(const char *value, uint64_t maximum, uint64_t *ms, char *message)
{
    char most[UNITS_TEXT_BYTES];

    if (units_parse_duration(value, ms) == 0 && *ms <= maximum)
        return 0;
    snprintf(message, MESSAGE_BYTES,
             "'%.100s' should be a duration such as 90s, 15m or 1h, %s at most", value,
             units_format_duration(maximum, most));
    return -1;
}
