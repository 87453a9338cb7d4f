/* Who may ask over TCP: names, origins, tokens and types, each against a table. */
#include "admin/access.h"

#include "base/hash.h"
#include "registry/credential.h"

#include "unit.h"

#include <stdio.h>
#include <string.h>

static unsigned check_host(const char *listen, const char *host, const char *origin)
{
    struct access_headers headers = {.host = host, .origin = origin};
    struct address address;
    char message[256];
    const char *why = NULL;

    assert_int_equal(address_parse(listen, &address, message, sizeof(message)), 0);
    const unsigned status = access_check_origin(&address, &headers, &why);
    assert_true((status == 0) == (why == NULL));
    return status;
}

static void host_that_is_us_is_taken(void **state)
{
    static const struct {
        const char *listen;
        const char *host;
    } rows[] = {
        {"127.0.0.1:3333", "127.0.0.1:3333"},
        {"127.0.0.1:3333", "localhost:3333"},
        {"127.0.0.1:3333", "LOCALhost:3333"},
        {"127.0.0.1:3333", "[::1]:3333"},
        {"192.0.2.1:3333", "192.0.2.1:3333"},
        {"192.0.2.1:3333", "localhost:3333"},
        {"[2001:db8::1]:80", "[2001:db8::1]"},
        {"[2001:DB8::1]:80", "[2001:db8::1]:80"},
        {"127.0.0.1:80", "localhost"},
        {"0.0.0.0:3333", "192.0.2.1:3333"},
        {"0.0.0.0:3333", "[2001:db8::1]:3333"},
        {"[::]:3333", "10.0.0.1:3333"},
        {"0.0.0.0:80", "10.0.0.1"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        char origin[128];

        assert_int_equal(check_host(rows[i].listen, rows[i].host, NULL), 0);
        snprintf(origin, sizeof(origin), "http://%s", rows[i].host);
        assert_int_equal(check_host(rows[i].listen, rows[i].host, origin), 0);
    }
}

static void host_that_is_somebody_else_is_403(void **state)
{
    static const struct {
        const char *listen;
        const char *host;
    } rows[] = {
        {"127.0.0.1:3333", ""},
        {"127.0.0.1:3333", ":3333"},
        {"127.0.0.1:3333", "localhost"},
        {"127.0.0.1:3333", "localhost:"},
        {"127.0.0.1:3333", "localhost:333"},
        {"127.0.0.1:3333", "localhost:33333"},
        {"127.0.0.1:3333", "localhost:03333"},
        {"127.0.0.1:3333", "localhost:3333 "},
        {"127.0.0.1:3333", "localhost:3333."},
        {"127.0.0.1:3333", "evil.example:3333"},
        {"127.0.0.1:3333", "localhost.evil.example:3333"},
        {"127.0.0.1:3333", "192.0.2.1:3333"},
        {"127.0.0.1:3333", "[::2]:3333"},
        {"127.0.0.1:3333", "::1:3333"},
        {"192.0.2.1:3333", "192.0.2.2:3333"},
        {"0.0.0.0:3333", "evil.example:3333"},
        {"0.0.0.0:3333", "10.0.0.1:3334"},
        {"0.0.0.0:3333", "10.0.0.1:03333"},
        {"0.0.0.0:3333", "10.0.0.1"},
        {"0.0.0.0:3333", "unix:/x:3333"},
        {"0.0.0.0:3333", "[10.0.0.1:3333"},
        {"[::]:3333", "]"},
        {"[::]:3333", "[]:3333"},
    };
    char longest[4096];

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++)
        assert_int_equal(check_host(rows[i].listen, rows[i].host, NULL), 403);
    memset(longest, '1', sizeof(longest));
    longest[sizeof(longest) - 1] = '\0';
    assert_int_equal(check_host("0.0.0.0:3333", longest, NULL), 403);
}

static void origin_of_another_page_is_403(void **state)
{
    static const char *const origins[] = {
        "",
        "null",
        "http://",
        "localhost:3333",
        "https://localhost:3333",
        "http://localhost",
        "http://localhost:3334",
        "http://localhost:3333/",
        "http://evil.example",
        "http://localhost:3333.evil.example",
        "http://evil.example/http://localhost:3333",
    };

    (void)state;
    for (size_t i = 0; i < COUNT(origins); i++)
        assert_int_equal(check_host("127.0.0.1:3333", "localhost:3333", origins[i]), 403);
}

static void missing_or_repeated_headers_are_400(void **state)
{
    struct access_headers headers = {.host = "localhost:3333", .repeated = true};
    struct address address;
    char message[256];
    const char *why = NULL;

    (void)state;
    assert_int_equal(check_host("127.0.0.1:3333", NULL, NULL), 400);
    assert_int_equal(address_parse("127.0.0.1:3333", &address, message, sizeof(message)), 0);
    assert_int_equal(access_check_origin(&address, &headers, &why), 400);
    assert_non_null(why);
}

static void token_counts_only_behind_bearer(void **state)
{
    static const struct {
        const char *header;
        unsigned status;
    } rows[] = {
        {"Bearer sesame", 0},
        {"bearer sesame", 0},
        {"Bearer other", 0},
        {NULL, 401},
        {"", 401},
        {"Bearer", 401},
        {"Bearer ", 401},
        {"sesame", 401},
        {"Basic sesame", 401},
        {"Bearer  sesame", 401},
        {"Bearer sesame ", 401},
        {"Bearer sesam", 401},
        {"Bearer sesame2", 401},
        {"Bearer SESAME", 401},
        {"Bearer sesameother", 401},
        {"Bearer sesame,x", 401},
        {"Bearer\tsesame", 401},
        {" Bearer sesame", 401},
        {"Bearersesame", 401},
        {"Bearer \"sesame\"", 401},
    };
    struct credentials *tokens = credentials_new();
    struct credentials *none = credentials_new();

    (void)state;
    assert_int_equal(credentials_add(tokens, "sesame", 6), 0);
    assert_int_equal(credentials_add(tokens, "other", 5), 0);
    for (size_t i = 0; i < COUNT(rows); i++) {
        const struct access_headers headers = {.authorization = rows[i].header};
        const char *why = NULL;

        assert_int_equal(access_check_token(tokens, &headers, &why), rows[i].status);
        assert_true((rows[i].status == 0) == (why == NULL));
        assert_true(!why || !strstr(why, "sesame"));
        assert_int_equal(access_check_token(none, &headers, &why), 401);
    }
    credentials_free(tokens);
    credentials_free(none);
}

static void type_has_to_be_json(void **state)
{
    static const struct {
        const char *type;
        unsigned status;
    } rows[] = {
        {"application/json", 0},
        {"Application/JSON", 0},
        {"application/json;charset=utf-8", 0},
        {"application/json ; x", 0},
        {NULL, 415},
        {"", 415},
        {"application/jso", 415},
        {"application/json5", 415},
        {"application/json,text/plain", 415},
        {"text/plain", 415},
        {"text/plain;application/json", 415},
        {" application/json", 415},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        const struct access_headers headers = {.content_type = rows[i].type};
        const char *why = NULL;

        assert_int_equal(access_check_type(&headers, &why), rows[i].status);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(host_that_is_us_is_taken),
        cmocka_unit_test(host_that_is_somebody_else_is_403),
        cmocka_unit_test(origin_of_another_page_is_403),
        cmocka_unit_test(missing_or_repeated_headers_are_400),
        cmocka_unit_test(token_counts_only_behind_bearer),
        cmocka_unit_test(type_has_to_be_json),
    };

    return hash_init() == 0 ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
}
