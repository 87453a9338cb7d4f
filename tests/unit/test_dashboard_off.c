/*
 * A server that is built without the page, whatever this build is: its table of files is linked
 * here before that of the library. "/" says what is missing and how to get it, and as what is not
 * there.
 */
#include "admin/dashboard.h"
#include "admin/request.h"

#include "unit.h"

#include <string.h>

static struct request ask(const char *path)
{
    static const struct request_scope unix_socket = {.address = NULL};
    struct request request = {.scope = &unix_socket, .method = "GET", .path = path};

    assert_false(request_begin(&request));
    assert_int_equal(request.answer.status, 404);
    assert_string_equal(request.answer.type, "application/json");
    return request;
}

static void page_that_is_not_built_in_says_so(void **state)
{
    struct request request = ask("/");

    (void)state;
    assert_non_null(strstr(request.answer.text, "CLISER_DASHBOARD"));
    request_clear(&request);
}

static void files_of_the_page_are_as_any_other_path(void **state)
{
    static const char *const paths[] = {"", "/dashboard.js", "/nothing"};

    (void)state;
    assert_int_equal(dashboard_file_count, 0);
    for (size_t i = 0; i < COUNT(paths); i++) {
        struct request request = ask(paths[i]);

        assert_null(dashboard_find(paths[i]));
        assert_null(strstr(request.answer.text, "CLISER_DASHBOARD"));
        request_clear(&request);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(page_that_is_not_built_in_says_so),
        cmocka_unit_test(files_of_the_page_are_as_any_other_path),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
