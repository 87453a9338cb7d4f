/*
 * Sessions: every rule that needs more than one client, a registry, a store or a clock. The
 * registry is real; clock, connections and store are the test's own, and the store answers what it
 * is told to.
 */
#include "session/session.h"

#include "base/container_of.h"
#include "base/hash.h"
#include "base/log.h"
#include "cliser/proto.h"
#include "session/internal.h"
#include "session/order.h"

#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MS           UINT64_C(1000)
#define S            UINT64_C(1000000)

#define START_US     UINT64_C(1000000000)
#define START_S      INT64_C(1700000000)

#define INTERVAL_US  (10 * S)
#define HANDSHAKE_US (10 * S)
#define PROBE_US     (SESSION_PROBE_MS * MS)

#define MAX_CLIENTS  3000
#define MAX_CHANGES  4096
#define MAX_ROWS     256

/* A connection, as far as a session can see it. */
struct client {
    struct session session;
    struct peer_address peer;
    int codes[64]; /* what was sent, the last ones */
    size_t sent;
    int fails_at;          /* the code whose sending finds the peer gone; -1: any */
    enum reason fail_with; /* and how it is gone */
    char waiting[8][64];   /* lines in the kernel, for a last look */
    size_t waiting_count;
    char held[64];
    bool is_held;
    bool proved_another; /* what its connection has proved covers other IDs */
    bool resumed;
    bool started;
    bool closed;
    bool said_why;
    unsigned looks;
};

/* What the store was asked for, until it is committed. */
struct change {
    enum { REGISTER, DISCONNECT, FORGET, ORDER } kind;
    uint32_t sid;
    uint64_t serial;
    struct peer_address peer;
    uint16_t credential;
};

/* What the database would say. */
struct row {
    bool exists;
    bool connected;
};

/* The functions of store/store.h that a session uses are defined here, over this. */
struct store {
    struct change changes[MAX_CHANGES];
    size_t count;
    struct row rows[MAX_ROWS];
    unsigned registers;
    unsigned disconnects;
    unsigned forgets;
    bool out_of_memory;
    bool answering; /* the only time when an answer may be given */
};

struct world {
    int64_t wall_jump_ms; /* by which somebody has set the clock */
    struct moment now;
    struct registry *registry;
    struct sessions *sessions;
    struct sessions_options options;
    struct store store;
    struct client *clients[MAX_CLIENTS];
    size_t client_count;
    uint64_t freed; /* clients that were over and are no longer in the list */
    uint64_t turned_away;
    bool ordering; /* the only time when a 130 may be sent */
};

static struct world *world; /* ops get a session, and nothing else */

/* ---- the store ---- */

int store_register(struct store *store, const struct registry_record *record,
                   const struct peer_address *peer, uint16_t credential, uint64_t serial,
                   struct moment now)
{
    assert_true(now.mono_us == world->now.mono_us);
    assert_ptr_equal(registry_by_sid(world->registry, record->sid), record);
    if (store->out_of_memory)
        return -1;
    store->registers++;
    assert_true(store->count < MAX_CHANGES);
    store->changes[store->count++] = (struct change){.kind = REGISTER,
                                                     .sid = record->sid,
                                                     .serial = serial,
                                                     .peer = *peer,
                                                     .credential = credential};
    return 0;
}

void store_disconnect(struct store *store, const struct registry_record *record, struct moment now)
{
    assert_true(now.mono_us == world->now.mono_us);
    assert_false(record->connected);
    assert_int_not_equal(record->reason, REASON_NONE);
    assert_int_equal(record->since, now.wall_ms / 1000);
    store->disconnects++;
    assert_true(store->count < MAX_CHANGES);
    store->changes[store->count++] = (struct change){.kind = DISCONNECT, .sid = record->sid};
}

void store_forget(struct store *store, const struct registry_record *record, struct moment now)
{
    assert_true(now.mono_us == world->now.mono_us);
    assert_ptr_equal(registry_by_sid(world->registry, record->sid), record);
    store->forgets++;
    assert_true(store->count < MAX_CHANGES);
    store->changes[store->count++] = (struct change){.kind = FORGET, .sid = record->sid};
}

int store_save_order(struct store *store, const struct store_order *order, struct moment now)
{
    assert_true(now.mono_us == world->now.mono_us);
    if (store->out_of_memory)
        return -1;
    assert_true(store->count < MAX_CHANGES);
    store->changes[store->count++] = (struct change){.kind = ORDER, .serial = (uint64_t)order->id};
    return 0;
}

void store_save_target(struct store *store, const struct registry_record *record, struct moment now)
{
    (void)store;
    assert_true(now.mono_us == world->now.mono_us);
    assert_true(record->stored && record->order_wave > 0);
}

const struct store_order *store_order(const struct store *store)
{
    (void)store;
    return NULL;
}

/* Commits the oldest changes, and gives this answer to each registration among them. */
static void commit(size_t count, enum store_result result)
{
    struct store *store = &world->store;
    struct change done[MAX_CHANGES];
    size_t answers = 0;

    assert_true(count <= store->count);
    for (size_t i = 0; i < count; i++) {
        const struct change *change = &store->changes[i];
        struct row *row = &store->rows[change->sid % MAX_ROWS];

        switch (change->kind) {
        case REGISTER:
            if (result == STORE_OK)
                *row = (struct row){.exists = true, .connected = true};
            done[answers++] = *change;
            break;
        case DISCONNECT:
            row->connected = false;
            break;
        case FORGET:
            *row = (struct row){.exists = false};
            break;
        case ORDER:
            done[answers++] = *change;
            break;
        }
    }
    store->count -= count;
    memmove(store->changes, store->changes + count, store->count * sizeof(*store->changes));
    for (size_t i = 0; i < answers; i++) {
        const struct store_answer answer = {
            .serial = done[i].serial, .sid = done[i].sid, .result = result};
        sessions_on_answer(world->sessions, &answer, world->now);
    }
}

/* ---- the connections ---- */

static struct client *client_of(struct session *session)
{
    return container_of(session, struct client, session);
}

static void on_send(struct session *session, const char *line, size_t len)
{
    struct client *client = client_of(session);
    const struct proto_code_info *info = proto_code_info(proto_parse_code(line, len));

    assert_false(client->closed);
    assert_non_null(info);
    assert_int_equal(len, info->line_len);
    assert_memory_equal(line, info->line, len);
    /* Nothing but an operator's order. */
    assert_true(info->code != PROTO_SHUTDOWN || world->ordering);
    client->codes[client->sent++ % COUNT(client->codes)] = info->code;
    if (client->fails_at == (int)info->code || client->fails_at == -1)
        session_end(session, client->fail_with, world->now);
}

static void on_resume(struct session *session)
{
    struct client *client = client_of(session);

    assert_false(client->closed);
    client->resumed = true;
}

static void feed(struct client *client, const char *text)
{
    if (session_is_over(&client->session))
        return;
    if (!session_line(&client->session, text, strlen(text), world->now)) {
        assert_false(client->is_held);
        client->is_held = true;
        snprintf(client->held, sizeof(client->held), "%s", text);
    }
}

static void on_look(struct session *session)
{
    struct client *client = client_of(session);

    assert_false(client->closed);
    client->looks++;
    for (size_t i = 0; i < client->waiting_count && !client->is_held; i++)
        feed(client, client->waiting[i]);
    client->waiting_count = 0;
}

static bool on_may_have_id(struct session *session, const char *id, size_t len)
{
    assert_true(proto_id_valid(id, len));
    return !client_of(session)->proved_another;
}

static void on_close(struct session *session, bool said_why)
{
    struct client *client = client_of(session);

    assert_false(client->closed);
    assert_true(session_is_over(session));
    client->closed = true;
    client->said_why = said_why;
}

static const struct session_ops ops = {
    .send = on_send,
    .resume = on_resume,
    .look = on_look,
    .may_have_id = on_may_have_id,
    .close = on_close,
};

/* ---- the world ---- */

static struct credentials *credentials_of(const char *password)
{
    struct credentials *credentials = credentials_new();

    assert_non_null(credentials);
    assert_int_equal(credentials_add(credentials, password, strlen(password)), 0);
    return credentials;
}

static int set_up_world(uint64_t interval_ms)
{
    world = calloc(1, sizeof(*world));
    if (!world)
        return -1;
    world->now = (struct moment){.mono_us = START_US, .wall_ms = START_S * 1000};
    world->options = (struct sessions_options){
        .interval_ms = interval_ms,
        .misses = 3,
        .require_reply = SERVER_FSM_REPLY_AUTO,
        .handshake_timeout_ms = HANDSHAKE_US / MS,
        .duplicate_id = DUPLICATE_PROBE,
        .forget_after_ms = UINT64_MAX,
        .explain_refusals = true,
        .limits = {.max_clients = 1000000, .max_pending = 16384},
    };
    world->registry = registry_new();
    world->sessions =
        sessions_new(&world->options, world->registry, credentials_of("secret"), &ops, world->now);
    sessions_set_store(world->sessions, &world->store, world->now);
    return 0;
}

/* So long an interval that no regular keep-alive comes between what the test does. */
static int setup(void **state)
{
    (void)state;
    return set_up_world(UINT64_C(10) * 86400 * 1000);
}

static int setup_asking(void **state)
{
    (void)state;
    return set_up_world(INTERVAL_US / MS);
}

static void reload(void)
{
    sessions_reload(world->sessions, &world->options, credentials_of("secret"), world->now);
}

static void reload_with(struct credentials *credentials)
{
    sessions_reload(world->sessions, &world->options, credentials, world->now);
}

/* As a file with [auth] secret; [credential web] for-web; [credential nas] for-nas and old-nas. */
static struct credentials *sections(void)
{
    struct credentials *all = credentials_of("secret");

    assert_int_equal(credentials_begin(all, "web", "web-*"), CREDENTIAL_ADDED);
    assert_int_equal(credentials_add(all, "for-web", 7), CREDENTIAL_ADDED);
    assert_int_equal(credentials_begin(all, "nas", "nas-1,disk-[0-9]"), CREDENTIAL_ADDED);
    assert_int_equal(credentials_add(all, "for-nas", 7), CREDENTIAL_ADDED);
    assert_int_equal(credentials_add(all, "old-nas", 7), CREDENTIAL_ADDED);
    return all;
}

static uint64_t counted(const uint64_t *by_reason)
{
    uint64_t sum = 0;

    for (int i = 0; i < REASON_COUNT; i++)
        sum += by_reason[i];
    return sum;
}

static bool is_registering(const struct client *client)
{
    return client->session.fsm.state == SERVER_FSM_REGISTERING;
}

static bool is_connected(const struct client *client)
{
    return client->session.fsm.state == SERVER_FSM_CONNECTED ||
           client->session.fsm.state == SERVER_FSM_LEAVING;
}

static size_t claims_waiting(uint32_t sid)
{
    size_t count = 0;

    for (size_t i = 0; i < world->store.count; i++)
        count += world->store.changes[i].kind == REGISTER && world->store.changes[i].sid == sid;
    return count;
}

/* Each source has as many connections as there are, if they are counted. */
static void check_counts(void)
{
    const struct door *door = &world->sessions->door;

    if (door->counting == 0 || door->is_behind || world->client_count > 64)
        return;
    for (size_t i = 0; i < world->client_count; i++) {
        unsigned count = 0;
        for (size_t j = 0; j < world->client_count; j++)
            count += !world->clients[j]->closed &&
                     memcmp(world->clients[j]->peer.ip, world->clients[i]->peer.ip, 16) == 0;
        assert_int_equal(sources_connections(&door->sources, &world->clients[i]->peer), count);
    }
}

/* What must be true between any two calls. */
static void check_invariants(void)
{
    const struct sessions_counters *counters = sessions_counters(world->sessions);
    size_t connected = 0;
    size_t pending = 0;
    size_t leaving = 0;
    size_t holders = 0;
    size_t records_held = 0;
    uint64_t over = 0;

    for (size_t i = 0; i < world->client_count; i++) {
        const struct client *client = world->clients[i];
        const struct registry_record *record = client->session.record;

        assert_int_equal(client->closed, session_is_over(&client->session));
        if (client->closed) {
            over++;
            continue;
        }
        if (is_connected(client)) {
            connected++;
            leaving += client->session.fsm.state == SERVER_FSM_LEAVING;
            assert_non_null(record);
            assert_true(record->connected);
            assert_true(record->stored);
            assert_ptr_equal(record->holder, &client->session);
            assert_memory_equal(&record->peer, &client->peer, sizeof(client->peer));
        } else {
            pending++;
            assert_true(!record || is_registering(client));
        }
        if (record) {
            assert_ptr_equal(registry_by_sid(world->registry, record->sid), record);
            assert_true(record->holder == &client->session || record->probe);
            holders += record->holder == &client->session;
        } else {
            assert_false(is_registering(client));
        }
    }
    for (const struct registry_record *r = registry_next(world->registry, 0); r;
         r = registry_next(world->registry, r->sid)) {
        records_held += r->holder != NULL;
        assert_true(r->stored || r->claims > 0);
        assert_int_equal(r->claims, claims_waiting(r->sid));
        assert_true(!r->connected || r->holder);
        assert_true(!r->probe || r->connected);
    }
    assert_int_equal(holders, records_held);
    assert_int_equal(sessions_connected(world->sessions), connected);
    assert_int_equal(registry_connected(world->registry), connected);
    assert_int_equal(sessions_pending(world->sessions), pending);
    assert_int_equal(sessions_leaving(world->sessions), leaving);

    /* Every connection that ever came is counted in one place. */
    assert_int_equal(counters->started, world->client_count + world->freed);
    assert_int_equal(counted(counters->ended) + counted(counters->refused),
                     over + world->freed + world->turned_away);
    assert_int_equal(counters->registered, counted(counters->ended) + connected);
    assert_int_equal(counters->handshakes.total, counters->registered);
    check_counts();
}

/* The same, and what the store was told: once it has done all, its rows say what is so. */
static void check_rows(void)
{
    assert_int_equal(world->store.count, 0);
    check_invariants();
    for (uint32_t sid = 1; sid < MAX_ROWS; sid++) {
        const struct registry_record *record = registry_by_sid(world->registry, sid);
        const struct row *row = &world->store.rows[sid];

        assert_int_equal(row->exists, record && record->stored);
        assert_int_equal(row->connected, record && record->connected);
    }
}

