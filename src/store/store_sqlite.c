/*
 * The store in one SQLite file (WAL): all registrations of some turns are one transaction, and so
 * are all disconnections of some more. Decides when changes are due, and how to come back from a
 * full disk or a broken file: what could not be written is kept, and after the file had to be
 * opened anew everything is written again from the registry. There is exactly one connection that
 * writes; everybody else opens the file read-only.
 */
#include "store/backend.h"

#include "base/log.h"
#include "store/sqlite_file.h"

#include <sqlite3.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A commit costs as much as some twenty rows in it. So while one turn follows the other without a
 * pause, registrations wait for those of the next one, until there are so many or so long. */
#define GATHER_REGISTRATIONS    64
#define GATHER_REGISTRATIONS_US (2 * CLOCK_US_PER_MS)
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
#define MAX_SID    (INT64_C(1) << 26)
#define MAX_RTT_MS 4e6 /* rtt_us has 32 bits */

/* In the order in which they happened. */
struct change_queue {
    struct change *items;
    size_t count;
    size_t capacity;
};

struct sqlite_store {
    struct store *store;
    const struct store_options *options;
    struct registry *registry;

    struct sqlite_file file;

    struct change_queue registrations;
    uint64_t register_due_us;   /* when they must be durable, however busy we are */
    struct change_queue others; /* may wait for each other */
    uint64_t others_due_us;     /* when the oldest of them must be durable */
    bool others_first;          /* a registration may need what one of them sets free */

    bool healthy;
    bool must_rewrite; /* the file may lack changes: write all records again */
    uint64_t retry_us; /* while not healthy: no try before */
    uint64_t pause_us; /* the last pause between two tries; 0 while healthy */
    uint64_t logged_us;
    bool failure_is_logged; /* so its end is to be as well */

    uint64_t committed_us;
};

static void *sqlite_store_open(struct store *store, const struct store_options *options,
                               struct registry *registry, char *message, size_t message_size);
static int sqlite_store_take(void *state, const struct change *change, struct moment now);
static void sqlite_store_commit(void *state, bool busy, struct moment now);
static bool can_wait(const struct sqlite_store *s, bool busy, struct moment now);
static uint64_t sqlite_store_next_us(const void *state);
static bool sqlite_store_healthy(const void *state);
static void sqlite_store_close(void *state, struct moment now);

static int enqueue(struct change_queue *queue, const struct change *change);
static int load_records(struct sqlite_store *s);
static int load_row(struct sqlite_store *s, sqlite3_stmt *row, int64_t now);
static int flush(struct sqlite_store *s, bool with_others);
static int write_changes(struct sqlite_store *s, bool with_others);
static int write_others(struct sqlite_store *s);
static int write_all_records(struct sqlite_store *s);
static int write_change(struct sqlite_store *s, const struct change *change);
static void answer_registrations(struct sqlite_store *s, enum store_result result);
static void report_failure(struct sqlite_store *s, struct moment now, uint64_t took_us);
static void report_success(struct sqlite_store *s);
static uint64_t checkpoint_due_us(const struct sqlite_store *s);
static void checkpoint_if_due(struct sqlite_store *s, struct moment now);
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
    /* There is one thread, so SQLite need not lock, nor count its memory. Refused, and of no
     * importance, when it is in use already. */
    (void)sqlite3_config(SQLITE_CONFIG_SINGLETHREAD);
    (void)sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
    s->store = store;
    s->options = options;
    s->registry = registry;
    s->file.path = options->path;
    s->file.sync = (enum store_sync)options->sync;
    s->file.lock_fd = -1;
    s->healthy = true;
    if (asprintf(&s->file.wal_path, "%s-wal", options->path) < 0)
        abort();
    if (sqlite_file_open(&s->file) != 0 || load_records(s) != 0) {
        snprintf(message, message_size, "%s: %s", options->path, s->file.error);
        sqlite_file_close(&s->file);
        free(s->file.wal_path);
        free(s);
        return NULL;
    }
    sqlite_file_trust(&s->file);
    return s;
}

static int sqlite_store_take(void *state, const struct change *change, struct moment now)
{
    struct sqlite_store *s = state;

    if (change->kind == CHANGE_REGISTER) {
        if (s->registrations.count == 0)
            s->register_due_us = now.mono_us + GATHER_REGISTRATIONS_US;
        return enqueue(&s->registrations, change);
    }
    if (s->others.count == 0)
        s->others_due_us = now.mono_us + GATHER_US;
    /* The ID or the sid of a forgotten client may be the next one's. */
    if (change->kind == CHANGE_FORGET)
        s->others_first = true;
    if (enqueue(&s->others, change) != 0) {
        s->must_rewrite = true;
        s->healthy = false; /* until it has been */
        s->retry_us = now.mono_us;
        return -1;
    }
    return 0;
}

