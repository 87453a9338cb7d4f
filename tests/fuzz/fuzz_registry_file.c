/*
 * A registry file that a broken disk or a person has been at. The input says how a good one is
 * changed: bytes of the database or of its log (with or without new checksums), or values of
 * columns by SQL, so that the file stays whole.
 *
 * The server must refuse to start with it, say why in one line and leave it as it is; or set it
 * aside as it is and start without it; or start with it: then a client registers, is there after
 * the next start, and the file is whole. Nobody is told 130 but by an order that the file has and
 * that is under way.
 */
#include "base/log.h"
#include "session/session.h"

#include "folder.h"
#include "fuzz.h"

#include <glob.h>
#include <sqlite3.h>

#define DB                   "cliser.db"
#define WAL                  DB "-wal"
#define MAX_FILE             (512 * 1024)
#define MAX_CHANGES          64
#define START_S              INT64_C(1700000000)
#define STEP_MS              100
#define MAX_STEPS            100

#define WAL_HEADER_BYTES     32
#define WAL_FRAME_HEAD_BYTES 24

enum mode { MODE_DATABASE, MODE_WAL, MODE_WAL_WITH_CHECKSUMS, MODE_SQL, MODE_COUNT };
enum origin { ORIGIN_CLOSED, ORIGIN_OPEN, ORIGIN_ORDER, ORIGIN_OLD, ORIGIN_COUNT };

struct file {
    uint8_t *bytes;
    size_t len;
};

static struct {
    struct file db;
    struct file wal;
} origins[ORIGIN_COUNT];

struct client {
    struct session session; /* first, so that a session is its client */
    int last_code;
    bool is_welcomed;
    bool is_closed;
};

static struct {
    struct moment now;
    struct registry *registry;
    struct sessions *sessions;
    struct store *store;
    struct store_options options;
    bool may_tell; /* the file has an order that is under way */
} world;

static char db_path[128];

static void prepare(void);
static void make_origin(enum origin origin);
static struct file read_file(const char *name);
static void put_origin(enum origin origin);
static void change_bytes(struct file *file, struct fuzz_input *input);
static void renew_checksums(struct file *wal);
static void add_checksum(bool is_big_endian, const uint8_t *bytes, size_t len, uint32_t sum[2]);
static uint32_t get_number(const uint8_t *at);
static void put_number(uint8_t *at, uint32_t number);
static void change_values(struct fuzz_input *input);
static void bind_value(sqlite3_stmt *stmt, struct fuzz_input *input);
static bool start(char *message, size_t message_size);
static void stop(void);
static void join(struct client *client, const char *cid);
static void end(struct client *client);
static void turn(void);
static void give_order(void);
static void check_left_alone(const struct file *db, const char *message);
static void check_set_aside(const struct file *db);
static void check_loaded(void);
static void check_whole(const char *cid);
static void exec(const char *sql);
static void send_line(struct session *session, const char *line, size_t len);
static void ignore(struct session *session);
static void close_session(struct session *session, bool said_why);

