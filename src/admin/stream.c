/*
 * One walk over the clients in the order of their IDs serves all three: they differ in who is shown
 * and how. For a list in another order a walk by sid picks the page (sorted.h) before it is shown.
 * What is written waits in a buffer of the stream's own until the reader has room for it.
 */
#include "admin/stream.h"

#include "admin/json.h"
#include "base/clock.h"
#include "registry/glob.h"
#include "registry/registry.h"

#include <stdlib.h>
#include <string.h>

/* Bounds of one call: records put in order, time for looking at records, bytes made at once. Time,
 * since one record may be compared with hundreds of patterns, and one pattern may take a thousand
 * times as long as another. */
#define ORDER_BUDGET 512
#define LOOK_US      500
#define PAGE         32
#define ENOUGH_BYTES 8192

enum phase { PHASE_PREPARE, PHASE_BEGIN, PHASE_CLIENTS, PHASE_END, PHASE_OVER };

/* What makes one kind of stream different. prepare and walk do some of the work, and set the next
 * phase when it is done. All but prepare write by put(); begin and end are what stands before and
 * behind the clients, and end returns the phase that comes next. */
struct kind {
    void (*prepare)(struct stream *stream);
    void (*walk)(struct stream *stream);
    bool (*wants)(const struct stream *stream, const struct registry_record *record);
    json_t *(*show)(const struct stream *stream, const struct registry_record *record);
    void (*begin)(struct stream *stream);
    enum phase (*end)(struct stream *stream);
};

struct stream {
    const struct kind *kind;
    const struct admin *admin;
    enum phase phase;
    bool failed;

    char *match; /* or NULL */
    size_t prefix_len;
    int connected;
    int target;
    unsigned wave;
    size_t limit;
    size_t shown;
    bool has_more; /* behind the limit */
    char after[PROTO_MAX_ID_BYTES + 2];
    char last_shown[PROTO_MAX_ID_BYTES + 1];

    struct sorted *sorted; /* of a list in another order than that of IDs, or NULL */
    uint32_t offered_sid;  /* the last one that it has been offered */
    size_t taken;          /* of its page, to be shown */

    struct order_waves waves; /* of a dry run */
    size_t total;

    char *text; /* made and not yet read */
    size_t text_len;
    size_t text_read;
    size_t text_capacity;
};

static struct stream *stream_new(const struct kind *kind, const struct admin *admin);
static int set_filter(struct stream *stream, const struct stream_filter *filter);
static void begin_by_id(struct stream *stream, const char *after);
static void begin_at_prefix(struct stream *stream);
static int begin_sorted(struct stream *stream, const struct stream_filter *filter);
static void step(struct stream *stream);
static void order_some(struct stream *stream);
static void show_some(struct stream *stream);
static void pick_some(struct stream *stream);
static void show_picked(struct stream *stream);
static void show(struct stream *stream, const struct registry_record *record);
static bool is_beyond(const struct stream *stream, const struct registry_record *record);
static bool passes_filter(const struct stream *stream, const struct registry_record *record);
static bool wants_client(const struct stream *stream, const struct registry_record *record);
static json_t *show_client(const struct stream *stream, const struct registry_record *record);
static void begin_clients(struct stream *stream);
static bool wants_target(const struct stream *stream, const struct registry_record *record);
static json_t *show_target(const struct stream *stream, const struct registry_record *record);
static void begin_targets(struct stream *stream);
static enum phase end_page(struct stream *stream);
static enum phase end_sorted_page(struct stream *stream);
static enum phase end_with_next(struct stream *stream, const char *next);
static bool wants_told(const struct stream *stream, const struct registry_record *record);
static json_t *show_told(const struct stream *stream, const struct registry_record *record);
static void begin_wave(struct stream *stream);
static enum phase end_wave(struct stream *stream);
static void put(struct stream *stream, const char *text);
static void put_json(struct stream *stream, json_t *value);
static int put_chunk(const char *buffer, size_t size, void *user);

