/* What is logged of sessions, at a bounded rate. Private to src/session. */
#ifndef SESSION_SESSION_LOG_H
#define SESSION_SESSION_LOG_H

#include "session/session.h"

/* It has reached 140. */
void session_log_connected(struct session *session);

/* It is over, coming from state old; its record must still be known. */
void session_log_ended(struct session *session, enum server_fsm_state old, enum reason reason);

/* A newcomer got no session. */
void session_log_turned_away(struct sessions *all, const struct peer_address *peer,
                             enum reason reason);

/* Its source gave one wrong password too many. */
void session_log_penalty(const struct session *session);

/* Tells as a number what the limits have kept out of the log since the last time. */
void session_log_suppressed(struct sessions *all);

#endif
