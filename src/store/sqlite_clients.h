/*
 * The table of clients: reading all of it at the start, writing a row or all of them. Private to
 * src/store; knows nothing of transactions, nor of when something is to be written.
 *
 * All return 0, or -1 with the file's error set.
 */
#ifndef STORE_SQLITE_CLIENTS_H
#define STORE_SQLITE_CLIENTS_H

#include "store/backend.h"
#include "store/sqlite_file.h"

/* A row or some that are no clients may be somebody's slip; with so many, who knows what the others
 * are. */
#define MAX_SENSELESS_ROWS 16

struct senseless_rows {
    int64_t sids[MAX_SENSELESS_ROWS];
    size_t count;
};

/* Adds everyone that the table knows to the empty registry, disconnected since now (REASON_CRASH)
 * if it says connected; but rows that are no clients, whose sids are put down. With too many of
 * those the file is damaged. */
int sqlite_clients_load(struct sqlite_file *file, struct registry *registry, int64_t now,
                        struct senseless_rows *senseless);

/* Takes those out of the table, so that nobody stumbles over them again, and logs each. */
int sqlite_clients_drop(struct sqlite_file *file, const struct senseless_rows *senseless);

/* Says in the table as well what loading has made of those that it says are connected. */
int sqlite_clients_write_crashed(struct sqlite_file *file, int64_t now);

/* Writes one change, whatever the registry says by now: not CHANGE_ORDER or CHANGE_TARGET. */
int sqlite_clients_write(struct sqlite_file *file, const struct change *change, const char *node);

/* Makes the table what the registry says of all that are stored. */
int sqlite_clients_write_all(struct sqlite_file *file, const struct registry *registry,
                             const char *node);

#endif
