/*
 * The next page of clients in an order that the registry does not keep. It is offered all of them,
 * one after the other, and keeps the best so many of those that lie behind the page before: what it
 * costs depends on the size of the page, and not on how many clients there are. Keeps copies, and
 * no pointer to any client.
 */
#ifndef ADMIN_SORTED_H
#define ADMIN_SORTED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cliser/proto.h"

struct registry_record;
struct sorted;

enum sort_key { SORT_CID, SORT_SID, SORT_SINCE, SORT_LAST_SEEN, SORT_RTT_MS, SORT_KEY_COUNT };

/* An order of clients. All zero is that of their IDs, the one that the registry keeps. */
struct sort_order {
    enum sort_key key;
    bool is_descending;
};

/* A place in an order: that of a client which was there when the place was made. */
struct sort_place {
    uint64_t rank; /* the lower, the nearer to the beginning; the same rank is ordered by ID */
    uint32_t sid;  /* 0 in one that was read */
    char cid[PROTO_MAX_ID_BYTES + 1];
};

bool sort_order_is_by_id(struct sort_order order);

/* Reads "since", or "-since". Returns 0, or -1. */
int sort_order_parse(struct sort_order *order, const char *text);

/* Reads a place as sorted_next() has written it, which is good for the same order only; in that of
 * IDs it is an ID. Returns 0, or -1. */
#define SORT_PLACE_TEXT_BYTES (PROTO_MAX_ID_BYTES + 40)
int sort_place_parse(struct sort_place *place, struct sort_order order, const char *text);

/* A page of so many clients, and whether there are more. Begins behind a place, or with NULL at the
 * beginning. Returns NULL when memory is out. */
struct sorted *sorted_new(struct sort_order order, const struct sort_place *behind, size_t limit);

/* NULL is allowed. */
void sorted_free(struct sorted *sorted);

/* Would this client be kept, as far as is known by now? */
bool sorted_wants(const struct sorted *sorted, const struct registry_record *record);

/* Keeps a client that is wanted, instead of the last one if there are enough. */
void sorted_keep(struct sorted *sorted, const struct registry_record *record);

/* All have been offered: from here on the page can be read. */
void sorted_finish(struct sorted *sorted);

/* The places of the page, in order; NULL behind the last one. */
const struct sort_place *sorted_at(const struct sorted *sorted, size_t i);

/* Where the next page begins. Returns text, which must have SORT_PLACE_TEXT_BYTES, or NULL when
 * nobody is behind this one. */
const char *sorted_next(const struct sorted *sorted, char *text);

#endif
