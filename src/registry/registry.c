/*
 * Records by ID (an index under a keyed hash, so that nobody can choose IDs that collide) and by
 * sid (an array), with a bitmap that finds the lowest free sid. Owns the records; knows nothing of
 * how they are stored or who holds them.
 *
 * The order of IDs (cid_order.h) is made for whom it takes a list, and later: a second bitmap says
 * which records are in it, so a new one is not in it by doing nothing, and what is missing is what
 * the two bitmaps differ in. Nothing is noted that could grow, go stale or find no memory.
 */
#include "registry/registry.h"

#include "base/hash.h"
#include "base/hash_index.h"
#include "registry/cid_order.h"

#include <stdlib.h>
#include <string.h>

#define WORD_BITS      64
#define FIRST_CAPACITY 1024 /* sids; a multiple of WORD_BITS */

struct registry {
    struct hash_index by_cid;        /* sids */
    struct registry_record **by_sid; /* [sid - 1], NULL while free */
    uint64_t *taken;                 /* bit sid - 1 */
    uint64_t *ordered;               /* bit sid - 1: of those taken, which are in order */
    uint32_t capacity;               /* of all three */
    uint32_t first_free_word;        /* no word before this one has a free bit */
    uint32_t first_unordered_word;   /* nor before this one one that is taken and not ordered */
    struct cid_order order;          /* of IDs */
    size_t connected;
};

static uint32_t hash_of(const char *cid, size_t len);
static struct registry_record *find(const struct registry *registry, const char *cid, size_t len,
                                    uint32_t hash);
static struct registry_record *add_record(struct registry *registry, uint32_t sid, const char *cid,
                                          size_t len, uint32_t hash);
static uint32_t lowest_free_sid(struct registry *registry);
static int reserve_sid(struct registry *registry, uint32_t sid);
static int grow_bitmap(uint64_t **bitmap, uint32_t bits, uint64_t more_bits);

struct registry *registry_new(void)
{
    return calloc(1, sizeof(struct registry));
}

void registry_free(struct registry *registry)
{
    if (!registry)
        return;
    hash_index_clear(&registry->by_cid);
    cid_order_clear(&registry->order);
    for (uint32_t index = 0; index < registry->capacity; index++)
        free(registry->by_sid[index]);
    free(registry->by_sid);
    free(registry->taken);
    free(registry->ordered);
    free(registry);
}

struct registry_record *registry_find(const struct registry *registry, const char *cid, size_t len)
{
    return find(registry, cid, len, hash_of(cid, len));
}

struct registry_record *registry_by_sid(const struct registry *registry, uint32_t sid)
{
    return sid >= 1 && sid <= registry->capacity ? registry->by_sid[sid - 1] : NULL;
}

struct registry_record *registry_find_or_add(struct registry *registry, const char *cid, size_t len)
{
    const uint32_t hash = hash_of(cid, len);
    struct registry_record *record = find(registry, cid, len, hash);

    return record ? record : add_record(registry, lowest_free_sid(registry), cid, len, hash);
}

struct registry_record *registry_restore(struct registry *registry, uint32_t sid, const char *cid,
                                         size_t len)
{
    const uint32_t hash = hash_of(cid, len);

    if (sid == 0 || !proto_id_valid(cid, len) || registry_by_sid(registry, sid) ||
        find(registry, cid, len, hash))
        return NULL;

    struct registry_record *record = add_record(registry, sid, cid, len, hash);
    if (record)
        record->stored = true;
    return record;
}

void registry_remove(struct registry *registry, struct registry_record *record)
{
    const uint32_t index = record->sid - 1;
    const uint32_t word = index / WORD_BITS;
    const uint64_t bit = UINT64_C(1) << (index % WORD_BITS);

    if (registry->ordered[word] & bit)
        cid_order_remove(&registry->order, registry->by_sid, record->sid);
    registry->ordered[word] &= ~bit;
    registry->taken[word] &= ~bit;
    registry->by_sid[index] = NULL;
    if (word < registry->first_free_word)
        registry->first_free_word = word;
    if (record->connected)
        registry->connected--;
    hash_index_remove(&registry->by_cid, hash_of(record->cid, record->cid_len), record->sid);
    free(record);
}