static int enqueue(struct change_queue *queue, const struct change *change)
{
    if (queue->count == queue->capacity) {
        const size_t capacity = queue->capacity ? queue->capacity * 2 : 64;
        struct change *items = realloc(queue->items, capacity * sizeof(*items));
        if (!items)
            return -1;
        queue->items = items;
        queue->capacity = capacity;
    }
    queue->items[queue->count++] = *change;
    return 0;
}

static void sqlite_store_commit(void *state, bool busy, struct moment now)
{
    struct sqlite_store *s = state;
    const bool others_are_due = s->others.count > 0 && now.mono_us >= s->others_due_us;

    if (!s->healthy && now.mono_us < s->retry_us) {
        answer_registrations(s, STORE_UNAVAILABLE);
        return;
    }
    if (s->healthy && !others_are_due && can_wait(s, busy, now)) {
        if (s->registrations.count == 0)
            checkpoint_if_due(s, now);
        return;
    }

    const uint64_t started_us = clock_monotonic_us();
    if (flush(s, others_are_due || s->others_first || !s->healthy) != 0) {
        report_failure(s, now, clock_monotonic_us() - started_us);
        answer_registrations(s, STORE_UNAVAILABLE);
        return;
    }

    answer_registrations(s, STORE_OK);
    s->committed_us = now.mono_us;
    report_success(s);
    sqlite_file_note_commit(&s->file);
    checkpoint_if_due(s, now);
}

static bool can_wait(const struct sqlite_store *s, bool busy, struct moment now)
{
    if (s->registrations.count == 0)
        return true;
    return busy && s->registrations.count < GATHER_REGISTRATIONS &&
           now.mono_us < s->register_due_us;
}

