/*
 * One walk over the clients in the order of their IDs serves all three: they differ in who is shown
 * and how. What is written waits in a buffer of the stream's own until the reader has room for it.
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

enum phase { PHASE_ORDER, PHASE_BEGIN, PHASE_CLIENTS, PHASE_END, PHASE_OVER };

/* What makes one kind of stream different. Each writes by put(); begin and end are what stands
 * before and behind the clients, and end returns the phase that comes next. */
struct kind {
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

    struct order_waves waves; /* of a dry run */
    size_t total;

    char *text; /* made and not yet read */
    size_t text_len;
    size_t text_read;
    size_t text_capacity;
};

static struct stream *stream_new(const struct kind *kind, const struct admin *admin);
static int set_filter(struct stream *stream, const struct stream_filter *filter);
static void begin_at_prefix(struct stream *stream);
static void step(struct stream *stream);
static void order_some(struct stream *stream);
static void show_some(struct stream *stream);
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
static bool wants_told(const struct stream *stream, const struct registry_record *record);
static json_t *show_told(const struct stream *stream, const struct registry_record *record);
static void begin_wave(struct stream *stream);
static enum phase end_wave(struct stream *stream);
static void put(struct stream *stream, const char *text);
static void put_json(struct stream *stream, json_t *value);
static int put_chunk(const char *buffer, size_t size, void *user);

static const struct kind clients = {wants_client, show_client, begin_clients, end_page};
static const struct kind targets = {wants_target, show_target, begin_targets, end_page};
static const struct kind dry_run = {wants_told, show_told, begin_wave, end_wave};

struct stream *stream_clients(const struct admin *admin, const struct stream_filter *filter)
{
    struct stream *stream = stream_new(&clients, admin);

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
        begin_at_prefix(stream);
    }
    if (filter->after && strcmp(filter->after, stream->after) > 0)
        memcpy(stream->after, filter->after, strlen(filter->after) + 1);
    return 0;
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

/* Does some of the work. */
static void step(struct stream *stream)
{
    if (stream->phase == PHASE_ORDER)
        order_some(stream);
    if (stream->phase == PHASE_BEGIN) {
        stream->kind->begin(stream);
        stream->phase = PHASE_CLIENTS;
    }
    if (stream->phase == PHASE_CLIENTS)
        show_some(stream);
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
    put(stream, "],\"next\":");
    put_json(stream, stream->has_more ? json_string(stream->last_shown) : json_null());
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
