/*
 * cliserctl watch: events as they happen, over any number of connections. On a terminal the last
 * line says how the server is; an event takes that line away, and the next turn writes it anew.
 */
#include "commands.h"

#include "api.h"
#include "base/clock.h"
#include "event_stream.h"
#include "fields.h"
#include "interrupt.h"
#include "options.h"
#include "since.h"
#include "terminal.h"
#include "text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STATUS_US        CLOCK_US_PER_SEC
#define FIRST_PAUSE_MS   500
#define LONGEST_PAUSE_MS 10000

#define RED              "\033[31m"
#define GREEN            "\033[32m"
#define YELLOW           "\033[33m"
#define MAGENTA          "\033[35m"
#define DIM              "\033[2m"
#define PLAIN            "\033[0m"

struct watch {
    const struct ctl *ctl;
    struct event_stream events;
    struct api_stream *stream; /* NULL between two of them */
    bool was_open;             /* at least once: from then on a broken stream is no failure */
    bool lost;                 /* and said so */
    int pause_ms;
    uint64_t again_us; /* when to open the next one */
    bool terminal;
    bool colours;
    bool status_shown;
    uint64_t status_us; /* when to ask for it next */
    char status[256];
};

/* How an event is shown: what stands behind its time and name. To be freed. */
typedef char *details_fn(const json_t *data);

static details_fn address_details, disconnected_details, refused_details, shutdown_details,
    missed_details, other_details;

struct kind {
    const char *type;
    const char *colour;
    details_fn *details;
};

/* clang-format off */
static const struct kind kinds[] = {
    {"connected",    GREEN,   address_details},
    {"disconnected", YELLOW,  disconnected_details},
    {"refused",      RED,     refused_details},
    {"shutdown",     MAGENTA, shutdown_details},
    {"missed",       RED,     missed_details},
    {NULL,           "",      other_details}, /* of a newer server */
};
/* clang-format on */

static void open_stream(struct watch *watch);
static enum ctl_exit check_stream(struct watch *watch);
static void say_back(struct watch *watch);
static void watch_on_bytes(void *arg, const char *bytes, size_t len);
static void watch_on_event(void *arg, const char *type, const char *data);
static void print_json(const char *type, json_t *data);
static void print_event(const struct watch *watch, const char *type, const json_t *data);
static void refresh_status(struct watch *watch);
static void word_status(struct watch *watch, const json_t *status);
static void show_status(struct watch *watch);
static void hide_status(struct watch *watch);
static int turn_ms(const struct watch *watch);
static void sooner(uint64_t *wait_us, uint64_t now_us, uint64_t due_us);

enum ctl_exit command_watch(const struct ctl *ctl)
{
    const bool terminal = terminal_rewrites(STDOUT_FILENO) && !ctl->options->json;
    struct watch watch = {
        .ctl = ctl,
        .events = {.event = watch_on_event},
        .pause_ms = FIRST_PAUSE_MS,
        .terminal = terminal,
        .colours = terminal && terminal_colours(STDOUT_FILENO),
    };
    enum ctl_exit status = CTL_DONE;

    watch.events.arg = &watch;
    interrupt_catch();
    while (status == CTL_DONE && !interrupt_seen()) {
        if (!watch.stream && clock_monotonic_us() >= watch.again_us)
            open_stream(&watch);
        refresh_status(&watch);
        show_status(&watch);
        if (!say_flush())
            break;
        api_turn(ctl->api, turn_ms(&watch));
        status = check_stream(&watch);
    }
    hide_status(&watch);
    api_stream_close(watch.stream);
    event_stream_clear(&watch.events);
    return status;
}

static void open_stream(struct watch *watch)
{
    event_stream_restart(&watch->events);
    watch->stream = api_stream_open(watch->ctl->api, "/v1/events", watch->events.last_id,
                                    watch_on_bytes, watch);
}

/* A stream that never began is a failure, whose reason people should see; one that broke is taken
 * up again, unless the server refuses that for good. */
static enum ctl_exit check_stream(struct watch *watch)
{
    struct api_reply reply;
    enum ctl_exit status = CTL_DONE;

    if (!watch->stream)
        return CTL_DONE;
    if (api_stream_is_open(watch->stream))
        say_back(watch);
    if (!api_stream_is_over(watch->stream, &reply))
        return CTL_DONE;

    hide_status(watch);
    if (!watch->was_open || (reply.result == API_REFUSED && reply.status < 500)) {
        status = api_complain(&reply);
    } else if (!watch->lost) {
        watch->lost = true;
        say_error("%s; trying again", reply.message);
    }
    api_reply_clear(&reply);
    api_stream_close(watch->stream);
    watch->stream = NULL;
    watch->again_us = clock_monotonic_us() + (uint64_t)watch->pause_ms * CLOCK_US_PER_MS;
    watch->pause_ms =
        2 * watch->pause_ms < LONGEST_PAUSE_MS ? 2 * watch->pause_ms : LONGEST_PAUSE_MS;
    return status;
}

static void say_back(struct watch *watch)
{
    if (watch->lost) {
        hide_status(watch);
        say_error("the server is back");
    }
    watch->lost = false;
    watch->was_open = true;
    watch->pause_ms = FIRST_PAUSE_MS;
}

static void watch_on_bytes(void *arg, const char *bytes, size_t len)
{
    struct watch *watch = arg;

    say_back(watch);
    event_stream_take(&watch->events, bytes, len);
}

