/*
 * All that a running cliserd consists of, and what is done alike when it starts and when it reads
 * its configuration again. Everything is of main(), which builds it and takes it down.
 */
#ifndef MAIN_DAEMON_H
#define MAIN_DAEMON_H

#include <stdbool.h>
#include <stdint.h>

#include "admin/admin.h"
#include "main/config.h"
#include "net/server.h"
#include "session/session.h"

#define PROGRAM       "cliserd"
#define SECONDS_A_DAY 86400

struct event;
struct event_base;
struct http;
struct listeners;

/* A signal and what it asks for. */
enum signal_slot { SIGNAL_STOP, SIGNAL_INTERRUPT, SIGNAL_DRAIN, SIGNAL_RELOAD, SIGNAL_COUNT };

struct daemon {
    const char *file;
    struct config started; /* what the keys that need a restart were at the start */
    char node[256];
    uint64_t room; /* for connections, as far as descriptors go */
    uint64_t max_clients;
    struct event_base *base;
    struct listeners *listeners;
    struct registry *registry;
    struct sessions *sessions;
    struct store *store;
    struct server *server;
    struct admin admin;
    struct http *http;
    struct event *signals[SIGNAL_COUNT];
    struct event *reload; /* a burst of SIGHUPs is one reload */
    struct event *watchdog;
    struct event *daily;
};

/* What the server and the sessions need of a configuration, given the room that there is. */
struct server_options daemon_server_options(const struct daemon *daemon,
                                            const struct config *config);
struct sessions_options daemon_sessions_options(const struct daemon *daemon,
                                                const struct config *config);

/* When TCP gives a client up that acknowledges nothing. */
unsigned daemon_user_timeout_ms(const struct config *config);

/* As many descriptors as there may be connections, or as many as we may have: sets daemon->room,
 * and logs it if that is news. */
void daemon_make_room(struct daemon *daemon, const struct config *config);

/* Log what somebody should do something about: a certificate that ends soon, and passwords in a
 * file that everybody can read. */
void daemon_warn_of_expiry(const struct daemon *daemon);
void daemon_warn_of_shown_passwords(const struct daemon *daemon, const struct config *config);

/*
 * Reads the configuration of user, a struct daemon, again; a broken one leaves everything as it
 * was. say, if it is not NULL, is told each error, or each key that needs a restart. Returns
 * whether it was done. Closes no session.
 */
bool daemon_reload(void *user, admin_line_fn *say, void *say_user);

#endif
