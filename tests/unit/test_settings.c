/*
 * The reader of ini files: each type of value, every mistake that inih passes over, all errors at
 * once with their lines, and the values that come by other ways than a file.
 */
#include "base/settings.h"

#include "unit.h"

#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct values {
    bool polite;
    uint64_t limit;
    uint64_t pause;
    uint64_t forget;
    int colour;
    char *name;
    char *place;
    struct settings_list peers;
    struct settings_list words;
    uint64_t max_clients;
};

static const char *const colours[] = {"red", "green", "blue", NULL};

#define AT(member) .offset = offsetof(struct values, member)

/* clang-format off */
static const struct setting table[] = {
    {"first", "polite", SETTING_BOOL, AT(polite), .def = "yes"},
    {"first", "limit", SETTING_NUMBER, AT(limit), .minimum = 5, .maximum = 10, .def = "7"},
    {"first", "pause", SETTING_DURATION, AT(pause), .minimum = 10, .maximum = 60000, .def = "1s"},
    {"first", "forget", SETTING_DURATION, AT(forget), .minimum = 1000, .maximum = UINT64_MAX - 1,
     .word = "never", .def = "never"},
    {"first", "colour", SETTING_CHOICE, AT(colour), .choices = colours, .def = "green"},
    {"first", "name", SETTING_TEXT, AT(name), .def = "nobody"},
    {"first", "place", SETTING_TEXT, AT(place)},
    {"second", "peers", SETTING_LIST, AT(peers), .def = "here, there"},
    {"second", "words", SETTING_LINES, AT(words), .whole = true},
    {"second", "max_clients", SETTING_NUMBER, AT(max_clients), .maximum = UINT64_MAX, .def = "1"},
};
/* clang-format on */

#define ROWS COUNT(table)

struct fixture {
    char path[64];
    struct values values;
    struct settings_report report;
    int result;
};

static int set_up(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));

    if (!fixture)
        return -1;
    strcpy(fixture->path, "/tmp/cliser-settings-XXXXXX");
    const int fd = mkstemp(fixture->path);
    if (fd < 0)
        return -1;
    close(fd);
    *state = fixture;
    return 0;
}

static void forget_load(struct fixture *fixture)
{
    settings_clear(table, ROWS, &fixture->values);
    settings_report_clear(&fixture->report);
    memset(&fixture->values, 0, sizeof(fixture->values));
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;

    forget_load(fixture);
    unlink(fixture->path);
    free(fixture);
    return 0;
}

static void write_file(const char *path, const char *bytes, size_t len)
{
    FILE *file = fopen(path, "w");

    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
}

/* Loads the bytes as a file; what was loaded before is forgotten. */
static void load_bytes(struct fixture *fixture, const char *bytes, size_t len)
{
    forget_load(fixture);
    write_file(fixture->path, bytes, len);
    fixture->result = settings_load(fixture->path, table, ROWS, &fixture->values, &fixture->report);
    assert_int_equal(fixture->result == 0, fixture->report.count == 0);
}

static void load(struct fixture *fixture, const char *text)
{
    load_bytes(fixture, text, strlen(text));
}

static void assert_loaded(const struct fixture *fixture)
{
    if (fixture->result != 0)
        fail_msg("line %u: %s", fixture->report.errors[0].line, fixture->report.errors[0].text);
}

/* Exactly one error, on this line, with these words in it. */
static void assert_error(const struct fixture *fixture, unsigned line, const char *words)
{
    assert_int_equal(fixture->report.count, 1);
    assert_int_equal(fixture->report.errors[0].line, line);
    if (!strstr(fixture->report.errors[0].text, words))
        fail_msg("\"%s\" has not \"%s\"", fixture->report.errors[0].text, words);
}

static void assert_list(const struct settings_list *list, size_t count, const char *const *items,
                        const unsigned *lines)
{
    assert_int_equal(list->count, count);
    for (size_t i = 0; i < count; i++) {
        assert_string_equal(list->items[i], items[i]);
        assert_int_equal(list->lines[i], lines[i]);
    }
}

#define ASSERT_LIST(list, items, lines)                                                            \
    (assert_int_equal(COUNT(items), COUNT(lines)), assert_list((list), COUNT(items), items, lines))

static void assert_defaults(const struct values *values)
{
    static const char *const peers[] = {"here", "there"};
    static const unsigned lines[] = {0, 0};

    assert_true(values->polite);
    assert_int_equal(values->limit, 7);
    assert_int_equal(values->pause, 1000);
    assert_true(values->forget == SETTING_NEVER);
    assert_int_equal(values->colour, 1);
    assert_string_equal(values->name, "nobody");
    assert_null(values->place);
    ASSERT_LIST(&values->peers, peers, lines);
    assert_int_equal(values->words.count, 0);
}

static void defaults_hold_where_nothing_is_set(void **state)
{
    struct fixture *fixture = *state;

    assert_int_equal(settings_set_defaults(table, ROWS, &fixture->values), 0);
    assert_defaults(&fixture->values);

    load(fixture, "");
    assert_loaded(fixture);
    assert_defaults(&fixture->values);

    load(fixture, "; nothing\n\n[first]\n# nothing\n   \n[second]\n");
    assert_loaded(fixture);
    assert_defaults(&fixture->values);
    assert_int_equal(settings_line(&fixture->report, "first", "limit"), 0);
}

