/*
 * HTTP for operators, by libmicrohttpd within the event loop, on a unix socket and perhaps a TCP
 * port. Decides how many may ask at once and how much of a loop turn they get; what is asked and
 * answered is routes.c's. Nothing that goes wrong here touches a client.
 */
#ifndef ADMIN_HTTP_H
#define ADMIN_HTTP_H

#include <stddef.h>

#include "admin/admin.h"

struct credentials;
struct event_base;
struct http;

/* Connections of each of the two; a process keeps descriptors back for both. */
#define HTTP_MAX_CONNECTIONS 64

struct http_options {
    const char *socket; /* a path */
    const char *listen; /* as address_parse() reads it, or NULL */
};

/*
 * Opens the socket and the port and answers from the next turn on. The tokens, for the port, become
 * owned, also when this fails; NULL without a port. Everything else must outlive it. Returns NULL
 * with what is wrong in message. Aborts when memory is out.
 */
struct http *http_new(struct event_base *base, struct admin *admin,
                      const struct http_options *options, struct credentials *tokens, char *message,
                      size_t message_size);

/* Other tokens (owned) from now on. */
void http_set_tokens(struct http *http, struct credentials *tokens);

/* Something happened: for event streams, and for those who wait for an order to be saved. To be
 * given to sessions_set_watch() with the http itself as user. */
void http_on_event(void *http, const struct session_event *event);

/* Where it listens over TCP, "" if it does not. */
const char *http_address(const struct http *http);

/* Ends every request, closes everything and frees. Not from within a callback. NULL is allowed. */
void http_free(struct http *http);

#endif
