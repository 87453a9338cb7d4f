/*
 * Accepts for one side of the control API. The library would do it as well, but when descriptors
 * run out it spins, or shuts for good; and an operator must get in above all when clients have
 * taken every descriptor. So some are kept for that.
 */
#ifndef ADMIN_ENTRANCE_H
#define ADMIN_ENTRANCE_H

#include <stdbool.h>

#include "base/address.h"

struct event_base;
struct entrance;

struct entrance_ops {
    bool (*has_room)(void *user);
    /* Owns fd from here on. */
    void (*take)(void *user, int fd, const struct address *from);
};

/* Accepts on a listening, non-blocking socket, which stays the caller's. NULL when memory is out.
 */
struct entrance *entrance_new(struct event_base *base, int fd, const struct entrance_ops *ops,
                              void *user);

/* To be called when connections may have ended: there may be room again, and what was lent to one
 * of them is taken back before anybody else has it. */
void entrance_tend(struct entrance *entrance);

void entrance_free(struct entrance *entrance);

#endif