static void watch_on_event(void *arg, const char *type, const char *data)
{
    struct watch *watch = arg;
    json_t *object = json_loads(data, 0, NULL);

    hide_status(watch);
    if (!json_is_object(object)) {
        say_error("an event '%s' is no JSON object: %s", type, data);
    } else if (watch->ctl->options->json) {
        print_json(type, object);
    } else {
        print_event(watch, type, object);
    }
    json_decref(object);
}

static void print_json(const char *type, json_t *data)
{
    json_t *line = json_pack("{s:s}", "event", type);

    if (!line || json_object_update_missing(line, data) != 0)
        say_no_memory();
    field_print_line(line, stdout);
    json_decref(line);
}

static void print_event(const struct watch *watch, const char *type, const json_t *data)
{
    const int64_t now = clock_wall_ms() / 1000;
    const struct kind *kind = kinds;
    char time[SINCE_BYTES];

    while (kind->type && strcmp(kind->type, type) != 0)
        kind++;
    char *details = kind->details(data);

    /* Not every event has a time of its own. */
    say_out("%s  ",
            since_clock(field_given(data, "time") ? field_int(data, "time") : now, now, time));
    fputs(watch->colours ? kind->colour : "", stdout);
    say_out("%-12s", type);
    fputs(watch->colours ? PLAIN : "", stdout);
    say_out("  %s\n", details);
    free(details);
}

static char *address_details(const json_t *data)
{
    return say_format("%s  from %s port %" PRId64, field_text(data, "cid"), field_text(data, "cip"),
                      field_int(data, "cport"));
}

static char *disconnected_details(const json_t *data)
{
    return say_format("%s  %s", field_text(data, "cid"), field_text(data, "reason"));
}

/* Without an ID there is only the address to tell who it was. */
static char *refused_details(const json_t *data)
{
    char code[24] = "";

    if (field_given(data, "code"))
        snprintf(code, sizeof(code), " (%" PRId64 ")", field_int(data, "code"));
    return say_format("%s  %s%s, from %s port %" PRId64,
                      field_given(data, "cid") ? field_text(data, "cid") : "no ID",
                      field_text(data, "reason"), code, field_text(data, "cip"),
                      field_int(data, "cport"));
}

static char *shutdown_details(const json_t *data)
{
    char wave[32] = "";
    char what[32];

    snprintf(what, sizeof(what), "%s", field_text(data, "what"));
    for (char *c = what; *c; c++)
        *c = *c == '_' ? ' ' : *c;
    if (field_given(data, "wave"))
        snprintf(wave, sizeof(wave), ", wave %" PRId64, field_int(data, "wave"));
    return say_format("%s%sorder %" PRId64 "%s: %s", field_text(data, "cid"),
                      field_given(data, "cid") ? "  " : "", field_int(data, "order"), wave, what);
}

static char *missed_details(const json_t *data)
{
    const uint64_t missed = field_count(data, "missed");
    char n[TEXT_BYTES];

    return say_format("%s events were lost: this reader was away or too slow",
                      missed > 0 ? text_count(missed, n) : "some");
}

static char *other_details(const json_t *data)
{
    char *text = json_dumps(data, JSON_COMPACT);

    if (!text)
        say_no_memory();
    return text;
}

/* Not before the first stream is there: whether it comes is what there is to say till then. */
static void refresh_status(struct watch *watch)
{
    struct api_reply reply;

    if (!watch->terminal || !watch->was_open || clock_monotonic_us() < watch->status_us)
        return;
    watch->status_us = clock_monotonic_us() + STATUS_US;
    if (api_call(watch->ctl->api, "GET", "/v1/status", NULL, &reply) == API_DONE)
        word_status(watch, reply.body);
    else if (reply.result != API_INTERRUPTED)
        snprintf(watch->status, sizeof(watch->status), "the server does not answer");
    api_reply_clear(&reply);
    hide_status(watch);
}

static void word_status(struct watch *watch, const json_t *status)
{
    char n[3][TEXT_BYTES];

    snprintf(watch->status, sizeof(watch->status),
             "%s connected, %s registered, %s pending, shutdown: %.20s%s",
             text_count(field_count(status, "connected"), n[0]),
             text_count(field_count(status, "registered"), n[1]),
             text_count(field_count(status, "pending"), n[2]), field_text(status, "shutdown"),
             field_true(status, "ready") ? "" : ", NOT READY");
    say_printable(watch->status);
}

static void show_status(struct watch *watch)
{
    if (!watch->terminal || watch->status_shown || watch->status[0] == '\0')
        return;
    printf("%s%.*s%s", watch->colours ? DIM : "", (int)terminal_size(STDOUT_FILENO).columns - 1,
           watch->status, watch->colours ? PLAIN : "");
    watch->status_shown = true;
}

static void hide_status(struct watch *watch)
{
    if (!watch->status_shown)
        return;
    printf("\r\033[K");
    fflush(stdout); /* before anything goes to stderr */
    watch->status_shown = false;
}

static int turn_ms(const struct watch *watch)
{
    const uint64_t now_us = clock_monotonic_us();
    uint64_t wait_us = STATUS_US;

    if (watch->terminal && watch->was_open)
        sooner(&wait_us, now_us, watch->status_us);
    if (!watch->stream)
        sooner(&wait_us, now_us, watch->again_us);
    return (int)((wait_us + CLOCK_US_PER_MS - 1) / CLOCK_US_PER_MS);
}

static void sooner(uint64_t *wait_us, uint64_t now_us, uint64_t due_us)
{
    const uint64_t left_us = due_us > now_us ? due_us - now_us : 0;

    if (left_us < *wait_us)
        *wait_us = left_us;
}
