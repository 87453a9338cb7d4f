/*
 * Shutdown orders: who is told, when, and never anybody else. The registry is real; the clock, the
 * clients and the store are the test's own. Between any two steps all sums are counted again over
 * all records, and every 130 is judged by rules of its own when it is sent.
 */
#include "session/order.h"

#include "base/hash.h"
#include "base/log.h"

#include "unit.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MS          UINT64_C(1000)
#define S           UINT64_C(1000000)
#define MIN         (60 * S)
#define RETURN      (ORDER_RETURN_MS * MS)

#define START_US    UINT64_C(1000000000)
#define START_S     INT64_C(1700000000)

#define TELL_SLICE  256
#define MAX_CLIENTS 12000
#define MAX_NEWS    40000

/* A machine, whose record may be another one after a restart. */
struct client {
    char cid[32];
    struct registry_record *record;
    uint64_t session;      /* the number of its session; 0 while it has none */
    uint64_t told_session; /* the last one that was told */
    uint64_t since_step;   /* of the walk, when its session began */
    unsigned tells;
    bool leaves_when_told; /* sending the 130 finds it gone */
    bool owed;             /* it was connected when a server ended, and has not been back since */
};

/* What is in the database. */
struct kept {
    struct store_order order;
    struct store_order_wave waves[ORDER_MAX_WAVES];
    uint8_t wave[MAX_CLIENTS];
    uint8_t flags[MAX_CLIENTS];
    bool exists;
};

struct store {
    const struct store_order *given;
    unsigned unanswered;
    bool out_of_memory;
    bool is_dirty; /* the order is not what is kept */
    struct kept kept;
    int64_t given_id;
    uint8_t wave[MAX_CLIENTS]; /* targets of the order that was given last */
    uint8_t flags[MAX_CLIENTS];
    unsigned target_saves;
};

struct news_item {
    enum order_what what;
    int64_t order;
    unsigned wave;
    uint32_t sid;
};

struct world {
    struct moment now;
    struct registry *registry;
    struct orders *orders;
    struct store store;
    struct client clients[MAX_CLIENTS];
    size_t count;
    struct client *by_sid[MAX_CLIENTS];
    uint64_t sessions;
    unsigned tells;
    bool must_be_silent; /* nobody may be told from here on */
    bool is_sudden;      /* a server that crashes has not written what waits */
    struct news_item news[MAX_NEWS];
    size_t news_count;

    /* The order as this test understands it, for judging each 130. */
    char match[ORDER_MAX_WAVES][1024];
    unsigned waves;
    uint64_t step;                           /* counts what happens */
    uint64_t wave_step[ORDER_MAX_WAVES + 1]; /* when each wave began */
    bool is_telling; /* a wave has begun, and not everyone may be told yet */
};

static struct world *world;

/* ---- the store ---- */

int store_save_order(struct store *store, const struct store_order *order, struct moment now)
{
    assert_true(now.mono_us == world->now.mono_us);
    assert_true(order->id >= 1 && order->wave_count >= 1);
    assert_non_null(order->by);
    if (store->out_of_memory) {
        if (store->given_id == order->id) {
            store->given = order;
            store->is_dirty = true;
        }
        return -1;
    }
    if (store->given_id != order->id) {
        memset(store->wave, 0, sizeof(store->wave));
        memset(store->flags, 0, sizeof(store->flags));
    }
    store->given_id = order->id;
    store->given = order;
    store->is_dirty = true;
    store->unanswered++;
    return 0;
}

void store_save_target(struct store *store, const struct registry_record *record, struct moment now)
{
    assert_true(now.mono_us == world->now.mono_us);
    assert_true(record->stored && record->order_wave > 0);
    assert_true(record->sid < MAX_CLIENTS);
    store->target_saves++;
    store->wave[record->sid] = record->order_wave;
    store->flags[record->sid] = record->order_flags;
}

static void forget_kept(void)
{
    struct kept *kept = &world->store.kept;

    if (!kept->exists)
        return;
    for (size_t i = 0; i < kept->order.wave_count; i++)
        free(kept->waves[i].match);
    free(kept->order.by);
    free(kept->order.state);
    kept->exists = false;
}

/* What waits is written, as it is within 100 ms if the disk is not full. */
static void flush(void)
{
    struct store *store = &world->store;

    if (!store->kept.exists || store->is_dirty)
        return;
    memcpy(store->kept.wave, store->wave, sizeof(store->wave));
    memcpy(store->kept.flags, store->flags, sizeof(store->flags));
}

/* A commit: the order as it is now, and the targets of this order only. */
static void keep(const struct store_order *order)
{
    struct kept *kept = &world->store.kept;

    forget_kept();
    kept->order = *order;
    kept->order.by = strdup(order->by);
    kept->order.state = strdup(order->state);
    kept->order.waves = kept->waves;
    for (size_t i = 0; i < order->wave_count; i++) {
        kept->waves[i] = order->waves[i];
        kept->waves[i].match = strdup(order->waves[i].match);
    }
    kept->exists = true;
    world->store.is_dirty = false;
    flush();
}

/* Answers one save. */
static void answer(enum store_result result)
{
    assert_true(world->store.unanswered > 0);
    world->store.unanswered--;
    if (result == STORE_OK)
        keep(world->store.given);
    orders_on_saved(world->orders, result);
}

static void answer_all(enum store_result result)
{
    while (world->store.unanswered > 0)
        answer(result);
    if (result == STORE_OK)
        flush();
}

/* ---- clients ---- */

static struct client *client_of(const struct registry_record *record)
{
    assert_true(record->sid < MAX_CLIENTS);
    assert_ptr_equal(world->by_sid[record->sid]->record, record);
    return world->by_sid[record->sid];
}

/* This is its record from now on. */
static void take_record(struct client *client, struct registry_record *record)
{
    assert_non_null(record);
    assert_true(record->sid < MAX_CLIENTS);
    client->record = record;
    world->by_sid[record->sid] = client;
}

static struct client *find(const char *cid)
{
    for (size_t i = 0; i < world->count; i++) {
        if (strcmp(world->clients[i].cid, cid) == 0)
            return &world->clients[i];
    }
    fail_msg("there is no %s", cid);
    abort();
}

static struct client *add(const char *format, int number)
{
    struct client *client = &world->clients[world->count++];

    assert_true(world->count < MAX_CLIENTS);
    *client = (struct client){.session = 0};
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(client->cid, sizeof(client->cid), format, number);
#pragma GCC diagnostic pop
    take_record(client, registry_find_or_add(world->registry, client->cid, strlen(client->cid)));
    client->record->stored = true;
    return client;
}

static void arrive(struct client *client)
{
    static const struct peer_address peer = {.port = 1};

    assert_int_equal(client->session, 0);
    world->step++;
    if (!client->record)
        take_record(client,
                    registry_find_or_add(world->registry, client->cid, strlen(client->cid)));
    client->session = ++world->sessions;
    client->since_step = world->step;
    client->record->stored = true;
    registry_connect(world->registry, client->record, &peer, 0, world->now.wall_ms / 1000);
    orders_client_connected(world->orders, client->record, world->now);
}

/* In the order in which a session ends. */
static void leave(struct client *client, enum reason reason)
{
    assert_int_not_equal(client->session, 0);
    orders_client_gone(world->orders, client->record);
    registry_disconnect(world->registry, client->record, reason, world->now.wall_ms / 1000);
    client->session = 0;
    client->owed = false;
}

static void acknowledge(struct client *client)
{
    orders_client_acknowledged(world->orders, client->record, world->now);
}

static struct client *newcomer(const char *cid)
{
    struct client *client = add(cid, 0);

    arrive(client);
    return client;
}

static void add_connected(const char *format, int first, int count)
{
    for (int i = first; i < first + count; i++)
        arrive(add(format, i));
}

static bool is_told(const struct client *client)
{
    return client->session != 0 && client->told_session == client->session;
}

/* ---- ops ---- */

static void progress(struct order_progress *order)
{
    orders_progress(world->orders, order);
}

static enum order_state state(void)
{
    struct order_progress order;

    progress(&order);
    return order.state;
}

/* The wave's list, by the library that the shell uses and not by ours. */
static bool matches(unsigned wave, const char *cid)
{
    char list[1024];
    char *rest = list;

    snprintf(list, sizeof(list), "%s", world->match[wave - 1]);
    for (const char *glob = strsep(&rest, ","); glob; glob = strsep(&rest, ",")) {
        if (fnmatch(glob, cid, 0) == 0)
            return true;
    }
    return false;
}

static struct order_wave_progress wave_of(unsigned wave)
{
    struct order_wave_progress progress;

    orders_wave_progress(world->orders, wave - 1, &progress);
    return progress;
}

static unsigned first_match(const char *cid)
{
    for (unsigned wave = 1; wave <= world->waves; wave++) {
        if (matches(wave, cid))
            return wave;
    }
    return 0;
}

/* Judges each 130. */
static void on_tell(void *user, struct registry_record *record)
{
    struct client *client = client_of(record);
    struct order_progress order;

    assert_ptr_equal(user, world);
    assert_false(world->must_be_silent);
    assert_true(record->connected);
    assert_int_not_equal(client->session, 0);
    progress(&order);
    assert_true(order.state == ORDER_RUNNING || order.state == ORDER_HOLDING);
    assert_true(record->order_wave >= 1 && record->order_wave <= order.waves);
    const unsigned wave = record->order_wave;
    assert_true(wave <= order.wave);
    assert_true(matches(wave, client->cid));
    assert_true(order.hold_ms > 0 || client->owed || world->is_telling ||
                client->since_step < world->wave_step[wave]);
    assert_true(order.state == ORDER_RUNNING ||
                world->now.wall_ms < order.created * 1000 + (int64_t)order.hold_ms + 1000);
    client->owed = false;
    if (client->told_session == client->session)
        return;
    client->told_session = client->session;
    client->tells++;
    world->tells++;
    if (client->leaves_when_told)
        leave(client, REASON_RESET);
}

/*
 * A wave is over: whoever is connected since before it began was told, if this is the first wave
 * that it belongs to; and with a hold, whoever is connected.
 */
static void check_wave_is_told(unsigned wave)
{
    struct order_progress order;

    progress(&order);
    for (size_t i = 0; i < world->count; i++) {
        const struct client *client = &world->clients[i];

        if (client->session == 0 || first_match(client->cid) != wave)
            continue;
        if (order.hold_ms > 0 || client->since_step < world->wave_step[wave])
            assert_true(is_told(client));
    }
}

static void on_news(void *user, const struct order_news *news)
{
    assert_ptr_equal(user, world);
    assert_true(world->news_count < MAX_NEWS);
    world->news[world->news_count++] =
        (struct news_item){.what = news->what,
                           .order = news->order,
                           .wave = news->wave,
                           .sid = news->client ? news->client->sid : 0};
    if (news->what == ORDER_WAVE_STARTED) {
        world->wave_step[news->wave] = world->step;
        world->is_telling = true;
    } else if (news->what == ORDER_WAVE_ENDED) {
        check_wave_is_told(news->wave);
    }
}

static const struct order_ops ops = {.tell = on_tell, .news = on_news};

static size_t news_of(enum order_what what)
{
    size_t count = 0;

    for (size_t i = 0; i < world->news_count; i++)
        count += world->news[i].what == what;
    return count;
}

static size_t when(enum order_what what, unsigned wave)
{
    for (size_t i = 0; i < world->news_count; i++) {
        if (world->news[i].what == what && world->news[i].wave == wave)
            return i;
    }
    return SIZE_MAX;
}

/* ---- the recount ---- */

