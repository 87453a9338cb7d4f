/*
 * Listening sockets: opened all or none, accepting a bounded number a loop turn, resting when
 * descriptors or memory have run out.
 */
#ifndef NET_LISTENER_H
#define NET_LISTENER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/address.h"
#include "base/clock.h"

struct event_base;
struct listeners;

struct listeners_options {
    char *const *addresses; /* as address_parse() reads them */
    size_t count;
    char *const *tls_addresses; /* whose connections begin with a TLS handshake; no unix sockets */
    size_t tls_count;           /* together 1 or more */
    uint64_t backlog;
    bool reuse_port;
    unsigned user_timeout_ms; /* TCP_USER_TIMEOUT of the connections */
};

/* A connection came: fd is non-blocking, close-on-exec, and the callee's from here on. */
typedef void listener_accept_fn(void *user, int fd, const struct address *from, bool is_tls);

/*
 * Opens every address and listens on it. Connections are not accepted before listeners_start().
 * Returns NULL with what is wrong in message, and nothing stays open. Aborts when memory is out.
 */
struct listeners *listeners_open(const struct listeners_options *options, char *message,
                                 size_t message_size);

/* Starts accepting. Returns 0, or -1 when memory is out. */
int listeners_start(struct listeners *listeners, struct event_base *base,
                    listener_accept_fn *on_accept, void *user);

/* For connections accepted from here on. */
void listeners_set_user_timeout(struct listeners *listeners, unsigned user_timeout_ms);

/* When listeners_tick() has to be called; UINT64_MAX unless accepting rests. */
uint64_t listeners_next_us(const struct listeners *listeners);

/* Starts accepting again when the rest is over. */
void listeners_tick(struct listeners *listeners, struct moment now);

/*
 * Accepts now, as if the event loop had said that somebody is there. For a turn in which very many
 * connections were read: epoll hands events over in the order in which they came up, so that when
 * a million clients vanish at once a newcomer would wait behind all of them.
 */
void listeners_look(struct listeners *listeners);

/*
 * Leaves those who would speak TLS in the kernel's queue, or takes them again: for as long as more
 * handshakes wait for processor time than it is worth keeping in memory.
 */
void listeners_hold_tls(struct listeners *listeners, bool held);

/* A descriptor has become free: a rest may end now. */
void listeners_descriptor_freed(struct listeners *listeners);

/* How often accepting has had to rest. */
uint64_t listeners_pauses(const struct listeners *listeners);

/* A text of this begin and the addresses that are really listened on, "127.0.0.1:1111, unix:/path,
 * tls:127.0.0.1:2222", to be freed; NULL when memory is out. */
char *listeners_describe(const struct listeners *listeners, const char *begin);

/* Stops listening, removes the unix sockets' paths and frees. NULL is allowed. */
void listeners_close(struct listeners *listeners);

#endif
