/* Which wave a client belongs to. Knows no client, and nothing of when a wave's time has come. */
#include "session/order_waves.h"

#include "registry/glob.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int order_waves_add(struct order_waves *waves, const char *match, char *message,
                    size_t message_size)
{
    if (waves->count == ORDER_MAX_WAVES) {
        snprintf(message, message_size, "an order has at most %d waves", ORDER_MAX_WAVES);
        return -1;
    }

    struct glob_set *set = glob_set_new(match);
    char *copy = strdup(match);
    int result = -2;
    if (!set || !copy) {
        snprintf(message, message_size, "out of memory");
        goto failed;
    }
    if (waves->patterns + glob_set_patterns(set) > ORDER_MAX_PATTERNS) {
        snprintf(message, message_size,
                 "an order has at most %d patterns, beside any number of IDs", ORDER_MAX_PATTERNS);
        result = -1;
        goto failed;
    }
    waves->patterns += glob_set_patterns(set);
    waves->weight += glob_set_weight(set);
    waves->sets[waves->count] = set;
    waves->match[waves->count] = copy;
    waves->count++;
    return 0;

failed:
    glob_set_free(set);
    free(copy);
    return result;
}

unsigned order_waves_match(const struct order_waves *waves, const char *cid, unsigned behind)
{
    for (unsigned i = behind; i < waves->count; i++) {
        if (glob_set_matches(waves->sets[i], cid))
            return i + 1;
    }
    return 0;
}

void order_waves_clear(struct order_waves *waves)
{
    for (size_t i = 0; i < waves->count; i++) {
        glob_set_free(waves->sets[i]);
        free(waves->match[i]);
    }
    *waves = (struct order_waves){.count = 0};
}