/* Everything that is summed up, counted again from the records alone. */
static void check(void)
{
    struct order_progress order;
    struct order_numbers again[ORDER_MAX_WAVES + 1];
    size_t states[ORDER_TARGET_COUNT] = {0};
    size_t counts[ORDER_TARGET_COUNT];
    struct registry_record *record = NULL;

    progress(&order);
    memset(again, 0, sizeof(again));
    const bool under_way = order.state == ORDER_RUNNING || order.state == ORDER_HOLDING;
    for (uint32_t sid = 0; (record = registry_next(world->registry, sid)) != NULL;
         sid = record->sid) {
        const enum order_target target = orders_target(world->orders, record);
        struct order_numbers *wave = &again[record->order_wave];

        if (target == ORDER_TARGET_NONE)
            continue;
        assert_true(record->stored);
        states[target]++;
        wave->targets++;
        switch (target) {
        case ORDER_TARGET_PENDING:
            wave->pending++;
            break;
        case ORDER_TARGET_NOT_CONNECTED:
            wave->not_connected++;
            break;
        case ORDER_TARGET_LATE:
            wave->late++;
            assert_true(record->connected);
            break;
        case ORDER_TARGET_GONE:
            wave->gone++;
            break;
        case ORDER_TARGET_TOLD:
        case ORDER_TARGET_ACKNOWLEDGED:
        case ORDER_TARGET_STILL_UP:
            wave->still_up++;
            /* One that had acknowledged is not taken for gone before it had time to come back. */
            assert_true(record->connected || record->order_flags & RECORD_AWAITED);
            break;
        case ORDER_TARGET_NONE:
        case ORDER_TARGET_COUNT:
            fail();
        }
        wave->told += (record->order_flags & RECORD_TOLD) != 0;
        wave->acknowledged += (record->order_flags & RECORD_ACKNOWLEDGED) != 0;
        if (under_way)
            assert_int_equal((record->order_flags & RECORD_PRESENT) != 0, record->connected);
    }
    orders_count_targets(world->orders, counts);
    for (int target = ORDER_TARGET_PENDING; target < ORDER_TARGET_COUNT; target++)
        assert_int_equal(counts[target], states[target]);
    assert_int_equal(counts[ORDER_TARGET_NONE], 0);
    for (unsigned wave = 1; wave <= order.waves; wave++) {
        const struct order_numbers numbers = wave_of(wave).numbers;

        assert_int_equal(numbers.targets, again[wave].targets);
        assert_int_equal(numbers.pending, again[wave].pending);
        assert_int_equal(numbers.told, again[wave].told);
        assert_int_equal(numbers.acknowledged, again[wave].acknowledged);
        assert_int_equal(numbers.gone, again[wave].gone);
        assert_int_equal(numbers.still_up, again[wave].still_up);
        assert_int_equal(numbers.not_connected, again[wave].not_connected);
        assert_int_equal(numbers.late, again[wave].late);
        assert_int_equal(numbers.targets,
                         numbers.pending + numbers.told + numbers.not_connected + numbers.late);
        assert_int_equal(numbers.told, numbers.gone + numbers.still_up);
        assert_true(numbers.acknowledged <= numbers.told);
    }
}

static void expect_numbers(unsigned wave, size_t targets, size_t pending, size_t told,
                           size_t acknowledged, size_t gone, size_t still_up, size_t not_connected)
{
    const struct order_numbers numbers = wave_of(wave).numbers;

    check();
    assert_int_equal(numbers.targets, targets);
    assert_int_equal(numbers.pending, pending);
    assert_int_equal(numbers.told, told);
    assert_int_equal(numbers.acknowledged, acknowledged);
    assert_int_equal(numbers.gone, gone);
    assert_int_equal(numbers.still_up, still_up);
    assert_int_equal(numbers.not_connected, not_connected);
}

/* ---- time ---- */

static void advance(uint64_t us)
{
    world->now.mono_us += us;
    world->now.wall_ms = START_S * 1000 + (int64_t)((world->now.mono_us - START_US) / 1000);
}

static void tick(void)
{
    struct order_progress before;
    struct order_progress after;

    world->step++;
    progress(&before);
    const unsigned tells = world->tells;
    orders_tick(world->orders, world->now);
    progress(&after);
    if (before.wave == after.wave && world->tells - tells < TELL_SLICE)
        world->is_telling = false;
}

/* As the server does it: sleeps until the order wants something. Saves are answered at once. */
static void live(uint64_t us)
{
    const uint64_t end_us = world->now.mono_us + us;
    uint64_t next_us;
    unsigned idle = 0;

    answer_all(STORE_OK);
    while ((next_us = orders_next_us(world->orders, world->now)) <= end_us) {
        if (next_us > world->now.mono_us) {
            advance(next_us - world->now.mono_us);
            idle = 0;
        }
        tick();
        answer_all(STORE_OK);
        if (++idle > 100000)
            fail_msg("the order does not let the server sleep");
    }
    advance(end_us - world->now.mono_us);
}

static void settle(void)
{
    live(0);
    check();
}

/* ---- orders ---- */

static enum order_result give(uint64_t grace_us, uint64_t hold_us, const char *const *waves)
{
    struct order_request request = {
        .grace_ms = grace_us / MS,
        .hold_ms = hold_us / MS,
        .by = "uid 7",
    };
    char message[256];

    for (unsigned i = 0; waves[i]; i++)
        assert_int_equal(order_waves_add(&request.waves, waves[i], message, sizeof(message)), 0);
    const enum order_result result = orders_start(world->orders, &request, world->now);
    assert_int_equal(request.waves.count, 0);
    if (result == ORDER_OK) {
        world->waves = 0;
        for (unsigned i = 0; waves[i]; i++)
            snprintf(world->match[world->waves++], sizeof(world->match[0]), "%s", waves[i]);
    }
    return result;
}

#define WAVES(...) ((const char *const[]){__VA_ARGS__, NULL})

static void start(uint64_t grace_us, uint64_t hold_us, const char *const *waves)
{
    assert_int_equal(give(grace_us, hold_us, waves), ORDER_OK);
    check();
}

/* Whatever happens from here on, nobody is told: the proof of a cancelled or ended order. */
static void expect_silence(void)
{
    const unsigned tells = world->tells;
    const uint64_t wait_us[] = {0, 1, S, MIN, 20 * MIN, UINT64_C(86400) * S};

    world->must_be_silent = true;
    for (size_t i = 0; i < world->count; i++) {
        if (world->clients[i].session == 0)
            arrive(&world->clients[i]);
    }
    for (size_t round = 0; round < COUNT(wait_us); round++) {
        live(wait_us[round]);
        for (size_t i = 0; i < world->count; i++) {
            struct client *client = &world->clients[i];
            if (client->session == 0) {
                arrive(client);
            } else if (i % 2 == round % 2) {
                acknowledge(client);
                leave(client, REASON_LEFT);
            }
        }
        for (int i = 0; i < 10; i++)
            tick();
        check();
    }
    world->must_be_silent = false;
    assert_int_equal(world->tells, tells);
}

/* What the order says that its waves are. */
static void take_matches(void)
{
    struct order_progress order;

    progress(&order);
    world->waves = order.waves;
    for (unsigned wave = 1; wave <= order.waves; wave++)
        snprintf(world->match[wave - 1], sizeof(world->match[0]), "%s", wave_of(wave).match);
}

/* Would a next server have to tell this client if it was not told before? Not one that came too
 * late for each of its waves. */
static bool is_owed(const struct client *client)
{
    struct order_progress order;

    progress(&order);
    if (client->session == 0)
        return false;
    /* That it came too late may not be written yet; and one that is given in the second of the
     * restart takes it for one that was there. */
    if (world->is_sudden || (order.state != ORDER_RUNNING && order.state != ORDER_HOLDING))
        return true;
    for (unsigned wave = 1; wave <= order.waves; wave++) {
        if (matches(wave, client->cid) && (order.hold_ms > 0 || wave_of(wave).started == 0 ||
                                           client->since_step < world->wave_step[wave]))
            return true;
    }
    return false;
}

/*
 * The server ends and the next one starts with what is kept. Who is connected gets that reason;
 * who is back, and when, is the test's.
 */
static void restart(enum reason reason, uint64_t away_us)
{
    struct registry *old = world->registry;
    struct kept *kept = &world->store.kept;

    if (reason == REASON_STOPPED || reason == REASON_RESTARTING) {
        orders_freeze(world->orders);
        for (size_t i = 0; i < world->count; i++) {
            if (world->clients[i].session != 0) {
                const bool owed = world->clients[i].owed || is_owed(&world->clients[i]);
                leave(&world->clients[i], reason);
                world->clients[i].owed = owed;
            }
        }
        /* The last thing a server does is to write everything. */
        if (world->store.given)
            keep(world->store.given);
    }
    if (!world->is_sudden)
        flush();
    advance(away_us);
    world->registry = registry_new();
    for (size_t i = 0; i < world->count; i++) {
        struct client *client = &world->clients[i];
        const struct registry_record *before = client->record;
        struct registry_record *record = NULL;

        client->owed = client->owed || is_owed(client);
        client->session = 0;
        client->record = NULL;
        if (!before || !before->stored)
            continue;
        record = registry_restore(world->registry, before->sid, client->cid, strlen(client->cid));
        take_record(client, record);
        record->stored = true;
        record->since = before->connected ? world->now.wall_ms / 1000 : before->since;
        record->reason = before->connected ? REASON_CRASH : before->reason;
        record->order_wave = kept->wave[record->sid];
        record->order_flags =
            kept->flags[record->sid] & (RECORD_TOLD | RECORD_ACKNOWLEDGED | RECORD_LATE);
    }
    orders_free(world->orders);
    registry_free(old);
    world->store.unanswered = 0;
    world->store.given = NULL;
    world->store.is_dirty = false;
    memcpy(world->store.wave, kept->wave, sizeof(kept->wave));
    memcpy(world->store.flags, kept->flags, sizeof(kept->flags));
    world->store.given_id = kept->exists ? kept->order.id : 0;
    world->orders = orders_new(world->registry, &ops, world);
    orders_set_store(world->orders, &world->store);
    world->step++;
    world->is_telling = false;
    orders_restore(world->orders, kept->exists ? &kept->order : NULL, world->now);
    take_matches();
    check();
}

/* ---- set-up ---- */

static int setup(void **unused)
{
    (void)unused;
    world = calloc(1, sizeof(*world));
    if (!world)
        return -1;
    world->now = (struct moment){.mono_us = START_US, .wall_ms = START_S * 1000};
    world->registry = registry_new();
    world->orders = orders_new(world->registry, &ops, world);
    orders_set_store(world->orders, &world->store);
    orders_restore(world->orders, NULL, world->now);
    return 0;
}

static int teardown(void **unused)
{
    (void)unused;
    check();
    orders_free(world->orders);
    registry_free(world->registry);
    forget_kept();
    free(world);
    world = NULL;
    return 0;
}

static int again(void)
{
    return teardown(NULL) || setup(NULL);
}

/* ---- no order ---- */

static void none_is_reported_and_never_does_anything(void **unused)
{
    struct order_progress order;

    (void)unused;
    add_connected("web-%d", 1, 3);
    progress(&order);
    assert_int_equal(order.state, ORDER_NONE);
    assert_int_equal(order.id, 0);
    assert_int_equal(order.wave, 0);
    assert_int_equal(order.waves, 0);
    assert_string_equal(order.by, "");
    assert_true(orders_next_us(world->orders, world->now) == UINT64_MAX);
    assert_int_equal(orders_cancel(world->orders, "me", world->now), ORDER_ERR_NONE);
    assert_false(orders_need(world->orders, find("web-1")->record));
    expect_silence();
    assert_int_equal(world->news_count, 0);
}

/* ---- planning ---- */