static int teardown(void **state)
{
    (void)state;
    for (size_t i = 0; i < world->client_count; i++)
        session_end(&world->clients[i]->session, REASON_STOPPED, world->now);
    commit(world->store.count, STORE_OK);
    commit(world->store.count, STORE_OK); /* what was given back */
    check_invariants();
    sessions_free(world->sessions);
    registry_free(world->registry);
    for (size_t i = 0; i < world->client_count; i++)
        free(world->clients[i]);
    free(world);
    world = NULL;
    return 0;
}

static void advance(uint64_t us)
{
    world->now.mono_us += us;
    world->now.wall_ms =
        START_S * 1000 + world->wall_jump_ms + (int64_t)((world->now.mono_us - START_US) / 1000);
}

/* What a server without other work does: sleeps until the sessions want something. */
static void live(uint64_t us)
{
    const uint64_t end_us = world->now.mono_us + us;
    uint64_t next_us;
    unsigned idle = 0;

    while ((next_us = sessions_next_us(world->sessions)) <= end_us) {
        if (next_us > world->now.mono_us) {
            advance(next_us - world->now.mono_us);
            idle = 0;
        }
        sessions_tick(world->sessions, world->now);
        if (++idle > 100000)
            fail_msg("the sessions do not let the server sleep");
    }
    advance(end_us - world->now.mono_us);
}

/* As live(), but these answer each 100 at once. */
static void live_with(uint64_t us, struct client *const *answering, size_t count)
{
    const uint64_t end_us = world->now.mono_us + us;
    uint64_t next_us;

    while ((next_us = sessions_next_us(world->sessions)) <= end_us) {
        size_t before[16];

        assert_true(count <= COUNT(before));
        for (size_t i = 0; i < count; i++)
            before[i] = answering[i]->sent;
        if (next_us > world->now.mono_us)
            advance(next_us - world->now.mono_us);
        sessions_tick(world->sessions, world->now);
        for (size_t i = 0; i < count; i++) {
            if (answering[i]->sent > before[i])
                feed(answering[i], "100");
        }
    }
    advance(end_us - world->now.mono_us);
}

/* The end of a loop turn: commits, answers, and then the lines that had to wait. */
static void turn_with(enum store_result result)
{
    commit(world->store.count, result);
    for (size_t i = 0; i < world->client_count; i++) {
        struct client *client = world->clients[i];
        if (client->resumed && client->is_held && !client->closed) {
            client->is_held = false;
            feed(client, client->held);
        }
        client->resumed = false;
    }
}

static void turn(void)
{
    turn_with(STORE_OK);
}

static struct client *new_client(void)
{
    struct client *client = calloc(1, sizeof(*client));

    assert_non_null(client);
    assert_true(world->client_count < MAX_CLIENTS);
    client->fail_with = REASON_RESET;
    client->peer = (struct peer_address){.family = AF_INET,
                                         .ip = {192, 0, 2, (uint8_t)world->client_count},
                                         .port = (uint16_t)(1024 + world->client_count)};
    world->clients[world->client_count++] = client;
    return client;
}

static void start(struct client *client)
{
    /* The struct need not be initialised. */
    memset(&client->session, 0xa5, sizeof(client->session));
    client->started = true;
    session_start(&client->session, world->sessions, &client->peer, world->now);
}

static struct client *come(void)
{
    struct client *client = new_client();

    start(client);
    return client;
}

/* Comes, and answers both questions. */
static struct client *claim(const char *id)
{
    struct client *client = come();

    feed(client, "secret");
    feed(client, id);
    return client;
}

static int last_code(const struct client *client)
{
    return client->sent > 0 ? client->codes[(client->sent - 1) % COUNT(client->codes)] : 0;
}

static struct client *enter(const char *id)
{
    struct client *client = claim(id);

    turn();
    assert_int_equal(last_code(client), PROTO_CONNECTED);
    return client;
}

/* As an order does. */
static void tell(struct client *client)
{
    world->ordering = true;
    (void)server_fsm_order(&client->session.fsm, &world->sessions->env);
    world->ordering = false;
}

static struct registry_record *record_of(const char *id)
{
    return registry_find(world->registry, id, strlen(id));
}

static unsigned times_sent(const struct client *client, int code)
{
    unsigned count = 0;

    assert_true(client->sent <= COUNT(client->codes));
    for (size_t i = 0; i < client->sent; i++)
        count += client->codes[i] == code;
    return count;
}

/* It got this refusal, as its last line, and is gone. */
static void check_refused(const struct client *client, int code)
{
    assert_true(client->closed);
    assert_int_equal(last_code(client), code);
    assert_true(client->said_why);
}

/* What somebody from there would be told at the door. */
static enum reason admission(const struct peer_address *peer)
{
    return sessions_admit(world->sessions, peer, world->now);
}

static uint64_t refused(enum reason reason)
{
    return sessions_counters(world->sessions)->refused[reason];
}

static uint64_t ended(enum reason reason)
{
    return sessions_counters(world->sessions)->ended[reason];
}

/* ---- the way in ---- */

static void session_walks_through_its_three_questions(void **state)
{
    struct client *client = come();

    (void)state;
    assert_int_equal(last_code(client), PROTO_PASSWORD);
    assert_int_equal(sessions_pending(world->sessions), 1);
    feed(client, "secret");
    assert_int_equal(last_code(client), PROTO_ID);
    feed(client, "web-1");
    assert_int_equal(client->sent, 2);
    assert_int_equal(sessions_connected(world->sessions), 0);
    check_invariants();
    advance(3 * S);
    turn();
    assert_int_equal(client->sent, 3);
    assert_int_equal(last_code(client), PROTO_CONNECTED);
    assert_int_equal(sessions_connected(world->sessions), 1);
    assert_int_equal(sessions_pending(world->sessions), 0);
    check_rows();

    const struct registry_record *record = record_of("web-1");
    assert_int_equal(record->sid, 1);
    assert_true(record->connected);
    assert_int_equal(record->since, START_S + 3);
    assert_int_equal(record->last_seen, START_S + 3);
    assert_int_equal(record->reason, REASON_NONE);
}

static void session_is_not_welcome_before_the_store_says_so(void **state)
{
    struct client *client = claim("a");

    (void)state;
    live(5 * S);
    assert_int_equal(client->sent, 2);
    assert_false(record_of("a")->connected);
    turn();
    assert_int_equal(last_code(client), PROTO_CONNECTED);
}

static void session_with_a_wrong_password_gets_410_and_leaves_no_trace(void **state)
{
    static const char *const passwords[] = {"Secret", "secre", "secrets", "web-1", "100"};

    (void)state;
    for (size_t i = 0; i < COUNT(passwords); i++) {
        struct client *client = come();
        feed(client, passwords[i]);
        check_refused(client, 410);
    }
    assert_int_equal(refused(REASON_PASSWORD), COUNT(passwords));
    assert_int_equal(registry_count(world->registry), 0);
    assert_int_equal(world->store.registers, 0);
    check_rows();
}

static void session_with_an_id_that_its_connection_does_not_cover_gets_422(void **state)
{
    struct client *holder = enter("a");
    struct client *other = new_client();

    (void)state;
    other->proved_another = true;
    start(other);
    feed(other, "secret");
    feed(other, "a");
    check_refused(other, 422);
    assert_false(holder->closed);
    assert_int_equal(registry_count(world->registry), 1);
    check_invariants();
}

/* What the session is asked, by whom, and what it says. */
static void session_gets_422_for_an_id_that_its_password_does_not_cover(void **state)
{
    static const struct {
        const char *password;
        const char *id;
        int code;
    } rows[] = {
        {"secret", "web-1", 140},  {"secret", "anything", 140}, {"for-web", "web-2", 140},
        {"for-web", "web-", 140},  {"for-web", "nas-1", 422},   {"for-web", "web", 422},
        {"for-web", "Web-3", 422}, {"for-web", "xweb-1", 422},  {"for-nas", "nas-1", 140},
        {"for-nas", "nas-2", 422}, {"for-nas", "nas-10", 422},  {"old-nas", "nas-1", 421},
        {"for-nas", "web-1", 422}, {"for-web", "a b", 420},     {"for-web", "", 400},
        {"wrong", "web-1", 410},   {"for-web", "nas-*", 420},
    };
    unsigned not_allowed = 0;

    (void)state;
    world->options.duplicate_id = DUPLICATE_REJECT;
    reload_with(sections());
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct client *client = come();

        feed(client, rows[i].password);
        feed(client, rows[i].id);
        turn();
        if (last_code(client) != rows[i].code)
            fail_msg("%s, %s: %d", rows[i].password, rows[i].id, last_code(client));
        not_allowed += rows[i].code == 422;
    }
    assert_int_equal(refused(REASON_NOT_ALLOWED), not_allowed);
    assert_string_equal(credential_name(record_of("web-1")->credential), "auth");
    assert_string_equal(credential_name(record_of("web-2")->credential), "web");
    assert_string_equal(credential_name(record_of("nas-1")->credential), "nas");
    assert_null(record_of("nas-2"));
    check_rows();
}

/* Or whoever has a password for something else could find out who is there, and make the holder
 * answer. */
static void session_that_may_not_have_an_id_does_not_disturb_its_holder(void **state)
{
    static const enum duplicate_policy policies[] = {DUPLICATE_PROBE, DUPLICATE_TAKEOVER,
                                                     DUPLICATE_REJECT};
    struct client *holder = enter("nas-1");

    (void)state;
    for (size_t i = 0; i < COUNT(policies); i++) {
        world->options.duplicate_id = policies[i];
        reload_with(sections());
        const size_t sent = holder->sent;
        struct client *client = come();
        feed(client, "for-web");
        feed(client, "nas-1");
        check_refused(client, 422);
        assert_int_equal(holder->sent, sent);
        assert_string_equal(credential_name(record_of("nas-1")->credential), "auth");
    }
    check_rows();
}

static void record_keeps_the_credential_of_its_last_session(void **state)
{
    (void)state;
    reload_with(sections());
    struct client *client = come();
    feed(client, "old-nas");
    feed(client, "nas-1");
    assert_int_equal(record_of("nas-1")->credential, 0); /* not before its 140 */
    assert_string_equal(credential_name(world->store.changes[0].credential), "nas");
    turn();
    assert_int_equal(client->session.login.password, 2);
    assert_string_equal(credential_name(record_of("nas-1")->credential), "nas");
    session_end(&client->session, REASON_LEFT, world->now);
    assert_string_equal(credential_name(record_of("nas-1")->credential), "nas");

    /* A claim that the store refuses changes nothing. */
    struct client *refused_one = claim("nas-1");
    turn_with(STORE_UNAVAILABLE);
    check_refused(refused_one, 451);
    assert_string_equal(credential_name(record_of("nas-1")->credential), "nas");
    (void)enter("nas-1");
    assert_string_equal(credential_name(record_of("nas-1")->credential), "auth");
}

/* A reload between the password and the ID: what holds when the ID comes counts. */
static void session_between_password_and_id_is_judged_by_what_a_reload_left(void **state)
{
    struct credentials *others = credentials_new();
    struct client *clients[4];
    static const char *const passwords[] = {"for-web", "for-nas", "old-nas", "secret"};

    (void)state;
    reload_with(sections());
    for (size_t i = 0; i < COUNT(clients); i++) {
        clients[i] = come();
        feed(clients[i], passwords[i]);
        assert_int_equal(last_code(clients[i]), PROTO_ID);
    }
    /* Another order, web is gone, nas has another password and covers other IDs. */
    assert_int_equal(credentials_begin(others, "nas", "disk-*"), CREDENTIAL_ADDED);
    assert_int_equal(credentials_add(others, "new-nas", 7), CREDENTIAL_ADDED);
    assert_int_equal(credentials_begin(others, "other", "*"), CREDENTIAL_ADDED);
    assert_int_equal(credentials_add(others, "for-web", 7), CREDENTIAL_ADDED);
    assert_int_equal(credentials_begin(others, "auth", NULL), CREDENTIAL_ADDED);
    reload_with(others);

    feed(clients[0], "web-1");
    check_refused(clients[0], 422);
    feed(clients[1], "nas-1");
    check_refused(clients[1], 422);
    feed(clients[2], "disk-1");
    feed(clients[3], "any");
    turn();
    assert_int_equal(last_code(clients[2]), PROTO_CONNECTED);
    assert_string_equal(credential_name(record_of("disk-1")->credential), "nas");
    assert_int_equal(last_code(clients[3]), PROTO_CONNECTED);
    check_rows();
}

static void connected_session_stays_when_a_reload_takes_its_credential_away(void **state)
{
    (void)state;
    reload_with(sections());
    struct client *client = come();
    feed(client, "for-web");
    feed(client, "web-1");
    turn();
    reload();
    live(60 * S);
    assert_false(client->closed);
    assert_string_equal(credential_name(record_of("web-1")->credential), "web");
}

static void session_with_an_invalid_id_gets_420_and_leaves_no_trace(void **state)
{
    static const char *const ids[] = {
        "two words", "a/b", "\xc3\xa9", "a;b",
        "-----------------------------------------------------------------"};

    (void)state;
    for (size_t i = 0; i < COUNT(ids); i++)
        check_refused(claim(ids[i]), 420);
    assert_int_equal(refused(REASON_INVALID_ID), COUNT(ids));
    assert_int_equal(registry_count(world->registry), 0);
    check_rows();
}

static void session_with_an_empty_or_impossible_line_gets_400(void **state)
{
    struct client *at_password = come();
    struct client *at_id = come();
    struct client *bad_at_password = come();
    struct client *bad_at_id = come();
    struct client *registering = claim("a");
    struct client *connected = enter("b");

    (void)state;
    feed(at_password, "");
    check_refused(at_password, 400);
    feed(at_id, "secret");
    feed(at_id, "");
    check_refused(at_id, 400);
    session_bad_line(&bad_at_password->session, PROTO_ERR_NUL, world->now);
    check_refused(bad_at_password, 400);
    feed(bad_at_id, "secret");
    session_bad_line(&bad_at_id->session, PROTO_ERR_NUL, world->now);
    check_refused(bad_at_id, 400);
    assert_true(is_connected(registering));
    session_bad_line(&registering->session, PROTO_ERR_NUL, world->now);
    check_refused(registering, 400);
    session_bad_line(&connected->session, PROTO_ERR_NUL, world->now);
    check_refused(connected, 400);
    session_bad_line(&connected->session, PROTO_ERR_NUL, world->now);
    assert_int_equal(refused(REASON_PROTOCOL), 4);
    assert_int_equal(ended(REASON_PROTOCOL), 2);
    turn();
    check_rows();
}

