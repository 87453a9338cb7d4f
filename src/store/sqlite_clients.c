/* Rows of the table of clients from records and back. What makes no sense in it is dropped. */
#include "store/sqlite_clients.h"

#include "base/log.h"
#include "cliser/proto.h"
#include "registry/credential_name.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* More than any file of ours has: sids are given from the lowest, and the registry makes room up to
 * the highest. */
#define MAX_SID    (INT64_C(1) << 26)
#define MAX_RTT_MS 4e6 /* rtt_us has 32 bits */

static bool load_row(struct registry *registry, sqlite3_stmt *row, int64_t now);

int sqlite_clients_load(struct sqlite_file *f, struct registry *registry, int64_t now,
                        struct senseless_rows *senseless)
{
    static const char select[] = "SELECT sid, cid, cip, cport, cstatus, since, last_seen, rtt_ms,"
                                 " reason, credential FROM clients";
    sqlite3_stmt *row = NULL;
    int rc;

    if (sqlite3_prepare_v2(f->db, select, -1, &row, NULL) != SQLITE_OK)
        return sqlite_file_fail(f, "cannot be read");
    senseless->count = 0;
    while ((rc = sqlite3_step(row)) == SQLITE_ROW && senseless->count < MAX_SENSELESS_ROWS) {
        if (!load_row(registry, row, now))
            senseless->sids[senseless->count++] = sqlite3_column_int64(row, 0);
    }
    sqlite3_finalize(row);
    if (rc != SQLITE_DONE && rc != SQLITE_ROW)
        return sqlite_file_fail(f, "cannot be read");
    if (senseless->count < MAX_SENSELESS_ROWS)
        return 0;
    snprintf(f->error, sizeof(f->error), "has many rows that are no clients");
    return sqlite_file_note_damage(f);
}

int sqlite_clients_drop(struct sqlite_file *f, const struct senseless_rows *senseless)
{
    for (size_t i = 0; i < senseless->count; i++) {
        sqlite3_bind_int64(f->prepared[SQLITE_STATEMENT_FORGET], 1, senseless->sids[i]);
        if (sqlite_file_run(f, SQLITE_STATEMENT_FORGET) != 0)
            return -1;
        log_event(LOG_LEVEL_ERROR, "registry_row_dropped", LOG_STR("path", f->path),
                  LOG_NUM("sid", senseless->sids[i]));
    }
    return 0;
}

int sqlite_clients_write_crashed(struct sqlite_file *f, int64_t now)
{
    char sql[128];

    snprintf(sql, sizeof(sql),
             "UPDATE clients SET cstatus = 0, since = %lld, reason = '%s' WHERE cstatus = 1",
             (long long)now, reason_word(REASON_CRASH));
    if (sqlite3_exec(f->db, sql, NULL, NULL, NULL) != SQLITE_OK)
        return sqlite_file_fail(f, "cannot be written");
    return 0;
}

int sqlite_clients_write(struct sqlite_file *f, const struct change *change, const char *node)
{
    static const enum sqlite_statement by_kind[] = {
        [CHANGE_REGISTER] = SQLITE_STATEMENT_REGISTER,
        [CHANGE_DISCONNECT] = SQLITE_STATEMENT_DISCONNECT,
        [CHANGE_FORGET] = SQLITE_STATEMENT_FORGET,
    };
    const enum sqlite_statement statement = by_kind[change->kind];
    sqlite3_stmt *stmt = f->prepared[statement];
    char ip[ADDRESS_TEXT_BYTES];

    sqlite3_bind_int64(stmt, 1, change->sid);
    if (change->kind == CHANGE_REGISTER) {
        sqlite_file_bind_text(f, statement, 2, change->cid);
        sqlite_file_bind_text(f, statement, 3, peer_address_format(&change->peer, ip));
        sqlite3_bind_int(stmt, 4, change->peer.port);
        sqlite_file_bind_text(f, statement, 9, node);
        sqlite_file_bind_text(f, statement, 11, credential_name(change->credential));
    }
    if (change->kind != CHANGE_FORGET) {
        sqlite3_bind_int64(stmt, 5, change->since);
        sqlite3_bind_int64(stmt, 6, change->last_seen);
    }
    if (change->kind == CHANGE_DISCONNECT && change->rtt_us > 0)
        sqlite3_bind_double(stmt, 7, change->rtt_us / 1000.0);
    if (change->kind != CHANGE_FORGET)
        sqlite_file_bind_text(f, statement, 8, reason_word(change->reason));
    return sqlite_file_run(f, statement);
}

