/* The command line of cliserctl: what is taken, in any order, and what is refused. */
#include "options.h"

#include "commands.h"
#include "unit.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MAX_WORDS 160

/* getopt sorts the words, so they are copied. */
static enum options_result parse(struct ctl_options *options, const char *line)
{
    static char text[4096];
    static char *words[MAX_WORDS + 1];
    char *rest = NULL;
    int count = 0;

    snprintf(text, sizeof(text), "cliserctl %s", line);
    for (char *word = strtok_r(text, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
        assert_true(count < MAX_WORDS);
        words[count++] = word;
    }
    words[count] = NULL;
    return ctl_options_parse(count, words, options);
}

static void assert_taken(struct ctl_options *options, const char *line)
{
    if (parse(options, line) != OPTIONS_RUN)
        fail_msg("refused: %s", line);
}

static void options_stand_before_and_behind_the_command(void **state)
{
    static const char *const lines[] = {
        "-s /run/x --json list web-* -c",
        "list web-* --socket=/run/x -jc",
        "--connected list -j -- web-*",
        "-j list -s/run/x web-* --connected",
    };
    struct ctl_options options;

    (void)state;
    for (size_t i = 0; i < COUNT(lines); i++) {
        assert_taken(&options, lines[i]);
        assert_ptr_equal(options.command, &commands[COMMAND_LIST]);
        assert_int_equal(options.argument_count, 1);
        assert_string_equal(options.arguments[0], "web-*");
        assert_true(options.json && options.connected && !options.disconnected);
        assert_string_equal(options.socket, i == 2 ? "cliser.sock" : "/run/x");
    }
}

static void every_command_is_known_and_counts_its_arguments(void **state)
{
    struct ctl_options options;
    char line[128];

    (void)state;
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        const struct command *command = &commands[i];

        snprintf(line, sizeof(line), "%s%s", command->name,
                 command->min_arguments > 0 || i == COMMAND_SHUTDOWN ? " a-1" : "");
        assert_taken(&options, line);
        assert_ptr_equal(options.command, command);
        snprintf(line, sizeof(line), "%s a b c", command->name);
        assert_int_equal(parse(&options, line),
                         i == COMMAND_SHUTDOWN ? OPTIONS_RUN : OPTIONS_WRONG);
        if (command->min_arguments > 0)
            assert_int_equal(parse(&options, command->name), OPTIONS_WRONG);
    }
}

static void shutdown_takes_waves_in_order(void **state)
{
    struct ctl_options options;

    (void)state;
    assert_taken(&options, "shutdown web-* --wave db-*,nas x-1 --wave y --grace 90s --hold 1h -y");
    assert_int_equal(options.argument_count, 2);
    assert_string_equal(options.arguments[1], "x-1");
    assert_int_equal(options.wave_count, 2);
    assert_string_equal(options.waves[0], "db-*,nas");
    assert_string_equal(options.waves[1], "y");
    assert_string_equal(options.grace, "90s");
    assert_string_equal(options.hold, "1h");
    assert_int_equal(options.hold_ms, 3600000);
    assert_true(options.yes && !options.dry_run && !options.all);

    assert_taken(&options, "shutdown --wave db-* --all");
    assert_true(options.all);
    assert_int_equal(options.argument_count, 0);
}

static void id_that_begins_with_a_dash_stands_behind_two(void **state)
{
    struct ctl_options options;

    (void)state;
    assert_taken(&options, "show -- -odd-");
    assert_string_equal(options.arguments[0], "-odd-");
}

static void wrong_lines_are_refused(void **state)
{
    static const char *const lines[] = {
        "",
        "lst",
        "--json",
        "list --nope",
        "list -Z",
        "list --json=1",
        "list --socket",
        "list --socket=",
        "list --yes",
        "status --all",
        "show web-1 --connected",
        "show web-*",
        "ping a/b",
        "ping xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "shutdown",
        "shutdown --yes",
        "shutdown --all web-*",
        "shutdown a --wave=",
        "shutdown a --wave b,,c",
        "shutdown a --wave ,b",
        "shutdown a --wave b,",
        "shutdown a --grace 60",
        "shutdown a --grace 25h",
        "shutdown a --grace soon",
        "shutdown a --hold -1s",
        "shutdown a --hold 31d",
        "status --url http://x",
        "status --token-file f",
        "status --url x:1 --token-file f",
        "status --url http:// --token-file f",
        "status --url http:/// --token-file f",
        "status --url ftp://x --token-file f",
        "status --url http://x/?a --token-file f",
    };
    struct ctl_options options;

    (void)state;
    for (size_t i = 0; i < COUNT(lines); i++) {
        if (parse(&options, lines[i]) != OPTIONS_WRONG)
            fail_msg("not refused: %s", lines[i]);
    }
}

static void socket_path_may_be_as_long_as_the_kernel_takes(void **state)
{
    struct ctl_options options;
    char line[256] = "status -s ";

    (void)state;
    memset(line + strlen(line), 'x', 107);
    assert_taken(&options, line);
    line[strlen(line)] = 'x';
    assert_int_equal(parse(&options, line), OPTIONS_WRONG);
}

static void there_are_64_waves_at_most(void **state)
{
    struct ctl_options options;
    char line[4096] = "shutdown";

    (void)state;
    for (int i = 0; i < 64; i++)
        strcat(line, " -w x");
    assert_taken(&options, line);
    assert_int_equal(options.wave_count, 64);
    strcat(line, " y");
    assert_int_equal(parse(&options, line), OPTIONS_WRONG);
    line[strlen(line) - 1] = '\0';
    strcat(line, "-w x");
    assert_int_equal(parse(&options, line), OPTIONS_WRONG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_stand_before_and_behind_the_command),
        cmocka_unit_test(every_command_is_known_and_counts_its_arguments),
        cmocka_unit_test(shutdown_takes_waves_in_order),
        cmocka_unit_test(id_that_begins_with_a_dash_stands_behind_two),
        cmocka_unit_test(wrong_lines_are_refused),
        cmocka_unit_test(socket_path_may_be_as_long_as_the_kernel_takes),
        cmocka_unit_test(there_are_64_waves_at_most),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