static const struct session_ops ops = {
    .send = send_line,
    .resume = ignore,
    .look = ignore,
    .close = close_session,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = fuzz_input_of(data, size);
    struct client known = {.is_closed = true};
    struct client fresh = {.is_closed = true};
    char message[512] = "";

    if (size > 4096)
        return -1;
    prepare();
    const uint8_t first = fuzz_byte(&input);
    const enum mode mode = (enum mode)(first % MODE_COUNT);
    const enum origin origin = (enum origin)(first / MODE_COUNT % ORIGIN_COUNT);
    put_origin(origin);
    struct file db = read_file(DB);
    struct file wal = read_file(WAL);
    switch (mode) {
    case MODE_DATABASE:
        change_bytes(&db, &input);
        folder_put(DB, db.bytes, db.len);
        break;
    case MODE_WAL:
    case MODE_WAL_WITH_CHECKSUMS:
        change_bytes(&wal, &input);
        if (mode == MODE_WAL_WITH_CHECKSUMS)
            renew_checksums(&wal);
        if (wal.len > 0)
            folder_put(WAL, wal.bytes, wal.len);
        break;
    case MODE_SQL:
        change_values(&input);
        free(db.bytes);
        db = read_file(DB);
        break;
    case MODE_COUNT:
        break;
    }

    if (!start(message, sizeof(message))) {
        check_left_alone(&db, message);
    } else {
        check_loaded();
        if (store_stats(world.store)->set_aside > 0)
            check_set_aside(&db);
        join(&known, "web-1");
        join(&fresh, "fresh-1");
        for (int i = 0; i < MAX_STEPS && !(fresh.is_welcomed && i > 10); i++) {
            if (fresh.is_closed && !fresh.is_welcomed) {
                fuzz_require(fresh.last_code == PROTO_REGISTRY_UNAVAILABLE);
                join(&fresh, "fresh-1");
            }
            turn();
        }
        const bool is_registered = fresh.is_welcomed;
        fuzz_require(is_registered || !store_healthy(world.store));
        /* What was changed by SQL is whole, and what is taken of it works. */
        fuzz_require(is_registered || mode != MODE_SQL);
        end(&known);
        end(&fresh);
        turn();
        stop();
        if (is_registered) {
            check_whole("fresh-1");
            fuzz_require(start(message, sizeof(message)));
            fuzz_require(registry_find(world.registry, "fresh-1", strlen("fresh-1")));
            stop();
        }
    }
    free(db.bytes);
    free(wal.bytes);
    return 0;
}

static void prepare(void)
{
    if (db_path[0] != '\0')
        return;
    snprintf(db_path, sizeof(db_path), "%s/%s", folder_path(), DB);
    (void)log_open(&(struct log_options){.program = "fuzz", .level = LOG_LEVEL_ERROR - 1});
    /* The same files every time. */
    (void)sqlite3_test_control(SQLITE_TESTCTRL_PRNG_SEED, 1, NULL);
    for (int i = 0; i < ORIGIN_COUNT; i++)
        make_origin((enum origin)i);
}

static void make_origin(enum origin origin)
{
    struct client clients[3] = {{.is_closed = true}, {.is_closed = true}, {.is_closed = true}};
    static const char *const cids[] = {"web-1", "web-2", "db-1"};
    char message[512] = "";

    folder_remove(DB);
    folder_remove(WAL);
    fuzz_require(start(message, sizeof(message)));
    for (int i = 0; i < 3; i++) {
        join(&clients[i], cids[i]);
        turn();
        fuzz_require(clients[i].is_welcomed);
    }
    if (origin == ORIGIN_ORDER) {
        give_order();
        for (int i = 0; i < 20; i++)
            turn();
    }
    if (origin == ORIGIN_OPEN || origin == ORIGIN_ORDER) {
        end(&clients[2]);
        for (int i = 0; i < 3; i++)
            turn();
        origins[origin].db = read_file(DB);
        origins[origin].wal = read_file(WAL);
        fuzz_require(origins[origin].wal.len > 0);
    }
    for (int i = 0; i < 3; i++)
        end(&clients[i]);
    stop();
    if (origin == ORIGIN_OLD)
        exec("DROP TABLE orders; DROP TABLE order_waves; DROP TABLE order_targets;"
             "ALTER TABLE clients DROP COLUMN credential;"
             "PRAGMA user_version = 1; PRAGMA wal_checkpoint(TRUNCATE)");
    if (origin == ORIGIN_CLOSED || origin == ORIGIN_OLD)
        origins[origin].db = read_file(DB);
}

static struct file read_file(const char *name)
{
    struct file file = {.bytes = malloc(MAX_FILE)};

    fuzz_require(file.bytes);
    folder_enter();
    FILE *from = fopen(name, "rb");
    folder_leave();
    if (from) {
        file.len = fread(file.bytes, 1, MAX_FILE, from);
        fclose(from);
    }
    fuzz_require(file.len < MAX_FILE);
    return file;
}