static void file_sets_a_value_of_each_type(void **state)
{
    static const char *const peers[] = {"a:1", "b", "c d"};
    static const char *const words[] = {"one, and the same", "two"};
    static const unsigned peer_lines[] = {10, 10, 10};
    static const unsigned word_lines[] = {11, 12};
    struct fixture *fixture = *state;

    load(fixture, "[first]\n"
                  "polite = no\n"
                  "limit=10\n"
                  "  \n"
                  "pause\t=\t250ms\n"
                  "forget = 30d\n"
                  "colour: blue\n"
                  "name = a b  c\n"
                  "[second] ; the rest\n"
                  "peers = a:1,b , c d\n"
                  "words = one, and the same\n"
                  "words = two ");
    assert_loaded(fixture);
    assert_false(fixture->values.polite);
    assert_int_equal(fixture->values.limit, 10);
    assert_int_equal(fixture->values.pause, 250);
    assert_true(fixture->values.forget == UINT64_C(30) * 86400000);
    assert_int_equal(fixture->values.colour, 2);
    assert_string_equal(fixture->values.name, "a b  c");
    ASSERT_LIST(&fixture->values.peers, peers, peer_lines);
    ASSERT_LIST(&fixture->values.words, words, word_lines);
    assert_int_equal(settings_line(&fixture->report, "first", "pause"), 5);
    assert_int_equal(settings_line(&fixture->report, "second", "words"), 11);
    assert_int_equal(settings_line(&fixture->report, "second", "no_such_key"), 0);
}

static void comment_behind_a_value_is_no_part_of_it(void **state)
{
    struct fixture *fixture = *state;

    load(fixture, "[first] # one\nname = me ; not you\nlimit = 5\t; five\nplace = a;b#c # d\n");
    assert_loaded(fixture);
    assert_string_equal(fixture->values.name, "me");
    assert_int_equal(fixture->values.limit, 5);
    assert_string_equal(fixture->values.place, "a;b#c # d");
}

static void bool_takes_yes_and_no_only(void **state)
{
    static const char *const bad[] = {"true", "1", "Yes", "on", "", "yes no"};
    struct fixture *fixture = *state;

    for (size_t i = 0; i < COUNT(bad); i++) {
        char text[64];

        snprintf(text, sizeof(text), "[first]\npolite = %s\n", bad[i]);
        load(fixture, text);
        assert_error(fixture, 2, "should be yes or no");
    }
}

static void number_outside_its_bounds_is_refused_with_them(void **state)
{
    static const char *const bad[] = {"4", "11", "-5", "5x", "", "99999999999999999999", "7.5"};
    struct fixture *fixture = *state;

    for (size_t i = 0; i < COUNT(bad); i++) {
        char text[64];

        snprintf(text, sizeof(text), "[first]\nlimit = %s\n", bad[i]);
        load(fixture, text);
        assert_error(fixture, 2, "limit: \"");
        assert_error(fixture, 2, "should be a whole number from 5 to 10");
        assert_int_equal(fixture->values.limit, 7);
    }
    load(fixture, "[second]\nmax_clients = 18446744073709551615\n");
    assert_loaded(fixture);
    assert_true(fixture->values.max_clients == UINT64_MAX);
}

static void duration_outside_its_bounds_is_refused_with_them(void **state)
{
    static const char *const bad[] = {"9ms", "61s", "10", "", "never", "1 s", "60001ms"};
    struct fixture *fixture = *state;

    for (size_t i = 0; i < COUNT(bad); i++) {
        char text[64];

        snprintf(text, sizeof(text), "[first]\npause = %s\n", bad[i]);
        load(fixture, text);
        assert_error(fixture, 2, "from 10ms to 1m");
    }
    load(fixture, "[first]\nforget = soon\n");
    assert_error(fixture, 2, ", or never");
    load(fixture, "[first]\npause = 10ms\nforget = never\n");
    assert_loaded(fixture);
    assert_true(fixture->values.forget == SETTING_NEVER);
}

static void choice_that_does_not_exist_is_refused_with_those_that_do(void **state)
{
    struct fixture *fixture = *state;

    load(fixture, "[first]\ncolour = pink\n");
    assert_error(fixture, 2, "colour: \"pink\" should be one of red, green, blue");
    load(fixture, "[first]\ncolour = gree\n");
    assert_error(fixture, 2, "should be one of");
}

static void empty_text_and_empty_items_are_refused(void **state)
{
    static const char *const bad[] = {
        "[first]\nname =\n",      "[first]\nname = ; me\n",   "[second]\npeers =\n",
        "[second]\npeers = ,a\n", "[second]\npeers = a,,b\n", "[second]\npeers = a, ,b\n",
        "[second]\npeers = ,\n",  "[second]\nwords =\n",
    };
    struct fixture *fixture = *state;

    for (size_t i = 0; i < COUNT(bad); i++) {
        load(fixture, bad[i]);
        assert_error(fixture, 2, "empty");
    }
}

