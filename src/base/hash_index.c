/*
 * Open addressing with linear probing. The hashes must be as good as random, and nobody outside may
 * be able to choose them (base/hash.h): then, with a third of the slots empty at least, entries
 * are found within a cache line or two.
 */
#include "base/hash_index.h"

#include <stdlib.h>

#define FIRST_CAPACITY 64

static int grow(struct hash_index *index);
static void put(struct hash_index *index, struct hash_index_slot entry);
static size_t home_of(const struct hash_index *index, uint32_t hash);
static size_t after(const struct hash_index *index, size_t at);

void hash_index_clear(struct hash_index *index)
{
    free(index->slots);
    *index = (struct hash_index){.slots = NULL};
}

int hash_index_add(struct hash_index *index, uint32_t hash, uint32_t number)
{
    if ((index->count + 1) * 3 > index->capacity * 2 && grow(index) != 0)
        return -1;
    put(index, (struct hash_index_slot){.hash = hash, .number = number});
    index->count++;
    return 0;
}

void hash_index_remove(struct hash_index *index, uint32_t hash, uint32_t number)
{
    size_t hole = home_of(index, hash);

    while (index->slots[hole].number != number)
        hole = after(index, hole);
    index->count--;

    /* Whoever was put behind the hole because it was taken moves up, so that no search ends at it
     * too soon. */
    for (size_t at = after(index, hole); index->slots[at].number != 0; at = after(index, at)) {
        const size_t mask = index->capacity - 1;
        const size_t way = (at - home_of(index, index->slots[at].hash)) & mask;
        if (way >= ((at - hole) & mask)) {
            index->slots[hole] = index->slots[at];
            hole = at;
        }
    }
    index->slots[hole].number = 0;
}

uint32_t hash_index_next(const struct hash_index *index, uint32_t hash, size_t *cursor)
{
    if (index->capacity == 0)
        return 0;
    for (;; ++*cursor) {
        const size_t at = (home_of(index, hash) + *cursor) & (index->capacity - 1);
        const struct hash_index_slot *slot = &index->slots[at];

        if (slot->number == 0)
            return 0;
        if (slot->hash == hash) {
            ++*cursor;
            return slot->number;
        }
    }
}

static int grow(struct hash_index *index)
{
    struct hash_index grown = {.capacity = index->capacity ? index->capacity * 2 : FIRST_CAPACITY,
                               .count = index->count};

    grown.slots = calloc(grown.capacity, sizeof(*grown.slots));
    if (!grown.slots)
        return -1;
    for (size_t at = 0; at < index->capacity; at++) {
        if (index->slots[at].number != 0)
            put(&grown, index->slots[at]);
    }
    free(index->slots);
    *index = grown;
    return 0;
}

static void put(struct hash_index *index, struct hash_index_slot entry)
{
    size_t at = home_of(index, entry.hash);

    while (index->slots[at].number != 0)
        at = after(index, at);
    index->slots[at] = entry;
}

static size_t home_of(const struct hash_index *index, uint32_t hash)
{
    return hash & (index->capacity - 1);
}

static size_t after(const struct hash_index *index, size_t at)
{
    return (at + 1) & (index->capacity - 1);
}
