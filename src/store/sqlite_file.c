/*
 * Opens the registry's database, and only that: a file that is newer or of another program is
 * refused untouched, and one of ours that is damaged is told apart from those. Holds the schema and
 * every statement there is.
 */
#include "store/sqlite_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#define APPLICATION_ID        0x636c7372 /* "clsr" */
#define APPLICATION_ID_OFFSET 68         /* in the file, by SQLite's file format */
#define SCHEMA_VERSION        3
#define TEXT_OF(number)       TEXT_OF_1(number)
#define TEXT_OF_1(number)     #number

#define CANNOT_UPGRADE        "has an older schema version and cannot be upgraded"

/* What each version has more than the one before it; a new file gets them all. */
#define SCHEMA_1                                                                                   \
    "CREATE TABLE clients ("                                                                       \
    " sid INTEGER PRIMARY KEY,"                                                                    \
    " cid TEXT NOT NULL UNIQUE,"                                                                   \
    " cip TEXT NOT NULL,"                                                                          \
    " cport INTEGER NOT NULL,"                                                                     \
    " cstatus INTEGER NOT NULL," /* 1 connected, 0 disconnected */                                 \
    " since INTEGER NOT NULL,"   /* Unix seconds */                                                \
    " last_seen INTEGER NOT NULL,"                                                                 \
    " rtt_ms REAL,"                                                                                \
    " reason TEXT NOT NULL,"                                                                       \
    " node TEXT NOT NULL);"
#define SCHEMA_2                                                                                   \
    "CREATE TABLE orders ("                                                                        \
    " id INTEGER PRIMARY KEY,"                                                                     \
    " by TEXT NOT NULL,"                                                                           \
    " state TEXT NOT NULL,"                                                                        \
    " created INTEGER NOT NULL," /* Unix seconds */                                                \
    " ended INTEGER,"            /* NULL while it is under way */                                  \
    " grace_ms INTEGER NOT NULL,"                                                                  \
    " hold_ms INTEGER NOT NULL);"                                                                  \
    "CREATE TABLE order_waves ("                                                                   \
    " order_id INTEGER NOT NULL,"                                                                  \
    " wave INTEGER NOT NULL," /* from 1 */                                                         \
    " match TEXT NOT NULL,"                                                                        \
    " started INTEGER,"                                                                            \
    " ended INTEGER,"                                                                              \
    " PRIMARY KEY (order_id, wave));"                                                              \
    "CREATE TABLE order_targets (" /* of the order with the highest id */                          \
    " sid INTEGER PRIMARY KEY,"                                                                    \
    " wave INTEGER NOT NULL,"                                                                      \
    " told INTEGER NOT NULL,"                                                                      \
    " acknowledged INTEGER NOT NULL,"                                                              \
    " late INTEGER NOT NULL);"
#define SCHEMA_3    "ALTER TABLE clients ADD COLUMN credential TEXT NOT NULL DEFAULT '';"
#define SET_VERSION "PRAGMA user_version = " TEXT_OF(SCHEMA_VERSION)

/* NORMAL: a commit survives the death of this process; FULL: that of the machine as well. */
static const char *const modes[] = {
    [STORE_SYNC_NORMAL] = "PRAGMA synchronous = NORMAL",
    [STORE_SYNC_FULL] = "PRAGMA synchronous = FULL",
};