static void list_goes_on_in_indented_lines_and_in_repeated_keys(void **state)
{
    static const char *const peers[] = {"a", "b", "c", "d", "e:1", "f"};
    static const unsigned lines[] = {2, 3, 3, 6, 7, 9};
    struct fixture *fixture = *state;

    load(fixture, "[second]\n"
                  "peers = a,\n"
                  "  b, c,\n"
                  "\n"
                  "  ; a comment between\n"
                  "\td ; a comment behind\n"
                  " e:1\n"
                  "max_clients = 3\n"
                  "peers = f\n");
    assert_loaded(fixture);
    ASSERT_LIST(&fixture->values.peers, peers, lines);
    assert_int_equal(fixture->values.max_clients, 3);
}

static void lines_go_on_in_indented_lines_too(void **state)
{
    static const char *const words[] = {"one", "two = 2"};
    static const unsigned lines[] = {2, 3};
    struct fixture *fixture = *state;

    load(fixture, "[second]\nwords = one\n  two = 2\n");
    assert_loaded(fixture);
    ASSERT_LIST(&fixture->values.words, words, lines);
}

static void list_in_a_file_replaces_its_default(void **state)
{
    static const char *const peers[] = {"mine"};
    static const unsigned lines[] = {2};
    struct fixture *fixture = *state;

    load(fixture, "[second]\npeers = mine\n");
    assert_loaded(fixture);
    ASSERT_LIST(&fixture->values.peers, peers, lines);
}

/* Whoever indents a whole file: inih would take the second key for more of the first one's value.
 */
static void indented_key_is_refused_and_never_becomes_a_value(void **state)
{
    struct fixture *fixture = *state;

    load(fixture, "[second]\n  words = one\n  max_clients = 5\n");
    assert_error(fixture, 3, "begins at the start of its line");
    load(fixture, "[second]\npeers = a\n\tpeers = b\n");
    assert_error(fixture, 3, "begins at the start of its line");
    load(fixture, "[first]\n  limit = 5\n  pause = 1s\n");
    assert_error(fixture, 3, "begins at the start of its line");
    load(fixture, "[first]\nlimit = 5\n  6\n");
    assert_error(fixture, 3, "takes one value");
    load(fixture, "[first]\nlimit = 5\n[second]\n  max_clients = 6\n");
    assert_loaded(fixture);
    assert_int_equal(fixture->values.max_clients, 6);
}

static void key_given_twice_is_refused_with_the_first_line(void **state)
{
    struct fixture *fixture = *state;

    load(fixture, "[first]\nlimit = 5\nname = x\n[second]\n[first]\nlimit = 6\n");
    assert_error(fixture, 6, "limit is set twice; line 2 has it already");
    assert_int_equal(fixture->values.limit, 5);
}

static void dash_and_underscore_in_keys_are_the_same(void **state)
{
    struct fixture *fixture = *state;

    load(fixture, "[second]\nmax-clients = 9\n");
    assert_loaded(fixture);
    assert_int_equal(fixture->values.max_clients, 9);
    load(fixture, "[second]\nmax-clients = 9\nmax_clients = 9\n");
    assert_error(fixture, 3, "set twice; line 2");
    assert_non_null(settings_find(table, ROWS, "second", "max-clients"));
    assert_null(settings_find(table, ROWS, "second", "max.clients"));
    assert_null(settings_find(table, ROWS, "second", "max_client"));
    assert_null(settings_find(table, ROWS, "second", "max_clients_"));
    assert_null(settings_find(table, ROWS, "first", "max_clients"));
}

static void unknown_names_are_refused_with_the_known_ones(void **state)
{
    struct fixture *fixture = *state;

    load(fixture, "[first]\nlimits = 5\n");
    assert_error(fixture, 2, "unknown key limits in [first]; it has polite, limit, pause");
    load(fixture, "[third]\nlimit = 5\n  6\nelse = 7\n");
    assert_error(fixture, 1, "unknown section [third]; the sections are first, second");
    load(fixture, "[third] ; with nothing in it\n[first]\nlimit = 5\n");
    assert_error(fixture, 1, "unknown section [third]");
    assert_int_equal(fixture->values.limit, 5);
    load(fixture, "[first]\nlimit = 5\n[ second ]\n[]\n");
    assert_int_equal(fixture->report.count, 2);
    load(fixture, "limit = 5\n");
    assert_error(fixture, 1, "limit stands before any section; the sections are first, second");
    load(fixture, "[second]\nlimit = 5\n");
    assert_error(fixture, 2, "unknown key limit in [second]; it has peers, words, max_clients");
    load(fixture, "[FIRST]\nlimit = 5\n");
    assert_error(fixture, 1, "unknown section [FIRST]");
    load(fixture, "[first]\nLimit = 5\n  6\n");
    assert_error(fixture, 2, "unknown key Limit");
}

static void text_that_is_no_ini_is_refused(void **state)
{
    static const char *const bad[] = {
        "limit",     "[first",      "hello world", "{}", "]", "[first] limit = 5",
        "[fir ;st]", "lim ;it = 5",
    };
    struct fixture *fixture = *state;

    for (size_t i = 0; i < COUNT(bad); i++) {
        char text[128];

        snprintf(text, sizeof(text), "[first]\n%s\nname = x\n", bad[i]);
        load(fixture, text);
        assert_error(fixture, 2, "expected \"[section]\", \"key = value\" or a comment");
        assert_string_equal(fixture->values.name, "x");
        /* On the last line, with no end to it. */
        snprintf(text, sizeof(text), "[first]\n%s", bad[i]);
        load(fixture, text);
        assert_error(fixture, 2, "expected");
    }
}

