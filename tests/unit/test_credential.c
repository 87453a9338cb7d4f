/* Passwords: exactly those that were added are accepted, whole and to the byte. */
#include "registry/credential.h"

#include "base/hash.h"
#include "cliser/proto.h"

#include "unit.h"

#include <stdio.h>
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

static struct credential_match log_in(struct credentials *credentials, const char *line)
{
    struct credential_match match = {0};

    assert_true(credentials_log_in(credentials, line, strlen(line), 1700000000, &match));
    return match;
}

static bool allows(const struct credentials *credentials, const char *name, const char *id)
{
    return credentials_allow(credentials, credential_name_number(name), id, strlen(id));
}

static struct credentials *three(void)
{
    struct credentials *credentials = credentials_new();

    add(credentials, "master"); /* begins auth by itself */
    assert_int_equal(credentials_begin(credentials, "web", "web-*,cache-1"), CREDENTIAL_ADDED);
    add(credentials, "web now");
    add(credentials, "web before");
    assert_int_equal(credentials_begin(credentials, "nobody", "x"), CREDENTIAL_ADDED);
    return credentials;
}

static void credential_is_told_by_its_password(void **state)
{
    struct credentials *credentials = three();
    struct credential_match match = log_in(credentials, "master");

    (void)state;
    assert_string_equal(credential_name(match.credential), "auth");
    assert_int_equal(match.password, 1);
    match = log_in(credentials, "web now");
    assert_string_equal(credential_name(match.credential), "web");
    assert_int_equal(match.password, 1);
    match = log_in(credentials, "web before");
    assert_string_equal(credential_name(match.credential), "web");
    assert_int_equal(match.password, 2);
    assert_false(credentials_log_in(credentials, "web", 3, 0, &match));
    assert_int_equal(credentials_owner(credentials, "master", 6), credential_name_number("auth"));
    assert_int_equal(credentials_owner(credentials, "maste", 5), 0);
    credentials_free(credentials);
}

static void credential_covers_its_ids_and_auth_covers_all(void **state)
{
    struct credentials *credentials = three();

    (void)state;
    assert_true(allows(credentials, "auth", "anything"));
    assert_true(allows(credentials, "web", "web-1"));
    assert_true(allows(credentials, "web", "cache-1"));
    assert_false(allows(credentials, "web", "cache-10"));
    assert_false(allows(credentials, "web", "nas"));
    assert_true(allows(credentials, "nobody", "x"));
    assert_false(allows(credentials, "gone", "web-1"));
    assert_false(credentials_allow(credentials, 0, "web-1", 5));
    /* It goes by the length: what stands behind the ID is no part of it. */
    assert_true(credentials_allow(credentials, credential_name_number("nobody"), "xyz", 1));
    credentials_free(credentials);
}

static void password_belongs_to_one_credential_and_name_to_one_section(void **state)
{
    struct credentials *credentials = three();

    (void)state;
    assert_int_equal(credentials_begin(credentials, "web", "*"), CREDENTIAL_TAKEN);
    assert_int_equal(credentials_begin(credentials, "auth", "*"), CREDENTIAL_TAKEN);
    assert_int_equal(credentials_begin(credentials, "other", "*"), CREDENTIAL_ADDED);
    assert_int_equal(credentials_add(credentials, "web now", 7), CREDENTIAL_TAKEN);
    assert_int_equal(credentials_add(credentials, "master", 6), CREDENTIAL_TAKEN);
    add(credentials, "own");
    add(credentials, "own"); /* the same one twice, as in the midst of a rotation */
    assert_string_equal(credential_name(log_in(credentials, "own").credential), "other");
    assert_string_equal(credential_name(log_in(credentials, "web now").credential), "web");
    credentials_free(credentials);
}

static void uses_of_each_password_are_counted(void **state)
{
    struct credentials *credentials = three();
    struct credential_match match;
    struct credential_use use;
    size_t count = 0;

    (void)state;
    for (int i = 0; i < 3; i++)
        assert_true(credentials_log_in(credentials, "web before", 10, 100 + i, &match));
    assert_true(credentials_accept(credentials, "web now", 7)); /* a look is no use */
    assert_false(credentials_log_in(credentials, "wrong", 5, 999, &match));
    while (credentials_use(credentials, count, &use)) {
        const bool is_used = count == 2;
        assert_int_equal(use.logins, is_used ? 3 : 0);
        assert_int_equal(use.last, is_used ? 102 : 0);
        count++;
    }
    assert_int_equal(count, 3);
    credentials_free(credentials);
}

static void thousands_of_credentials_are_told_apart(void **state)
{
    struct credentials *credentials = credentials_new();
    char text[64];

    (void)state;
    for (int i = 0; i < 5000; i++) {
        snprintf(text, sizeof(text), "c%d", i);
        assert_int_equal(credentials_begin(credentials, text, text), CREDENTIAL_ADDED);
        snprintf(text, sizeof(text), "password %d", i);
        add(credentials, text);
    }
    for (int i = 0; i < 5000; i++) {
        snprintf(text, sizeof(text), "password %d", i);
        const struct credential_match match = log_in(credentials, text);
        snprintf(text, sizeof(text), "c%d", i);
        assert_string_equal(credential_name(match.credential), text);
        assert_true(credentials_allow(credentials, match.credential, text, strlen(text)));
        text[0] = 'd';
        assert_false(credentials_allow(credentials, match.credential, text, strlen(text)));
    }
    assert_false(accepts(credentials, "password 5000"));
    credentials_free(credentials);
}

static void name_has_one_number_for_ever(void **state)
{
    const uint16_t web = credential_name_number("web");

    (void)state;
    assert_int_not_equal(web, 0);
    assert_int_equal(credential_name_number("web"), web);
    assert_int_not_equal(credential_name_number("we"), web);
    assert_string_equal(credential_name(web), "web");
    assert_string_equal(credential_name(0), "");
    assert_string_equal(credential_name(UINT16_MAX), "");
    assert_true(credential_name_valid("web-1.a:b@c_D", 13));
    assert_true(credential_name_valid("01234567890123456789012345678901", 32));
    assert_false(credential_name_valid("012345678901234567890123456789012", 33));
    assert_false(credential_name_valid("", 0));
    assert_false(credential_name_valid("a b", 3));
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
        cmocka_unit_test(credential_is_told_by_its_password),
        cmocka_unit_test(credential_covers_its_ids_and_auth_covers_all),
        cmocka_unit_test(password_belongs_to_one_credential_and_name_to_one_section),
        cmocka_unit_test(uses_of_each_password_are_counted),
        cmocka_unit_test(thousands_of_credentials_are_told_apart),
        cmocka_unit_test(name_has_one_number_for_ever),
    };

    return cmocka_run_group_tests(tests, start, NULL);
}
