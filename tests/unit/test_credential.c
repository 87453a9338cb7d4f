/* Passwords: exactly those that were added are accepted, whole and to the byte. */
#include "registry/credential.h"

#include "base/hash.h"
#include "cliser/proto.h"

#include "unit.h"

#include <string.h>

static int start(void **state)
{
    (void)state;
    return hash_init(); /* starts libsodium, as main does */
}

static void add(struct credentials *credentials, const char *password)
{
    assert_int_equal(credentials_add(credentials, password, strlen(password)), 0);
}

static bool accepts(const struct credentials *credentials, const char *line)
{
    return credentials_accept(credentials, line, strlen(line));
}

static void credentials_without_a_password_accept_nothing(void **state)
{
    struct credentials *credentials = credentials_new();

    (void)state;
    assert_non_null(credentials);
    assert_false(accepts(credentials, ""));
    assert_false(accepts(credentials, "secret"));
    credentials_free(credentials);
    credentials_free(NULL);
}

static void credentials_accept_each_of_several_passwords(void **state)
{
    static const char *const passwords[] = {"current", "previous", "p", "with spaces ; #",
                                            "current2"};
    struct credentials *credentials = credentials_new();

    (void)state;
    for (size_t i = 0; i < COUNT(passwords); i++)
        add(credentials, passwords[i]);
    for (size_t i = 0; i < COUNT(passwords); i++)
        assert_true(accepts(credentials, passwords[i]));
    assert_false(accepts(credentials, "currentprevious"));
    assert_false(accepts(credentials, "next"));
    credentials_free(credentials);
}

static void credentials_refuse_what_is_only_nearly_the_password(void **state)
{
    static const char *const near[] = {
        "",       "s",      "secre",  "ecret",  "secrett", "ssecret", "secret ",  " secret",
        "Secret", "secreT", "sEcret", "terces", "secres",  "tecret",  "secret\r", "secretsecret",
    };
    struct credentials *credentials = credentials_new();

    (void)state;
    add(credentials, "secret");
    for (size_t i = 0; i < COUNT(near); i++) {
        if (accepts(credentials, near[i]))
            fail_msg("\"%s\" was taken for the password", near[i]);
    }
    assert_true(accepts(credentials, "secret"));
    credentials_free(credentials);
}

/* Every length, with each single byte changed: a comparison that stops early would miss one. */
static void credentials_compare_every_byte_of_every_length(void **state)
{
    struct credentials *credentials = NULL;
    char password[PROTO_MAX_PASSWORD_BYTES + 2];
    char other[sizeof(password)];

    (void)state;
    for (size_t i = 0; i < sizeof(password); i++)
        password[i] = (char)(1 + i * 7 % 255);
    for (size_t len = 1; len <= PROTO_MAX_PASSWORD_BYTES; len++) {
        credentials = credentials_new();
        assert_int_equal(credentials_add(credentials, password, len), 0);
        assert_true(credentials_accept(credentials, password, len));
        assert_false(credentials_accept(credentials, password, len - 1));
        assert_false(credentials_accept(credentials, password, len + 1));
        for (size_t i = 0; i < len; i++) {
            memcpy(other, password, len);
            other[i] = (char)(other[i] ^ 1);
            assert_false(credentials_accept(credentials, other, len));
        }
        credentials_free(credentials);
    }
}

/* The machine hands over any line of up to 254 bytes, with any byte in it. */
static void credentials_refuse_lines_that_cannot_be_a_password(void **state)
{
    struct credentials *credentials = credentials_new();
    char line[PROTO_MAX_LINE_BYTES - 2];

    (void)state;
    add(credentials, "secret");
    memset(line, 0, sizeof(line));
    memcpy(line, "secret", 6);
    assert_false(credentials_accept(credentials, line, 7));
    assert_false(credentials_accept(credentials, line, sizeof(line)));
    memset(line, 0xff, sizeof(line));
    assert_false(credentials_accept(credentials, line, sizeof(line)));
    credentials_free(credentials);
}

static void credentials_are_sets_of_their_own(void **state)
{
    struct credentials *old = credentials_new();
    struct credentials *next = credentials_new();

    (void)state;
    add(old, "old");
    add(next, "next");
    assert_false(accepts(old, "next"));
    assert_false(accepts(next, "old"));
    credentials_free(old);
    assert_true(accepts(next, "next"));
    credentials_free(next);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(credentials_without_a_password_accept_nothing),
        cmocka_unit_test(credentials_accept_each_of_several_passwords),
        cmocka_unit_test(credentials_refuse_what_is_only_nearly_the_password),
        cmocka_unit_test(credentials_compare_every_byte_of_every_length),
        cmocka_unit_test(credentials_refuse_lines_that_cannot_be_a_password),
        cmocka_unit_test(credentials_are_sets_of_their_own),
    };

    return cmocka_run_group_tests(tests, start, NULL);
}
