/* Text to socket address and back. Never asks a resolver: that could block. */
#include "base/address.h"

#include "base/units.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

static void format_ipv4(const uint8_t *ip, char *buf);
static int parse_unix(const char *path, struct address *address, char *message, size_t size);
static int parse_ip(const char *ip, uint16_t port, struct address *address);

int address_parse(const char *text, struct address *address, char *message, size_t message_size)
{
    char host[INET6_ADDRSTRLEN + 1];
    const char *colon = strrchr(text, ':');
    const char *begin = text;
    size_t len = colon ? (size_t)(colon - text) : 0;
    uint64_t port = 0;

    if (strncmp(text, "unix:", 5) == 0)
        return parse_unix(text + 5, address, message, message_size);

    if (len >= 2 && text[0] == '[' && text[len - 1] == ']') {
        begin++;
        len -= 2;
    } else if (memchr(text, ':', len)) {
        len = 0; /* an IPv6 address without its brackets */
    }
    if (len > 0 && len < sizeof(host) && units_parse_number(colon + 1, &port) == 0 &&
        port <= UINT16_MAX) {
        memcpy(host, begin, len);
        host[len] = '\0';
        if (parse_ip(host, (uint16_t)port, address) == 0)
            return 0;
    }
    snprintf(message, message_size,
             "\"%s\" should be an address such as 127.0.0.1:1111, [::1]:1111 or unix:/path", text);
    return -1;
}

const char *address_format(const struct address *address, char *buf)
{
    struct peer_address peer;
    char ip[ADDRESS_TEXT_BYTES];

    if (address->storage.ss_family == AF_UNIX) {
        const struct sockaddr_un *local = (const struct sockaddr_un *)&address->storage;
        snprintf(buf, ADDRESS_TEXT_BYTES, "unix:%s", local->sun_path);
        return buf;
    }
    peer_address_set(&peer, address);
    peer_address_format(&peer, ip);
    snprintf(buf, ADDRESS_TEXT_BYTES, peer.family == AF_INET6 ? "[%s]:%u" : "%s:%u", ip, peer.port);
    return buf;
}

bool address_is_loopback(const struct address *address)
{
    switch (address->storage.ss_family) {
    case AF_UNIX:
        return true;
    case AF_INET: {
        const struct sockaddr_in *in = (const struct sockaddr_in *)&address->storage;
        return ntohl(in->sin_addr.s_addr) >> 24 == 127;
    }
    case AF_INET6: {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&address->storage;
        return IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr);
    }
    default:
        return false;
    }
}

void peer_address_set(struct peer_address *peer, const struct address *from)
{
    memset(peer, 0, sizeof(*peer));
    peer->family = from->storage.ss_family;
    if (peer->family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)&from->storage;
        memcpy(peer->ip, &in->sin_addr, sizeof(in->sin_addr));
        peer->port = ntohs(in->sin_port);
    } else if (peer->family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&from->storage;
        memcpy(peer->ip, &in6->sin6_addr, sizeof(in6->sin6_addr));
        peer->port = ntohs(in6->sin6_port);
    }
}

const char *peer_address_format(const struct peer_address *peer, char *buf)
{
    buf[0] = '\0';
    if (peer->family == AF_UNIX)
        snprintf(buf, ADDRESS_TEXT_BYTES, "unix");
    else if (peer->family == AF_INET)
        format_ipv4(peer->ip, buf);
    else if (peer->family != AF_UNSPEC)
        inet_ntop(peer->family, peer->ip, buf, ADDRESS_TEXT_BYTES);
    return buf;
}

void peer_address_parse(struct peer_address *peer, const char *ip, uint16_t port)
{
    memset(peer, 0, sizeof(*peer));
    if (strcmp(ip, "unix") == 0)
        peer->family = AF_UNIX;
    else if (inet_pton(AF_INET, ip, peer->ip) == 1)
        peer->family = AF_INET;
    else if (inet_pton(AF_INET6, ip, peer->ip) == 1)
        peer->family = AF_INET6;
    peer->port = port;
}

/* inet_ntop() goes through printf, which made it a tenth of all our own work for a registration. */
static void format_ipv4(const uint8_t *ip, char *buf)
{
    for (int i = 0; i < 4; i++) {
        if (i > 0)
            *buf++ = '.';
        if (ip[i] >= 100)
            *buf++ = (char)('0' + ip[i] / 100);
        if (ip[i] >= 10)
            *buf++ = (char)('0' + ip[i] / 10 % 10);
        *buf++ = (char)('0' + ip[i] % 10);
    }
    *buf = '\0';
}

static int parse_unix(const char *path, struct address *address, char *message, size_t size)
{
    struct sockaddr_un *local = (struct sockaddr_un *)&address->storage;

    memset(address, 0, sizeof(*address));
    if (path[0] == '\0' || strlen(path) >= sizeof(local->sun_path)) {
        snprintf(message, size, "unix: should be followed by a path of 1 to %zu bytes",
                 sizeof(local->sun_path) - 1);
        return -1;
    }
    local->sun_family = AF_UNIX;
    memcpy(local->sun_path, path, strlen(path) + 1);
    address->len = (socklen_t)sizeof(*local);
    return 0;
}

static int parse_ip(const char *ip, uint16_t port, struct address *address)
{
    struct sockaddr_in *in = (struct sockaddr_in *)&address->storage;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&address->storage;

    memset(address, 0, sizeof(*address));
    if (inet_pton(AF_INET, ip, &in->sin_addr) == 1) {
        in->sin_family = AF_INET;
        in->sin_port = htons(port);
        address->len = sizeof(*in);
        return 0;
    }
    if (inet_pton(AF_INET6, ip, &in6->sin6_addr) == 1) {
        in6->sin6_family = AF_INET6;
        in6->sin6_port = htons(port);
        address->len = sizeof(*in6);
        return 0;
    }
    return -1;
}