static void put_origin(enum origin origin)
{
    folder_remove(WAL);
    folder_remove(DB "-shm");
    folder_remove(DB "-journal");
    folder_remove(DB);
    folder_put(DB, origins[origin].db.bytes, origins[origin].db.len);
    if (origins[origin].wal.len > 0)
        folder_put(WAL, origins[origin].wal.bytes, origins[origin].wal.len);
}

/* Each change: where (3 bytes; beyond the end: the file is cut to so much), how many, what. */
static void change_bytes(struct file *file, struct fuzz_input *input)
{
    for (int i = 0; i < MAX_CHANGES && input->left > 0 && file->len > 0; i++) {
        const size_t where = (size_t)fuzz_byte(input) << 16 | (size_t)fuzz_byte(input) << 8 |
                             (size_t)fuzz_byte(input);
        size_t len = 0;
        const char *bytes = fuzz_bytes(input, fuzz_byte(input) % 33, &len);

        if (where >= MAX_FILE)
            file->len = where % (file->len + 1);
        else if (len > 0 && where % file->len + len <= file->len)
            memcpy(file->bytes + where % file->len, bytes, len);
    }
}

/* https://www.sqlite.org/fileformat2.html, 4.2 */
static void renew_checksums(struct file *wal)
{
    uint32_t sum[2] = {0, 0};

    if (wal->len < WAL_HEADER_BYTES)
        return;
    const bool is_big_endian = get_number(wal->bytes) & 1;
    const size_t page = get_number(wal->bytes + 8);
    add_checksum(is_big_endian, wal->bytes, 24, sum);
    put_number(wal->bytes + 24, sum[0]);
    put_number(wal->bytes + 28, sum[1]);
    if (page < 512 || page > 65536 || page % 8 != 0)
        return;
    for (size_t at = WAL_HEADER_BYTES; at + WAL_FRAME_HEAD_BYTES + page <= wal->len;
         at += WAL_FRAME_HEAD_BYTES + page) {
        memcpy(wal->bytes + at + 8, wal->bytes + 16, 8); /* the salt */
        add_checksum(is_big_endian, wal->bytes + at, 8, sum);
        add_checksum(is_big_endian, wal->bytes + at + WAL_FRAME_HEAD_BYTES, page, sum);
        put_number(wal->bytes + at + 16, sum[0]);
        put_number(wal->bytes + at + 20, sum[1]);
    }
}

static void add_checksum(bool is_big_endian, const uint8_t *bytes, size_t len, uint32_t sum[2])
{
    for (size_t i = 0; i + 8 <= len; i += 8) {
        uint32_t one = get_number(bytes + i);
        uint32_t two = get_number(bytes + i + 4);

        if (!is_big_endian) {
            one = __builtin_bswap32(one);
            two = __builtin_bswap32(two);
        }
        sum[0] += one + sum[1];
        sum[1] += two + sum[0];
    }
}

