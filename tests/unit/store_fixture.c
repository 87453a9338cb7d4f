/* The fixture of the tests of the store: what a session and a server do with one, and what others
 * see in its file. */
#include "store_fixture.h"

#include "base/hash.h"
#include "registry/credential_name.h"

#include <glob.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const struct peer_address peer = {.family = AF_INET, .ip = {192, 0, 2, 7}, .port = 40000};

int store_kinds[] = {[STORE_SQLITE] = STORE_SQLITE, [STORE_MEMORY] = STORE_MEMORY};

/* ---- the fixture ---- */

uint16_t credential_of(const char *cid)
{
    char name[CREDENTIAL_NAME_MAX_BYTES + 1];

    snprintf(name, sizeof(name), "credential-%zu", strlen(cid) % 2);
    return credential_name_number(name);
}

void on_answer(void *user, const struct store_answer *answer, struct moment now)
{
    struct fixture *f = user;
    struct registry_record *record = registry_by_sid(f->registry, answer->sid);

    assert_true(f->in_turn);
    assert_true(now.mono_us == f->now.mono_us);
    assert_true(f->answered < MAX_ANSWERS);
    f->answers[f->answered++] = *answer;
    if (answer->sid == 0) { /* an order's */
        if (f->hook)
            f->hook(f, answer);
        return;
    }
    assert_non_null(record);
    record->claims--;
    if (answer->result == STORE_OK) {
        record->stored = record->row_connected = true;
        registry_connect(f->registry, record, &peer, credential_of(record->cid),
                         now.wall_ms / 1000);
    }
    if (f->hook)
        f->hook(f, answer);
    if (!record->stored && record->claims == 0)
        registry_remove(f->registry, record);
}

void open_store(struct fixture *f)
{
    f->registry = registry_new();
    f->store = store_open(&f->options, f->registry, on_answer, f, f->message, sizeof(f->message));
    if (!f->store)
        fail_msg("%s", f->message);
}

void close_store(struct fixture *f)
{
    store_close(f->store, f->now);
    registry_free(f->registry);
    f->store = NULL;
    f->registry = NULL;
}

void reopen_store(struct fixture *f)
{
    close_store(f);
    open_store(f);
}

void refuse_to_open(struct fixture *f)
{
    struct registry *registry = registry_new();

    f->message[0] = '\0';
    if (store_open(&f->options, registry, on_answer, f, f->message, sizeof(f->message)))
        fail_msg("was opened");
    assert_non_null(strstr(f->message, f->path));
    assert_true(strlen(f->message) > strlen(f->path) + 10);
    registry_free(registry);
}

static struct fixture *new_fixture(int kind)
{
    struct fixture *f = calloc(1, sizeof(*f));

    if (!f)
        abort();
    snprintf(f->dir, sizeof(f->dir), "%s/cliser-test-store-XXXXXX", P_tmpdir);
    if (!mkdtemp(f->dir))
        abort();
    snprintf(f->path, sizeof(f->path), "%s/registry.db", f->dir);
    f->options = (struct store_options){.kind = kind, .path = f->path, .node = "node-a"};
    f->now = (struct moment){.mono_us = START_US, .wall_ms = START_S * 1000};
    return f;
}

int setup(void **state)
{
    struct fixture *f = new_fixture(*(int *)*state);

    open_store(f);
    *state = f;
    return 0;
}

int setup_closed(void **state)
{
    *state = new_fixture(STORE_SQLITE);
    return 0;
}

int teardown(void **state)
{
    static const char *const suffixes[] = {"",           "-wal",  "-shm",      "-journal", ".other",
                                           ".other-wal", ".copy", ".copy-wal", ".copy-shm"};
    struct fixture *f = *state;
    char path[128];

    store_close(f->store, f->now);
    registry_free(f->registry);
    for (size_t i = 0; i < COUNT(suffixes); i++) {
        snprintf(path, sizeof(path), "%s%s", f->path, suffixes[i]);
        (void)remove(path);
    }
    if (rmdir(f->dir) != 0)
        print_message("%s is not empty\n", f->dir);
    free(f);
    return 0;
}

void turn(struct fixture *f)
{
    f->in_turn = true;
    store_turn(f->store, f->busy, f->now);
    f->in_turn = false;
}

void advance_us(struct fixture *f, uint64_t us)
{
    f->now.mono_us += us;
    f->now.wall_ms = START_S * 1000 + (int64_t)((f->now.mono_us - START_US) / 1000);
}

void idle_us(struct fixture *f, uint64_t us)
{
    const uint64_t end_us = f->now.mono_us + us;
    uint64_t next_us;
    int wakes = 0;

    while ((next_us = store_next_us(f->store)) <= end_us) {
        if (next_us > f->now.mono_us)
            advance_us(f, next_us - f->now.mono_us);
        turn(f);
        if (++wakes > 1000)
            fail_msg("the store does not let the server sleep");
    }
    advance_us(f, end_us - f->now.mono_us);
}

struct registry_record *record_of(struct fixture *f, const char *cid)
{
    return registry_find(f->registry, cid, strlen(cid));
}

