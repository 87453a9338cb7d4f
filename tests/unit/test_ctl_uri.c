/* Texts in URLs: nothing in an ID or a pattern may be read as a part of the URL. */
#include "uri.h"

#include "unit.h"

#include <stdlib.h>
#include <string.h>

static void assert_escaped(const char *text, const char *expected)
{
    char *escaped = uri_escape(text);

    assert_string_equal(escaped, expected);
    free(escaped);
}

static void unreserved_bytes_stay(void **state)
{
    (void)state;
    assert_escaped("", "");
    assert_escaped("web-1._~AZaz09", "web-1._~AZaz09");
}

static void what_means_something_in_a_url_or_a_pattern_is_escaped(void **state)
{
    (void)state;
    assert_escaped("a:b@c", "a%3Ab%40c");
    assert_escaped("web-*", "web-%2A");
    assert_escaped("[!a-c]?", "%5B%21a-c%5D%3F");
    assert_escaped("../x/y", "..%2Fx%2Fy");
    assert_escaped("a&b=c#d%20 +", "a%26b%3Dc%23d%2520%20%2B");
    assert_escaped("\xc3\xa9\x7f\x01", "%C3%A9%7F%01");
}

static void every_byte_can_be_read_back(void **state)
{
    (void)state;
    for (int byte = 1; byte < 256; byte++) {
        const char text[] = {(char)byte, '\0'};
        char *escaped = uri_escape(text);

        if (escaped[0] == '%')
            assert_int_equal(strtol(escaped + 1, NULL, 16), byte);
        else
            assert_int_equal((unsigned char)escaped[0], byte);
        free(escaped);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unreserved_bytes_stay),
        cmocka_unit_test(what_means_something_in_a_url_or_a_pattern_is_escaped),
        cmocka_unit_test(every_byte_can_be_read_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
