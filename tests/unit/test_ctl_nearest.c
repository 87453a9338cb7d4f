/* Which words are near another one. */
#include "nearest.h"

#include "commands.h"
#include "unit.h"

#include <string.h>

static void distance_counts_steps(void **state)
{
    static const struct {
        const char *a, *b;
        size_t steps;
    } samples[] = {
        {"", "", 0},         {"", "abc", 3},           {"list", "list", 0},    {"lst", "list", 1},
        {"lsit", "list", 1}, {"kitten", "sitting", 3}, {"web-11", "web-1", 1}, {"ca", "abc", 3},
        {"ab", "ba", 1},     {"nas", "san", 2},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(samples); i++) {
        assert_int_equal(nearest_distance(samples[i].a, samples[i].b), samples[i].steps);
        assert_int_equal(nearest_distance(samples[i].b, samples[i].a), samples[i].steps);
    }
}

static void words_longer_than_an_id_are_near_nothing(void **state)
{
    char longest[PROTO_MAX_ID_BYTES + 1];
    char too_long[PROTO_MAX_ID_BYTES + 2];

    (void)state;
    memset(longest, 'x', sizeof(longest));
    memset(too_long, 'x', sizeof(too_long));
    longest[sizeof(longest) - 1] = '\0';
    too_long[sizeof(too_long) - 1] = '\0';
    assert_int_equal(nearest_distance(longest, longest), 0);
    assert_int_equal(nearest_distance(longest, ""), PROTO_MAX_ID_BYTES);
    assert_true(nearest_distance(too_long, too_long) == SIZE_MAX);
}

static void nearest_come_first_and_once(void **state)
{
    static const char *const words[] = {"web-21", "web-111", "db-1",   "web-1",
                                        "web-12", "web-1",   "nas-11", "web-111"};
    struct nearest nearest = {.word = "web-11"};

    (void)state;
    for (size_t i = 0; i < COUNT(words); i++)
        nearest_offer(&nearest, words[i]);
    assert_int_equal(nearest.count, 3);
    /* All three are one step away: in the order in which they came. */
    assert_string_equal(nearest.found[0].word, "web-21");
    assert_string_equal(nearest.found[1].word, "web-111");
    assert_string_equal(nearest.found[2].word, "web-1");
    nearest_offer(&nearest, "web-11");
    assert_string_equal(nearest.found[0].word, "web-11");
    assert_string_equal(nearest.found[2].word, "web-111");
}

static void far_words_are_not_offered(void **state)
{
    struct nearest nearest = {.word = "nas"};

    (void)state;
    nearest_offer(&nearest, "web-1");
    assert_int_equal(nearest.count, 0);
    nearest_offer(&nearest, "nas-1");
    assert_int_equal(nearest.count, 1);
}

static void mistyped_commands_are_recognised(void **state)
{
    static const char *const pairs[][2] = {
        {"lst", "list"},
        {"stauts", "status"},
        {"wtach", "watch"},
        {"shutdwon", "shutdown"},
        {"shutdown-stat", "shutdown-status"},
        {"shutdown_cancel", "shutdown-cancel"},
        {"pign", "ping"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(pairs); i++) {
        assert_non_null(command_nearest(pairs[i][0]));
        assert_string_equal(command_nearest(pairs[i][0]), pairs[i][1]);
    }
    assert_null(command_nearest("frobnicate"));
    assert_null(command_nearest(""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(distance_counts_steps),
        cmocka_unit_test(words_longer_than_an_id_are_near_nothing),
        cmocka_unit_test(nearest_come_first_and_once),
        cmocka_unit_test(far_words_are_not_offered),
        cmocka_unit_test(mistyped_commands_are_recognised),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
