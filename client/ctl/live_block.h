/* A few lines of a terminal that are written again and again in the same place. */
#ifndef CTL_LIVE_BLOCK_H
#define CTL_LIVE_BLOCK_H

#include <stddef.h>
#include <stdio.h>

struct live_block {
    FILE *out;    /* a terminal */
    size_t lines; /* that are there now, above the cursor */
};

/* Replaces what is there by the text, whose lines must each fit the terminal's width, and all of
 * them its height, with one to spare for the cursor. */
void live_block_draw(struct live_block *block, const char *text);

/* Takes it away: what is written next stands in its place. */
void live_block_clear(struct live_block *block);

#endif
