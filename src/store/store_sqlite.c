/*
 * The store in one SQLite file (WAL): all changes of a turn are one transaction. Decides which
 * files are ours, when changes are due, and how to come back from a full disk or a broken file:
 * what could not be written is kept, and after the file had to be opened anew everything is written
 * again from the registry. There is exactly one connection that writes; everybody else opens the
 * file read-only.
 */
#include "store/backend.h"

#include "base/log.h"

#include <sqlite3.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define APPLICATION_ID    0x636c7372 /* "clsr" */
#define SCHEMA_VERSION    1
#define TEXT_OF(number)   TEXT_OF_1(number)
#define TEXT_OF_1(number) #number

/* Disconnections may wait this long for company: half of the 100 ms that are promised, since the
 * end of the turn and the commit take their time as well. */
#define GATHER_US (50 * CLOCK_US_PER_MS)
/* After a failure the next try waits this long; registrations in between are answered at once. */
#define RETRY_MIN_US (200 * CLOCK_US_PER_MS)
#define RETRY_MAX_US (2 * CLOCK_US_PER_SEC)
#define LOG_EVERY_US (60 * CLOCK_US_PER_SEC)
/* A checkpoint copies the WAL into the database, and blocks while it does: a long one waits for a
 * short pause between commits, a short one for a longer pause, but none for ever (pages of 4 KiB).
 */
#define WAL_PAGES_WORTH_A_PAUSE 1000
#define WAL_PAGES_AT_MOST       20000
#define PAUSE_US                (100 * CLOCK_US_PER_MS)
#define LONG_PAUSE_US           CLOCK_US_PER_SEC
/* More than any file of ours has: sids are given from the lowest, and the registry makes room up to
 * the highest. */
#define MAX_SID         (INT64_C(1) << 26)
#define MAX_RTT_MS      4e6 /* rtt_us has 32 bits */
#define MAX_ERROR_BYTES 256

static const char schema[] = "CREATE TABLE clients ("
                             " sid INTEGER PRIMARY KEY,"
                             " cid TEXT NOT NULL UNIQUE,"
                             " cip TEXT NOT NULL,"
                             " cport INTEGER NOT NULL,"
                             " cstatus INTEGER NOT NULL," /* 1 connected, 0 disconnected */
                             " since INTEGER NOT NULL,"   /* Unix seconds */
                             " last_seen INTEGER NOT NULL,"
                             " rtt_ms REAL,"
                             " reason TEXT NOT NULL,"
                             " node TEXT NOT NULL)";

/* NORMAL: a commit survives the death of this process; FULL: that of the machine as well. */
static const char *const modes[] = {
    [STORE_SYNC_NORMAL] = "PRAGMA synchronous = NORMAL",
    [STORE_SYNC_FULL] = "PRAGMA synchronous = FULL",
};

enum statement {
    STATEMENT_BEGIN,
    STATEMENT_COMMIT,
    STATEMENT_ROLLBACK,
    STATEMENT_REGISTER,
    STATEMENT_DISCONNECT,
    STATEMENT_FORGET,
    STATEMENT_CLEAR,
    STATEMENT_INSERT,
    STATEMENT_TOUCH,
    STATEMENT_COUNT
};

/* clang-format off */
static const char *const statements[STATEMENT_COUNT] = {
    [STATEMENT_BEGIN]      = "BEGIN IMMEDIATE",
    [STATEMENT_COMMIT]     = "COMMIT",
    [STATEMENT_ROLLBACK]   = "ROLLBACK",
    [STATEMENT_REGISTER]   = ("INSERT INTO clients VALUES(?1, ?2, ?3, ?4, 1, ?5, ?6, NULL, '', ?9)"
                              " ON CONFLICT(sid) DO UPDATE SET cip = ?3, cport = ?4, cstatus = 1,"
                              " since = ?5, last_seen = ?6, rtt_ms = NULL, node = ?9"),
    [STATEMENT_DISCONNECT] = ("UPDATE clients SET cstatus = 0, since = ?5, last_seen = ?6,"
                              " rtt_ms = ?7, reason = ?8 WHERE sid = ?1"),
    [STATEMENT_FORGET]     = "DELETE FROM clients WHERE sid = ?1",
    [STATEMENT_CLEAR]      = "DELETE FROM clients",
    [STATEMENT_INSERT]     = "INSERT INTO clients VALUES(?1, ?2, ?3, ?4, ?10, ?5, ?6, ?7, ?8, ?9)",
    [STATEMENT_TOUCH]      = "PRAGMA user_version = " TEXT_OF(SCHEMA_VERSION),
};
/* clang-format on */

