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

/* The answer to one store_register(). */
struct store_answer {
    uint64_t serial; /* of the session that asked, as given */
    uint32_t sid;    /* of the record */
    enum store_result result;
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
 * Registers a record: connected from peer, since now. The answer carries the serial. Returns 0,
 * after which there is exactly one answer, or -1 when memory is out, and there is none.
 */
int store_register(struct store *store, const struct registry_record *record,
                   const struct peer_address *peer, uint64_t serial, struct moment now);

/*
 * Writes down that a record, as it is now, is disconnected. Durable within 100 ms. When memory is
 * out the whole registry is written again later, so nothing is lost.
 */
void store_disconnect(struct store *store, const struct registry_record *record, struct moment now);

/* Removes the row of a record that is about to leave the registry. */
void store_forget(struct store *store, const struct registry_record *record, struct moment now);

/*
 * The end of a loop turn: commits what is due in one transaction, then delivers answers. With busy,
 * which says that clients were heard in this turn and more may be heard at once, registrations may
 * be kept for the next one; store_next_us() is 0 then.
 */
void store_turn(struct store *store, bool busy, struct moment now);

/* When store_turn() has to be called even if nothing happens until then: 0 for at once, UINT64_MAX
 * for never. */
uint64_t store_next_us(const struct store *store);

/* Can clients be registered, as far as the last attempt tells? */
bool store_healthy(const struct store *store);

/* Commits what is left, but for registrations that no turn has committed yet: nobody can be told of
 * them. Frees. NULL is allowed. */
void store_close(struct store *store, struct moment now);

#endif
