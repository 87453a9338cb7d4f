/*
 * Addresses: those we listen on, as text in the configuration, and those of peers, small enough to
 * be kept for every client.
 */
#ifndef BASE_ADDRESS_H
#define BASE_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sys/socket.h>

/* "[" IPv6 "]:65535" or "unix:" and a path, with the NUL. */
#define ADDRESS_TEXT_BYTES 128

/* A socket address with its length. */
struct address {
    struct sockaddr_storage storage;
    socklen_t len;
};

/* Where a client comes from: 20 bytes. */
struct peer_address {
    uint8_t ip[16];
    uint16_t port;   /* host byte order; 0 for a unix socket */
    uint16_t family; /* AF_INET (4 bytes of ip), AF_INET6, AF_UNIX, or AF_UNSPEC when unknown */
};

/*
 * Parses "127.0.0.1:1111", "[::1]:1111" or "unix:/path"; numeric only, so it never waits. Returns
 * 0, or -1 with what would be right in message.
 */
int address_parse(const char *text, struct address *address, char *message, size_t message_size);

/* Writes an address the way address_parse() reads it. Returns buf, of ADDRESS_TEXT_BYTES. */
const char *address_format(const struct address *address, char *buf);

/* Is this address one that only this host can reach? */
bool address_is_loopback(const struct address *address);

/* Takes what accept() returned. */
void peer_address_set(struct peer_address *peer, const struct address *from);

/* Writes the IP without the port, "unix", or "" for AF_UNSPEC. Returns buf, of ADDRESS_TEXT_BYTES.
 */
const char *peer_address_format(const struct peer_address *peer, char *buf);

/* Reads what peer_address_format() wrote; what it cannot read becomes AF_UNSPEC. */
void peer_address_parse(struct peer_address *peer, const char *ip, uint16_t port);

#endif