struct sqlite_store {
    struct store *store;
    const struct store_options *options;
    struct registry *registry;

    sqlite3 *db; /* NULL while it has to be opened anew */
    sqlite3_stmt *prepared[STATEMENT_COUNT];
    int lock_fd;          /* the file itself, locked against a second server; -1 if none */
    struct stat identity; /* of that file */
    char *wal_path;
    ino_t wal_inode; /* 0 before the first commit */

    struct change *queue; /* in the order in which they happened */
    size_t count;
    size_t capacity;
    size_t registrations; /* in the queue */
    uint64_t due_us;      /* when the oldest change that may wait must be durable */

    bool healthy;
    bool must_rewrite; /* the file may lack changes: write all records again */
    uint64_t retry_us; /* while not healthy: no try before */
    uint64_t pause_us; /* the last pause between two tries; 0 while healthy */
    uint64_t logged_us;
    bool failure_is_logged;      /* so its end is to be as well */
    char error[MAX_ERROR_BYTES]; /* of the last failure, with SQLite's primary code for it */
    int error_code;

    int wal_pages;
    uint64_t committed_us;
};

static void *sqlite_store_open(struct store *store, const struct store_options *options,
                               struct registry *registry, char *message, size_t message_size);
static int sqlite_store_take(void *state, const struct change *change, struct moment now);
static void sqlite_store_commit(void *state, struct moment now);
static uint64_t sqlite_store_next_us(const void *state);
static bool sqlite_store_healthy(const void *state);
static void sqlite_store_close(void *state, struct moment now);

static int open_file(struct sqlite_store *s);
static void close_file(struct sqlite_store *s);
static int lock_file(struct sqlite_store *s);
static int check_ours(struct sqlite_store *s);
static int use_wal(struct sqlite_store *s);
static void trust_file(struct sqlite_store *s);
static int create_schema(struct sqlite_store *s);
static int load_records(struct sqlite_store *s);
static int load_row(struct sqlite_store *s, sqlite3_stmt *row, int64_t now);
static int flush(struct sqlite_store *s);
static int write_changes(struct sqlite_store *s);
static int write_all_records(struct sqlite_store *s);
static int write_change(struct sqlite_store *s, const struct change *change);
static void keep_for_later(struct sqlite_store *s, struct moment now);
static void answer_registrations(struct sqlite_store *s, enum store_result result);
static void report_failure(struct sqlite_store *s, struct moment now, uint64_t took_us);
static void report_success(struct sqlite_store *s);
static void note_wal(struct sqlite_store *s);
static bool file_was_replaced(const struct sqlite_store *s);
static bool is_same_file(const struct stat *left, const struct stat *right);
static uint64_t checkpoint_due_us(const struct sqlite_store *s);
static void checkpoint_if_due(struct sqlite_store *s, struct moment now);
static int on_wal_commit(void *user, sqlite3 *db, const char *name, int pages);
static int run(struct sqlite_store *s, enum statement statement);
static int query_number(struct sqlite_store *s, const char *sql, int64_t *number);
static int fail(struct sqlite_store *s, const char *what);
static void bind_text(sqlite3_stmt *stmt, int index, const char *text);