static void plan_puts_everyone_into_the_first_wave_that_matches(void **unused)
{
    static const struct {
        const char *cid;
        unsigned wave;
    } clients[] = {
        {"web-1", 1}, {"web-22", 2}, {"nas", 1}, {"db-1", 3}, {"db-9", 0}, {"nas2", 4}, {"NAS", 0},
    };

    (void)unused;
    for (size_t i = 0; i < COUNT(clients); i++)
        arrive(add(clients[i].cid, 0));
    start(MIN, 0, WAVES("web-?,nas", "web-*", "db-[1-3]", "nas*,*-1"));
    for (size_t i = 0; i < COUNT(clients); i++) {
        const struct registry_record *record = find(clients[i].cid)->record;
        assert_int_equal(record->order_wave, clients[i].wave);
        assert_int_equal(orders_target(world->orders, record),
                         clients[i].wave ? ORDER_TARGET_PENDING : ORDER_TARGET_NONE);
    }
    expect_numbers(1, 2, 2, 0, 0, 0, 0, 0);
    expect_numbers(4, 1, 1, 0, 0, 0, 0, 0);
}

static void plan_counts_the_absent_and_leaves_out_the_unknown(void **unused)
{
    (void)unused;
    add("web-%d", 1);
    arrive(add("web-%d", 2));
    struct client *unknown = add("web-%d", 3);
    unknown->record->stored = false;
    start(MIN, 0, WAVES("web-*"));
    expect_numbers(1, 2, 1, 0, 0, 0, 0, 1);
    assert_int_equal(orders_target(world->orders, unknown->record), ORDER_TARGET_NONE);
    assert_int_equal(orders_target(world->orders, find("web-1")->record),
                     ORDER_TARGET_NOT_CONNECTED);

    /* It is registered for the first time before the wave begins. */
    arrive(unknown);
    expect_numbers(1, 3, 2, 0, 0, 0, 0, 1);
    settle();
    assert_true(is_told(unknown));
}

/* Who comes, goes or registers while the plan is being made, on both sides of where it stands. */
static void plan_of_many_is_made_in_slices(void **unused)
{
    const int count = 10000;
    struct order_progress order;
    unsigned ticks = 0;

    (void)unused;
    add_connected("web-%d", 0, count);
    start(MIN, 0, WAVES("web-*"));
    assert_true(wave_of(1).numbers.targets < (size_t)count / 2);
    answer_all(STORE_OK);
    assert_true(orders_next_us(world->orders, world->now) == 0);

    leave(&world->clients[0], REASON_LEFT);
    leave(&world->clients[count - 1], REASON_LEFT);
    leave(&world->clients[1], REASON_LEFT);
    arrive(&world->clients[1]);
    leave(&world->clients[count - 2], REASON_LEFT);
    arrive(&world->clients[count - 2]);
    struct client *late = newcomer("web-late");
    check();

    for (progress(&order); order.wave == 0; progress(&order)) {
        assert_true(orders_next_us(world->orders, world->now) == 0);
        assert_int_equal(world->tells, 0);
        tick();
        check();
        assert_true(++ticks < 20);
    }
    assert_true(ticks >= 3);
    expect_numbers(1, count + 1, count - 1, 0, 0, 0, 0, 2);
    settle();
    assert_int_equal(world->tells, count - 1);
    assert_true(is_told(late));
    assert_true(is_told(&world->clients[1]) && is_told(&world->clients[count - 2]));
    assert_int_equal(world->clients[0].tells + world->clients[count - 1].tells, 0);
}

static void plan_with_many_patterns_takes_smaller_slices(void **unused)
{
    char list[1024] = "";
    size_t len = 0;

    (void)unused;
    for (int i = 0; i < 250; i++)
        len += (size_t)snprintf(list + len, sizeof(list) - len, "%sx%d*", i ? "," : "", i % 10);
    add_connected("web-%d", 0, 500);
    struct order_request request = {.by = "me"};
    char message[256];
    assert_int_equal(order_waves_add(&request.waves, list, message, sizeof(message)), 0);
    assert_int_equal(order_waves_add(&request.waves, "web-*", message, sizeof(message)), 0);
    assert_int_equal(orders_start(world->orders, &request, world->now), ORDER_OK);
    take_matches();
    assert_true(wave_of(2).numbers.targets > 0 && wave_of(2).numbers.targets <= 100);
    settle();
    assert_int_equal(world->tells, 500);
}

/* What stands in the records of those behind the plan is another order's, and long past. */
static void plan_of_a_second_order_is_not_confused_by_the_first(void **unused)
{
    const int count = 9000; /* more than two slices of the plan */
    struct client *stays = &world->clients[count - 2];

    (void)unused;
    add_connected("web-%d", 0, count);
    start(0, 0, WAVES("web-*"));
    settle();
    assert_int_equal(state(), ORDER_DONE);
    assert_int_equal(world->tells, count);
    for (int i = 0; i < count; i++) {
        if (&world->clients[i] == stays)
            continue;
        leave(&world->clients[i], REASON_SHUTDOWN);
        arrive(&world->clients[i]);
    }
    start(MIN, 0, WAVES("web-88*"));
    leave(stays, REASON_SHUTDOWN);
    check();
    struct client *last = &world->clients[count - 1];
    struct client *match = find("web-8898");
    assert_int_equal(orders_target(world->orders, last->record), ORDER_TARGET_NONE);
    acknowledge(last);
    leave(last, REASON_LEFT);
    arrive(last);
    acknowledge(match);
    check();
    settle();
    assert_int_equal(world->tells, count + 111);
    assert_int_equal(last->tells, 1);
    assert_int_equal(match->tells, 2);
    expect_numbers(1, 111, 0, 111, 0, 0, 111, 0);
}

/* ---- telling and waves ---- */

static void wave_is_told_only_once_it_is_saved(void **unused)
{
    struct order_progress order;

    (void)unused;
    add_connected("web-%d", 0, 3);
    start(MIN, 0, WAVES("web-*"));
    progress(&order);
    assert_false(order.durable);
    assert_true(order.is_settling);
    assert_int_equal(news_of(ORDER_SAVED), 0);
    for (int i = 0; i < 100; i++) {
        tick();
        advance(MIN);
    }
    assert_int_equal(world->tells, 0);
    assert_true(orders_next_us(world->orders, world->now) == UINT64_MAX);
    expect_numbers(1, 3, 3, 0, 0, 0, 0, 0);

    answer(STORE_OK);
    assert_int_equal(news_of(ORDER_SAVED), 1);
    assert_int_equal(world->tells, 0); /* not from within the store's answer */
    progress(&order);
    assert_true(order.durable);
    assert_false(order.is_settling);
    assert_true(orders_next_us(world->orders, world->now) == 0);
    settle();
    assert_int_equal(world->tells, 3);
}

static void wave_tells_those_and_nobody_else(void **unused)
{
    (void)unused;
    add_connected("web-%d", 0, 5);
    add_connected("db-%d", 0, 5);
    add_connected("web%d", 0, 5);
    add("web-off-%d", 1);
    start(MIN, 0, WAVES("web-*"));
    settle();
    for (size_t i = 0; i < world->count; i++)
        assert_int_equal(world->clients[i].tells, i < 5);
    expect_numbers(1, 6, 0, 5, 0, 0, 5, 1);
}

static void wave_of_many_is_told_in_slices(void **unused)
{
    const int count = 2 * TELL_SLICE + 88;
    unsigned after[5];

    (void)unused;
    add_connected("web-%d", 0, count);
    start(MIN, 0, WAVES("web-*"));
    answer_all(STORE_OK);
    tick(); /* begins the wave */
    answer_all(STORE_OK);
    for (int i = 0; i < 5; i++) {
        after[i] = world->tells;
        assert_true(i >= 3 || orders_next_us(world->orders, world->now) == 0);
        tick();
        check();
    }
    const unsigned wanted[5] = {0, TELL_SLICE, 2 * TELL_SLICE, (unsigned)count, (unsigned)count};
    assert_memory_equal(after, wanted, sizeof(wanted));
    assert_int_equal(wave_of(1).state, ORDER_WAVE_RUNNING);
}

/* While it is being told, some leave, some come, and some acknowledge. */
static void wave_of_many_copes_with_who_comes_and_goes_meanwhile(void **unused)
{
    const int count = 3 * TELL_SLICE;

    (void)unused;
    add_connected("web-%d", 0, count);
    start(MIN, 10 * MIN, WAVES("web-*"));
    answer_all(STORE_OK);
    tick();
    answer_all(STORE_OK);
    tick(); /* one slice */
    leave(&world->clients[0], REASON_SHUTDOWN);
    leave(&world->clients[count - 1], REASON_LEFT);
    acknowledge(&world->clients[1]);
    acknowledge(&world->clients[count - 2]); /* was not told yet */
    expect_numbers(1, count, count - TELL_SLICE - 1, TELL_SLICE, 1, 1, TELL_SLICE - 1, 1);
    struct client *late = newcomer("web-late");
    assert_true(is_told(late));
    acknowledge(late);
    arrive(&world->clients[count - 1]);
    assert_true(is_told(&world->clients[count - 1]));
    arrive(&world->clients[0]);
    settle();
    assert_int_equal(world->tells, count + 2); /* one of them twice, in two sessions */
    assert_int_equal(news_of(ORDER_CLIENT_TOLD), count + 2);
    assert_int_equal(orders_target(world->orders, late->record), ORDER_TARGET_ACKNOWLEDGED);
    for (int i = 1; i < count; i++)
        assert_int_equal(world->clients[i].tells, 1);
    assert_int_equal(world->clients[0].tells, 2);
}

static void wave_looks_at_a_bounded_number_of_records(void **unused)
{
    (void)unused;
    for (int i = 0; i < 11000; i++)
        add("off-%d", i);
    struct client *web = newcomer("web-1");
    start(MIN, 0, WAVES("web-*"));
    settle();
    assert_true(is_told(web));
}

static void wave_ends_when_all_who_were_told_have_gone(void **unused)
{
    (void)unused;
    add_connected("web-%d", 0, 2);
    start(MIN, 0, WAVES("web-*"));
    settle();
    assert_true(orders_next_us(world->orders, world->now) == world->now.mono_us + MIN);
    advance(S);
    acknowledge(find("web-0"));
    expect_numbers(1, 2, 0, 2, 1, 0, 2, 0);
    leave(find("web-0"), REASON_SHUTDOWN);
    settle();
    expect_numbers(1, 2, 0, 2, 1, 1, 1, 0);
    assert_int_equal(state(), ORDER_RUNNING);
    leave(find("web-1"), REASON_SHUTDOWN);
    assert_true(orders_next_us(world->orders, world->now) == 0);
    settle();
    expect_numbers(1, 2, 0, 2, 1, 2, 0, 0);
    assert_int_equal(state(), ORDER_DONE);
    assert_int_equal(wave_of(1).state, ORDER_WAVE_DONE);
    assert_int_equal(wave_of(1).started, START_S);
    assert_int_equal(wave_of(1).ended, START_S + 1);
    expect_silence();
}

static void wave_ends_when_grace_is_over(void **unused)
{
    (void)unused;
    add_connected("web-%d", 0, 2);
    start(MIN, 0, WAVES("web-*"));
    settle();
    acknowledge(find("web-1"));
    assert_int_equal(orders_target(world->orders, find("web-0")->record), ORDER_TARGET_TOLD);
    assert_int_equal(orders_target(world->orders, find("web-1")->record),
                     ORDER_TARGET_ACKNOWLEDGED);
    live(MIN - 1);
    assert_int_equal(state(), ORDER_RUNNING);
    live(1);
    assert_int_equal(state(), ORDER_DONE);
    assert_int_equal(orders_target(world->orders, find("web-0")->record), ORDER_TARGET_STILL_UP);
    assert_int_equal(orders_target(world->orders, find("web-1")->record), ORDER_TARGET_STILL_UP);
    expect_numbers(1, 2, 0, 2, 1, 0, 2, 0);
    leave(find("web-1"), REASON_SHUTDOWN);
    expect_numbers(1, 2, 0, 2, 1, 1, 1, 0);
    expect_silence();
}

