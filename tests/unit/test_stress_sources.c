/* Source addresses: ranges as people write them, the round robin, and the automatic choice. */
#include "sources.h"

#include "unit.h"

#include <stdio.h>
#include <string.h>

static struct sources parsed(const char *text)
{
    struct sources sources;
    char message[256];

    if (sources_parse(&sources, text, message, sizeof(message)) < 0)
        fail_msg("%s", message);
    return sources;
}

static void assert_at(const struct sources *sources, uint64_t number, const char *expected)
{
    struct address address;
    struct peer_address peer;
    char text[ADDRESS_TEXT_BYTES];

    sources_at(sources, number, &address);
    assert_true(address.len > 0);
    peer_address_set(&peer, &address);
    assert_string_equal(peer_address_format(&peer, text), expected);
    /* The port is the kernel's choice. */
    assert_int_equal(peer.port, 0);
}

static void assert_text(const struct sources *sources, const char *expected)
{
    char text[SOURCES_TEXT_BYTES];

    assert_string_equal(sources_format(sources, text), expected);
}

static void range_goes_round(void **state)
{
    const struct sources sources = parsed("127.0.1.1-127.0.1.50");

    (void)state;
    assert_int_equal(sources.count, 50);
    assert_at(&sources, 0, "127.0.1.1");
    assert_at(&sources, 1, "127.0.1.2");
    assert_at(&sources, 49, "127.0.1.50");
    assert_at(&sources, 50, "127.0.1.1");
    assert_at(&sources, 5000000001, "127.0.1.2");
    assert_text(&sources, "127.0.1.1-127.0.1.50");
}

static void range_crosses_byte_boundaries(void **state)
{
    const struct sources sources = parsed("10.0.255.250-10.1.0.5");

    (void)state;
    assert_int_equal(sources.count, 12);
    assert_at(&sources, 5, "10.0.255.255");
    assert_at(&sources, 6, "10.1.0.0");
    assert_at(&sources, 11, "10.1.0.5");
}

static void single_address_is_a_range_of_one(void **state)
{
    const struct sources sources = parsed("192.0.2.7");

    (void)state;
    assert_int_equal(sources.count, 1);
    assert_at(&sources, 0, "192.0.2.7");
    assert_at(&sources, 1, "192.0.2.7");
    assert_text(&sources, "192.0.2.7");
}

static void ipv6_range_works_the_same(void **state)
{
    const struct sources sources = parsed("fd00::fffe-fd00::1:1");

    (void)state;
    assert_int_equal(sources.family, AF_INET6);
    assert_int_equal(sources.count, 4);
    assert_at(&sources, 0, "fd00::fffe");
    assert_at(&sources, 2, "fd00::1:0");
    assert_text(&sources, "fd00::fffe-fd00::1:1");
}

static void largest_range_is_bounded(void **state)
{
    const struct sources sources = parsed("127.1.0.0-127.1.255.255");
    struct sources refused;
    char message[256];

    (void)state;
    assert_int_equal(sources.count, SOURCES_MAX);
    assert_int_equal(sources_parse(&refused, "127.1.0.0-127.2.0.0", message, sizeof(message)), -1);
    assert_int_equal(sources_parse(&refused, "fd00::1-fd01::1", message, sizeof(message)), -1);
}

static void nonsense_is_refused(void **state)
{
    static const char *const texts[] = {
        "",
        "-",
        "127.0.0.1-",
        "-127.0.0.1",
        "127.0.0.1-127.0.0.2-127.0.0.3",
        "127.0.0.2-127.0.0.1",
        "127.0.0.1-::1",
        "127.0.0",
        "127.0.0.256",
        "localhost",
        "127.0.0.1 ",
        "127.0.0.1:80",
        "0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000",
    };
    struct sources sources;

    (void)state;
    for (size_t i = 0; i < COUNT(texts); i++) {
        char message[256] = "";

        if (sources_parse(&sources, texts[i], message, sizeof(message)) != -1)
            fail_msg("\"%s\" was taken", texts[i]);
        assert_true(strlen(message) > 0);
    }
}

static struct sources chosen(const char *server, uint64_t connects)
{
    struct sources sources;
    struct address address;
    char message[256];

    assert_int_equal(address_parse(server, &address, message, sizeof(message)), 0);
    sources_choose(&sources, &address, connects);
    return sources;
}

static void loopback_server_gets_as_many_sources_as_needed(void **state)
{
    const struct sources few = chosen("127.0.0.1:1111", 15000);
    const struct sources many = chosen("127.0.0.9:1111", 1000000);
    const struct sources most = chosen("127.0.0.1:1111", UINT64_MAX / 2);

    (void)state;
    assert_in_range(few.count, 2, 16);
    assert_at(&few, 0, "127.0.1.1");
    /* Twenty thousand connects from each at most, and not far more addresses than that takes. */
    assert_in_range(many.count, 50, 100);
    assert_int_equal(most.count, SOURCES_MAX);
}

static void kernel_chooses_otherwise(void **state)
{
    const struct sources small = chosen("127.0.0.1:1111", 50);
    const struct sources remote = chosen("192.0.2.1:1111", 100000);
    const struct sources ipv6 = chosen("[::1]:1111", 100000);
    const struct sources local = chosen("unix:/tmp/x", 100000);
    struct address address;

    (void)state;
    assert_int_equal(small.count, 0);
    assert_int_equal(remote.count, 0);
    assert_int_equal(ipv6.count, 0);
    assert_int_equal(local.count, 0);
    sources_at(&remote, 3, &address);
    assert_int_equal(address.len, 0);
    assert_text(&remote, "any");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(range_goes_round),
        cmocka_unit_test(range_crosses_byte_boundaries),
        cmocka_unit_test(single_address_is_a_range_of_one),
        cmocka_unit_test(ipv6_range_works_the_same),
        cmocka_unit_test(largest_range_is_bounded),
        cmocka_unit_test(nonsense_is_refused),
        cmocka_unit_test(loopback_server_gets_as_many_sources_as_needed),
        cmocka_unit_test(kernel_chooses_otherwise),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
