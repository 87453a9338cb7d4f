/*
 * cliserctl shutdown: shows whom it would be, asks, gives the order, and watches it. The order
 * belongs to the server: nothing that happens here, but a refusal before it is given, stops it.
 */
#include "commands.h"

#include "api.h"
#include "base/clock.h"
#include "fields.h"
#include "interrupt.h"
#include "options.h"
#include "order.h"
#include "order_progress.h"
#include "terminal.h"
#include "text.h"

#include <fnmatch.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* With --all, unless --hold says otherwise: who is away just now must not come back up while the
 * power is failing. */
#define HOLD_OF_ALL "15m"

#define POLL_MS     200

/* A server that was started again needs seconds; one that needs longer is somebody's to look at. */
#define LONGEST_PAUSE_MS 5000
#define GIVE_UP_US       (120 * CLOCK_US_PER_SEC)

/* An order that is being watched. */
struct pursuit {
    const struct ctl *ctl;
    json_t *order; /* as it was last seen */
    struct order_progress progress;
    uint64_t lost_us; /* since when the server does not answer; 0: it does */
    int pause_ms;
};

static bool can_ask(void);
static json_t *make_request(const struct ctl_options *options);
static void add_list(json_t *wave, const char *list);
static enum ctl_exit try_dry(const struct ctl *ctl, json_t *request, struct api_reply *reply);
static enum ctl_exit judge_dry(const struct ctl *ctl, const json_t *plan);
static bool knows_anybody(const struct ctl *ctl);
static void warn_of_idle_patterns(const json_t *plan);
static bool matches_anybody(const char *pattern, const json_t *plan);
static void print_dry(const json_t *plan);
static bool confirm(const struct ctl_options *options, const json_t *plan);
static void show_wave(size_t number, const json_t *wave);
static const char *hold_of(const struct ctl_options *options);
static bool read_count(uint64_t count);
static enum ctl_exit give(const struct ctl *ctl, json_t *request);
static enum ctl_exit follow(struct pursuit *pursuit);
static bool look(struct pursuit *pursuit, enum ctl_exit *status);
static bool look_lost(struct pursuit *pursuit, const struct api_reply *reply,
                      enum ctl_exit *status);
static void rest(struct pursuit *pursuit);
static enum ctl_exit leave(struct pursuit *pursuit);
static enum ctl_exit finish(struct pursuit *pursuit);
static enum ctl_exit judge_end(const json_t *order);
static json_t *must(json_t *value);

enum ctl_exit command_shutdown(const struct ctl *ctl)
{
    const struct ctl_options *options = ctl->options;
    struct api_reply reply;

    if (!options->yes && !options->dry_run && !can_ask()) {
        say_error("there is no terminal to ask on: --yes orders it, --dry-run shows whom");
        return CTL_USAGE;
    }
    json_t *request = make_request(options);
    enum ctl_exit status = try_dry(ctl, request, &reply);

    if (status == CTL_DONE && options->dry_run) {
        if (options->json)
            field_print_line(reply.body, stdout);
        else
            print_dry(reply.body);
    } else if (status == CTL_DONE) {
        if (options->yes || confirm(options, reply.body)) {
            status = give(ctl, request);
        } else {
            say_error("nothing was ordered");
            status = CTL_FAILED;
        }
    }
    api_reply_clear(&reply);
    json_decref(request);
    return status;
}

/* The question goes to stderr, so that stdout may be a file. */
static bool can_ask(void)
{
    return isatty(STDIN_FILENO) && isatty(STDERR_FILENO);
}

static json_t *make_request(const struct ctl_options *options)
{
    json_t *request = must(json_object());
    json_t *waves = must(json_array());

    if (options->argument_count > 0) {
        json_t *first = must(json_array());

        for (size_t i = 0; i < options->argument_count; i++)
            add_list(first, options->arguments[i]);
        json_array_append_new(waves, first);
    }
    for (size_t i = 0; i < options->wave_count; i++) {
        json_t *wave = must(json_array());

        add_list(wave, options->waves[i]);
        json_array_append_new(waves, wave);
    }
    if (options->all)
        json_array_append_new(waves, must(json_pack("[s]", "*")));
    json_object_set_new(request, "waves", waves);
    if (options->grace)
        json_object_set_new(request, "grace", must(json_string(options->grace)));
    if (options->hold || options->all)
        json_object_set_new(request, "hold",
                            must(json_string(options->hold ? options->hold : HOLD_OF_ALL)));
    return request;
}

