/* The commands about clients: list, show, ping, disconnect, forget. */
#include "commands.h"

#include "api.h"
#include "base/clock.h"
#include "cliser/proto.h"
#include "fields.h"
#include "options.h"
#include "since.h"
#include "suggest.h"
#include "table.h"
#include "terminal.h"
#include "text.h"
#include "uri.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PAGE 1000 /* the most that the server gives at once */

#define DIM  "\033[2m"

/* clang-format off */
static const struct table_column columns[] = {
    {.title = "CID",     .least = 16, .most = PROTO_MAX_ID_BYTES},
    {.title = "STATE",   .room = 12},
    {.title = "SINCE",   .room = 3},
    {.title = "RTT ms",  .right = true, .room = 6},
    {.title = "ADDRESS", .least = 15, .room = 9},
    {.title = "REASON",  .room = 9},
};
/* clang-format on */

#define COLUMN_COUNT (sizeof(columns) / sizeof(columns[0]))

/* A list on its way from page to page. */
struct listing {
    const struct ctl *ctl;
    struct table *table; /* NULL: JSON */
    char *query;         /* with everything but "after" */
    char *after;         /* escaped; NULL for the first page */
    uint64_t count;
};

static char *list_query(const struct ctl_options *options);
static enum ctl_exit list_page(struct listing *listing);
static void list_record(struct listing *listing, const json_t *record);
static void list_nobody(const struct ctl *ctl);
static void print_client(const struct ctl *ctl, const json_t *record);
static void print_ping(const struct ctl *ctl, const json_t *answer);
static void print_disconnected(const struct ctl *ctl, const json_t *answer);
static void print_forgotten(const struct ctl *ctl, const json_t *answer);
static enum ctl_exit ask_about(const struct ctl *ctl, const char *method, const char *what,
                               void (*print)(const struct ctl *, const json_t *));
static const char *rtt_text(const json_t *object, char *buf);

enum ctl_exit command_list(const struct ctl *ctl)
{
    const bool terminal = isatty(STDOUT_FILENO);
    struct listing listing = {.ctl = ctl, .query = list_query(ctl->options)};
    enum ctl_exit status = CTL_DONE;

    if (!ctl->options->json)
        listing.table =
            table_new(columns, COLUMN_COUNT, terminal ? terminal_size(STDOUT_FILENO).columns : 0,
                      terminal_colours(STDOUT_FILENO));
    do {
        status = list_page(&listing);
        /* Nobody reads on: a million more clients are not worth asking for. */
        if (status == CTL_DONE && !say_flush())
            status = CTL_FAILED;
    } while (status == CTL_DONE && listing.after);

    if (status == CTL_DONE && listing.count == 0) {
        list_nobody(ctl);
        status = CTL_NOBODY;
    }
    table_free(listing.table);
    free(listing.query);
    free(listing.after);
    return status;
}

enum ctl_exit command_show(const struct ctl *ctl)
{
    return ask_about(ctl, "GET", "", print_client);
}

enum ctl_exit command_ping(const struct ctl *ctl)
{
    return ask_about(ctl, "POST", "/ping", print_ping);
}

enum ctl_exit command_disconnect(const struct ctl *ctl)
{
    return ask_about(ctl, "POST", "/disconnect", print_disconnected);
}

enum ctl_exit command_forget(const struct ctl *ctl)
{
    return ask_about(ctl, "DELETE", "", print_forgotten);
}

static char *list_query(const struct ctl_options *options)
{
    char *match = uri_escape(options->argument_count > 0 ? options->arguments[0] : "");
    const char *status = "";

    if (options->connected)
        status = "&status=connected";
    else if (options->disconnected)
        status = "&status=disconnected";
    char *query =
        say_format("/v1/clients?limit=%d%s%s%s", PAGE, status, match[0] ? "&match=" : "", match);
    free(match);
    return query;
}

static enum ctl_exit list_page(struct listing *listing)
{
    struct api_reply reply;
    char *path = say_format("%s%s%s", listing->query, listing->after ? "&after=" : "",
                            listing->after ? listing->after : "");
    enum ctl_exit status = CTL_DONE;
    const json_t *record;
    size_t i;

    free(listing->after);
    listing->after = NULL;
    if (api_call(listing->ctl->api, "GET", path, NULL, &reply) == API_DONE) {
        json_array_foreach (json_object_get(reply.body, "clients"), i, record) {
            list_record(listing, record);
        }
        if (field_given(reply.body, "next"))
            listing->after = uri_escape(field_text(reply.body, "next"));
        if (listing->table && listing->count > 0)
            table_print(listing->table, listing->after != NULL, stdout);
    } else {
        status = api_complain(&reply);
    }
    api_reply_clear(&reply);
    free(path);
    return status;
}

