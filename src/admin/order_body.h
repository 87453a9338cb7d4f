/* The body of POST /v1/shutdown (docs/control.md has its fields). */
#ifndef ADMIN_ORDER_BODY_H
#define ADMIN_ORDER_BODY_H

#include <stdbool.h>
#include <stddef.h>

#include "session/order.h"

/*
 * Reads a body, of len bytes, NULL for an empty one. Returns 0 with the order, whose waves are to
 * be handed on or cleared and whose by is left NULL, or -1 with what would be right in message, or
 * -2 and that memory is out. There is nothing to be cleared then.
 */
int order_body_read(const char *body, size_t len, struct order_request *order, bool *dry_run,
                    char *message, size_t message_size);

#endif
