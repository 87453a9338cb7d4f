/*
 * The tables of shutdown orders: reading the last one at the start, writing one and its targets.
 * Private to src/store; knows nothing of transactions, nor of when something is to be written.
 *
 * What returns an int returns 0, or -1 with the file's error set.
 */
#ifndef STORE_SQLITE_ORDERS_H
#define STORE_SQLITE_ORDERS_H

#include "store/sqlite_file.h"

/*
 * Reads the order with the highest id into *order, which is the caller's then (sqlite_order_free),
 * or NULL if there is none, and what its targets are into their records, which must be loaded.
 * Targets that are none are left out. Aborts when memory is out.
 */
int sqlite_order_load(struct sqlite_file *file, struct registry *registry,
                      struct store_order **order);

/* Removes the targets that no row of the table of clients belongs to: their sids are free. */
int sqlite_order_forget_strangers(struct sqlite_file *file);

/* Writes the order and its waves as they are. */
int sqlite_order_write(struct sqlite_file *file, const struct store_order *order);

/* Writes one target (flags: RECORD_…), removes one, if it is there, or all of them. */
int sqlite_order_write_target(struct sqlite_file *file, uint32_t sid, uint8_t wave, uint8_t flags);
int sqlite_order_forget_target(struct sqlite_file *file, uint32_t sid);
int sqlite_order_clear_targets(struct sqlite_file *file);

/* Makes the targets what the registry says of all that are stored. */
int sqlite_order_write_all_targets(struct sqlite_file *file, const struct registry *registry,
                                   const struct store_order *order);

/* A copy that points to nothing of the other. Returns NULL when memory is out. */
struct store_order *sqlite_order_copy(const struct store_order *order);

/* NULL is allowed. */
void sqlite_order_free(struct store_order *order);

#endif