static void all_errors_are_found_at_once_with_their_lines(void **state)
{
    static const unsigned lines[] = {1, 3, 4, 5, 7, 8, 9};
    struct fixture *fixture = *state;

    load(fixture, "stray = 1\n"
                  "[first]\n"
                  "limit = 1000\n"
                  "what is this\n"
                  "colour = pink\n"
                  "name = fine\n"
                  "name = again\n"
                  "pause = long\n"
                  "[third]\n"
                  "key = 1\n");
    assert_int_equal(fixture->report.count, COUNT(lines));
    for (size_t i = 0; i < COUNT(lines); i++)
        assert_int_equal(fixture->report.errors[i].line, lines[i]);
    assert_string_equal(fixture->values.name, "fine");
}

static void errors_are_printed_in_the_order_of_lines(void **state)
{
    struct fixture *fixture = *state;
    char printed[2048] = "";
    char wanted[512];
    FILE *out = tmpfile();
    const int old = dup(STDERR_FILENO);

    load(fixture, "[first]\nlimit = 1000\ncolour = pink\n");
    settings_report_add(&fixture->report, 1, "found %s", "later");
    settings_report_add(&fixture->report, 0, "as a whole");

    assert_non_null(out);
    dup2(fileno(out), STDERR_FILENO);
    settings_report_print(&fixture->report, "program");
    fflush(stderr);
    dup2(old, STDERR_FILENO);
    close(old);
    rewind(out);
    assert_true(fread(printed, 1, sizeof(printed) - 1, out) > 0);
    fclose(out);

    snprintf(wanted, sizeof(wanted),
             "program: as a whole\n"
             "program: %s:1: found later\n"
             "program: %s:2: limit: \"1000\" should be a whole number from 5 to 10\n"
             "program: %s:3: colour: \"pink\" should be one of red, green, blue\n",
             fixture->path, fixture->path, fixture->path);
    assert_string_equal(printed, wanted);
}

static void line_of_198_bytes_is_taken_and_of_199_refused(void **state)
{
    struct fixture *fixture = *state;

    for (size_t len = 190; len <= 1000; len++) {
        char text[1100] = "[first]\nname = ";
        const size_t header = strlen("[first]\n");

        memset(text + strlen(text), 'x', header + len - strlen(text));
        strcpy(text + header + len, "\nlimit = 5\n");
        load(fixture, text);
        if (len <= 198) {
            assert_loaded(fixture);
            assert_int_equal(strlen(fixture->values.name), len - strlen("name = "));
        } else {
            assert_error(fixture, 2, "a line takes at most 198");
            assert_string_equal(fixture->values.name, "nobody");
        }
        assert_int_equal(fixture->values.limit, 5);
    }
}

/* What inih would cut off such a line and read as a key of its own. */
static void key_hidden_behind_a_long_line_is_not_taken(void **state)
{
    struct fixture *fixture = *state;
    char text[512];

    snprintf(text, sizeof(text), "[first]\nname = %0199d\n;%0198dlimit = 5\n", 0, 0);
    load(fixture, text);
    assert_int_equal(fixture->report.count, 2);
    assert_int_equal(fixture->report.errors[0].line, 2);
    assert_int_equal(fixture->report.errors[1].line, 3);
    assert_int_equal(fixture->values.limit, 7);
}

static void nul_byte_is_refused_with_its_line(void **state)
{
    struct fixture *fixture = *state;

    load_bytes(fixture, BYTES("[first]\nname = a\0b\nlimit = 5\n"));
    assert_error(fixture, 2, "NUL byte");
    assert_int_equal(fixture->values.limit, 5);
    load_bytes(fixture, BYTES("[first]\n\0\n"));
    assert_error(fixture, 2, "NUL byte");
    load_bytes(fixture, BYTES("[first]\nlimit = 5\n\0"));
    assert_error(fixture, 3, "NUL byte");
    load_bytes(fixture, BYTES("; a comment with \0\n"));
    assert_error(fixture, 1, "NUL byte");
}

static void byte_order_mark_and_crlf_are_accepted(void **state)
{
    struct fixture *fixture = *state;

    load(fixture, "\xef\xbb\xbf[first]\r\nlimit = 5\r\nname = x y\r\n\r\n; z\r\n[second]\r\n");
    assert_loaded(fixture);
    assert_int_equal(fixture->values.limit, 5);
    assert_string_equal(fixture->values.name, "x y");
    load(fixture, "\xef\xbb\xbf; comment\n[first]\nlimit = 5\n");
    assert_loaded(fixture);
    load(fixture, "\xef\xbb\xbf\n[first]\n");
    assert_loaded(fixture);
    /* Only at the beginning of the file. */
    load(fixture, "[first]\n\xef\xbb\xbf; comment\n");
    assert_error(fixture, 2, "expected");
}