/* Whether there is a 140 must not depend on how the bytes behind the ID were cut. */
static void session_holds_what_is_no_line_until_it_is_connected(void **state)
{
    struct client *client = claim("a");

    (void)state;
    assert_false(session_bad_line(&client->session, PROTO_ERR_NUL, world->now));
    assert_int_equal(client->codes[client->sent - 1], 120);
    turn();
    assert_int_equal(client->codes[client->sent - 1], 140);
    assert_true(session_bad_line(&client->session, PROTO_ERR_NUL, world->now));
    check_refused(client, 400);
    turn();
    check_rows();
}

static void session_holds_an_early_line_until_it_is_connected(void **state)
{
    struct client *client = claim("a");

    (void)state;
    feed(client, "100");
    assert_true(client->is_held);
    assert_false(client->resumed);
    turn();
    assert_false(client->is_held);
    assert_int_equal(sessions_counters(world->sessions)->keepalives_answered, 1);
    assert_true(is_connected(client));
}

static void session_serials_are_never_the_same(void **state)
{
    uint64_t last = 0;

    (void)state;
    for (int i = 0; i < 50; i++) {
        struct client *client = come();
        assert_true(client->session.serial > last);
        last = client->session.serial;
        session_end(&client->session, REASON_LEFT, world->now);
    }
}

static void session_that_comes_back_has_its_record_and_sid_again(void **state)
{
    struct client *first;
    const struct registry_record *record;

    (void)state;
    (void)enter("a");
    first = enter("b");
    (void)enter("c");
    session_end(&first->session, REASON_LEFT, world->now);
    record = record_of("b");
    assert_false(record->connected);
    assert_int_equal(record->reason, REASON_LEFT);
    assert_false(first->said_why);
    advance(60 * S);
    (void)enter("d");
    assert_int_equal(record_of("d")->sid, 4);
    (void)enter("b");
    assert_ptr_equal(record_of("b"), record);
    assert_int_equal(record->sid, 2);
    assert_int_equal(record->since, START_S + 60);
    assert_int_equal(record->reason, REASON_LEFT);
    turn();
    check_rows();
}

static void session_end_is_for_once(void **state)
{
    struct client *client = enter("a");

    (void)state;
    session_end(&client->session, REASON_LEFT, world->now);
    session_end(&client->session, REASON_RESTARTING, world->now);
    assert_true(session_line(&client->session, "100", 3, world->now));
    session_bad_line(&client->session, PROTO_ERR_NUL, world->now);
    assert_int_equal(client->sent, 3);
    assert_int_equal(ended(REASON_LEFT), 1);
    turn();
    check_rows();
}

static void session_ended_for_a_reason_says_what_belongs_to_it(void **state)
{
    (void)state;
    for (int i = REASON_LEFT; i < REASON_COUNT; i++) {
        struct client *client = enter("a");
        session_end(&client->session, (enum reason)i, world->now);
        assert_true(client->closed);
        assert_int_equal(client->said_why, reason_refusal((enum reason)i) != 0);
        assert_int_equal(last_code(client), reason_refusal((enum reason)i) != 0
                                                ? reason_refusal((enum reason)i)
                                                : PROTO_CONNECTED);
        assert_int_equal(record_of("a")->reason, i);
        assert_int_equal(ended((enum reason)i), 1);
        turn();
        check_rows();
    }
}

static void session_that_leaves_after_130_has_reason_shutdown(void **state)
{
    static const enum reason ends[] = {REASON_LEFT, REASON_RESET};

    (void)state;
    for (size_t i = 0; i < COUNT(ends); i++) {
        struct client *client = enter("a");
        tell(client);
        session_end(&client->session, ends[i], world->now);
        assert_int_equal(record_of("a")->reason, REASON_SHUTDOWN);
        assert_int_equal(ended(REASON_SHUTDOWN), i + 1);
    }
    struct client *client = enter("a");
    tell(client);
    session_end(&client->session, REASON_SLOW, world->now);
    assert_int_equal(record_of("a")->reason, REASON_SLOW);
    turn();
    check_rows();
}

static void session_that_was_told_is_leaving_until_it_is_gone(void **state)
{
    struct client *told = enter("a");
    struct client *other = enter("b");

    (void)state;
    assert_int_equal(sessions_leaving(world->sessions), 0);
    tell(told);
    tell(told); /* once is enough */
    assert_int_equal(sessions_leaving(world->sessions), 1);
    assert_int_equal(sessions_connected(world->sessions), 2);
    session_end(&other->session, REASON_LEFT, world->now);
    assert_int_equal(sessions_leaving(world->sessions), 1);
    session_end(&told->session, REASON_LEFT, world->now);
    assert_int_equal(sessions_leaving(world->sessions), 0);
    turn();
    check_rows();
}

static void session_handshake_lasts_from_the_accept_to_140(void **state)
{
    const struct duration_histogram *handshakes = &sessions_counters(world->sessions)->handshakes;
    struct client *client = come();

    (void)state;
    advance(100);
    feed(client, "secret");
    advance(100);
    feed(client, "a");
    assert_int_equal(handshakes->total, 0);
    advance(50);
    turn();
    assert_int_equal(handshakes->total, 1);
    assert_int_equal(handshakes->sum_us, 250);

    /* One that does not come to its end is none. */
    client = come();
    feed(client, "wrong");
    assert_true(client->closed);
    assert_int_equal(handshakes->total, 1);
}

/* ---- the handshake's one deadline ---- */

static void handshake_unfinished_at_its_deadline_gets_408(void **state)
{
    struct client *at_password = come();
    struct client *at_id = come();
    struct client *at_store = claim("a");

    (void)state;
    feed(at_id, "secret");
    live(HANDSHAKE_US - 1);
    check_invariants();
    assert_int_equal(sessions_pending(world->sessions), 3);
    assert_true(sessions_next_us(world->sessions) <= START_US + HANDSHAKE_US);
    live(1);
    check_refused(at_password, 408);
    check_refused(at_id, 408);
    check_refused(at_store, 408);
    assert_int_equal(refused(REASON_TIMED_OUT), 3);
    /* Granted to one who has gone. */
    turn();
    turn();
    assert_false(record_of("a")->connected);
    check_rows();
}

static void handshake_deadline_is_each_ones_own(void **state)
{
    struct client *clients[10];

    (void)state;
    for (size_t i = 0; i < COUNT(clients); i++) {
        clients[i] = come();
        advance(100 * MS);
    }
    for (size_t i = 0; i < COUNT(clients); i++) {
        live(START_US + i * 100 * MS + HANDSHAKE_US - 1 - world->now.mono_us);
        assert_false(clients[i]->closed);
        live(1);
        check_refused(clients[i], 408);
    }
}

/* One answer at the last moment does not buy time for the next. */
static void handshake_that_drips_gets_no_more_time(void **state)
{
    struct client *early = come();
    struct client *late = come();
    struct client *at_the_look = come();

    (void)state;
    live(HANDSHAKE_US / 2);
    feed(early, "secret");
    live(HANDSHAKE_US / 2 - 1);
    feed(late, "secret");
    strcpy(at_the_look->waiting[at_the_look->waiting_count++], "secret");
    assert_int_equal(last_code(late), PROTO_ID);
    live(1);
    check_refused(early, 408);
    check_refused(late, 408);
    check_refused(at_the_look, 408);
    assert_int_equal(at_the_look->looks, 1);
}

static void handshake_finished_in_time_by_the_last_look_is_welcome(void **state)
{
    struct client *id_waits = come();
    struct client *both_wait = come();

    (void)state;
    feed(id_waits, "secret");
    strcpy(id_waits->waiting[id_waits->waiting_count++], "a");
    strcpy(both_wait->waiting[both_wait->waiting_count++], "secret");
    strcpy(both_wait->waiting[both_wait->waiting_count++], "b");
    live(HANDSHAKE_US);
    assert_int_equal(id_waits->looks, 1);
    assert_true(is_registering(id_waits));
    assert_true(is_registering(both_wait));
    turn();
    assert_true(is_connected(id_waits));
    assert_true(is_connected(both_wait));
    check_rows();
}

static void crowded_turn_hears_those_who_are_on_their_way(void **state)
{
    struct client *connected = come();
    struct client *right = come();
    struct client *wrong = come();

    (void)state;
    feed(connected, "secret");
    feed(connected, "a");
    turn();
    strcpy(right->waiting[right->waiting_count++], "secret");
    strcpy(right->waiting[right->waiting_count++], "b");
    strcpy(wrong->waiting[wrong->waiting_count++], "no secret");
    sessions_look_at_pending(world->sessions, world->now);
    assert_int_equal(connected->looks, 0);
    assert_true(is_registering(right));
    check_refused(wrong, 410);
    turn();
    assert_true(is_connected(right));
    check_rows();
}

static void crowded_turn_looks_at_the_newest_only(void **state)
{
    struct client *oldest = come();
    struct client *second = come();

    (void)state;
    for (int i = 0; i < 255; i++)
        (void)come();
    sessions_look_at_pending(world->sessions, world->now);
    assert_int_equal(oldest->looks, 0);
    assert_int_equal(second->looks, 1);
}

static void handshake_last_look_that_ends_the_session_counts_once(void **state)
{
    struct client *wrong = come();
    struct client *invalid = come();

    (void)state;
    strcpy(wrong->waiting[wrong->waiting_count++], "wrong");
    feed(invalid, "secret");
    strcpy(invalid->waiting[invalid->waiting_count++], "not an id");
    live(HANDSHAKE_US + S);
    check_refused(wrong, 410);
    check_refused(invalid, 420);
    assert_int_equal(refused(REASON_TIMED_OUT), 0);
    check_invariants();
}

/*
 * The server was stopped, or a disk held it up; answers wait in the kernel. The event loop may hand
 * them over before the timer fires, or the timer comes first and looks.
 */
static void check_server_late(bool before_the_tick, const char *const *lines, size_t count,
                              uint64_t late_us)
{
    struct client *client = come();

    if (count > 0 && strcmp(lines[0], "secret") != 0)
        feed(client, "secret");
    advance(HANDSHAKE_US + late_us);
    for (size_t i = 0; i < count; i++) {
        if (before_the_tick)
            feed(client, lines[i]);
        else
            strcpy(client->waiting[client->waiting_count++], lines[i]);
    }
    sessions_tick(world->sessions, world->now);
    if (count == 0) {
        check_refused(client, 408);
        return;
    }
    assert_false(client->closed);
    check_invariants();
    sessions_tick(world->sessions, world->now);
    assert_false(client->closed);

    /* It gets the time again, once: then it is silent. */
    const uint64_t again_us = world->now.mono_us;
    if (is_registering(client)) {
        turn();
        assert_true(is_connected(client));
        session_end(&client->session, REASON_LEFT, world->now);
        return;
    }
    live(HANDSHAKE_US - 1);
    assert_false(client->closed);
    assert_in_range(sessions_next_us(world->sessions), again_us, again_us + HANDSHAKE_US);
    live(1);
    check_refused(client, 408);
}

static void handshake_of_a_client_that_a_late_server_kept_waiting_goes_on(void **state)
{
    static const char *const password[] = {"secret"};
    static const char *const id[] = {"a"};
    static const char *const both[] = {"secret", "a"};
    static const uint64_t stalls[] = {S, 5 * S, 60 * S, 3600 * S};

    (void)state;
    for (size_t i = 0; i < COUNT(stalls); i++) {
        for (int before = 0; before <= 1; before++) {
            check_server_late(before, password, 1, stalls[i]);
            check_server_late(before, id, 1, stalls[i]);
            check_server_late(before, both, 2, stalls[i]);
        }
        check_server_late(false, NULL, 0, stalls[i]);
    }
    turn();
    check_rows();
}

static void handshake_timeout_changed_by_a_reload_holds_for_everyone(void **state)
{
    struct client *client = come();

    (void)state;
    world->options.handshake_timeout_ms = 2000;
    reload();
    live(2 * S - 1);
    assert_false(client->closed);
    live(1);
    check_refused(client, 408);
}

/* ---- one ID, two clients: probe ---- */

static void probe_answered_by_the_holder_refuses_the_newcomer(void **state)
{
    struct client *holder = enter("a");
    struct client *newcomer = claim("a");

    (void)state;
    assert_int_equal(last_code(holder), PROTO_KEEP_ALIVE);
    assert_true(is_registering(newcomer));
    check_invariants();
    live(PROBE_US - 1);
    assert_false(newcomer->closed);
    feed(holder, "100");
    check_refused(newcomer, 421);
    assert_true(is_connected(holder));
    assert_int_equal(refused(REASON_DUPLICATE), 1);
    assert_int_equal(world->store.registers, 1);
    live(5 * PROBE_US);
    assert_true(is_connected(holder));
    check_rows();
}

static void probe_unanswered_for_two_seconds_replaces_the_holder(void **state)
{
    struct client *holder = enter("a");
    struct client *newcomer;

    (void)state;
    live(777 * MS); /* counted from the probe, not from the holder's coming */
    newcomer = claim("a");
    live(PROBE_US - 1);
    assert_false(holder->closed);
    assert_int_equal(newcomer->sent, 2);
    assert_true(sessions_next_us(world->sessions) <= START_US + 777 * MS + PROBE_US);
    live(1);
    check_refused(holder, 431);
    assert_int_equal(ended(REASON_REPLACED), 1);
    assert_int_equal(newcomer->sent, 2); /* not before the store knows */
    turn();
    assert_int_equal(last_code(newcomer), PROTO_CONNECTED);
    assert_int_equal(record_of("a")->reason, REASON_REPLACED);
    assert_true(record_of("a")->connected);
    assert_memory_equal(&record_of("a")->peer, &newcomer->peer, sizeof(newcomer->peer));
    check_rows();
}

