/*
 * Rows of the tables of orders from orders and back. People may have edited them: an order that
 * makes no sense is refused, since going on with half of one could shut down the wrong machines; a
 * target that makes none is nobody's.
 */
#include "store/sqlite_orders.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_WAVES UINT8_MAX /* registry_record.order_wave */
/* There is always a next one, and JSON can say it. */
#define MAX_ID ((INT64_C(1) << 53) - 1)
/* So that nobody who adds some of these up has to think of overflows: the year 9999, and a thousand
 * years. */
#define MAX_TIME_S      INT64_C(253402300799)
#define MAX_DURATION_MS (INT64_C(1000) * 366 * 24 * 3600 * 1000)

static int load_last_order(struct sqlite_file *f, struct store_order *order);
static int load_waves(struct sqlite_file *f, struct store_order *order);
static int load_targets(struct sqlite_file *f, struct registry *registry,
                        const struct store_order *order);
static bool read_number(sqlite3_stmt *row, int column, int64_t max, int64_t *number);
static bool read_time(sqlite3_stmt *row, int column, int64_t *time);
static char *read_text(sqlite3_stmt *row, int column);
static int refuse_order(struct sqlite_file *f, const struct store_order *order);
static void bind_time(sqlite3_stmt *stmt, int index, int64_t time);

int sqlite_order_load(struct sqlite_file *f, struct registry *registry, struct store_order **order)
{
    struct store_order *found = calloc(1, sizeof(*found));

    *order = NULL;
    if (!found)
        abort(); /* out of memory while starting */
    if (load_last_order(f, found) != 0)
        goto failed;
    if (!found->by) {
        sqlite_order_free(found);
        return 0;
    }
    if (load_waves(f, found) != 0 || load_targets(f, registry, found) != 0)
        goto failed;
    *order = found;
    return 0;

failed:
    sqlite_order_free(found);
    return -1;
}

int sqlite_order_forget_strangers(struct sqlite_file *f)
{
    if (sqlite3_exec(f->db, "DELETE FROM order_targets WHERE sid NOT IN (SELECT sid FROM clients)",
                     NULL, NULL, NULL) != SQLITE_OK)
        return sqlite_file_fail(f, "cannot be written");
    return 0;
}

int sqlite_order_write(struct sqlite_file *f, const struct store_order *order)
{
    sqlite3_stmt *stmt = f->prepared[SQLITE_STATEMENT_ORDER];

    sqlite3_bind_int64(stmt, 1, order->id);
    sqlite_file_bind_text(f, SQLITE_STATEMENT_ORDER, 2, order->by);
    sqlite_file_bind_text(f, SQLITE_STATEMENT_ORDER, 3, order->state);
    sqlite3_bind_int64(stmt, 4, order->created);
    bind_time(stmt, 5, order->ended);
    sqlite3_bind_int64(stmt, 6, (int64_t)order->grace_ms);
    sqlite3_bind_int64(stmt, 7, (int64_t)order->hold_ms);
    if (sqlite_file_run(f, SQLITE_STATEMENT_ORDER) != 0)
        return -1;

    sqlite3_bind_int64(f->prepared[SQLITE_STATEMENT_CLEAR_WAVES], 1, order->id);
    if (sqlite_file_run(f, SQLITE_STATEMENT_CLEAR_WAVES) != 0)
        return -1;
    for (size_t i = 0; i < order->wave_count; i++) {
        stmt = f->prepared[SQLITE_STATEMENT_WAVE];
        sqlite3_bind_int64(stmt, 1, order->id);
        sqlite3_bind_int64(stmt, 2, (int64_t)i + 1);
        sqlite_file_bind_text(f, SQLITE_STATEMENT_WAVE, 3, order->waves[i].match);
        bind_time(stmt, 4, order->waves[i].started);
        bind_time(stmt, 5, order->waves[i].ended);
        if (sqlite_file_run(f, SQLITE_STATEMENT_WAVE) != 0)
            return -1;
    }
    return 0;
}