static void wave_without_clients_is_over_at_once(void **unused)
{
    struct order_progress order;

    (void)unused;
    start(MIN, 0, WAVES("web-*", "db-*"));
    settle();
    assert_int_equal(state(), ORDER_DONE);
    progress(&order);
    assert_int_equal(order.wave, 2);
    assert_int_equal(order.ended, START_S);
    assert_int_equal(news_of(ORDER_WAVE_STARTED), 2);
    assert_int_equal(news_of(ORDER_WAVE_ENDED), 2);
    assert_int_equal(news_of(ORDER_IS_DONE), 1);
    add_connected("web-%d", 0, 2);
    expect_silence();
}

static void wave_with_grace_0_waits_for_nobody(void **unused)
{
    (void)unused;
    add_connected("web-%d", 0, 600);
    add_connected("db-%d", 0, 600);
    start(0, 0, WAVES("web-*", "db-*"));
    settle();
    assert_int_equal(state(), ORDER_DONE);
    assert_int_equal(world->tells, 1200);
    /* All of a wave before the first of the next, whatever the grace. */
    const size_t next = when(ORDER_WAVE_STARTED, 2);
    size_t told = 0;
    for (size_t i = 0; i < next; i++)
        told += world->news[i].what == ORDER_CLIENT_TOLD && world->news[i].wave == 1;
    assert_int_equal(told, 600);
    assert_true(when(ORDER_CLIENT_TOLD, 2) > next);
}

static void waves_come_one_after_the_other(void **unused)
{
    struct order_progress order;

    (void)unused;
    add_connected("c-%d", 0, 3);
    add_connected("a-%d", 0, 3);
    add_connected("b-%d", 0, 3);
    start(MIN, 0, WAVES("a-*", "b-*", "c-*"));
    for (unsigned wave = 1; wave <= 3; wave++) {
        const char first[] = {(char)('a' + wave - 1), '-', '0', '\0'};

        settle();
        progress(&order);
        assert_int_equal(order.wave, wave);
        assert_int_equal(world->tells, 3 * wave);
        assert_int_equal(wave_of(wave).state, ORDER_WAVE_RUNNING);
        assert_int_equal(wave < 3 ? (int)wave_of(3).state : ORDER_WAVE_PENDING, ORDER_WAVE_PENDING);
        for (size_t i = 0; i < world->count; i++) {
            struct client *client = &world->clients[i];
            if (client->cid[0] == first[0] && strcmp(client->cid, first) != 0)
                leave(client, REASON_SHUTDOWN);
        }
        live(MIN - S);
        assert_int_equal(world->tells, 3 * wave);
        live(S);
    }
    assert_int_equal(state(), ORDER_DONE);
    for (unsigned wave = 1; wave <= 3; wave++)
        expect_numbers(wave, 3, 0, 3, 0, 2, 1, 0);
    assert_true(when(ORDER_WAVE_ENDED, 1) < when(ORDER_WAVE_STARTED, 2));
    assert_true(when(ORDER_WAVE_ENDED, 2) < when(ORDER_WAVE_STARTED, 3));
    assert_true(when(ORDER_WAVE_ENDED, 3) < when(ORDER_IS_DONE, 0));
    assert_int_equal(wave_of(3).started, START_S + 120);
    assert_int_equal(wave_of(3).ended, START_S + 180);
    expect_silence();
}

static void wave_does_not_wait_for_who_came_too_late(void **unused)
{
    (void)unused;
    add_connected("web-%d", 0, 2);
    start(MIN, 0, WAVES("web-*"));
    settle();
    struct client *late = newcomer("web-9");
    assert_false(is_told(late));
    expect_numbers(1, 3, 0, 2, 0, 0, 2, 0);
    assert_int_equal(wave_of(1).numbers.late, 1);
    assert_int_equal(orders_target(world->orders, late->record), ORDER_TARGET_LATE);
    leave(find("web-0"), REASON_SHUTDOWN);
    leave(find("web-1"), REASON_SHUTDOWN);
    settle();
    assert_int_equal(state(), ORDER_DONE);
    assert_int_equal(late->tells, 0);
}

static void client_of_two_waves_is_told_with_the_first(void **unused)
{
    (void)unused;
    struct client *both = newcomer("web-1");
    struct client *other = newcomer("db-1");
    start(MIN, 0, WAVES("web-*", "*-1"));
    settle();
    assert_true(is_told(both));
    assert_false(is_told(other));
    live(MIN);
    assert_true(is_told(other));
    assert_int_equal(both->tells, 1);
    expect_numbers(2, 1, 0, 1, 0, 0, 1, 0);
}

static void client_of_two_waves_that_misses_the_first_is_told_with_the_second(void **unused)
{
    (void)unused;
    struct client *off = add("web-%d", 1);
    newcomer("web-2");
    start(MIN, 0, WAVES("web-*", "db-*", "web-1,web-3"));
    settle();
    expect_numbers(1, 2, 0, 1, 0, 0, 1, 1);
    arrive(off);
    struct client *unknown = newcomer("web-3");
    assert_int_equal(off->tells + unknown->tells, 0);
    expect_numbers(1, 1, 0, 1, 0, 0, 1, 0);
    expect_numbers(3, 2, 2, 0, 0, 0, 0, 0);
    live(MIN);
    assert_true(is_told(off) && is_told(unknown));
    expect_numbers(3, 2, 0, 2, 0, 0, 2, 0);
}

static void client_that_is_found_gone_by_the_130_is_told_and_gone(void **unused)
{
    (void)unused;
    add_connected("web-%d", 0, 3);
    find("web-1")->leaves_when_told = true;
    start(MIN, 0, WAVES("web-*"));
    settle();
    expect_numbers(1, 3, 0, 3, 0, 1, 2, 0);
    assert_int_equal(orders_target(world->orders, find("web-1")->record), ORDER_TARGET_GONE);
}

static void client_told_by_an_earlier_order_is_not_told_again(void **unused)
{
    (void)unused;
    add_connected("web-%d", 0, 2);
    start(0, 0, WAVES("web-0"));
    settle();
    acknowledge(find("web-0"));
    start(MIN, MIN, WAVES("*"));
    settle();
    assert_int_equal(find("web-0")->tells, 1);
    assert_int_equal(find("web-1")->tells, 1);
    expect_numbers(1, 2, 0, 2, 0, 0, 2, 0);
    leave(find("web-0"), REASON_SHUTDOWN);
    arrive(find("web-0"));
    assert_int_equal(find("web-0")->tells, 2);
}

static void acknowledgement_counts_once_and_only_when_told(void **unused)
{
    (void)unused;
    add_connected("web-%d", 0, 2);
    add_connected("db-%d", 0, 1);
    struct client *web = find("web-0");
    acknowledge(web);
    start(MIN, 0, WAVES("web-*"));
    acknowledge(web);
    expect_numbers(1, 2, 2, 0, 0, 0, 0, 0);
    settle();
    acknowledge(find("db-0"));
    acknowledge(web);
    const unsigned saves = world->store.target_saves;
    acknowledge(web);
    assert_int_equal(world->store.target_saves, saves);
    expect_numbers(1, 2, 0, 2, 1, 0, 2, 0);
    assert_int_equal(news_of(ORDER_CLIENT_ACKNOWLEDGED), 1);
    live(MIN);
    assert_int_equal(state(), ORDER_DONE);
    acknowledge(find("web-1")); /* slow, but it did */
    expect_numbers(1, 2, 0, 2, 2, 0, 2, 0);
    assert_int_equal(world->store.flags[find("web-1")->record->sid] & RECORD_ACKNOWLEDGED,
                     RECORD_ACKNOWLEDGED);
}

/* ---- newcomers and hold ---- */

static void newcomer_before_its_wave_is_told_with_it(void **unused)
{
    (void)unused;
    for (int hold = 0; hold < 2; hold++) {
        struct client *off = add("db-%d", 1);

        newcomer("web-1");
        start(MIN, hold * 20 * MIN, WAVES("web-*", "db-*"));
        settle();
        arrive(off);
        struct client *unknown = newcomer("db-2");
        struct client *left = newcomer("db-3");
        leave(left, REASON_LEFT);
        settle();
        assert_int_equal(off->tells + unknown->tells + left->tells, 0);
        expect_numbers(2, 3, 2, 0, 0, 0, 0, 1);
        live(MIN);
        assert_int_equal(off->tells, 1);
        assert_int_equal(unknown->tells, 1);
        assert_int_equal(left->tells, 0);
        expect_numbers(2, 3, 0, 2, 0, 0, 2, 1);
        assert_int_equal(again(), 0);
    }
}

static void client_of_two_waves_that_is_back_is_not_told_with_the_second(void **unused)
{
    (void)unused;
    struct client *both = newcomer("web-1");
    newcomer("web-2");
    start(MIN, 0, WAVES("web-*", "*-1"));
    settle();
    acknowledge(both);
    leave(both, REASON_SHUTDOWN);
    arrive(both);
    live(2 * MIN);
    assert_int_equal(state(), ORDER_DONE);
    assert_int_equal(both->tells, 1);
    assert_int_equal(both->record->order_wave, 1);
}

static void client_of_three_waves_is_told_with_the_first_that_it_does_not_miss(void **unused)
{
    (void)unused;
    struct client *off = add("web-%d", 1);
    newcomer("web-2");
    newcomer("db-1");
    start(MIN, 0, WAVES("web-*", "db-*,web-1", "web-1", "*"));
    settle();
    live(MIN);
    arrive(off); /* in the second */
    assert_int_equal(off->tells, 0);
    expect_numbers(2, 1, 0, 1, 0, 0, 1, 0);
    expect_numbers(3, 1, 1, 0, 0, 0, 0, 0);
    live(MIN);
    assert_int_equal(off->tells, 1);
}

static void newcomer_behind_its_wave_is_told_under_hold_only(void **unused)
{
    (void)unused;
    for (int hold = 0; hold < 2; hold++) {
        const unsigned told = (unsigned)hold;
        struct client *off = add("web-%d", 1);

        newcomer("web-0");
        newcomer("db-0");
        start(MIN, hold * 20 * MIN, WAVES("web-*", "db-*"));
        settle();
        arrive(off);
        struct client *unknown = newcomer("web-2");
        struct client *stranger = newcomer("x-2");
        assert_int_equal(off->tells, told);
        assert_int_equal(unknown->tells, told);
        expect_numbers(1, 3, 0, 1 + 2 * told, 0, 0, 1 + 2 * told, 0);
        assert_int_equal(wave_of(1).numbers.late, 2 - 2 * told);
        live(MIN);
        struct client *later = newcomer("web-3"); /* in the second wave */
        assert_int_equal(later->tells, told);
        live(MIN);
        assert_int_equal(state(), hold ? ORDER_HOLDING : ORDER_DONE);
        struct client *last = newcomer("db-9");
        assert_int_equal(last->tells, told);
        assert_int_equal(stranger->tells, 0);
        check();
        assert_int_equal(again(), 0);
    }
}

static void newcomer_is_told_at_once_and_not_twice_in_a_session(void **unused)
{
    (void)unused;
    struct client *web = newcomer("web-1");
    start(MIN, 20 * MIN, WAVES("web-*"));
    settle();
    for (unsigned sessions = 2; sessions < 6; sessions++) {
        acknowledge(web);
        leave(web, sessions % 2 ? REASON_SHUTDOWN : REASON_REPLACED);
        settle();
        arrive(web);
        assert_int_equal(web->tells, sessions);
        expect_numbers(1, 1, 0, 1, 0, 0, 1, 0);
        for (int i = 0; i < 10; i++)
            tick();
        settle();
        live(MIN);
        assert_int_equal(web->tells, sessions);
    }
}

