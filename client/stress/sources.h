/*
 * The local addresses that connects are bound to, one after the other. One source address reaches
 * one server address only as often as there are ephemeral ports, so many clients need many sources.
 *
 * Pure: whether this host has the addresses is for preflight.h to find out.
 */
#ifndef STRESS_SOURCES_H
#define STRESS_SOURCES_H

#include <stddef.h>
#include <stdint.h>

#include <sys/socket.h>

#include "base/address.h"

#define SOURCES_MAX 65536

/* Room for a range of two IPv6 addresses. */
#define SOURCES_TEXT_BYTES 96

/* A range of addresses; count 0 leaves the choice to the kernel. Zeroed is that. */
struct sources {
    sa_family_t family;
    unsigned char first[16]; /* in network order; IPv4 uses the first four */
    uint32_t count;
};

/*
 * Reads "A-B" or a single address, IPv4 or IPv6. Returns 0, or -1 with what is wrong in message.
 */
int sources_parse(struct sources *sources, const char *text, char *message, size_t message_size);

/*
 * Chooses sources for this many connects to a server: enough of 127.0.0.0/8 for a server on IPv4
 * loopback, none for any other.
 */
void sources_choose(struct sources *sources, const struct address *server, uint64_t connects);

/* The source of this connect, round robin; its len is 0 when the kernel chooses. */
void sources_at(const struct sources *sources, uint64_t number, struct address *address);

/* The range as sources_parse() reads it, or "any" for none. Returns buf of SOURCES_TEXT_BYTES. */
const char *sources_format(const struct sources *sources, char *buf);

#endif
