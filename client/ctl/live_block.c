/* Rewrites line by line instead of erasing first, which would flicker. */
#include "live_block.h"

#include <string.h>

#define UP          "\033[%zuA"
#define ERASE_RIGHT "\033[K"
#define ERASE_BELOW "\033[J"

static void go_to_top(struct live_block *block);

void live_block_draw(struct live_block *block, const char *text)
{
    size_t lines = 0;

    go_to_top(block);
    while (*text) {
        const size_t len = strcspn(text, "\n");

        fprintf(block->out, "%.*s" ERASE_RIGHT "\n", (int)len, text);
        text += len + (text[len] == '\n');
        lines++;
    }
    fputs(ERASE_BELOW, block->out);
    fflush(block->out);
    block->lines = lines;
}

void live_block_clear(struct live_block *block)
{
    if (block->lines == 0)
        return;
    go_to_top(block);
    fputs(ERASE_BELOW, block->out);
    fflush(block->out);
    block->lines = 0;
}

static void go_to_top(struct live_block *block)
{
    if (block->lines > 0)
        fprintf(block->out, "\r" UP, block->lines);
}