uint64_t claim_from(struct fixture *f, const char *cid, const struct peer_address *from)
{
    struct registry_record *record = record_of(f, cid);

    if (!record)
        record = registry_find_or_add(f->registry, cid, strlen(cid));
    assert_non_null(record);
    record->claims++;
    assert_int_equal(
        store_register(f->store, record, from, credential_of(cid), ++f->serial, f->now), 0);
    return f->serial;
}

uint64_t claim(struct fixture *f, const char *cid)
{
    return claim_from(f, cid, &peer);
}

enum store_result last_result(struct fixture *f)
{
    assert_true(f->answered > 0);
    return f->answers[f->answered - 1].result;
}

enum store_result enter(struct fixture *f, const char *cid)
{
    const uint64_t serial = claim(f, cid);
    const size_t before = f->answered;

    turn(f);
    assert_int_equal(f->answered, before + 1);
    assert_true(f->answers[before].serial == serial);
    return last_result(f);
}

void leave(struct fixture *f, const char *cid, enum reason reason)
{
    struct registry_record *record = record_of(f, cid);

    assert_non_null(record);
    record->last_seen = f->now.wall_ms / 1000;
    record->row_connected = false;
    registry_disconnect(f->registry, record, reason, f->now.wall_ms / 1000);
    store_disconnect(f->store, record, f->now);
}

void forget(struct fixture *f, const char *cid)
{
    struct registry_record *record = record_of(f, cid);

    assert_non_null(record);
    store_forget(f->store, record, f->now);
    registry_remove(f->registry, record);
}

/* ---- the file, seen by others ---- */

static sqlite3 *open_watcher(const char *path)
{
    sqlite3 *db = NULL;

    if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL) != SQLITE_OK)
        fail_msg("%s", sqlite3_errmsg(db));
    return db;
}

static int64_t number_from(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *stmt = NULL;
    int64_t number;

    if (sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) != SQLITE_OK)
        fail_msg("%s: %s", sql, sqlite3_errmsg(db));
    if (sqlite3_step(stmt) != SQLITE_ROW)
        fail_msg("%s: %s", sql, sqlite3_errmsg(db));
    number = sqlite3_column_int64(stmt, 0);
    sqlite3_finalize(stmt);
    return number;
}

int64_t number_in(const char *path, const char *sql)
{
    sqlite3 *db = open_watcher(path);
    const int64_t number = number_from(db, sql);

    sqlite3_close(db);
    return number;
}

int64_t number(struct fixture *f, const char *sql)
{
    return number_in(f->path, sql);
}