static void session_back_without_hold_is_left_alone_and_counts_as_up(void **unused)
{
    (void)unused;
    struct client *web = newcomer("web-1");
    struct client *other = newcomer("web-2");
    start(MIN, 0, WAVES("web-*"));
    settle();
    acknowledge(web);
    leave(web, REASON_SHUTDOWN);
    arrive(web);
    assert_int_equal(web->tells, 1);
    expect_numbers(1, 2, 0, 2, 1, 0, 2, 0);
    leave(other, REASON_SHUTDOWN);
    settle();
    assert_int_equal(state(), ORDER_RUNNING); /* one that was told is up: the wave has its grace */
    live(MIN);
    assert_int_equal(state(), ORDER_DONE);
    assert_int_equal(web->tells, 1);
}

static void hold_ends_at_its_time_counted_from_the_order(void **unused)
{
    struct order_progress order;

    (void)unused;
    start(MIN, 10 * MIN, WAVES("web-*"));
    settle();
    progress(&order);
    assert_int_equal(order.state, ORDER_HOLDING);
    assert_int_equal(order.ended, 0);
    assert_true(orders_next_us(world->orders, world->now) == world->now.mono_us + 10 * MIN);
    live(10 * MIN - 1);
    struct client *last = newcomer("web-1");
    assert_true(is_told(last));
    advance(1);
    struct client *late = newcomer("web-2"); /* before anybody has ticked */
    assert_false(is_told(late));
    check();
    settle();
    assert_int_equal(state(), ORDER_DONE);
    progress(&order);
    assert_int_equal(order.ended, START_S + 600);
    assert_int_equal(news_of(ORDER_IS_HOLDING), 1);
    expect_silence();
}

static void hold_lasts_until_the_last_wave_is_over(void **unused)
{
    (void)unused;
    newcomer("web-1");
    newcomer("db-1");
    start(2 * MIN, S, WAVES("web-*", "db-*"));
    settle();
    live(3 * MIN); /* the hold is long over, the second wave is not */
    struct client *late = newcomer("web-2");
    assert_true(is_told(late));
    live(MIN);
    assert_int_equal(state(), ORDER_DONE);
    assert_int_equal(news_of(ORDER_IS_HOLDING), 0);
    expect_silence();
}

/* ---- cancel ---- */

/* The steps of an order with everything in it; returns false when there are no more. */
static bool one_step(unsigned step)
{
    switch (step) {
    case 0:
        add_connected("web-%d", 0, 2 * TELL_SLICE + 10);
        add_connected("db-%d", 0, 10);
        add("web-off-%d", 0);
        start(MIN, 10 * MIN, WAVES("web-*", "db-*", "late-*"));
        return true;
    case 2:
        answer(STORE_OK);
        return true;
    case 5: /* two slices are told */
        leave(&world->clients[0], REASON_SHUTDOWN);
        leave(&world->clients[2 * TELL_SLICE], REASON_LEFT);
        acknowledge(&world->clients[1]);
        return true;
    case 8:
        answer_all(STORE_OK);
        arrive(find("web-off-0"));
        return true;
    case 9:
        advance(MIN);
        return true;
    case 12:
        for (size_t i = 0; i < world->count; i++) {
            if (is_told(&world->clients[i]))
                leave(&world->clients[i], REASON_SHUTDOWN);
        }
        return true;
    case 16:
        assert_int_equal(state(), ORDER_HOLDING);
        arrive(&world->clients[0]);
        return true;
    case 17:
        return false;
    default:
        tick();
        return true;
    }
}

static void cancel_at_every_step_tells_nobody_any_more(void **unused)
{
    unsigned steps = 0;

    (void)unused;
    for (bool more = true; more; steps++) {
        struct order_progress order;

        for (unsigned step = 0; step <= steps && more; step++)
            more = one_step(step);
        check();
        world->must_be_silent = true;
        assert_int_equal(orders_cancel(world->orders, "uid 8", world->now), ORDER_OK);
        check();
        progress(&order);
        assert_int_equal(order.state, ORDER_CANCELLED);
        assert_int_equal(order.ended, world->now.wall_ms / 1000);
        assert_string_equal(order.by, "uid 7");
        assert_true(order.is_settling);
        assert_int_equal(news_of(ORDER_WAS_CANCELLED), 1);
        assert_true(orders_next_us(world->orders, world->now) == UINT64_MAX);
        for (unsigned wave = 1; wave <= 3; wave++) {
            const struct order_wave_progress at = wave_of(wave);
            assert_int_equal(at.state, at.started ? ORDER_WAVE_DONE : ORDER_WAVE_NEVER);
            assert_int_equal(at.ended != 0, at.started != 0);
        }
        assert_int_equal(orders_cancel(world->orders, "uid 8", world->now), ORDER_ERR_NONE);
        answer_all(steps % 2 ? STORE_OK : STORE_UNAVAILABLE);
        progress(&order);
        assert_int_equal(order.durable, steps % 2);
        /* Not even one, not even after a restart that knows of it. */
        if (steps % 2 && steps % 4 == 1) {
            restart(steps % 8 == 1 ? REASON_CRASH : REASON_STOPPED, S);
            assert_int_equal(state(), ORDER_CANCELLED);
        }
        expect_silence();
        assert_int_equal(again(), 0);
    }
    assert_int_equal(steps, 18);
}

static void cancel_is_possible_for_an_order_that_is_not_saved_yet(void **unused)
{
    (void)unused;
    add_connected("web-%d", 0, 3);
    start(MIN, 0, WAVES("web-*"));
    assert_int_equal(orders_cancel(world->orders, "me", world->now), ORDER_OK);
    answer(STORE_OK);
    assert_int_equal(news_of(ORDER_SAVED), 0); /* one save is still to be answered */
    answer(STORE_OK);
    assert_int_equal(news_of(ORDER_SAVED), 1);
    assert_string_equal(world->store.kept.order.state, "cancelled");
    expect_silence();
}

/* ---- two orders ---- */

static void second_order_is_refused_while_one_is_under_way(void **unused)
{
    struct order_progress before;
    struct order_progress after;

    (void)unused;
    add_connected("web-%d", 0, 3);
    add_connected("db-%d", 0, 3);
    start(MIN, 10 * MIN, WAVES("web-*"));
    for (int step = 0; step < 4; step++) {
        progress(&before);
        const size_t news = world->news_count;
        const char *const others[] = {"db-*", NULL};
        assert_int_equal(give(0, 0, others), ORDER_ERR_BUSY);
        progress(&after);
        assert_int_equal(before.id, after.id);
        assert_int_equal(before.state, after.state);
        assert_int_equal(world->news_count, news);
        if (step == 0)
            settle();
        else
            live(MIN);
        check();
    }
    assert_int_equal(state(), ORDER_HOLDING);
    for (int i = 0; i < 3; i++)
        assert_int_equal(world->clients[3 + i].tells, 0);
    live(10 * MIN);
    assert_int_equal(state(), ORDER_DONE);
    start(MIN, 0, WAVES("db-*"));
    progress(&after);
    assert_int_equal(after.id, before.id + 1);
    settle();
    assert_int_equal(world->tells, 6);
}

/* Answers of an earlier order that are still on their way do not let the next one go. */
static void second_order_waits_for_its_own_answer(void **unused)
{
    (void)unused;
    add_connected("web-%d", 0, 3);
    start(MIN, 0, WAVES("web-1"));
    assert_int_equal(orders_cancel(world->orders, "me", world->now), ORDER_OK);
    start(MIN, 0, WAVES("web-*"));
    assert_int_equal(world->store.unanswered, 3);
    for (int i = 0; i < 3; i++) {
        for (int j = 0; j < 5; j++)
            tick();
        assert_int_equal(world->tells, 0);
        assert_int_equal(news_of(ORDER_SAVED), 0);
        answer(STORE_OK);
    }
    settle();
    assert_int_equal(world->tells, 3);
}

static void progress_says_what_was_asked(void **unused)
{
    struct order_progress order;

    (void)unused;
    add_connected("web-%d", 0, 1);
    start(90 * S, 20 * MIN, WAVES("web-*", "db-*,nas"));
    progress(&order);
    assert_int_equal(order.id, 1);
    assert_string_equal(order.by, "uid 7");
    assert_int_equal(order.created, START_S);
    assert_int_equal(order.ended, 0);
    assert_true(order.grace_ms == 90000 && order.hold_ms == 1200000);
    assert_int_equal(order.wave, 0);
    assert_int_equal(order.waves, 2);
    assert_string_equal(wave_of(2).match, "db-*,nas");
    assert_int_equal(wave_of(1).state, ORDER_WAVE_PENDING);
    settle();
    progress(&order);
    assert_int_equal(order.wave, 1);
    assert_int_equal(wave_of(2).state, ORDER_WAVE_PENDING);
    /* Started, wave 1, told one; the news of saves apart. */
    assert_int_equal(world->news[0].what, ORDER_WAS_STARTED);
    assert_int_equal(world->news[0].order, 1);
    assert_int_equal(world->news[0].wave, 0);
    const size_t told = when(ORDER_CLIENT_TOLD, 1);
    assert_true(told != SIZE_MAX && world->news[told].sid == find("web-0")->record->sid);
    assert_true(when(ORDER_WAVE_STARTED, 1) < told);
}

/* ---- a store that fails ---- */

static void order_is_carried_out_when_the_store_fails(void **unused)
{
    struct order_progress order;

    (void)unused;
    add_connected("web-%d", 0, 3);
    start(MIN, 0, WAVES("web-*"));
    tick();
    assert_int_equal(world->tells, 0);
    answer(STORE_UNAVAILABLE);
    progress(&order);
    assert_false(order.durable || order.is_settling);
    assert_int_equal(news_of(ORDER_SAVED), 1);
    while (orders_next_us(world->orders, world->now) <= world->now.mono_us) {
        tick();
        answer_all(STORE_UNAVAILABLE);
    }
    assert_int_equal(world->tells, 3);
    expect_numbers(1, 3, 0, 3, 0, 0, 3, 0);
    progress(&order);
    assert_false(order.durable);
    /* It heals: with the next save all is known. */
    live(MIN);
    progress(&order);
    assert_int_equal(order.state, ORDER_DONE);
    assert_true(order.durable);
}

/* Neither does the last one change, which the store may still have to write. */
static void order_without_memory_for_it_is_refused(void **unused)
{
    struct order_progress before;
    struct order_progress after;

    (void)unused;
    add_connected("web-%d", 0, 3);
    start(MIN, 0, WAVES("db-*"));
    live(MIN);
    progress(&before);
    assert_int_equal(before.state, ORDER_DONE);
    world->store.out_of_memory = true;
    assert_int_equal(give(MIN, 0, WAVES("web-*")), ORDER_ERR_NO_MEMORY);
    world->store.out_of_memory = false;
    progress(&after);
    assert_int_equal(after.id, before.id);
    assert_int_equal(after.state, before.state);
    assert_int_equal(after.waves, before.waves);
    assert_string_equal(wave_of(1).match, "db-*");
    live(MIN);
    assert_int_equal(world->tells, 0);
    start(MIN, 0, WAVES("web-*"));
    settle();
    assert_int_equal(world->tells, 3);
}

static void order_is_refused_while_the_server_ends(void **unused)
{
    (void)unused;
    add_connected("web-%d", 0, 3);
    orders_freeze(world->orders);
    assert_int_equal(give(MIN, 0, WAVES("web-*")), ORDER_ERR_ENDING);
    assert_int_equal(state(), ORDER_NONE);
    live(MIN);
    assert_int_equal(world->tells, 0);
}

/* Without hold, who came when its wave had begun was left alone, and is so after a restart. */
static void restore_leaves_those_alone_who_came_too_late(void **unused)
{
    static const enum reason ends[] = {REASON_CRASH, REASON_STOPPED, REASON_RESTARTING};

    (void)unused;
    for (size_t end = 0; end < COUNT(ends); end++) {
        newcomer("web-1");
        struct client *off = add("web-%d", 2);
        start(MIN, 0, WAVES("web-*"));
        settle();
        arrive(off);
        struct client *unknown = newcomer("web-3");
        assert_int_equal(wave_of(1).numbers.late, 2);
        restart(ends[end], S);
        settle();
        arrive(off);
        arrive(unknown);
        arrive(find("web-1"));
        settle();
        assert_int_equal(off->tells + unknown->tells, 0);
        assert_int_equal(find("web-1")->tells, 2);
        assert_int_equal(wave_of(1).numbers.late, 2);
        live(MIN);
        assert_int_equal(state(), ORDER_DONE);
        assert_int_equal(off->tells + unknown->tells, 0);
        assert_int_equal(again(), 0);
    }
}

