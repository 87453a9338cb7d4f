/* Reasons: one word each, and the refusals of docs/protocol.md that belong to them. */
#include "registry/reason.h"

#include "cliser/proto.h"

#include "unit.h"

#include <string.h>

/* Written by hand: what the log, the record and the wire must say. */
static const struct {
    enum reason reason;
    const char *word;
    int refusal;
} expected[] = {
    {REASON_NONE, "", 0},
    {REASON_LEFT, "left", 0},
    {REASON_RESET, "reset", 0},
    {REASON_SHUTDOWN, "shutdown", 0},
    {REASON_SLOW, "slow", 0},
    {REASON_STOPPED, "stopped", 0},
    {REASON_CRASH, "crash", 0},
    {REASON_RESOURCES, "resources", 0},
    {REASON_PROTOCOL, "protocol", 400},
    {REASON_TIMED_OUT, "timed_out", 408},
    {REASON_PASSWORD, "password", 410},
    {REASON_INVALID_ID, "invalid_id", 420},
    {REASON_DUPLICATE, "duplicate", 421},
    {REASON_NOT_ALLOWED, "not_allowed", 422},
    {REASON_TOO_MANY, "too_many", 429},
    {REASON_TLS, "tls", 0},
    {REASON_OPERATOR, "operator", 430},
    {REASON_REPLACED, "replaced", 431},
    {REASON_FULL, "full", 450},
    {REASON_REGISTRY, "registry", 451},
    {REASON_RESTARTING, "restarting", 460},
};

static void reason_words_and_refusals_are_those_promised(void **state)
{
    (void)state;
    assert_int_equal(COUNT(expected), REASON_COUNT);
    for (size_t i = 0; i < COUNT(expected); i++) {
        assert_string_equal(reason_word(expected[i].reason), expected[i].word);
        assert_int_equal(reason_refusal(expected[i].reason), expected[i].refusal);
    }
}

static void reason_word_is_unique_and_reads_back(void **state)
{
    (void)state;
    for (int i = 0; i < REASON_COUNT; i++) {
        assert_int_equal(reason_parse(reason_word((enum reason)i)), i);
        for (int j = 0; j < i; j++)
            assert_string_not_equal(reason_word((enum reason)i), reason_word((enum reason)j));
    }
}

static void reason_word_needs_no_quoting(void **state)
{
    (void)state;
    for (int i = 0; i < REASON_COUNT; i++) {
        const char *word = reason_word((enum reason)i);
        assert_int_equal(strspn(word, "abcdefghijklmnopqrstuvwxyz_"), strlen(word));
    }
}

static void reason_of_unknown_word_is_none(void **state)
{
    static const char *const words[] = {"lef", "leftt", "LEFT", " left", "408", "none"};

    (void)state;
    for (size_t i = 0; i < COUNT(words); i++)
        assert_int_equal(reason_parse(words[i]), REASON_NONE);
}

static void reason_and_refusal_match_one_to_one(void **state)
{
    const struct proto_code_info *info;

    (void)state;
    for (size_t i = 0; (info = proto_code_at(i)) != NULL; i++) {
        int reasons = 0;

        for (int j = 0; j < REASON_COUNT; j++)
            reasons += reason_refusal((enum reason)j) == (int)info->code;
        if (info->code < 400) {
            assert_int_equal(reasons, 0);
            continue;
        }
        assert_int_equal(reasons, 1);
        assert_int_equal(reason_refusal(reason_of_refusal(info->code)), info->code);
    }
    for (int i = 0; i < REASON_COUNT; i++) {
        const int refusal = reason_refusal((enum reason)i);
        if (refusal == 0)
            continue;
        assert_non_null(proto_code_info(refusal));
        assert_int_equal(reason_of_refusal(refusal), i);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reason_words_and_refusals_are_those_promised),
        cmocka_unit_test(reason_word_is_unique_and_reads_back),
        cmocka_unit_test(reason_word_needs_no_quoting),
        cmocka_unit_test(reason_of_unknown_word_is_none),
        cmocka_unit_test(reason_and_refusal_match_one_to_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
