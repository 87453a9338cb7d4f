/*
 * The server a client connects to, as people write it: HOST:PORT, [IPv6]:PORT or unix:/path.
 *
 * Taking the text apart is pure; only endpoint_resolve() asks the system's resolver, and may wait.
 */
#ifndef CLIENT_ENDPOINT_H
#define CLIENT_ENDPOINT_H

#include <stddef.h>

#include "base/address.h"

#define ENDPOINT_MAX_HOST_BYTES 253 /* the longest name DNS has */
#define ENDPOINT_MAX_ADDRESSES  8   /* of one name that are tried */

struct endpoint {
    struct address address; /* len 0: only known once host is resolved */
    char host[ENDPOINT_MAX_HOST_BYTES + 1];
    char port[6];
};

struct endpoint_addresses {
    struct address items[ENDPOINT_MAX_ADDRESSES];
    size_t count;
};

/* Returns 0, or -1 with what would be right in message. */
int endpoint_parse(const char *text, struct endpoint *endpoint, char *message, size_t message_size);

/*
 * Finds the addresses to try, in order, at least one. A numeric address or a path is there at once;
 * a name may take as long as the resolver's own time limits. Returns NULL, or in a few words why it
 * failed.
 */
const char *endpoint_resolve(const struct endpoint *endpoint, struct endpoint_addresses *addresses);

#endif
