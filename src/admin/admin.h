/*
 * What an operator may ask of the server, as plain functions: no HTTP, no JSON. Each says in a word
 * what came of it; why something cannot be done now is decided here and nowhere else.
 */
#ifndef ADMIN_ADMIN_H
#define ADMIN_ADMIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "session/order.h"
#include "session/ping.h"
#include "session/session.h"

struct server;

/* Says one line of what a reload has to say. */
typedef void admin_line_fn(void *user, const char *line);

/* Everything it works on, all of which must outlive it. */
struct admin {
    struct registry *registry;
    struct sessions *sessions;
    struct store *store;
    struct server *server;
    const char *node;
    const char *store_kind; /* the word */
    uint64_t started_us;    /* monotonic */

    /* Reads the configuration again. Returns true, with each key that needs a restart as a line, or
     * false with each error as a line. */
    bool (*reload)(void *user, admin_line_fn *say, void *say_user);
    void *user;
};

enum admin_result {
    ADMIN_OK = 0,
    ADMIN_ERR_UNKNOWN = -1,       /* no such client */
    ADMIN_ERR_CONNECTED = -2,     /* it is connected, or about to be */
    ADMIN_ERR_NOT_CONNECTED = -3, /* it is not */
    ADMIN_ERR_IN_ORDER = -4,      /* a shutdown order counts on it */
};

/* The client with this ID, or NULL. One that is about to register for the first time is not known
 * yet. */
struct registry_record *admin_find(const struct admin *admin, const char *cid);

/* Is a record one of a client that is known? */
bool admin_knows(const struct registry_record *record);

/* Asks a client now; ping->done is called later, or from within. */
enum admin_result admin_ping(struct admin *admin, const char *cid, struct ping *ping,
                             struct moment now);

/* Ends its session. */
enum admin_result admin_disconnect(struct admin *admin, const char *cid, struct moment now);

/* Removes its record. */
enum admin_result admin_forget(struct admin *admin, const char *cid, struct moment now);

/* How many clients can be connected at the same time: max_clients, or as many as there are
 * descriptors for. */
uint64_t admin_max_clients(const struct admin *admin);

/* Can clients be registered now? Returns NULL, or why not. */
const char *admin_not_ready(const struct admin *admin);

#endif
