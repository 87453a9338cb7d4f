/*
 * The registry: one record for each client that ever registered, found by sid and by ID, and
 * listed in the order of IDs.
 *
 * Only rules over memory: no clock, no I/O. A store writes down what happens here (store/store.h),
 * and a session (session/session.h) decides when. Times are Unix seconds.
 */
#ifndef REGISTRY_REGISTRY_H
#define REGISTRY_REGISTRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/address.h"
#include "cliser/proto.h"
#include "registry/reason.h"

struct registry;
struct session;
struct probe;

/* What a shutdown order knows of a client. The first three are kept in the store. */
#define RECORD_TOLD         0x1 /* was sent a 130 */
#define RECORD_ACKNOWLEDGED 0x2 /* and has answered it */
#define RECORD_LATE         0x4 /* came when its wave had begun, and is left alone */
/* It was connected when the server ended, and is not yet again: who was not told then is to be
 * told, who had acknowledged is waited for, to see it go. */
#define RECORD_AWAITED 0x8
/* It is connected, as far as the order has heard. */
#define RECORD_PRESENT 0x10

/*
 * One client. Created and freed by the registry only; read by everyone. The fields behind "live"
 * belong to session/claim.c, order_… to session/order*.c.
 */
struct registry_record {
    int64_t since;            /* when connected last changed */
    int64_t last_seen;        /* last registration, keep-alive answer or end */
    uint32_t sid;             /* from 1, lowest free first */
    uint32_t rtt_us;          /* of the last keep-alive; 0 while unknown */
    struct peer_address peer; /* of the current or last connection */
    uint8_t reason;           /* enum reason: why it last disconnected */
    bool connected;

    /* live: */
    bool stored;         /* the store has a row for it */
    bool row_connected;  /* and that row says connected, or will by the next commit */
    uint32_t claims;     /* registrations the store has not answered yet */
    uint8_t order_wave;  /* of the shutdown order (session/order*.c), from 1; 0: no target of it */
    uint8_t order_flags; /* RECORD_…, of that order */
    uint16_t order_mark; /* whose, its id cut to size: what is said of another one is void */
    struct session *holder; /* the session that has or is registering this ID, or NULL */
    struct probe *probe;    /* a newcomer waits to hear whether the holder is alive, or NULL */

    uint16_t credential; /* that it last came with: number of a name (credential_name.h), or 0 */
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
 * The record of a valid ID; if it has none, a disconnected one is added with the lowest free sid.
 * Returns it, or NULL when memory is out.
 */
struct registry_record *registry_find_or_add(struct registry *registry, const char *cid,
                                             size_t len);

/*
 * Adds a record as a store remembers it, with its own sid. Returns it, or NULL when memory is out,
 * the ID is invalid, or ID or sid are taken.
 */
struct registry_record *registry_restore(struct registry *registry, uint32_t sid, const char *cid,
                                         size_t len);

/* Frees a record and its sid. It must have no holder, probe or claims. */
void registry_remove(struct registry *registry, struct registry_record *record);

/* The client is connected from there, with this credential, since now. */
void registry_connect(struct registry *registry, struct registry_record *record,
                      const struct peer_address *peer, uint16_t credential, int64_t now);

/* The client is disconnected, since now, for this reason. */
void registry_disconnect(struct registry *registry, struct registry_record *record,
                         enum reason reason, int64_t now);

/* The record with the lowest sid above this one, or NULL: walks all records, starting with 0. */
struct registry_record *registry_next(const struct registry *registry, uint32_t sid);

/*
 * Lists are read in the order of IDs, in pages that are cheap with any number of records. The order
 * is made when somebody wants a list, in steps, so that a registration costs nothing more where
 * nobody does: call this until registry_unordered() is 0, no more often in a turn of the loop than
 * it can spare, and then ask for the pages. Puts up to budget records that are new since the last
 * time in their places. Returns 0, or -1 when memory is out: what is in order stays so, and the
 * next call tries again.
 */
int registry_order_some(struct registry *registry, size_t budget);

/* How many records are not yet in order, and so in no page. */
size_t registry_unordered(const struct registry *registry);

/*
 * The next records in the strcmp order of their IDs: those behind the ID after, which may belong to
 * no record; "" is before all. Returns how many there are in page: size, or fewer when these are
 * the last ones. They may be removed as soon as something else happens, so a list goes on behind a
 * copy of the last ID it was given, whether it showed that one or not: then, whoever comes and goes
 * in between, no ID is given twice, and none is left out that was in order all the time. Filters
 * are the caller's; size bounds what it looks at.
 */
size_t registry_page(const struct registry *registry, const char *after,
                     struct registry_record **page, size_t size);

/* How many records there are, and how many of them are connected. */
size_t registry_count(const struct registry *registry);
size_t registry_connected(const struct registry *registry);

#endif