static void probe_answer_that_waits_in_the_kernel_saves_the_holder(void **state)
{
    struct client *holder = enter("a");
    struct client *newcomer = claim("a");

    (void)state;
    strcpy(holder->waiting[holder->waiting_count++], "100");
    advance(PROBE_US + 5 * S); /* the server was stopped */
    sessions_tick(world->sessions, world->now);
    assert_true(is_connected(holder));
    check_refused(newcomer, 421);
    check_rows();
}

static void probe_last_look_that_finds_garbage_ends_the_holder_once(void **state)
{
    struct client *holder = enter("a");
    struct client *newcomer;

    (void)state;
    for (int i = 0; i < SERVER_FSM_MAX_UNASKED; i++)
        feed(holder, "noise");
    newcomer = claim("a");
    for (int i = 0; i < 8; i++)
        strcpy(holder->waiting[holder->waiting_count++], "noise");
    feed(holder, "noise");
    live(PROBE_US);
    assert_true(holder->closed);
    assert_int_equal(counted(sessions_counters(world->sessions)->ended), 1);
    turn();
    assert_true(is_connected(newcomer));
    check_rows();
}

static void probe_second_newcomer_is_refused_and_changes_nothing(void **state)
{
    struct client *holder = enter("a");
    struct client *first = claim("a");
    struct client *second;
    struct client *third;

    (void)state;
    live(PROBE_US / 2);
    second = claim("a");
    check_refused(second, 421);
    live(PROBE_US / 2 - 1);
    third = claim("a");
    check_refused(third, 421);
    assert_int_equal(times_sent(holder, PROTO_KEEP_ALIVE), 1);
    live(1);
    check_refused(holder, 431);
    turn();
    assert_true(is_connected(first));
    check_rows();
}

static void probe_newcomer_that_leaves_leaves_the_holder_alone(void **state)
{
    struct client *holder = enter("a");
    struct client *newcomer = claim("a");
    struct client *next;

    (void)state;
    live(PROBE_US / 2);
    session_end(&newcomer->session, REASON_RESET, world->now);
    assert_int_equal(refused(REASON_RESET), 1);
    check_invariants();
    live(5 * S);
    assert_true(is_connected(holder));

    /* And the next one starts a probe of its own, with its own two seconds. */
    next = claim("a");
    assert_true(is_registering(next));
    assert_int_equal(last_code(holder), PROTO_KEEP_ALIVE);
    live(PROBE_US - 1);
    assert_false(holder->closed);
    live(1);
    check_refused(holder, 431);
    turn();
    assert_true(is_connected(next));
    check_rows();
}

static void probe_holder_that_leaves_makes_room_at_once(void **state)
{
    static const enum reason ends[] = {REASON_LEFT, REASON_RESET, REASON_SLOW, REASON_PROTOCOL};

    (void)state;
    for (size_t i = 0; i < COUNT(ends); i++) {
        struct client *holder = enter("a");
        struct client *newcomer = claim("a");
        session_end(&holder->session, ends[i], world->now);
        assert_false(newcomer->closed);
        check_invariants();
        turn();
        assert_true(is_connected(newcomer));
        assert_int_equal(record_of("a")->reason, ends[i]);
        check_rows();
        live(3 * PROBE_US);
        assert_true(is_connected(newcomer));
        session_end(&newcomer->session, REASON_LEFT, world->now);
        turn();
    }
}

static void probe_holder_found_gone_by_the_100_makes_room_at_once(void **state)
{
    struct client *holder = enter("a");
    struct client *newcomer;

    (void)state;
    holder->fails_at = PROTO_KEEP_ALIVE;
    newcomer = claim("a");
    assert_true(holder->closed);
    assert_true(is_registering(newcomer));
    check_invariants();
    turn();
    assert_true(is_connected(newcomer));
    assert_int_equal(record_of("a")->reason, REASON_RESET);
    check_rows();
}

static void probe_holder_found_gone_by_the_431_makes_room(void **state)
{
    struct client *holder = enter("a");
    struct client *newcomer = claim("a");

    (void)state;
    holder->fails_at = 431;
    live(PROBE_US);
    assert_true(holder->closed);
    assert_int_equal(counted(sessions_counters(world->sessions)->ended), 1);
    turn();
    assert_true(is_connected(newcomer));
    check_rows();
}

static void probe_of_a_registering_holder_refuses_the_newcomer(void **state)
{
    struct client *holder = claim("a");

    (void)state;
    check_refused(claim("a"), 421);
    assert_int_equal(holder->sent, 2);
    turn();
    assert_true(is_connected(holder));
    check_rows();
}

static void probe_of_a_leaving_holder_asks_it(void **state)
{
    struct client *holder = enter("a");
    struct client *newcomer;

    (void)state;
    tell(holder);
    newcomer = claim("a");
    assert_int_equal(last_code(holder), PROTO_KEEP_ALIVE);
    feed(holder, "100");
    check_refused(newcomer, 421);

    newcomer = claim("a");
    session_end(&holder->session, REASON_LEFT, world->now);
    turn();
    assert_true(is_connected(newcomer));
    assert_int_equal(record_of("a")->reason, REASON_SHUTDOWN);
    check_rows();
}

static void probe_outlasting_the_newcomers_handshake_leaves_the_holder(void **state)
{
    struct client *holder = enter("a");
    struct client *newcomer = come();

    (void)state;
    feed(newcomer, "secret");
    live(HANDSHAKE_US - S);
    feed(newcomer, "a");
    assert_true(is_registering(newcomer));
    live(S);
    check_refused(newcomer, 408);
    check_invariants();
    live(5 * S);
    assert_true(is_connected(holder));
    check_rows();
}

/* require_reply = no is about keep-alives; a holder that says nothing still loses its ID. */
static void probe_replaces_a_silent_holder_whatever_require_reply_says(void **state)
{
    struct client *holder;
    struct client *newcomer;

    (void)state;
    world->options.require_reply = SERVER_FSM_REPLY_NO;
    reload();
    holder = enter("a");
    newcomer = claim("a");
    live(PROBE_US);
    check_refused(holder, 431);
    turn();
    assert_true(is_connected(newcomer));
}

static void probe_of_many_ids_at_once_keeps_them_apart(void **state)
{
    struct client *holders[20];
    struct client *newcomers[20];
    char id[16];

    (void)state;
    for (size_t i = 0; i < COUNT(holders); i++) {
        snprintf(id, sizeof(id), "c%zu", i);
        holders[i] = enter(id);
    }
    for (size_t i = 0; i < COUNT(holders); i++) {
        snprintf(id, sizeof(id), "c%zu", i);
        newcomers[i] = claim(id);
        live(10 * MS);
    }
    for (size_t i = 0; i < COUNT(holders); i += 3)
        feed(holders[i], "100");
    for (size_t i = 1; i < COUNT(holders); i += 3)
        session_end(&newcomers[i]->session, REASON_LEFT, world->now);
    check_invariants();
    live(PROBE_US);
    turn();
    for (size_t i = 0; i < COUNT(holders); i++) {
        assert_int_equal(is_connected(holders[i]), i % 3 != 2);
        assert_int_equal(is_connected(newcomers[i]), i % 3 == 2);
    }
    check_rows();
}

/* ---- takeover and reject ---- */

static void use_policy(enum duplicate_policy policy)
{
    world->options.duplicate_id = (int)policy;
    reload();
}

static void takeover_replaces_a_connected_holder_at_once(void **state)
{
    struct client *holder = enter("a");
    struct client *newcomer;

    (void)state;
    use_policy(DUPLICATE_TAKEOVER);
    newcomer = claim("a");
    check_refused(holder, 431);
    assert_int_equal(times_sent(holder, PROTO_KEEP_ALIVE), 0);
    assert_int_equal(newcomer->sent, 2);
    check_invariants();
    turn();
    assert_true(is_connected(newcomer));
    check_rows();
}

static void takeover_replaces_a_leaving_holder(void **state)
{
    struct client *holder = enter("a");
    struct client *newcomer;

    (void)state;
    use_policy(DUPLICATE_TAKEOVER);
    tell(holder);
    newcomer = claim("a");
    check_refused(holder, 431);
    turn();
    assert_true(is_connected(newcomer));
    check_rows();
}

static void takeover_of_a_registering_holder_welcomes_the_last_only(void **state)
{
    struct client *clients[6];

    (void)state;
    use_policy(DUPLICATE_TAKEOVER);
    for (size_t i = 0; i < COUNT(clients); i++) {
        clients[i] = claim("a");
        check_invariants();
    }
    turn();
    for (size_t i = 0; i + 1 < COUNT(clients); i++) {
        check_refused(clients[i], 431);
        assert_int_equal(times_sent(clients[i], PROTO_CONNECTED), 0);
    }
    assert_true(is_connected(clients[COUNT(clients) - 1]));
    assert_int_equal(refused(REASON_REPLACED), COUNT(clients) - 1);
    check_rows();
}

static void takeover_of_a_holder_that_is_gone_already_counts_it_once(void **state)
{
    struct client *holder = enter("a");
    struct client *newcomer;

    (void)state;
    use_policy(DUPLICATE_TAKEOVER);
    holder->fails_at = 431;
    newcomer = claim("a");
    assert_true(holder->closed);
    assert_int_equal(counted(sessions_counters(world->sessions)->ended), 1);
    turn();
    assert_true(is_connected(newcomer));
    check_rows();
}

static void reject_refuses_the_newcomer_whatever_the_holder_does(void **state)
{
    struct client *connected = enter("a");
    struct client *registering = claim("b");
    struct client *leaving = enter("c");

    (void)state;
    use_policy(DUPLICATE_REJECT);
    tell(leaving);
    check_refused(claim("a"), 421);
    check_refused(claim("b"), 421);
    check_refused(claim("c"), 421);
    assert_int_equal(times_sent(connected, PROTO_KEEP_ALIVE), 0);
    turn();
    assert_true(is_connected(connected));
    assert_true(is_connected(registering));
    assert_true(is_connected(leaving));
    session_end(&connected->session, REASON_LEFT, world->now);
    (void)enter("a");
    turn();
    check_rows();
}

/* A probe runs, and a reload takes away what the newcomer came with: the ID is not given to it. */
static void reload_while_a_probe_runs_is_heeded_when_the_id_is_free(void **state)
{
    static const bool leaves[] = {false, true};

    (void)state;
    for (size_t i = 0; i < COUNT(leaves); i++) {
        struct client *holder;
        struct client *newcomer = come();

        use_policy(DUPLICATE_PROBE);
        reload_with(sections());
        holder = enter("web-1");
        feed(newcomer, "for-web");
        feed(newcomer, "web-1");
        assert_non_null(record_of("web-1")->probe);
        reload();
        if (leaves[i])
            session_end(&holder->session, REASON_LEFT, world->now);
        live(PROBE_US);
        turn();
        assert_true(holder->closed);
        check_refused(newcomer, 422);
        check_invariants();
        check_rows();
    }
}

/* A probe runs, and a reload changes the policy: at most one gets the ID, and the probe has its
 * end. */
static void policy_changed_while_a_probe_runs_gives_the_id_to_one(void **state)
{
    static const enum duplicate_policy policies[] = {DUPLICATE_TAKEOVER, DUPLICATE_REJECT};

    (void)state;
    for (size_t i = 0; i < COUNT(policies); i++) {
        for (int answers = 0; answers <= 1; answers++) {
            struct client *holder;
            struct client *newcomer;
            struct client *second;

            use_policy(DUPLICATE_PROBE);
            holder = enter("a");
            newcomer = claim("a");
            use_policy(policies[i]);
            second = claim("a");
            check_invariants();
            if (answers && !holder->closed)
                feed(holder, "100");
            live(PROBE_US);
            turn();
            check_rows();
            assert_int_equal(is_connected(holder) + is_connected(newcomer) + is_connected(second),
                             1);
            if (answers && !holder->closed)
                assert_true(is_connected(holder));
            session_end(&holder->session, REASON_LEFT, world->now);
            session_end(&newcomer->session, REASON_LEFT, world->now);
            session_end(&second->session, REASON_LEFT, world->now);
            turn();
        }
    }
}

/* ---- claims in flight ---- */

static void claim_the_store_cannot_take_now_gets_451(void **state)
{
    struct client *stranger = claim("a");
    struct client *known;

    (void)state;
    turn_with(STORE_UNAVAILABLE);
    check_refused(stranger, 451);
    assert_null(record_of("a"));
    check_rows();

    known = enter("b");
    session_end(&known->session, REASON_LEFT, world->now);
    turn();
    known = claim("b");
    turn_with(STORE_UNAVAILABLE);
    check_refused(known, 451);
    assert_int_equal(record_of("b")->reason, REASON_LEFT);
    assert_int_equal(refused(REASON_REGISTRY), 2);
    check_rows();
}

static void claim_of_an_id_that_lives_on_another_node_gets_421(void **state)
{
    struct client *client = claim("a");

    (void)state;
    turn_with(STORE_TAKEN);
    check_refused(client, 421);
    assert_null(record_of("a"));
    assert_int_equal(refused(REASON_DUPLICATE), 1);
    check_rows();
}

static void claim_without_memory_gets_451_and_leaves_no_trace(void **state)
{
    struct client *holder = enter("known");
    struct client *client;

    (void)state;
    world->store.out_of_memory = true;
    check_refused(claim("a"), 451);
    assert_null(record_of("a"));
    check_invariants();

    use_policy(DUPLICATE_TAKEOVER);
    client = claim("known");
    check_refused(holder, 431);
    check_refused(client, 451);
    check_invariants();

    world->store.out_of_memory = false;
    holder = enter("known");
    use_policy(DUPLICATE_PROBE);
    client = claim("known");
    world->store.out_of_memory = true;
    live(PROBE_US);
    check_refused(holder, 431);
    check_refused(client, 451);
    turn();
    check_rows();
}

static void claim_granted_to_a_session_that_has_gone_is_given_back(void **state)
{
    struct client *client = claim("a");

    (void)state;
    advance(2 * S);
    session_end(&client->session, REASON_RESET, world->now);
    assert_non_null(record_of("a"));
    check_invariants();
    advance(2 * S);
    commit(world->store.count, STORE_OK);
    assert_int_equal(client->sent, 2);
    assert_int_equal(world->store.disconnects, 1);
    commit(world->store.count, STORE_OK);
    check_rows();
    /* Its row went from connected to disconnected just now. */
    assert_int_equal(record_of("a")->since, START_S + 4);
    assert_int_equal(refused(REASON_RESET), 1);
    assert_int_equal(counted(sessions_counters(world->sessions)->ended), 0);
}

