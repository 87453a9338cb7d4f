/*
 * The registry: one record for each client that ever registered, found by sid and by ID.
 *
 * Only rules over memory: no clock, no I/O. A store writes down what happens here (store/store.h),
 * and a session (session/session.h) decides when. Times are Unix seconds.
 */
#ifndef REGISTRY_REGISTRY_H
#define REGISTRY_REGISTRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uthash.h>

#include "base/address.h"
#include "cliser/proto.h"
#include "registry/reason.h"

struct registry;
struct session;
struct probe;

/*
 * One client. Created and freed by the registry only; read by everyone. The fields behind "live"
 * belong to session/claim.c.
 */
struct registry_record {
    UT_hash_handle hh;
    int64_t since;            /* when connected last changed */
    int64_t last_seen;        /* last registration, keep-alive answer or end */
    uint32_t sid;             /* from 1, lowest free first */
    uint32_t rtt_us;          /* of the last keep-alive; 0 while unknown */
    struct peer_address peer; /* of the current or last connection */
    uint8_t reason;           /* enum reason: why it last disconnected */
    bool connected;

    /* live: */
    bool stored;            /* the store has a row for it */
    bool row_connected;     /* and that row says connected, or will by the next commit */
    uint32_t claims;        /* registrations the store has not answered yet */
    struct session *holder; /* the session that has or is registering this ID, or NULL */
    struct probe *probe;    /* a newcomer waits to hear whether the holder is alive, or NULL */

    uint8_t cid_len;
    char cid[]; /* ends with NUL */
};

/* Returns NULL when memory is out. */
struct registry *registry_new(void);

/* Frees every record; NULL is allowed. */
void registry_free(struct registry *registry);

/* Finds by ID or by sid. Returns NULL if there is none. */
struct registry_record *registry_find(const struct registry *registry, const char *cid, size_t len);
struct registry_record *registry_by_sid(const struct registry *registry, uint32_t sid);

/*
 * Adds a disconnected record with the lowest free sid for a valid ID that is not there yet. Returns
 * it, or NULL when memory is out.
 */
struct registry_record *registry_add(struct registry *registry, const char *cid, size_t len);

/*
 * Adds a record as a store remembers it, with its own sid. Returns it, or NULL when memory is out,
 * the ID is invalid, or ID or sid are taken.
 */
struct registry_record *registry_restore(struct registry *registry, uint32_t sid, const char *cid,
                                         size_t len);

/* Frees a record and its sid. It must have no holder, probe or claims. */
void registry_remove(struct registry *registry, struct registry_record *record);

/* The client is connected from there, since now. */
void registry_connect(struct registry *registry, struct registry_record *record,
                      const struct peer_address *peer, int64_t now);

/* The client is disconnected, since now, for this reason. */
void registry_disconnect(struct registry *registry, struct registry_record *record,
                         enum reason reason, int64_t now);

/* The record with the lowest sid above this one, or NULL: walks all records, starting with 0. */
struct registry_record *registry_next(const struct registry *registry, uint32_t sid);

/* How many records there are, and how many of them are connected. */
size_t registry_count(const struct registry *registry);
size_t registry_connected(const struct registry *registry);

#endif