/* clang-format off */
static const char *const statements[SQLITE_STATEMENT_COUNT] = {
    [SQLITE_STATEMENT_BEGIN]      = "BEGIN IMMEDIATE",
    [SQLITE_STATEMENT_COMMIT]     = "COMMIT",
    [SQLITE_STATEMENT_ROLLBACK]   = "ROLLBACK",
    [SQLITE_STATEMENT_DISCONNECT] = ("UPDATE clients SET cstatus = 0, since = ?5, last_seen = ?6,"
                              " rtt_ms = ?7, reason = ?8 WHERE sid = ?1"),
    [SQLITE_STATEMENT_FORGET]     = "DELETE FROM clients WHERE sid = ?1",
    [SQLITE_STATEMENT_CLEAR]      = "DELETE FROM clients",
    [SQLITE_STATEMENT_TOUCH]      = SET_VERSION,
    [SQLITE_STATEMENT_ORDER]      = ("INSERT INTO orders VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)"
                              " ON CONFLICT(id) DO UPDATE SET by = ?2, state = ?3, created = ?4,"
                              " ended = ?5, grace_ms = ?6, hold_ms = ?7"),
    [SQLITE_STATEMENT_CLEAR_WAVES] = "DELETE FROM order_waves WHERE order_id = ?1",
    [SQLITE_STATEMENT_WAVE]       = "INSERT INTO order_waves VALUES(?1, ?2, ?3, ?4, ?5)",
    [SQLITE_STATEMENT_CLEAR_TARGETS] = "DELETE FROM order_targets",
    [SQLITE_STATEMENT_TARGET]     = ("INSERT INTO order_targets VALUES(?1, ?2, ?3, ?4, ?5)"
                              " ON CONFLICT(sid) DO UPDATE SET wave = ?2, told = ?3,"
                              " acknowledged = ?4, late = ?5"),
    [SQLITE_STATEMENT_FORGET_TARGET] = "DELETE FROM order_targets WHERE sid = ?1",
    [SQLITE_STATEMENT_REGISTER]   = ("INSERT INTO clients"
                              " VALUES(?1, ?2, ?3, ?4, 1, ?5, ?6, NULL, ?8, ?9, ?11)"
                              " ON CONFLICT(sid) DO UPDATE SET cip = ?3, cport = ?4, cstatus = 1,"
                              " since = ?5, last_seen = ?6, rtt_ms = NULL, reason = ?8, node = ?9,"
                              " credential = ?11"),
    [SQLITE_STATEMENT_INSERT]     = ("INSERT INTO clients"
                              " VALUES(?1, ?2, ?3, ?4, ?10, ?5, ?6, ?7, ?8, ?9, ?11)"),
};
/* clang-format on */

/* The version's own statements and those of the versions before it end here. */
static const int statements_of[SCHEMA_VERSION + 1] = {
    [1] = SQLITE_STATEMENT_ORDER,
    [2] = SQLITE_STATEMENT_REGISTER,
    [3] = SQLITE_STATEMENT_COUNT,
};

/* What brings a version to the one behind it. */
static const char *const upgrades[SCHEMA_VERSION] = {[1] = SCHEMA_2, [2] = SCHEMA_3};

static int lock_file(struct sqlite_file *f);
static bool has_our_mark(int fd);
static int check_ours(struct sqlite_file *f, int64_t *version);
static bool is_about_reading(const char *verdict);
static int prepare(struct sqlite_file *f, int begin, int end);
static int begin_upgrade(struct sqlite_file *f, int64_t version);
static int use_wal(struct sqlite_file *f);
static int create_schema(struct sqlite_file *f);
static int on_wal_commit(void *user, sqlite3 *db, const char *name, int pages);
static int query_number(struct sqlite_file *f, const char *sql, int64_t *number);
static bool is_same_file(const struct stat *left, const struct stat *right);

