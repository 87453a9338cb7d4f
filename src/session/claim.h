/*
 * Who holds an ID: claiming it, what a second claim means, and giving it back (docs/protocol.md,
 * "Duplicate IDs"). Private to src/session.
 */
#ifndef SESSION_CLAIM_H
#define SESSION_CLAIM_H

#include "session/session.h"

/*
 * The session, which is in REGISTERING, wants this ID: the store is asked, or the holder, or the
 * session is refused, and may be over when this returns.
 */
void claim_id(struct session *session, const char *id, size_t len);

/* The store answered a claim: its session goes on or is refused, if it is still there. */
void claim_answered(struct sessions *all, const struct store_answer *answer);

/* The holder of the record answered a keep-alive: a newcomer that waited to hear that is refused.
 */
void claim_holder_answered(struct registry_record *record);

/*
 * The session is over: what it held, claimed or waited for is given up. was_connected tells whether
 * it had reached 140. May register a newcomer in its place.
 */
void claim_release(struct session *session, bool was_connected, enum reason reason);

/* Ends the probes whose holder has not answered in time. */
void claim_expire_probes(struct sessions *all);

/* When the next one is due; UINT64_MAX if there is none. */
uint64_t claim_next_us(const struct sessions *all);

/* Frees what waits; nothing is called back. */
void claim_clear(struct sessions *all);

#endif