static void secret_that_would_be_cut_is_refused(void **state)
{
    static const char *const bad[] = {"words = a ;b\n",      "words = a\t;b\n",
                                      "words = ;b\n",        "words = a ; note\n",
                                      "words = a\n  b ;c\n", "words = a\v;b\n"};
    static const char *const words[] = {"a;b", ";c", "d # e"};
    static const unsigned lines[] = {2, 3, 4};
    struct fixture *fixture = *state;

    for (size_t i = 0; i < COUNT(bad); i++) {
        char text[64];

        snprintf(text, sizeof(text), "[second]\n%s", bad[i]);
        load(fixture, text);
        assert_error(fixture, i == 4 ? 3 : 2, "would be cut at \" ;\"");
    }
    load(fixture, "[second]\nwords = a;b\nwords =;c\nwords = d # e\n");
    assert_loaded(fixture);
    ASSERT_LIST(&fixture->values.words, words, lines);
}

static void secret_is_never_part_of_an_error(void **state)
{
    struct fixture *fixture = *state;

    load(fixture, "[second]\nwords = hunter2 ;x\n  max_clients = hunter2\n");
    assert_int_equal(fixture->report.count, 2);
    for (size_t i = 0; i < fixture->report.count; i++)
        assert_null(strstr(fixture->report.errors[i].text, "hunter2"));
}

static void path_that_is_no_small_file_is_refused(void **state)
{
    struct fixture *fixture = *state;
    char fifo[80];

    snprintf(fifo, sizeof(fifo), "%s.fifo", fixture->path);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    const char *const paths[] = {"/nonexistent/cliser.ini", "/tmp", "/dev/zero", fifo};

    for (size_t i = 0; i < COUNT(paths); i++) {
        forget_load(fixture);
        fixture->result = settings_load(paths[i], table, ROWS, &fixture->values, &fixture->report);
        assert_int_equal(fixture->result, -1);
        assert_error(fixture, 0, paths[i]);
        assert_defaults(&fixture->values);
    }
    unlink(fifo);
    assert_int_equal(truncate(fixture->path, (1 << 20) + 1), 0);
    forget_load(fixture);
    assert_int_equal(settings_load(fixture->path, table, ROWS, &fixture->values, &fixture->report),
                     -1);
    assert_error(fixture, 0, "at most 1 MiB");
}

static void value_from_a_command_line_is_set_over_the_file(void **state)
{
    struct fixture *fixture = *state;
    char message[256] = "";

    load(fixture, "[first]\nlimit = 5\nname = file\n");
    assert_loaded(fixture);
    assert_int_equal(settings_set(table, ROWS, &fixture->values, "first", "limit", "6", message,
                                  sizeof(message)),
                     0);
    assert_int_equal(fixture->values.limit, 6);
    assert_int_equal(settings_set(table, ROWS, &fixture->values, "first", "name",
                                  "line ; all of it", message, sizeof(message)),
                     0);
    assert_string_equal(fixture->values.name, "line ; all of it");
    assert_int_equal(settings_set(table, ROWS, &fixture->values, "second", "max-clients", "6",
                                  message, sizeof(message)),
                     0);
    assert_int_equal(fixture->values.max_clients, 6);
}

static void value_from_a_command_line_replaces_the_default_of_a_list(void **state)
{
    static const char *const peers[] = {"x", "y"};
    static const unsigned lines[] = {0, 0};
    struct fixture *fixture = *state;
    char message[256] = "";

    load(fixture, "");
    assert_int_equal(settings_set(table, ROWS, &fixture->values, "second", "peers", "x,y", message,
                                  sizeof(message)),
                     0);
    ASSERT_LIST(&fixture->values.peers, peers, lines);
}

static void wrong_value_from_a_command_line_says_what_is_wrong(void **state)
{
    struct fixture *fixture = *state;
    char message[256] = "";

    assert_int_equal(settings_set_defaults(table, ROWS, &fixture->values), 0);
    assert_int_equal(settings_set(table, ROWS, &fixture->values, "first", "limit", "99", message,
                                  sizeof(message)),
                     -1);
    assert_string_equal(message, "\"99\" should be a whole number from 5 to 10");
    assert_int_equal(settings_set(table, ROWS, &fixture->values, "first", "nothing", "99", message,
                                  sizeof(message)),
                     -1);
    assert_string_equal(message, "there is no nothing");
    assert_defaults(&fixture->values);
}

/* Changes one row at a time: only that row may differ, and it must. */
static void settings_are_equal_only_where_their_values_are(void **state)
{
    static const struct {
        const char *section;
        const char *key;
        const char *value;
    } changes[ROWS] = {
        {"first", "polite", "no"},  {"first", "limit", "8"},
        {"first", "pause", "2s"},   {"first", "forget", "1d"},
        {"first", "colour", "red"}, {"first", "name", "else"},
        {"first", "place", "some"}, {"second", "peers", "here,their"},
        {"second", "words", "a"},   {"second", "max_clients", "2"},
    };
    struct fixture *fixture = *state;
    char message[256];

    assert_int_equal(settings_set_defaults(table, ROWS, &fixture->values), 0);
    for (size_t changed = 0; changed < ROWS; changed++) {
        struct values other = {.name = NULL};

        assert_int_equal(settings_set_defaults(table, ROWS, &other), 0);
        assert_int_equal(settings_set(table, ROWS, &other, changes[changed].section,
                                      changes[changed].key, changes[changed].value, message,
                                      sizeof(message)),
                         0);
        for (size_t row = 0; row < ROWS; row++) {
            assert_int_equal(settings_equal(&table[row], &fixture->values, &other), row != changed);
            assert_int_equal(settings_equal(&table[row], &other, &fixture->values), row != changed);
        }
        settings_clear(table, ROWS, &other);
    }
}

