/*
 * The store in one SQLite file (WAL): all registrations of some turns are one transaction, and so
 * are all other changes of some more. Decides when changes are due, and how to come back from a
 * full disk or a broken file: what could not be written is kept, and after the file had to be
 * opened anew everything is written again from the registry. There is exactly one connection that
 * writes; everybody else opens the file read-only. How rows look is the business of
 * sqlite_clients.c and sqlite_orders.c.
 */
#include "store/backend.h"

#include "base/log.h"
#include "store/sqlite_clients.h"
#include "store/sqlite_file.h"
#include "store/sqlite_orders.h"

#include <sqlite3.h>

#include <assert.h>
#include <limits.h>
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
/* And so many are company enough: what is more waits for the next turn, so that no commit holds the
 * loop up for long, however many clients leave at once. Measured with 15000 clients that are told,
 * acknowledge and leave in one moment: 1.6 ms a commit, 5 ms the longest (rows in random order),
 * and 75 ms until all is written; with 4000 it is 9 ms the longest and 60 ms in all. */
#define OTHERS_AT_ONCE 1500
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
/* In the order in which they happened. */
struct change_queue {
    struct change *items;
    size_t first; /* of the count that wait; what is before it is written */
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
    uint64_t others_due_us;     /* when the oldest of them must be durable; 0: at once */
    size_t others_first;        /* so many before any registration: it may need what they free */

    struct change_queue order_saves; /* to be answered */
    const struct store_order *order; /* the last one, loaded or given; NULL if there is none */
    bool order_is_dirty;             /* it is not what the file says */
    int64_t targets_of;              /* the id of the order whose targets the file has */
    struct store_order *loaded;      /* ours */
    struct store_order **superseded; /* ours: copies of those that another order came after */
    size_t superseded_count;         /* before they could be written */

    bool healthy;
    bool must_rewrite; /* the file may lack changes: write all records again */
    uint64_t retry_us; /* while not healthy: no try before */
    uint64_t pause_us; /* the last pause between two tries; 0 while healthy */
    uint64_t logged_us;
    bool failure_is_logged; /* so its end is to be as well */

    uint64_t committed_us;
    struct store_stats stats;
};

/* What is to be written in one transaction. */
struct batch {
    bool everything;    /* the whole registry, in which the others are already */
    size_t others;      /* the first of them, or all */
    bool registrations; /* all of them */
};

static void *sqlite_store_open(struct store *store, const struct store_options *options,
                               struct registry *registry, char *message, size_t message_size);
static int sqlite_store_take(void *state, const struct change *change, struct moment now);
static void sqlite_store_commit(void *state, bool busy, struct moment now);
static uint64_t sqlite_store_next_us(const void *state);
static bool sqlite_store_healthy(const void *state);
static const struct store_order *sqlite_store_order(const void *state);
static const struct store_stats *sqlite_store_stats(void *state);
static void sqlite_store_close(void *state, struct moment now);

static int open_and_load(struct sqlite_store *s);
static int load(struct sqlite_store *s);
static int reopen(struct sqlite_store *s);
static int set_aside(struct sqlite_store *s);
static int take_order(struct sqlite_store *s, const struct change *change);
static int keep_superseded(struct sqlite_store *s);
static int enqueue(struct change_queue *queue, const struct change *change);
static void drop_first(struct change_queue *queue, size_t count);
static bool others_are_due(const struct sqlite_store *s, struct moment now);
static bool can_wait(const struct sqlite_store *s, bool busy, struct moment now);
static size_t count_waiting(const struct sqlite_store *s);
static int flush(struct sqlite_store *s, bool with_others);
static struct batch plan(const struct sqlite_store *s, bool with_others);
static int write_batch(struct sqlite_store *s, const struct batch *batch);
static int write_orders(struct sqlite_store *s, bool everything);
static int write_others(struct sqlite_store *s, size_t count);
static int write_other(struct sqlite_store *s, const struct change *change);
static void settle(struct sqlite_store *s, const struct batch *batch);
static void free_superseded(struct sqlite_store *s);
static void answer(struct sqlite_store *s, struct change_queue *queue, enum store_result result);
static void report_failure(struct sqlite_store *s, struct moment now, uint64_t took_us);
static void report_success(struct sqlite_store *s);
static uint64_t checkpoint_due_us(const struct sqlite_store *s);
static void checkpoint_if_due(struct sqlite_store *s, struct moment now);

