/*
 * Records by ID (uthash under a keyed hash, so that nobody can choose IDs that collide) and by sid
 * (an array), with a bitmap that finds the lowest free sid. Owns the records; knows nothing of how
 * they are stored or who holds them.
 */

/* Read by uthash.h: our hash, and a failed allocation leaves the element out (its hh.tbl is NULL).
 */
#define HASH_FUNCTION(key, len, hashv) ((hashv) = (unsigned)hash_bytes((key), (len)))
#define HASH_NONFATAL_OOM              1

#include "registry/registry.h"

#include "base/hash.h"

#include <stdlib.h>
#include <string.h>

#define WORD_BITS      64
#define FIRST_CAPACITY 1024 /* sids; a multiple of WORD_BITS */

struct registry {
    struct registry_record *by_cid;  /* uthash head */
    struct registry_record **by_sid; /* [sid - 1], NULL while free */
    uint64_t *taken;                 /* bit sid - 1 */
    uint32_t capacity;               /* of both */
    uint32_t first_free_word;        /* no word before this one has a free bit */
    size_t connected;
};

static struct registry_record *add_record(struct registry *registry, uint32_t sid, const char *cid,
                                          size_t len);
static uint32_t lowest_free_sid(struct registry *registry);
static int reserve_sid(struct registry *registry, uint32_t sid);

struct registry *registry_new(void)
{
    return calloc(1, sizeof(struct registry));
}

void registry_free(struct registry *registry)
{
    if (!registry)
        return;
    HASH_CLEAR(hh, registry->by_cid);
    for (uint32_t index = 0; index < registry->capacity; index++)
        free(registry->by_sid[index]);
    free(registry->by_sid);
    free(registry->taken);
    free(registry);
}

struct registry_record *registry_find(const struct registry *registry, const char *cid, size_t len)
{
    struct registry_record *record = NULL;

    HASH_FIND(hh, registry->by_cid, cid, len, record);
    return record;
}

struct registry_record *registry_by_sid(const struct registry *registry, uint32_t sid)
{
    return sid >= 1 && sid <= registry->capacity ? registry->by_sid[sid - 1] : NULL;
}

struct registry_record *registry_add(struct registry *registry, const char *cid, size_t len)
{
    return add_record(registry, lowest_free_sid(registry), cid, len);
}

struct registry_record *registry_restore(struct registry *registry, uint32_t sid, const char *cid,
                                         size_t len)
{
    if (sid == 0 || !proto_id_valid(cid, len) || registry_by_sid(registry, sid) ||
        registry_find(registry, cid, len))
        return NULL;

    struct registry_record *record = add_record(registry, sid, cid, len);
    if (record)
        record->stored = true;
    return record;
}

void registry_remove(struct registry *registry, struct registry_record *record)
{
    const uint32_t index = record->sid - 1;
    const uint32_t word = index / WORD_BITS;

    registry->taken[word] &= ~(UINT64_C(1) << (index % WORD_BITS));
    registry->by_sid[index] = NULL;
    if (word < registry->first_free_word)
        registry->first_free_word = word;
    if (record->connected)
        registry->connected--;
    HASH_DEL(registry->by_cid, record);
    free(record);
}

void registry_connect(struct registry *registry, struct registry_record *record,
                      const struct peer_address *peer, int64_t now)
{
    if (!record->connected)
        registry->connected++;
    record->connected = true;
    record->peer = *peer;
    record->since = now;
    record->last_seen = now;
    record->rtt_us = 0;
}

void registry_disconnect(struct registry *registry, struct registry_record *record,
                         enum reason reason, int64_t now)
{
    if (record->connected)
        registry->connected--;
    record->connected = false;
    record->reason = (uint8_t)reason;
    record->since = now;
}

struct registry_record *registry_next(const struct registry *registry, uint32_t sid)
{
    for (uint32_t index = sid; index < registry->capacity; index++) {
        if (registry->by_sid[index])
            return registry->by_sid[index];
    }
    return NULL;
}

size_t registry_count(const struct registry *registry)
{
    return HASH_COUNT(registry->by_cid);
}

size_t registry_connected(const struct registry *registry)
{
    return registry->connected;
}

static struct registry_record *add_record(struct registry *registry, uint32_t sid, const char *cid,
                                          size_t len)
{
    if (reserve_sid(registry, sid) != 0)
        return NULL;

    struct registry_record *record = calloc(1, sizeof(*record) + len + 1);
    if (!record)
        return NULL;
    record->sid = sid;
    record->cid_len = (uint8_t)len;
    memcpy(record->cid, cid, len);
    HASH_ADD_KEYPTR(hh, registry->by_cid, record->cid, len, record);
    if (!record->hh.tbl) {
        free(record);
        return NULL;
    }
    registry->by_sid[sid - 1] = record;
    registry->taken[(sid - 1) / WORD_BITS] |= UINT64_C(1) << ((sid - 1) % WORD_BITS);
    return record;
}

static uint32_t lowest_free_sid(struct registry *registry)
{
    uint32_t *word = &registry->first_free_word;

    while (*word < registry->capacity / WORD_BITS && registry->taken[*word] == UINT64_MAX)
        ++*word;
    if (*word == registry->capacity / WORD_BITS)
        return registry->capacity + 1;
    return *word * WORD_BITS + (uint32_t)__builtin_ctzll(~registry->taken[*word]) + 1;
}

static int reserve_sid(struct registry *registry, uint32_t sid)
{
    uint64_t capacity = registry->capacity ? registry->capacity : FIRST_CAPACITY;

    if (sid <= registry->capacity)
        return 0;
    while (capacity < sid)
        capacity *= 2;
    if (capacity > UINT32_MAX)
        return -1;

    struct registry_record **by_sid =
        realloc(registry->by_sid, capacity * sizeof(*registry->by_sid));
    if (!by_sid)
        return -1;
    registry->by_sid = by_sid;
    uint64_t *taken = realloc(registry->taken, capacity / WORD_BITS * sizeof(*registry->taken));
    if (!taken)
        return -1;
    registry->taken = taken;
    memset(by_sid + registry->capacity, 0,
           (capacity - registry->capacity) * sizeof(*registry->by_sid));
    memset(taken + registry->capacity / WORD_BITS, 0,
           (capacity - registry->capacity) / WORD_BITS * sizeof(*registry->taken));
    registry->capacity = (uint32_t)capacity;
    return 0;
}
