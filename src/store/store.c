/*
 * Picks the backend, turns records into changes and delivers answers at the one moment when they
 * may be delivered. Knows nothing of how a backend makes anything durable. Owns the queue of
 * answers.
 */
#include "store/store.h"

#include "store/backend.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* clang-format off */
const char *const store_kind_names[] = {[STORE_SQLITE] = "sqlite", [STORE_MEMORY] = "memory", NULL};
const char *const store_sync_names[] = {[STORE_SYNC_NORMAL] = "normal", [STORE_SYNC_FULL] = "full", NULL};

static const struct store_backend *const backends[] = {
    [STORE_SQLITE] = &store_sqlite,
    [STORE_MEMORY] = &store_memory,
};
/* clang-format on */

struct store {
    const struct store_backend *backend;
    void *state;
    store_answer_fn *on_answer;
    void *user;
    struct store_answer *answers; /* to be delivered at the end of this turn */
    size_t answer_count;
    size_t answer_capacity;
    int64_t order_id;  /* of the order that was saved last, or loaded; 0 if there is none */
    size_t unanswered; /* registrations and orders taken and not delivered; never above
                          answer_capacity */
};

static int reserve_answer(struct store *store);
static struct change change_of(const struct registry_record *record, enum change_kind kind);

struct store *store_open(const struct store_options *options, struct registry *registry,
                         store_answer_fn *on_answer, void *user, char *message, size_t message_size)
{
    struct store *store = calloc(1, sizeof(*store));

    if (!store)
        abort(); /* out of memory while starting */
    assert((size_t)options->kind < sizeof(backends) / sizeof(backends[0]));
    store->backend = backends[options->kind];
    store->on_answer = on_answer;
    store->user = user;
    store->state = store->backend->open(store, options, registry, message, message_size);
    if (!store->state) {
        free(store);
        return NULL;
    }
    store->order_id = store_order(store) ? store_order(store)->id : 0;
    return store;
}

int store_register(struct store *store, const struct registry_record *record,
                   const struct peer_address *peer, uint16_t credential, uint64_t serial,
                   struct moment now)
{
    struct change change = change_of(record, CHANGE_REGISTER);

    if (reserve_answer(store) != 0)
        return -1;
    change.serial = serial;
    change.peer = *peer;
    change.credential = credential;
    change.since = change.last_seen = now.wall_ms / 1000;
    if (store->backend->take(store->state, &change, now) != 0)
        return -1;
    store->unanswered++;
    return 0;
}

void store_disconnect(struct store *store, const struct registry_record *record, struct moment now)
{
    const struct change change = change_of(record, CHANGE_DISCONNECT);

    (void)store->backend->take(store->state, &change, now);
}

void store_forget(struct store *store, const struct registry_record *record, struct moment now)
{
    const struct change change = change_of(record, CHANGE_FORGET);

    (void)store->backend->take(store->state, &change, now);
}

int store_save_order(struct store *store, const struct store_order *order, struct moment now)
{
    struct change change = {
        .serial = (uint64_t)order->id,
        .order = order,
        .kind = CHANGE_ORDER,
    };

    assert(order->id >= 1 && order->wave_count >= 1);
    if (reserve_answer(store) != 0) {
        /* What has changed of an order that the store has, such as its end, is written all the
         * same: after a restart it must not go on. */
        change.serial = 0;
        if (order->id == store->order_id)
            (void)store->backend->take(store->state, &change, now);
        return -1;
    }
    if (store->backend->take(store->state, &change, now) != 0)
        return -1;
    store->order_id = order->id;
    store->unanswered++;
    return 0;
}

void store_save_target(struct store *store, const struct registry_record *record, struct moment now)
{
    struct change change = change_of(record, CHANGE_TARGET);

    assert(record->order_wave >= 1);
    change.serial = (uint64_t)store->order_id;
    (void)store->backend->take(store->state, &change, now);
}

const struct store_order *store_order(const struct store *store)
{
    return store->backend->order(store->state);
}

void store_turn(struct store *store, bool busy, struct moment now)
{
    store->backend->commit(store->state, busy, now);

    /* What an answer sets off is registered in the next turn: its own answer waits behind these. */
    const size_t count = store->answer_count;
    for (size_t i = 0; i < count; i++) {
        const struct store_answer answer = store->answers[i];
        store->unanswered--;
        store->on_answer(store->user, &answer, now);
    }
    store->answer_count -= count;
    if (store->answer_count > 0)
        memmove(store->answers, store->answers + count,
                store->answer_count * sizeof(*store->answers));
}

uint64_t store_next_us(const struct store *store)
{
    return store->answer_count > 0 ? 0 : store->backend->next_us(store->state);
}

const struct store_stats *store_stats(struct store *store)
{
    return store->backend->stats(store->state);
}

bool store_healthy(const struct store *store)
{
    return store->backend->healthy(store->state);
}

void store_close(struct store *store, struct moment now)
{
    if (!store)
        return;
    store->backend->close(store->state, now);
    free(store->answers);
    free(store);
}

void store_push_answer(struct store *store, uint64_t serial, uint32_t sid, enum store_result result)
{
    assert(store->answer_count < store->answer_capacity);
    store->answers[store->answer_count++] =
        (struct store_answer){.serial = serial, .sid = sid, .result = result};
}

/* Room for the answer is found before what it answers is taken: an answer must never be lost. */
static int reserve_answer(struct store *store)
{
    const size_t capacity = store->answer_capacity ? store->answer_capacity * 2 : 64;

    if (store->unanswered < store->answer_capacity)
        return 0;
    struct store_answer *answers = realloc(store->answers, capacity * sizeof(*answers));
    if (!answers)
        return -1;
    store->answers = answers;
    store->answer_capacity = capacity;
    return 0;
}

static struct change change_of(const struct registry_record *record, enum change_kind kind)
{
    struct change change = {
        .since = record->since,
        .last_seen = record->last_seen,
        .sid = record->sid,
        .rtt_us = record->rtt_us,
        .peer = record->peer,
        .kind = (uint8_t)kind,
        .reason = record->reason,
        .order_wave = record->order_wave,
        .order_flags = record->order_flags,
    };

    memcpy(change.cid, record->cid, record->cid_len + 1U);
    return change;
}