static void lists_of_different_length_are_not_equal(void **state)
{
    struct fixture *fixture = *state;
    struct values other = {.name = NULL};
    const struct setting *row = settings_find(table, ROWS, "second", "peers");
    char message[256];

    load(fixture, "[second]\npeers = here\n  there\n");
    assert_int_equal(settings_set_defaults(table, ROWS, &other), 0);
    assert_true(settings_equal(row, &fixture->values, &other)); /* lines do not count */
    assert_int_equal(
        settings_set(table, ROWS, &other, "second", "peers", "here", message, sizeof(message)), 0);
    assert_false(settings_equal(row, &fixture->values, &other));
    settings_clear(table, ROWS, &other);
}

static void clear_may_be_called_twice(void **state)
{
    struct fixture *fixture = *state;

    load(fixture, "[first]\nname = x\n[second]\nwords = a\n");
    settings_clear(table, ROWS, &fixture->values);
    assert_null(fixture->values.name);
    assert_null(fixture->values.peers.items);
    assert_int_equal(fixture->values.words.count, 0);
    settings_clear(table, ROWS, &fixture->values);
    settings_report_clear(&fixture->report);
    settings_report_clear(&fixture->report);
    assert_int_equal(fixture->report.count, 0);
}

static void secret_is_the_first_line_of_its_file(void **state)
{
    static const struct {
        const char *file;
        const char *secret;
    } good[] = {
        {"hunter2", "hunter2"},         {"hunter2\n", "hunter2"},
        {"hunter2\r\n", "hunter2"},     {"hunter2\nolder one\n", "hunter2"},
        {" a ;b # c \n", " a ;b # c "}, {"p\xc3\xa4ss\n", "p\xc3\xa4ss"},
    };
    struct fixture *fixture = *state;
    char message[256];

    for (size_t i = 0; i < COUNT(good); i++) {
        write_file(fixture->path, good[i].file, strlen(good[i].file));
        char *secret = settings_read_secret(fixture->path, message, sizeof(message));
        assert_non_null(secret);
        assert_string_equal(secret, good[i].secret);
        settings_free_secret(secret);
    }
}

static void secret_file_without_a_secret_is_refused(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
        const char *words;
    } bad[] = {
        {BYTES(""), "is empty"},
        {BYTES("\n"), "is empty"},
        {BYTES("\r\nsecond\n"), "is empty"},
        {BYTES("a\0b\n"), "NUL byte"},
        {BYTES("\0\n"), "NUL byte"},
        {BYTES("a\rb\n"), "CR"},
        {BYTES("a\r\r\n"), "CR"},
    };
    struct fixture *fixture = *state;
    char message[256];

    for (size_t i = 0; i < COUNT(bad); i++) {
        write_file(fixture->path, bad[i].bytes, bad[i].len);
        assert_null(settings_read_secret(fixture->path, message, sizeof(message)));
        assert_non_null(strstr(message, bad[i].words));
        assert_non_null(strstr(message, fixture->path));
    }
    assert_null(settings_read_secret("/nonexistent/secret", message, sizeof(message)));
    assert_string_equal(message,
                        "/nonexistent/secret: cannot be opened: No such file or directory");
    assert_null(settings_read_secret("/tmp", message, sizeof(message)));
    settings_free_secret(NULL);
}

/* ---- private files ---- */

/* What is said of the file with this mode and owner; "" if it may hold a secret. */
static const char *verdict(struct fixture *fixture, mode_t mode, uid_t owner, char *buf,
                           size_t size)
{
    char message[512] = "";

    write_file(fixture->path, BYTES("secret\n"));
    assert_int_equal(chown(fixture->path, owner, (gid_t)-1), 0);
    assert_int_equal(chmod(fixture->path, mode), 0);
    char *secret = settings_read_secret(fixture->path, message, sizeof(message));
    snprintf(buf, size, "%s", secret ? "" : message);
    settings_free_secret(secret);
    assert_int_equal(chmod(fixture->path, 0600), 0);
    return buf;
}

static void secret_file_is_for_its_owner_and_group_only(void **state)
{
    static const mode_t good[] = {0400, 0600, 0440, 0640, 0700, 0750, 02640};
    static const struct {
        mode_t mode;
        const char *words;
    } bad[] = {
        {0644, "everyone may read it (mode 0644)"},   {0604, "everyone may read it (mode 0604)"},
        {0641, "everyone may read it (mode 0641)"},   {0646, "everyone may write it (mode 0646)"},
        {0602, "everyone may write it (mode 0602)"},  {0620, "its group may write it (mode 0620)"},
        {0660, "its group may write it (mode 0660)"}, {0777, "everyone may write it (mode 0777)"},
        {04644, "everyone may read it (mode 4644)"},  {0664, "everyone may read it (mode 0664)"},
    };
    struct fixture *fixture = *state;
    char said[512];
    char mend[128];

    for (size_t i = 0; i < COUNT(good); i++)
        assert_string_equal(verdict(fixture, good[i], (uid_t)-1, said, sizeof(said)), "");
    snprintf(mend, sizeof(mend), "; chmod 640 %s", fixture->path);
    for (size_t i = 0; i < COUNT(bad); i++) {
        verdict(fixture, bad[i].mode, (uid_t)-1, said, sizeof(said));
        assert_int_equal(strncmp(said, fixture->path, strlen(fixture->path)), 0);
        if (!strstr(said, bad[i].words) || !strstr(said, mend))
            fail_msg("mode %o: \"%s\"", (unsigned)bad[i].mode, said);
    }
}

