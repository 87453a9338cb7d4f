/* Where a newcomer comes from and how many there are: sessions_admit() and what it needs to know.
 * Private to src/session. */
#ifndef SESSION_DOOR_H
#define SESSION_DOOR_H

#include "session/session.h"

/* A session has begun, or is over. */
void door_enter(struct session *session);
void door_leave(struct session *session);

/* Has its source earned a penalty since it came in? Then it may not try a password. */
bool door_is_closed_to(const struct session *session);

/* It gave a wrong password. To be called before it is told. */
void door_note_wrong_password(struct session *session);

/* all->options have changed. */
void door_reload(struct sessions *all);

/* When door_tick() wants to be called; UINT64_MAX: never. */
uint64_t door_next_us(const struct sessions *all);

/* Goes on counting those who were there before they were counted. Bounded. */
void door_tick(struct sessions *all);

/* Once a second: forgets what is over. */
void door_keep_house(struct sessions *all);

#endif
