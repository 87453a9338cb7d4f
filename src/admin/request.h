/*
 * One request of an operator's program and its answer, without anything of HTTP's transport in it:
 * exchange.c fills it in and sends the answer, routes.c says what the answer is.
 */
#ifndef ADMIN_REQUEST_H
#define ADMIN_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "admin/access.h"
#include "admin/admin.h"

struct credentials;
struct dashboard_file;
struct events;
struct route;
struct stream;

#define REQUEST_MAX_PARAMETERS 8
#define REQUEST_MAX_BODY_BYTES (256 * 1024)

struct request_parameter {
    const char *name;
    const char *value; /* NULL for a name without "=" */
};

/* Exactly one of text, stream, file and is_events is what the body comes from. */
struct answer {
    unsigned status;  /* 0: there is none yet */
    const char *type; /* of the content */
    char allow[24];   /* for 405: the methods; "" otherwise */
    char *text;       /* owned, unless it is_static */
    size_t len;
    bool is_static;                    /* there as long as the request */
    struct stream *stream;             /* owned */
    const struct dashboard_file *file; /* of the page */
    bool is_events;                    /* an event stream that begins behind events_seen */
    uint64_t events_seen;
};

/* What all requests of one socket have in common. */
struct request_scope {
    struct admin *admin;
    struct events *events;
    const struct address *address; /* of a TCP port; NULL: a unix socket, and no more questions */
    const struct credentials *tokens; /* for a TCP port */

    /* The numbers that /metrics shows; the text is to be freed, NULL when memory is out. */
    char *(*metrics)(void *user, size_t *len);
    bool (*may_stream_events)(void *user);
    void *user;
};

struct request {
    const struct request_scope *scope;
    const char *method;
    const char *path; /* decoded */
    struct access_headers headers;
    const char *last_event_id;
    const char *if_none_match;
    struct request_parameter parameters[REQUEST_MAX_PARAMETERS];
    size_t parameter_count; /* may be more than there is room for: then those are not kept */
    char *body;
    size_t body_len;
    bool has_body;
    const char *by; /* who asks, for the log */

    const struct route *route; /* once it is found */
    char id[PROTO_MAX_ID_BYTES + 1];

    struct answer answer;
    char brief[PROTO_MAX_ID_BYTES + 48]; /* the answer of what is done, when memory is out; or "" */
    bool waits_for_ping;
    bool waits_for_order;
    int64_t order_id; /* for which */
    struct ping ping;

    /* An answer that had to wait is there now. Not called from within request_begin() and
     * request_handle(). */
    void (*resume)(struct request *request);
    bool is_running; /* within one of these */
    void *user;
};

/*
 * The headers are there: finds the route and refuses what may not be asked. Returns true when the
 * body should be read and request_handle() called; false when the answer is there already.
 */
bool request_begin(struct request *request);

/* All of it is there. Returns true when the answer is there, false when it comes later. */
bool request_handle(struct request *request);

/* Answers with an error that has been found before it could be handled. */
void request_refuse(struct request *request, unsigned status, const char *why);

/* What is saved of a shutdown order has become known: answers a request that waits for it. */
void request_order_saved(struct request *request);

/* Gives up what it waits for, and frees the answer. */
void request_clear(struct request *request);

#endif