static void secret_file_belongs_to_root_or_us_or_who_we_will_be(void **state)
{
    const struct passwd *user = getpwnam("nobody");
    const uid_t nobody = user ? user->pw_uid : 0; /* another look at users would overwrite it */
    struct fixture *fixture = *state;
    char said[512];
    char expected[256];

    if (geteuid() != 0 || !user) {
        print_message("only root can give files away\n");
        skip();
    }
    snprintf(expected, sizeof(expected),
             "%s: belongs to user %u, who could change it; chown root %s", fixture->path,
             (unsigned)nobody, fixture->path);
    assert_string_equal(verdict(fixture, 0600, nobody, said, sizeof(said)), expected);

    settings_trust_user("nobody");
    assert_string_equal(verdict(fixture, 0600, nobody, said, sizeof(said)), "");
    verdict(fixture, 0644, nobody, said, sizeof(said));
    assert_non_null(strstr(said, "chmod 640"));
    verdict(fixture, 0600, nobody - 1, said, sizeof(said));
    assert_non_null(strstr(said, "chown nobody"));
    settings_trust_user("no-such-user");
    assert_non_null(strstr(verdict(fixture, 0600, nobody, said, sizeof(said)), "chown"));
    settings_trust_user(NULL);
    assert_string_equal(verdict(fixture, 0600, nobody, said, sizeof(said)), expected);
    assert_string_equal(verdict(fixture, 0600, 0, said, sizeof(said)), "");
}

static void secret_behind_a_link_is_judged_by_its_file(void **state)
{
    struct fixture *fixture = *state;
    char link[80];
    char message[512];

    snprintf(link, sizeof(link), "%s-link", fixture->path);
    write_file(fixture->path, BYTES("secret\n"));
    assert_int_equal(symlink(fixture->path, link), 0);
    char *secret = settings_read_secret(link, message, sizeof(message));
    assert_non_null(secret);
    settings_free_secret(secret);
    assert_int_equal(chmod(fixture->path, 0644), 0);
    assert_null(settings_read_secret(link, message, sizeof(message)));
    assert_non_null(strstr(message, "mode 0644"));
    assert_int_equal(unlink(link), 0);
}

static void fifo_is_no_secret_and_hangs_nobody(void **state)
{
    struct fixture *fixture = *state;
    char message[512];

    assert_int_equal(unlink(fixture->path), 0);
    assert_int_equal(mkfifo(fixture->path, 0600), 0);
    assert_null(settings_read_secret(fixture->path, message, sizeof(message)));
    assert_non_null(strstr(message, "is not a file"));
}

static void report_says_what_mode_the_file_has(void **state)
{
    struct fixture *fixture = *state;

    load(fixture, "[first]\n");
    assert_int_equal(fixture->report.mode & 0777, 0600);
    assert_int_equal(chmod(fixture->path, 0644), 0);
    load(fixture, "[first]\n");
    assert_int_equal(fixture->report.mode & 0777, 0644);
}

/* ---- sections with free names ---- */

struct house {
    char name[64];
    unsigned line;
    struct settings_list words;
    uint64_t rooms;
};

struct street {
    struct values values; /* first: those of the plain table */
    struct house houses[8];
    size_t count;
};

#undef AT
#define AT(member) .offset = offsetof(struct house, member)

static const struct setting house_table[] = {
    {"house", "words", SETTING_LINES, AT(words), .whole = true},
    {"house", "rooms", SETTING_NUMBER, AT(rooms), .minimum = 1, .maximum = 9},
};

static void *begin_house(void *out, const char *name, size_t len, unsigned line,
                         struct settings_report *report)
{
    struct street *street = out;
    struct house *house = &street->houses[street->count++];

    assert_true(len < sizeof(house->name) && street->count <= COUNT(street->houses));
    memcpy(house->name, name, len);
    house->line = line;
    if (len == 0)
        settings_report_add(report, line, "a house needs a name");
    return house;
}

static void load_street(struct fixture *fixture, struct street *street, const char *text)
{
    static const struct settings_named named = {
        .section = "house", .table = house_table, .rows = COUNT(house_table), .begin = begin_house};

    forget_load(fixture);
    memset(street, 0, sizeof(*street));
    write_file(fixture->path, text, strlen(text));
    fixture->result =
        settings_load_named(fixture->path, table, ROWS, &named, street, &fixture->report);
}

static void forget_street(struct street *street)
{
    for (size_t i = 0; i < street->count; i++)
        settings_clear(house_table, COUNT(house_table), &street->houses[i]);
    settings_clear(table, ROWS, &street->values);
}