/* clang-format off */
static const struct kind clients =
    {order_some, show_some, wants_client, show_client, begin_clients, end_page};
static const struct kind sorted_clients =
    {pick_some, show_picked, wants_client, show_client, begin_clients, end_sorted_page};
static const struct kind targets =
    {order_some, show_some, wants_target, show_target, begin_targets, end_page};
static const struct kind dry_run =
    {order_some, show_some, wants_told, show_told, begin_wave, end_wave};
/* clang-format on */

struct stream *stream_clients(const struct admin *admin, const struct stream_filter *filter)
{
    const bool is_by_id = sort_order_is_by_id(filter->order);
    struct stream *stream = stream_new(is_by_id ? &clients : &sorted_clients, admin);

    if (stream && set_filter(stream, filter) != 0) {
        stream_free(stream);
        return NULL;
    }
    return stream;
}

struct stream *stream_targets(const struct admin *admin, const struct stream_filter *filter)
{
    struct stream *stream = stream_new(&targets, admin);

    if (stream && set_filter(stream, filter) != 0) {
        stream_free(stream);
        return NULL;
    }
    return stream;
}

struct stream *stream_dry_run(const struct admin *admin, struct order_waves *waves)
{
    struct stream *stream = stream_new(&dry_run, admin);

    if (!stream) {
        order_waves_clear(waves);
        return NULL;
    }
    stream->waves = *waves;
    *waves = (struct order_waves){.count = 0};
    return stream;
}

ssize_t stream_read(struct stream *stream, char *buf, size_t size)
{
    if (stream->text_read == stream->text_len) {
        stream->text_read = stream->text_len = 0;
        if (stream->phase == PHASE_OVER)
            return STREAM_END;
        step(stream);
    }
    if (stream->failed)
        return STREAM_FAILED;

    size_t len = stream->text_len - stream->text_read;
    if (len > size)
        len = size;
    if (len > 0)
        memcpy(buf, stream->text + stream->text_read, len);
    stream->text_read += len;
    return (ssize_t)len;
}

void stream_free(struct stream *stream)
{
    if (!stream)
        return;
    order_waves_clear(&stream->waves);
    sorted_free(stream->sorted);
    free(stream->match);
    free(stream->text);
    free(stream);
}

static struct stream *stream_new(const struct kind *kind, const struct admin *admin)
{
    struct stream *stream = calloc(1, sizeof(*stream));

    if (stream)
        *stream = (struct stream){.kind = kind, .admin = admin, .connected = -1, .limit = SIZE_MAX};
    return stream;
}

static int set_filter(struct stream *stream, const struct stream_filter *filter)
{
    stream->connected = filter->connected;
    stream->target = filter->target;
    stream->wave = filter->wave;
    stream->limit = filter->limit;
    if (filter->match) {
        stream->match = strdup(filter->match);
        if (!stream->match)
            return -1;
        stream->prefix_len = glob_prefix_len(stream->match);
    }
    if (!sort_order_is_by_id(filter->order))
        return begin_sorted(stream, filter);
    begin_by_id(stream, filter->after);
    return 0;
}

static void begin_by_id(struct stream *stream, const char *after)
{
    begin_at_prefix(stream);
    if (after && strcmp(after, stream->after) > 0)
        memcpy(stream->after, after, strlen(after) + 1);
}

/* Just before the first ID that begins like the glob: IDs are ASCII, so nothing is between that and
 * the same text with its last byte one less and a DEL behind it. */
static void begin_at_prefix(struct stream *stream)
{
    const size_t len = stream->prefix_len;

    if (len == 0 || len > PROTO_MAX_ID_BYTES)
        return;
    memcpy(stream->after, stream->match, len);
    stream->after[len - 1]--;
    stream->after[len] = '\x7f';
    stream->after[len + 1] = '\0';
}

