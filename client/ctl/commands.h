/* The table of commands, and what each of them is given. */
#ifndef CTL_COMMANDS_H
#define CTL_COMMANDS_H

#include <stddef.h>

#include "say.h"

struct api;
struct ctl_options;

/* One call of the program. */
struct ctl {
    const struct ctl_options *options;
    struct api *api;
};

typedef enum ctl_exit command_fn(const struct ctl *ctl);

/* As in the table, and as bits in the masks of options.c. */
enum command_id {
    COMMAND_STATUS,
    COMMAND_LIST,
    COMMAND_SHOW,
    COMMAND_WATCH,
    COMMAND_PING,
    COMMAND_SHUTDOWN,
    COMMAND_SHUTDOWN_STATUS,
    COMMAND_SHUTDOWN_CANCEL,
    COMMAND_DISCONNECT,
    COMMAND_FORGET,
    COMMAND_RELOAD,
    COMMAND_COUNT,
};

struct command {
    const char *name;
    const char *arguments; /* as in --help: "[GLOB]" */
    int min_arguments;
    int max_arguments;
    const char *wants; /* what is missing, when there are too few; NULL where none is needed */
    const char *help;  /* one line */
    const char *more;  /* paragraphs for "COMMAND --help"; may be NULL */
    command_fn *run;
};

extern const struct command commands[COMMAND_COUNT];

/* The command of that name, or NULL. */
const struct command *command_find(const char *name);

/* The name that a mistyped one was probably meant to be, or NULL. */
const char *command_nearest(const char *name);

/* In clients.c, status.c, watch.c, shutdown.c and order.c. */
command_fn command_status, command_list, command_show, command_watch, command_ping,
    command_shutdown, command_shutdown_status, command_shutdown_cancel, command_disconnect,
    command_forget, command_reload;

#endif