const struct store_backend store_sqlite = {
    .open = sqlite_store_open,
    .take = sqlite_store_take,
    .commit = sqlite_store_commit,
    .next_us = sqlite_store_next_us,
    .healthy = sqlite_store_healthy,
    .close = sqlite_store_close,
};

static void *sqlite_store_open(struct store *store, const struct store_options *options,
                               struct registry *registry, char *message, size_t message_size)
{
    struct sqlite_store *s = calloc(1, sizeof(*s));

    if (!s)
        abort(); /* out of memory while starting */
    s->store = store;
    s->options = options;
    s->registry = registry;
    s->lock_fd = -1;
    s->healthy = true;
    if (asprintf(&s->wal_path, "%s-wal", options->path) < 0)
        abort();
    if (open_file(s) != 0 || load_records(s) != 0) {
        snprintf(message, message_size, "%s: %s", options->path, s->error);
        close_file(s);
        free(s->wal_path);
        free(s);
        return NULL;
    }
    trust_file(s);
    return s;
}

static int sqlite_store_take(void *state, const struct change *change, struct moment now)
{
    struct sqlite_store *s = state;

    if (s->count == s->capacity) {
        const size_t capacity = s->capacity ? s->capacity * 2 : 64;
        struct change *queue = realloc(s->queue, capacity * sizeof(*queue));
        if (!queue) {
            if (change->kind != CHANGE_REGISTER) {
                s->must_rewrite = true;
                s->healthy = false; /* until it has been */
                s->retry_us = now.mono_us;
            }
            return -1;
        }
        s->queue = queue;
        s->capacity = capacity;
    }
    if (s->count == s->registrations)
        s->due_us = now.mono_us + GATHER_US;
    if (change->kind == CHANGE_REGISTER)
        s->registrations++;
    s->queue[s->count++] = *change;
    return 0;
}

static void sqlite_store_commit(void *state, struct moment now)
{
    struct sqlite_store *s = state;
    const bool waiting = s->count > 0 && now.mono_us >= s->due_us;
    const uint64_t started_us = clock_monotonic_us();

    if (!s->healthy && now.mono_us < s->retry_us) {
        if (s->registrations > 0)
            keep_for_later(s, now);
        return;
    }
    if (s->healthy && s->registrations == 0 && !waiting) {
        checkpoint_if_due(s, now);
        return;
    }
    if (flush(s) != 0) {
        report_failure(s, now, clock_monotonic_us() - started_us);
        keep_for_later(s, now);
        return;
    }

    answer_registrations(s, STORE_OK);
    s->count = 0;
    s->registrations = 0;
    s->committed_us = now.mono_us;
    report_success(s);
    note_wal(s);
    checkpoint_if_due(s, now);
}

static uint64_t sqlite_store_next_us(const void *state)
{
    const struct sqlite_store *s = state;

    if (s->registrations > 0)
        return 0;
    if (!s->healthy)
        return s->retry_us;
    if (s->count > 0)
        return s->due_us;
    return checkpoint_due_us(s);
}

static bool sqlite_store_healthy(const void *state)
{
    const struct sqlite_store *s = state;

    return s->healthy;
}

static void sqlite_store_close(void *state, struct moment now)
{
    struct sqlite_store *s = state;

    if ((s->count > 0 || s->must_rewrite || file_was_replaced(s)) && flush(s) != 0)
        report_failure(s, now, 0);
    close_file(s);
    free(s->queue);
    free(s->wal_path);
    free(s);
}