static int begin_sorted(struct stream *stream, const struct stream_filter *filter)
{
    struct sort_place behind;
    const bool has_begin =
        filter->after && sort_place_parse(&behind, filter->order, filter->after) == 0;

    stream->sorted = sorted_new(filter->order, has_begin ? &behind : NULL, filter->limit);
    return stream->sorted ? 0 : -1;
}

/* Does some of the work. */
static void step(struct stream *stream)
{
    if (stream->phase == PHASE_PREPARE)
        stream->kind->prepare(stream);
    if (stream->phase == PHASE_BEGIN) {
        stream->kind->begin(stream);
        stream->phase = PHASE_CLIENTS;
    }
    if (stream->phase == PHASE_CLIENTS)
        stream->kind->walk(stream);
    if (stream->phase == PHASE_END)
        stream->phase = stream->kind->end(stream);
}

static void order_some(struct stream *stream)
{
    if (registry_order_some(stream->admin->registry, ORDER_BUDGET) != 0)
        stream->failed = true;
    else if (registry_unordered(stream->admin->registry) == 0)
        stream->phase = PHASE_BEGIN;
}

static void show_some(struct stream *stream)
{
    const uint64_t until_us = clock_monotonic_us() + LOOK_US;
    struct registry_record *page[PAGE];

    while (stream->text_len < ENOUGH_BYTES) {
        const size_t count = registry_page(stream->admin->registry, stream->after, page, PAGE);

        for (size_t i = 0; i < count; i++) {
            const struct registry_record *record = page[i];

            if (is_beyond(stream, record)) {
                stream->phase = PHASE_END;
                return;
            }
            memcpy(stream->after, record->cid, record->cid_len + 1U);
            if (stream->kind->wants(stream, record)) {
                if (stream->shown == stream->limit) {
                    stream->has_more = true;
                    stream->phase = PHASE_END;
                    return;
                }
                show(stream, record);
            }
            if (clock_monotonic_us() >= until_us)
                return;
        }
        if (count < PAGE) {
            stream->phase = PHASE_END;
            return;
        }
    }
}

/* Offers some of the clients, in the order of their sids. */
static void pick_some(struct stream *stream)
{
    const uint64_t until_us = clock_monotonic_us() + LOOK_US;
    const struct registry_record *record = NULL;

    while ((record = registry_next(stream->admin->registry, stream->offered_sid)) != NULL) {
        stream->offered_sid = record->sid;
        if (sorted_wants(stream->sorted, record) && stream->kind->wants(stream, record))
            sorted_keep(stream->sorted, record);
        if (clock_monotonic_us() >= until_us)
            return;
    }
    sorted_finish(stream->sorted);
    stream->phase = PHASE_BEGIN;
}

/* Some may have gone meanwhile, or come again as another record, which was picked by itself. */
static void show_picked(struct stream *stream)
{
    const uint64_t until_us = clock_monotonic_us() + LOOK_US;
    const struct sort_place *place = NULL;

    while (stream->text_len < ENOUGH_BYTES && clock_monotonic_us() < until_us) {
        place = sorted_at(stream->sorted, stream->taken);
        if (!place) {
            stream->phase = PHASE_END;
            return;
        }
        stream->taken++;
        const struct registry_record *record = admin_find(stream->admin, place->cid);
        if (record && record->sid == place->sid && stream->kind->wants(stream, record))
            show(stream, record);
    }
}

static void show(struct stream *stream, const struct registry_record *record)
{
    if (stream->shown++ > 0)
        put(stream, ",");
    put_json(stream, stream->kind->show(stream, record));
    memcpy(stream->last_shown, record->cid, record->cid_len + 1U);
}

/* Is it behind all that begin like the glob? */
static bool is_beyond(const struct stream *stream, const struct registry_record *record)
{
    return stream->match && strncmp(record->cid, stream->match, stream->prefix_len) > 0;
}

static bool passes_filter(const struct stream *stream, const struct registry_record *record)
{
    return admin_knows(record) &&
           (stream->connected < 0 || record->connected == (stream->connected != 0)) &&
           (!stream->match || glob_matches(stream->match, record->cid));
}

