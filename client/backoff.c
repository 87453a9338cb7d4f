/* The arithmetic of pauses, and nothing else: no clock, no random numbers of its own, no state but
 * a count. */
#include "backoff.h"

static uint64_t ceiling_ms(unsigned tries);
static uint64_t up_to(uint64_t most, uint64_t random);

void backoff_reset(struct backoff *backoff)
{
    backoff->tries = 0;
}

uint64_t backoff_next_ms(struct backoff *backoff, enum proto_retry retry, uint64_t random)
{
    const unsigned tries = backoff->tries;

    /* Saturates well above the doubling that matters. */
    if (backoff->tries < UINT16_MAX)
        backoff->tries++;

    switch (retry) {
    case PROTO_RETRY_LONG_PAUSE:
        return BACKOFF_LONG_MS + up_to(BACKOFF_JITTER_MS, random);
    case PROTO_RETRY_SPREAD:
        return up_to(BACKOFF_MAX_MS, random);
    case PROTO_RETRY_NONE:
    case PROTO_RETRY_BACK_OFF:
        break;
    }
    return up_to(ceiling_ms(tries), random);
}

static uint64_t ceiling_ms(unsigned tries)
{
    uint64_t ceiling = BACKOFF_FIRST_MS;

    for (unsigned i = 0; i < tries && ceiling < BACKOFF_MAX_MS; i++)
        ceiling *= 2;
    return ceiling < BACKOFF_MAX_MS ? ceiling : BACKOFF_MAX_MS;
}

/* The ranges are so far below 2^64 that the remainder prefers no number noticeably. */
static uint64_t up_to(uint64_t most, uint64_t random)
{
    return random % (most + 1);
}