static void claim_refused_to_a_session_that_has_gone_leaves_no_trace(void **state)
{
    static const enum store_result results[] = {STORE_UNAVAILABLE, STORE_TAKEN};

    (void)state;
    for (size_t i = 0; i < COUNT(results); i++) {
        struct client *client = claim("a");
        session_end(&client->session, REASON_LEFT, world->now);
        commit(world->store.count, results[i]);
        assert_null(record_of("a"));
        assert_int_equal(world->store.disconnects, 0);
        check_rows();
    }
}

static void claim_of_the_next_session_is_not_answered_by_the_last_ones(void **state)
{
    struct client *first = claim("a");
    struct client *second;

    (void)state;
    session_end(&first->session, REASON_LEFT, world->now);
    second = claim("a");
    assert_true(is_registering(second));
    commit(1, STORE_OK);
    assert_true(is_registering(second));
    assert_int_equal(second->sent, 2);
    check_invariants();
    turn();
    assert_true(is_connected(second));
    check_rows();
}

/*
 * Three sessions claim one ID, one after the other, and each answer may be any; the last may be
 * there still, or gone before any of the answers. In the end the rows are right, whatever happened.
 */
static void claims_in_flight_for_one_record_end_with_the_right_row(void **state)
{
    (void)state;
    for (int known = 0; known <= 1; known++) {
        for (int results = 0; results < 27; results++) {
            for (int gone_before = 0; gone_before <= 4; gone_before++) {
                const enum store_result given[] = {(enum store_result)(results % 3),
                                                   (enum store_result)(results / 3 % 3),
                                                   (enum store_result)(results / 9)};
                struct client *client = NULL;
                char id[32];

                snprintf(id, sizeof(id), "%d-%d-%d", known, results, gone_before);
                if (known) {
                    client = enter(id);
                    session_end(&client->session, REASON_LEFT, world->now);
                    turn();
                }
                for (int i = 0; i < 3; i++) {
                    if (client)
                        session_end(&client->session, REASON_RESET, world->now);
                    client = claim(id);
                    check_invariants();
                }
                for (int i = 0; i < 3; i++) {
                    if (gone_before == i)
                        session_end(&client->session, REASON_RESET, world->now);
                    commit(1, given[i]);
                    check_invariants();
                }
                if (gone_before == 3)
                    session_end(&client->session, REASON_RESET, world->now);
                if (gone_before > 2)
                    assert_int_equal(times_sent(client, PROTO_CONNECTED), given[2] == STORE_OK);
                while (world->store.count > 0)
                    commit(1, STORE_OK);
                check_rows();
                session_end(&client->session, REASON_LEFT, world->now);
                if (record_of(id)) {
                    /* Keeps the numbers small: forgotten as an operator would. */
                    turn();
                    store_forget(&world->store, record_of(id), world->now);
                    registry_remove(world->registry, record_of(id));
                }
                turn();
                check_rows();
            }
        }
    }
}

/* ---- a peer that is gone when it is spoken to ---- */

static void send_that_finds_the_peer_gone_ends_the_session_once(void **state)
{
    static const int codes[] = {110, 120, 140, 100, 400, 408, 410, 420, 421, 431, 451, 460, -1};
    static const enum reason reasons[] = {REASON_RESET, REASON_SLOW, REASON_RESOURCES};

    (void)state;
    for (size_t r = 0; r < COUNT(reasons); r++) {
        for (size_t i = 0; i < COUNT(codes); i++) {
            /* Each of these steps is taken by a client of its own; some never get to that code. */
            for (int way = 0; way < 9; way++) {
                struct client *client = new_client();
                struct client *other = NULL;

                client->fails_at = codes[i];
                client->fail_with = reasons[r];
                use_policy(way == 6 ? DUPLICATE_TAKEOVER : DUPLICATE_PROBE);
                start(client);
                feed(client, way == 0 ? "wrong" : "secret");
                if (way == 1)
                    feed(client, "not an id");
                else if (way != 2)
                    feed(client, "a");
                check_invariants();
                turn_with(way == 3 ? STORE_UNAVAILABLE : STORE_OK);
                check_invariants();
                if (way == 4)
                    session_end(&client->session, REASON_RESTARTING, world->now);
                if (way == 5 && !client->closed)
                    session_bad_line(&client->session, PROTO_ERR_NUL, world->now);
                if (way >= 6 && !client->closed)
                    other = claim("a");
                if (way == 8 && !client->closed)
                    feed(client, "100");
                check_invariants();
                live(HANDSHAKE_US + INTERVAL_US);
                check_invariants();
                turn();
                session_end(&client->session, REASON_LEFT, world->now);
                if (other)
                    session_end(&other->session, REASON_LEFT, world->now);
                turn();
                turn();
                check_rows();
                assert_true(client->closed);
                if (codes[i] == -1 || codes[i] == 110) {
                    assert_int_equal(client->sent, 1);
                    assert_false(client->said_why);
                }
            }
        }
    }
    assert_int_equal(sessions_connected(world->sessions), 0);
}

static void send_of_421_that_fails_in_the_holders_answer_hurts_nobody_else(void **state)
{
    struct client *holder = enter("a");
    struct client *newcomer = claim("a");

    (void)state;
    newcomer->fails_at = 421;
    feed(holder, "100");
    assert_true(newcomer->closed);
    assert_true(is_connected(holder));
    assert_int_equal(counted(sessions_counters(world->sessions)->refused), 1);
    check_rows();
}

/* ---- refusals without a word ---- */

static void refusals_unexplained_close_without_a_line(void **state)
{
    struct client *wrong;
    struct client *invalid;
    struct client *late;
    struct client *holder;
    struct client *newcomer;
    struct client *unlucky;

    (void)state;
    world->options.explain_refusals = false;
    reload();
    late = come();
    wrong = come();
    feed(wrong, "wrong");
    invalid = claim("not an id");
    holder = enter("a");
    newcomer = claim("a");
    feed(holder, "100");
    unlucky = claim("b");
    turn_with(STORE_UNAVAILABLE);
    live(HANDSHAKE_US);
    session_end(&holder->session, REASON_RESTARTING, world->now);
    struct client *const all[] = {wrong, invalid, late, holder, newcomer, unlucky};
    for (size_t i = 0; i < COUNT(all); i++) {
        assert_true(all[i]->closed);
        assert_false(all[i]->said_why);
        assert_true(last_code(all[i]) < 400);
    }
    assert_int_equal(refused(REASON_PASSWORD), 1);
    assert_int_equal(refused(REASON_INVALID_ID), 1);
    assert_int_equal(refused(REASON_TIMED_OUT), 1);
    assert_int_equal(refused(REASON_DUPLICATE), 1);
    assert_int_equal(refused(REASON_REGISTRY), 1);
    assert_int_equal(ended(REASON_RESTARTING), 1);
    assert_int_equal(record_of("a")->reason, REASON_RESTARTING);
    turn();
    check_rows();

    const struct peer_address peer = {.family = AF_INET};
    assert_int_equal(sessions_turn_away(world->sessions, &peer, REASON_FULL, world->now), 0);
    world->turned_away++;
}

static void newcomer_turned_away_is_told_450_and_counted(void **state)
{
    const struct peer_address peer = {.family = AF_INET};

    (void)state;
    world->options.limits.max_clients = 2;
    reload();
    assert_int_equal(admission(&peer), REASON_NONE);
    (void)enter("a");
    /* Those who are only on their way take nobody's place, or silence could fill the server. */
    struct client *silent = come();
    assert_int_equal(admission(&peer), REASON_NONE);
    struct client *second = enter("b");
    assert_int_equal(admission(&peer), REASON_FULL);
    assert_int_equal(sessions_turn_away(world->sessions, &peer, REASON_FULL, world->now), 450);
    assert_int_equal(sessions_turn_away(world->sessions, &peer, REASON_RESOURCES, world->now), 450);
    world->turned_away += 2;
    assert_int_equal(refused(REASON_FULL), 1);
    assert_int_equal(refused(REASON_RESOURCES), 1);
    check_invariants();
    session_end(&second->session, REASON_LEFT, world->now);
    session_end(&silent->session, REASON_LEFT, world->now);
    assert_int_equal(admission(&peer), REASON_NONE);
}

/* They came while there was room, and others were faster. */
static void claim_of_one_more_than_the_server_holds_gets_450(void **state)
{
    struct client *known = enter("known");
    struct client *first;
    struct client *second;
    struct client *third;

    (void)state;
    session_end(&known->session, REASON_LEFT, world->now);
    turn();
    world->options.limits.max_clients = 2;
    reload();
    first = claim("a");
    second = claim("b");
    third = claim("c");
    check_refused(third, 450);
    check_refused(claim("known"), 450);
    assert_null(record_of("c"));
    assert_false(record_of("known")->connected);
    turn();
    assert_true(is_connected(first) && is_connected(second));
    assert_int_equal(refused(REASON_FULL), 2);
    check_rows();

    /* Who takes an ID over takes its place as well. */
    third = claim("a");
    live(PROBE_US);
    check_refused(first, 431);
    turn();
    assert_true(is_connected(third));
    use_policy(DUPLICATE_TAKEOVER);
    first = enter("b");
    check_refused(second, 431);
    check_refused(claim("c"), 450);

    /* A place is free as soon as its session is over, whether or not it was registered. */
    session_end(&first->session, REASON_LEFT, world->now);
    first = claim("c");
    session_end(&first->session, REASON_LEFT, world->now);
    first = enter("d");
    assert_true(is_connected(first) && is_connected(third));
    turn();
    check_rows();
}

static void newcomers_are_turned_away_by_how_many_are_pending(void **state)
{
    const struct peer_address peer = {.family = AF_INET};
    unsigned admitted = 0;
    unsigned away = 0;

    (void)state;
    world->options.limits.max_pending = 100;
    reload();
    for (int i = 0; i < 2000; i++) {
        if (admission(&peer) == REASON_NONE) {
            (void)come();
            admitted++;
        } else {
            (void)sessions_turn_away(world->sessions, &peer, REASON_FULL, world->now);
            world->turned_away++;
            away++;
        }
        if (i < 50)
            assert_int_equal(away, 0);
    }
    assert_int_equal(admitted, 100);
    check_invariants();
}

/* ---- sources ---- */

static struct client *come_from(const struct peer_address *peer)
{
    struct client *client = new_client();

    client->peer = *peer;
    start(client);
    return client;
}

static struct client *enter_from(const struct peer_address *peer, const char *id)
{
    struct client *client = come_from(peer);

    feed(client, "secret");
    feed(client, id);
    turn();
    assert_true(is_connected(client));
    return client;
}

static void limit_sources(uint64_t max_per_source, uint64_t auth_failures)
{
    world->options.limits.max_per_source = max_per_source;
    world->options.limits.auth_failures = auth_failures;
    world->options.limits.auth_penalty_ms = 60000;
    reload();
}

static const struct peer_address here = {.family = AF_INET, .ip = {192, 0, 2, 1}};
static const struct peer_address there = {.family = AF_INET, .ip = {192, 0, 2, 2}};
static const struct peer_address local = {.family = AF_UNIX};

static void source_that_guesses_is_refused_until_its_penalty_is_over(void **state)
{
    struct client *connected;

    (void)state;
    limit_sources(0, 3);
    connected = enter_from(&here, "nas");
    for (int i = 0; i < 3; i++) {
        assert_int_equal(admission(&here), REASON_NONE);
        struct client *client = come_from(&here);
        feed(client, "guess");
        check_refused(client, 410);
        /* That somebody there knows the password does not give the guesser new tries. */
        session_end(&enter_from(&there, "web")->session, REASON_LEFT, world->now);
    }
    assert_int_equal(admission(&here), REASON_TOO_MANY);
    assert_int_equal(admission(&there), REASON_NONE);
    assert_int_equal(admission(&local), REASON_NONE);
    assert_int_equal(sessions_turn_away(world->sessions, &here, REASON_TOO_MANY, world->now), 429);
    world->turned_away++;
    assert_int_equal(refused(REASON_TOO_MANY), 1);
    assert_int_equal(sessions_counters(world->sessions)->penalties, 1);
    assert_int_equal(sessions_penalised_sources(world->sessions), 1);
    live(60 * S - 1);
    assert_int_equal(admission(&here), REASON_TOO_MANY);
    live(1);
    assert_int_equal(admission(&here), REASON_NONE);
    assert_true(is_connected(connected));
    live(1 * S);
    assert_int_equal(sessions_penalised_sources(world->sessions), 0);
    assert_int_equal(sessions_known_sources(world->sessions), 0);
    check_invariants();
}

static void source_success_does_not_wipe_out_its_failures(void **state)
{
    (void)state;
    limit_sources(0, 2);
    feed(come_from(&here), "guess");
    (void)enter_from(&here, "nas");
    feed(come_from(&here), "guess");
    assert_int_equal(admission(&here), REASON_TOO_MANY);
}

static void source_failures_are_wrong_passwords_only(void **state)
{
    struct client *client;

    (void)state;
    limit_sources(0, 1);
    client = come_from(&here);
    feed(client, "");
    check_refused(client, 400);
    client = come_from(&here);
    feed(client, "secret");
    feed(client, "not an id");
    check_refused(client, 420);
    client = come_from(&here);
    client->proved_another = true;
    feed(client, "secret");
    feed(client, "nas");
    check_refused(client, 422);
    session_end(&come_from(&here)->session, REASON_LEFT, world->now);
    assert_int_equal(admission(&here), REASON_NONE);
    feed(come_from(&local), "guess");
    assert_int_equal(admission(&local), REASON_NONE);
    assert_int_equal(sessions_known_sources(world->sessions), 0);
}

/* A peer that is gone when it is to be told has had its guess all the same. */
static void source_failure_counts_before_it_is_told(void **state)
{
    struct client *client;

    (void)state;
    limit_sources(0, 1);
    client = come_from(&here);
    client->fails_at = 410;
    feed(client, "guess");
    assert_true(client->closed);
    assert_int_equal(admission(&here), REASON_TOO_MANY);
}

