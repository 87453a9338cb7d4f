/* What may be written to a terminal, and how much room there is. */
#ifndef CLIENT_TERMINAL_H
#define CLIENT_TERMINAL_H

#include <stdbool.h>
#include <stddef.h>

struct terminal_size {
    size_t columns;
    size_t rows;
};

/* Is this a terminal where what was written can be written over? */
bool terminal_rewrites(int fd);

/* May colours be written to this descriptor? */
bool terminal_colours(int fd);

/* The size of the terminal behind the descriptor; 80 by 24 when it does not say. */
struct terminal_size terminal_size(int fd);

#endif
