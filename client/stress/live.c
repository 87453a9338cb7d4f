/* Shows what the fleet and the tally say; computes nothing that the report would not. */
#include "live.h"

#include "fleet.h"
#include "tally.h"
#include "terminal.h"
#include "text.h"

#include <event2/event.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* One less than a terminal's width, so that the line never wraps. */
#define LINE_BYTES 79

struct live {
    struct live_options options;
    struct event *tick;
    uint64_t last_us;
    uint64_t last_welcomed;
    bool colours;
};

static void live_on_tick(evutil_socket_t fd, short what, void *arg);
static void show(const struct live *live, const char *text, uint64_t failures);

struct live *live_new(struct event_base *base, const struct live_options *options)
{
    const struct timeval second = {.tv_sec = 1};

    if (!isatty(STDERR_FILENO))
        return NULL;
    struct live *live = calloc(1, sizeof(*live));
    if (!live)
        return NULL;
    live->options = *options;
    live->colours = terminal_colours(STDERR_FILENO);
    live->tick = event_new(base, -1, EV_PERSIST, live_on_tick, live);
    if (!live->tick || event_add(live->tick, &second) != 0) {
        live_free(live);
        return NULL;
    }
    return live;
}

void live_free(struct live *live)
{
    if (!live)
        return;
    if (live->tick)
        event_free(live->tick);
    fprintf(stderr, "\r%*s\r", LINE_BYTES, "");
    free(live);
}

static void live_on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct live *live = arg;
    const struct live_options *options = &live->options;
    struct fleet_progress now;
    char text[160];
    char n[6][TEXT_BYTES];

    (void)fd;
    (void)what;
    fleet_progress(options->fleet, &now);

    const uint64_t passed_us = now.elapsed_us - live->last_us;
    const uint64_t rate =
        passed_us > 0 ? (now.welcomed - live->last_welcomed) * 1000000 / passed_us : 0;
    live->last_us = now.elapsed_us;
    live->last_welcomed = now.welcomed;

    if (now.phase == FLEET_HOLDING)
        snprintf(text, sizeof(text), "holding %s: %s up, %s keep-alives",
                 text_time(now.elapsed_us - now.connecting_us, n[0]), text_count(now.up, n[1]),
                 text_count(options->tally->keepalives, n[2]));
    else
        snprintf(text, sizeof(text), "connecting %s: %s of %s, %s up, %s waiting, %s/s",
                 text_time(now.elapsed_us, n[0]), text_count(now.started, n[1]),
                 text_count(options->clients, n[2]),
                 text_count(options->churn ? now.welcomed : now.up, n[3]),
                 text_count(now.unfinished, n[4]), text_count(rate, n[5]));
    show(live, text, tally_failures(options->tally));
}

static void show(const struct live *live, const char *text, uint64_t failures)
{
    char failed[TEXT_BYTES + 16] = "";
    char n[TEXT_BYTES];
    const bool red = live->colours && failures > 0;

    if (failures > 0)
        snprintf(failed, sizeof(failed), ", %s failed", text_count(failures, n));

    const int failed_len = (int)strlen(failed);
    const int room = LINE_BYTES - failed_len;
    const int text_len = (int)strlen(text) < room ? (int)strlen(text) : room;
    fprintf(stderr, "\r%.*s%s%s%s%*s", text_len, text, red ? "\033[31m" : "", failed,
            red ? "\033[0m" : "", room - text_len, "");
    fflush(stderr);
}