static void order_that_a_restart_forgot_is_never_carried_out(void **unused)
{
    (void)unused;
    add_connected("web-%d", 0, 3);
    start(MIN, 10 * MIN, WAVES("web-*", "db-*"));
    answer(STORE_UNAVAILABLE);
    tick();
    tick();
    assert_int_equal(world->tells, 3);
    restart(REASON_CRASH, S);
    assert_int_equal(state(), ORDER_NONE);
    expect_silence();
}

static void cancel_counts_when_the_store_fails(void **unused)
{
    struct order_progress order;

    (void)unused;
    add_connected("web-%d", 0, 3);
    start(MIN, 0, WAVES("db-*", "web-*"));
    answer_all(STORE_OK);
    world->store.out_of_memory = true;
    assert_int_equal(orders_cancel(world->orders, "me", world->now), ORDER_OK);
    progress(&order);
    assert_false(order.durable || order.is_settling);
    expect_silence();
}

/* ---- restarts ---- */

static void restore_of_an_order_before_its_first_wave_begins_it(void **unused)
{
    (void)unused;
    for (int stopped = 0; stopped < 2; stopped++) {
        add_connected("web-%d", 0, 3);
        add("web-off-%d", 1);
        start(MIN, 0, WAVES("web-*"));
        answer(STORE_OK);
        advance(S);
        restart(stopped ? REASON_STOPPED : REASON_CRASH, S);
        assert_int_equal(state(), ORDER_RUNNING);
        expect_numbers(1, 4, 3, 0, 0, 0, 0, 1);
        settle();
        assert_int_equal(wave_of(1).state, ORDER_WAVE_RUNNING);
        expect_numbers(1, 4, 3, 0, 0, 0, 0, 1);
        arrive(find("web-0"));
        assert_true(is_told(find("web-0")));
        expect_numbers(1, 4, 2, 1, 0, 0, 1, 1);
        arrive(find("web-off-1")); /* was not there: without hold it is left alone */
        assert_int_equal(find("web-off-1")->tells, 0);
        leave(find("web-0"), REASON_SHUTDOWN);
        settle();
        assert_int_equal(state(), ORDER_RUNNING); /* two are awaited */
        arrive(find("web-1"));
        leave(find("web-1"), REASON_SHUTDOWN);
        arrive(find("web-2"));
        leave(find("web-2"), REASON_SHUTDOWN);
        settle();
        assert_int_equal(state(), ORDER_DONE);
        assert_int_equal(world->tells, 3);
        expect_silence();
        assert_int_equal(again(), 0);
    }
}

static void restore_of_an_order_in_a_wave_waits_for_those_it_may_have_missed(void **unused)
{
    static const enum reason ends[] = {REASON_CRASH, REASON_STOPPED, REASON_RESTARTING};

    (void)unused;
    for (size_t end = 0; end < COUNT(ends); end++) {
        add_connected("web-%d", 0, 6);
        add_connected("db-%d", 0, 2);
        add("web-off-%d", 0);
        start(MIN, 0, WAVES("web-*", "db-*"));
        settle();
        assert_int_equal(world->tells, 6);
        acknowledge(find("web-0")); /* and stays */
        acknowledge(find("web-1"));
        leave(find("web-1"), REASON_SHUTDOWN);
        leave(find("web-2"), REASON_SHUTDOWN);
        advance(30 * S);
        restart(ends[end], 5 * S);
        assert_int_equal(state(), ORDER_RUNNING);
        expect_numbers(1, 7, 3, 3, 2, 2, 1, 1); /* web-0 may not have gone yet */
        assert_int_equal(orders_target(world->orders, find("web-0")->record),
                         ORDER_TARGET_ACKNOWLEDGED);
        expect_numbers(2, 2, 2, 0, 0, 0, 0, 0);
        assert_int_equal(wave_of(1).started, START_S);
        settle();
        assert_int_equal(world->tells, 6);
        assert_true(orders_next_us(world->orders, world->now) == world->now.mono_us + RETURN);

        /* Acknowledged, or gone before the end: never again. Missed: at once. */
        arrive(find("web-0"));
        arrive(find("web-1"));
        arrive(find("web-2"));
        arrive(find("web-off-0"));
        assert_int_equal(world->tells, 6);
        arrive(find("web-3"));
        assert_int_equal(find("web-3")->tells, 2);
        arrive(find("db-0"));
        assert_int_equal(find("db-0")->tells, 0);
        check();
        live(RETURN - 1);
        assert_int_equal(world->tells, 7);
        live(1);
        assert_int_equal(find("db-0")->tells, 1);
        arrive(find("db-1"));
        assert_int_equal(find("db-1")->tells, 1);
        arrive(find("web-4")); /* after the grace, but it was ordered and never told */
        assert_int_equal(find("web-4")->tells, 2);
        live(MIN);
        assert_int_equal(state(), ORDER_DONE);
        arrive(find("web-5"));
        assert_int_equal(find("web-5")->tells, 1);
        expect_silence();
        assert_int_equal(again(), 0);
    }
}

/* However short the grace: clients pause for up to a minute before they are back. */
static void restore_waits_for_the_untold_to_come_back(void **unused)
{
    (void)unused;
    add_connected("web-%d", 0, 2);
    add_connected("db-%d", 0, 2);
    start(5 * S, 0, WAVES("web-*", "db-*"));
    restart(REASON_RESTARTING, S);
    live(RETURN - S);
    assert_int_equal(wave_of(1).state, ORDER_WAVE_RUNNING);
    arrive(find("web-0"));
    arrive(find("web-1"));
    assert_int_equal(world->tells, 2);

    /* From here on it is the grace that counts, for both. */
    assert_true(orders_next_us(world->orders, world->now) == world->now.mono_us + 5 * S);
    live(5 * S);
    assert_int_equal(wave_of(2).state, ORDER_WAVE_RUNNING);
    assert_true(orders_next_us(world->orders, world->now) == world->now.mono_us + 5 * S);
    arrive(find("db-0"));
    assert_int_equal(find("db-0")->tells, 1);
    live(5 * S);
    assert_int_equal(state(), ORDER_DONE);
}

/* Before the server has turned once. */
static void restore_leaves_those_alone_whom_the_wave_has_done_with(void **unused)
{
    (void)unused;
    add_connected("web-%d", 0, 3);
    add("web-off-%d", 0);
    add_connected("db-%d", 0, 2);
    start(MIN, 0, WAVES("web-*", "db-*"));
    settle();
    acknowledge(find("web-0"));
    restart(REASON_CRASH, S);
    world->must_be_silent = true;
    arrive(find("web-0"));
    arrive(find("web-off-0"));
    for (int i = 0; i < 5; i++)
        tick();
    check();
    world->must_be_silent = false;
    arrive(find("web-1"));
    assert_int_equal(find("web-1")->tells, 2);
    leave(find("web-1"), REASON_LEFT);
    arrive(find("web-2"));
    live(MIN);
    assert_int_equal(wave_of(2).state, ORDER_WAVE_RUNNING);

    /* The first wave is over: who had not acknowledged is up, and that is how it stays. */
    restart(REASON_CRASH, S);
    world->must_be_silent = true;
    arrive(find("web-2"));
    arrive(find("web-1"));
    settle();
    world->must_be_silent = false;
    expect_numbers(2, 2, 2, 0, 0, 0, 0, 0);
    live(RETURN);
    assert_int_equal(state(), ORDER_DONE);
}

static void restore_while_a_wave_is_told_tells_the_rest(void **unused)
{
    const int count = 3 * TELL_SLICE;

    (void)unused;
    add_connected("web-%d", 0, count);
    start(MIN, 0, WAVES("web-*"));
    answer_all(STORE_OK);
    tick();
    answer_all(STORE_OK);
    tick();
    for (int i = 0; i < TELL_SLICE; i++)
        acknowledge(&world->clients[i]);
    restart(REASON_CRASH, S);
    settle();
    for (int i = 0; i < count; i++)
        arrive(&world->clients[i]);
    settle();
    for (int i = 0; i < count; i++)
        assert_int_equal(world->clients[i].tells, 1);
    expect_numbers(1, count, 0, count, TELL_SLICE, 0, count, 0);
}

static void restore_between_two_waves_begins_the_next(void **unused)
{
    (void)unused;
    add_connected("web-%d", 0, 2);
    add_connected("db-%d", 0, 2);
    start(MIN, 0, WAVES("web-*", "db-*"));
    settle();
    leave(find("web-0"), REASON_SHUTDOWN);
    leave(find("web-1"), REASON_SHUTDOWN);
    tick();
    answer_all(STORE_OK); /* the second wave has begun, and nobody of it is told */
    restart(REASON_CRASH, S);
    assert_int_equal(wave_of(1).state, ORDER_WAVE_DONE);
    assert_int_equal(wave_of(2).state, ORDER_WAVE_RUNNING);
    settle();
    arrive(find("web-0"));
    arrive(find("db-0"));
    assert_int_equal(find("web-0")->tells, 1);
    assert_int_equal(find("db-0")->tells, 1);
    live(RETURN);
    assert_int_equal(state(), ORDER_DONE);
}

static void restore_keeps_the_wave_of_who_was_moved_to_a_later_one(void **unused)
{
    (void)unused;
    struct client *off = add("web-%d", 1);
    newcomer("web-2");
    newcomer("db-1");
    start(MIN, 0, WAVES("web-*", "db-*", "web-1"));
    settle();
    arrive(off); /* too late for its first wave, so it is the third's */
    live(0);
    restart(REASON_CRASH, S);
    arrive(off);
    assert_int_equal(off->tells, 0);
    restart(REASON_CRASH, S);
    settle();
    live(RETURN); /* the first wave, in which web-2 is awaited */
    live(MIN);    /* the second; the third awaits it */
    assert_int_equal(wave_of(3).state, ORDER_WAVE_RUNNING);
    assert_int_equal(orders_target(world->orders, off->record), ORDER_TARGET_PENDING);
    arrive(off);
    assert_int_equal(off->tells, 1);
}

static void restore_of_an_order_that_holds_tells_who_comes_until_its_end(void **unused)
{
    (void)unused;
    add_connected("web-%d", 0, 3);
    start(MIN, 10 * MIN, WAVES("web-*"));
    live(MIN);
    assert_int_equal(state(), ORDER_HOLDING);
    acknowledge(find("web-0"));
    restart(REASON_STOPPED, MIN);
    assert_int_equal(state(), ORDER_HOLDING);
    arrive(find("web-0"));
    arrive(find("web-1"));
    struct client *late = newcomer("web-9");
    struct client *other = newcomer("db-9");
    assert_true(is_told(find("web-0")) && is_told(find("web-1")) && is_told(late));
    assert_false(is_told(other));
    live(8 * MIN - 1);
    assert_int_equal(state(), ORDER_HOLDING);
    live(1);
    assert_int_equal(state(), ORDER_DONE);
    expect_silence();
}

static void restore_of_a_hold_that_is_over_tells_nobody(void **unused)
{
    (void)unused;
    add_connected("web-%d", 0, 3);
    start(MIN, 10 * MIN, WAVES("web-*"));
    live(MIN);
    restart(REASON_CRASH, 10 * MIN);
    assert_int_equal(state(), ORDER_HOLDING);
    expect_silence(); /* not even who comes before the first tick */
    assert_int_equal(state(), ORDER_DONE);
}

