/*
 * How long a client waits before its next try. Pure: the random number is an argument.
 *
 * Back-off is exponential with full jitter: a pause is anywhere between nothing and a ceiling that
 * doubles from 1 s to 60 s with each try that came to no lasting session. So clients that lost
 * their server together do not come back together.
 */
#ifndef CLIENT_BACKOFF_H
#define CLIENT_BACKOFF_H

#include <stdint.h>

#include "cliser/proto.h"

#define BACKOFF_FIRST_MS  UINT64_C(1000)
#define BACKOFF_MAX_MS    UINT64_C(60000)
#define BACKOFF_LONG_MS   UINT64_C(60000) /* a long pause; never shorter */
#define BACKOFF_JITTER_MS UINT64_C(15000) /* at most so much on top of a long pause */

/* Zeroed is ready. */
struct backoff {
    unsigned tries; /* since there was a lasting session */
};

/* A session lasts: the next pause is a first one again. */
void backoff_reset(struct backoff *backoff);

/*
 * Counts a try that ended and returns the pause in milliseconds before the next: for
 * PROTO_RETRY_BACK_OFF from the doubling range, for PROTO_RETRY_SPREAD from the whole range at
 * once, because everyone else was told at the same moment; for PROTO_RETRY_LONG_PAUSE a long pause.
 */
uint64_t backoff_next_ms(struct backoff *backoff, enum proto_retry retry, uint64_t random);

#endif