static uint32_t get_number(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static void put_number(uint8_t *at, uint32_t number)
{
    for (int i = 0; i < 4; i++)
        at[i] = (uint8_t)(number >> (24 - 8 * i));
}

/* Each change: which column of which table, which row, and the value. */
static void change_values(struct fuzz_input *input)
{
    static const char *const updates[] = {
        "UPDATE clients SET sid = ?1 WHERE rowid = ?2",
        "UPDATE clients SET cid = ?1 WHERE rowid = ?2",
        "UPDATE clients SET cip = ?1 WHERE rowid = ?2",
        "UPDATE clients SET cport = ?1 WHERE rowid = ?2",
        "UPDATE clients SET cstatus = ?1 WHERE rowid = ?2",
        "UPDATE clients SET since = ?1 WHERE rowid = ?2",
        "UPDATE clients SET last_seen = ?1 WHERE rowid = ?2",
        "UPDATE clients SET rtt_ms = ?1 WHERE rowid = ?2",
        "UPDATE clients SET reason = ?1 WHERE rowid = ?2",
        "UPDATE clients SET node = ?1 WHERE rowid = ?2",
        "UPDATE orders SET id = ?1 WHERE rowid = ?2",
        "UPDATE orders SET by = ?1 WHERE rowid = ?2",
        "UPDATE orders SET state = ?1 WHERE rowid = ?2",
        "UPDATE orders SET created = ?1 WHERE rowid = ?2",
        "UPDATE orders SET ended = ?1 WHERE rowid = ?2",
        "UPDATE orders SET grace_ms = ?1 WHERE rowid = ?2",
        "UPDATE orders SET hold_ms = ?1 WHERE rowid = ?2",
        "UPDATE order_waves SET order_id = ?1 WHERE wave = ?2",
        "UPDATE order_waves SET wave = ?1 WHERE wave = ?2",
        "UPDATE order_waves SET match = ?1 WHERE wave = ?2",
        "UPDATE order_waves SET started = ?1 WHERE wave = ?2",
        "UPDATE order_waves SET ended = ?1 WHERE wave = ?2",
        "UPDATE order_targets SET sid = ?1 WHERE rowid = ?2",
        "UPDATE order_targets SET wave = ?1 WHERE rowid = ?2",
        "UPDATE order_targets SET told = ?1 WHERE rowid = ?2",
        "UPDATE order_targets SET acknowledged = ?1 WHERE rowid = ?2",
        "UPDATE order_targets SET late = ?1 WHERE rowid = ?2",
        "INSERT OR IGNORE INTO order_waves VALUES (?2, ?2, ?1, NULL, NULL)",
        "INSERT OR IGNORE INTO order_targets VALUES (?2, ?1, 1, 1, 0)",
        ("INSERT OR IGNORE INTO clients (sid, cid, cip, cport, cstatus, since, last_seen, reason,"
         " node) VALUES (?2, ?1, '', 0, 1, 0, 0, '', '')"),
        "INSERT OR IGNORE INTO orders VALUES (?2, 'x', ?1, 1, NULL, 1, 1)",
        "DELETE FROM clients WHERE rowid = ?2",
        "DELETE FROM order_waves WHERE wave = ?2",
        "UPDATE clients SET credential = ?1 WHERE rowid = ?2",
    };
    sqlite3 *db = NULL;

    fuzz_require(sqlite3_open(db_path, &db) == SQLITE_OK);
    for (int i = 0; i < MAX_CHANGES && input->left > 0; i++) {
        const char *sql = updates[fuzz_byte(input) % (sizeof(updates) / sizeof(updates[0]))];
        sqlite3_stmt *stmt = NULL;

        if (sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) != SQLITE_OK)
            continue; /* an old one has no orders */
        sqlite3_bind_int(stmt, 2, fuzz_byte(input) % 5);
        bind_value(stmt, input);
        (void)sqlite3_step(stmt); /* a constraint may forbid it */
        sqlite3_finalize(stmt);
    }
    fuzz_require(sqlite3_close(db) == SQLITE_OK);
}

static void bind_value(sqlite3_stmt *stmt, struct fuzz_input *input)
{
    static const int64_t numbers[] = {
        0,     1,       2,       3,          -1,        255,       256,        65535,
        65536, 1 << 20, START_S, UINT32_MAX, INT64_MAX, INT64_MIN, 4294967297, 67108865,
    };
    static const char *const words[] = {
        "running", "holding", "done", "cancelled", "expired", "*",   "web-*", "web-1,db-1",
        "none",    "",        "1",    "left",      "crash",   "::1", "unix",  "[",
    };
    const uint8_t kind = fuzz_byte(input);
    size_t len = 0;

    switch (kind & 7) {
    case 0:
        sqlite3_bind_null(stmt, 1);
        return;
    case 1:
        sqlite3_bind_int64(stmt, 1, numbers[kind >> 4]);
        return;
    case 2:
        sqlite3_bind_text(stmt, 1, words[kind >> 4], -1, SQLITE_STATIC);
        return;
    case 3:
        sqlite3_bind_double(stmt, 1, (double)numbers[kind >> 4] / 3.0);
        return;
    case 4:
        sqlite3_bind_int(stmt, 1, (int8_t)fuzz_byte(input));
        return;
    default:
        break;
    }
    const char *bytes = fuzz_bytes(input, fuzz_byte(input) % 80, &len);
    if ((kind & 7) == 5)
        sqlite3_bind_blob(stmt, 1, bytes, (int)len, SQLITE_TRANSIENT);
    else
        sqlite3_bind_text(stmt, 1, bytes, (int)len, SQLITE_TRANSIENT);
}