int sqlite_clients_write_all(struct sqlite_file *f, const struct registry *registry,
                             const char *node)
{
    const struct registry_record *record = NULL;
    char ip[ADDRESS_TEXT_BYTES];

    if (sqlite_file_run(f, SQLITE_STATEMENT_CLEAR) != 0)
        return -1;
    for (uint32_t sid = 0; (record = registry_next(registry, sid)) != NULL; sid = record->sid) {
        sqlite3_stmt *stmt = f->prepared[SQLITE_STATEMENT_INSERT];

        if (!record->stored)
            continue; /* its registration is still to come */
        sqlite3_bind_int64(stmt, 1, record->sid);
        sqlite_file_bind_text(f, SQLITE_STATEMENT_INSERT, 2, record->cid);
        sqlite_file_bind_text(f, SQLITE_STATEMENT_INSERT, 3,
                              peer_address_format(&record->peer, ip));
        sqlite3_bind_int(stmt, 4, record->peer.port);
        sqlite3_bind_int64(stmt, 5, record->since);
        sqlite3_bind_int64(stmt, 6, record->last_seen);
        if (record->rtt_us > 0)
            sqlite3_bind_double(stmt, 7, record->rtt_us / 1000.0);
        sqlite_file_bind_text(f, SQLITE_STATEMENT_INSERT, 8, reason_word(record->reason));
        sqlite_file_bind_text(f, SQLITE_STATEMENT_INSERT, 9, node);
        sqlite3_bind_int(stmt, 10, record->connected);
        sqlite_file_bind_text(f, SQLITE_STATEMENT_INSERT, 11, credential_name(record->credential));
        if (sqlite_file_run(f, SQLITE_STATEMENT_INSERT) != 0)
            return -1;
    }
    return 0;
}

/* Returns false for a row that is no client. */
static bool load_row(struct registry *registry, sqlite3_stmt *row, int64_t now)
{
    const int64_t sid = sqlite3_column_int64(row, 0);
    const int64_t cport = sqlite3_column_int64(row, 3);
    const double rtt_ms = sqlite3_column_double(row, 7);
    const char *cid = (const char *)sqlite3_column_text(row, 1);
    const char *cip = (const char *)sqlite3_column_text(row, 2);
    const char *reason = (const char *)sqlite3_column_text(row, 8);
    const char *credential = (const char *)sqlite3_column_text(row, 9);
    const bool makes_sense =
        sid >= 1 && sid <= MAX_SID && cid && proto_id_valid(cid, strlen(cid)) && cport >= 0 &&
        cport <= UINT16_MAX && rtt_ms >= 0 && rtt_ms < MAX_RTT_MS &&
        !registry_find(registry, cid, strlen(cid)) && !registry_by_sid(registry, (uint32_t)sid);

    if (!makes_sense)
        return false;
    struct registry_record *record = registry_restore(registry, (uint32_t)sid, cid, strlen(cid));
    if (!record)
        abort(); /* out of memory while starting */
    peer_address_parse(&record->peer, cip ? cip : "", (uint16_t)cport);
    record->since = sqlite3_column_int64(row, 5);
    record->last_seen = sqlite3_column_int64(row, 6);
    record->rtt_us = (uint32_t)(rtt_ms * 1000.0);
    record->reason = (uint8_t)reason_parse(reason ? reason : "");
    if (credential && credential_name_valid(credential, strlen(credential)))
        record->credential = credential_name_number(credential);
    if (sqlite3_column_int(row, 4) != 0)
        registry_disconnect(registry, record, REASON_CRASH, now);
    return true;
}