void execute_in(const char *path, const char *sql)
{
    sqlite3 *db = NULL;
    char *error = NULL;

    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    if (sqlite3_exec(db, sql, NULL, NULL, &error) != SQLITE_OK)
        fail_msg("%s", error);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

void check_file_is_the_registry(struct fixture *f)
{
    sqlite3 *db = open_watcher(f->path);
    sqlite3_stmt *row = NULL;
    size_t rows = 0;
    size_t stored = 0;
    char ip[ADDRESS_TEXT_BYTES];

    assert_int_equal(sqlite3_prepare_v2(db,
                                        "SELECT sid, cid, cip, cport, cstatus, since, last_seen,"
                                        " rtt_ms, reason, node, credential FROM clients",
                                        -1, &row, NULL),
                     SQLITE_OK);
    while (sqlite3_step(row) == SQLITE_ROW) {
        const struct registry_record *record =
            registry_by_sid(f->registry, (uint32_t)sqlite3_column_int64(row, 0));
        assert_non_null(record);
        assert_true(record->stored);
        assert_string_equal(sqlite3_column_text(row, 1), record->cid);
        assert_string_equal(sqlite3_column_text(row, 2), peer_address_format(&record->peer, ip));
        assert_int_equal(sqlite3_column_int(row, 3), record->peer.port);
        assert_int_equal(sqlite3_column_int(row, 4), record->connected);
        assert_int_equal(sqlite3_column_int64(row, 5), record->since);
        assert_int_equal(sqlite3_column_int64(row, 6), record->last_seen);
        assert_string_equal(sqlite3_column_text(row, 8), reason_word(record->reason));
        assert_string_equal(sqlite3_column_text(row, 9), f->options.node);
        assert_string_equal(sqlite3_column_text(row, 10), credential_name(record->credential));
        rows++;
    }
    sqlite3_finalize(row);
    sqlite3_close(db);
    for (const struct registry_record *r = registry_next(f->registry, 0); r;
         r = registry_next(f->registry, r->sid))
        stored += r->stored;
    assert_int_equal(rows, stored);
}

/* Each transaction's last page names the database's size. The log is a file without locks of its
 * own, so reading it takes none away from SQLite. */
size_t commits(struct fixture *f)
{
    unsigned char header[32];
    unsigned char frame[24];
    char path[128];
    size_t count = 0;

    snprintf(path, sizeof(path), "%s-wal", f->path);
    FILE *wal = fopen(path, "rb");
    if (!wal)
        return 0;
    if (fread(header, sizeof(header), 1, wal) == 1) {
        const long page = (long)header[8] << 24 | header[9] << 16 | header[10] << 8 | header[11];
        while (fread(frame, sizeof(frame), 1, wal) == 1 && memcmp(frame + 8, header + 16, 8) == 0) {
            count += (frame[4] | frame[5] | frame[6] | frame[7]) != 0;
            assert_int_equal(fseek(wal, page, SEEK_CUR), 0);
        }
    }
    fclose(wal);
    return count;
}

struct content content_of(const char *path)
{
    struct content content = {.exists = false};
    struct stat info;
    FILE *file = fopen(path, "rb");

    if (!file)
        return content;
    assert_int_equal(fstat(fileno(file), &info), 0);
    content.exists = true;
    content.bytes = malloc((size_t)info.st_size + 1);
    assert_non_null(content.bytes);
    content.len = fread(content.bytes, 1, (size_t)info.st_size, file);
    assert_int_equal(content.len, info.st_size);
    fclose(file);
    return content;
}

void check_content(const char *path, const struct content *before)
{
    struct content after = content_of(path);

    assert_int_equal(after.exists, before->exists);
    if (before->exists) {
        assert_int_equal(after.len, before->len);
        assert_memory_equal(after.bytes, before->bytes, before->len);
    }
    free(after.bytes);
}

void write_content(const char *path, const void *bytes, size_t len)
{
    FILE *file = fopen(path, "wb");

    assert_non_null(file);
    assert_true(len == 0 || fwrite(bytes, len, 1, file) == 1);
    assert_int_equal(fclose(file), 0);
}

void set_aside_unchanged(struct fixture *f)
{
    const struct content before = content_of(f->path);
    char pattern[sizeof(f->path) + 16];
    char wal_pattern[sizeof(pattern) + 8];
    glob_t found;

    open_store(f);
    assert_int_equal(registry_count(f->registry), 0);
    assert_null(store_order(f->store));
    assert_int_equal(store_stats(f->store)->set_aside, 1);
    reopen_store(f);
    assert_int_equal(store_stats(f->store)->set_aside, 0);
    close_store(f);

    snprintf(pattern, sizeof(pattern), "%s.damaged-*Z", f->path);
    assert_int_equal(glob(pattern, 0, NULL, &found), 0);
    assert_int_equal(found.gl_pathc, 1);
    check_content(found.gl_pathv[0], &before);
    assert_int_equal(remove(found.gl_pathv[0]), 0);
    globfree(&found);
    snprintf(wal_pattern, sizeof(wal_pattern), "%s.damaged-*-wal", f->path);
    if (glob(wal_pattern, 0, NULL, &found) == 0) {
        assert_int_equal(found.gl_pathc, 1);
        assert_int_equal(remove(found.gl_pathv[0]), 0);
        globfree(&found);
    }
    free(before.bytes);
    (void)remove(f->path);
}

void refuse_unchanged(struct fixture *f)
{
    char wal[128];
    struct content before = content_of(f->path);
    struct content wal_before;

    snprintf(wal, sizeof(wal), "%s-wal", f->path);
    wal_before = content_of(wal);
    refuse_to_open(f);
    check_content(f->path, &before);
    if (wal_before.exists)
        check_content(wal, &wal_before);
    free(before.bytes);
    free(wal_before.bytes);
}

void make_registry_file(struct fixture *f)
{
    char cid[32];

    open_store(f);
    for (int i = 0; i < 300; i++) {
        snprintf(cid, sizeof(cid), "client-%d", i);
        claim(f, cid);
    }
    turn(f);
    assert_int_equal(last_result(f), STORE_OK);
    close_store(f);
}

/* ---- trouble ---- */

sqlite3 *lock_for_writing(struct fixture *f)
{
    sqlite3 *db = NULL;

    assert_int_equal(sqlite3_open(f->path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    return db;
}

void unlock(sqlite3 *db)
{
    assert_int_equal(sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

void limit_file_size(rlim_t bytes)
{
    struct rlimit limit;

    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = bytes;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

void lift_file_size_limit(void)
{
    struct rlimit limit;

    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = limit.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

void fill(struct fixture *f, int count)
{
    char cid[32];

    for (int i = 0; i < count; i++) {
        snprintf(cid, sizeof(cid), "c%d", i);
        (void)claim(f, cid);
    }
    turn(f);
    assert_int_equal(last_result(f), STORE_OK);
}

void remove_file(struct fixture *f, bool with_log)
{
    char path[128];

    assert_int_equal(remove(f->path), 0);
    if (!with_log)
        return;
    snprintf(path, sizeof(path), "%s-wal", f->path);
    assert_int_equal(remove(path), 0);
    snprintf(path, sizeof(path), "%s-shm", f->path);
    assert_int_equal(remove(path), 0);
}

int start_store_tests(void **state)
{
    (void)state;
    (void)signal(SIGXFSZ, SIG_IGN);
    return hash_init();
}
