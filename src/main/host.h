/* What the host lets the server have, and who it lets it be. */
#ifndef MAIN_HOST_H
#define MAIN_HOST_H

#include <stddef.h>
#include <stdint.h>

#include "admin/http.h"

/* Descriptors kept back for operators, listeners, the registry, the log and the like. */
#define HOST_RESERVED_DESCRIPTORS (64 + 2 * HTTP_MAX_CONNECTIONS)

/*
 * Raises the limit of open descriptors as far as it may: to the hard limit in any case, and beyond
 * it, where this user may, to what this many connections need. Returns the limit that holds from
 * here on.
 */
uint64_t host_raise_descriptors(uint64_t connections);

/* How many connections there is room for, with that many descriptors and with the epoll watches
 * that this user may have. */
uint64_t host_room_for_connections(uint64_t descriptors);

/* The backlog the kernel really gives: it cuts longer ones without a word. */
uint64_t host_backlog(uint64_t wanted);

/* Becomes this user with its groups, for good, and makes sure that there is no way back. Returns 0,
 * or -1 with what is wrong in message. */
int host_become_user(const char *user, char *message, size_t message_size);

/* This host's name, cut to size; never fails. Returns buf. */
const char *host_name(char *buf, size_t size);

#endif