/* With commas between them: no ID has one. */
static void add_list(json_t *wave, const char *list)
{
    while (*list) {
        const size_t len = strcspn(list, ",");

        json_array_append_new(wave, must(json_stringn(list, len)));
        list += len + (list[len] == ',');
    }
}

static enum ctl_exit try_dry(const struct ctl *ctl, json_t *request, struct api_reply *reply)
{
    json_object_set_new(request, "dry_run", must(json_true()));
    const enum api_result result = api_call(ctl->api, "POST", "/v1/shutdown", request, reply);
    json_object_del(request, "dry_run");

    if (result != API_DONE)
        return api_complain(reply);
    return judge_dry(ctl, reply->body);
}

static enum ctl_exit judge_dry(const struct ctl *ctl, const json_t *plan)
{
    if (field_count(plan, "count") > 0) {
        warn_of_idle_patterns(plan);
        return CTL_DONE;
    }
    /* Whoever asks for a hold waits for some to come; and whoever wants everybody told, for those
     * that a server has just lost. */
    if (ctl->options->hold_ms > 0 ||
        (ctl->options->all && !ctl->options->hold && knows_anybody(ctl))) {
        say_error("nobody who matches is connected now; who comes within %s %s told",
                  hold_of(ctl->options), ctl->options->dry_run ? "would be" : "will be");
        return CTL_DONE;
    }
    if (ctl->options->json && ctl->options->dry_run)
        field_print_line(plan, stdout);
    say_error("no client that matches is connected");
    return CTL_NOBODY;
}

/* Has the server any client at all, if not now? */
static bool knows_anybody(const struct ctl *ctl)
{
    struct api_reply reply;
    const bool knows = api_call(ctl->api, "GET", "/v1/clients?limit=1", NULL, &reply) == API_DONE &&
                       json_array_size(json_object_get(reply.body, "clients")) > 0;

    api_reply_clear(&reply);
    return knows;
}

/* One pattern of many that matches nobody is easily overlooked, and easily mistyped. */
static void warn_of_idle_patterns(const json_t *plan)
{
    const json_t *wave;
    const json_t *pattern;
    size_t i;
    size_t j;

    json_array_foreach (json_object_get(plan, "waves"), i, wave) {
        json_array_foreach (json_object_get(wave, "match"), j, pattern) {
            const char *text = json_string_value(pattern);

            if (text && !matches_anybody(text, plan))
                say_error("nobody who is connected matches '%s'", text);
        }
    }
}

/* In any wave: a client belongs to the first that matches it. */
static bool matches_anybody(const char *pattern, const json_t *plan)
{
    const json_t *wave;
    const json_t *client;
    size_t i;
    size_t j;

    json_array_foreach (json_object_get(plan, "waves"), i, wave) {
        json_array_foreach (json_object_get(wave, "clients"), j, client) {
            const char *id = json_string_value(client);

            if (id && fnmatch(pattern, id, 0) == 0)
                return true;
        }
    }
    return false;
}

static void print_dry(const json_t *plan)
{
    char text[ORDER_TEXT_BYTES];
    const json_t *wave;
    const json_t *client;
    size_t i;
    size_t j;

    json_array_foreach (json_object_get(plan, "waves"), i, wave) {
        char *match = order_patterns(wave);

        printf("wave %zu, %s: %s\n", i + 1, match, order_clients(field_count(wave, "count"), text));
        free(match);
        json_array_foreach (json_object_get(wave, "clients"), j, client) {
            say_out("  %s\n", json_string_value(client) ? json_string_value(client) : "?");
        }
    }
    printf("%s would be told to shut down; nothing was ordered\n",
           order_clients(field_count(plan, "count"), text));
}

static bool confirm(const struct ctl_options *options, const json_t *plan)
{
    const uint64_t count = field_count(plan, "count");
    const char *hold = hold_of(options);
    char text[ORDER_TEXT_BYTES];
    const json_t *wave;
    size_t i;

    json_array_foreach (json_object_get(plan, "waves"), i, wave) {
        show_wave(i + 1, wave);
    }
    if (hold)
        fprintf(stderr, "Who connects within %s and matches is told as well.\n", hold);
    fprintf(stderr, "type %" PRIu64 " to shut %s down: ", count, order_clients(count, text));
    fflush(stderr);
    return read_count(count);
}

