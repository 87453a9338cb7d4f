/* Shows an order while it goes on: on a terminal a block of lines that is rewritten, elsewhere a
 * line for each change of a wave. */
#ifndef CTL_ORDER_PROGRESS_H
#define CTL_ORDER_PROGRESS_H

#include <jansson.h>

#include "live_block.h"

#define ORDER_PROGRESS_WAVES 64 /* as the server */

enum order_progress_mode {
    ORDER_PROGRESS_LIVE,  /* stderr is a terminal that can be written over */
    ORDER_PROGRESS_LINES, /* on stdout */
    ORDER_PROGRESS_SILENT,
};

struct order_progress {
    enum order_progress_mode mode;
    struct live_block block;
    char states[ORDER_PROGRESS_WAVES][16]; /* as they were shown last */
};

void order_progress_init(struct order_progress *progress, enum order_progress_mode mode);
void order_progress_show(struct order_progress *progress, const json_t *order);

/* Takes the block away, so that something else can be said. */
void order_progress_hide(struct order_progress *progress);

/* Which waves to show when there is room for so many: the current one (from 1; 0 before the first)
 * is among them, with about as many before as behind. Returns the index of the first. */
size_t order_progress_first(size_t waves, size_t current, size_t room);

#endif
