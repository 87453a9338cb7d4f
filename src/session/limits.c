/* Pure arithmetic; keeps nothing. */
#include "session/limits.h"

static bool has_room(uint64_t limit, uint64_t pending, uint64_t random);

bool limits_admit(const struct limits_options *limits, uint64_t clients, uint64_t pending,
                  uint64_t random)
{
    return clients < limits->max_clients && has_room(limits->max_pending, pending, random);
}

bool limits_admit_tls(const struct limits_options *limits, uint64_t pending, uint64_t random)
{
    return has_room(limits->max_tls_pending, pending, random);
}

/* The share that is turned away grows from none at half of the limit to all at the limit. */
static bool has_room(uint64_t limit, uint64_t pending, uint64_t random)
{
    const uint64_t half = limit / 2;

    if (pending >= limit)
        return false;
    return pending < half || random % (limit - half) >= pending - half;
}