/* "wave 1, web-*: 12 clients: web-1, web-2 ..." in one line of the terminal. */
static void show_wave(size_t number, const json_t *wave)
{
    const size_t width = terminal_size(STDERR_FILENO).columns - 1;
    const json_t *clients = json_object_get(wave, "clients");
    const size_t count = json_array_size(clients);
    char *match = order_patterns(wave);
    char text[ORDER_TEXT_BYTES];
    char *line = say_format("wave %zu, %.*s%s: %s", number, (int)(width / 3), match,
                            strlen(match) > width / 3 ? "..." : "", order_clients(count, text));

    fputs(line, stderr);
    size_t column = strlen(line);
    for (size_t i = 0; i < count; i++) {
        char *id = say_printable(say_format("%s%s", i == 0 ? ": " : ", ",
                                            json_string_value(json_array_get(clients, i))));
        const bool last = i + 1 == count;

        column += strlen(id);
        if (column + (last ? 0 : strlen(", ...")) > width) {
            fputs(i == 0 ? "" : ", ...", stderr);
            i = count;
        } else {
            fputs(id, stderr);
        }
        free(id);
    }
    fputc('\n', stderr);
    free(match);
    free(line);
}

/* How long late comers are told, or NULL if they are not. */
static const char *hold_of(const struct ctl_options *options)
{
    if (options->hold)
        return options->hold_ms > 0 ? options->hold : NULL;
    return options->all ? HOLD_OF_ALL : NULL;
}

static bool read_count(uint64_t count)
{
    char wanted[TEXT_BYTES];
    char *line = NULL;
    size_t room = 0;
    const ssize_t len = getline(&line, &room, stdin);

    snprintf(wanted, sizeof(wanted), "%" PRIu64, count);
    if (len <= 0)
        fputc('\n', stderr);
    const char *typed = len > 0 ? line + strspn(line, " \t") : "";
    const size_t typed_len = strcspn(typed, " \t\r\n");
    const bool same = typed_len == strlen(wanted) && strncmp(typed, wanted, typed_len) == 0 &&
                      typed[typed_len + strspn(typed + typed_len, " \t\r\n")] == '\0';
    free(line);
    return same;
}

static enum ctl_exit give(const struct ctl *ctl, json_t *request)
{
    struct pursuit pursuit = {.ctl = ctl, .pause_ms = POLL_MS};
    enum order_progress_mode mode = ORDER_PROGRESS_LINES;
    struct api_reply reply;

    if (terminal_rewrites(STDERR_FILENO))
        mode = ORDER_PROGRESS_LIVE;
    else if (ctl->options->json)
        mode = ORDER_PROGRESS_SILENT;
    /* From here on leaving is not undoing, and has to be said. */
    interrupt_catch();
    if (api_call(ctl->api, "POST", "/v1/shutdown", request, &reply) != API_DONE) {
        const enum ctl_exit status = api_complain(&reply);

        if (reply.maybe_taken)
            say_error("the order may have been given all the same: '" PROGRAM
                      " shutdown-status' tells");
        api_reply_clear(&reply);
        return status;
    }
    pursuit.order = reply.body;
    if (!field_true(pursuit.order, "durable"))
        say_error("warning: the order is not in the server's database; it goes on, but a restart "
                  "of the server would forget it");
    order_progress_init(&pursuit.progress, mode);
    const enum ctl_exit status = follow(&pursuit);
    json_decref(pursuit.order);
    return status;
}

static enum ctl_exit follow(struct pursuit *pursuit)
{
    enum ctl_exit status = CTL_DONE;

    order_progress_show(&pursuit->progress, pursuit->order);
    while (!order_is_over(pursuit->order)) {
        rest(pursuit);
        if (interrupt_seen())
            return leave(pursuit);
        if (!look(pursuit, &status)) {
            order_progress_hide(&pursuit->progress);
            return status;
        }
        if (pursuit->lost_us == 0)
            order_progress_show(&pursuit->progress, pursuit->order);
    }
    return finish(pursuit);
}

