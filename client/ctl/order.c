/* Shows orders, and has the two commands that need nothing more: shutdown-status and
 * shutdown-cancel. */
#include "order.h"

#include "api.h"
#include "base/clock.h"
#include "commands.h"
#include "fields.h"
#include "options.h"
#include "since.h"
#include "table.h"
#include "terminal.h"
#include "text.h"
#include "uri.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PAGE          1000 /* the most that the server gives at once */
#define SHOWN_AT_MOST 50   /* of those still up, on a terminal */

#define RED           "\033[31m"
#define DIM           "\033[2m"

/* clang-format off */
static const struct table_column columns[] = {
    {.title = "WAVE",     .right = true},
    {.title = "MATCH",    .least = 8},
    {.title = "STATE",    .room = 9},
    {.title = "TOLD",     .right = true},
    {.title = "ACKED",    .right = true},
    {.title = "GONE",     .right = true},
    {.title = "STILL UP", .right = true},
    {.title = "PENDING",  .right = true},
    {.title = "ABSENT",   .right = true},
};
/* clang-format on */

#define COLUMN_COUNT (sizeof(columns) / sizeof(columns[0]))

static void add_row(struct table *table, const char *number, const char *match, const char *state,
                    const json_t *numbers);
static const char *row_colour(const char *state, const json_t *numbers);
static enum ctl_exit print_with_still_up(struct api *api, const json_t *order);
static int take_page(struct api *api, json_t *ids, char **after);
static void check(int result);

bool order_is_over(const json_t *order)
{
    return !order_has_state(order, "running") && !order_has_state(order, "none");
}

bool order_has_state(const json_t *order, const char *state)
{
    return strcmp(field_text(order, "state"), state) == 0;
}

const char *order_clients(uint64_t count, char *buf)
{
    char n[TEXT_BYTES];

    snprintf(buf, ORDER_TEXT_BYTES, "%s client%s", text_count(count, n), count == 1 ? "" : "s");
    return buf;
}

char *order_patterns(const json_t *wave)
{
    char *joined = say_format("%s", "");
    const json_t *pattern;
    size_t i;

    json_array_foreach (json_object_get(wave, "match"), i, pattern) {
        const char *text = json_string_value(pattern);
        char *longer = say_format("%s%s%s", joined, i == 0 ? "" : ", ", text ? text : "?");

        free(joined);
        joined = longer;
    }
    return say_printable(joined);
}

struct order_page order_page_stdout(void)
{
    return (struct order_page){
        .out = stdout,
        .width = isatty(STDOUT_FILENO) ? terminal_size(STDOUT_FILENO).columns : 0,
        .colours = terminal_colours(STDOUT_FILENO),
    };
}

char *order_headline(const json_t *order)
{
    const int64_t now = clock_wall_ms() / 1000;
    const int64_t created = field_int(order, "created");
    const bool ended = field_given(order, "ended");
    const int64_t end = ended ? field_int(order, "ended") : now;
    char when[SINCE_BYTES];
    char span[SINCE_BYTES];

    return say_printable(say_format("order %" PRId64 ": %s%s%s, given at %s by %s",
                                    field_int(order, "id"), field_text(order, "state"),
                                    ended ? " after " : " for ",
                                    since_span(end > created ? (uint64_t)(end - created) : 0, span),
                                    since_clock(created, now, when), field_text(order, "by")));
}

void order_print_waves(const json_t *order, size_t first, size_t count,
                       const struct order_page *page)
{
    const json_t *waves = json_object_get(order, "waves");
    struct table *table = table_new(columns, COLUMN_COUNT, page->width, page->colours);

    for (size_t i = first; i < first + count && i < json_array_size(waves); i++) {
        const json_t *wave = json_array_get(waves, i);
        char *match = order_patterns(wave);
        char number[TEXT_BYTES];

        snprintf(number, sizeof(number), "%zu", i + 1);
        add_row(table, number, match, field_text(wave, "state"), wave);
        free(match);
    }
    if (json_array_size(waves) > 1)
        add_row(table, "all", "", "", json_object_get(order, "totals"));
    table_print(table, false, page->out);
    table_free(table);
}

void order_print(const json_t *order, const struct order_page *page)
{
    const int64_t now = clock_wall_ms() / 1000;
    char *headline = order_headline(order);
    char until[SINCE_BYTES];

    fprintf(page->out, "%s\n\n", headline);
    order_print_waves(order, 0, json_array_size(json_object_get(order, "waves")), page);
    if (order_has_state(order, "holding"))
        fprintf(page->out,
                "\nholds until %s: who connects until then is told as well;\n"
                "'cliserctl shutdown-cancel' ends that\n",
                since_clock(field_int(order, "hold_until"), now, until));
    free(headline);
}

json_t *order_ask_still_up(struct api *api)
{
    json_t *ids = json_array();
    char *after = NULL;

    if (!ids)
        say_no_memory();
    do {
        if (take_page(api, ids, &after) < 0) {
            json_decref(ids);
            free(after);
            return NULL;
        }
    } while (after);
    return ids;
}