/* Else whoever opens thousands of connections first would have as many guesses. */
static void source_under_penalty_has_no_guess_left_in_its_handshakes(void **state)
{
    struct client *waiting;
    struct client *right;
    struct client *further;
    struct client *registering;

    (void)state;
    limit_sources(0, 1);
    waiting = come_from(&here);
    right = come_from(&here);
    further = come_from(&here);
    feed(further, "secret");
    registering = come_from(&here);
    feed(registering, "secret");
    feed(registering, "db");
    feed(come_from(&here), "guess");
    feed(waiting, "another");
    check_refused(waiting, 429);
    feed(right, "secret"); /* it hears the same, so that it learns nothing */
    check_refused(right, 429);
    assert_int_equal(refused(REASON_PASSWORD), 1);
    assert_int_equal(refused(REASON_TOO_MANY), 2);
    /* Who has given the password already is no guesser. */
    feed(further, "nas");
    turn();
    assert_true(is_connected(further));
    assert_true(is_connected(registering));
    check_rows();
}

static void source_penalties_are_lifted_by_a_reload_without_them(void **state)
{
    (void)state;
    limit_sources(0, 1);
    feed(come_from(&here), "guess");
    assert_int_equal(admission(&here), REASON_TOO_MANY);
    limit_sources(0, 0);
    assert_int_equal(admission(&here), REASON_NONE);
    limit_sources(0, 1);
    assert_int_equal(admission(&here), REASON_NONE);
}

static void source_has_as_many_connections_as_allowed_and_gets_each_back(void **state)
{
    struct client *clients[3];
    struct client *client;

    (void)state;
    limit_sources(3, 0);
    clients[0] = enter_from(&here, "a");
    clients[1] = come_from(&here);
    assert_int_equal(admission(&here), REASON_NONE);
    clients[2] = enter_from(&here, "b");
    assert_int_equal(admission(&here), REASON_TOO_MANY);
    assert_int_equal(admission(&there), REASON_NONE);
    for (int i = 0; i < 10; i++) {
        (void)come_from(&local);
        assert_int_equal(admission(&local), REASON_NONE);
    }

    /* Each way to an end. */
    feed(clients[1], "guess");
    check_refused(clients[1], 410);
    assert_int_equal(admission(&here), REASON_NONE);
    clients[1] = come_from(&here);
    live(HANDSHAKE_US);
    check_refused(clients[1], 408);
    clients[1] = come_from(&here);
    session_bad_line(&clients[1]->session, PROTO_ERR_NUL, world->now);
    client = come_from(&here);
    feed(client, "secret");
    feed(client, "a"); /* its holder is probed, and does not answer */
    assert_int_equal(admission(&here), REASON_TOO_MANY);
    live(PROBE_US);
    check_refused(clients[0], 431);
    turn();
    assert_true(is_connected(client));
    assert_int_equal(admission(&here), REASON_NONE);
    clients[0] = client;
    client = come_from(&here);
    client->fails_at = 120;
    feed(client, "secret");
    assert_true(client->closed);
    client = new_client();
    client->peer = here;
    client->fails_at = 110;
    start(client);
    assert_true(client->closed);
    client = come_from(&here);
    feed(client, "secret");
    feed(client, "c");
    turn_with(STORE_UNAVAILABLE);
    check_refused(client, 451);
    session_end(&clients[0]->session, REASON_RESET, world->now);
    session_end(&clients[0]->session, REASON_RESET, world->now);
    session_end(&clients[2]->session, REASON_OPERATOR, world->now);
    check_counts();
    assert_int_equal(sources_connections(&world->sessions->door.sources, &here), 0);
    assert_int_equal(sessions_known_sources(world->sessions), 0);
}

static void source_limit_changed_by_a_reload_counts_who_is_there(void **state)
{
    (void)state;
    (void)enter_from(&here, "a");
    (void)enter_from(&here, "b");
    (void)come_from(&here);
    assert_int_equal(sessions_known_sources(world->sessions), 0); /* and nothing is kept */
    assert_int_equal(admission(&here), REASON_NONE);
    limit_sources(3, 0);
    assert_int_equal(admission(&here), REASON_TOO_MANY);
    limit_sources(4, 0);
    assert_int_equal(admission(&here), REASON_NONE);
    limit_sources(2, 0); /* they are more than that already, and stay */
    assert_int_equal(admission(&here), REASON_TOO_MANY);
    assert_int_equal(sessions_connected(world->sessions), 2);
    limit_sources(0, 0);
    assert_int_equal(sessions_known_sources(world->sessions), 0);
    session_end(&world->clients[0]->session, REASON_LEFT, world->now);
    limit_sources(3, 0);
    assert_int_equal(admission(&here), REASON_NONE);
    session_end(&world->clients[1]->session, REASON_LEFT, world->now);
    check_counts();
    assert_int_equal(sources_connections(&world->sessions->door.sources, &here), 1);
}

static void source_limit_of_a_reload_counts_very_many_in_slices(void **state)
{
    enum { MANY = MAX_CLIENTS - 100 };
    struct client *clients[MANY];
    char id[16];
    unsigned ticks = 0;

    (void)state;
    for (int i = 0; i < MANY; i++) {
        clients[i] = come_from(&here);
        snprintf(id, sizeof(id), "c%d", i);
        feed(clients[i], "secret");
        feed(clients[i], id);
        if (world->store.count == MAX_CHANGES / 2)
            turn();
    }
    turn();
    limit_sources(MANY - 1, 0);
    /* What comes and goes in between is counted once. */
    assert_true(sessions_next_us(world->sessions) <= world->now.mono_us);
    session_end(&clients[0]->session, REASON_LEFT, world->now);
    session_end(&clients[MANY - 1]->session, REASON_LEFT, world->now);
    (void)enter_from(&here, "c0");
    (void)enter_from(&here, "new");
    (void)come_from(&here);
    while (sessions_next_us(world->sessions) <= world->now.mono_us) {
        sessions_tick(world->sessions, world->now);
        assert_true(++ticks < 10);
    }
    assert_true(ticks > 0);
    assert_int_equal(sources_connections(&world->sessions->door.sources, &here), MANY + 1);
    assert_int_equal(admission(&here), REASON_TOO_MANY);
}

/* ---- keep-alives ---- */

static void keepalive_comes_once_an_interval_from_a_random_moment_on(void **state)
{
    struct client *clients[200];
    uint64_t low = UINT64_MAX;
    uint64_t high = 0;
    char id[16];

    (void)state;
    for (size_t i = 0; i < COUNT(clients); i++) {
        snprintf(id, sizeof(id), "c%zu", i);
        clients[i] = claim(id);
    }
    turn();
    for (uint64_t ms = 0; ms < 10000; ms += 10) {
        live(10 * MS);
        for (size_t i = 0; i < COUNT(clients); i++) {
            if (clients[i]->sent == 4 && clients[i]->looks == 0) {
                clients[i]->looks = 1; /* seen */
                low = ms < low ? ms : low;
                high = ms > high ? ms : high;
            }
        }
    }
    live(MS);
    for (size_t i = 0; i < COUNT(clients); i++)
        assert_int_equal(times_sent(clients[i], PROTO_KEEP_ALIVE), 1);
    assert_in_range(low, 0, 1000);
    assert_in_range(high, 9000, 10000);
    live(INTERVAL_US);
    for (size_t i = 0; i < COUNT(clients); i++)
        assert_int_equal(times_sent(clients[i], PROTO_KEEP_ALIVE), 2);
    assert_int_equal(sessions_counters(world->sessions)->keepalives_sent, 2 * COUNT(clients));
}

static void keepalive_silence_counts_only_for_one_that_has_answered(void **state)
{
    struct client *never = enter("never");
    struct client *once = enter("once");
    struct client *always = enter("always");

    (void)state;
    live_with(INTERVAL_US, (struct client *const[]){once, always}, 2);
    assert_int_equal(sessions_counters(world->sessions)->keepalives_answered, 2);
    live_with(2 * INTERVAL_US, (struct client *const[]){always}, 1);
    assert_true(is_connected(once));
    live_with(4 * INTERVAL_US, (struct client *const[]){always}, 1);
    assert_true(is_connected(never));
    assert_true(is_connected(always));
    check_refused(once, 408);
    /* One answered, three missed. */
    assert_int_equal(times_sent(once, PROTO_KEEP_ALIVE), 4);
    assert_int_equal(ended(REASON_TIMED_OUT), 1);
    assert_int_equal(record_of("once")->reason, REASON_TIMED_OUT);
    live_with(30 * INTERVAL_US, (struct client *const[]){always}, 1);
    assert_true(is_connected(never));
    turn();
    check_rows();
}

static void keepalive_reply_required_of_all_drops_the_silent(void **state)
{
    struct client *client;
    uint64_t first_us;

    (void)state;
    world->options.require_reply = SERVER_FSM_REPLY_YES;
    reload();
    client = enter("a");
    while (client->sent == 3)
        live(MS);
    first_us = world->now.mono_us;
    live(3 * INTERVAL_US - 2 * MS);
    assert_int_equal(times_sent(client, PROTO_KEEP_ALIVE), 3);
    assert_false(client->closed);
    live(4 * MS);
    check_refused(client, 408);
    assert_int_equal(client->looks, 1);
    assert_in_range(world->now.mono_us - first_us, 0,
                    sessions_dead_client_max_ms(&world->options) * MS);
}

static void keepalive_reply_required_of_none_drops_nobody(void **state)
{
    struct client *client;

    (void)state;
    world->options.require_reply = SERVER_FSM_REPLY_NO;
    reload();
    client = enter("a");
    live_with(INTERVAL_US, (struct client *const[]){client}, 1);
    live(40 * INTERVAL_US);
    assert_true(is_connected(client));
}

static void keepalive_misses_are_counted_as_configured(void **state)
{
    static const uint64_t misses[] = {1, 2, 7};
    char id[16];

    (void)state;
    world->options.require_reply = SERVER_FSM_REPLY_YES;
    for (size_t i = 0; i < COUNT(misses); i++) {
        world->options.misses = misses[i];
        reload();
        snprintf(id, sizeof(id), "c%zu", i);
        struct client *client = enter(id);
        live((misses[i] + 1) * INTERVAL_US + 20 * MS);
        check_refused(client, 408);
        assert_int_equal(times_sent(client, PROTO_KEEP_ALIVE), misses[i]);
    }
}

static void keepalive_late_answers_start_the_count_again(void **state)
{
    struct client *client = enter("a");

    (void)state;
    live_with(INTERVAL_US, (struct client *const[]){client}, 1);
    for (int i = 0; i < 10; i++) {
        live(3 * INTERVAL_US - 50 * MS);
        assert_true(is_connected(client));
        feed(client, "100 and more text");
    }
    live(4 * INTERVAL_US);
    check_refused(client, 408);
}

static void keepalive_answer_that_waits_in_the_kernel_counts(void **state)
{
    struct client *clients[30];
    char id[16];

    (void)state;
    world->options.require_reply = SERVER_FSM_REPLY_YES;
    reload();
    for (size_t i = 0; i < COUNT(clients); i++) {
        snprintf(id, sizeof(id), "c%zu", i);
        clients[i] = enter(id);
    }
    live(INTERVAL_US + MS);
    live(INTERVAL_US);
    live(INTERVAL_US - MS);
    /* Three hundred seconds of standing still, with every answer in the kernel. */
    for (size_t i = 0; i < COUNT(clients); i++)
        strcpy(clients[i]->waiting[clients[i]->waiting_count++], "100");
    advance(300 * S);
    live(INTERVAL_US + S);
    for (size_t i = 0; i < COUNT(clients); i++) {
        assert_true(is_connected(clients[i]));
        assert_int_equal(clients[i]->looks, 1);
    }
    live(4 * INTERVAL_US);
    for (size_t i = 0; i < COUNT(clients); i++)
        check_refused(clients[i], 408);
}

/* A stall without answers: the clients have had no time to answer what was not asked. */
static void keepalive_stall_of_the_server_is_not_the_clients_silence(void **state)
{
    struct client *clients[50];
    char id[16];

    (void)state;
    for (size_t i = 0; i < COUNT(clients); i++) {
        snprintf(id, sizeof(id), "c%zu", i);
        clients[i] = enter(id);
    }
    live(INTERVAL_US);
    for (size_t i = 0; i < COUNT(clients); i++)
        feed(clients[i], "100");
    advance(100 * INTERVAL_US);
    for (int round = 0; round < 1000; round++) {
        sessions_tick(world->sessions, world->now);
        advance(20 * MS);
    }
    for (size_t i = 0; i < COUNT(clients); i++) {
        assert_true(is_connected(clients[i]));
        assert_in_range(times_sent(clients[i], PROTO_KEEP_ALIVE), 2, 3 + 1);
    }
}

static void keepalive_last_look_that_ends_the_session_counts_once(void **state)
{
    struct client *client;

    (void)state;
    world->options.require_reply = SERVER_FSM_REPLY_YES;
    world->options.misses = 1;
    reload();
    client = enter("a");
    while (client->sent == 3)
        live(MS);
    for (int i = 0; i < 8; i++)
        strcpy(client->waiting[client->waiting_count++], "noise");
    feed(client, "noise");
    live(INTERVAL_US + S);
    check_refused(client, 400);
    assert_int_equal(ended(REASON_PROTOCOL), 1);
    assert_int_equal(ended(REASON_TIMED_OUT), 0);
    turn();
    check_rows();
}

static void keepalive_round_trip_is_measured_and_seen(void **state)
{
    struct client *client = enter("a");
    const struct registry_record *record = record_of("a");

    (void)state;
    assert_int_equal(record->rtt_us, 0);
    while (client->sent == 3)
        live(sessions_next_us(world->sessions) - world->now.mono_us);
    assert_int_equal(record->last_seen, START_S);
    advance(1234);
    feed(client, "100");
    assert_int_equal(record->rtt_us, 1234);
    assert_int_equal(record->last_seen, world->now.wall_ms / 1000);

    /* One that was not asked for says nothing about the time it took. */
    advance(5 * S);
    feed(client, "100");
    assert_int_equal(record->rtt_us, 1234);
    assert_int_equal(record->last_seen, world->now.wall_ms / 1000);

    /* Answered in the same microsecond: known, not unknown. */
    while (client->sent == 4)
        live(sessions_next_us(world->sessions) - world->now.mono_us);
    feed(client, "100");
    assert_in_range(record->rtt_us, 1, 1000);

    /* The first answer belongs to the first question. */
    while (client->sent == 5)
        live(sessions_next_us(world->sessions) - world->now.mono_us);
    const uint64_t asked_us = world->now.mono_us;
    while (client->sent == 6)
        live(sessions_next_us(world->sessions) - world->now.mono_us);
    advance(10);
    feed(client, "100");
    assert_int_equal(record->rtt_us, world->now.mono_us - asked_us);

    const struct duration_histogram *trips = &sessions_counters(world->sessions)->keepalives;
    assert_int_equal(trips->total, 3);
    assert_in_range(trips->sum_us, 1234 + world->now.mono_us - asked_us,
                    1234 + world->now.mono_us - asked_us + 1000);
}

