/*
 * A heap with the last client of the page on top: whoever comes before it takes its place. One more
 * than the page has is kept, which says that the page has a successor.
 */
#include "admin/sorted.h"

#include "base/units.h"
#include "registry/registry.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Behind all that are known, in both directions. */
#define RANK_UNKNOWN UINT64_MAX
/* Between the parts of a place's text: in no ID, and as it is in every URI. */
#define SEPARATOR '~'

struct sorted {
    struct sort_order order;
    bool has_begin; /* NULL was not given */
    struct sort_place behind;
    size_t limit;
    size_t count;
    struct sort_place places[]; /* limit + 1 */
};

static const char *const key_words[SORT_KEY_COUNT] = {
    [SORT_CID] = "cid",       [SORT_SID] = "sid",
    [SORT_SINCE] = "since",   [SORT_LAST_SEEN] = "last_seen",
    [SORT_RTT_MS] = "rtt_ms",
};

static uint64_t rank_of(struct sort_order order, const struct registry_record *record);
static uint64_t rank_of_time(int64_t time);
static int compare(struct sort_order order, const struct sort_place *place, uint64_t rank,
                   const char *cid);
static void sift_up(struct sorted *sorted, size_t at, const struct sort_place *place);
static void sift_down(struct sorted *sorted, size_t count, const struct sort_place *place);

bool sort_order_is_by_id(struct sort_order order)
{
    return order.key == SORT_CID && !order.is_descending;
}

int sort_order_parse(struct sort_order *order, const char *text)
{
    const bool is_descending = text[0] == '-';

    for (int key = 0; key < SORT_KEY_COUNT; key++) {
        if (strcmp(text + is_descending, key_words[key]) != 0)
            continue;
        *order = (struct sort_order){.key = (enum sort_key)key, .is_descending = is_descending};
        return 0;
    }
    return -1;
}

int sort_place_parse(struct sort_place *place, struct sort_order order, const char *text)
{
    char head[SORT_PLACE_TEXT_BYTES];
    struct sort_order found;

    *place = (struct sort_place){.rank = 0};
    if (strlen(text) >= sizeof(head))
        return -1;
    if (!sort_order_is_by_id(order)) {
        snprintf(head, sizeof(head), "%s", text);
        char *number = strchr(head, SEPARATOR);
        char *cid = number ? strchr(number + 1, SEPARATOR) : NULL;
        if (!cid)
            return -1;
        *number++ = *cid++ = '\0';
        if (sort_order_parse(&found, head) != 0 || found.key != order.key ||
            found.is_descending != order.is_descending ||
            units_parse_number(number, &place->rank) != 0)
            return -1;
        text += cid - head;
    }
    if (!proto_id_valid(text, strlen(text)))
        return -1;
    memcpy(place->cid, text, strlen(text) + 1);
    return 0;
}

struct sorted *sorted_new(struct sort_order order, const struct sort_place *behind, size_t limit)
{
    struct sorted *sorted = malloc(sizeof(*sorted) + (limit + 1) * sizeof(sorted->places[0]));

    if (!sorted)
        return NULL;
    *sorted = (struct sorted){.order = order, .has_begin = behind != NULL, .limit = limit};
    if (behind)
        sorted->behind = *behind;
    return sorted;
}

void sorted_free(struct sorted *sorted)
{
    free(sorted);
}

bool sorted_wants(const struct sorted *sorted, const struct registry_record *record)
{
    const uint64_t rank = rank_of(sorted->order, record);

    if (sorted->has_begin && compare(sorted->order, &sorted->behind, rank, record->cid) >= 0)
        return false;
    return sorted->count <= sorted->limit ||
           compare(sorted->order, &sorted->places[0], rank, record->cid) > 0;
}

void sorted_keep(struct sorted *sorted, const struct registry_record *record)
{
    struct sort_place place = {.rank = rank_of(sorted->order, record), .sid = record->sid};

    memcpy(place.cid, record->cid, record->cid_len + 1U);
    if (sorted->count <= sorted->limit)
        sift_up(sorted, sorted->count++, &place);
    else
        sift_down(sorted, sorted->count, &place);
}

/* Takes the last one away until none is left, to where the heap has ended. */
void sorted_finish(struct sorted *sorted)
{
    for (size_t count = sorted->count; count > 1; count--) {
        const struct sort_place last = sorted->places[0];

        sift_down(sorted, count - 1, &sorted->places[count - 1]);
        sorted->places[count - 1] = last;
    }
}

const struct sort_place *sorted_at(const struct sorted *sorted, size_t i)
{
    return i < sorted->count && i < sorted->limit ? &sorted->places[i] : NULL;
}

const char *sorted_next(const struct sorted *sorted, char *text)
{
    const struct sort_order order = sorted->order;

    if (sorted->count <= sorted->limit)
        return NULL;
    const struct sort_place *last = &sorted->places[sorted->limit - 1];
    snprintf(text, SORT_PLACE_TEXT_BYTES, "%s%s%c%" PRIu64 "%c%s", order.is_descending ? "-" : "",
             key_words[order.key], SEPARATOR, last->rank, SEPARATOR, last->cid);
    return text;
}

static uint64_t rank_of(struct sort_order order, const struct registry_record *record)
{
    uint64_t rank = 0;

    switch (order.key) {
    case SORT_CID:
    case SORT_KEY_COUNT:
        return 0;
    case SORT_SID:
        rank = record->sid;
        break;
    case SORT_SINCE:
        rank = rank_of_time(record->since);
        break;
    case SORT_LAST_SEEN:
        rank = rank_of_time(record->last_seen);
        break;
    case SORT_RTT_MS:
        if (record->rtt_us == 0)
            return RANK_UNKNOWN;
        rank = record->rtt_us;
        break;
    }
    return order.is_descending ? ~rank : rank;
}

/* Those before 1970 come first. */
static uint64_t rank_of_time(int64_t time)
{
    return (uint64_t)time ^ (UINT64_C(1) << 63);
}

/* Above 0: whoever has this rank and ID comes before the place. */
static int compare(struct sort_order order, const struct sort_place *place, uint64_t rank,
                   const char *cid)
{
    if (place->rank != rank)
        return place->rank > rank ? 1 : -1;
    const int by_id = strcmp(place->cid, cid);
    return order.key == SORT_CID && order.is_descending ? -by_id : by_id;
}

/* Puts a place into the heap, which has room for it at its end. */
static void sift_up(struct sorted *sorted, size_t at, const struct sort_place *place)
{
    while (at > 0) {
        const struct sort_place *parent = &sorted->places[(at - 1) / 2];

        if (compare(sorted->order, parent, place->rank, place->cid) >= 0)
            break;
        sorted->places[at] = *parent;
        at = (at - 1) / 2;
    }
    sorted->places[at] = *place;
}

/* Puts a place into the heap of so many instead of the one on top. */
static void sift_down(struct sorted *sorted, size_t count, const struct sort_place *place)
{
    size_t at = 0;

    for (size_t child = 1; child < count; child = 2 * at + 1) {
        const struct sort_place *places = sorted->places;

        if (child + 1 < count && compare(sorted->order, &places[child], places[child + 1].rank,
                                         places[child + 1].cid) < 0)
            child++;
        if (compare(sorted->order, &places[child], place->rank, place->cid) <= 0)
            break;
        sorted->places[at] = places[child];
        at = child;
    }
    sorted->places[at] = *place;
}
