/*
 * A table of numbers by their hash, for things that are kept elsewhere: eight bytes an entry, side
 * by side, so that a look at one that is not there touches one cache line, and growing touches none
 * of the things themselves. Several entries may have the same hash; who looks something up compares
 * what each number stands for.
 */
#ifndef BASE_HASH_INDEX_H
#define BASE_HASH_INDEX_H

#include <stddef.h>
#include <stdint.h>

struct hash_index_slot {
    uint32_t hash;
    uint32_t number; /* 0 while the slot is empty */
};

/* All zero is an empty index. */
struct hash_index {
    struct hash_index_slot *slots;
    size_t capacity; /* 0 or a power of two */
    size_t count;
};

/* Frees all entries. */
void hash_index_clear(struct hash_index *index);

/* Adds a number, which is not 0, under a hash. Returns 0, or -1 when memory is out. */
int hash_index_add(struct hash_index *index, uint32_t hash, uint32_t number);

/* Removes a number, which must be there under this hash. */
void hash_index_remove(struct hash_index *index, uint32_t hash, uint32_t number);

/*
 * The numbers under a hash, one after the other: *cursor is 0 for the first one. Returns 0 when
 * there are no more. Nothing may be added or removed in between.
 */
uint32_t hash_index_next(const struct hash_index *index, uint32_t hash, size_t *cursor);

#endif
