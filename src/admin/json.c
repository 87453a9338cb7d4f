/* Puts records, the status and orders into JSON. Decides nothing. */
#include "admin/json.h"

#include "base/text.h"
#include "base/units.h"
#include "registry/credential_name.h"
#include "registry/registry.h"
#include "store/store.h"

#include <string.h>

/* Of the globs of a wave: somebody who has named ten thousand IDs asks for the order every now and
 * then, and knows them. */
#define MATCH_SHOWN 100

static int add_chunk(const char *chunk, size_t len, void *user);
static json_t *json_of_wave(const struct order_wave_progress *wave);
static int set_numbers(json_t *object, const struct order_numbers *numbers);
static void add_numbers(struct order_numbers *total, const struct order_numbers *more);
static json_t *json_of_time(int64_t seconds);
static json_t *json_of_duration(uint64_t ms);
static json_t *json_of_rtt(uint32_t rtt_us);

json_t *json_of_record(const struct admin *admin, const struct registry_record *record)
{
    char ip[ADDRESS_TEXT_BYTES];

    return json_pack("{s:I, s:s, s:s, s:i, s:b, s:I, s:I, s:o, s:s, s:s, s:s}", "sid",
                     (json_int_t)record->sid, "cid", record->cid, "cip",
                     peer_address_format(&record->peer, ip), "cport", record->peer.port, "cstatus",
                     record->connected, "since", (json_int_t)record->since, "last_seen",
                     (json_int_t)record->last_seen, "rtt_ms", json_of_rtt(record->rtt_us), "reason",
                     reason_word(record->reason), "node", admin->node, "credential",
                     credential_name(record->credential));
}

json_t *json_of_status(const struct admin *admin, struct moment now)
{
    const struct sessions_options *options = sessions_options(admin->sessions);
    struct order_progress order;

    orders_progress(sessions_orders(admin->sessions), &order);
    return json_pack(
        "{s:s, s:s, s:I, s:b, s:I, s:I, s:I, s:I, s:I, s:{s:s, s:b}, s:{s:f, s:I, s:f}, s:s}",
        "version", CLISER_VERSION, "node", admin->node, "uptime_s",
        (json_int_t)((now.mono_us - admin->started_us) / CLOCK_US_PER_SEC), "ready",
        admin_not_ready(admin) == NULL, "connected",
        (json_int_t)sessions_connected(admin->sessions), "registered",
        (json_int_t)registry_count(admin->registry), "pending",
        (json_int_t)sessions_pending(admin->sessions), "max_clients",
        (json_int_t)admin_max_clients(admin), "penalised_sources",
        (json_int_t)sessions_penalised_sources(admin->sessions), "store", "kind", admin->store_kind,
        "healthy", store_healthy(admin->store), "keepalive", "interval_s",
        (double)options->interval_ms / 1000, "misses", (json_int_t)options->misses,
        "dead_client_max_s", (double)sessions_dead_client_max_ms(options) / 1000, "shutdown",
        order_state_words[order.state]);
}

json_t *json_of_order(const struct admin *admin)
{
    const struct orders *orders = sessions_orders(admin->sessions);
    struct order_progress order;
    struct order_numbers totals = {.targets = 0};
    json_t *waves = json_array();
    json_t *sums = json_object();
    int result = 0;

    orders_progress(orders, &order);
    if (order.state == ORDER_NONE) {
        json_decref(waves);
        json_decref(sums);
        return json_pack("{s:s}", "state", order_state_words[order.state]);
    }
    for (unsigned i = 0; i < order.waves; i++) {
        struct order_wave_progress wave;

        orders_wave_progress(orders, i, &wave);
        add_numbers(&totals, &wave.numbers);
        result |= json_array_append_new(waves, json_of_wave(&wave));
    }
    if (result != 0 || set_numbers(sums, &totals) != 0) {
        json_decref(waves);
        json_decref(sums);
        return NULL;
    }
    return json_pack(
        "{s:I, s:s, s:s, s:I, s:o, s:b, s:o, s:o, s:o, s:i, s:o, s:o}", "id", (json_int_t)order.id,
        "state", order_state_words[order.state], "by", order.by, "created",
        (json_int_t)order.created, "ended", json_of_time(order.ended), "durable", order.durable,
        "grace", json_of_duration(order.grace_ms), "hold", json_of_duration(order.hold_ms),
        "hold_until",
        json_of_time(order.hold_ms > 0 ? order.created + (int64_t)order.hold_ms / 1000 : 0), "wave",
        (int)order.wave, "waves", waves, "totals", sums);
}

json_t *json_of_match(const char *match)
{
    json_t *array = json_array();

    for (int i = 0; array && *match && i < MATCH_SHOWN; i++) {
        const size_t len = strcspn(match, ",");

        if (json_array_append_new(array, json_stringn(match, len)) != 0) {
            json_decref(array);
            return NULL;
        }
        match += len + (match[len] == ',');
    }
    return array;
}

char *json_text(const json_t *json, size_t *len)
{
    struct text text = {.bytes = NULL};

    if (json_dump_callback(json, add_chunk, &text, JSON_STYLE) != 0)
        text.failed = true;
    return text_take(&text, len);
}

static int add_chunk(const char *chunk, size_t len, void *user)
{
    struct text *text = user;

    text_add_bytes(text, chunk, len);
    return text->failed ? -1 : 0;
}

/* In most places jansson just gives up then, without a word. */
bool json_lacked_memory(const json_error_t *error)
{
    return error->text[0] == '\0' || json_error_code(error) == json_error_out_of_memory;
}

static json_t *json_of_wave(const struct order_wave_progress *wave)
{
    json_t *object = json_pack("{s:o, s:s, s:o, s:o}", "match", json_of_match(wave->match), "state",
                               order_wave_state_words[wave->state], "started",
                               json_of_time(wave->started), "ended", json_of_time(wave->ended));

    if (object && set_numbers(object, &wave->numbers) != 0) {
        json_decref(object);
        return NULL;
    }
    return object;
}

static int set_numbers(json_t *object, const struct order_numbers *numbers)
{
    const struct {
        const char *name;
        size_t number;
    } rows[] = {
        {"targets", numbers->targets},
        {"pending", numbers->pending},
        {"told", numbers->told},
        {"acknowledged", numbers->acknowledged},
        {"gone", numbers->gone},
        {"still_up", numbers->still_up},
        {"not_connected", numbers->not_connected},
        {"late", numbers->late},
    };
    int result = 0;

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        result |=
            json_object_set_new(object, rows[i].name, json_integer((json_int_t)rows[i].number));
    return result;
}

static void add_numbers(struct order_numbers *total, const struct order_numbers *more)
{
    total->targets += more->targets;
    total->pending += more->pending;
    total->told += more->told;
    total->acknowledged += more->acknowledged;
    total->gone += more->gone;
    total->still_up += more->still_up;
    total->not_connected += more->not_connected;
    total->late += more->late;
}

static json_t *json_of_time(int64_t seconds)
{
    return seconds != 0 ? json_integer(seconds) : json_null();
}

static json_t *json_of_duration(uint64_t ms)
{
    char text[UNITS_TEXT_BYTES];

    return json_string(units_format_duration(ms, text));
}

static json_t *json_of_rtt(uint32_t rtt_us)
{
    return rtt_us != 0 ? json_real(rtt_us / 1000.0) : json_null();
}