const struct store_backend store_sqlite = {
    .open = sqlite_store_open,
    .take = sqlite_store_take,
    .commit = sqlite_store_commit,
    .next_us = sqlite_store_next_us,
    .healthy = sqlite_store_healthy,
    .order = sqlite_store_order,
    .stats = sqlite_store_stats,
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
    if (open_and_load(s) != 0 &&
        (!s->file.is_damaged || set_aside(s) != 0 || open_and_load(s) != 0)) {
        snprintf(message, message_size, "%s: %s", options->path, s->file.error);
        sqlite_file_close(&s->file);
        sqlite_order_free(s->loaded);
        free(s->file.wal_path);
        free(s);
        return NULL;
    }
    return s;
}

static int sqlite_store_take(void *state, const struct change *change, struct moment now)
{
    struct sqlite_store *s = state;

    if (change->kind == CHANGE_ORDER)
        return take_order(s, change);
    if (change->kind == CHANGE_REGISTER) {
        if (s->registrations.count == 0)
            s->register_due_us = now.mono_us + GATHER_REGISTRATIONS_US;
        return enqueue(&s->registrations, change);
    }
    if (s->others.count == 0)
        s->others_due_us = now.mono_us + GATHER_US;
    if (enqueue(&s->others, change) != 0) {
        s->must_rewrite = true;
        s->healthy = false; /* until it has been */
        s->retry_us = now.mono_us;
        return -1;
    }
    /* Who was told and has understood is on disk before its machine can be down, or the next server
     * would wait for it to come back, to be told. */
    if (change->kind == CHANGE_TARGET)
        s->others_due_us = 0;
    /* The ID or the sid of a forgotten client may be the next one's. */
    if (change->kind == CHANGE_FORGET)
        s->others_first = s->others.count;
    return 0;
}

static void sqlite_store_commit(void *state, bool busy, struct moment now)
{
    struct sqlite_store *s = state;
    const bool with_others = others_are_due(s, now);

    if (!s->healthy && now.mono_us < s->retry_us) {
        answer(s, &s->order_saves, STORE_UNAVAILABLE);
        answer(s, &s->registrations, STORE_UNAVAILABLE);
        return;
    }
    if (s->healthy && !with_others && can_wait(s, busy, now)) {
        if (s->registrations.count == 0)
            checkpoint_if_due(s, now);
        return;
    }

    const uint64_t started_us = clock_monotonic_us();
    int result = flush(s, with_others || !s->healthy);
    /* Whoever registers in this turn and the next ones need not pay for one allocation that found
     * no memory: it may be there again. */
    if (result != 0 && s->file.error_code == SQLITE_NOMEM)
        result = flush(s, with_others || !s->healthy);
    const uint64_t took_us = clock_monotonic_us() - started_us;
    if (result != 0) {
        report_failure(s, now, took_us);
        answer(s, &s->order_saves, STORE_UNAVAILABLE);
        answer(s, &s->registrations, STORE_UNAVAILABLE);
        return;
    }

    s->stats.commits++;
    duration_histogram_record(&s->stats.commit, took_us);
    s->committed_us = now.mono_us;
    report_success(s);
    sqlite_file_note_commit(&s->file);
    checkpoint_if_due(s, now);
}

static uint64_t sqlite_store_next_us(const void *state)
{
    const struct sqlite_store *s = state;

    if (s->registrations.count > 0 || s->order_saves.count > 0)
        return 0;
    if (!s->healthy)
        return s->retry_us;
    if (s->order_is_dirty || s->others.count >= OTHERS_AT_ONCE)
        return 0;
    if (s->others.count > 0)
        return s->others_due_us;
    return checkpoint_due_us(s);
}