static void keepalive_is_missed_once_when_the_next_one_is_due(void **state)
{
    const struct sessions_counters *counters = sessions_counters(world->sessions);
    struct client *client = enter("a");

    (void)state;
    live_with(2 * INTERVAL_US, (struct client *const[]){client}, 1);
    assert_int_equal(counters->keepalives_answered, 2);
    assert_int_equal(counters->keepalives_missed, 0);

    /* Late, which is too late for one. */
    live(2 * INTERVAL_US);
    assert_int_equal(counters->keepalives_missed, 1);
    feed(client, "100");
    live_with(INTERVAL_US, (struct client *const[]){client}, 1);
    assert_int_equal(counters->keepalives_missed, 1);

    /* Three, for which it is dropped; and one that was not regular is none of them. */
    live(INTERVAL_US);
    (void)server_fsm_ping(&client->session.fsm, &world->sessions->env);
    live(3 * INTERVAL_US);
    check_refused(client, 408);
    assert_int_equal(counters->keepalives_missed, 1 + 3);
    live(3 * INTERVAL_US);
    assert_int_equal(counters->keepalives_missed, 1 + 3);
}

static void keepalive_of_one_that_left_meanwhile_is_not_missed(void **state)
{
    struct client *client = enter("a");

    (void)state;
    world->options.require_reply = SERVER_FSM_REPLY_YES;
    world->options.misses = 1;
    reload();
    while (client->sent == 3)
        live(MS);
    feed(client, "100");
    while (client->sent == 4)
        live(MS);
    session_end(&client->session, REASON_LEFT, world->now);
    live(2 * INTERVAL_US);
    assert_int_equal(sessions_counters(world->sessions)->keepalives_missed, 0);
}

static void keepalive_noise_between_two_questions_is_bounded(void **state)
{
    struct client *client = enter("a");

    (void)state;
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < 8; i++)
            feed(client, "noise");
        assert_true(is_connected(client));
        live(INTERVAL_US);
    }
    for (int i = 0; i < 8; i++)
        feed(client, "130"); /* an answer only after a 130 */
    assert_true(is_connected(client));
    feed(client, "");
    check_refused(client, 400);
}

static void keepalive_interval_changed_by_a_reload_holds_for_everyone(void **state)
{
    struct client *client = enter("a");

    (void)state;
    live(INTERVAL_US);
    world->options.interval_ms = 1000;
    reload();
    const unsigned before = times_sent(client, PROTO_KEEP_ALIVE);
    live(10 * S + 2 * MS);
    assert_in_range(times_sent(client, PROTO_KEEP_ALIVE), before + 10, before + 11);
}

static void keepalive_of_many_at_once_is_done_in_parts(void **state)
{
    enum { CLIENTS = 2000 };
    char id[16];
    uint64_t sent;
    unsigned ticks = 0;

    (void)state;
    for (size_t i = 0; i < CLIENTS; i++) {
        snprintf(id, sizeof(id), "c%zu", i);
        (void)claim(id);
        if (i % 1000 == 999)
            turn();
    }
    /* All of them overdue. */
    advance(INTERVAL_US / 5);
    while (sessions_next_us(world->sessions) <= world->now.mono_us) {
        const uint64_t before = sessions_counters(world->sessions)->keepalives_sent;
        sessions_tick(world->sessions, world->now);
        sent = sessions_counters(world->sessions)->keepalives_sent;
        assert_in_range(sent - before, 0, 1000);
        assert_true(++ticks < CLIENTS);
    }
    sent = sessions_counters(world->sessions)->keepalives_sent;
    assert_in_range(sent, CLIENTS / 5 - 120, CLIENTS / 5 + 120);
    live(INTERVAL_US * 4 / 5);
    sent = sessions_counters(world->sessions)->keepalives_sent;
    assert_int_equal(sent, CLIENTS);
}

static void keepalive_dead_client_max_is_one_interval_more_than_the_misses(void **state)
{
    (void)state;
    assert_int_equal(sessions_dead_client_max_ms(&world->options), 40000);
    world->options.interval_ms = 250;
    world->options.misses = 1;
    assert_int_equal(sessions_dead_client_max_ms(&world->options), 500);
}

/* ---- forgetting ---- */

static void forget_after_never_forgets_nobody(void **state)
{
    struct client *client = enter("a");

    (void)state;
    session_end(&client->session, REASON_LEFT, world->now);
    turn();
    live(UINT64_C(400) * 86400 * S / 1000);
    advance(UINT64_C(4000) * 86400 * S);
    live(10 * S);
    assert_non_null(record_of("a"));
    assert_int_equal(world->store.forgets, 0);
}

static void forget_after_a_while_forgets_the_disconnected_only(void **state)
{
    struct client *gone = NULL;
    struct client *stays = NULL;
    struct client *back = NULL;

    (void)state;
    world->options.forget_after_ms = 60000;
    reload();
    gone = enter("gone");
    stays = enter("stays");
    back = enter("back");
    live(100 * S);
    session_end(&gone->session, REASON_LEFT, world->now);
    session_end(&back->session, REASON_LEFT, world->now);
    turn();
    live(59 * S);
    assert_non_null(record_of("gone"));
    back = enter("back");
    live(5 * S);
    assert_null(record_of("gone"));
    assert_int_equal(world->store.forgets, 1);
    assert_non_null(record_of("back"));
    assert_true(is_connected(stays));
    live(100 * S);
    assert_true(is_connected(back));
    assert_int_equal(world->store.forgets, 1);
    turn();
    check_rows();
    /* Its sid is free again. */
    (void)enter("new");
    assert_int_equal(record_of("new")->sid, 1);
    check_rows();
}

/* A machine without a battery learns the time after the start: that is no absence of years. */
static void forget_after_does_not_count_a_jump_of_the_clock(void **state)
{
    struct client *client;

    (void)state;
    world->options.forget_after_ms = 60000;
    reload();
    client = enter("a");
    session_end(&client->session, REASON_LEFT, world->now);
    turn();
    live(5 * S);
    world->wall_jump_ms = INT64_C(50) * 365 * 86400 * 1000;
    live(50 * S);
    assert_non_null(record_of("a"));
    live(10 * S);
    assert_null(record_of("a"));
}

static void forget_after_waits_for_claims_in_flight(void **state)
{
    struct client *client;

    (void)state;
    world->options.forget_after_ms = 5000;
    world->options.handshake_timeout_ms = 3600000;
    reload();
    client = enter("a");
    session_end(&client->session, REASON_LEFT, world->now);
    turn();
    client = claim("a");
    live(20 * S);
    assert_non_null(record_of("a"));
    check_invariants();
    session_end(&client->session, REASON_LEFT, world->now);
    live(20 * S);
    assert_non_null(record_of("a"));
    turn();
    turn();
    check_rows();
    live(20 * S);
    assert_null(record_of("a"));
    turn();
    check_rows();
}

/* Registered, but gone before it could be told: its time starts like anybody's. */
static void forget_after_counts_from_the_end_of_a_claim_given_back(void **state)
{
    struct client *client;

    (void)state;
    world->options.forget_after_ms = 60000;
    reload();
    client = claim("a");
    session_end(&client->session, REASON_LEFT, world->now);
    turn();
    turn();
    live(50 * S);
    assert_non_null(record_of("a"));
    live(15 * S);
    assert_null(record_of("a"));
    turn();
    check_rows();
}

static void forget_after_gets_through_more_than_one_round(void **state)
{
    char id[16];

    (void)state;
    for (unsigned i = 1; i <= 9000; i++) {
        snprintf(id, sizeof(id), "old-%u", i);
        assert_non_null(registry_restore(world->registry, i, id, strlen(id)));
    }
    world->options.forget_after_ms = 1000;
    reload();
    for (int second = 0; second < 10; second++) {
        live(S);
        assert_true(world->store.count <= MAX_CHANGES);
        world->store.count = 0;
    }
    assert_int_equal(registry_count(world->registry), 0);
    assert_int_equal(world->store.forgets, 9000);
}

/* ---- reload ---- */

/* ---- shutdown orders (test_order.c has their rules) ---- */

static void give_order(uint64_t hold_ms)
{
    struct order_request request = {.grace_ms = 60000, .hold_ms = hold_ms, .by = "me"};
    char message[128];

    assert_int_equal(order_waves_add(&request.waves, "web-*", message, sizeof(message)), 0);
    assert_int_equal(orders_start(sessions_orders(world->sessions), &request, world->now),
                     ORDER_OK);
}

/* As the server does it, with everything committed in between. */
static void carry_out(void)
{
    world->ordering = true;
    for (int i = 0; i < 5; i++) {
        turn();
        live(0);
    }
    world->ordering = false;
}

static struct order_numbers order_numbers(void)
{
    struct order_wave_progress wave;

    orders_wave_progress(sessions_orders(world->sessions), 0, &wave);
    return wave.numbers;
}

static enum order_state order_state(void)
{
    struct order_progress order;

    orders_progress(sessions_orders(world->sessions), &order);
    return order.state;
}

static void order_reaches_sessions_and_hears_of_them(void **state)
{
    struct client *one = enter("web-1");
    struct client *two = enter("web-2");
    struct client *other = enter("db-1");

    (void)state;
    give_order(0);
    live(S);
    assert_int_equal(times_sent(one, PROTO_SHUTDOWN), 0); /* the store has not answered */
    carry_out();
    assert_int_equal(last_code(one), PROTO_SHUTDOWN);
    assert_int_equal(last_code(two), PROTO_SHUTDOWN);
    assert_int_equal(times_sent(other, PROTO_SHUTDOWN), 0);
    assert_int_equal(sessions_leaving(world->sessions), 2);
    feed(one, "100");
    assert_int_equal(order_numbers().acknowledged, 0);
    feed(one, "130");
    feed(one, "130");
    assert_int_equal(order_numbers().acknowledged, 1);
    assert_false(sessions_may_forget(world->sessions, record_of("web-1")));
    session_end(&one->session, REASON_LEFT, world->now);
    assert_int_equal(record_of("web-1")->reason, REASON_SHUTDOWN);
    assert_false(sessions_may_forget(world->sessions, record_of("web-1")));
    assert_int_equal(order_numbers().gone, 1);
    assert_int_equal(order_state(), ORDER_RUNNING);
    session_end(&two->session, REASON_RESET, world->now);
    assert_int_equal(record_of("web-2")->reason, REASON_SHUTDOWN);
    carry_out();
    assert_int_equal(order_state(), ORDER_DONE);
    assert_true(sessions_may_forget(world->sessions, record_of("web-1")));
    sessions_forget(world->sessions, record_of("web-1"), world->now);
    assert_int_equal(order_numbers().targets, 1);
    turn();
    check_invariants();
}

static void order_that_holds_tells_right_after_the_140(void **state)
{
    (void)state;
    give_order(600000);
    carry_out();
    struct client *client = claim("web-1");
    struct client *gone = claim("web-2");
    struct client *other = claim("db-1");
    gone->fails_at = PROTO_CONNECTED;
    assert_int_equal(last_code(client), PROTO_ID);
    world->ordering = true;
    turn();
    world->ordering = false;
    assert_int_equal(client->codes[2], PROTO_CONNECTED);
    assert_int_equal(client->codes[3], PROTO_SHUTDOWN);
    assert_int_equal(client->sent, 4);
    /* The 140 found it gone: there is nobody to be told. */
    assert_int_equal(last_code(gone), PROTO_CONNECTED);
    assert_true(gone->closed);
    assert_int_equal(last_code(other), PROTO_CONNECTED);
    assert_int_equal(order_numbers().told, 1);
    check_invariants();
}

static void order_whose_130_finds_the_peer_gone_goes_on(void **state)
{
    struct client *one = enter("web-1");
    struct client *two = enter("web-2");

    (void)state;
    one->fails_at = PROTO_SHUTDOWN;
    give_order(0);
    carry_out();
    assert_true(one->closed);
    assert_int_equal(last_code(two), PROTO_SHUTDOWN);
    assert_int_equal(order_numbers().told, 2);
    assert_int_equal(order_numbers().gone, 1);
    check_invariants();
}

static void order_of_a_server_that_ends_goes_no_further(void **state)
{
    struct client *client = enter("web-1");

    (void)state;
    give_order(600000);
    turn();
    sessions_freeze_orders(world->sessions);
    live(S);
    turn();
    struct client *late = enter("web-2");
    assert_int_equal(times_sent(client, PROTO_SHUTDOWN) + times_sent(late, PROTO_SHUTDOWN), 0);
    assert_int_equal(order_state(), ORDER_RUNNING);
}

static void reload_changes_passwords_and_disconnects_nobody(void **state)
{
    struct client *connected = enter("a");
    struct client *registering = claim("b");
    struct client *at_id = come();
    struct client *at_password = come();
    struct client *old;

    (void)state;
    feed(at_id, "secret");
    sessions_reload(world->sessions, &world->options, credentials_of("other"), world->now);
    feed(at_password, "other");
    assert_int_equal(last_code(at_password), PROTO_ID);
    feed(at_id, "c");
    turn();
    assert_true(is_connected(connected));
    assert_true(is_connected(registering));
    assert_true(is_connected(at_id));
    old = come();
    feed(old, "secret");
    check_refused(old, 410);
    check_rows();
}

/* ---- everything at once ---- */

static uint64_t random64(void)
{
    static uint64_t x = UINT64_C(88172645463325252);

    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return x;
}

static size_t below(size_t bound)
{
    return (size_t)(random64() % bound);
}

static const char *random_id(void)
{
    static char id[16];

    snprintf(id, sizeof(id), "id-%zu", below(6));
    return id;
}

