/* Addresses: what is read, what is refused, and that writing is the inverse of reading. */
#include "base/address.h"

#include "unit.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

/* sockaddr_un has room for this many bytes before the NUL. */
#define MAX_PATH_BYTES (sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1)

static struct address parsed(const char *text)
{
    struct address address;
    char message[256] = "";

    if (address_parse(text, &address, message, sizeof(message)) != 0)
        fail_msg("%s: %s", text, message);
    return address;
}

static void address_read_and_written_is_the_same_text(void **state)
{
    static const char *const texts[] = {
        "127.0.0.1:1111",
        "0.0.0.0:0",
        "255.255.255.255:65535",
        "[::1]:1111",
        "[::]:0",
        "[2001:db8::ff00:42:8329]:65535",
        "unix:/run/cliser.sock",
        "unix:cliser.sock",
        "unix:/a:b:1111",
    };
    char buf[ADDRESS_TEXT_BYTES];

    (void)state;
    for (size_t i = 0; i < COUNT(texts); i++) {
        const struct address address = parsed(texts[i]);
        assert_string_equal(address_format(&address, buf), texts[i]);
    }
}

static void address_of_each_family_is_what_the_kernel_wants(void **state)
{
    const struct address four = parsed("127.0.0.2:258");
    const struct sockaddr_in *in = (const struct sockaddr_in *)&four.storage;
    const struct address six = parsed("[::1]:258");
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&six.storage;
    const struct address local = parsed("unix:/x");
    const struct sockaddr_un *un = (const struct sockaddr_un *)&local.storage;

    (void)state;
    assert_int_equal(in->sin_family, AF_INET);
    assert_int_equal(four.len, sizeof(*in));
    assert_int_equal(ntohs(in->sin_port), 258);
    assert_int_equal(ntohl(in->sin_addr.s_addr), 0x7f000002);
    assert_int_equal(in6->sin6_family, AF_INET6);
    assert_int_equal(six.len, sizeof(*in6));
    assert_int_equal(ntohs(in6->sin6_port), 258);
    assert_true(IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr));
    assert_int_equal(un->sun_family, AF_UNIX);
    assert_in_range(local.len, offsetof(struct sockaddr_un, sun_path) + 3, sizeof(*un));
    assert_string_equal(un->sun_path, "/x");
}

static void address_that_is_none_is_refused_with_an_example(void **state)
{
    static const char *const texts[] = {
        "",
        ":",
        ":1111",
        "1111",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:x",
        "127.0.0.1:1111x",
        "127.0.0.1: 1111",
        "127.0.0.1:-1",
        "127.0.0.1:+1",
        "127.0.0.1:65536",
        "127.0.0.1:18446744073709551617",
        "127.0.0:1111",
        "127.0.0.256:1111",
        "localhost:1111",
        "*:1111",
        "::1:1111",
        "::1",
        "[::1]",
        "[::1]:",
        "[::1:1111",
        "::1]:1111",
        "[]:1111",
        "[::1]1111",
        "[localhost]:1111",
        "[::1 ]:1111",
        "1234567890123456789012345678901234567890123456789012345678901234567890:1",
    };
    struct address address;
    char message[256];

    (void)state;
    for (size_t i = 0; i < COUNT(texts); i++) {
        message[0] = '\0';
        if (address_parse(texts[i], &address, message, sizeof(message)) != -1)
            fail_msg("\"%s\" was taken for an address", texts[i]);
        assert_non_null(strstr(message, "127.0.0.1:1111"));
    }
}

static void address_unix_path_fills_the_kernels_struct_and_no_more(void **state)
{
    char text[5 + MAX_PATH_BYTES + 2] = "unix:";
    char buf[ADDRESS_TEXT_BYTES];
    char message[256] = "";
    struct address address;

    (void)state;
    memset(text + 5, 'p', MAX_PATH_BYTES);
    address = parsed(text);
    assert_string_equal(address_format(&address, buf), text);

    text[5 + MAX_PATH_BYTES] = 'p';
    assert_int_equal(address_parse(text, &address, message, sizeof(message)), -1);
    assert_non_null(strstr(message, "107"));
    assert_int_equal(address_parse("unix:", &address, message, sizeof(message)), -1);
}