/* Opens the file, or makes a new one. Returns 0, or -1 with s->error set and nothing left open. */
static int open_file(struct sqlite_store *s)
{
    if (lock_file(s) != 0)
        goto failed;
    if (sqlite3_open_v2(s->options->path, &s->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE,
                        NULL) != SQLITE_OK) {
        fail(s, "cannot be opened");
        goto failed;
    }
    /* Until the file is known to be ours, not even closing it may write what its WAL holds. */
    (void)sqlite3_db_config(s->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    if (check_ours(s) != 0)
        goto failed;
    for (int i = 0; i < STATEMENT_COUNT; i++) {
        if (sqlite3_prepare_v3(s->db, statements[i], -1, SQLITE_PREPARE_PERSISTENT, &s->prepared[i],
                               NULL) != SQLITE_OK) {
            fail(s, "has another schema than it says");
            goto failed;
        }
    }
    if (sqlite3_exec(s->db, modes[s->options->sync], NULL, NULL, NULL) != SQLITE_OK) {
        fail(s, "cannot be written");
        goto failed;
    }
    if (use_wal(s) != 0)
        goto failed;
    s->wal_pages = 0;
    sqlite3_wal_hook(s->db, on_wal_commit,
                     s); /* replaces SQLite's own checkpoints inside commits */
    return 0;

failed:
    close_file(s);
    return -1;
}

/* It is ours and was read: from here on closing it may tidy it up. */
static void trust_file(struct sqlite_store *s)
{
    (void)sqlite3_db_config(s->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, NULL);
}

/* What is in the file after this is no longer known: it will be written again. */
static void close_file(struct sqlite_store *s)
{
    /* Our WAL has the name that would belong to the file that is there now, and must not be taken
     * for its: empty it into the file that we had. */
    if (file_was_replaced(s))
        (void)sqlite3_wal_checkpoint_v2(s->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
    for (int i = 0; i < STATEMENT_COUNT; i++) {
        sqlite3_finalize(s->prepared[i]);
        s->prepared[i] = NULL;
    }
    sqlite3_close(s->db);
    s->db = NULL;
    s->wal_inode = 0;
    s->must_rewrite = true;
    /* Only now: closing any descriptor of the file would drop SQLite's own locks. */
    if (s->lock_fd >= 0)
        close(s->lock_fd);
    s->lock_fd = -1;
}

/*
 * Locks the file against a second server, and looks at its first bytes before SQLite may touch it.
 * While running, only the file that we had, or a new one in place of one that is gone, will do:
 * another one that somebody put there must not be overwritten.
 */
static int lock_file(struct sqlite_store *s)
{
    static const char magic[16] = "SQLite format 3";
    char begin[sizeof(magic)] = "";
    struct stat info;

    s->lock_fd = open(s->options->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0640);
    if (s->lock_fd < 0 || fstat(s->lock_fd, &info) != 0) {
        snprintf(s->error, sizeof(s->error), "cannot be opened for writing: %s", strerror(errno));
        return -1;
    }
    if (!S_ISREG(info.st_mode)) {
        snprintf(s->error, sizeof(s->error), "is not a file");
        return -1;
    }
    if (flock(s->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        snprintf(s->error, sizeof(s->error),
                 "is in use by another cliserd; give each its own path");
        return -1;
    }
    if (info.st_size > 0 && (pread(s->lock_fd, begin, sizeof(begin), 0) != (ssize_t)sizeof(begin) ||
                             memcmp(begin, magic, sizeof(magic)) != 0)) {
        snprintf(
            s->error, sizeof(s->error),
            "is not a cliser registry; move it away to start with an empty one, or restore a copy");
        return -1;
    }
    if (s->identity.st_ino != 0 && info.st_size > 0 && !is_same_file(&info, &s->identity)) {
        snprintf(s->error, sizeof(s->error),
                 "is another file now; stop the server before replacing it");
        return -1;
    }
    s->identity = info;
    return 0;
}

/* Is this file ours, whole, and of a version that we know? An empty one is made ours. */
static int check_ours(struct sqlite_store *s)
{
    int64_t application = 0;
    int64_t version = 0;
    int64_t tables = 0;
    sqlite3_stmt *check = NULL;

    if (query_number(s, "PRAGMA application_id", &application) != 0 ||
        query_number(s, "PRAGMA user_version", &version) != 0 ||
        query_number(s, "SELECT count(*) FROM sqlite_master", &tables) != 0)
        return -1;
    if (application == 0 && version == 0 && tables == 0)
        return create_schema(s);
    if (application != APPLICATION_ID) {
        snprintf(s->error, sizeof(s->error),
                 "is a database of another program; choose another path for the registry");
        return -1;
    }
    if (version != SCHEMA_VERSION) {
        snprintf(
            s->error, sizeof(s->error),
            "has schema version %lld, and this cliserd knows %d; use the cliserd that wrote it",
            (long long)version, SCHEMA_VERSION);
        return -1;
    }

    const char *verdict = NULL;
    if (sqlite3_prepare_v2(s->db, "PRAGMA quick_check(1)", -1, &check, NULL) == SQLITE_OK &&
        sqlite3_step(check) == SQLITE_ROW)
        verdict = (const char *)sqlite3_column_text(check, 0);
    const bool whole = verdict && strcmp(verdict, "ok") == 0;
    sqlite3_finalize(check);
    if (!whole)
        snprintf(s->error, sizeof(s->error),
                 "is damaged; move it away to start with an empty registry, or restore a copy");
    return whole ? 0 : -1;
}

/* Where WAL is not to be had (no shared memory, as on some network file systems), SQLite says OK
 * and keeps another mode, in which readers would hold us up. */
static int use_wal(struct sqlite_store *s)
{
    sqlite3_stmt *stmt = NULL;
    const char *mode = NULL;

    if (sqlite3_prepare_v2(s->db, "PRAGMA journal_mode = WAL", -1, &stmt, NULL) == SQLITE_OK &&
        sqlite3_step(stmt) == SQLITE_ROW)
        mode = (const char *)sqlite3_column_text(stmt, 0);
    const bool is_wal = mode && strcmp(mode, "wal") == 0;
    if (!mode)
        fail(s, "cannot be written");
    else if (!is_wal)
        snprintf(s->error, sizeof(s->error),
                 "cannot have a write-ahead log here; choose a path on a local disk");
    sqlite3_finalize(stmt);
    return is_wal ? 0 : -1;
}

static int create_schema(struct sqlite_store *s)
{
    char sql[sizeof(schema) + 128];

    snprintf(sql, sizeof(sql),
             "BEGIN; %s; PRAGMA application_id = %d; PRAGMA user_version = %d; COMMIT", schema,
             APPLICATION_ID, SCHEMA_VERSION);
    if (sqlite3_exec(s->db, sql, NULL, NULL, NULL) != SQLITE_OK)
        return fail(s, "cannot be written");
    return 0;
}

/* At start: everyone the file knows, disconnected until they come back. */
static int load_records(struct sqlite_store *s)
{
    static const char select[] = "SELECT sid, cid, cip, cport, cstatus, since, last_seen, rtt_ms,"
                                 " reason FROM clients";
    const int64_t now = clock_wall_ms() / 1000;
    char sql[128];
    sqlite3_stmt *row = NULL;
    int rc;

    if (sqlite3_prepare_v2(s->db, select, -1, &row, NULL) != SQLITE_OK)
        return fail(s, "cannot be read");
    while ((rc = sqlite3_step(row)) == SQLITE_ROW) {
        if (load_row(s, row, now) != 0) {
            sqlite3_finalize(row);
            return -1;
        }
    }
    sqlite3_finalize(row);
    if (rc != SQLITE_DONE)
        return fail(s, "cannot be read");

    snprintf(sql, sizeof(sql),
             "UPDATE clients SET cstatus = 0, since = %lld, reason = '%s' WHERE cstatus = 1",
             (long long)now, reason_word(REASON_CRASH));
    if (sqlite3_exec(s->db, sql, NULL, NULL, NULL) != SQLITE_OK)
        return fail(s, "cannot be written");
    s->must_rewrite = false;
    return 0;
}

static int load_row(struct sqlite_store *s, sqlite3_stmt *row, int64_t now)
{
    const int64_t sid = sqlite3_column_int64(row, 0);
    const int64_t cport = sqlite3_column_int64(row, 3);
    const double rtt_ms = sqlite3_column_double(row, 7);
    const char *cid = (const char *)sqlite3_column_text(row, 1);
    const char *cip = (const char *)sqlite3_column_text(row, 2);
    const char *reason = (const char *)sqlite3_column_text(row, 8);
    struct registry_record *record = NULL;

    if (sid >= 1 && sid <= MAX_SID && cid && cport >= 0 && cport <= UINT16_MAX && rtt_ms >= 0 &&
        rtt_ms < MAX_RTT_MS)
        record = registry_restore(s->registry, (uint32_t)sid, cid, strlen(cid));
    if (!record) {
        snprintf(s->error, sizeof(s->error),
                 "has a row (sid %lld) that is no client; restore a copy, or delete that row",
                 (long long)sid);
        return -1;
    }
    peer_address_parse(&record->peer, cip ? cip : "", (uint16_t)cport);
    record->since = sqlite3_column_int64(row, 5);
    record->last_seen = sqlite3_column_int64(row, 6);
    record->rtt_us = (uint32_t)(rtt_ms * 1000.0);
    record->reason = (uint8_t)reason_parse(reason ? reason : "");
    if (sqlite3_column_int(row, 4) != 0)
        registry_disconnect(s->registry, record, REASON_CRASH, now);
    return 0;
}

/* Makes the file what it should be. Returns 0, or -1 with s->error set and the queue as it was. */
static int flush(struct sqlite_store *s)
{
    if (file_was_replaced(s))
        close_file(s);
    if (!s->db) {
        if (open_file(s) != 0)
            return -1;
        trust_file(s);
    }
    return write_changes(s);
}

/* Everything in the queue in one transaction. Returns 0, or -1 with s->error set and nothing
 * written. */
static int write_changes(struct sqlite_store *s)
{
    if (run(s, STATEMENT_BEGIN) != 0)
        goto failed;
    if (s->must_rewrite && write_all_records(s) != 0)
        goto failed;
    for (size_t i = 0; i < s->count; i++) {
        /* Written from the registry just now, as it is by now. */
        if (s->must_rewrite && s->queue[i].kind != CHANGE_REGISTER)
            continue;
        if (write_change(s, &s->queue[i]) != 0)
            goto failed;
    }
    /* After a failure with nothing left to write: only a write tells whether writing works again.
     */
    if (s->count == 0 && run(s, STATEMENT_TOUCH) != 0)
        goto failed;
    if (run(s, STATEMENT_COMMIT) != 0)
        goto failed;
    s->must_rewrite = false;
    return 0;

failed:
    /* SQLite has rolled back by itself after some errors, and not after others. */
    if (!sqlite3_get_autocommit(s->db))
        sqlite3_step(s->prepared[STATEMENT_ROLLBACK]);
    sqlite3_reset(s->prepared[STATEMENT_ROLLBACK]);
    const bool still_open = !sqlite3_get_autocommit(s->db); /* rolling back needs memory as well */
    /* After these neither connection nor file is to be trusted: a failed fsync cannot be repeated,
     * and a constraint means that somebody else has written. The registry is the truth. */
    if (still_open || s->error_code == SQLITE_IOERR || s->error_code == SQLITE_CORRUPT ||
        s->error_code == SQLITE_NOTADB || s->error_code == SQLITE_CANTOPEN ||
        s->error_code == SQLITE_READONLY || s->error_code == SQLITE_CONSTRAINT)
        close_file(s);
    return -1;
}

static int write_all_records(struct sqlite_store *s)
{
    const struct registry_record *record = NULL;
    char ip[ADDRESS_TEXT_BYTES];

    if (run(s, STATEMENT_CLEAR) != 0)
        return -1;
    for (uint32_t sid = 0; (record = registry_next(s->registry, sid)) != NULL; sid = record->sid) {
        sqlite3_stmt *stmt = s->prepared[STATEMENT_INSERT];

        if (!record->stored)
            continue; /* its registration is still to come */
        sqlite3_bind_int64(stmt, 1, record->sid);
        bind_text(stmt, 2, record->cid);
        bind_text(stmt, 3, peer_address_format(&record->peer, ip));
        sqlite3_bind_int(stmt, 4, record->peer.port);
        sqlite3_bind_int64(stmt, 5, record->since);
        sqlite3_bind_int64(stmt, 6, record->last_seen);
        if (record->rtt_us > 0)
            sqlite3_bind_double(stmt, 7, record->rtt_us / 1000.0);
        bind_text(stmt, 8, reason_word(record->reason));
        bind_text(stmt, 9, s->options->node);
        sqlite3_bind_int(stmt, 10, record->connected);
        if (run(s, STATEMENT_INSERT) != 0)
            return -1;
    }
    return 0;
}

static int write_change(struct sqlite_store *s, const struct change *change)
{
    static const enum statement by_kind[] = {
        [CHANGE_REGISTER] = STATEMENT_REGISTER,
        [CHANGE_DISCONNECT] = STATEMENT_DISCONNECT,
        [CHANGE_FORGET] = STATEMENT_FORGET,
    };
    sqlite3_stmt *stmt = s->prepared[by_kind[change->kind]];
    char ip[ADDRESS_TEXT_BYTES];

    sqlite3_bind_int64(stmt, 1, change->sid);
    if (change->kind == CHANGE_REGISTER) {
        bind_text(stmt, 2, change->cid);
        bind_text(stmt, 3, peer_address_format(&change->peer, ip));
        sqlite3_bind_int(stmt, 4, change->peer.port);
        bind_text(stmt, 9, s->options->node);
    }
    if (change->kind != CHANGE_FORGET) {
        sqlite3_bind_int64(stmt, 5, change->since);
        sqlite3_bind_int64(stmt, 6, change->last_seen);
    }
    if (change->kind == CHANGE_DISCONNECT) {
        if (change->rtt_us > 0)
            sqlite3_bind_double(stmt, 7, change->rtt_us / 1000.0);
        bind_text(stmt, 8, reason_word(change->reason));
    }
    return run(s, by_kind[change->kind]);
}

/* Nothing can be written now: registrations are refused, the rest waits. */
static void keep_for_later(struct sqlite_store *s, struct moment now)
{
    size_t kept = 0;

    answer_registrations(s, STORE_UNAVAILABLE);
    for (size_t i = 0; i < s->count; i++) {
        if (s->queue[i].kind != CHANGE_REGISTER)
            s->queue[kept++] = s->queue[i];
    }
    s->count = kept;
    s->registrations = 0;
    s->due_us = now.mono_us + GATHER_US;
}

static void answer_registrations(struct sqlite_store *s, enum store_result result)
{
    for (size_t i = 0; i < s->count; i++) {
        if (s->queue[i].kind == CHANGE_REGISTER)
            store_push_answer(s->store, s->queue[i].serial, s->queue[i].sid, result);
    }
}

static void report_failure(struct sqlite_store *s, struct moment now, uint64_t took_us)
{
    /* Twice the pause after each failure, and never so short that trying is all we do: checking a
     * large file before it is opened anew takes time. */
    s->pause_us = s->pause_us == 0 ? RETRY_MIN_US : s->pause_us * 2;
    if (s->pause_us > RETRY_MAX_US)
        s->pause_us = RETRY_MAX_US;
    if (s->pause_us < 10 * took_us)
        s->pause_us = 10 * took_us;
    s->healthy = false;
    s->retry_us = now.mono_us + took_us + s->pause_us;
    if (s->logged_us != 0 && now.mono_us - s->logged_us < LOG_EVERY_US)
        return;
    s->logged_us = now.mono_us;
    s->failure_is_logged = true;
    log_event(LOG_LEVEL_ERROR, "store_failed", LOG_STR("path", s->options->path),
              LOG_STR("error", s->error), LOG_NUM("waiting", s->count - s->registrations));
}

static void report_success(struct sqlite_store *s)
{
    s->healthy = true;
    s->pause_us = 0;
    /* A disk that is full now and then is not worth two lines each time. */
    if (s->failure_is_logged)
        log_event(LOG_LEVEL_INFO, "store_healed", LOG_STR("path", s->options->path));
    s->failure_is_logged = false;
}

/* The WAL that our commits go to, so that its loss can be noticed. */
static void note_wal(struct sqlite_store *s)
{
    struct stat info;

    if (s->wal_inode == 0 && stat(s->wal_path, &info) == 0)
        s->wal_inode = info.st_ino;
}

/* Has somebody removed, emptied or replaced the file or its WAL under us? SQLite would go on
 * writing to what is no longer there, and the next start would know nobody. */
static bool file_was_replaced(const struct sqlite_store *s)
{
    struct stat info;

    if (!s->db)
        return false;
    if (stat(s->options->path, &info) != 0)
        return errno == ENOENT;
    if (!is_same_file(&info, &s->identity) || info.st_size == 0)
        return true;
    if (s->wal_inode == 0)
        return false;
    if (stat(s->wal_path, &info) != 0)
        return errno == ENOENT;
    return info.st_ino != s->wal_inode || info.st_size == 0;
}

static uint64_t checkpoint_due_us(const struct sqlite_store *s)
{
    if (!s->db || s->wal_pages == 0)
        return UINT64_MAX;
    if (s->wal_pages >= WAL_PAGES_AT_MOST)
        return s->committed_us;
    return s->committed_us + (s->wal_pages >= WAL_PAGES_WORTH_A_PAUSE ? PAUSE_US : LONG_PAUSE_US);
}

static bool is_same_file(const struct stat *left, const struct stat *right)
{
    return left->st_ino == right->st_ino && left->st_dev == right->st_dev;
}

static void checkpoint_if_due(struct sqlite_store *s, struct moment now)
{
    if (now.mono_us < checkpoint_due_us(s))
        return;
    /* PASSIVE never waits for readers. Whether it got through everything or failed, the next commit
     * says how long the WAL is, and a failure that matters will be that commit's. */
    (void)sqlite3_wal_checkpoint_v2(s->db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
    s->wal_pages = 0;
}

static int on_wal_commit(void *user, sqlite3 *db, const char *name, int pages)
{
    struct sqlite_store *s = user;

    (void)db;
    (void)name;
    s->wal_pages = pages;
    return SQLITE_OK;
}

static int run(struct sqlite_store *s, enum statement statement)
{
    const int rc = sqlite3_step(s->prepared[statement]);

    if (rc != SQLITE_DONE)
        fail(s, "cannot be written");
    sqlite3_reset(s->prepared[statement]);
    sqlite3_clear_bindings(s->prepared[statement]);
    return rc == SQLITE_DONE ? 0 : -1;
}

static int query_number(struct sqlite_store *s, const char *sql, int64_t *number)
{
    sqlite3_stmt *stmt = NULL;
    const bool ok = sqlite3_prepare_v2(s->db, sql, -1, &stmt, NULL) == SQLITE_OK &&
                    sqlite3_step(stmt) == SQLITE_ROW;

    if (ok)
        *number = sqlite3_column_int64(stmt, 0);
    else
        fail(s, "cannot be read");
    sqlite3_finalize(stmt);
    return ok ? 0 : -1;
}

/* Keeps what SQLite says now: the next call overwrites it. Returns -1 always. */
static int fail(struct sqlite_store *s, const char *what)
{
    snprintf(s->error, sizeof(s->error), "%s: %s", what, sqlite3_errmsg(s->db));
    s->error_code = sqlite3_errcode(s->db) & 0xff;
    return -1;
}

static void bind_text(sqlite3_stmt *stmt, int index, const char *text)
{
    /* Every statement is run before its texts go. */
    sqlite3_bind_text(stmt, index, text, -1, SQLITE_STATIC);
}
