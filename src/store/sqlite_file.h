/*
 * The database file of the SQLite store: which files are ours, opening and closing them, noticing
 * that one was taken away. Private to src/store; knows nothing of what waits to be written.
 */
#ifndef STORE_SQLITE_FILE_H
#define STORE_SQLITE_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include <sqlite3.h>
#include <sys/stat.h>

#include "store/store.h"

enum sqlite_statement {
    SQLITE_STATEMENT_BEGIN,
    SQLITE_STATEMENT_COMMIT,
    SQLITE_STATEMENT_ROLLBACK,
    SQLITE_STATEMENT_DISCONNECT,
    SQLITE_STATEMENT_FORGET,
    SQLITE_STATEMENT_CLEAR,
    SQLITE_STATEMENT_TOUCH,
    /* What version 1 has no tables for: */
    SQLITE_STATEMENT_ORDER,
    SQLITE_STATEMENT_CLEAR_WAVES,
    SQLITE_STATEMENT_WAVE,
    SQLITE_STATEMENT_CLEAR_TARGETS,
    SQLITE_STATEMENT_TARGET,
    SQLITE_STATEMENT_FORGET_TARGET,
    /* What version 2 has no column for: */
    SQLITE_STATEMENT_REGISTER,
    SQLITE_STATEMENT_INSERT,
    SQLITE_STATEMENT_COUNT
};

#define SQLITE_FILE_ERROR_BYTES 256

/* Zeroed but for path, sync, wal_path and lock_fd = -1 before it is opened for the first time. */
struct sqlite_file {
    const char *path;
    enum store_sync sync;
    char *wal_path; /* path with "-wal" behind it */

    sqlite3 *db; /* NULL while it is not open */
    sqlite3_stmt *prepared[SQLITE_STATEMENT_COUNT];
    int wal_pages; /* in the log, not yet in the database */

    int lock_fd;          /* the file itself, locked against a second server; -1 if none */
    struct stat identity; /* of that file */
    ino_t wal_inode;      /* of the log; 0 before the first commit */

    bool is_ours;    /* it bears our mark, wherever else it may be damaged */
    bool is_damaged; /* ours, and not whole: it can be set aside */
    char
        error[SQLITE_FILE_ERROR_BYTES]; /* of the last failure, with SQLite's primary code for it */
    int error_code;
};

/*
 * Opens the file, or makes a new one, and prepares the statements. A file of an older version is
 * upgraded in a transaction that is left open, and what is read and written next belongs to it.
 * Returns 0, or -1 with error set and nothing left open: then the file is as it was, unless it was
 * empty or not there.
 */
int sqlite_file_open(struct sqlite_file *file);

/*
 * It was read as well and is ours: the upgrade is committed, and from here on closing the file may
 * tidy it up. Returns 0, or -1 with error set and nothing left open.
 */
int sqlite_file_trust(struct sqlite_file *file);

/* What was read from it makes no sense; error is set. Returns -1 always. */
int sqlite_file_note_damage(struct sqlite_file *file);

/*
 * Gives a damaged file, which must not be open, and its log another name, so that a new one can
 * take its place: the path with ".damaged-" and the time behind it, which is written to name.
 * Returns 0, or -1 with error set.
 */
int sqlite_file_set_aside(struct sqlite_file *file, char *name, size_t name_size);

/* Closes it, if it is open. What it holds then is to be found out anew. */
void sqlite_file_close(struct sqlite_file *file);

/* Binds a text that stays until the statement is run. */
void sqlite_file_bind_text(struct sqlite_file *file, enum sqlite_statement statement, int index,
                           const char *text);

/* Runs a statement, whose values are bound, to its end and clears them. Returns 0, or -1 with error
 * set. */
int sqlite_file_run(struct sqlite_file *file, enum sqlite_statement statement);

/* Keeps what SQLite says now as the error, behind these words. Returns -1 always. */
int sqlite_file_fail(struct sqlite_file *file, const char *what);

/* Remembers the log that commits go to, so that its loss can be noticed. */
void sqlite_file_note_commit(struct sqlite_file *file);

/* Has somebody removed, emptied or replaced the file or its log under us? SQLite would go on
 * writing to what is no longer there, and the next start would know nobody. */
bool sqlite_file_was_replaced(const struct sqlite_file *file);

#endif
