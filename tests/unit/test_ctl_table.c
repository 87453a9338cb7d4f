/* Tables: never cut where nobody looks, and never wider than the terminal where somebody does. */
#include "table.h"

#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct table_column columns[] = {
    {.title = "ID", .least = 4, .most = 20},
    {.title = "N", .right = true},
    {.title = "WHY"},
};

/* Prints the rows, three cells each, in one table; the text is to be freed. */
static char *printed(size_t width, bool more, const char *const (*rows)[3], size_t count)
{
    struct table *table = table_new(columns, COUNT(columns), width, false);
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);

    assert_non_null(out);
    for (size_t i = 0; i < count; i++)
        table_add(table, rows[i], "\033[31m");
    table_print(table, more, out);
    fclose(out);
    table_free(table);
    return text;
}

static void columns_are_as_wide_as_their_texts(void **state)
{
    static const char *const rows[][3] = {{"a", "1", "left"}, {"bcdef", "100", ""}};
    char *text = printed(0, false, rows, COUNT(rows));

    (void)state;
    assert_string_equal(text, "ID       N  WHY\n"
                              "a        1  left\n"
                              "bcdef  100\n");
    free(text);
}

static void nothing_is_cut_without_a_width(void **state)
{
    static const char *const rows[][3] = {
        {"a-long-id-that-goes-on-and-on-and-on-and-on-and-on-and-on-and-on", "1", "x"}};
    char *text = printed(0, true, rows, COUNT(rows));

    (void)state;
    assert_non_null(strstr(text, "a-long-id-that-goes-on-and-on-and-on-and-on-and-on-and-on-and-on"
                                 "  1  x\n"));
    free(text);
}

static void long_cell_loses_its_middle_to_fit(void **state)
{
    static const char *const rows[][3] = {{"abcdefghijklmnop", "1", "left"}, {"a", "2", "right"}};
    char *text = printed(20, false, rows, COUNT(rows));

    (void)state;
    assert_string_equal(text, "ID          N  WHY\n"
                              "abcde…mnop  1  left\n"
                              "a           2  right\n");
    free(text);
}

static void columns_are_left_out_where_nothing_can_be_cut(void **state)
{
    static const char *const rows[][3] = {{"abcdefghijklmnop", "1", "because"}};
    char *text = printed(10, false, rows, COUNT(rows));

    (void)state;
    assert_string_equal(text, "ID       N\n"
                              "abc…nop  1\n");
    free(text);
    text = printed(1, false, rows, COUNT(rows));
    assert_string_equal(text, "ID\n"
                              "ab…p\n");
    free(text);
}

static void room_that_is_left_is_kept_for_what_comes(void **state)
{
    static const char *const rows[][3] = {{"a", "1", "x"}};
    char *text = printed(80, true, rows, COUNT(rows));

    (void)state;
    assert_string_equal(text, "ID                    N  WHY\n"
                              "a                     1  x\n");
    free(text);
}

static void later_rows_keep_the_widths_of_the_first(void **state)
{
    static const char *const first[] = {"abcdef", "1", "x"};
    static const char *const later[] = {"abcdefghijkl", "1", "x"};
    struct table *table = table_new(columns, COUNT(columns), 16, false);
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);

    (void)state;
    assert_non_null(out);
    table_add(table, first, NULL);
    table_print(table, false, out);
    table_add(table, later, NULL);
    table_print(table, false, out);
    fclose(out);
    table_free(table);
    assert_string_equal(text, "ID      N  WHY\n"
                              "abcdef  1  x\n"
                              "abc…kl  1  x\n");
    free(text);
}

static void colours_stand_around_the_row_when_wanted(void **state)
{
    static const char *const row[] = {"a", "1", "x"};
    struct table *table = table_new(columns, COUNT(columns), 80, true);
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);

    (void)state;
    assert_non_null(out);
    table_add(table, row, "\033[31m");
    table_add(table, row, NULL);
    table_print(table, false, out);
    fclose(out);
    table_free(table);
    assert_string_equal(text, "ID  N  WHY\n\033[31ma   1  x\033[0m\na   1  x\n");
    free(text);
}

/* A server could send anything; a terminal must not obey it. */
static void control_bytes_are_made_harmless(void **state)
{
    static const char *const rows[][3] = {{"a\033[2Jb", "\r\n", "\xc3\xa9"}};
    char *text = printed(0, false, rows, COUNT(rows));

    (void)state;
    assert_non_null(strstr(text, "a?[2Jb  \?\?  \?\?\n"));
    free(text);
}

static void rows_never_printed_are_freed(void **state)
{
    static const char *const row[] = {"a", "1", "x"};
    struct table *table = table_new(columns, COUNT(columns), 80, true);

    (void)state;
    for (int i = 0; i < 1000; i++)
        table_add(table, row, NULL);
    table_free(table);
    table_free(NULL);
}

static void shortened_text_has_the_width_it_says(void **state)
{
    char buf[64];

    (void)state;
    assert_int_equal(table_shorten("abcdef", 6, buf, sizeof(buf)), 6);
    assert_string_equal(buf, "abcdef");
    assert_int_equal(table_shorten("abcdef", 5, buf, sizeof(buf)), 5);
    assert_string_equal(buf, "ab…ef");
    assert_int_equal(table_shorten("abcdef", 2, buf, sizeof(buf)), 2);
    assert_string_equal(buf, "a…");
    assert_int_equal(table_shorten("abcdef", 1, buf, sizeof(buf)), 1);
    assert_string_equal(buf, "…");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(columns_are_as_wide_as_their_texts),
        cmocka_unit_test(nothing_is_cut_without_a_width),
        cmocka_unit_test(long_cell_loses_its_middle_to_fit),
        cmocka_unit_test(columns_are_left_out_where_nothing_can_be_cut),
        cmocka_unit_test(room_that_is_left_is_kept_for_what_comes),
        cmocka_unit_test(later_rows_keep_the_widths_of_the_first),
        cmocka_unit_test(colours_stand_around_the_row_when_wanted),
        cmocka_unit_test(control_bytes_are_made_harmless),
        cmocka_unit_test(rows_never_printed_are_freed),
        cmocka_unit_test(shortened_text_has_the_width_it_says),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
