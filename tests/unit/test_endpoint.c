/* Servers' addresses as people write them. Only addresses that need no resolver are resolved. */
#include "endpoint.h"

#include "unit.h"

#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

static int parse(const char *text, struct endpoint *endpoint)
{
    char message[512] = "";
    const int result = endpoint_parse(text, endpoint, message, sizeof(message));

    /* Whoever got it wrong is told what would be right. */
    assert_true(result == 0 ? message[0] == '\0' : strstr(message, "should be") != NULL);
    return result;
}

static void numeric_addresses_need_no_resolver(void **state)
{
    static const char *const texts[] = {
        "127.0.0.1:1111", "[::1]:1111",       "[2001:db8::1]:65535",
        "0.0.0.0:1",      "unix:/run/cliser", "unix:relative",
    };

    (void)state;
    for (size_t i = 0; i < COUNT(texts); i++) {
        struct endpoint endpoint;
        struct endpoint_addresses addresses;
        char text[ADDRESS_TEXT_BYTES];

        assert_int_equal(parse(texts[i], &endpoint), 0);
        assert_true(endpoint.address.len > 0);
        assert_null(endpoint_resolve(&endpoint, &addresses));
        assert_int_equal(addresses.count, 1);
        assert_string_equal(address_format(&addresses.items[0], text), texts[i]);
    }
}

static void names_are_kept_for_the_resolver(void **state)
{
    static const struct {
        const char *text, *host, *port;
    } rows[] = {
        {"localhost:1111", "localhost", "1111"},
        {"cliser.example.net:80", "cliser.example.net", "80"},
        {"a_b-c:65535", "a_b-c", "65535"},
        {"host:00080", "host", "80"},
        {"[fe80::1%eth0]:1111", "fe80::1%eth0", "1111"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct endpoint endpoint;

        assert_int_equal(parse(rows[i].text, &endpoint), 0);
        assert_int_equal(endpoint.address.len, 0);
        assert_string_equal(endpoint.host, rows[i].host);
        assert_string_equal(endpoint.port, rows[i].port);
    }
}

static void anything_else_is_refused(void **state)
{
    static const char *const texts[] = {
        "",
        ":",
        "host",
        "host:",
        ":1111",
        "host:0",
        "host:65536",
        "host:18446744073709551617",
        "host:http",
        "host:-1",
        "host:+1",
        "host: 1",
        "host:1 ",
        "ho st:1",
        "http://host:80",
        "::1:1111",
        "2001:db8::1:1111",
        "[]:1111",
        "[::1]",
        "[::1]1111",
        "[host]:1111",
        "[127.0.0.1:1111",
        "unix:",
    };

    (void)state;
    for (size_t i = 0; i < COUNT(texts); i++) {
        struct endpoint endpoint;

        if (parse(texts[i], &endpoint) == 0)
            fail_msg("\"%s\" was taken", texts[i]);
    }
}

static void lengths_are_bounded(void **state)
{
    struct endpoint endpoint;
    char text[512];
    char name[ENDPOINT_MAX_HOST_BYTES + 2];

    (void)state;
    memset(name, 'a', sizeof(name));
    name[ENDPOINT_MAX_HOST_BYTES] = '\0';
    snprintf(text, sizeof(text), "%s:1", name);
    assert_int_equal(parse(text, &endpoint), 0);
    assert_string_equal(endpoint.host, name);

    name[ENDPOINT_MAX_HOST_BYTES] = 'a';
    name[ENDPOINT_MAX_HOST_BYTES + 1] = '\0';
    snprintf(text, sizeof(text), "%s:1", name);
    assert_int_equal(parse(text, &endpoint), -1);

    memset(name, 'a', sizeof(name));
    name[sizeof(((struct sockaddr_un *)0)->sun_path) - 1] = '\0';
    snprintf(text, sizeof(text), "unix:%s", name);
    assert_int_equal(parse(text, &endpoint), 0);
    snprintf(text, sizeof(text), "unix:%sa", name);
    assert_int_equal(parse(text, &endpoint), -1);
}

static void zone_that_does_not_exist_is_an_error_in_words(void **state)
{
    struct endpoint endpoint;
    struct endpoint_addresses addresses;

    (void)state;
    assert_int_equal(parse("[fe80::1%no-such-interface]:1111", &endpoint), 0);
    const char *failed = endpoint_resolve(&endpoint, &addresses);
    assert_non_null(failed);
    assert_true(strlen(failed) > 0);
    assert_int_equal(addresses.count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numeric_addresses_need_no_resolver),
        cmocka_unit_test(names_are_kept_for_the_resolver),
        cmocka_unit_test(anything_else_is_refused),
        cmocka_unit_test(lengths_are_bounded),
        cmocka_unit_test(zone_that_does_not_exist_is_an_error_in_words),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
