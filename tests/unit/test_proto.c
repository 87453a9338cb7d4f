/* The codec: the code table as the specification has it, lines in every split, both grammars. */
#include "cliser/proto.h"

#include "unit.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Written by hand from docs/protocol.md; must never be made from the table under test. */
/* clang-format off */
static const struct {
    int code;
    const char *text;
    const char *line;
    enum proto_retry retry;
} spec[] = {
    {100, "keep alive",                 "100: keep alive\r\n",                 PROTO_RETRY_NONE},
    {110, "qual a senha",               "110: qual a senha\r\n",               PROTO_RETRY_NONE},
    {120, "qual o ID",                  "120: qual o ID\r\n",                  PROTO_RETRY_NONE},
    {130, "shutdown sys",               "130: shutdown sys\r\n",               PROTO_RETRY_NONE},
    {140, "Connected",                  "140: Connected\r\n",                  PROTO_RETRY_NONE},
    {400, "protocol error",             "400: protocol error\r\n",             PROTO_RETRY_LONG_PAUSE},
    {408, "timed out",                  "408: timed out\r\n",                  PROTO_RETRY_BACK_OFF},
    {410, "wrong password",             "410: wrong password\r\n",             PROTO_RETRY_LONG_PAUSE},
    {420, "invalid ID",                 "420: invalid ID\r\n",                 PROTO_RETRY_LONG_PAUSE},
    {421, "ID already connected",       "421: ID already connected\r\n",       PROTO_RETRY_BACK_OFF},
    {422, "ID not allowed",             "422: ID not allowed\r\n",             PROTO_RETRY_LONG_PAUSE},
    {429, "too many from this address", "429: too many from this address\r\n", PROTO_RETRY_BACK_OFF},
    {430, "disconnected by operator",   "430: disconnected by operator\r\n",   PROTO_RETRY_LONG_PAUSE},
    {431, "replaced",                   "431: replaced\r\n",                   PROTO_RETRY_LONG_PAUSE},
    {450, "server full",                "450: server full\r\n",                PROTO_RETRY_BACK_OFF},
    {451, "registry unavailable",       "451: registry unavailable\r\n",       PROTO_RETRY_BACK_OFF},
    {460, "server restarting",          "460: server restarting\r\n",          PROTO_RETRY_SPREAD},
};
/* clang-format on */

#define MAX_LINES 16

/* What came out of a stream of bytes: lines, and how it ended (0, or the codec's error). */
struct outcome {
    char lines[MAX_LINES][300];
    size_t lens[MAX_LINES];
    size_t count;
    size_t left; /* bytes behind the last line */
    int error;
};

/*
 * Takes all lines that the first `arrived` bytes hold. The rest is put into a block of its exact
 * size, so that reading behind it is found by the sanitizer.
 */
static void take_lines(struct outcome *outcome, const char *bytes, size_t arrived, size_t *taken)
{
    while (outcome->error == 0) {
        const char *line = NULL;
        size_t line_len = 0;
        const size_t len = arrived - *taken;
        char *block = malloc(len > 0 ? len : 1);

        assert_non_null(block);
        memcpy(block, bytes + *taken, len);
        const int result = proto_take_line(block, len, &line, &line_len);
        if (result > 0) {
            assert_true(outcome->count < MAX_LINES);
            assert_true((size_t)result <= len && result <= PROTO_MAX_LINE_BYTES);
            assert_ptr_equal(line, block);
            assert_true(line_len < (size_t)result);
            memcpy(outcome->lines[outcome->count], line, line_len);
            outcome->lens[outcome->count++] = line_len;
            *taken += (size_t)result;
        }
        free(block);
        if (result < 0)
            outcome->error = result;
        if (result <= 0)
            break;
    }
    outcome->left = arrived - *taken;
}

static void assert_outcomes_equal(const struct outcome *left, const struct outcome *right)
{
    assert_int_equal(left->error, right->error);
    assert_int_equal(left->count, right->count);
    for (size_t i = 0; i < left->count; i++) {
        assert_int_equal(left->lens[i], right->lens[i]);
        assert_memory_equal(left->lines[i], right->lines[i], left->lens[i]);
    }
}

/* Feeds the bytes whole, in each two-way split and byte by byte; all must give the same outcome. */
static struct outcome feed_every_way(const char *bytes, size_t len)
{
    struct outcome whole = {.count = 0};
    size_t taken = 0;

    take_lines(&whole, bytes, len, &taken);
    for (size_t split = 0; split <= len; split++) {
        struct outcome parts = {.count = 0};

        taken = 0;
        take_lines(&parts, bytes, split, &taken);
        take_lines(&parts, bytes, len, &taken);
        assert_outcomes_equal(&whole, &parts);
    }

