/* Texts that grow: what is added is there, whole or not at all. */
#include "base/text.h"

#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* How many reallocations go well before all fail; below 0: all go well. */
static int allocations_left = -1;

void *__real_realloc(void *old, size_t size);
void *__wrap_realloc(void *old, size_t size);

void *__wrap_realloc(void *old, size_t size)
{
    if (allocations_left == 0)
        return NULL;
    allocations_left -= allocations_left > 0;
    return __real_realloc(old, size);
}

static void text_has_what_was_added(void **state)
{
    struct text text = {.bytes = NULL};
    char expected[64 * 1024] = "";
    size_t expected_len = 0;
    size_t len = 0;

    (void)state;
    for (int i = 0; i < 5000; i++) {
        text_add(&text, "%s%d", i > 0 ? "," : "", i);
        expected_len += (size_t)snprintf(expected + expected_len, sizeof(expected) - expected_len,
                                         "%s%d", i > 0 ? "," : "", i);
    }
    char *taken = text_take(&text, &len);
    assert_non_null(taken);
    assert_int_equal(len, expected_len);
    assert_string_equal(taken, expected);
    free(taken);
}

/* Of every length, so that it ends at, before and behind each bound. */
static void text_of_any_length_ends_with_a_nul(void **state)
{
    (void)state;
    for (int width = 1; width < 1100; width++) {
        struct text text = {.bytes = NULL};
        size_t len = 0;

        text_add(&text, "%*d", width, 7);
        text_add(&text, "x");
        char *taken = text_take(&text, &len);
        assert_int_equal(len, (size_t)width + 1);
        assert_int_equal(strlen(taken), len);
        free(taken);
    }
}

static void text_without_anything_is_none(void **state)
{
    struct text text = {.bytes = NULL};
    size_t len = 7;

    (void)state;
    assert_null(text_take(&text, &len));
    assert_int_equal(len, 0);
}

/* Also if there was memory again for what came behind it. */
static void text_that_lacks_something_is_none(void **state)
{
    (void)state;
    for (int left = 0;; left++) {
        struct text text = {.bytes = NULL};
        size_t len = 7;

        allocations_left = left;
        for (int i = 0; i < 1000; i++)
            text_add(&text, "web-%d,", i);
        const bool failed = text.failed;
        allocations_left = -1;
        text_add(&text, "*");
        char *taken = text_take(&text, &len);
        assert_int_equal(taken == NULL, failed);
        assert_int_equal(len == 0, failed);
        free(taken);
        if (!failed) {
            assert_true(left > 3);
            return;
        }
        /* As good as new. */
        text_add(&text, "again");
        taken = text_take(&text, &len);
        assert_string_equal(taken, "again");
        free(taken);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_has_what_was_added),
        cmocka_unit_test(text_of_any_length_ends_with_a_nul),
        cmocka_unit_test(text_without_anything_is_none),
        cmocka_unit_test(text_that_lacks_something_is_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
