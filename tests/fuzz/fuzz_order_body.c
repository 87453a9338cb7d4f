/*
 * The body of POST /v1/shutdown. What is accepted, written down again, is accepted again and says
 * the same; it has waves, each of good patterns, and times within their bounds. What is refused
 * says why, in one line.
 */
#include "admin/order_body.h"
#include "base/units.h"
#include "registry/glob.h"

#include "fuzz.h"

#include <jansson.h>

static void check_accepted(const struct order_request *order, bool dry_run);
static json_t *globs_of(const char *match);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct order_request order;
    char message[512] = "";
    bool dry_run = false;

    if (size > 16384)
        return -1;
    char *body = size > 0 ? fuzz_copy(data, size) : NULL;
    if (order_body_read(body, size, &order, &dry_run, message, sizeof(message)) == 0) {
        check_accepted(&order, dry_run);
        order_waves_clear(&order.waves);
    } else {
        fuzz_require(message[0] != '\0' && order.waves.count == 0);
    }
    free(body);
    return 0;
}

static void check_accepted(const struct order_request *order, bool dry_run)
{
    json_t *waves = json_array();
    char grace[UNITS_TEXT_BYTES];
    char hold[UNITS_TEXT_BYTES];
    struct order_request again;
    char message[512];
    bool dry_run_again = false;

    fuzz_require(order->waves.count >= 1 && order->waves.count <= ORDER_MAX_WAVES);
    fuzz_require(order->grace_ms <= ORDER_MAX_GRACE_MS && order->hold_ms <= ORDER_MAX_HOLD_MS);
    for (size_t i = 0; i < order->waves.count; i++)
        json_array_append_new(waves, globs_of(order->waves.match[i]));
    json_t *object = json_pack("{s:o, s:s, s:s, s:b}", "waves", waves, "grace",
                               units_format_duration(order->grace_ms, grace), "hold",
                               units_format_duration(order->hold_ms, hold), "dry_run", dry_run);
    char *text = json_dumps(object, JSON_COMPACT);
    fuzz_require(text);

    fuzz_require(
        order_body_read(text, strlen(text), &again, &dry_run_again, message, sizeof(message)) == 0);
    fuzz_require(again.waves.count == order->waves.count && dry_run_again == dry_run);
    fuzz_require(again.grace_ms == order->grace_ms && again.hold_ms == order->hold_ms);
    for (size_t i = 0; i < order->waves.count; i++)
        fuzz_require(strcmp(again.waves.match[i], order->waves.match[i]) == 0);
    order_waves_clear(&again.waves);
    free(text);
    json_decref(object);
}

static json_t *globs_of(const char *match)
{
    json_t *globs = json_array();
    char *copy = strdup(match);
    char *rest = copy;
    char *glob = NULL;
    char message[256];

    while ((glob = strsep(&rest, ",")) != NULL) {
        fuzz_require(glob_check(glob, message, sizeof(message)) == 0);
        json_array_append_new(globs, json_string(glob));
    }
    free(copy);
    return globs;
}