int sqlite_order_write_target(struct sqlite_file *f, uint32_t sid, uint8_t wave, uint8_t flags)
{
    sqlite3_stmt *stmt = f->prepared[SQLITE_STATEMENT_TARGET];

    sqlite3_bind_int64(stmt, 1, sid);
    sqlite3_bind_int(stmt, 2, wave);
    sqlite3_bind_int(stmt, 3, (flags & RECORD_TOLD) != 0);
    sqlite3_bind_int(stmt, 4, (flags & RECORD_ACKNOWLEDGED) != 0);
    sqlite3_bind_int(stmt, 5, (flags & RECORD_LATE) != 0);
    return sqlite_file_run(f, SQLITE_STATEMENT_TARGET);
}

int sqlite_order_forget_target(struct sqlite_file *f, uint32_t sid)
{
    sqlite3_bind_int64(f->prepared[SQLITE_STATEMENT_FORGET_TARGET], 1, sid);
    return sqlite_file_run(f, SQLITE_STATEMENT_FORGET_TARGET);
}

int sqlite_order_clear_targets(struct sqlite_file *f)
{
    return sqlite_file_run(f, SQLITE_STATEMENT_CLEAR_TARGETS);
}

int sqlite_order_write_all_targets(struct sqlite_file *f, const struct registry *registry,
                                   const struct store_order *order)
{
    const struct registry_record *record = NULL;

    if (sqlite_order_clear_targets(f) != 0)
        return -1;
    if (!order)
        return 0;
    for (uint32_t sid = 0; (record = registry_next(registry, sid)) != NULL; sid = record->sid) {
        /* Others have something there that an order before this one has left. */
        if (record->stored && record->order_wave > 0 && record->order_mark == (uint16_t)order->id &&
            sqlite_order_write_target(f, record->sid, record->order_wave, record->order_flags) != 0)
            return -1;
    }
    return 0;
}

struct store_order *sqlite_order_copy(const struct store_order *order)
{
    struct store_order *copy = malloc(sizeof(*copy));

    if (!copy)
        return NULL;
    *copy = *order;
    copy->by = strdup(order->by);
    copy->state = strdup(order->state);
    copy->waves = calloc(order->wave_count, sizeof(*copy->waves));
    copy->wave_count = 0;
    if (!copy->by || !copy->state || !copy->waves)
        goto failed;
    for (; copy->wave_count < order->wave_count; copy->wave_count++) {
        struct store_order_wave *wave = &copy->waves[copy->wave_count];
        *wave = order->waves[copy->wave_count];
        wave->match = strdup(wave->match);
        if (!wave->match)
            goto failed;
    }
    return copy;

failed:
    sqlite_order_free(copy);
    return NULL;
}

void sqlite_order_free(struct store_order *order)
{
    if (!order)
        return;
    for (size_t i = 0; i < order->wave_count; i++)
        free(order->waves[i].match);
    free(order->waves);
    free(order->by);
    free(order->state);
    free(order);
}

/* Into one that is all zero, and stays so if there is none. */
static int load_last_order(struct sqlite_file *f, struct store_order *order)
{
    static const char select[] = "SELECT id, by, state, created, ended, grace_ms, hold_ms"
                                 " FROM orders ORDER BY id DESC LIMIT 1";
    sqlite3_stmt *row = NULL;
    int64_t grace_ms = 0;
    int64_t hold_ms = 0;
    bool valid = true;

    if (sqlite3_prepare_v2(f->db, select, -1, &row, NULL) != SQLITE_OK)
        return sqlite_file_fail(f, "cannot be read");
    const int rc = sqlite3_step(row);
    if (rc == SQLITE_ROW) {
        order->id = sqlite3_column_int64(row, 0);
        order->by = read_text(row, 1);
        order->state = read_text(row, 2);
        valid = order->id >= 1 && order->id <= MAX_ID && order->by && order->state &&
                read_number(row, 3, MAX_TIME_S, &order->created) &&
                read_time(row, 4, &order->ended) &&
                read_number(row, 5, MAX_DURATION_MS, &grace_ms) &&
                read_number(row, 6, MAX_DURATION_MS, &hold_ms);
        order->grace_ms = (uint64_t)grace_ms;
        order->hold_ms = (uint64_t)hold_ms;
    }
    sqlite3_finalize(row);
    if (rc != SQLITE_ROW && rc != SQLITE_DONE)
        return sqlite_file_fail(f, "cannot be read");
    return valid ? 0 : refuse_order(f, order);
}

