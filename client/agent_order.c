/*
 * From an order to the end of the command. Decides that one order means one run, and how the
 * command is started; must never decide that there is an order.
 */
#include "agent_order.h"

#include "base/log.h"
#include "base/units.h"

#include <event2/event.h>

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum order_state {
    ORDER_NONE,
    ORDER_WAITING, /* the delay runs */
    ORDER_RUNNING, /* the command runs */
};

struct agent_order {
    struct agent_order_options options;
    enum order_state state;
    struct event *delay_over;
    struct event *child_changed;
    pid_t pid; /* while ORDER_RUNNING */
};

static void agent_order_on_delay_over(evutil_socket_t fd, short what, void *arg);
static void agent_order_on_child(evutil_socket_t fd, short what, void *arg);
static int run_command(char *command, pid_t *pid);
static void finish(struct agent_order *order, bool ok);

struct agent_order *agent_order_new(const struct agent_order_options *options)
{
    struct agent_order *order = calloc(1, sizeof(*order));

    if (!order)
        return NULL;
    order->options = *options;
    order->delay_over = evtimer_new(options->base, agent_order_on_delay_over, order);
    order->child_changed = evsignal_new(options->base, SIGCHLD, agent_order_on_child, order);
    if (!order->delay_over || !order->child_changed || event_add(order->child_changed, NULL) != 0) {
        agent_order_free(order);
        return NULL;
    }
    return order;
}

void agent_order_free(struct agent_order *order)
{
    if (!order)
        return;
    if (order->state == ORDER_WAITING)
        log_event(LOG_LEVEL_WARN, "shutdown_abandoned",
                  LOG_STR("note", "stopped during the delay; the command was not run"));
    else if (order->state == ORDER_RUNNING)
        log_event(LOG_LEVEL_WARN, "command_left", LOG_NUM("pid", order->pid),
                  LOG_STR("note", "stopped before the command ended; it goes on by itself"));
    if (order->delay_over)
        event_free(order->delay_over);
    if (order->child_changed)
        event_free(order->child_changed);
    free(order);
}

void agent_order_start(struct agent_order *order)
{
    const struct timeval delay = {
        .tv_sec = (time_t)(order->options.delay_ms / 1000),
        .tv_usec = (suseconds_t)(order->options.delay_ms % 1000 * 1000),
    };
    char text[UNITS_TEXT_BYTES];

    if (order->state != ORDER_NONE) {
        log_event(LOG_LEVEL_INFO, "shutdown_repeated",
                  LOG_STR("note", "the order before is still being carried out"));
        return;
    }

    log_event(LOG_LEVEL_WARN, "shutdown_ordered",
              LOG_STR("delay", units_format_duration(order->options.delay_ms, text)));
    order->state = ORDER_WAITING;
    /* Without the timer the order would be lost; then better at once. */
    if (event_add(order->delay_over, &delay) != 0)
        agent_order_on_delay_over(-1, EV_TIMEOUT, order);
}

bool agent_order_is_active(const struct agent_order *order)
{
    return order->state != ORDER_NONE;
}

static void agent_order_on_delay_over(evutil_socket_t fd, short what, void *arg)
{
    struct agent_order *order = arg;
    char *command = order->options.command;

    (void)fd;
    (void)what;
    if (!command) {
        log_event(LOG_LEVEL_WARN, "shutdown_not_done",
                  LOG_STR("note",
                          "this machine would be shut down now, but there is no command for "
                          "it; set --on-shutdown CMD"));
        finish(order, true);
        return;
    }

    const int error = run_command(command, &order->pid);
    if (error != 0) {
        log_event(LOG_LEVEL_ERROR, "command_failed", LOG_STR("command", command),
                  LOG_STR("error", strerror(error)));
        finish(order, false);
        return;
    }
    order->state = ORDER_RUNNING;
    log_event(LOG_LEVEL_WARN, "command_started", LOG_NUM("pid", order->pid),
              LOG_STR("command", command));
}

static void agent_order_on_child(evutil_socket_t fd, short what, void *arg)
{
    struct agent_order *order = arg;
    int status = 0;

    (void)fd;
    (void)what;
    if (order->state != ORDER_RUNNING || waitpid(order->pid, &status, WNOHANG) != order->pid)
        return;

    const bool ok = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    const enum log_level level = ok ? LOG_LEVEL_INFO : LOG_LEVEL_ERROR;
    if (WIFEXITED(status))
        log_event(level, "command_ended", LOG_NUM("pid", order->pid),
                  LOG_NUM("status", WEXITSTATUS(status)));
    else
        log_event(level, "command_ended", LOG_NUM("pid", order->pid),
                  LOG_NUM("signal", WTERMSIG(status)));
    finish(order, ok);
}

/*
 * Starts the command in a process group of its own, so that whoever stops the agent from its
 * terminal does not stop a shutdown half way, and with the signals as a program expects them.
 * Returns 0 or an errno.
 */
static int run_command(char *command, pid_t *pid)
{
    char shell[] = "sh";
    char option[] = "-c";
    char *argv[] = {shell, option, command, NULL};
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none;
    sigset_t all;
    int error = 0;

    sigemptyset(&none);
    sigfillset(&all);
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF |
                                              POSIX_SPAWN_SETSIGMASK);
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setsigmask(&attributes, &none);

    /* Nobody types to it. */
    error = posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    if (error == 0)
        error = posix_spawn(pid, "/bin/sh", &actions, &attributes, argv, environ);

    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return error;
}

static void finish(struct agent_order *order, bool ok)
{
    order->state = ORDER_NONE;
    order->options.done(order->options.owner, ok);
}