/* Asks for the order again. Returns false when there is nothing more to see. */
static bool look(struct pursuit *pursuit, enum ctl_exit *status)
{
    const int64_t id = field_int(pursuit->order, "id");
    struct api_reply reply;
    bool go_on = true;

    switch (api_call(pursuit->ctl->api, "GET", "/v1/shutdown", NULL, &reply)) {
    case API_INTERRUPTED:
        break;
    case API_REFUSED:
    case API_UNREACHABLE:
        go_on = look_lost(pursuit, &reply, status);
        break;
    case API_DONE:
        if (pursuit->lost_us > 0)
            say_error("the server is back");
        pursuit->lost_us = 0;
        pursuit->pause_ms = POLL_MS;
        /* An order that was forgotten leaves its number to the next one. */
        if (field_int(reply.body, "id") == id &&
            field_int(reply.body, "created") == field_int(pursuit->order, "created")) {
            json_decref(pursuit->order);
            pursuit->order = json_incref(reply.body);
            break;
        }
        order_progress_hide(&pursuit->progress);
        say_error("the server no longer has order %" PRId64 ": %s; 'shutdown-status' shows more",
                  id,
                  order_has_state(reply.body, "none") ? "it was forgotten"
                                                      : "another one has been given");
        *status = CTL_FAILED;
        go_on = false;
    }
    api_reply_clear(&reply);
    return go_on;
}

/* The order survives a restart of the server, so that is waited for. A refusal is another matter,
 * unless the server has troubles of its own. */
static bool look_lost(struct pursuit *pursuit, const struct api_reply *reply, enum ctl_exit *status)
{
    const uint64_t now_us = clock_monotonic_us();

    if (reply->result == API_REFUSED && reply->status < 500) {
        order_progress_hide(&pursuit->progress);
        *status = api_complain(reply);
        return false;
    }
    if (pursuit->lost_us == 0) {
        pursuit->lost_us = now_us;
        order_progress_hide(&pursuit->progress);
        say_error("%s", reply->message);
        say_error("the order survives a restart of the server; trying again for two minutes");
    } else if (now_us - pursuit->lost_us > GIVE_UP_US) {
        say_error("gave up; 'shutdown-status' tells how the order went, once the server is back");
        *status = CTL_FAILED;
        return false;
    }
    pursuit->pause_ms *= 2;
    if (pursuit->pause_ms > LONGEST_PAUSE_MS)
        pursuit->pause_ms = LONGEST_PAUSE_MS;
    return true;
}

/* A turn may end early, for instance when the server closes an idle connection. */
static void rest(struct pursuit *pursuit)
{
    const uint64_t end_us = clock_monotonic_us() + (uint64_t)pursuit->pause_ms * CLOCK_US_PER_MS;

    for (;;) {
        const uint64_t now_us = clock_monotonic_us();

        if (now_us >= end_us || interrupt_seen())
            return;
        api_turn(pursuit->ctl->api, (int)((end_us - now_us) / CLOCK_US_PER_MS) + 1);
    }
}

static enum ctl_exit leave(struct pursuit *pursuit)
{
    order_progress_hide(&pursuit->progress);
    say_error("the order goes on; '" PROGRAM " shutdown-cancel' ends it");
    return CTL_FAILED;
}

/* With JSON the end is one object: the order, and who is still up. */
static enum ctl_exit finish(struct pursuit *pursuit)
{
    const struct order_page page = order_page_stdout();
    const bool json = pursuit->ctl->options->json;
    const bool up = field_count(json_object_get(pursuit->order, "totals"), "still_up") > 0;
    json_t *ids = up ? order_ask_still_up(pursuit->ctl->api) : must(json_array());

    order_progress_hide(&pursuit->progress);
    if (json) {
        json_object_set(pursuit->order, "still_up_clients", ids ? ids : json_null());
        field_print_line(pursuit->order, stdout);
    } else {
        order_print(pursuit->order, &page);
        order_print_still_up(ids, !isatty(STDOUT_FILENO));
    }
    fflush(stdout);
    json_decref(ids);
    return judge_end(pursuit->order);
}

static enum ctl_exit judge_end(const json_t *order)
{
    if (order_has_state(order, "cancelled"))
        say_error("the order was cancelled");
    else if (order_has_state(order, "expired"))
        say_error("the order has expired: the server was away for too long; give a new one if it "
                  "still makes sense");
    else
        return order_exit(order);
    return CTL_FAILED;
}

static json_t *must(json_t *value)
{
    if (!value)
        say_no_memory();
    return value;
}
