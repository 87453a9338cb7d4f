/* The body of a shutdown order: what it comes to, and what is said of one that makes no sense. */
#include "admin/order_body.h"

#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int read_body(const char *body, size_t len, struct order_request *order, bool *dry_run,
                     char message[512])
{
    message[0] = '\0';
    const int result = order_body_read(body, len, order, dry_run, message, 512);
    assert_true((result == 0) == (message[0] == '\0'));
    return result;
}

static void good_bodies_become_orders(void **state)
{
    static const struct {
        const char *body;
        const char *first; /* wave */
        size_t waves;
        uint64_t grace_ms;
        uint64_t hold_ms;
        bool dry_run;
    } rows[] = {
        {"{\"waves\":[[\"a\"]]}", "a", 1, 60000, 0, false},
        {" {\n\"waves\" : [ [\"web-*\",\"b\"] , [\"c\"] ] }\n", "web-*,b", 2, 60000, 0, false},
        {"{\"waves\":[[\"a\"]],\"grace\":\"0s\",\"hold\":\"0s\"}", "a", 1, 0, 0, false},
        {"{\"hold\":\"30d\",\"grace\":\"1d\",\"dry_run\":true,\"waves\":[[\"a\"]]}", "a", 1,
         86400000, UINT64_C(2592000000), true},
        {"{\"waves\":[[\"a\"]],\"grace\":null,\"hold\":null,\"dry_run\":false}", "a", 1, 60000, 0,
         false},
        {"{\"waves\":[[\"\\u0061\"]],\"grace\":\"1500ms\"}", "a", 1, 1500, 0, false},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct order_request order;
        bool dry_run = !rows[i].dry_run;
        char message[512];

        assert_int_equal(read_body(rows[i].body, strlen(rows[i].body), &order, &dry_run, message),
                         0);
        assert_int_equal(order.waves.count, rows[i].waves);
        assert_string_equal(order.waves.match[0], rows[i].first);
        assert_true(order.grace_ms == rows[i].grace_ms);
        assert_true(order.hold_ms == rows[i].hold_ms);
        assert_int_equal(dry_run, rows[i].dry_run);
        assert_null(order.by);
        order_waves_clear(&order.waves);
    }
}

static void bad_bodies_are_refused_with_what_is_wrong(void **state)
{
    static const struct {
        const char *body;
        const char *word;
    } rows[] = {
        {"", "JSON"},
        {"{", "JSON"},
        {"null", "JSON"},
        {"[]", "object"},
        {"{}", "waves"},
        {"{\"waves\":[[\"a\"]]} x", "JSON"},
        {"{\"waves\":[[\"a\"]],\"waves\":[[\"a\"]]}", "waves"},
        {"{\"waves\":[[\"a\xff\"]]}", "JSON"},
        {"{\"waves\":[[\"a\\u0000\"]]}", "JSON"},
        {"{\"waves\":null}", "waves"},
        {"{\"waves\":[]}", "waves"},
        {"{\"waves\":[[\"a\"],[]]}", "waves[1]"},
        {"{\"waves\":[\"a\"]}", "waves[0]"},
        {"{\"waves\":[[\"a\"],[\"b\",7]]}", "waves[1][1]"},
        {"{\"waves\":[[\"a,b\"]]}", "waves[0][0]"},
        {"{\"waves\":[[\"\"]]}", "waves[0][0]"},
        {"{\"waves\":[[\"a\"]],\"wave\":1}", "\"wave\""},
        {"{\"waves\":[[\"a\"]],\"grace\":60}", "grace"},
        {"{\"waves\":[[\"a\"]],\"grace\":\"86401s\"}", "1d"},
        {"{\"waves\":[[\"a\"]],\"hold\":\"2592001s\"}", "30d"},
        {"{\"waves\":[[\"a\"]],\"hold\":\"never\"}", "hold"},
        {"{\"waves\":[[\"a\"]],\"dry_run\":1}", "dry_run"},
        {"{\"waves\":[[\"a\"]],\"dry_run\":null}", "dry_run"},
    };
    struct order_request order;
    bool dry_run = false;
    char message[512];

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        assert_int_equal(read_body(rows[i].body, strlen(rows[i].body), &order, &dry_run, message),
                         -1);
        assert_non_null(strstr(message, rows[i].word));
        assert_int_equal(order.waves.count, 0);
    }
    assert_int_equal(read_body(NULL, 0, &order, &dry_run, message), -1);
    assert_int_equal(read_body(BYTES("{\"waves\":[[\"a\"]]}\0"), &order, &dry_run, message), -1);
}

/* {"waves":[[GLOB, …], …]}, to be freed. */
static char *many(unsigned waves, unsigned globs, const char *glob)
{
    char *body = NULL;
    size_t len = 0;
    FILE *text = open_memstream(&body, &len);

    assert_non_null(text);
    fputs("{\"waves\":[", text);
    for (unsigned i = 0; i < waves; i++) {
        fputs(i > 0 ? ",[" : "[", text);
        for (unsigned j = 0; j < globs; j++)
            fprintf(text, "%s\"%s\"", j > 0 ? "," : "", glob);
        fputs("]", text);
    }
    fputs("]}", text);
    fclose(text);
    return body;
}

static void bounds_of_waves_and_patterns_hold(void **state)
{
    static const struct {
        unsigned waves;
        unsigned globs;
        const char *glob;
        int result;
    } rows[] = {
        {64, 1, "a", 0},  {65, 1, "a", -1},  {1, 256, "a*", 0},   {1, 257, "a*", -1},
        {64, 4, "a*", 0}, {64, 5, "a*", -1}, {1, 20000, "id", 0}, {64, 300, "id", 0},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        char *body = many(rows[i].waves, rows[i].globs, rows[i].glob);
        struct order_request order;
        bool dry_run = false;
        char message[512];

        assert_int_equal(read_body(body, strlen(body), &order, &dry_run, message), rows[i].result);
        assert_int_equal(order.waves.count, rows[i].result == 0 ? rows[i].waves : 0);
        order_waves_clear(&order.waves);
        free(body);
    }
}

/* Whatever is cut off, nothing that is left is taken for an order. */
static void body_that_was_cut_is_refused(void **state)
{
    static const char whole[] =
        "{\"waves\":[[\"web-*\"],[\"db\"]],\"grace\":\"5s\",\"dry_run\":true}";
    struct order_request order;
    bool dry_run = false;
    char message[512];

    (void)state;
    for (size_t len = 0; len < strlen(whole); len++)
        assert_int_equal(read_body(whole, len, &order, &dry_run, message), -1);
    assert_int_equal(read_body(whole, strlen(whole), &order, &dry_run, message), 0);
    order_waves_clear(&order.waves);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_bodies_become_orders),
        cmocka_unit_test(bad_bodies_are_refused_with_what_is_wrong),
        cmocka_unit_test(bounds_of_waves_and_patterns_hold),
        cmocka_unit_test(body_that_was_cut_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
