/* The commands about the server itself: status and reload. */
#include "commands.h"

#include "api.h"
#include "base/clock.h"
#include "fields.h"
#include "options.h"
#include "since.h"
#include "terminal.h"
#include "text.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#define RED   "\033[31m"
#define PLAIN "\033[0m"

static void print_status(const json_t *status);
static void print_label(const char *label);
static void print_health(bool good, const char *yes, const char *no);
static void print_reload(const json_t *answer);

enum ctl_exit command_status(const struct ctl *ctl)
{
    struct api_reply reply;
    enum ctl_exit status = CTL_DONE;

    if (api_call(ctl->api, "GET", "/v1/status", NULL, &reply) != API_DONE)
        status = api_complain(&reply);
    else if (ctl->options->json)
        field_print_line(reply.body, stdout);
    else
        print_status(reply.body);
    api_reply_clear(&reply);
    return status;
}

enum ctl_exit command_reload(const struct ctl *ctl)
{
    struct api_reply reply;
    enum ctl_exit status = CTL_DONE;
    const json_t *error;
    size_t i;

    if (api_call(ctl->api, "POST", "/v1/reload", NULL, &reply) != API_DONE) {
        status = api_complain(&reply);
        json_array_foreach (json_object_get(reply.body, "errors"), i, error) {
            /* The first has been said. */
            if (!json_equal(error, json_object_get(reply.body, "error")))
                say_more("  %s", json_string_value(error) ? json_string_value(error) : "?");
        }
    } else if (ctl->options->json) {
        field_print_line(reply.body, stdout);
    } else {
        print_reload(reply.body);
    }
    api_reply_clear(&reply);
    return status;
}

static void print_status(const json_t *status)
{
    const json_t *store = json_object_get(status, "store");
    const json_t *keepalive = json_object_get(status, "keepalive");
    const uint64_t shut_out = field_count(status, "penalised_sources");
    char n[2][TEXT_BYTES];
    char up[SINCE_BYTES];

    print_label("server");
    say_out("%s, cliserd %s, up %s\n", field_text(status, "node"), field_text(status, "version"),
            since_span(field_count(status, "uptime_s"), up));
    print_label("ready");
    print_health(field_true(status, "ready"), "yes", "no, clients cannot be registered");
    print_label("connected");
    say_out("%s of %s registered", text_count(field_count(status, "connected"), n[0]),
            text_count(field_count(status, "registered"), n[1]));
    say_out(", %s on their way\n", text_count(field_count(status, "pending"), n[0]));
    print_label("at most");
    say_out("%s\n", text_count(field_count(status, "max_clients"), n[0]));
    if (shut_out > 0) {
        print_label("shut out");
        say_out("%s %s, for wrong passwords\n", text_count(shut_out, n[0]),
                shut_out == 1 ? "address" : "addresses");
    }
    print_label("registry");
    say_out("%s, ", field_text(store, "kind"));
    print_health(field_true(store, "healthy"), "healthy", "failing");
    print_label("keep-alive");
    say_out("every %gs, %" PRIu64 " may be missed; who is dead is noticed within %gs\n",
            json_number_value(json_object_get(keepalive, "interval_s")),
            field_count(keepalive, "misses"),
            json_number_value(json_object_get(keepalive, "dead_client_max_s")));
    print_label("shutdown");
    say_out("%s\n", field_text(status, "shutdown"));
}

static void print_label(const char *label)
{
    say_out("%-12s", label);
}

static void print_health(bool good, const char *yes, const char *no)
{
    const bool red = !good && terminal_colours(STDOUT_FILENO);

    printf("%s%s%s\n", red ? RED : "", good ? yes : no, red ? PLAIN : "");
}

static void print_reload(const json_t *answer)
{
    const json_t *keys = json_object_get(answer, "restart_needed");
    const json_t *key;
    size_t i;

    say_out("reloaded\n");
    json_array_foreach (keys, i, key) {
        say_out("%s%s", i == 0 ? "changed, and waits for a restart: " : ", ",
                json_string_value(key) ? json_string_value(key) : "?");
    }
    if (json_array_size(keys) > 0)
        say_out("\n");
}
