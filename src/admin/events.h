/*
 * What happened lately, for whoever watches: a ring of the last events, each with a number. Readers
 * keep the number of the last one they have seen and take what came since, so that none of them
 * costs memory, however slow it is; what it has missed it is told.
 */
#ifndef ADMIN_EVENTS_H
#define ADMIN_EVENTS_H

#include <stddef.h>
#include <stdint.h>

#include "session/session.h"

struct events;

/* Events that are kept. */
#define EVENTS_KEPT 4096
/* The longest text of one event in a stream. */
#define EVENTS_MAX_TEXT_BYTES 1024

/* Returns NULL when memory is out. Numbers begin with the microsecond of wall_ms, so that those of
 * one life of the server are above those of the lives before. */
struct events *events_new(int64_t wall_ms);
void events_free(struct events *events);

/* Takes a copy of what is to be known of it. */
void events_add(struct events *events, const struct session_event *event);

/* The number of the last event. */
uint64_t events_last(const struct events *events);

/*
 * Writes the events behind the number *seen to buf as a server-sent event stream, as many as fit,
 * and moves *seen; those that are not kept any more become one event that counts them, without a
 * count when the number is of another life of the server. Returns how many bytes that were; 0 when
 * there is nothing new, or no room for one event (EVENTS_MAX_TEXT_BYTES is always enough).
 */
size_t events_read(const struct events *events, uint64_t *seen, char *buf, size_t size);

#endif