static void restore_of_an_ended_order_only_reports_it(void **unused)
{
    static const enum order_state ends[] = {ORDER_DONE, ORDER_CANCELLED, ORDER_EXPIRED};

    (void)unused;
    for (size_t i = 0; i < COUNT(ends); i++) {
        struct order_progress before;
        struct order_progress after;

        add_connected("web-%d", 0, 3);
        add_connected("db-%d", 0, 3);
        start(MIN, 10 * MIN, WAVES("web-*", "db-*", "x"));
        settle();
        acknowledge(find("web-0"));
        if (ends[i] == ORDER_DONE) {
            live(30 * MIN);
        } else if (ends[i] == ORDER_CANCELLED) {
            assert_int_equal(orders_cancel(world->orders, "me", world->now), ORDER_OK);
            answer_all(STORE_OK);
        } else {
            restart(REASON_CRASH, 60 * MIN);
            answer_all(STORE_OK);
        }
        progress(&before);
        assert_int_equal(before.state, ends[i]);
        restart(REASON_CRASH, S);
        progress(&after);
        assert_int_equal(after.state, ends[i]);
        assert_int_equal(after.id, before.id);
        assert_int_equal(after.ended, before.ended);
        assert_int_equal(after.wave, before.wave);
        assert_true(after.durable);
        for (unsigned wave = 1; wave <= 3; wave++)
            assert_int_equal(wave_of(wave).state, ends[i] == ORDER_DONE ? ORDER_WAVE_DONE
                                                  : wave > 1            ? ORDER_WAVE_NEVER
                                                                        : wave_of(wave).state);
        assert_int_equal(world->store.unanswered, 0);
        assert_false(orders_need(world->orders, find("web-0")->record));
        expect_silence();
        start(MIN, 0, WAVES("nobody"));
        progress(&after);
        assert_int_equal(after.id, before.id + 1);
        assert_int_equal(again(), 0);
    }
}

/* Who has acknowledged and was there until the end of the server may still be up: the next wave
 * waits until it has come back and gone, or the grace is over. */
static void restore_waits_for_the_acknowledged_to_go(void **unused)
{
    (void)unused;
    for (int comes_back = 0; comes_back < 2; comes_back++) {
        add_connected("web-%d", 0, 1);
        add_connected("db-%d", 0, 1);
        start(MIN, 0, WAVES("web-*", "db-*"));
        settle();
        acknowledge(find("web-0"));
        restart(REASON_CRASH, S);
        settle();
        arrive(find("db-0"));
        live(10 * S);
        assert_int_equal(find("db-0")->tells, 0);
        if (comes_back) {
            arrive(find("web-0"));
            live(10 * S);
            assert_int_equal(find("web-0")->tells, 1);
            assert_int_equal(find("db-0")->tells, 0);
            leave(find("web-0"), REASON_SHUTDOWN);
            settle();
            assert_int_equal(find("db-0")->tells, 1);
        } else {
            live(50 * S - 1);
            assert_int_equal(find("db-0")->tells, 0);
            live(1);
            assert_int_equal(find("db-0")->tells, 1);
            expect_numbers(1, 1, 0, 1, 1, 1, 0, 0);
        }
        leave(find("db-0"), REASON_SHUTDOWN);
        settle();
        assert_int_equal(state(), ORDER_DONE);
        assert_int_equal(again(), 0);
    }
}

static void restore_twice_goes_on_twice(void **unused)
{
    (void)unused;
    add_connected("web-%d", 0, 3);
    start(MIN, 0, WAVES("web-*"));
    settle();
    for (int i = 0; i < 3; i++) {
        restart(i % 2 ? REASON_STOPPED : REASON_CRASH, S);
        expect_numbers(1, 3, 3 - (size_t)i, (size_t)i, (size_t)i, 0, (size_t)i, 0);
        settle();
        struct client *client = &world->clients[i];
        arrive(client);
        assert_int_equal(client->tells, 2);
        acknowledge(client);
    }
    assert_int_equal(find("web-2")->tells, 2);
    live(2 * MIN);
    assert_int_equal(state(), ORDER_DONE);
}

static void restore_does_not_wait_for_who_was_away_before_the_order(void **unused)
{
    (void)unused;
    add_connected("web-%d", 0, 2);
    restart(REASON_STOPPED, S); /* both are "stopped", and do not come back */
    advance(S);
    newcomer("web-9");
    start(MIN, 0, WAVES("web-*"));
    settle();
    advance(S);
    restart(REASON_CRASH, S);
    expect_numbers(1, 3, 1, 0, 0, 0, 0, 2);
    settle();
    arrive(find("web-0"));
    assert_int_equal(find("web-0")->tells, 0);
    arrive(find("web-9"));
    assert_int_equal(find("web-9")->tells, 2);
}

static void restore_expires_what_is_too_old(void **unused)
{
    static const struct {
        uint64_t grace_us;
        uint64_t hold_us;
        int lived_minutes; /* before the end of the server */
        uint64_t until_us; /* from the order on: when it should have been over */
    } cases[] = {
        {MIN, 0, -1, 0},              /* before its first wave */
        {MIN, 0, 0, MIN},             /* in the wave */
        {10 * MIN, MIN, 0, 10 * MIN}, /* the hold ends before the wave */
        {MIN, 10 * MIN, 0, 10 * MIN}, /* and behind it */
        {MIN, 10 * MIN, 2, 10 * MIN}, /* while it holds */
        {0, 0, 0, 0},                 /* waits for nobody; see below */
    };

    (void)unused;
    for (size_t i = 0; i < COUNT(cases) * 2; i++) {
        const bool too_late = i % 2;
        struct order_progress order;

        add_connected("web-%d", 0, 2);
        start(cases[i / 2].grace_us, cases[i / 2].hold_us, WAVES("web-*"));
        answer_all(STORE_OK);
        if (cases[i / 2].lived_minutes >= 0) {
            tick();
            answer_all(STORE_OK);
            tick();
        }
        if (cases[i / 2].lived_minutes > 0)
            live((uint64_t)cases[i / 2].lived_minutes * MIN);
        const uint64_t until_us = START_US + cases[i / 2].until_us + 15 * MIN;
        const unsigned tells = world->tells;
        restart(REASON_CRASH, until_us - world->now.mono_us + (too_late ? MS : 0));
        progress(&order);
        if (too_late) {
            assert_int_equal(order.state, ORDER_EXPIRED);
            assert_int_equal(order.ended, world->now.wall_ms / 1000);
            assert_int_equal(news_of(ORDER_HAS_EXPIRED), 1);
            answer_all(STORE_OK);
            assert_string_equal(world->store.kept.order.state, "expired");
            expect_silence();
            assert_int_equal(world->tells, tells);
        } else {
            assert_true(order.state == ORDER_RUNNING || order.state == ORDER_HOLDING);
        }
        assert_int_equal(again(), 0);
    }
}

static void restore_expires_what_was_given_in_the_future(void **unused)
{
    (void)unused;
    for (int behind = 0; behind < 2; behind++) {
        add_connected("web-%d", 0, 2);
        start(MIN, 10 * MIN, WAVES("*"));
        settle();
        /* A machine whose clock has no battery. */
        world->store.kept.order.created += 3 * behind; /* more than a step of the clock */
        restart(REASON_CRASH, 0);
        assert_int_equal(state(), behind ? ORDER_EXPIRED : ORDER_RUNNING);
        if (behind)
            expect_silence();
        assert_int_equal(again(), 0);
    }
}

static void restore_refuses_what_makes_no_sense(void **unused)
{
    static const struct {
        const char *state;
        const char *match;
        size_t wave_count;
    } cases[] = {
        {"", "*", 1},          {"Running", "*", 1},   {"none", "*", 1},
        {"running", "a/b", 1}, {"running", "a b", 1}, {"running", "", 1},
        {"running", ",", 1},   {"running", "*", 0},   {"running", "*", ORDER_MAX_WAVES + 1},
        {"runningx", "*", 1},
    };
    struct order_progress order;

    (void)unused;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct store_order_wave waves[ORDER_MAX_WAVES + 1];
        char state_text[32];
        char match[32];
        char by[] = "me";

        snprintf(state_text, sizeof(state_text), "%s", cases[i].state);
        snprintf(match, sizeof(match), "%s", cases[i].match);
        for (size_t wave = 0; wave < COUNT(waves); wave++)
            waves[wave] = (struct store_order_wave){.match = match};
        const struct store_order kept = {
            .id = 41,
            .by = by,
            .state = state_text,
            .created = START_S,
            .grace_ms = 60000,
            .hold_ms = 600000,
            .waves = waves,
            .wave_count = cases[i].wave_count,
        };
        for (int client = 0; client < 3; client++) {
            struct registry_record *record = add("web-%d", client)->record;
            record->since = START_S;
            record->reason = REASON_CRASH;
            record->order_wave = client > 0;
            record->order_flags = client > 1 ? RECORD_TOLD : 0;
        }
        orders_restore(world->orders, &kept, world->now);
        assert_int_equal(state(), ORDER_NONE);
        assert_int_equal(world->store.unanswered, 0);
        expect_silence();
        start(MIN, 0, WAVES("x"));
        progress(&order);
        assert_int_equal(order.id, 42); /* never one that was there before */
        assert_int_equal(again(), 0);
    }
}

static void restore_takes_no_target_for_more_than_it_is(void **unused)
{
    (void)unused;
    add_connected("web-%d", 0, 3);
    add_connected("db-%d", 0, 1);
    start(MIN, 0, WAVES("web-*"));
    settle();
    /* Somebody has edited the table. */
    world->store.wave[find("web-0")->record->sid] = 63;
    world->store.flags[find("web-0")->record->sid] = RECORD_TOLD | RECORD_ACKNOWLEDGED;
    restart(REASON_CRASH, S);
    expect_numbers(1, 3, 3, 0, 0, 0, 0, 0);
    arrive(find("web-0"));
    assert_int_equal(find("web-0")->tells, 2);
}

/* ---- the end of the server ---- */

static void freeze_tells_nobody_and_counts_no_end(void **unused)
{
    (void)unused;
    add_connected("web-%d", 0, 2 * TELL_SLICE);
    add_connected("db-%d", 0, 2);
    start(MIN, 10 * MIN, WAVES("web-*", "db-*"));
    answer_all(STORE_OK);
    tick();
    answer_all(STORE_OK);
    tick();
    assert_int_equal(world->tells, TELL_SLICE);
    orders_freeze(world->orders);
    world->must_be_silent = true;
    assert_true(orders_next_us(world->orders, world->now) == UINT64_MAX);
    acknowledge(&world->clients[0]); /* still heard, and kept */
    assert_true(world->store.flags[world->clients[0].record->sid] & RECORD_ACKNOWLEDGED);
    for (size_t i = 0; i < world->count; i++)
        leave(&world->clients[i], REASON_STOPPED);
    for (int i = 0; i < 10; i++) {
        advance(MIN);
        tick();
    }
    /* A registration that was on its way. */
    arrive(find("web-1"));
    assert_int_equal(state(), ORDER_RUNNING);
    assert_int_equal(wave_of(1).numbers.gone, 0);
    leave(find("web-1"), REASON_STOPPED);
    world->must_be_silent = false;

    restart(REASON_STOPPED, S);
    expect_numbers(1, 2 * TELL_SLICE, 2 * TELL_SLICE - 1, 1, 1, 0, 1, 0);
}

/* ---- forgetting ---- */

static void need_is_of_the_targets_of_an_order_under_way(void **unused)
{
    (void)unused;
    add_connected("web-%d", 0, 1);
    add("web-%d", 1);
    add("db-%d", 1);
    const struct registry_record *present = find("web-0")->record;
    const struct registry_record *absent = find("web-1")->record;
    const struct registry_record *other = find("db-1")->record;
    assert_false(orders_need(world->orders, present));
    start(MIN, 10 * MIN, WAVES("web-*"));
    for (int i = 0; i < 3; i++) {
        assert_true(orders_need(world->orders, present));
        assert_true(orders_need(world->orders, absent));
        assert_false(orders_need(world->orders, other));
        live(MIN);
    }
    assert_int_equal(state(), ORDER_HOLDING);
    live(10 * MIN);
    assert_false(orders_need(world->orders, present));
    assert_false(orders_need(world->orders, absent));
}