void order_print_still_up(const json_t *ids, bool all)
{
    const size_t count = json_array_size(ids);
    char text[TEXT_BYTES];

    if (count == 0)
        return;
    printf("\nstill up:\n");
    for (size_t i = 0; i < count && (all || i < SHOWN_AT_MOST); i++)
        say_out("  %s\n", json_string_value(json_array_get(ids, i)));
    if (!all && count > SHOWN_AT_MOST)
        printf("  and %s more\n", text_count(count - SHOWN_AT_MOST, text));
}

enum ctl_exit order_exit(const json_t *order)
{
    const bool up = field_count(json_object_get(order, "totals"), "still_up") > 0;

    return order_is_over(order) && up ? CTL_STILL_UP : CTL_DONE;
}

enum ctl_exit command_shutdown_status(const struct ctl *ctl)
{
    struct api_reply reply;
    enum ctl_exit status = CTL_DONE;

    if (api_call(ctl->api, "GET", "/v1/shutdown", NULL, &reply) != API_DONE) {
        status = api_complain(&reply);
    } else if (ctl->options->json) {
        field_print_line(reply.body, stdout);
        status = order_exit(reply.body);
    } else if (order_has_state(reply.body, "none")) {
        printf("there never was a shutdown order\n");
    } else {
        status = print_with_still_up(ctl->api, reply.body);
    }
    api_reply_clear(&reply);
    return status;
}

enum ctl_exit command_shutdown_cancel(const struct ctl *ctl)
{
    struct api_reply reply;
    enum ctl_exit status = CTL_DONE;
    const json_t *totals;
    char told[TEXT_BYTES];
    char pending[TEXT_BYTES];

    if (api_call(ctl->api, "DELETE", "/v1/shutdown", NULL, &reply) != API_DONE) {
        status = api_complain(&reply);
    } else if (ctl->options->json) {
        field_print_line(reply.body, stdout);
    } else {
        totals = json_object_get(reply.body, "totals");
        printf("order %" PRId64 " is cancelled: %s were told, %s were not\n",
               field_int(reply.body, "id"), text_count(field_count(totals, "told"), told),
               text_count(field_count(totals, "pending"), pending));
    }
    /* The next server would go on shutting machines down: no success for any script. */
    if (status == CTL_DONE && !field_true(reply.body, "durable")) {
        say_error("warning: the end of the order is not in the server's database; a server that is "
                  "started again before that can be written goes on with the order");
        status = CTL_FAILED;
    }
    api_reply_clear(&reply);
    return status;
}

static void add_row(struct table *table, const char *number, const char *match, const char *state,
                    const json_t *numbers)
{
    static const char *const keys[] = {"told",     "acknowledged", "gone",
                                       "still_up", "pending",      "not_connected"};
    const char *cells[COLUMN_COUNT] = {number, match, state};
    char n[sizeof(keys) / sizeof(keys[0])][TEXT_BYTES];

    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        cells[3 + i] = text_count(field_count(numbers, keys[i]), n[i]);
    table_add(table, cells, row_colour(state, numbers));
}

static const char *row_colour(const char *state, const json_t *numbers)
{
    if (strcmp(state, "done") == 0 && field_count(numbers, "still_up") > 0)
        return RED;
    return strcmp(state, "pending") == 0 || strcmp(state, "cancelled") == 0 ? DIM : NULL;
}

static enum ctl_exit print_with_still_up(struct api *api, const json_t *order)
{
    const struct order_page page = order_page_stdout();
    const enum ctl_exit status = order_exit(order);

    order_print(order, &page);
    if (status != CTL_STILL_UP)
        return status;
    json_t *ids = order_ask_still_up(api);

    if (!ids)
        return CTL_FAILED;
    order_print_still_up(ids, !isatty(STDOUT_FILENO));
    json_decref(ids);
    return status;
}

/* *after is the escaped ID to go on behind, NULL at the beginning and behind the last page. */
static int take_page(struct api *api, json_t *ids, char **after)
{
    struct api_reply reply;
    char *path = say_format("/v1/shutdown/targets?state=still_up&limit=%d%s%s", PAGE,
                            *after ? "&after=" : "", *after ? *after : "");
    const json_t *target;
    size_t i;

    free(*after);
    *after = NULL;
    const bool done = api_call(api, "GET", path, NULL, &reply) == API_DONE;
    if (done) {
        json_array_foreach (json_object_get(reply.body, "targets"), i, target) {
            check(json_array_append_new(ids, json_string(field_text(target, "cid"))));
        }
        if (field_given(reply.body, "next"))
            *after = uri_escape(field_text(reply.body, "next"));
    } else {
        (void)api_complain(&reply);
    }
    api_reply_clear(&reply);
    free(path);
    return done ? 0 : -1;
}

static void check(int result)
{
    if (result != 0)
        say_no_memory();
}
