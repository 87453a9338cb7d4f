/*
 * Takes the text of a server's address apart and asks the resolver for its name. Must never
 * connect, or know who wants to.
 */
#include "endpoint.h"

#include "base/units.h"

#include <errno.h>
#include <netdb.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static int parse_host_and_port(const char *text, struct endpoint *endpoint);
static int copy_port(const char *text, struct endpoint *endpoint);

int endpoint_parse(const char *text, struct endpoint *endpoint, char *message, size_t message_size)
{
    memset(endpoint, 0, sizeof(*endpoint));
    if (strncmp(text, "unix:", 5) == 0)
        return address_parse(text, &endpoint->address, message, message_size);
    if (parse_host_and_port(text, endpoint) == 0)
        return 0;
    snprintf(message, message_size,
             "\"%s\" should be a server such as cliser.example.net:1111, 192.0.2.1:1111, "
             "[2001:db8::1]:1111 or unix:/path",
             text);
    return -1;
}

/* Blocking, and so of little use to a server; see the caller for why it is enough there. */
const char *endpoint_resolve(const struct endpoint *endpoint, struct endpoint_addresses *addresses)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct addrinfo *found = NULL;

    addresses->count = 0;
    if (endpoint->address.len > 0) {
        addresses->items[addresses->count++] = endpoint->address;
        return NULL;
    }

    const int error = getaddrinfo(endpoint->host, endpoint->port, &hints, &found);
    if (error != 0)
        return error == EAI_SYSTEM ? strerror(errno) : gai_strerror(error);
    for (const struct addrinfo *one = found; one; one = one->ai_next) {
        struct address *next = &addresses->items[addresses->count];

        if (addresses->count == ENDPOINT_MAX_ADDRESSES)
            break;
        if (one->ai_addrlen > sizeof(next->storage))
            continue;
        memcpy(&next->storage, one->ai_addr, one->ai_addrlen);
        next->len = one->ai_addrlen;
        addresses->count++;
    }
    freeaddrinfo(found);
    return addresses->count > 0 ? NULL : "the name has no address";
}

static int parse_host_and_port(const char *text, struct endpoint *endpoint)
{
    const char *colon = strrchr(text, ':');
    size_t len = colon ? (size_t)(colon - text) : 0;
    char unused[256];

    if (len == 0 || copy_port(colon + 1, endpoint) != 0)
        return -1;

    const bool bracketed = len > 2 && text[0] == '[' && text[len - 1] == ']';
    const char *host = bracketed ? text + 1 : text;
    if (bracketed)
        len -= 2;
    if (len >= sizeof(endpoint->host))
        return -1;
    memcpy(endpoint->host, host, len);

    /* A zone, as in fe80::1%eth0, is the resolver's to read: it is about this host's interfaces. */
    if (bracketed && strchr(endpoint->host, '%'))
        return 0;
    if (address_parse(text, &endpoint->address, unused, sizeof(unused)) == 0)
        return 0;
    endpoint->address.len = 0;
    return bracketed || strpbrk(endpoint->host, ":[]/ \t") ? -1 : 0;
}

static int copy_port(const char *text, struct endpoint *endpoint)
{
    uint64_t port = 0;

    if (units_parse_number(text, &port) != 0 || port < 1 || port > UINT16_MAX)
        return -1;
    snprintf(endpoint->port, sizeof(endpoint->port), "%u", (unsigned)port);
    return 0;
}
