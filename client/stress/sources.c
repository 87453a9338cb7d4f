/* Arithmetic on addresses. Opens no socket and asks the system nothing. */
#include "sources.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* Fewer than there are ephemeral ports (28,232 by default), because ports of the connections that
 * were closed last are not free at once. */
#define CONNECTS_PER_SOURCE 20000

/* From so many connects on, spread even what one source could carry: finding a free port gets slow
 * while a source's range fills up. */
#define MANY_CONNECTS    1000
#define SOURCES_FOR_MANY 4

/* 127.0.1.1: away from 127.0.0.1, where everything else on the host lives. */
static const unsigned char first_loopback[4] = {127, 0, 1, 1};

static int parse_address(const char *text, size_t len, sa_family_t *family, unsigned char *bytes);
static size_t address_bytes(sa_family_t family);
static bool distance(const unsigned char *first, const unsigned char *last, size_t len,
                     uint32_t *steps);
static void advance(unsigned char *bytes, size_t len, uint32_t steps);

int sources_parse(struct sources *sources, const char *text, char *message, size_t message_size)
{
    const char *dash = strchr(text, '-');
    const size_t first_len = dash ? (size_t)(dash - text) : strlen(text);
    const char *last_text = dash ? dash + 1 : text;
    unsigned char last[16] = {0};
    sa_family_t last_family = AF_UNSPEC;
    uint32_t steps = 0;

    *sources = (struct sources){0};
    if (parse_address(text, first_len, &sources->family, sources->first) < 0 ||
        parse_address(last_text, dash ? strlen(last_text) : first_len, &last_family, last) < 0) {
        snprintf(message, message_size, "'%s' is not an address or a range like %s", text,
                 "127.0.1.1-127.0.1.50");
        return -1;
    }
    if (sources->family != last_family) {
        snprintf(message, message_size, "'%s' mixes IPv4 and IPv6", text);
        return -1;
    }
    if (!distance(sources->first, last, address_bytes(last_family), &steps)) {
        snprintf(message, message_size, "'%s' ends before it begins, or has more than %d addresses",
                 text, SOURCES_MAX);
        return -1;
    }
    sources->count = steps + 1;
    return 0;
}

void sources_choose(struct sources *sources, const struct address *server, uint64_t connects)
{
    *sources = (struct sources){0};
    if (server->storage.ss_family != AF_INET || !address_is_loopback(server) ||
        connects < MANY_CONNECTS)
        return;

    uint64_t count = (connects + CONNECTS_PER_SOURCE - 1) / CONNECTS_PER_SOURCE;
    if (count < SOURCES_FOR_MANY)
        count = SOURCES_FOR_MANY;
    if (count > SOURCES_MAX)
        count = SOURCES_MAX;

    sources->family = AF_INET;
    memcpy(sources->first, first_loopback, sizeof(first_loopback));
    sources->count = (uint32_t)count;
}

void sources_at(const struct sources *sources, uint64_t number, struct address *address)
{
    unsigned char bytes[16];

    memset(address, 0, sizeof(*address));
    if (sources->count == 0)
        return;

    memcpy(bytes, sources->first, sizeof(bytes));
    advance(bytes, address_bytes(sources->family), (uint32_t)(number % sources->count));
    if (sources->family == AF_INET) {
        struct sockaddr_in *in = (struct sockaddr_in *)&address->storage;

        in->sin_family = AF_INET;
        memcpy(&in->sin_addr, bytes, sizeof(in->sin_addr));
        address->len = sizeof(*in);
    } else {
        struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&address->storage;

        in6->sin6_family = AF_INET6;
        memcpy(&in6->sin6_addr, bytes, sizeof(in6->sin6_addr));
        address->len = sizeof(*in6);
    }
}

const char *sources_format(const struct sources *sources, char *buf)
{
    unsigned char last[16];
    char first_text[INET6_ADDRSTRLEN] = "";
    char last_text[INET6_ADDRSTRLEN] = "";

    if (sources->count == 0) {
        snprintf(buf, SOURCES_TEXT_BYTES, "any");
        return buf;
    }
    memcpy(last, sources->first, sizeof(last));
    advance(last, address_bytes(sources->family), sources->count - 1);
    inet_ntop(sources->family, sources->first, first_text, sizeof(first_text));
    inet_ntop(sources->family, last, last_text, sizeof(last_text));
    if (sources->count == 1)
        snprintf(buf, SOURCES_TEXT_BYTES, "%s", first_text);
    else
        snprintf(buf, SOURCES_TEXT_BYTES, "%s-%s", first_text, last_text);
    return buf;
}

static int parse_address(const char *text, size_t len, sa_family_t *family, unsigned char *bytes)
{
    char copy[INET6_ADDRSTRLEN];

    if (len >= sizeof(copy))
        return -1;
    memcpy(copy, text, len);
    copy[len] = '\0';
    *family = strchr(copy, ':') ? AF_INET6 : AF_INET;
    return inet_pton(*family, copy, bytes) == 1 ? 0 : -1;
}

static size_t address_bytes(sa_family_t family)
{
    return family == AF_INET ? 4 : 16;
}

/* How many steps from first to last. False when that is below zero or SOURCES_MAX and more. */
static bool distance(const unsigned char *first, const unsigned char *last, size_t len,
                     uint32_t *steps)
{
    uint64_t difference = 0;
    bool high_differs = false;
    int borrow = 0;

    for (size_t i = 0; i < len; i++) {
        const size_t place = len - 1 - i;
        const int byte = last[place] - first[place] - borrow;

        borrow = byte < 0;
        /* Only differences of up to four bytes can be small enough; the rest must be zero. */
        if (i < 4)
            difference |= (uint64_t)(byte & 0xff) << (8 * i);
        else if ((byte & 0xff) != 0)
            high_differs = true;
    }
    if (borrow || high_differs || difference >= SOURCES_MAX)
        return false;
    *steps = (uint32_t)difference;
    return true;
}

static void advance(unsigned char *bytes, size_t len, uint32_t steps)
{
    uint32_t carry = steps;

    for (unsigned char *byte = bytes + len; byte > bytes && carry > 0;) {
        byte--;
        carry += *byte;
        *byte = (unsigned char)(carry & 0xff);
        carry >>= 8;
    }
}