void registry_connect(struct registry *registry, struct registry_record *record,
                      const struct peer_address *peer, uint16_t credential, int64_t now)
{
    if (!record->connected)
        registry->connected++;
    record->connected = true;
    record->peer = *peer;
    record->credential = credential;
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

int registry_order_some(struct registry *registry, size_t budget)
{
    uint32_t *word = &registry->first_unordered_word;

    while (budget > 0 && registry_unordered(registry) > 0) {
        const uint64_t missing = registry->taken[*word] & ~registry->ordered[*word];
        if (missing == 0) {
            ++*word;
            continue;
        }

        const uint64_t bit = missing & -missing;
        const uint32_t sid = *word * WORD_BITS + (uint32_t)__builtin_ctzll(missing) + 1;
        if (cid_order_add(&registry->order, registry->by_sid, sid) != 0)
            return -1;
        registry->ordered[*word] |= bit;
        budget--;
    }
    return 0;
}

size_t registry_unordered(const struct registry *registry)
{
    return registry->by_cid.count - registry->order.count;
}

size_t registry_page(const struct registry *registry, const char *after,
                     struct registry_record **page, size_t size)
{
    return cid_order_page(&registry->order, registry->by_sid, after, page, size);
}

size_t registry_count(const struct registry *registry)
{
    return registry->by_cid.count;
}

size_t registry_connected(const struct registry *registry)
{
    return registry->connected;
}

static uint32_t hash_of(const char *cid, size_t len)
{
    return (uint32_t)hash_bytes(cid, len);
}

static struct registry_record *find(const struct registry *registry, const char *cid, size_t len,
                                    uint32_t hash)
{
    size_t cursor = 0;
    uint32_t sid;

    while ((sid = hash_index_next(&registry->by_cid, hash, &cursor)) != 0) {
        struct registry_record *record = registry->by_sid[sid - 1];
        if (record->cid_len == len && memcmp(record->cid, cid, len) == 0)
            return record;
    }
    return NULL;
}

static struct registry_record *add_record(struct registry *registry, uint32_t sid, const char *cid,
                                          size_t len, uint32_t hash)
{
    if (reserve_sid(registry, sid) != 0)
        return NULL;

    struct registry_record *record = calloc(1, sizeof(*record) + len + 1);
    if (!record)
        return NULL;
    record->sid = sid;
    record->cid_len = (uint8_t)len;
    memcpy(record->cid, cid, len);
    if (hash_index_add(&registry->by_cid, hash, sid) != 0) {
        free(record);
        return NULL;
    }
    registry->by_sid[sid - 1] = record;
    const uint32_t word = (sid - 1) / WORD_BITS;
    registry->taken[word] |= UINT64_C(1) << ((sid - 1) % WORD_BITS);
    if (word < registry->first_unordered_word)
        registry->first_unordered_word = word;
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
    if (grow_bitmap(&registry->taken, registry->capacity, capacity) != 0 ||
        grow_bitmap(&registry->ordered, registry->capacity, capacity) != 0)
        return -1;
    memset(by_sid + registry->capacity, 0,
           (capacity - registry->capacity) * sizeof(*registry->by_sid));
    registry->capacity = (uint32_t)capacity;
    return 0;
}

/* The new bits are clear. Returns 0, or -1 when memory is out. */
static int grow_bitmap(uint64_t **bitmap, uint32_t bits, uint64_t more_bits)
{
    const size_t words = bits / WORD_BITS;
    const size_t more_words = more_bits / WORD_BITS;
    uint64_t *grown = realloc(*bitmap, more_words * sizeof(*grown));

    if (!grown)
        return -1;
    memset(grown + words, 0, (more_words - words) * sizeof(*grown));
    *bitmap = grown;
    return 0;
}