static void each_named_section_has_values_of_its_own(void **state)
{
    static const char *const reds[] = {"a", "b", "c"};
    static const unsigned red_lines[] = {3, 4, 5};
    struct fixture *fixture = *state;
    struct street street;

    load_street(fixture, &street,
                "; houses\n[house red]\nwords = a\n  b\nwords = c\nrooms = 3\n"
                "[first]\nlimit = 9\n[house a long name that inih would cut at 49 bytes or so]\n"
                "rooms = 4\n  \n[house red]\nrooms = 5\n[second]\nmax_clients = 5\n");
    assert_loaded(fixture);
    assert_int_equal(street.count, 3);
    assert_string_equal(street.houses[0].name, "red");
    assert_int_equal(street.houses[0].line, 2);
    ASSERT_LIST(&street.houses[0].words, reds, red_lines);
    assert_int_equal(street.houses[0].rooms, 3);
    assert_string_equal(street.houses[1].name, "a long name that inih would cut at 49 bytes or so");
    assert_int_equal(street.houses[1].rooms, 4);
    assert_int_equal(street.houses[2].rooms, 5);
    assert_int_equal(street.values.limit, 9);
    assert_int_equal(street.values.max_clients, 5);
    forget_street(&street);
}

static void mistakes_in_named_sections_are_found_like_others(void **state)
{
    static const struct {
        const char *text;
        unsigned line;
        const char *words;
    } rows[] = {
        {"[house red]\nroom = 3\n", 2, "unknown key room in [house red]; it has words, rooms"},
        {"[house red]\nlimit = 7\n", 2, "unknown key limit in [house red]"},
        {"[house red]\nrooms = 3\nrooms = 4\n", 3, "rooms is set twice; line 2"},
        {"[house red]\nrooms = 10\n", 2, "from 1 to 9"},
        {"[house red]\nrooms = 3\n 4\n", 3, "goes on with rooms"},
        {"[house red]\nwords = a\n  rooms = 3\n", 3, "a key begins at the start"},
        {"[house red]\nwords = a ;b\n", 2, "would be cut"},
        {"[house]\nrooms = 3\n", 1, "needs a name"},
        {"[house ]\nrooms = 3\n", 1, "needs a name"},
        {"[houses red]\nrooms = 3\n", 1, "the sections are first, second, house NAME"},
        {"[ house red]\nrooms = 3\n", 1, "unknown section [ house red]"},
        {"[first]\nrooms = 3\n", 2, "unknown key rooms in [first]"},
        {"[house red]\n[first]\nrooms = 3\n", 3, "unknown key rooms in [first]"},
    };
    struct fixture *fixture = *state;
    struct street street;

    for (size_t i = 0; i < COUNT(rows); i++) {
        load_street(fixture, &street, rows[i].text);
        assert_int_equal(fixture->result, -1);
        assert_error(fixture, rows[i].line, rows[i].words);
        forget_street(&street);
    }
    /* Without such sections in the table there are none. */
    load(fixture, "[house red]\n");
    assert_error(fixture, 1, "unknown section [house red]; the sections are first, second");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(defaults_hold_where_nothing_is_set),
        TEST(file_sets_a_value_of_each_type),
        TEST(comment_behind_a_value_is_no_part_of_it),
        TEST(bool_takes_yes_and_no_only),
        TEST(number_outside_its_bounds_is_refused_with_them),
        TEST(duration_outside_its_bounds_is_refused_with_them),
        TEST(choice_that_does_not_exist_is_refused_with_those_that_do),
        TEST(empty_text_and_empty_items_are_refused),
        TEST(list_goes_on_in_indented_lines_and_in_repeated_keys),
        TEST(lines_go_on_in_indented_lines_too),
        TEST(list_in_a_file_replaces_its_default),
        TEST(indented_key_is_refused_and_never_becomes_a_value),
        TEST(key_given_twice_is_refused_with_the_first_line),
        TEST(dash_and_underscore_in_keys_are_the_same),
        TEST(unknown_names_are_refused_with_the_known_ones),
        TEST(text_that_is_no_ini_is_refused),
        TEST(all_errors_are_found_at_once_with_their_lines),
        TEST(errors_are_printed_in_the_order_of_lines),
        TEST(line_of_198_bytes_is_taken_and_of_199_refused),
        TEST(key_hidden_behind_a_long_line_is_not_taken),
        TEST(nul_byte_is_refused_with_its_line),
        TEST(byte_order_mark_and_crlf_are_accepted),
        TEST(secret_that_would_be_cut_is_refused),
        TEST(secret_is_never_part_of_an_error),
        TEST(path_that_is_no_small_file_is_refused),
        TEST(value_from_a_command_line_is_set_over_the_file),
        TEST(value_from_a_command_line_replaces_the_default_of_a_list),
        TEST(wrong_value_from_a_command_line_says_what_is_wrong),
        TEST(settings_are_equal_only_where_their_values_are),
        TEST(lists_of_different_length_are_not_equal),
        TEST(clear_may_be_called_twice),
        TEST(secret_is_the_first_line_of_its_file),
        TEST(secret_file_without_a_secret_is_refused),
        TEST(secret_file_is_for_its_owner_and_group_only),
        TEST(secret_file_belongs_to_root_or_us_or_who_we_will_be),
        TEST(secret_behind_a_link_is_judged_by_its_file),
        TEST(fifo_is_no_secret_and_hangs_nobody),
        TEST(report_says_what_mode_the_file_has),
        TEST(each_named_section_has_values_of_its_own),
        TEST(mistakes_in_named_sections_are_found_like_others),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