    struct outcome single = {.count = 0};
    taken = 0;
    for (size_t arrived = 0; arrived <= len; arrived++)
        take_lines(&single, bytes, arrived, &taken);
    assert_outcomes_equal(&whole, &single);
    return whole;
}

/* One complete line must come out as this text, with nothing left. */
static void assert_takes(const char *bytes, size_t len, const char *text, size_t text_len)
{
    const struct outcome outcome = feed_every_way(bytes, len);

    assert_int_equal(outcome.error, 0);
    assert_int_equal(outcome.count, 1);
    assert_int_equal(outcome.left, 0);
    assert_int_equal(outcome.lens[0], text_len);
    assert_memory_equal(outcome.lines[0], text, text_len);
}

static void code_table_matches_the_specification(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(spec); i++) {
        const struct proto_code_info *info = proto_code_at(i);

        assert_non_null(info);
        assert_int_equal(info->code, spec[i].code);
        assert_string_equal(info->text, spec[i].text);
        assert_string_equal(info->line, spec[i].line);
        assert_int_equal(info->line_len, strlen(spec[i].line));
        assert_true(info->line_len <= PROTO_MAX_LINE_BYTES);
        assert_int_equal(info->retry, spec[i].retry);
    }
    assert_null(proto_code_at(COUNT(spec)));
    assert_null(proto_code_at(SIZE_MAX));
}

static void code_numbers_in_the_header_match_the_specification(void **state)
{
    static const int numbers[] = {
        PROTO_KEEP_ALIVE,
        PROTO_PASSWORD,
        PROTO_ID,
        PROTO_SHUTDOWN,
        PROTO_CONNECTED,
        PROTO_PROTOCOL_ERROR,
        PROTO_TIMED_OUT,
        PROTO_WRONG_PASSWORD,
        PROTO_INVALID_ID,
        PROTO_ID_IN_USE,
        PROTO_ID_NOT_ALLOWED,
        PROTO_TOO_MANY,
        PROTO_DISCONNECTED,
        PROTO_REPLACED,
        PROTO_SERVER_FULL,
        PROTO_REGISTRY_UNAVAILABLE,
        PROTO_RESTARTING,
    };

    (void)state;
    assert_int_equal(COUNT(numbers), COUNT(spec));
    for (size_t i = 0; i < COUNT(numbers); i++)
        assert_int_equal(numbers[i], spec[i].code);
}

static void code_lookup_finds_only_what_is_in_the_table(void **state)
{
    (void)state;
    for (int code = -1000; code <= 2000; code++) {
        const struct proto_code_info *info = proto_code_info(code);
        size_t i = 0;

        while (i < COUNT(spec) && spec[i].code != code)
            i++;
        if (i < COUNT(spec))
            assert_ptr_equal(info, proto_code_at(i));
        else
            assert_null(info);
    }
}

static void line_of_each_code_survives_every_split(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(spec); i++) {
        const size_t len = strlen(spec[i].line);

        assert_takes(spec[i].line, len, spec[i].line, len - 2);
        assert_int_equal(proto_parse_code(spec[i].line, len), spec[i].code);
    }
}

static void line_with_lf_alone_is_taken_like_one_with_crlf(void **state)
{
    (void)state;
    assert_takes(BYTES("web-1\n"), BYTES("web-1"));
    assert_takes(BYTES("web-1\r\n"), BYTES("web-1"));
    assert_takes(BYTES("\n"), BYTES(""));
    assert_takes(BYTES("\r\n"), BYTES(""));
    assert_takes(BYTES("a\n"), BYTES("a"));
}

static void line_keeps_bare_carriage_returns_and_blanks(void **state)
{
    (void)state;
    assert_takes(BYTES("a\rb\n"), BYTES("a\rb"));
    assert_takes(BYTES("\ra\n"), BYTES("\ra"));
    assert_takes(BYTES("a\r\r\n"), BYTES("a\r"));
    assert_takes(BYTES(" a b \t\r\n"), BYTES(" a b \t"));
    assert_takes(BYTES("\x01\x7f\x80\xff\n"), BYTES("\x01\x7f\x80\xff"));
}