static void forget(struct client *client)
{
    const uint32_t sid = client->record->sid;

    assert_false(orders_need(world->orders, client->record));
    world->store.wave[sid] = world->store.flags[sid] = 0;
    world->store.kept.wave[sid] = world->store.kept.flags[sid] = 0;
    orders_forget_client(world->orders, client->record);
    registry_remove(world->registry, client->record);
    client->record = NULL;
    client->owed = false;
}

static void forgotten_client_is_no_target_any_more(void **unused)
{
    (void)unused;
    add_connected("web-%d", 0, 3);
    add("web-%d", 3);
    newcomer("db-1");
    leave(find("db-1"), REASON_LEFT);
    start(MIN, 0, WAVES("web-*"));
    forget(find("db-1")); /* is in no wave */
    settle();
    acknowledge(find("web-0"));
    leave(find("web-0"), REASON_SHUTDOWN);
    live(MIN);
    assert_int_equal(state(), ORDER_DONE);
    expect_numbers(1, 4, 0, 3, 1, 1, 2, 1);
    forget(find("web-0"));
    expect_numbers(1, 3, 0, 2, 0, 0, 2, 1);
    forget(find("web-3"));
    expect_numbers(1, 2, 0, 2, 0, 0, 2, 0);

    /* Its sid is the next one's, who has nothing to do with the order. */
    struct client *next = newcomer("nas");
    assert_int_equal(next->record->order_wave, 0);
    check();
}

static void forgotten_client_that_was_not_planned_changes_no_number(void **unused)
{
    const int count = 9000;

    (void)unused;
    for (int i = 0; i < count; i++)
        add("web-%d", i);
    start(0, 0, WAVES("web-*"));
    settle();
    start(0, 0, WAVES("web-*"));
    assert_int_equal(orders_cancel(world->orders, "me", world->now), ORDER_OK);
    const size_t targets = wave_of(1).numbers.targets;
    assert_true(targets < (size_t)count);
    forget(&world->clients[count - 1]);
    expect_numbers(1, targets, 0, 0, 0, 0, 0, targets);
}

/* ---- all of it ---- */

static uint64_t dice_state;

static unsigned dice(unsigned sides)
{
    dice_state ^= dice_state << 13;
    dice_state ^= dice_state >> 7;
    dice_state ^= dice_state << 17;
    return (unsigned)((dice_state >> 11) % sides);
}

static void walk_give(void)
{
    static const char *const lists[] = {
        "*",       "web-*", "web-?",         "db-*", "nas,web-1,web-2",
        "*-[1-4]", "x",     "db-1,db-2,nas", "*-2*", "[!w]*"};
    static const uint64_t graces[] = {0, S, 10 * S, MIN};
    static const uint64_t holds[] = {0, 0, 30 * S, 5 * MIN};
    const char *waves[5] = {NULL};
    const unsigned count = 1 + dice(4);
    struct order_progress before;

    for (unsigned i = 0; i < count; i++)
        waves[i] = lists[dice(COUNT(lists))];
    progress(&before);
    const bool busy = before.state == ORDER_RUNNING || before.state == ORDER_HOLDING;
    const enum order_result otherwise = world->store.out_of_memory ? ORDER_ERR_NO_MEMORY : ORDER_OK;
    const uint64_t grace_us = graces[dice(4)];
    const uint64_t hold_us = holds[dice(4)];
    assert_int_equal(give(grace_us, hold_us, waves), busy ? ORDER_ERR_BUSY : otherwise);
}

static void walk_client(struct client *client)
{
    static const enum reason reasons[] = {REASON_LEFT, REASON_SHUTDOWN, REASON_TIMED_OUT,
                                          REASON_OPERATOR};

    if (client->session == 0) {
        if (client->record && dice(30) == 0 && !orders_need(world->orders, client->record))
            forget(client);
        else
            arrive(client);
        return;
    }
    /* Most who are told acknowledge, and most who have done so leave. */
    if (is_told(client) && dice(3) != 0)
        acknowledge(client);
    else if (dice(is_told(client) ? 2 : 4) == 0)
        leave(client, reasons[dice(COUNT(reasons))]);
}

static void walk_step(void)
{
    static const uint64_t waits[] = {1, MS, S, 20 * S, MIN, 10 * MIN};
    static const enum reason ends[] = {REASON_CRASH, REASON_CRASH, REASON_STOPPED,
                                       REASON_RESTARTING};
    const unsigned choice = dice(1000);

    world->step++;
    if (choice < 500)
        walk_client(&world->clients[dice((unsigned)world->count)]);
    else if (choice < 800)
        tick();
    else if (choice < 900)
        advance(waits[dice(choice < 890 ? 4 : COUNT(waits))]);
    else if (choice < 960 && world->store.unanswered > 0)
        answer(dice(5) == 0 ? STORE_UNAVAILABLE : STORE_OK);
    else if (choice < 985)
        walk_give();
    else if (choice < 986)
        flush();
    else if (choice < 989)
        (void)orders_cancel(world->orders, "me", world->now);
    else if (choice < 990)
        world->store.out_of_memory = dice(4) == 0;
    else if (choice < 995) {
        const enum reason end = ends[dice(COUNT(ends))];
        restart(end, waits[dice(COUNT(waits))]);
    }
}

/* Whatever happens in whatever order: each 130 is judged by on_tell(), each end of a wave by
 * on_news(), and every sum is counted again. */
static void walk_at_random_breaks_no_rule(void **unused)
{
    size_t tells = 0;
    size_t waves = 0;

    (void)unused;
    for (uint64_t seed = 1; seed <= 100; seed++) {
        world->is_sudden = true;
        dice_state = seed * UINT64_C(0x9e3779b97f4a7c15);
        for (int i = 1; i <= 12; i++)
            add("web-%d", i);
        for (int i = 1; i <= 6; i++)
            add("db-%d", i);
        add("nas", 0);
        for (int i = 0; i < 3000; i++) {
            walk_step();
            check();
            if (world->news_count > MAX_NEWS / 2) {
                waves += news_of(ORDER_WAVE_ENDED);
                world->news_count = 0;
            }
        }
        tells += world->tells;
        waves += news_of(ORDER_WAVE_ENDED);
        world->store.out_of_memory = false;
        (void)orders_cancel(world->orders, "me", world->now);
        assert_int_equal(again(), 0);
    }
    /* A walk in which nothing happens would prove nothing. */
    assert_true(tells > 5000 && waves > 2500);
}

static int start_all(void **unused)
{
    const struct log_options quiet = {.program = "test", .level = LOG_LEVEL_ERROR};

    (void)unused;
    return log_open(&quiet) == 0 ? hash_init() : -1;
}

static int end_all(void **unused)
{
    (void)unused;
    log_close();
    return 0;
}

#define IN_WORLD(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_WORLD(none_is_reported_and_never_does_anything),
        IN_WORLD(plan_puts_everyone_into_the_first_wave_that_matches),
        IN_WORLD(plan_counts_the_absent_and_leaves_out_the_unknown),
        IN_WORLD(plan_of_many_is_made_in_slices),
        IN_WORLD(plan_with_many_patterns_takes_smaller_slices),
        IN_WORLD(plan_of_a_second_order_is_not_confused_by_the_first),
        IN_WORLD(wave_is_told_only_once_it_is_saved),
        IN_WORLD(wave_tells_those_and_nobody_else),
        IN_WORLD(wave_of_many_is_told_in_slices),
        IN_WORLD(wave_of_many_copes_with_who_comes_and_goes_meanwhile),
        IN_WORLD(wave_looks_at_a_bounded_number_of_records),
        IN_WORLD(wave_ends_when_all_who_were_told_have_gone),
        IN_WORLD(wave_ends_when_grace_is_over),
        IN_WORLD(wave_without_clients_is_over_at_once),
        IN_WORLD(wave_with_grace_0_waits_for_nobody),
        IN_WORLD(waves_come_one_after_the_other),
        IN_WORLD(wave_does_not_wait_for_who_came_too_late),
        IN_WORLD(client_of_two_waves_is_told_with_the_first),
        IN_WORLD(client_of_two_waves_that_misses_the_first_is_told_with_the_second),
        IN_WORLD(client_that_is_found_gone_by_the_130_is_told_and_gone),
        IN_WORLD(client_told_by_an_earlier_order_is_not_told_again),
        IN_WORLD(acknowledgement_counts_once_and_only_when_told),
        IN_WORLD(newcomer_before_its_wave_is_told_with_it),
        IN_WORLD(client_of_two_waves_that_is_back_is_not_told_with_the_second),
        IN_WORLD(client_of_three_waves_is_told_with_the_first_that_it_does_not_miss),
        IN_WORLD(newcomer_behind_its_wave_is_told_under_hold_only),
        IN_WORLD(newcomer_is_told_at_once_and_not_twice_in_a_session),
        IN_WORLD(session_back_without_hold_is_left_alone_and_counts_as_up),
        IN_WORLD(hold_ends_at_its_time_counted_from_the_order),
        IN_WORLD(hold_lasts_until_the_last_wave_is_over),
        IN_WORLD(cancel_at_every_step_tells_nobody_any_more),
        IN_WORLD(cancel_is_possible_for_an_order_that_is_not_saved_yet),
        IN_WORLD(second_order_is_refused_while_one_is_under_way),
        IN_WORLD(second_order_waits_for_its_own_answer),
        IN_WORLD(progress_says_what_was_asked),
        IN_WORLD(order_is_carried_out_when_the_store_fails),
        IN_WORLD(order_without_memory_for_it_is_refused),
        IN_WORLD(order_is_refused_while_the_server_ends),
        IN_WORLD(restore_leaves_those_alone_who_came_too_late),
        IN_WORLD(order_that_a_restart_forgot_is_never_carried_out),
        IN_WORLD(cancel_counts_when_the_store_fails),
        IN_WORLD(restore_of_an_order_before_its_first_wave_begins_it),
        IN_WORLD(restore_of_an_order_in_a_wave_waits_for_those_it_may_have_missed),
        IN_WORLD(restore_waits_for_the_untold_to_come_back),
        IN_WORLD(restore_leaves_those_alone_whom_the_wave_has_done_with),
        IN_WORLD(restore_while_a_wave_is_told_tells_the_rest),
        IN_WORLD(restore_between_two_waves_begins_the_next),
        IN_WORLD(restore_keeps_the_wave_of_who_was_moved_to_a_later_one),
        IN_WORLD(restore_of_an_order_that_holds_tells_who_comes_until_its_end),
        IN_WORLD(restore_of_a_hold_that_is_over_tells_nobody),
        IN_WORLD(restore_of_an_ended_order_only_reports_it),
        IN_WORLD(restore_waits_for_the_acknowledged_to_go),
        IN_WORLD(restore_twice_goes_on_twice),
        IN_WORLD(restore_does_not_wait_for_who_was_away_before_the_order),
        IN_WORLD(restore_expires_what_is_too_old),
        IN_WORLD(restore_expires_what_was_given_in_the_future),
        IN_WORLD(restore_refuses_what_makes_no_sense),
        IN_WORLD(restore_takes_no_target_for_more_than_it_is),
        IN_WORLD(freeze_tells_nobody_and_counts_no_end),
        IN_WORLD(need_is_of_the_targets_of_an_order_under_way),
        IN_WORLD(forgotten_client_is_no_target_any_more),
        IN_WORLD(forgotten_client_that_was_not_planned_changes_no_number),
        IN_WORLD(walk_at_random_breaks_no_rule),
    };

    return cmocka_run_group_tests(tests, start_all, end_all);
}
