/*
 * Records in the order of their IDs (that of strcmp), for lists that are read page by page.
 *
 * The sids stand in sorted blocks, the blocks in one sorted array: finding a place is two binary
 * searches, coming or going moves at most a block and, when one is split or dropped, the array,
 * which a million records leave at some ten kilobytes. That is 4 to 8 bytes a record where a
 * balanced tree would want three pointers in each, also of those that nobody ever lists. IDs that
 * come in ascending order leave their blocks full. Any two neighbours together hold more than
 * half a block, so that a registry that has become small gives the memory back.
 *
 * Everything gets the records by sid, [sid - 1], of which those in the order must be there.
 */
#ifndef REGISTRY_CID_ORDER_H
#define REGISTRY_CID_ORDER_H

#include <stddef.h>
#include <stdint.h>

struct registry_record;
struct cid_block;

/* As many sids as fill half a page with their count, less what malloc keeps beside them. */
#define CID_ORDER_BLOCK 509

/* All zero is an empty order. */
struct cid_order {
    struct cid_block **blocks; /* none is empty */
    size_t block_count;
    size_t block_capacity;
    size_t count; /* sids */
};

/* Frees all blocks. */
void cid_order_clear(struct cid_order *order);

/* Puts a record where its ID belongs; none with this ID may be in the order. Returns 0, or -1 when
 * memory is out, and nothing has changed. */
int cid_order_add(struct cid_order *order, struct registry_record *const *by_sid, uint32_t sid);

/* Takes out a record, which must be in the order. Never fails. */
void cid_order_remove(struct cid_order *order, struct registry_record *const *by_sid, uint32_t sid);

/*
 * The records behind this ID, which need not be one of theirs, in order; "" for the first ones.
 * Returns how many there are in page: size, or fewer at the end. Looks at no record of them.
 */
size_t cid_order_page(const struct cid_order *order, struct registry_record *const *by_sid,
                      const char *after, struct registry_record **page, size_t size);

#endif