static bool sqlite_store_healthy(const void *state)
{
    const struct sqlite_store *s = state;

    return s->healthy;
}

static const struct store_order *sqlite_store_order(const void *state)
{
    const struct sqlite_store *s = state;

    return s->loaded;
}

static const struct store_stats *sqlite_store_stats(void *state)
{
    struct sqlite_store *s = state;

    s->stats.waiting = count_waiting(s);
    return &s->stats;
}

static void sqlite_store_close(void *state, struct moment now)
{
    struct sqlite_store *s = state;
    bool must_write = s->must_rewrite || !s->file.db || sqlite_file_was_replaced(&s->file);

    /* There is nobody left to tell that it is registered. */
    s->registrations.count = 0;
    s->order_saves.count = 0;
    while (must_write || count_waiting(s) > 0) {
        if (flush(s, true) != 0) {
            report_failure(s, now, 0);
            break;
        }
        must_write = false;
    }
    sqlite_file_close(&s->file);
    free_superseded(s);
    free(s->superseded);
    sqlite_order_free(s->loaded);
    free(s->registrations.items);
    free(s->others.items);
    free(s->order_saves.items);
    free(s->file.wal_path);
    free(s);
}

/* Returns 0, or -1 with s->file.error set, the file closed and nobody known. */
static int open_and_load(struct sqlite_store *s)
{
    struct registry_record *record;

    if (sqlite_file_open(&s->file) == 0 && load(s) == 0 && sqlite_file_trust(&s->file) == 0)
        return 0;
    sqlite_file_close(&s->file);
    /* What was taken from it so far may be as wrong as the rest. */
    while ((record = registry_next(s->registry, 0)) != NULL)
        registry_remove(s->registry, record);
    sqlite_order_free(s->loaded);
    s->loaded = NULL;
    s->order = NULL;
    s->targets_of = 0;
    return -1;
}

/* At start: everyone the file knows, disconnected until they come back, and the last order. All is
 * read before anything is written: a file that is refused is to stay as it is. */
static int load(struct sqlite_store *s)
{
    const int64_t now = clock_wall_ms() / 1000;
    struct senseless_rows senseless;

    if (sqlite_clients_load(&s->file, s->registry, now, &senseless) != 0 ||
        sqlite_order_load(&s->file, s->registry, &s->loaded) != 0)
        return -1;
    s->order = s->loaded;
    s->targets_of = s->loaded ? s->loaded->id : 0;
    if (sqlite_clients_drop(&s->file, &senseless) != 0 ||
        sqlite_clients_write_crashed(&s->file, now) != 0)
        return -1;
    return sqlite_order_forget_strangers(&s->file);
}

/* While running: all that it should hold is in the registry, so it need not be read. */
static int reopen(struct sqlite_store *s)
{
    if (sqlite_file_open(&s->file) != 0 &&
        (!s->file.is_damaged || set_aside(s) != 0 || sqlite_file_open(&s->file) != 0))
        return -1;
    return sqlite_file_trust(&s->file);
}

/*
 * A damaged registry must not keep the server from doing what it is there for: who comes is
 * registered in a new one, and the old one is kept for whoever can read something from it. At the
 * start, an order that was under way in it tells nobody any more.
 */
static int set_aside(struct sqlite_store *s)
{
    char name[PATH_MAX];
    char why[SQLITE_FILE_ERROR_BYTES];

    snprintf(why, sizeof(why), "%s", s->file.error);
    if (sqlite_file_set_aside(&s->file, name, sizeof(name)) != 0)
        return -1;
    s->stats.set_aside++;
    log_event(LOG_LEVEL_ERROR, "registry_set_aside", LOG_STR("path", s->options->path),
              LOG_STR("error", why), LOG_STR("to", name));
    return 0;
}