/* As main.c has it. Returns false, and nothing is to be stopped, when the store does not open. */
static bool start(char *message, size_t message_size)
{
    const struct sessions_options options = {
        .interval_ms = 3600000,
        .misses = 3,
        .handshake_timeout_ms = 60000,
        .duplicate_id = DUPLICATE_REJECT,
        .forget_after_ms = UINT64_MAX,
        .explain_refusals = true,
        .limits = {.max_clients = 100, .max_pending = 100},
    };
    struct credentials *credentials = credentials_new();

    world.now = (struct moment){.mono_us = 1000 * CLOCK_US_PER_SEC, .wall_ms = START_S * 1000};
    world.options = (struct store_options){.kind = STORE_SQLITE, .path = db_path, .node = "fuzz"};
    world.registry = registry_new();
    fuzz_require(world.registry && credentials && credentials_add(credentials, "secret", 6) == 0);
    world.sessions = sessions_new(&options, world.registry, credentials, &ops, world.now);
    world.store = store_open(&world.options, world.registry, sessions_on_answer, world.sessions,
                             message, message_size);
    if (!world.store) {
        sessions_free(world.sessions);
        registry_free(world.registry);
        return false;
    }
    const struct store_order *order = store_order(world.store);
    world.may_tell =
        order && (strcmp(order->state, "running") == 0 || strcmp(order->state, "holding") == 0);
    sessions_set_store(world.sessions, world.store, world.now);
    fuzz_require(registry_connected(world.registry) == 0);
    return true;
}

static void stop(void)
{
    store_close(world.store, world.now);
    sessions_free(world.sessions);
    registry_free(world.registry);
}

static void join(struct client *client, const char *cid)
{
    const struct peer_address from = {.ip = {127, 0, 0, 1}, .port = 1, .family = AF_INET};

    *client = (struct client){.last_code = 0};
    session_start(&client->session, world.sessions, &from, world.now);
    (void)session_line(&client->session, "secret", strlen("secret"), world.now);
    (void)session_line(&client->session, cid, strlen(cid), world.now);
}

static void end(struct client *client)
{
    if (!client->is_closed)
        session_end(&client->session, REASON_STOPPED, world.now);
}

static void turn(void)
{
    world.now.mono_us += STEP_MS * CLOCK_US_PER_MS;
    world.now.wall_ms += STEP_MS;
    if (sessions_next_us(world.sessions) <= world.now.mono_us)
        sessions_tick(world.sessions, world.now);
    store_turn(world.store, false, world.now);
}

static void give_order(void)
{
    struct order_request request = {.grace_ms = 60000, .hold_ms = 900000, .by = "fuzz"};
    char message[256];

    world.may_tell = true;
    fuzz_require(order_waves_add(&request.waves, "web-*", message, sizeof(message)) == 0);
    fuzz_require(order_waves_add(&request.waves, "db-1", message, sizeof(message)) == 0);
    fuzz_require(sessions_give_order(world.sessions, &request, world.now) == ORDER_OK);
}

/* It says why, in one line, and has touched nothing. */
static void check_left_alone(const struct file *db, const char *message)
{
    struct file after = read_file(DB);

    fuzz_require(message[0] != '\0' && !strchr(message, '\n'));
    fuzz_require(strncmp(message, db_path, strlen(db_path)) == 0);
    fuzz_require(after.len == db->len && memcmp(after.bytes, db->bytes, db->len) == 0);
    free(after.bytes);
}

