/*
 * The blocks: where an ID belongs, and how blocks are split, joined and dropped. Owns the blocks
 * and not the records, of which it reads nothing but the ID.
 */
#include "registry/cid_order.h"

#include "registry/registry.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_CAPACITY 16

struct cid_block {
    uint32_t count;
    uint32_t sids[CID_ORDER_BLOCK];
};

/* Between two records. at may be the block's count: behind all of it. */
struct place {
    size_t block;
    uint32_t at;
};

static struct place place_behind(const struct cid_order *order,
                                 struct registry_record *const *by_sid, const char *cid);
static int make_room(struct cid_order *order, struct place *place);
static int split_block(struct cid_order *order, struct place *place);
static struct cid_block *insert_block(struct cid_order *order, size_t index);
static void drop_block(struct cid_order *order, size_t index);
static void join_if_small(struct cid_order *order, size_t index);

void cid_order_clear(struct cid_order *order)
{
    for (size_t i = 0; i < order->block_count; i++)
        free(order->blocks[i]);
    free(order->blocks);
    *order = (struct cid_order){.blocks = NULL};
}

int cid_order_add(struct cid_order *order, struct registry_record *const *by_sid, uint32_t sid)
{
    struct place place = place_behind(order, by_sid, by_sid[sid - 1]->cid);

    if (make_room(order, &place) != 0)
        return -1;
    struct cid_block *block = order->blocks[place.block];
    uint32_t *slot = &block->sids[place.at];
    memmove(slot + 1, slot, (block->count - place.at) * sizeof(*slot));
    *slot = sid;
    block->count++;
    order->count++;
    return 0;
}

void cid_order_remove(struct cid_order *order, struct registry_record *const *by_sid, uint32_t sid)
{
    const struct place behind = place_behind(order, by_sid, by_sid[sid - 1]->cid);
    struct cid_block *block = order->blocks[behind.block];

    assert(behind.at > 0 && block->sids[behind.at - 1] == sid);
    uint32_t *slot = &block->sids[behind.at - 1];
    memmove(slot, slot + 1, (block->count - behind.at) * sizeof(*slot));
    block->count--;
    order->count--;
    if (block->count == 0) {
        drop_block(order, behind.block);
    } else {
        join_if_small(order, behind.block);
        if (behind.block > 0)
            join_if_small(order, behind.block - 1);
    }
}

size_t cid_order_page(const struct cid_order *order, struct registry_record *const *by_sid,
                      const char *after, struct registry_record **page, size_t size)
{
    struct place place = place_behind(order, by_sid, after);
    size_t taken = 0;

    while (taken < size && place.block < order->block_count) {
        const struct cid_block *block = order->blocks[place.block];

        if (place.at == block->count)
            place = (struct place){.block = place.block + 1};
        else
            page[taken++] = by_sid[block->sids[place.at++] - 1];
    }
    return taken;
}

/* Behind the last record whose ID is this one or less, in that record's block; in an empty order
 * in block 0, which is not there. */
static struct place place_behind(const struct cid_order *order,
                                 struct registry_record *const *by_sid, const char *cid)
{
    size_t first = 0;
    size_t end = order->block_count;

    while (first < end) {
        const size_t middle = first + (end - first) / 2;
        const uint32_t sid = order->blocks[middle]->sids[0];
        if (strcmp(by_sid[sid - 1]->cid, cid) <= 0)
            first = middle + 1;
        else
            end = middle;
    }
    if (first == 0)
        return (struct place){.block = 0};

    const struct cid_block *block = order->blocks[first - 1];
    uint32_t at = 1; /* the first one of this block is not behind the ID, as we know by now */
    uint32_t at_end = block->count;
    while (at < at_end) {
        const uint32_t middle = at + (at_end - at) / 2;
        if (strcmp(by_sid[block->sids[middle] - 1]->cid, cid) <= 0)
            at = middle + 1;
        else
            at_end = middle;
    }
    return (struct place){.block = first - 1, .at = at};
}

/*
 * Sees to it that one more fits at this place, which may move to another block for that. What comes
 * behind a full block goes to the head of the next one, and what comes between two full ones or
 * before all begins a block: IDs that count up fill their blocks. Other full blocks are split.
 */
static int make_room(struct cid_order *order, struct place *place)
{
    if (place->at == CID_ORDER_BLOCK)
        *place = (struct place){.block = place->block + 1};
    if (place->block == order->block_count)
        return insert_block(order, place->block) ? 0 : -1;
    if (order->blocks[place->block]->count < CID_ORDER_BLOCK)
        return 0;
    if (place->at == 0)
        return insert_block(order, place->block) ? 0 : -1;
    return split_block(order, place);
}

static int split_block(struct cid_order *order, struct place *place)
{
    struct cid_block *upper = insert_block(order, place->block + 1);
    if (!upper)
        return -1;

    struct cid_block *lower = order->blocks[place->block];
    const uint32_t kept = lower->count / 2;
    upper->count = lower->count - kept;
    memcpy(upper->sids, lower->sids + kept, upper->count * sizeof(*upper->sids));
    lower->count = kept;
    if (place->at > kept)
        *place = (struct place){.block = place->block + 1, .at = place->at - kept};
    return 0;
}

/* An empty block there, which has to be filled. Returns NULL when memory is out, and nothing has
 * changed. */
static struct cid_block *insert_block(struct cid_order *order, size_t index)
{
    if (order->block_count == order->block_capacity) {
        const size_t capacity = order->block_capacity ? order->block_capacity * 2 : FIRST_CAPACITY;
        struct cid_block **blocks = realloc(order->blocks, capacity * sizeof(struct cid_block *));
        if (!blocks)
            return NULL;
        order->blocks = blocks;
        order->block_capacity = capacity;
    }

    struct cid_block *block = malloc(sizeof(*block));
    if (!block)
        return NULL;
    block->count = 0;
    struct cid_block **slot = &order->blocks[index];
    memmove(slot + 1, slot, (order->block_count - index) * sizeof(struct cid_block *));
    *slot = block;
    order->block_count++;
    return block;
}

static void drop_block(struct cid_order *order, size_t index)
{
    struct cid_block **slot = &order->blocks[index];

    free(*slot);
    order->block_count--;
    memmove(slot, slot + 1, (order->block_count - index) * sizeof(struct cid_block *));
}

/* Joins a block with the one behind it, if there is one and both together fill half a block. */
static void join_if_small(struct cid_order *order, size_t index)
{
    if (index + 1 >= order->block_count)
        return;
    struct cid_block *block = order->blocks[index];
    const struct cid_block *behind = order->blocks[index + 1];

    if (block->count + behind->count > CID_ORDER_BLOCK / 2)
        return;
    memcpy(block->sids + block->count, behind->sids, behind->count * sizeof(*behind->sids));
    block->count += behind->count;
    drop_block(order, index + 1);
}