static int take_order(struct sqlite_store *s, const struct change *change)
{
    assert(!s->order || change->order->id >= s->order->id);
    const bool is_new = !s->order || s->order->id != change->order->id;

    if (is_new && s->order_is_dirty && keep_superseded(s) != 0)
        return -1;
    const int result = change->serial != 0 ? enqueue(&s->order_saves, change) : 0;
    if (is_new && result != 0)
        return -1;
    /* Without memory for an answer, what has changed is written all the same. */
    s->order = change->order;
    s->order_is_dirty = true;
    return result;
}

/* The order may go once another one has come, and is still to be written. */
static int keep_superseded(struct sqlite_store *s)
{
    struct store_order **orders =
        realloc(s->superseded, (s->superseded_count + 1) * sizeof(struct store_order *));

    if (!orders)
        return -1;
    s->superseded = orders;
    orders[s->superseded_count] = sqlite_order_copy(s->order);
    if (!orders[s->superseded_count])
        return -1;
    s->superseded_count++;
    return 0;
}

static int enqueue(struct change_queue *queue, const struct change *change)
{
    if (queue->first + queue->count == queue->capacity && queue->first > queue->count) {
        /* Each is moved once at most for each that was written. */
        memmove(queue->items, queue->items + queue->first, queue->count * sizeof(*queue->items));
        queue->first = 0;
    } else if (queue->first + queue->count == queue->capacity) {
        const size_t capacity = queue->capacity ? queue->capacity * 2 : 64;
        struct change *items = realloc(queue->items, capacity * sizeof(*items));
        if (!items)
            return -1;
        queue->items = items;
        queue->capacity = capacity;
    }
    queue->items[queue->first + queue->count++] = *change;
    return 0;
}

static void drop_first(struct change_queue *queue, size_t count)
{
    queue->first += count;
    queue->count -= count;
    if (queue->count == 0)
        queue->first = 0;
}

static bool others_are_due(const struct sqlite_store *s, struct moment now)
{
    return s->others.count >= OTHERS_AT_ONCE ||
           (s->others.count > 0 && now.mono_us >= s->others_due_us);
}

static bool can_wait(const struct sqlite_store *s, bool busy, struct moment now)
{
    if (s->order_saves.count > 0 || s->order_is_dirty)
        return false;
    if (s->registrations.count == 0)
        return true;
    return busy && s->registrations.count < GATHER_REGISTRATIONS &&
           now.mono_us < s->register_due_us;
}

static size_t count_waiting(const struct sqlite_store *s)
{
    return s->registrations.count + s->others.count + s->superseded_count + s->order_is_dirty;
}

/* Makes the file what it should be, but for others that can wait. Returns 0, or -1 with
 * s->file.error set and everything still to be written. */
static int flush(struct sqlite_store *s, bool with_others)
{
    s->file.error_code = SQLITE_OK;
    if (sqlite_file_was_replaced(&s->file))
        sqlite_file_close(&s->file);
    if (!s->file.db) {
        if (reopen(s) != 0)
            return -1;
        s->must_rewrite = true; /* what it holds by now is not known */
    }

    const struct batch batch = plan(s, with_others);
    if (write_batch(s, &batch) != 0)
        return -1;
    settle(s, &batch);
    return 0;
}

static struct batch plan(const struct sqlite_store *s, bool with_others)
{
    struct batch batch = {.everything = s->must_rewrite};

    if (batch.everything)
        batch.others = s->others.count;
    else if (with_others || s->others_first > 0)
        batch.others = s->others.count < OTHERS_AT_ONCE ? s->others.count : OTHERS_AT_ONCE;
    batch.registrations = batch.others >= s->others_first;
    return batch;
}