/* One row each, numbered from 1 without a gap. */
static int load_waves(struct sqlite_file *f, struct store_order *order)
{
    static const char select[] = "SELECT wave, match, started, ended FROM order_waves"
                                 " WHERE order_id = ?1 ORDER BY wave";
    sqlite3_stmt *row = NULL;
    bool valid = true;
    int rc = SQLITE_DONE;

    order->waves = calloc(MAX_WAVES, sizeof(*order->waves));
    if (!order->waves)
        abort(); /* out of memory while starting */
    if (sqlite3_prepare_v2(f->db, select, -1, &row, NULL) != SQLITE_OK)
        return sqlite_file_fail(f, "cannot be read");
    sqlite3_bind_int64(row, 1, order->id);
    while (valid && (rc = sqlite3_step(row)) == SQLITE_ROW) {
        struct store_order_wave *wave = &order->waves[order->wave_count];
        int64_t number = 0;

        valid = read_number(row, 0, MAX_WAVES, &number) && number == (int64_t)order->wave_count + 1;
        if (!valid)
            break;
        order->wave_count++;
        wave->match = read_text(row, 1);
        valid = wave->match && read_time(row, 2, &wave->started) && read_time(row, 3, &wave->ended);
    }
    sqlite3_finalize(row);
    if (valid && rc != SQLITE_DONE)
        return sqlite_file_fail(f, "cannot be read");
    return valid && order->wave_count > 0 ? 0 : refuse_order(f, order);
}

static int load_targets(struct sqlite_file *f, struct registry *registry,
                        const struct store_order *order)
{
    sqlite3_stmt *row = NULL;
    int rc;

    if (sqlite3_prepare_v2(f->db, "SELECT sid, wave, told, acknowledged, late FROM order_targets",
                           -1, &row, NULL) != SQLITE_OK)
        return sqlite_file_fail(f, "cannot be read");
    while ((rc = sqlite3_step(row)) == SQLITE_ROW) {
        struct registry_record *record = NULL;
        int64_t sid = sqlite3_column_int64(row, 0);
        int64_t wave = 0;

        if (sid >= 1 && sid <= UINT32_MAX)
            record = registry_by_sid(registry, (uint32_t)sid);
        if (!record || !read_number(row, 1, (int64_t)order->wave_count, &wave) || wave == 0)
            continue;
        record->order_mark = (uint16_t)order->id;
        record->order_wave = (uint8_t)wave;
        record->order_flags =
            (uint8_t)((sqlite3_column_int64(row, 2) != 0 ? RECORD_TOLD : 0) |
                      (sqlite3_column_int64(row, 3) != 0 ? RECORD_ACKNOWLEDGED : 0) |
                      (sqlite3_column_int64(row, 4) != 0 ? RECORD_LATE : 0));
    }
    sqlite3_finalize(row);
    return rc == SQLITE_DONE ? 0 : sqlite_file_fail(f, "cannot be read");
}

/* Is it a whole number from 0 to max? */
static bool read_number(sqlite3_stmt *row, int column, int64_t max, int64_t *number)
{
    *number = sqlite3_column_int64(row, column);
    return sqlite3_column_type(row, column) == SQLITE_INTEGER && *number >= 0 && *number <= max;
}

/* Is it a time, or NULL, which is 0? */
static bool read_time(sqlite3_stmt *row, int column, int64_t *time)
{
    *time = 0;
    return sqlite3_column_type(row, column) == SQLITE_NULL ||
           read_number(row, column, MAX_TIME_S, time);
}

/* Returns a copy, or NULL if it is NULL there. */
static char *read_text(sqlite3_stmt *row, int column)
{
    const char *text = (const char *)sqlite3_column_text(row, column);
    char *copy = text ? strdup(text) : NULL;

    if (text && !copy)
        abort(); /* out of memory while starting */
    return copy;
}

static int refuse_order(struct sqlite_file *f, const struct store_order *order)
{
    snprintf(f->error, sizeof(f->error),
             "has an order (id %lld) that is none; restore a copy, or delete its row in orders and"
             " all of order_targets",
             (long long)order->id);
    return -1;
}

static void bind_time(sqlite3_stmt *stmt, int index, int64_t time)
{
    if (time != 0)
        sqlite3_bind_int64(stmt, index, time);
}
