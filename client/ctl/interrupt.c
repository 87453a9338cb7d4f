/* A handler can do no more than write a byte; who waits has the other end of the pipe. */
#include "interrupt.h"

#include "say.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

static volatile sig_atomic_t seen;
static int ends[2] = {-1, -1};

static void interrupt_on_signal(int number);

void interrupt_catch(void)
{
    struct sigaction action = {.sa_handler = interrupt_on_signal};

    if (ends[0] >= 0)
        return;
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) {
        say_error("no pipe: %s; Ctrl-C ends this at once", strerror(errno));
        return;
    }
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

bool interrupt_seen(void)
{
    return seen != 0;
}

int interrupt_fd(void)
{
    return ends[0];
}

static void interrupt_on_signal(int number)
{
    const int saved = errno;

    (void)number;
    seen = 1;
    /* A full pipe is as readable as can be. */
    const ssize_t written = write(ends[1], "x", 1);
    (void)written;
    errno = saved;
}
