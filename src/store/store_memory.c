/*
 * The store that keeps nothing: for tests and benchmarks. Registrations are granted and orders
 * taken at the end of the turn, as every store does it; everything else is already in the registry.
 */
#include "store/backend.h"

#include <stdlib.h>

struct pending {
    uint64_t serial;
    uint32_t sid;
};

struct memory {
    struct store *store;
    struct pending *pending;
    size_t count;
    size_t capacity;
    struct store_stats stats;
};

static void *memory_open(struct store *store, const struct store_options *options,
                         struct registry *registry, char *message, size_t message_size);
static int memory_take(void *state, const struct change *change, struct moment now);
static void memory_commit(void *state, bool busy, struct moment now);
static uint64_t memory_next_us(const void *state);
static bool memory_healthy(const void *state);
static const struct store_order *memory_order(const void *state);
static const struct store_stats *memory_stats(void *state);
static void memory_close(void *state, struct moment now);

const struct store_backend store_memory = {
    .open = memory_open,
    .take = memory_take,
    .commit = memory_commit,
    .next_us = memory_next_us,
    .healthy = memory_healthy,
    .order = memory_order,
    .stats = memory_stats,
    .close = memory_close,
};

static void *memory_open(struct store *store, const struct store_options *options,
                         struct registry *registry, char *message, size_t message_size)
{
    struct memory *memory = calloc(1, sizeof(*memory));

    (void)options;
    (void)registry;
    (void)message;
    (void)message_size;
    if (!memory)
        abort(); /* out of memory while starting */
    memory->store = store;
    return memory;
}

static int memory_take(void *state, const struct change *change, struct moment now)
{
    struct memory *memory = state;

    (void)now;
    if ((change->kind != CHANGE_REGISTER && change->kind != CHANGE_ORDER) || change->serial == 0)
        return 0;
    if (memory->count == memory->capacity) {
        const size_t capacity = memory->capacity ? memory->capacity * 2 : 64;
        struct pending *pending = realloc(memory->pending, capacity * sizeof(*pending));
        if (!pending)
            return -1;
        memory->pending = pending;
        memory->capacity = capacity;
    }
    memory->pending[memory->count++] =
        (struct pending){.serial = change->serial, .sid = change->sid};
    return 0;
}

static void memory_commit(void *state, bool busy, struct moment now)
{
    struct memory *memory = state;

    (void)busy;
    (void)now;
    if (memory->count == 0)
        return;
    memory->stats.commits++;
    duration_histogram_record(&memory->stats.commit, 0);
    for (size_t i = 0; i < memory->count; i++)
        store_push_answer(memory->store, memory->pending[i].serial, memory->pending[i].sid,
                          STORE_OK);
    memory->count = 0;
}

static uint64_t memory_next_us(const void *state)
{
    const struct memory *memory = state;

    return memory->count > 0 ? 0 : UINT64_MAX;
}

static bool memory_healthy(const void *state)
{
    (void)state;
    return true;
}

static const struct store_order *memory_order(const void *state)
{
    (void)state;
    return NULL;
}

static const struct store_stats *memory_stats(void *state)
{
    struct memory *memory = state;

    memory->stats.waiting = memory->count;
    return &memory->stats;
}

static void memory_close(void *state, struct moment now)
{
    struct memory *memory = state;

    (void)now;
    free(memory->pending);
    free(memory);
}