/* It is kept byte by byte, and nobody is known. */
static void check_set_aside(const struct file *db)
{
    char pattern[sizeof(db_path) + 32];
    glob_t found;

    fuzz_require(registry_count(world.registry) == 0 && !store_order(world.store));
    snprintf(pattern, sizeof(pattern), "%s.damaged-*", db_path);
    fuzz_require(glob(pattern, 0, NULL, &found) == 0 && found.gl_pathc >= 1);
    struct file kept = read_file(strrchr(found.gl_pathv[0], '/') + 1);
    fuzz_require(kept.len == db->len && memcmp(kept.bytes, db->bytes, db->len) == 0);
    free(kept.bytes);
    for (size_t i = 0; i < found.gl_pathc; i++)
        fuzz_require(remove(found.gl_pathv[i]) == 0);
    globfree(&found);
}

/* The registry knows every row as it is, and nothing else. By the table alone: that an index says
 * the same, the server does not look at. */
static void check_loaded(void)
{
    static const char select[] = "SELECT sid, cid FROM clients NOT INDEXED";
    sqlite3 *db = NULL;
    sqlite3_stmt *stmt = NULL;
    size_t rows = 0;

    fuzz_require(sqlite3_open_v2(db_path, &db, SQLITE_OPEN_READONLY, NULL) == SQLITE_OK);
    fuzz_require(sqlite3_prepare_v2(db, select, -1, &stmt, NULL) == SQLITE_OK);
    while (sqlite3_step(stmt) == SQLITE_ROW) {
        const char *cid = (const char *)sqlite3_column_text(stmt, 1);
        const struct registry_record *record = registry_find(world.registry, cid, strlen(cid));
        fuzz_require(record && record->sid == sqlite3_column_int64(stmt, 0));
        rows++;
    }
    fuzz_require(rows == registry_count(world.registry));
    sqlite3_finalize(stmt);
    sqlite3_close(db);
}

static void check_whole(const char *cid)
{
    sqlite3 *db = NULL;
    sqlite3_stmt *stmt = NULL;

    fuzz_require(sqlite3_open_v2(db_path, &db, SQLITE_OPEN_READONLY, NULL) == SQLITE_OK);
    fuzz_require(sqlite3_prepare_v2(db, "PRAGMA quick_check(1)", -1, &stmt, NULL) == SQLITE_OK);
    fuzz_require(sqlite3_step(stmt) == SQLITE_ROW);
    fuzz_require(strcmp((const char *)sqlite3_column_text(stmt, 0), "ok") == 0);
    sqlite3_finalize(stmt);
    fuzz_require(sqlite3_prepare_v2(db, "SELECT cstatus FROM clients WHERE cid = ?1", -1, &stmt,
                                    NULL) == SQLITE_OK);
    sqlite3_bind_text(stmt, 1, cid, -1, SQLITE_STATIC);
    fuzz_require(sqlite3_step(stmt) == SQLITE_ROW);
    fuzz_require(sqlite3_column_int(stmt, 0) == 0);
    sqlite3_finalize(stmt);
    sqlite3_close(db);
}

static void exec(const char *sql)
{
    sqlite3 *db = NULL;

    fuzz_require(sqlite3_open(db_path, &db) == SQLITE_OK);
    fuzz_require(sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK);
    fuzz_require(sqlite3_close(db) == SQLITE_OK);
}

static void send_line(struct session *session, const char *line, size_t len)
{
    struct client *client = (struct client *)session;

    client->last_code = proto_parse_code(line, len);
    fuzz_require(client->last_code != PROTO_SHUTDOWN || world.may_tell);
    client->is_welcomed |= client->last_code == PROTO_CONNECTED;
}

static void ignore(struct session *session)
{
    (void)session;
}

static void close_session(struct session *session, bool said_why)
{
    (void)said_why;
    ((struct client *)session)->is_closed = true;
}