static const char *random_line(void)
{
    static const char *const lines[] = {"secret", "secret", "secret", "100", "100",
                                        "100",    "wrong",  "",       "130", "not an id"};

    return below(2) ? random_id() : lines[below(COUNT(lines))];
}

static void random_event(struct client *client)
{
    static const enum reason reasons[] = {REASON_LEFT,       REASON_RESET,   REASON_SLOW,
                                          REASON_RESTARTING, REASON_STOPPED, REASON_OPERATOR,
                                          REASON_TLS};

    switch (below(12)) {
    case 0:
        if (!client->is_held)
            feed(client, random_line());
        break;
    case 1:
    case 2:
    case 3:
    case 4: /* does the right thing */
        if (client->is_held)
            break;
        if (client->session.fsm.state == SERVER_FSM_AWAIT_PASSWORD)
            feed(client, "secret");
        else if (client->session.fsm.state == SERVER_FSM_AWAIT_ID)
            feed(client, random_id());
        else if (client->session.fsm.state == SERVER_FSM_CONNECTED)
            feed(client, "100");
        break;
    case 5:
        if (client->waiting_count < COUNT(client->waiting))
            snprintf(client->waiting[client->waiting_count++], sizeof(client->waiting[0]), "%s",
                     random_line());
        break;
    case 6:
        if (below(6) == 0)
            session_end(&client->session, reasons[below(COUNT(reasons))], world->now);
        break;
    case 7:
        if (below(8) == 0) {
            static const int codes[] = {-1, 100, 120, 140, 421, 431, 408};
            client->fails_at = codes[below(COUNT(codes))];
            client->fail_with = below(2) ? REASON_RESET : REASON_SLOW;
        }
        break;
    case 8:
        if (below(10) == 0)
            session_bad_line(&client->session, PROTO_ERR_NUL, world->now);
        break;
    case 9:
        if (below(6) == 0 && client->session.fsm.state == SERVER_FSM_CONNECTED)
            tell(client);
        break;
    default:
        break;
    }
}

/* The memory of those who are over goes, as it does at the end of a loop turn. */
static void free_the_dead(void)
{
    size_t kept = 0;

    for (size_t i = 0; i < world->client_count; i++) {
        if (world->clients[i]->closed) {
            free(world->clients[i]);
            world->freed++;
        } else {
            world->clients[kept++] = world->clients[i];
        }
    }
    world->client_count = kept;
}

static struct peer_address random_peer(void)
{
    return (struct peer_address){.family = AF_INET, .ip = {192, 0, 2, (uint8_t)below(12)}};
}

static void random_reload(void)
{
    world->options.duplicate_id = (int)below(3);
    world->options.require_reply = (int)below(3);
    world->options.misses = 1 + below(3);
    world->options.interval_ms = 500 + below(20000);
    world->options.handshake_timeout_ms = 500 + below(10000);
    world->options.forget_after_ms = below(2) ? UINT64_MAX : 1000 + below(60000);
    world->options.explain_refusals = below(4) != 0;
    world->options.limits.max_clients = below(3) ? 1000000 : 1 + below(6);
    world->options.limits.max_per_source = below(2) ? 0 : 1 + below(5);
    world->options.limits.auth_failures = below(3) ? 0 : 1 + below(5);
    world->options.limits.auth_penalty_ms = 500 + below(5000);
    reload();
}

/*
 * Dozens of clients fight over six IDs, with a store that answers late and anything; after each
 * step nothing contradicts anything else, and whenever all is quiet the store's rows are right.
 */
static void sessions_of_random_clients_never_contradict_each_other(void **state)
{
    enum { STEPS = 120000, CLIENTS = 40 };

    (void)state;
    for (int step = 0; step < STEPS; step++) {
        if (world->client_count < CLIENTS && below(4) == 0) {
            const struct peer_address peer = random_peer();
            if (admission(&peer) != REASON_NONE) {
                (void)sessions_turn_away(world->sessions, &peer, admission(&peer), world->now);
                world->turned_away++;
                continue;
            }
            struct client *client = new_client();
            client->peer = peer;
            client->fails_at = below(60) == 0 ? PROTO_PASSWORD : 0;
            client->proved_another = below(30) == 0;
            start(client);
        }
        if (world->client_count > 0)
            random_event(world->clients[below(world->client_count)]);
        if (below(5) == 0) {
            static const enum store_result results[] = {STORE_OK, STORE_OK,          STORE_OK,
                                                        STORE_OK, STORE_UNAVAILABLE, STORE_TAKEN};
            commit(below(world->store.count + 1), results[below(COUNT(results))]);
        }
        if (below(10) == 0)
            advance(below(20) == 0 ? below(30 * S) : below(300 * MS));
        if (below(10) == 0) {
            for (int i = 0; sessions_next_us(world->sessions) <= world->now.mono_us; i++) {
                assert_true(i < 1000);
                sessions_tick(world->sessions, world->now);
            }
        }
        if (below(400) == 0)
            random_reload();
        world->store.out_of_memory = below(50) == 0;

        check_invariants();
        free_the_dead();
        if (below(300) == 0) {
            while (world->store.count > 0)
                commit(world->store.count, STORE_OK);
            check_rows();
        }
    }
    /* It was a life worth the name. */
    assert_true(sessions_counters(world->sessions)->registered > STEPS / 200);
    for (int i = REASON_LEFT; i < REASON_COUNT; i++) {
        if (i == REASON_CRASH || i == REASON_RESOURCES)
            continue;
        if (ended((enum reason)i) + refused((enum reason)i) == 0)
            fail_msg("nobody ended with reason %s", reason_word((enum reason)i));
    }
}

#define IN_WORLD(test)        cmocka_unit_test_setup_teardown(test, setup, teardown)
#define IN_ASKING_WORLD(test) cmocka_unit_test_setup_teardown(test, setup_asking, teardown)

static int start_all(void **state)
{
    const struct log_options quiet = {.program = "test", .level = LOG_LEVEL_ERROR};

    (void)state;
    return log_open(&quiet) == 0 ? hash_init() : -1;
}

static int end_all(void **state)
{
    (void)state;
    log_close();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_WORLD(session_walks_through_its_three_questions),
        IN_WORLD(session_is_not_welcome_before_the_store_says_so),
        IN_WORLD(session_with_a_wrong_password_gets_410_and_leaves_no_trace),
        IN_WORLD(session_with_an_id_that_its_connection_does_not_cover_gets_422),
        IN_WORLD(session_gets_422_for_an_id_that_its_password_does_not_cover),
        IN_WORLD(session_that_may_not_have_an_id_does_not_disturb_its_holder),
        IN_WORLD(record_keeps_the_credential_of_its_last_session),
        IN_WORLD(session_between_password_and_id_is_judged_by_what_a_reload_left),
        IN_WORLD(connected_session_stays_when_a_reload_takes_its_credential_away),
        IN_WORLD(session_with_an_invalid_id_gets_420_and_leaves_no_trace),
        IN_WORLD(session_with_an_empty_or_impossible_line_gets_400),
        IN_WORLD(session_holds_what_is_no_line_until_it_is_connected),
        IN_WORLD(session_holds_an_early_line_until_it_is_connected),
        IN_WORLD(session_serials_are_never_the_same),
        IN_WORLD(session_that_comes_back_has_its_record_and_sid_again),
        IN_WORLD(session_end_is_for_once),
        IN_WORLD(session_ended_for_a_reason_says_what_belongs_to_it),
        IN_WORLD(session_that_leaves_after_130_has_reason_shutdown),
        IN_WORLD(session_that_was_told_is_leaving_until_it_is_gone),
        IN_WORLD(session_handshake_lasts_from_the_accept_to_140),
        IN_WORLD(handshake_unfinished_at_its_deadline_gets_408),
        IN_WORLD(handshake_deadline_is_each_ones_own),
        IN_WORLD(handshake_that_drips_gets_no_more_time),
        IN_WORLD(handshake_finished_in_time_by_the_last_look_is_welcome),
        IN_WORLD(crowded_turn_hears_those_who_are_on_their_way),
        IN_WORLD(crowded_turn_looks_at_the_newest_only),
        IN_WORLD(handshake_last_look_that_ends_the_session_counts_once),
        IN_WORLD(handshake_of_a_client_that_a_late_server_kept_waiting_goes_on),
        IN_WORLD(handshake_timeout_changed_by_a_reload_holds_for_everyone),
        IN_WORLD(probe_answered_by_the_holder_refuses_the_newcomer),
        IN_WORLD(probe_unanswered_for_two_seconds_replaces_the_holder),
        IN_WORLD(probe_answer_that_waits_in_the_kernel_saves_the_holder),
        IN_WORLD(probe_last_look_that_finds_garbage_ends_the_holder_once),
        IN_WORLD(probe_second_newcomer_is_refused_and_changes_nothing),
        IN_WORLD(probe_newcomer_that_leaves_leaves_the_holder_alone),
        IN_WORLD(probe_holder_that_leaves_makes_room_at_once),
        IN_WORLD(probe_holder_found_gone_by_the_100_makes_room_at_once),
        IN_WORLD(probe_holder_found_gone_by_the_431_makes_room),
        IN_WORLD(probe_of_a_registering_holder_refuses_the_newcomer),
        IN_WORLD(probe_of_a_leaving_holder_asks_it),
        IN_WORLD(probe_outlasting_the_newcomers_handshake_leaves_the_holder),
        IN_WORLD(probe_replaces_a_silent_holder_whatever_require_reply_says),
        IN_WORLD(probe_of_many_ids_at_once_keeps_them_apart),
        IN_WORLD(takeover_replaces_a_connected_holder_at_once),
        IN_WORLD(takeover_replaces_a_leaving_holder),
        IN_WORLD(takeover_of_a_registering_holder_welcomes_the_last_only),
        IN_WORLD(takeover_of_a_holder_that_is_gone_already_counts_it_once),
        IN_WORLD(reject_refuses_the_newcomer_whatever_the_holder_does),
        IN_WORLD(reload_while_a_probe_runs_is_heeded_when_the_id_is_free),
        IN_WORLD(policy_changed_while_a_probe_runs_gives_the_id_to_one),
        IN_WORLD(claim_the_store_cannot_take_now_gets_451),
        IN_WORLD(claim_of_an_id_that_lives_on_another_node_gets_421),
        IN_WORLD(claim_without_memory_gets_451_and_leaves_no_trace),
        IN_WORLD(claim_granted_to_a_session_that_has_gone_is_given_back),
        IN_WORLD(claim_refused_to_a_session_that_has_gone_leaves_no_trace),
        IN_WORLD(claim_of_the_next_session_is_not_answered_by_the_last_ones),
        IN_WORLD(claims_in_flight_for_one_record_end_with_the_right_row),
        IN_ASKING_WORLD(send_that_finds_the_peer_gone_ends_the_session_once),
        IN_WORLD(send_of_421_that_fails_in_the_holders_answer_hurts_nobody_else),
        IN_WORLD(refusals_unexplained_close_without_a_line),
        IN_WORLD(newcomer_turned_away_is_told_450_and_counted),
        IN_WORLD(claim_of_one_more_than_the_server_holds_gets_450),
        IN_WORLD(newcomers_are_turned_away_by_how_many_are_pending),
        IN_WORLD(source_that_guesses_is_refused_until_its_penalty_is_over),
        IN_WORLD(source_success_does_not_wipe_out_its_failures),
        IN_WORLD(source_failures_are_wrong_passwords_only),
        IN_WORLD(source_failure_counts_before_it_is_told),
        IN_WORLD(source_under_penalty_has_no_guess_left_in_its_handshakes),
        IN_WORLD(source_penalties_are_lifted_by_a_reload_without_them),
        IN_WORLD(source_has_as_many_connections_as_allowed_and_gets_each_back),
        IN_WORLD(source_limit_changed_by_a_reload_counts_who_is_there),
        IN_WORLD(source_limit_of_a_reload_counts_very_many_in_slices),
        IN_ASKING_WORLD(keepalive_comes_once_an_interval_from_a_random_moment_on),
        IN_ASKING_WORLD(keepalive_silence_counts_only_for_one_that_has_answered),
        IN_ASKING_WORLD(keepalive_reply_required_of_all_drops_the_silent),
        IN_ASKING_WORLD(keepalive_reply_required_of_none_drops_nobody),
        IN_ASKING_WORLD(keepalive_misses_are_counted_as_configured),
        IN_ASKING_WORLD(keepalive_late_answers_start_the_count_again),
        IN_ASKING_WORLD(keepalive_answer_that_waits_in_the_kernel_counts),
        IN_ASKING_WORLD(keepalive_stall_of_the_server_is_not_the_clients_silence),
        IN_ASKING_WORLD(keepalive_last_look_that_ends_the_session_counts_once),
        IN_ASKING_WORLD(keepalive_round_trip_is_measured_and_seen),
        IN_ASKING_WORLD(keepalive_is_missed_once_when_the_next_one_is_due),
        IN_ASKING_WORLD(keepalive_of_one_that_left_meanwhile_is_not_missed),
        IN_ASKING_WORLD(keepalive_noise_between_two_questions_is_bounded),
        IN_ASKING_WORLD(keepalive_interval_changed_by_a_reload_holds_for_everyone),
        IN_ASKING_WORLD(keepalive_of_many_at_once_is_done_in_parts),
        IN_ASKING_WORLD(keepalive_dead_client_max_is_one_interval_more_than_the_misses),
        IN_WORLD(forget_after_never_forgets_nobody),
        IN_WORLD(forget_after_a_while_forgets_the_disconnected_only),
        IN_WORLD(forget_after_does_not_count_a_jump_of_the_clock),
        IN_WORLD(forget_after_waits_for_claims_in_flight),
        IN_WORLD(forget_after_counts_from_the_end_of_a_claim_given_back),
        IN_WORLD(forget_after_gets_through_more_than_one_round),
        IN_WORLD(order_reaches_sessions_and_hears_of_them),
        IN_WORLD(order_that_holds_tells_right_after_the_140),
        IN_WORLD(order_whose_130_finds_the_peer_gone_goes_on),
        IN_WORLD(order_of_a_server_that_ends_goes_no_further),
        IN_WORLD(reload_changes_passwords_and_disconnects_nobody),
        IN_ASKING_WORLD(sessions_of_random_clients_never_contradict_each_other),
    };

    return cmocka_run_group_tests(tests, start_all, end_all);
}
