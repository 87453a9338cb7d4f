/* The one list of what cliserctl can do. */
#include "commands.h"

#include "nearest.h"

#include <limits.h>
#include <string.h>

#define SHUTDOWN_HELP                                                                              \
    "Waves are told one after the other: the GLOBs together are the first, each\n"                 \
    "--wave adds one behind it, and --all, which takes no GLOBs beside it, is a last\n"            \
    "wave of all others. The next wave starts when all of one have gone, or when\n"                \
    "--grace is over. On a terminal what would happen is shown and you are asked,\n"               \
    "without --yes; elsewhere --yes is needed. Ctrl-C does not end the order.\n"                   \
    "With --json the last line is the order as the API has it, with the IDs of those\n"            \
    "still up as \"still_up_clients\".\n"                                                          \
    "\n"                                                                                           \
    "Exit status: 0 all that were told have gone; 3 nobody is there who matches; 4\n"              \
    "some are still up; 1 not ordered, cancelled, expired, or not watched to its end.\n"

#define LIST_HELP                                                                                  \
    "GLOB is a pattern of the shell: *, ?, [a-c], [!a-c]; quote it. --json prints one\n"           \
    "record a line, as the API has it.\n"                                                          \
    "\n"                                                                                           \
    "Exit status: 3 when no client matches.\n"

#define WATCH_HELP                                                                                 \
    "Goes on until Ctrl-C, also over restarts of the server. --json prints one object\n"           \
    "a line: {\"event\": \"connected\", \"time\": ..., \"cid\": ...}.\n"

#define STATUS_HELP                                                                                \
    "Exit status: 4 when the last order is over, or holding, and some are still up.\n"

#define NOBODY_HELP "Exit status: 3 when there is no such client.\n"

/* clang-format off */
const struct command commands[COMMAND_COUNT] = {
    [COMMAND_STATUS]          = {"status", "", 0, 0, NULL,
                                 "how the server is, in a few lines", NULL, command_status},
    [COMMAND_LIST]            = {"list", "[GLOB]", 0, 1, NULL,
                                 "clients by ID, all or those that match", LIST_HELP, command_list},
    [COMMAND_SHOW]            = {"show", "ID", 1, 1, "an ID",
                                 "everything about one client", NOBODY_HELP, command_show},
    [COMMAND_WATCH]           = {"watch", "", 0, 0, NULL,
                                 "events as they happen, until Ctrl-C", WATCH_HELP, command_watch},
    [COMMAND_PING]            = {"ping", "ID", 1, 1, "an ID",
                                 "ask a client now, and print the round trip", NOBODY_HELP, command_ping},
    [COMMAND_SHUTDOWN]        = {"shutdown", "[GLOB...]", 0, INT_MAX, NULL,
                                 "shut clients down, and watch them go", SHUTDOWN_HELP, command_shutdown},
    [COMMAND_SHUTDOWN_STATUS] = {"shutdown-status", "", 0, 0, NULL,
                                 "the order under way, or the last one", STATUS_HELP, command_shutdown_status},
    [COMMAND_SHUTDOWN_CANCEL] = {"shutdown-cancel", "", 0, 0, NULL,
                                 "end the order: tell nobody else", NULL, command_shutdown_cancel},
    [COMMAND_DISCONNECT]      = {"disconnect", "ID", 1, 1, "an ID",
                                 "end a client's session; it may come back", NOBODY_HELP, command_disconnect},
    [COMMAND_FORGET]          = {"forget", "ID", 1, 1, "an ID",
                                 "remove a client that is not connected", NOBODY_HELP, command_forget},
    [COMMAND_RELOAD]          = {"reload", "", 0, 0, NULL,
                                 "have the server read its configuration again", NULL, command_reload},
};
/* clang-format on */

const struct command *command_find(const char *name)
{
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    }
    return NULL;
}

const char *command_nearest(const char *name)
{
    const char *best = NULL;
    size_t best_distance = nearest_limit(name) + 1;

    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        const size_t distance = nearest_distance(name, commands[i].name);

        if (distance < best_distance) {
            best_distance = distance;
            best = commands[i].name;
        }
    }
    return best;
}