static void lines_in_one_segment_come_out_one_by_one(void **state)
{
    const struct outcome outcome = feed_every_way(BYTES("secret\nweb-1\r\n\n100\r\n10"));

    (void)state;
    assert_int_equal(outcome.error, 0);
    assert_int_equal(outcome.count, 4);
    assert_memory_equal(outcome.lines[0], "secret", 6);
    assert_memory_equal(outcome.lines[1], "web-1", 5);
    assert_int_equal(outcome.lens[2], 0);
    assert_memory_equal(outcome.lines[3], "100", 3);
    assert_int_equal(outcome.left, 2);
}

static void line_that_is_not_complete_asks_for_more(void **state)
{
    const char *line = NULL;
    size_t line_len = 0;

    (void)state;
    assert_int_equal(proto_take_line("", 0, &line, &line_len), 0);
    assert_int_equal(proto_take_line("a", 1, &line, &line_len), 0);
    assert_int_equal(proto_take_line("a\r", 2, &line, &line_len), 0);
    /* The LF is behind the given length. */
    assert_int_equal(proto_take_line("a\n", 1, &line, &line_len), 0);
    assert_null(line);
}

static void line_of_255_and_256_bytes_is_taken_and_of_257_refused(void **state)
{
    static const char *const ends[] = {"\n", "\r\n"};

    (void)state;
    for (size_t e = 0; e < COUNT(ends); e++) {
        const size_t end_len = strlen(ends[e]);

        for (size_t total = 255; total <= 257; total++) {
            char bytes[260];

            memset(bytes, 'x', sizeof(bytes));
            memcpy(bytes + total - end_len, ends[e], end_len);
            const struct outcome outcome = feed_every_way(bytes, total);
            if (total <= 256) {
                assert_int_equal(outcome.error, 0);
                assert_int_equal(outcome.count, 1);
                assert_int_equal(outcome.lens[0], total - end_len);
            } else {
                assert_int_equal(outcome.error, PROTO_ERR_TOO_LONG);
                assert_int_equal(outcome.count, 0);
            }
        }
    }
}

static void line_without_end_is_refused_at_256_bytes_and_not_before(void **state)
{
    const char *line = NULL;
    size_t line_len = 0;
    char bytes[1024];

    (void)state;
    memset(bytes, 'x', sizeof(bytes));
    for (size_t len = 0; len < 256; len++)
        assert_int_equal(proto_take_line(bytes, len, &line, &line_len), 0);
    for (size_t len = 256; len <= sizeof(bytes); len++)
        assert_int_equal(proto_take_line(bytes, len, &line, &line_len), PROTO_ERR_TOO_LONG);
}

static void line_with_nul_is_refused_wherever_it_stands(void **state)
{
    char bytes[256];

    (void)state;
    for (size_t at = 0; at < 255; at++) {
        memset(bytes, 'x', sizeof(bytes));
        bytes[255] = '\n';
        bytes[at] = '\0';
        const struct outcome outcome = feed_every_way(bytes, sizeof(bytes));
        assert_int_equal(outcome.error, PROTO_ERR_NUL);
        assert_int_equal(outcome.count, 0);
    }
    /* Before the end of the line has come, too. */
    assert_int_equal(feed_every_way(BYTES("\0")).error, PROTO_ERR_NUL);
    assert_int_equal(feed_every_way(BYTES("ab\0")).error, PROTO_ERR_NUL);
    assert_int_equal(feed_every_way(BYTES("a\r\0\n")).error, PROTO_ERR_NUL);
}

static void line_before_one_with_nul_is_still_taken(void **state)
{
    const struct outcome outcome = feed_every_way(BYTES("secret\r\nweb\0-1\r\n"));

    (void)state;
    assert_int_equal(outcome.count, 1);
    assert_memory_equal(outcome.lines[0], "secret", 6);
    assert_int_equal(outcome.error, PROTO_ERR_NUL);
}

static void code_of_a_line_is_its_first_three_digits(void **state)
{
    (void)state;
    for (int code = 0; code <= 999; code++) {
        char line[16];

        snprintf(line, sizeof(line), "%03d", code);
        assert_int_equal(proto_parse_code(line, 3), code);
        memcpy(line + 3, ": x", 3);
        assert_int_equal(proto_parse_code(line, 6), code);
        assert_int_equal(proto_parse_code(line, 2), -1);
    }
    assert_int_equal(proto_parse_code(BYTES("1300")), 130);
    assert_int_equal(proto_parse_code(BYTES("130shutdown")), 130);
    assert_int_equal(proto_parse_code(BYTES("")), -1);
    assert_int_equal(proto_parse_code(BYTES("1")), -1);
    assert_int_equal(proto_parse_code(BYTES(" 130")), -1);
    assert_int_equal(proto_parse_code(BYTES("+13")), -1);
    assert_int_equal(proto_parse_code(BYTES("-13")), -1);
    assert_int_equal(proto_parse_code(BYTES("1e3")), -1);
}