/* In one transaction. Returns 0, or -1 with s->file.error set and nothing written. */
static int write_batch(struct sqlite_store *s, const struct batch *batch)
{
    if (sqlite_file_run(&s->file, SQLITE_STATEMENT_BEGIN) != 0)
        goto failed;
    /* Before the others: a new order removes the targets of the last one. */
    if (write_orders(s, batch->everything) != 0)
        goto failed;
    if (batch->everything) {
        if (sqlite_clients_write_all(&s->file, s->registry, s->options->node) != 0)
            goto failed;
    } else if (write_others(s, batch->others) != 0) {
        goto failed;
    }
    for (size_t i = 0; batch->registrations && i < s->registrations.count; i++) {
        if (sqlite_clients_write(&s->file, &s->registrations.items[i], s->options->node) != 0)
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

static int write_orders(struct sqlite_store *s, bool everything)
{
    for (size_t i = 0; i < s->superseded_count; i++) {
        if (sqlite_order_write(&s->file, s->superseded[i]) != 0)
            return -1;
    }
    if (s->order && (s->order_is_dirty || everything) &&
        sqlite_order_write(&s->file, s->order) != 0)
        return -1;
    if (everything)
        return sqlite_order_write_all_targets(&s->file, s->registry, s->order);
    if (s->order && s->order->id != s->targets_of)
        return sqlite_order_clear_targets(&s->file);
    return 0;
}

static int write_others(struct sqlite_store *s, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (write_other(s, &s->others.items[s->others.first + i]) != 0)
            return -1;
    }
    return 0;
}

static int write_other(struct sqlite_store *s, const struct change *change)
{
    const struct registry_record *record = NULL;

    switch ((enum change_kind)change->kind) {
    case CHANGE_TARGET:
        /* Another order has come meanwhile: its targets are others. */
        if (!s->order || change->serial != (uint64_t)s->order->id)
            return 0;
        return sqlite_order_write_target(&s->file, change->sid, change->order_wave,
                                         change->order_flags);
    case CHANGE_FORGET:
        if (sqlite_order_forget_target(&s->file, change->sid) != 0)
            return -1;
        break;
    case CHANGE_DISCONNECT:
        /* Back meanwhile, and registered: that was later, and is what the row says. */
        record = registry_by_sid(s->registry, change->sid);
        if (record && record->row_connected)
            return 0;
        break;
    case CHANGE_REGISTER:
    case CHANGE_ORDER:
        break; /* are in queues of their own */
    }
    return sqlite_clients_write(&s->file, change, s->options->node);
}

/* The batch is durable. */
static void settle(struct sqlite_store *s, const struct batch *batch)
{
    s->must_rewrite = false;
    drop_first(&s->others, batch->others);
    if (batch->others > 0)
        s->others_due_us = 0; /* the rest has waited for its turn only */
    s->others_first -= batch->registrations ? s->others_first : batch->others;

    free_superseded(s);
    s->order_is_dirty = false;
    s->targets_of = s->order ? s->order->id : 0;

    answer(s, &s->order_saves, STORE_OK);
    if (batch->registrations)
        answer(s, &s->registrations, STORE_OK);
}

static void free_superseded(struct sqlite_store *s)
{
    for (size_t i = 0; i < s->superseded_count; i++)
        sqlite_order_free(s->superseded[i]);
    s->superseded_count = 0;
}

static void answer(struct sqlite_store *s, struct change_queue *queue, enum store_result result)
{
    for (size_t i = 0; i < queue->count; i++)
        store_push_answer(s->store, queue->items[i].serial, queue->items[i].sid, result);
    queue->count = 0;
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
    s->stats.failures++;
    s->healthy = false;
    s->retry_us = now.mono_us + took_us + s->pause_us;
    if (s->logged_us != 0 && now.mono_us - s->logged_us < LOG_EVERY_US)
        return;
    s->logged_us = now.mono_us;
    s->failure_is_logged = true;
    log_event(LOG_LEVEL_ERROR, "store_failed", LOG_STR("path", s->options->path),
              LOG_STR("error", s->file.error),
              LOG_NUM("waiting", count_waiting(s) - s->registrations.count));
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

    const uint64_t started_us = clock_monotonic_us();
    /* PASSIVE never waits for readers. Whether it got through everything or failed, the next commit
     * says how long the WAL is, and a failure that matters will be that commit's. */
    (void)sqlite3_wal_checkpoint_v2(s->file.db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
    duration_histogram_record(&s->stats.checkpoint, clock_monotonic_us() - started_us);
    s->file.wal_pages = 0;
}
