/* The waves of a shutdown order: lists of IDs and patterns, of which a client belongs to the first
 * that matches it. */
#ifndef SESSION_ORDER_WAVES_H
#define SESSION_ORDER_WAVES_H

#include <stddef.h>

#define ORDER_MAX_WAVES    64
#define ORDER_MAX_PATTERNS 256 /* each is tried on every ID */

struct glob_set;

/* Zeroed is empty. */
struct order_waves {
    struct glob_set *sets[ORDER_MAX_WAVES];
    char *match[ORDER_MAX_WAVES]; /* as given: globs separated by commas */
    size_t count;
    size_t patterns; /* in all of them */
    size_t weight;   /* of these; see glob_set_weight() */
};

/*
 * Adds a wave, of globs separated by commas, each of which glob_check() takes. Returns 0, or -1
 * with what would be right in message, or -2 when memory is out (or a glob is none after all).
 */
int order_waves_add(struct order_waves *waves, const char *match, char *message,
                    size_t message_size);

/* The first wave that matches, from 1 on, of those behind this one; 0 for none. */
unsigned order_waves_match(const struct order_waves *waves, const char *cid, unsigned behind);

/* Empties them. */
void order_waves_clear(struct order_waves *waves);

#endif
