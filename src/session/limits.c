/* Pure arithmetic; keeps nothing. */
#include "session/limits.h"

bool limits_admit(const struct limits_options *limits, uint64_t clients, uint64_t pending,
                  uint64_t random)
{
    const uint64_t half = limits->max_pending / 2;

    if (clients >= limits->max_clients || pending >= limits->max_pending)
        return false;
    if (pending < half)
        return true;
    /* The share that is turned away grows from none at half to all at max_pending. */
    return random % (limits->max_pending - half) >= pending - half;
}