static void list_record(struct listing *listing, const json_t *record)
{
    const bool connected = field_true(record, "cstatus");
    char since[SINCE_BYTES];
    char rtt[TEXT_BYTES];

    listing->count++;
    if (!listing->table) {
        field_print_line(record, stdout);
        return;
    }
    const char *const cells[COLUMN_COUNT] = {
        field_text(record, "cid"),
        connected ? "connected" : "disconnected",
        since_age(field_int(record, "since"), clock_wall_ms() / 1000, since),
        rtt_text(record, rtt),
        field_text(record, "cip"),
        /* Of a client that is there it would only say what is past. */
        connected ? "" : field_text(record, "reason"),
    };
    table_add(listing->table, cells, connected ? NULL : DIM);
}

static void list_nobody(const struct ctl *ctl)
{
    const struct ctl_options *options = ctl->options;
    const char *glob = options->argument_count > 0 ? options->arguments[0] : NULL;
    const char *which = "";

    if (options->connected)
        which = " that is connected";
    else if (options->disconnected)
        which = " that is disconnected";
    if (glob && which[0] == '\0' && !strpbrk(glob, "*?[\\"))
        suggest_ids(ctl->api, glob);
    else if (glob)
        say_error("no client%s matches '%s'", which, glob);
    else
        say_error("there is no client%s", which);
}

/* Sends a request about the one client that is named. 404 can only mean that there is no such one.
 */
static enum ctl_exit ask_about(const struct ctl *ctl, const char *method, const char *what,
                               void (*print)(const struct ctl *, const json_t *))
{
    const char *id = ctl->options->arguments[0];
    char *escaped = uri_escape(id);
    char *path = say_format("/v1/clients/%s%s", escaped, what);
    struct api_reply reply;
    enum ctl_exit status = CTL_DONE;

    if (api_call(ctl->api, method, path, NULL, &reply) == API_DONE) {
        if (ctl->options->json)
            field_print_line(reply.body, stdout);
        else
            print(ctl, reply.body);
    } else if (reply.status == 404) {
        suggest_ids(ctl->api, id);
        status = CTL_NOBODY;
    } else {
        status = api_complain(&reply);
    }
    api_reply_clear(&reply);
    free(path);
    free(escaped);
    return status;
}

static void print_client(const struct ctl *ctl, const json_t *record)
{
    const int64_t now = clock_wall_ms() / 1000;
    const int64_t since = field_int(record, "since");
    const int64_t seen = field_int(record, "last_seen");
    const bool connected = field_true(record, "cstatus");
    char text[2][SINCE_BYTES];
    char rtt[TEXT_BYTES];

    (void)ctl;
    say_out("cid         %s\n", field_text(record, "cid"));
    say_out("sid         %" PRId64 "\n", field_int(record, "sid"));
    say_out("state       %s for %s, since %s\n", connected ? "connected" : "disconnected",
            since_span(since < now ? (uint64_t)(now - since) : 0, text[0]),
            since_date(since, text[1]));
    say_out("address     %s port %" PRId64 "\n", field_text(record, "cip"),
            field_int(record, "cport"));
    say_out("last heard  %s ago, %s\n",
            since_span(seen < now ? (uint64_t)(now - seen) : 0, text[0]),
            since_date(seen, text[1]));
    if (field_given(record, "rtt_ms"))
        say_out("round trip  %s ms\n", rtt_text(record, rtt));
    if (field_text(record, "reason")[0] != '\0')
        say_out("%s  %s\n", connected ? "left before" : "reason    ", field_text(record, "reason"));
    if (field_text(record, "credential")[0] != '\0')
        say_out("credential  %s\n", field_text(record, "credential"));
    say_out("node        %s\n", field_text(record, "node"));
}

static void print_ping(const struct ctl *ctl, const json_t *answer)
{
    char rtt[TEXT_BYTES];

    printf("%s: %s ms\n", ctl->options->arguments[0], rtt_text(answer, rtt));
}

static void print_disconnected(const struct ctl *ctl, const json_t *answer)
{
    (void)answer;
    printf("disconnected %s\n", ctl->options->arguments[0]);
}

static void print_forgotten(const struct ctl *ctl, const json_t *answer)
{
    (void)answer;
    printf("forgot %s\n", ctl->options->arguments[0]);
}

static const char *rtt_text(const json_t *object, char *buf)
{
    const double ms = json_number_value(json_object_get(object, "rtt_ms"));

    if (!field_given(object, "rtt_ms") || !(ms >= 0 && ms < 1e12)) {
        buf[0] = '\0';
        return buf;
    }
    return text_ms((uint64_t)(ms * 1000 + 0.5), buf);
}