static void address_message_is_cut_to_its_buffer(void **state)
{
    char message[9];
    struct address address;

    (void)state;
    memset(message, 'm', sizeof(message));
    assert_int_equal(address_parse("nowhere", &address, message, 8), -1);
    assert_int_equal(strlen(message), 7);
    assert_int_equal(message[8], 'm');
}

static void address_is_loopback_for_this_host_only(void **state)
{
    static const struct {
        const char *text;
        bool loopback;
    } rows[] = {
        {"127.0.0.1:1", true},
        {"127.255.255.254:1", true},
        {"[::1]:1", true},
        {"unix:/x", true},
        {"0.0.0.0:1", false},
        {"[::]:1", false},
        {"126.255.255.255:1", false},
        {"128.0.0.1:1", false},
        {"192.168.0.1:1", false},
        {"[::2]:1", false},
        {"[fe80::1]:1", false},
    };
    const struct address nothing = {.len = 0};

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        const struct address address = parsed(rows[i].text);
        if (address_is_loopback(&address) != rows[i].loopback)
            fail_msg("%s: not %d", rows[i].text, rows[i].loopback);
    }
    assert_false(address_is_loopback(&nothing));
}

static void peer_address_survives_the_store(void **state)
{
    static const struct {
        const char *from;
        const char *ip;
        uint16_t port;
    } rows[] = {
        {"10.1.2.3:40000", "10.1.2.3", 40000},
        {"[2001:db8::1]:65535", "2001:db8::1", 65535},
        {"unix:/run/x", "unix", 0},
    };
    char buf[ADDRESS_TEXT_BYTES];

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        const struct address from = parsed(rows[i].from);
        struct peer_address peer;
        struct peer_address again;

        peer_address_set(&peer, &from);
        assert_int_equal(peer.port, rows[i].port);
        assert_string_equal(peer_address_format(&peer, buf), rows[i].ip);
        peer_address_parse(&again, buf, peer.port);
        assert_memory_equal(&again, &peer, sizeof(peer));
    }
}

static void peer_address_of_nonsense_is_unknown_and_empty(void **state)
{
    struct peer_address peer;
    char buf[ADDRESS_TEXT_BYTES] = "old";

    (void)state;
    memset(&peer, 0xff, sizeof(peer));
    peer_address_parse(&peer, "not an address", 0);
    assert_int_equal(peer.family, AF_UNSPEC);
    assert_string_equal(peer_address_format(&peer, buf), "");
    assert_int_equal(sizeof(struct peer_address), 20);
}

static void peer_of_every_byte_is_written_as_inet_ntop_does(void **state)
{
    char expected[ADDRESS_TEXT_BYTES];
    char buf[ADDRESS_TEXT_BYTES];

    (void)state;
    for (unsigned byte = 0; byte < 256; byte++) {
        const struct peer_address peer = {
            .family = AF_INET,
            .ip = {(uint8_t)byte, (uint8_t)(255 - byte), (uint8_t)(byte / 2), (uint8_t)byte},
        };
        assert_non_null(inet_ntop(AF_INET, peer.ip, expected, sizeof(expected)));
        assert_string_equal(peer_address_format(&peer, buf), expected);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(address_read_and_written_is_the_same_text),
        cmocka_unit_test(address_of_each_family_is_what_the_kernel_wants),
        cmocka_unit_test(address_that_is_none_is_refused_with_an_example),
        cmocka_unit_test(address_unix_path_fills_the_kernels_struct_and_no_more),
        cmocka_unit_test(address_message_is_cut_to_its_buffer),
        cmocka_unit_test(address_is_loopback_for_this_host_only),
        cmocka_unit_test(peer_address_survives_the_store),
        cmocka_unit_test(peer_address_of_nonsense_is_unknown_and_empty),
        cmocka_unit_test(peer_of_every_byte_is_written_as_inet_ntop_does),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