static void code_of_a_line_refuses_each_byte_that_is_no_digit(void **state)
{
    (void)state;
    for (size_t at = 0; at < 3; at++) {
        for (int byte = 0; byte < 256; byte++) {
            char line[3] = {'1', '1', '1'};

            line[at] = (char)byte;
            const bool is_digit = byte >= 48 && byte <= 57;
            assert_int_equal(proto_parse_code(line, 3) >= 0, is_digit);
        }
    }
}

static void id_grammar_decides_about_each_of_256_bytes(void **state)
{
    static const char allowed[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:@-";

    (void)state;
    for (int byte = 0; byte < 256; byte++) {
        const bool expected = memchr(allowed, byte, sizeof(allowed) - 1) != NULL;
        const char one[1] = {(char)byte};
        const char first[3] = {(char)byte, 'a', 'a'};
        const char middle[3] = {'a', (char)byte, 'a'};
        const char last[3] = {'a', 'a', (char)byte};

        assert_int_equal(proto_id_valid(one, 1), expected);
        assert_int_equal(proto_id_valid(first, 3), expected);
        assert_int_equal(proto_id_valid(middle, 3), expected);
        assert_int_equal(proto_id_valid(last, 3), expected);
    }
}

static void id_has_1_to_64_bytes(void **state)
{
    char id[300];

    (void)state;
    memset(id, 'a', sizeof(id));
    for (size_t len = 0; len <= sizeof(id); len++)
        assert_int_equal(proto_id_valid(id, len), len >= 1 && len <= 64);
}

static void password_grammar_decides_about_each_of_256_bytes(void **state)
{
    (void)state;
    for (int byte = 0; byte < 256; byte++) {
        const bool expected = byte != 0 && byte != 10 && byte != 13;
        const char one[1] = {(char)byte};
        const char first[3] = {(char)byte, 'a', 'a'};
        const char middle[3] = {'a', (char)byte, 'a'};
        const char last[3] = {'a', 'a', (char)byte};

        assert_int_equal(proto_password_valid(one, 1), expected);
        assert_int_equal(proto_password_valid(first, 3), expected);
        assert_int_equal(proto_password_valid(middle, 3), expected);
        assert_int_equal(proto_password_valid(last, 3), expected);
    }
}

static void password_has_1_to_128_bytes(void **state)
{
    char password[300];

    (void)state;
    memset(password, ' ', sizeof(password));
    for (size_t len = 0; len <= sizeof(password); len++)
        assert_int_equal(proto_password_valid(password, len), len >= 1 && len <= 128);
}

static void each_error_has_words_of_its_own(void **state)
{
    (void)state;
    for (int error = -10; error <= 10; error++)
        assert_non_null(proto_strerror(error));
    assert_string_not_equal(proto_strerror(PROTO_ERR_TOO_LONG), proto_strerror(PROTO_ERR_NUL));
    assert_string_not_equal(proto_strerror(PROTO_ERR_TOO_LONG), proto_strerror(0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(code_table_matches_the_specification),
        cmocka_unit_test(code_numbers_in_the_header_match_the_specification),
        cmocka_unit_test(code_lookup_finds_only_what_is_in_the_table),
        cmocka_unit_test(line_of_each_code_survives_every_split),
        cmocka_unit_test(line_with_lf_alone_is_taken_like_one_with_crlf),
        cmocka_unit_test(line_keeps_bare_carriage_returns_and_blanks),
        cmocka_unit_test(lines_in_one_segment_come_out_one_by_one),
        cmocka_unit_test(line_that_is_not_complete_asks_for_more),
        cmocka_unit_test(line_of_255_and_256_bytes_is_taken_and_of_257_refused),
        cmocka_unit_test(line_without_end_is_refused_at_256_bytes_and_not_before),
        cmocka_unit_test(line_with_nul_is_refused_wherever_it_stands),
        cmocka_unit_test(line_before_one_with_nul_is_still_taken),
        cmocka_unit_test(code_of_a_line_is_its_first_three_digits),
        cmocka_unit_test(code_of_a_line_refuses_each_byte_that_is_no_digit),
        cmocka_unit_test(id_grammar_decides_about_each_of_256_bytes),
        cmocka_unit_test(id_has_1_to_64_bytes),
        cmocka_unit_test(password_grammar_decides_about_each_of_256_bytes),
        cmocka_unit_test(password_has_1_to_128_bytes),
        cmocka_unit_test(each_error_has_words_of_its_own),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