int sqlite_file_open(struct sqlite_file *f)
{
    int64_t version = 0;

    f->is_ours = f->is_damaged = false;
    if (lock_file(f) != 0)
        goto failed;
    if (sqlite3_open_v2(f->path, &f->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL) !=
        SQLITE_OK) {
        sqlite_file_fail(f, "cannot be opened");
        goto failed;
    }
    /* Until the file is known to be ours, not even closing it may write what its WAL holds. */
    (void)sqlite3_db_config(f->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    if (check_ours(f, &version) != 0 || prepare(f, 0, statements_of[version]) != 0)
        goto failed;
    if (sqlite3_exec(f->db, modes[f->sync], NULL, NULL, NULL) != SQLITE_OK) {
        sqlite_file_fail(f, "cannot be written");
        goto failed;
    }
    if (use_wal(f) != 0)
        goto failed;
    if (version < SCHEMA_VERSION &&
        (begin_upgrade(f, version) != 0 ||
         prepare(f, statements_of[version], SQLITE_STATEMENT_COUNT) != 0))
        goto failed;
    f->wal_pages = 0;
    /* Replaces SQLite's own checkpoints, which come inside commits. */
    sqlite3_wal_hook(f->db, on_wal_commit, f);
    return 0;

failed:
    sqlite_file_close(f);
    return -1;
}

int sqlite_file_trust(struct sqlite_file *f)
{
    if (!sqlite3_get_autocommit(f->db) &&
        sqlite3_exec(f->db, "COMMIT", NULL, NULL, NULL) != SQLITE_OK) {
        sqlite_file_fail(f, CANNOT_UPGRADE);
        sqlite_file_close(f);
        return -1;
    }
    (void)sqlite3_db_config(f->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, NULL);
    return 0;
}

void sqlite_file_close(struct sqlite_file *f)
{
    /* Our WAL has the name that would belong to the file that is there now, and must not be taken
     * for its: empty it into the file that we had. */
    if (sqlite_file_was_replaced(f))
        (void)sqlite3_wal_checkpoint_v2(f->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
    for (int i = 0; i < SQLITE_STATEMENT_COUNT; i++) {
        sqlite3_finalize(f->prepared[i]);
        f->prepared[i] = NULL;
    }
    sqlite3_close(f->db);
    f->db = NULL;
    f->wal_inode = 0;
    /* Only now: closing any descriptor of the file would drop SQLite's own locks. */
    if (f->lock_fd >= 0)
        close(f->lock_fd);
    f->lock_fd = -1;
}

void sqlite_file_bind_text(struct sqlite_file *f, enum sqlite_statement statement, int index,
                           const char *text)
{
    sqlite3_bind_text(f->prepared[statement], index, text, -1, SQLITE_STATIC);
}

int sqlite_file_run(struct sqlite_file *f, enum sqlite_statement statement)
{
    const int rc = sqlite3_step(f->prepared[statement]);

    if (rc != SQLITE_DONE)
        sqlite_file_fail(f, "cannot be written");
    sqlite3_reset(f->prepared[statement]);
    sqlite3_clear_bindings(f->prepared[statement]);
    return rc == SQLITE_DONE ? 0 : -1;
}

/* Keeps what SQLite says now: the next call overwrites it. Returns -1 always. */
int sqlite_file_fail(struct sqlite_file *f, const char *what)
{
    snprintf(f->error, sizeof(f->error), "%s: %s", what, sqlite3_errmsg(f->db));
    f->error_code = sqlite3_errcode(f->db) & 0xff;
    if (f->is_ours && (f->error_code == SQLITE_CORRUPT || f->error_code == SQLITE_NOTADB))
        f->is_damaged = true;
    return -1;
}

int sqlite_file_note_damage(struct sqlite_file *f)
{
    f->is_damaged = true;
    return -1;
}

int sqlite_file_set_aside(struct sqlite_file *f, char *name, size_t name_size)
{
    char other[PATH_MAX];
    char stamp[32];
    struct timespec now;
    struct tm utc;

    clock_gettime(CLOCK_REALTIME, &now);
    (void)gmtime_r(&now.tv_sec, &utc);
    (void)strftime(stamp, sizeof(stamp), "%Y%m%dT%H%M%S", &utc);
    const int len =
        snprintf(name, name_size, "%s.damaged-%s.%03ldZ", f->path, stamp, now.tv_nsec / 1000000);
    if (len < 0 || (size_t)len >= name_size || rename(f->path, name) != 0) {
        snprintf(f->error, sizeof(f->error), "is damaged, and cannot be set aside: %s",
                 strerror(errno));
        return -1;
    }
    /* What its log has belongs to it; the index of the log is made anew. */
    snprintf(other, sizeof(other), "%s-wal", name);
    (void)rename(f->wal_path, other);
    snprintf(other, sizeof(other), "%s-shm", f->path);
    (void)unlink(other);
    f->identity = (struct stat){.st_ino = 0};
    f->is_damaged = false;
    return 0;
}

void sqlite_file_note_commit(struct sqlite_file *f)
{
    struct stat info;

    if (f->wal_inode == 0 && stat(f->wal_path, &info) == 0)
        f->wal_inode = info.st_ino;
}

/* Has somebody removed, emptied or replaced the file or its WAL under us? SQLite would go on
 * writing to what is no longer there, and the next start would know nobody. */
bool sqlite_file_was_replaced(const struct sqlite_file *f)
{
    struct stat info;

    if (!f->db)
        return false;
    if (stat(f->path, &info) != 0)
        return errno == ENOENT;
    if (!is_same_file(&info, &f->identity) || info.st_size == 0)
        return true;
    if (f->wal_inode == 0)
        return false;
    if (stat(f->wal_path, &info) != 0)
        return errno == ENOENT;
    return info.st_ino != f->wal_inode || info.st_size == 0;
}

/*
 * Locks the file against a second server, and looks at its first bytes before SQLite may touch it.
 * While running, only the file that we had, or a new one in place of one that is gone, will do:
 * another one that somebody put there must not be overwritten.
 */
static int lock_file(struct sqlite_file *f)
{
    static const char magic[16] = "SQLite format 3";
    char begin[sizeof(magic)] = "";
    struct stat info;

    f->lock_fd = open(f->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0640);
    if (f->lock_fd < 0 || fstat(f->lock_fd, &info) != 0) {
        snprintf(f->error, sizeof(f->error), "cannot be opened for writing: %s", strerror(errno));
        return -1;
    }
    if (!S_ISREG(info.st_mode)) {
        snprintf(f->error, sizeof(f->error), "is not a file");
        return -1;
    }
    if (flock(f->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        snprintf(f->error, sizeof(f->error),
                 "is in use by another cliserd; give each its own path");
        return -1;
    }
    f->is_ours = has_our_mark(f->lock_fd);
    if (info.st_size > 0 && (pread(f->lock_fd, begin, sizeof(begin), 0) != (ssize_t)sizeof(begin) ||
                             memcmp(begin, magic, sizeof(magic)) != 0)) {
        snprintf(
            f->error, sizeof(f->error),
            "is not a cliser registry; move it away to start with an empty one, or restore a copy");
        return f->is_ours ? sqlite_file_note_damage(f) : -1;
    }
    if (f->identity.st_ino != 0 && info.st_size > 0 && !is_same_file(&info, &f->identity)) {
        snprintf(f->error, sizeof(f->error),
                 "is another file now; stop the server before replacing it");
        return -1;
    }
    f->identity = info;
    return 0;
}

/* As SQLite has written it, where it belongs, whatever has become of the rest. */
static bool has_our_mark(int fd)
{
    static const unsigned char mark[] = {APPLICATION_ID >> 24 & 0xff, APPLICATION_ID >> 16 & 0xff,
                                         APPLICATION_ID >> 8 & 0xff, APPLICATION_ID & 0xff};
    unsigned char found[sizeof(mark)];

    return pread(fd, found, sizeof(found), APPLICATION_ID_OFFSET) == (ssize_t)sizeof(found) &&
           memcmp(found, mark, sizeof(mark)) == 0;
}

/* Is this file ours, whole, and of a version that we know? An empty one is made ours. */
static int check_ours(struct sqlite_file *f, int64_t *version)
{
    int64_t application = 0;
    int64_t tables = 0;
    sqlite3_stmt *check = NULL;
    int result = -1;

    if (query_number(f, "PRAGMA application_id", &application) != 0 ||
        query_number(f, "PRAGMA user_version", version) != 0 ||
        query_number(f, "SELECT count(*) FROM sqlite_master", &tables) != 0)
        return -1;
    if (application == 0 && *version == 0 && tables == 0) {
        *version = SCHEMA_VERSION;
        return create_schema(f);
    }
    if (application != APPLICATION_ID) {
        snprintf(f->error, sizeof(f->error),
                 "is a database of another program; choose another path for the registry");
        return -1;
    }
    if (*version < 1 || *version > SCHEMA_VERSION) {
        snprintf(
            f->error, sizeof(f->error),
            "has schema version %lld, and this cliserd knows %d; use the cliserd that wrote it",
            (long long)*version, SCHEMA_VERSION);
        return -1;
    }

    f->is_ours = true;
    const char *verdict = NULL;
    if (sqlite3_prepare_v2(f->db, "PRAGMA quick_check(1)", -1, &check, NULL) == SQLITE_OK &&
        sqlite3_step(check) == SQLITE_ROW)
        verdict = (const char *)sqlite3_column_text(check, 0);
    if (!verdict) {
        sqlite_file_fail(f, "cannot be checked");
    } else if (strcmp(verdict, "ok") == 0) {
        result = 0;
    } else if (is_about_reading(verdict)) {
        snprintf(f->error, sizeof(f->error), "cannot be checked: %s", verdict);
    } else {
        snprintf(f->error, sizeof(f->error), "is damaged");
        (void)sqlite_file_note_damage(f);
    }
    sqlite3_finalize(check);
    return result;
}

/* SQLite says of a page that memory or the disk did not let it read the same as of one that is
 * wrong, but for the code: "... unable to get the page. error code=10". */
static bool is_about_reading(const char *verdict)
{
    static const char begin[] = "error code=";
    const char *code = strstr(verdict, begin);
    const long number = code ? strtol(code + strlen(begin), NULL, 10) & 0xff : SQLITE_CORRUPT;

    return number != SQLITE_CORRUPT && number != SQLITE_NOTADB;
}

static int prepare(struct sqlite_file *f, int begin, int end)
{
    for (int i = begin; i < end; i++) {
        if (sqlite3_prepare_v3(f->db, statements[i], -1, SQLITE_PREPARE_PERSISTENT, &f->prepared[i],
                               NULL) != SQLITE_OK)
            return sqlite_file_fail(f, "has another schema than it says");
    }
    return 0;
}

/* One step after the other, all in one transaction. Closing the file undoes what was not committed.
 */
static int begin_upgrade(struct sqlite_file *f, int64_t version)
{
    if (sqlite3_exec(f->db, "BEGIN IMMEDIATE", NULL, NULL, NULL) != SQLITE_OK)
        return sqlite_file_fail(f, CANNOT_UPGRADE);
    for (; version < SCHEMA_VERSION; version++) {
        if (sqlite3_exec(f->db, upgrades[version], NULL, NULL, NULL) != SQLITE_OK)
            return sqlite_file_fail(f, CANNOT_UPGRADE);
    }
    if (sqlite3_exec(f->db, SET_VERSION, NULL, NULL, NULL) != SQLITE_OK)
        return sqlite_file_fail(f, CANNOT_UPGRADE);
    return 0;
}

/* Where WAL is not to be had (no shared memory, as on some network file systems), SQLite says OK
 * and keeps another mode, in which readers would hold us up. */
static int use_wal(struct sqlite_file *f)
{
    sqlite3_stmt *stmt = NULL;
    const char *mode = NULL;

    if (sqlite3_prepare_v2(f->db, "PRAGMA journal_mode = WAL", -1, &stmt, NULL) == SQLITE_OK &&
        sqlite3_step(stmt) == SQLITE_ROW)
        mode = (const char *)sqlite3_column_text(stmt, 0);
    const bool is_wal = mode && strcmp(mode, "wal") == 0;
    if (!mode)
        sqlite_file_fail(f, "cannot be written");
    else if (!is_wal)
        snprintf(f->error, sizeof(f->error),
                 "cannot have a write-ahead log here; choose a path on a local disk");
    sqlite3_finalize(stmt);
    return is_wal ? 0 : -1;
}

static int create_schema(struct sqlite_file *f)
{
    static const char sql[] =
        "BEGIN; " SCHEMA_1 SCHEMA_2 SCHEMA_3
        "PRAGMA application_id = " TEXT_OF(APPLICATION_ID) ";" SET_VERSION "; COMMIT";

    if (sqlite3_exec(f->db, sql, NULL, NULL, NULL) != SQLITE_OK)
        return sqlite_file_fail(f, "cannot be written");
    return 0;
}

static int on_wal_commit(void *user, sqlite3 *db, const char *name, int pages)
{
    struct sqlite_file *f = user;

    (void)db;
    (void)name;
    f->wal_pages = pages;
    return SQLITE_OK;
}

static int query_number(struct sqlite_file *f, const char *sql, int64_t *number)
{
    sqlite3_stmt *stmt = NULL;
    const bool ok = sqlite3_prepare_v2(f->db, sql, -1, &stmt, NULL) == SQLITE_OK &&
                    sqlite3_step(stmt) == SQLITE_ROW;

    if (ok)
        *number = sqlite3_column_int64(stmt, 0);
    else
        sqlite_file_fail(f, "cannot be read");
    sqlite3_finalize(stmt);
    return ok ? 0 : -1;
}

static bool is_same_file(const struct stat *left, const struct stat *right)
{
    return left->st_ino == right->st_ino && left->st_dev == right->st_dev;
}
