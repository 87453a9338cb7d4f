/*
 * What is known of where connections come from: how many a source has now, if they are counted, and
 * whether it has guessed passwords. A source is an IPv4 address or the first 64 bits of an IPv6
 * one; an IPv4 address in an IPv6 one counts as itself; a unix socket is no source and has no
 * limits. Time is an argument.
 */
#ifndef SESSION_SOURCES_H
#define SESSION_SOURCES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/address.h"
#include "base/clock.h"
#include "base/hash_index.h"
#include "session/limits.h"

/* Sources that are remembered for wrong passwords, at the same time. One more pushes out the one
 * whose first wrong password is oldest; one under a penalty only if all of them are, the one whose
 * penalty began first. */
#define SOURCES_MAX_FAILING 65536

/* The address of a source with "/64" behind an IPv6 one. */
#define SOURCE_TEXT_BYTES (ADDRESS_TEXT_BYTES + 4)

struct source;

/* Numbers of sources by time: 0 is none. */
struct source_list {
    uint32_t oldest;
    uint32_t newest;
    uint32_t count;
};

/* All zero is ready. Needs hash_init(). */
struct sources {
    struct hash_index index; /* by address */
    struct source *slots;    /* number 1 is the first one */
    uint32_t capacity;
    uint32_t used;                /* the highest number that was ever given */
    uint32_t free;                /* the first of a chain of numbers given back */
    struct source_list suspects;  /* with too few wrong passwords; by the time of the first one */
    struct source_list penalised; /* by the begin of the penalty */
    uint64_t evicted;             /* how many were pushed out so far */
};

/* Frees all that is kept, and is ready again. */
void sources_clear(struct sources *sources);

/* Is it to be refused for its wrong passwords? Allocates nothing. */
bool sources_is_penalised(const struct sources *sources, const struct limits_options *limits,
                          const struct peer_address *peer, struct moment now);

/*
 * Notes a wrong password. Returns whether that was the one too many, with which a penalty begins:
 * the auth_failures-th within auth_penalty_ms of the first one. What memory does not allow to be
 * noted is not.
 */
bool sources_note_failure(struct sources *sources, const struct limits_options *limits,
                          const struct peer_address *peer, struct moment now);

/* Forgets what is over, of some thousands of sources at most: call it once a second. What is over
 * counts no more in any case. */
void sources_expire(struct sources *sources, const struct limits_options *limits,
                    struct moment now);

/* Forgets all wrong passwords and lifts every penalty. */
void sources_forgive(struct sources *sources);

/* Counts one connection more. Returns false when that is not possible, for want of memory or since
 * it comes from no source: then it must not be given back by sources_leave(). */
bool sources_enter(struct sources *sources, const struct peer_address *peer);

/* Counts one connection less, which was counted. */
void sources_leave(struct sources *sources, const struct peer_address *peer);

/* Connections that are counted for the source of this one. */
uint32_t sources_connections(const struct sources *sources, const struct peer_address *peer);

/* Forgets how many connections there are, and frees what was kept for that. */
void sources_stop_counting(struct sources *sources);

/* Sources of which anything is kept. */
size_t sources_count(const struct sources *sources);

/* The source of a peer as text: "192.0.2.1", "2001:db8:0:1::/64", "unix". Returns buf, of
 * SOURCE_TEXT_BYTES. */
const char *source_format(const struct peer_address *peer, char *buf);

#endif
