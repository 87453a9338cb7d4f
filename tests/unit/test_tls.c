/*
 * Whose certificate covers which ID: certificates are made here, with names that openssl(1) would
 * not write.
 */
#include "net/tls.h"

#include "unit.h"

#include <openssl/evp.h>
#include <openssl/x509v3.h>

#include <string.h>

/* A name of the subject; the same one may be added several times. */
static void add_common_name(X509 *certificate, int type, const char *name, int len)
{
    assert_int_equal(X509_NAME_add_entry_by_NID(X509_get_subject_name(certificate), NID_commonName,
                                                type, (const unsigned char *)name, len, -1, 0),
                     1);
}

static void add_alternative_name(GENERAL_NAMES *names, int type, const char *name, int len)
{
    GENERAL_NAME *entry = GENERAL_NAME_new();
    ASN1_IA5STRING *text = ASN1_IA5STRING_new();

    assert_int_equal(ASN1_STRING_set(text, name, len), 1);
    GENERAL_NAME_set0_value(entry, type, text);
    assert_true(sk_GENERAL_NAME_push(names, entry) > 0);
}

static void set_alternative_names(X509 *certificate, GENERAL_NAMES *names)
{
    assert_int_equal(X509_add1_ext_i2d(certificate, NID_subject_alt_name, names, 0, 0), 1);
    GENERAL_NAMES_free(names);
}

static bool names(const X509 *certificate, const char *id)
{
    return tls_certificate_names(certificate, id, strlen(id));
}

static void certificate_names_its_common_name_and_nothing_like_it(void **state)
{
    X509 *certificate = X509_new();

    (void)state;
    add_common_name(certificate, MBSTRING_ASC, "web-1", -1);
    assert_true(names(certificate, "web-1"));
    assert_false(names(certificate, "web-"));
    assert_false(names(certificate, "web-11"));
    assert_false(names(certificate, "WEB-1"));
    assert_false(names(certificate, ""));
    assert_true(tls_certificate_names(certificate, "web-1 and more", 5));
    X509_free(certificate);
}

static void certificate_names_each_of_several_common_names(void **state)
{
    X509 *certificate = X509_new();

    (void)state;
    add_common_name(certificate, MBSTRING_ASC, "a", -1);
    add_common_name(certificate, MBSTRING_ASC, "b", -1);
    assert_true(names(certificate, "a"));
    assert_true(names(certificate, "b"));
    assert_false(names(certificate, "ab"));
    X509_free(certificate);
}

static void certificate_with_a_nul_in_its_names_does_not_name_what_is_before_it(void **state)
{
    X509 *certificate = X509_new();
    GENERAL_NAMES *alternatives = GENERAL_NAMES_new();

    (void)state;
    add_common_name(certificate, V_ASN1_UTF8STRING, "web-1\0.evil", 11);
    add_alternative_name(alternatives, GEN_DNS, "web-2\0.evil", 11);
    set_alternative_names(certificate, alternatives);
    assert_false(names(certificate, "web-1"));
    assert_false(names(certificate, "web-2"));
    X509_free(certificate);
}

static void certificate_with_a_wildcard_names_nobody(void **state)
{
    X509 *certificate = X509_new();
    GENERAL_NAMES *alternatives = GENERAL_NAMES_new();

    (void)state;
    add_common_name(certificate, MBSTRING_ASC, "*", -1);
    add_alternative_name(alternatives, GEN_DNS, "*.example", 9);
    set_alternative_names(certificate, alternatives);
    assert_false(names(certificate, "web-1"));
    assert_false(names(certificate, "web.example"));
    X509_free(certificate);
}

static void certificate_names_its_dns_names_and_no_others(void **state)
{
    X509 *certificate = X509_new();
    GENERAL_NAMES *alternatives = GENERAL_NAMES_new();

    (void)state;
    add_common_name(certificate, MBSTRING_ASC, "common", -1);
    add_alternative_name(alternatives, GEN_EMAIL, "a@example", 9);
    add_alternative_name(alternatives, GEN_URI, "uri:b", 5);
    add_alternative_name(alternatives, GEN_DNS, "first", 5);
    add_alternative_name(alternatives, GEN_DNS, "second", 6);
    set_alternative_names(certificate, alternatives);
    assert_true(names(certificate, "first"));
    assert_true(names(certificate, "second"));
    assert_true(names(certificate, "common"));
    assert_false(names(certificate, "a@example"));
    assert_false(names(certificate, "uri:b"));
    X509_free(certificate);
}

static void certificate_names_a_common_name_in_another_encoding(void **state)
{
    X509 *certificate = X509_new();

    (void)state;
    add_common_name(certificate, V_ASN1_BMPSTRING, "\0w\0-\0001", 6);
    assert_true(names(certificate, "w-1"));
    assert_false(tls_certificate_names(certificate, "\0w\0-\0001", 6));
    X509_free(certificate);
}

static void no_certificate_and_an_empty_one_name_nobody(void **state)
{
    X509 *certificate = X509_new();

    (void)state;
    assert_false(names(NULL, "web-1"));
    assert_false(names(certificate, "web-1"));
    assert_false(names(certificate, ""));
    X509_free(certificate);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(certificate_names_its_common_name_and_nothing_like_it),
        cmocka_unit_test(certificate_names_each_of_several_common_names),
        cmocka_unit_test(certificate_with_a_nul_in_its_names_does_not_name_what_is_before_it),
        cmocka_unit_test(certificate_with_a_wildcard_names_nobody),
        cmocka_unit_test(certificate_names_its_dns_names_and_no_others),
        cmocka_unit_test(certificate_names_a_common_name_in_another_encoding),
        cmocka_unit_test(no_certificate_and_an_empty_one_name_nobody),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