static uint64_t sqlite_store_next_us(const void *state)
{
    const struct sqlite_store *s = state;

    if (s->registrations.count > 0)
        return 0;
    if (!s->healthy)
        return s->retry_us;
    if (s->others.count > 0)
        return s->others_due_us;
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

    /* There is nobody left to tell that it is registered. */
    s->registrations.count = 0;
    if ((s->others.count > 0 || s->must_rewrite || !s->file.db ||
         sqlite_file_was_replaced(&s->file)) &&
        flush(s, true) != 0)
        report_failure(s, now, 0);
    sqlite_file_close(&s->file);
    free(s->registrations.items);
    free(s->others.items);
    free(s->file.wal_path);
    free(s);
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

    if (sqlite3_prepare_v2(s->file.db, select, -1, &row, NULL) != SQLITE_OK)
        return sqlite_file_fail(&s->file, "cannot be read");
    while ((rc = sqlite3_step(row)) == SQLITE_ROW) {
        if (load_row(s, row, now) != 0) {
            sqlite3_finalize(row);
            return -1;
        }
    }
    sqlite3_finalize(row);
    if (rc != SQLITE_DONE)
        return sqlite_file_fail(&s->file, "cannot be read");

    snprintf(sql, sizeof(sql),
             "UPDATE clients SET cstatus = 0, since = %lld, reason = '%s' WHERE cstatus = 1",
             (long long)now, reason_word(REASON_CRASH));
    if (sqlite3_exec(s->file.db, sql, NULL, NULL, NULL) != SQLITE_OK)
        return sqlite_file_fail(&s->file, "cannot be written");
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
        snprintf(s->file.error, sizeof(s->file.error),
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

/* Makes the file what it should be, but for the others if they can wait. Returns 0, or -1 with
 * s->file.error set and the queues as they were. */
static int flush(struct sqlite_store *s, bool with_others)
{
    if (sqlite_file_was_replaced(&s->file))
        sqlite_file_close(&s->file);
    if (!s->file.db) {
        if (sqlite_file_open(&s->file) != 0)
            return -1;
        sqlite_file_trust(&s->file);
        s->must_rewrite = true; /* what it holds by now is not known */
    }
    with_others = with_others || s->must_rewrite;
    if (write_changes(s, with_others) != 0)
        return -1;
    s->must_rewrite = false;
    if (with_others) {
        s->others.count = 0;
        s->others_first = false;
    }
    return 0;
}

/* In one transaction. Returns 0, or -1 with s->file.error set and nothing written. */
static int write_changes(struct sqlite_store *s, bool with_others)
{
    if (sqlite_file_run(&s->file, SQLITE_STATEMENT_BEGIN) != 0)
        goto failed;
    if (s->must_rewrite) { /* the others are in the registry already */
        if (write_all_records(s) != 0)
            goto failed;
    } else if (with_others && write_others(s) != 0) {
        goto failed;
    }
    for (size_t i = 0; i < s->registrations.count; i++) {
        if (write_change(s, &s->registrations.items[i]) != 0)
            goto failed;
    }
    /* After a failure there may be nothing left to write, and only a write tells whether writing
     * works again. */
    if (!s->healthy && sqlite_file_run(&s->file, SQLITE_STATEMENT_TOUCH) != 0)
        goto failed;
    if (sqlite_file_run(&s->file, SQLITE_STATEMENT_COMMIT) != 0)
        goto failed;
    return 0;

failed:
    /* SQLite has rolled back by itself after some errors, and not after others. */
    if (!sqlite3_get_autocommit(s->file.db))
        sqlite3_step(s->file.prepared[SQLITE_STATEMENT_ROLLBACK]);
    sqlite3_reset(s->file.prepared[SQLITE_STATEMENT_ROLLBACK]);
    /* Rolling back needs memory as well. */
    const bool still_open = !sqlite3_get_autocommit(s->file.db);
    /* After these neither connection nor file is to be trusted: a failed fsync cannot be repeated,
     * and a constraint means that somebody else has written. The registry is the truth. */
    if (still_open || s->file.error_code == SQLITE_IOERR || s->file.error_code == SQLITE_CORRUPT ||
        s->file.error_code == SQLITE_NOTADB || s->file.error_code == SQLITE_CANTOPEN ||
        s->file.error_code == SQLITE_READONLY || s->file.error_code == SQLITE_CONSTRAINT)
        sqlite_file_close(&s->file);
    return -1;
}

static int write_others(struct sqlite_store *s)
{
    for (size_t i = 0; i < s->others.count; i++) {
        const struct change *change = &s->others.items[i];
        const struct registry_record *record = registry_by_sid(s->registry, change->sid);

        /* Back meanwhile, and registered: that was later, and is what the row says. */
        if (change->kind == CHANGE_DISCONNECT && record && record->row_connected)
            continue;
        if (write_change(s, change) != 0)
            return -1;
    }
    return 0;
}

static int write_all_records(struct sqlite_store *s)
{
    const struct registry_record *record = NULL;
    char ip[ADDRESS_TEXT_BYTES];

    if (sqlite_file_run(&s->file, SQLITE_STATEMENT_CLEAR) != 0)
        return -1;
    for (uint32_t sid = 0; (record = registry_next(s->registry, sid)) != NULL; sid = record->sid) {
        sqlite3_stmt *stmt = s->file.prepared[SQLITE_STATEMENT_INSERT];

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
        if (sqlite_file_run(&s->file, SQLITE_STATEMENT_INSERT) != 0)
            return -1;
    }
    return 0;
}

static int write_change(struct sqlite_store *s, const struct change *change)
{
    static const enum sqlite_statement by_kind[] = {
        [CHANGE_REGISTER] = SQLITE_STATEMENT_REGISTER,
        [CHANGE_DISCONNECT] = SQLITE_STATEMENT_DISCONNECT,
        [CHANGE_FORGET] = SQLITE_STATEMENT_FORGET,
    };
    sqlite3_stmt *stmt = s->file.prepared[by_kind[change->kind]];
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
    if (change->kind == CHANGE_DISCONNECT && change->rtt_us > 0)
        sqlite3_bind_double(stmt, 7, change->rtt_us / 1000.0);
    if (change->kind != CHANGE_FORGET)
        bind_text(stmt, 8, reason_word(change->reason));
    return sqlite_file_run(&s->file, by_kind[change->kind]);
}

static void answer_registrations(struct sqlite_store *s, enum store_result result)
{
    for (size_t i = 0; i < s->registrations.count; i++)
        store_push_answer(s->store, s->registrations.items[i].serial, s->registrations.items[i].sid,
                          result);
    s->registrations.count = 0;
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
              LOG_STR("error", s->file.error), LOG_NUM("waiting", s->others.count));
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

static uint64_t checkpoint_due_us(const struct sqlite_store *s)
{
    if (!s->file.db || s->file.wal_pages == 0)
        return UINT64_MAX;
    if (s->file.wal_pages >= WAL_PAGES_AT_MOST)
        return s->committed_us;
    return s->committed_us +
           (s->file.wal_pages >= WAL_PAGES_WORTH_A_PAUSE ? PAUSE_US : LONG_PAUSE_US);
}

static void checkpoint_if_due(struct sqlite_store *s, struct moment now)
{
    if (now.mono_us < checkpoint_due_us(s))
        return;
    /* PASSIVE never waits for readers. Whether it got through everything or failed, the next commit
     * says how long the WAL is, and a failure that matters will be that commit's. */
    (void)sqlite3_wal_checkpoint_v2(s->file.db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
    s->file.wal_pages = 0;
}

static void bind_text(sqlite3_stmt *stmt, int index, const char *text)
{
    /* Every statement is run before its texts go. */
    sqlite3_bind_text(stmt, index, text, -1, SQLITE_STATIC);
}
