/*
 * Who may ask over TCP: the token, and that no web page elsewhere asks in somebody's name
 * (docs/control.md, "Who may ask"). Pure: it is given headers and says what is wrong with them.
 */
#ifndef ADMIN_ACCESS_H
#define ADMIN_ACCESS_H

#include <stdbool.h>

#include "base/address.h"

struct credentials;

/* The headers that count; NULL for one that is not there. */
struct access_headers {
    const char *host;
    const char *origin;
    const char *authorization;
    const char *content_type;
    bool repeated; /* one of them stands there twice */
};

/* Is the request for this server, from no page of another one? address is the one that is listened
 * on. Returns 0, or the status of the refusal with why. */
unsigned access_check_origin(const struct address *address, const struct access_headers *headers,
                             const char **why);

/* Has it one of the tokens? Takes the same time for whichever wrong one. */
unsigned access_check_token(const struct credentials *tokens, const struct access_headers *headers,
                            const char **why);

/* Is it JSON, as a change has to be? */
unsigned access_check_type(const struct access_headers *headers, const char **why);

#endif
