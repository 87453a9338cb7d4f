/* Patterns for IDs, and sets of them, against fnmatch(3) where there is something to compare. */
#include "registry/glob.h"

#include "cliser/proto.h"

#include "unit.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int check(const char *glob)
{
    char message[256] = "";
    const int result = glob_check(glob, message, sizeof(message));

    assert_true((result == 0) == (message[0] == '\0'));
    for (const char *at = message; *at; at++)
        assert_in_range(*at, ' ', '~');
    return result;
}

static char *repeated(char c, size_t len)
{
    char *text = calloc(1, len + 1);

    assert_non_null(text);
    memset(text, c, len);
    return text;
}

static void patterns_of_the_characters_of_ids_are_taken(void **state)
{
    static const char *const good[] = {"a",     "*",      "web-*", "?", "[a-c]", "[!a-c]*", "[^a]",
                                       "a.b_c", "a:b@c-", "[]]",   "[", "]",     "**",      "0"};
    static const char *const bad[] = {"",    " ",    "a b",   "a,b", "a/b",  "\\*", "{a,b}",
                                      "a\n", "\xff", "a\x7f", "#",   "a\tb", "\"",  "$(x)"};

    (void)state;
    for (size_t i = 0; i < COUNT(good); i++)
        assert_int_equal(check(good[i]), 0);
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_int_equal(check(bad[i]), -1);
}

static void bracket_without_its_end_is_found(void **state)
{
    static const char *const closed[] = {"a", "[a]", "[]]", "[]a]", "[!]a]*", "x[a-c]y[0-9]", "]"};
    static const char *const open[] = {"[",  "[]",  "[!]",     "[a",      "a[",
                                       "[!", "[^]", "[a-c]x[", "web-[0-9"};

    (void)state;
    for (size_t i = 0; i < COUNT(closed); i++)
        assert_true(glob_is_closed(closed[i]));
    for (size_t i = 0; i < COUNT(open); i++) {
        assert_false(glob_is_closed(open[i]));
        assert_false(glob_matches(open[i], "a"));
    }
}

static void length_is_that_of_an_id_or_of_a_pattern(void **state)
{
    static const struct {
        char c;
        size_t len;
        int result;
    } rows[] = {
        {'a', PROTO_MAX_ID_BYTES, 0},
        {'a', PROTO_MAX_ID_BYTES + 1, -1},
        {'*', GLOB_MAX_BYTES, 0},
        {'*', GLOB_MAX_BYTES + 1, -1},
        {'a', 100000, -1},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        char *glob = repeated(rows[i].c, rows[i].len);

        assert_int_equal(check(glob), rows[i].result);
        free(glob);
    }
}

static void prefix_is_what_every_match_begins_with(void **state)
{
    (void)state;
    assert_int_equal(glob_prefix_len("web-*"), 4);
    assert_int_equal(glob_prefix_len("web-[0-9]"), 4);
    assert_int_equal(glob_prefix_len("w?b"), 1);
    assert_int_equal(glob_prefix_len("*"), 0);
    assert_int_equal(glob_prefix_len("nas"), 3);
    assert_true(glob_is_plain("nas-1.b:c@d_e"));
    assert_false(glob_is_plain("nas*"));
    assert_false(glob_is_plain("na]"));
}

static void set_matches_what_any_of_its_globs_does(void **state)
{
    static const char *const globs[] = {"db-1", "web-?", "x*", "[a-c]1", "nas", "db-10", "a"};
    static const char *const cids[] = {"db-1", "db-10", "db-2", "web-1", "web-10", "x", "xyz",
                                       "a1",   "d1",    "nas",  "na",    "nas-",   "a", "b"};
    struct glob_set *set = glob_set_new("db-1,web-?,x*,[a-c]1,nas,db-10,a");

    (void)state;
    assert_non_null(set);
    assert_int_equal(glob_set_patterns(set), 3);
    for (size_t i = 0; i < COUNT(cids); i++) {
        bool expected = false;

        for (size_t j = 0; j < COUNT(globs); j++) {
            const bool matches = fnmatch(globs[j], cids[i], FNM_NOESCAPE) == 0;
            assert_int_equal(glob_matches(globs[j], cids[i]), matches);
            expected |= matches;
        }
        assert_int_equal(glob_set_matches(set, cids[i]), expected);
    }
    glob_set_free(set);
}

static void set_with_a_bad_glob_is_none(void **state)
{
    static const char *const bad[] = {"", ",", "a,", ",a", "a,,b", "a, b", "a,\xff"};

    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_null(glob_set_new(bad[i]));
    glob_set_free(NULL);
}

static void thousands_of_ids_are_found_one_by_one(void **state)
{
    char text[4000 * 8] = "";
    size_t len = 0;

    (void)state;
    for (int i = 0; i < 4000; i++)
        len += (size_t)snprintf(text + len, sizeof(text) - len, "%sn-%d", i > 0 ? "," : "", i * 2);
    struct glob_set *set = glob_set_new(text);
    assert_non_null(set);
    assert_int_equal(glob_set_patterns(set), 0);
    for (int i = 0; i < 8000; i++) {
        char cid[16];

        snprintf(cid, sizeof(cid), "n-%d", i);
        assert_int_equal(glob_set_matches(set, cid), i % 2 == 0);
    }
    glob_set_free(set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(patterns_of_the_characters_of_ids_are_taken),
        cmocka_unit_test(bracket_without_its_end_is_found),
        cmocka_unit_test(length_is_that_of_an_id_or_of_a_pattern),
        cmocka_unit_test(prefix_is_what_every_match_begins_with),
        cmocka_unit_test(set_matches_what_any_of_its_globs_does),
        cmocka_unit_test(set_with_a_bad_glob_is_none),
        cmocka_unit_test(thousands_of_ids_are_found_one_by_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
