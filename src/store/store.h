/*
 * The store: registrations that outlive the process. One interface over several backends.
 *
 * Everything is asynchronous: a call takes a change down, store_turn() at the end of the loop turn
 * makes the changes durable and then delivers the answers. An answer never comes from inside any
 * other call. The registry in memory is the truth about who is connected; the store follows it. A
 * store that fails answers registrations with STORE_UNAVAILABLE, keeps all other changes for later
 * and heals by itself.
 */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/duration_histogram.h"
#include "registry/registry.h"

struct store;

enum store_kind { STORE_SQLITE, STORE_MEMORY };
enum store_sync { STORE_SYNC_NORMAL, STORE_SYNC_FULL };

/* The names of both in the configuration, in the order of the enumerators, NULL-terminated. */
extern const char *const store_kind_names[];
extern const char *const store_sync_names[];

struct store_options {
    int kind;         /* enum store_kind */
    char *path;       /* STORE_SQLITE: the database file */
    int sync;         /* enum store_sync */
    const char *node; /* this server's name, written into each record */
};

enum store_result {
    STORE_OK,          /* durable */
    STORE_UNAVAILABLE, /* not registered; later perhaps */
    STORE_TAKEN,       /* another node of the fleet has a live session with this ID */
};

/* The answer to one store_register() or store_save_order(). */
struct store_answer {
    uint64_t serial; /* of the session that asked, as given; of an order its id */
    uint32_t sid;    /* of the record; 0: the answer is about an order */
    enum store_result result;
};

/* One wave of a shutdown order. Times are Unix seconds, 0 for not yet. */
struct store_order_wave {
    char *match; /* IDs and patterns, separated by commas */
    int64_t started;
    int64_t ended;
};

/* A shutdown order, as it is kept. What the words mean is session/order.h's. */
struct store_order {
    int64_t id; /* from 1, each order the next one */
    char *by;   /* who gave it */
    char *state;
    int64_t created; /* Unix seconds */
    int64_t ended;   /* 0 while it is under way */
    uint64_t grace_ms;
    uint64_t hold_ms;
    struct store_order_wave *waves;
    size_t wave_count;
};

/* Called by store_turn() only, with its time; may call any store function but store_turn()
 * and store_close(). */
typedef void store_answer_fn(void *user, const struct store_answer *answer, struct moment now);

/*
 * Opens the store and loads its records into the empty registry. Those it finds connected are
 * marked disconnected with REASON_CRASH, there and in memory; nothing is removed. The options and
 * the registry must outlive the store. Returns NULL with what is wrong, and what would be right, in
 * message: a file that is broken, newer or not ours is left as it is. Aborts when memory is out.
 */
struct store *store_open(const struct store_options *options, struct registry *registry,
                         store_answer_fn *on_answer, void *user, char *message,
                         size_t message_size);

/*
 * Registers a record: connected from peer, with this credential, since now. The answer carries the
 * serial. Returns 0, after which there is exactly one answer, or -1 when memory is out, and there
 * is none.
 */
int store_register(struct store *store, const struct registry_record *record,
                   const struct peer_address *peer, uint16_t credential, uint64_t serial,
                   struct moment now);

/*
 * Writes down that a record, as it is now, is disconnected. Durable within 100 ms. When memory is
 * out the whole registry is written again later, so nothing is lost.
 */
void store_disconnect(struct store *store, const struct registry_record *record, struct moment now);

/* Removes the row of a record that is about to leave the registry. */
void store_forget(struct store *store, const struct registry_record *record, struct moment now);

/*
 * Writes an order down as it is, again after each change of it. All orders are kept, the targets
 * (below) of the one with the highest id, which this one has: it is that of the last one, or above.
 * The order and what it points to must stay until another one is saved or the store is closed; it
 * is read whenever there is a reason to write. Returns 0, after which there is exactly one answer,
 * with sid 0, or -1 when memory is out, and there is none: a new order is then not taken, while
 * what has changed of the last one is still written with what comes next. With STORE_UNAVAILABLE it
 * is written as soon as the store heals.
 */
int store_save_order(struct store *store, const struct store_order *order, struct moment now);

/* Writes down what the record's order_wave and order_flags are now: the client, whose record is
 * stored, is a target of the order saved last. Durable within 100 ms, and that it was told at the
 * end of this turn. Its record may be forgotten, and the target with it. */
void store_save_target(struct store *store, const struct registry_record *record,
                       struct moment now);

/* The order with the highest id that the store knew when it was opened, or NULL. Its targets have
 * order_wave and order_flags in the registry. Valid until the store is closed. */
const struct store_order *store_order(const struct store *store);

/*
 * The end of a loop turn: commits what is due in one transaction, then delivers answers. With busy,
 * which says that clients were heard in this turn and more may be heard at once, registrations may
 * be kept for the next one; store_next_us() is 0 then.
 */
void store_turn(struct store *store, bool busy, struct moment now);

/* When store_turn() has to be called even if nothing happens until then: 0 for at once, UINT64_MAX
 * for never. */
uint64_t store_next_us(const struct store *store);

/* What has happened since the start. */
struct store_stats {
    uint64_t commits;
    uint64_t failures;                    /* attempts to commit that failed */
    uint64_t set_aside;                   /* damaged files that an empty one took the place of */
    uint64_t waiting;                     /* changes that are not written yet, now */
    struct duration_histogram commit;     /* how long commits took that succeeded */
    struct duration_histogram checkpoint; /* and copying the log into the database */
};

/* Valid until the store is closed, and up to date as of this call. */
const struct store_stats *store_stats(struct store *store);

/* Can clients be registered, as far as the last attempt tells? */
bool store_healthy(const struct store *store);

/* Commits what is left, but for registrations that no turn has committed yet: nobody can be told of
 * them. Frees. NULL is allowed. */
void store_close(struct store *store, struct moment now);

#endif
