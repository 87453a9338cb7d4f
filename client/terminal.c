/* Asks the terminal and the environment; writes nothing. */
#include "terminal.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/ioctl.h>

bool terminal_rewrites(int fd)
{
    const char *term = getenv("TERM");

    return isatty(fd) && term && strcmp(term, "dumb") != 0;
}

bool terminal_colours(int fd)
{
    const char *no_color = getenv("NO_COLOR");

    return terminal_rewrites(fd) && !(no_color && no_color[0] != '\0');
}

struct terminal_size terminal_size(int fd)
{
    struct terminal_size size = {.columns = 80, .rows = 24};
    struct winsize window = {0};

    if (ioctl(fd, TIOCGWINSZ, &window) != 0)
        return size;
    if (window.ws_col > 0)
        size.columns = window.ws_col;
    if (window.ws_row > 0)
        size.rows = window.ws_row;
    return size;
}