static bool wants_client(const struct stream *stream, const struct registry_record *record)
{
    return passes_filter(stream, record);
}

static json_t *show_client(const struct stream *stream, const struct registry_record *record)
{
    return json_of_record(stream->admin, record);
}

static void begin_clients(struct stream *stream)
{
    put(stream, "{\"clients\":[");
}

static bool wants_target(const struct stream *stream, const struct registry_record *record)
{
    const enum order_target target =
        orders_target(sessions_orders(stream->admin->sessions), record);

    return target != ORDER_TARGET_NONE && passes_filter(stream, record) &&
           (stream->target < 0 || target == (enum order_target)stream->target) &&
           (stream->wave == 0 || record->order_wave == stream->wave);
}

static json_t *show_target(const struct stream *stream, const struct registry_record *record)
{
    const enum order_target target =
        orders_target(sessions_orders(stream->admin->sessions), record);

    return json_pack("{s:s, s:i, s:s}", "cid", record->cid, "wave", record->order_wave, "state",
                     order_target_words[target]);
}

static void begin_targets(struct stream *stream)
{
    put(stream, "{\"targets\":[");
}

static enum phase end_page(struct stream *stream)
{
    return end_with_next(stream, stream->has_more ? stream->last_shown : NULL);
}

static enum phase end_sorted_page(struct stream *stream)
{
    char next[SORT_PLACE_TEXT_BYTES];

    return end_with_next(stream, sorted_next(stream->sorted, next));
}

static enum phase end_with_next(struct stream *stream, const char *next)
{
    put(stream, "],\"next\":");
    put_json(stream, next ? json_string(next) : json_null());
    put(stream, "}");
    return PHASE_OVER;
}

static bool wants_told(const struct stream *stream, const struct registry_record *record)
{
    return record->connected &&
           order_waves_match(&stream->waves, record->cid, 0) == stream->wave + 1;
}

static json_t *show_told(const struct stream *stream, const struct registry_record *record)
{
    (void)stream;
    return json_string(record->cid);
}

static void begin_wave(struct stream *stream)
{
    put(stream, stream->wave == 0 ? "{\"dry_run\":true,\"waves\":[{\"match\":" : ",{\"match\":");
    put_json(stream, json_of_match(stream->waves.match[stream->wave]));
    put(stream, ",\"clients\":[");
    stream->after[0] = '\0';
    stream->shown = 0;
}

static enum phase end_wave(struct stream *stream)
{
    put(stream, "],\"count\":");
    put_json(stream, json_integer((json_int_t)stream->shown));
    put(stream, "}");
    stream->total += stream->shown;
    if (++stream->wave < stream->waves.count)
        return PHASE_BEGIN;
    put(stream, "],\"count\":");
    put_json(stream, json_integer((json_int_t)stream->total));
    put(stream, "}");
    return PHASE_OVER;
}

static void put(struct stream *stream, const char *text)
{
    (void)put_chunk(text, strlen(text), stream);
}

/* Owns the value. */
static void put_json(struct stream *stream, json_t *value)
{
    if (!value || json_dump_callback(value, put_chunk, stream, JSON_STYLE | JSON_ENCODE_ANY) != 0)
        stream->failed = true;
    json_decref(value);
}

static int put_chunk(const char *buffer, size_t size, void *user)
{
    struct stream *stream = user;
    const size_t wanted = stream->text_len + size;

    if (wanted > stream->text_capacity) {
        const size_t capacity = wanted < ENOUGH_BYTES ? 2 * (size_t)ENOUGH_BYTES : 2 * wanted;
        char *text = realloc(stream->text, capacity);
        if (!text) {
            stream->failed = true;
            return -1;
        }
        stream->text = text;
        stream->text_capacity = capacity;
    }
    memcpy(stream->text + stream->text_len, buffer, size);
    stream->text_len = wanted;
    return 0;
}
