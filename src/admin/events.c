/* The ring, and how an event looks in a stream (docs/control.md, "GET /v1/events"). Knows no
 * reader.
 */
#include "admin/events.h"

#include "registry/credential_name.h"
#include "session/order.h"

#include <jansson.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A copy: what the event was about may be gone when somebody reads it. */
struct entry {
    int64_t wall_ms;
    int64_t order;
    struct peer_address peer;
    uint32_t sid;
    uint16_t credential;
    uint8_t kind; /* enum session_event_kind */
    uint8_t reason;
    uint8_t what; /* enum order_what */
    uint8_t wave;
    char cid[PROTO_MAX_ID_BYTES + 1]; /* "" for none */
};

struct events {
    struct entry ring[EVENTS_KEPT]; /* event n is at n % EVENTS_KEPT */
    uint64_t first;                 /* the number before that of the first event */
    uint64_t last;
};

static const char *const names[] = {
    [SESSION_CONNECTED] = "connected",
    [SESSION_DISCONNECTED] = "disconnected",
    [SESSION_REFUSED] = "refused",
    [SESSION_ORDER] = "shutdown",
};

static uint64_t oldest(const struct events *events);
static size_t write_missed(json_t *count, uint64_t id, char *buf, size_t size);
static size_t write_entry(const struct entry *entry, uint64_t id, char *buf, size_t size);
static json_t *data_of(const struct entry *entry);
static int set_peer(json_t *data, const struct entry *entry);
static json_t *text_or_null(const char *text);
static size_t write_event(const char *name, uint64_t id, json_t *data, char *buf, size_t size);

struct events *events_new(int64_t wall_ms)
{
    struct events *events = calloc(1, sizeof(*events));

    if (events && wall_ms > 0)
        events->first = events->last = (uint64_t)wall_ms * 1000;
    return events;
}

void events_free(struct events *events)
{
    free(events);
}

void events_add(struct events *events, const struct session_event *event)
{
    struct entry *entry = &events->ring[++events->last % EVENTS_KEPT];

    entry->wall_ms = event->at.wall_ms;
    entry->sid = event->sid;
    entry->credential = event->credential;
    entry->kind = (uint8_t)event->kind;
    entry->reason = (uint8_t)event->reason;
    if (event->peer)
        entry->peer = *event->peer;
    if (event->order) {
        entry->order = event->order->order;
        entry->what = (uint8_t)event->order->what;
        entry->wave = (uint8_t)event->order->wave;
    }
    if (event->cid_len > 0)
        memcpy(entry->cid, event->cid, event->cid_len);
    entry->cid[event->cid_len] = '\0';
}

uint64_t events_last(const struct events *events)
{
    return events->last;
}

size_t events_read(const struct events *events, uint64_t *seen, char *buf, size_t size)
{
    const bool is_known = *seen >= events->first && *seen <= events->last;
    const uint64_t from = oldest(events);
    size_t len = 0;

    if (!is_known || *seen < from) {
        json_t *count = is_known ? json_integer((json_int_t)(from - *seen)) : json_null();
        len = write_missed(count, from, buf, size);
        if (len == 0)
            return 0;
        *seen = from;
    }
    while (*seen < events->last) {
        const size_t written =
            write_entry(&events->ring[(*seen + 1) % EVENTS_KEPT], *seen + 1, buf + len, size - len);
        if (written == 0)
            break;
        len += written;
        ++*seen;
    }
    return len;
}

/* The number behind which events are kept. */
static uint64_t oldest(const struct events *events)
{
    const uint64_t count = events->last - events->first;

    return count > EVENTS_KEPT ? events->last - EVENTS_KEPT : events->first;
}

/* Owns count. */
static size_t write_missed(json_t *count, uint64_t id, char *buf, size_t size)
{
    return write_event("missed", id, json_pack("{s:o}", "missed", count), buf, size);
}

static size_t write_entry(const struct entry *entry, uint64_t id, char *buf, size_t size)
{
    return write_event(names[entry->kind], id, data_of(entry), buf, size);
}

/* Returns NULL when memory is out. */
static json_t *data_of(const struct entry *entry)
{
    json_t *data = json_object();
    int refusal = 0;
    int result = 0;

    result |= json_object_set_new(data, "time", json_real((double)entry->wall_ms / 1000));
    switch ((enum session_event_kind)entry->kind) {
    case SESSION_CONNECTED:
    case SESSION_DISCONNECTED:
        result |= json_object_set_new(data, "cid", json_string(entry->cid));
        result |= json_object_set_new(data, "sid", json_integer(entry->sid));
        result |= set_peer(data, entry);
        if (entry->kind == SESSION_DISCONNECTED)
            result |= json_object_set_new(data, "reason", json_string(reason_word(entry->reason)));
        else
            result |= json_object_set_new(data, "credential",
                                          json_string(credential_name(entry->credential)));
        break;
    case SESSION_REFUSED:
        result |= json_object_set_new(data, "cid", text_or_null(entry->cid));
        result |= set_peer(data, entry);
        refusal = reason_refusal(entry->reason);
        result |= json_object_set_new(data, "reason", json_string(reason_word(entry->reason)));
        result |=
            json_object_set_new(data, "code", refusal != 0 ? json_integer(refusal) : json_null());
        break;
    case SESSION_ORDER:
        result |= json_object_set_new(data, "order", json_integer(entry->order));
        result |= json_object_set_new(data, "what", json_string(order_what_words[entry->what]));
        if (entry->wave != 0)
            result |= json_object_set_new(data, "wave", json_integer(entry->wave));
        if (entry->cid[0] != '\0')
            result |= json_object_set_new(data, "cid", json_string(entry->cid));
        break;
    }
    if (result == 0)
        return data;
    json_decref(data);
    return NULL;
}

static int set_peer(json_t *data, const struct entry *entry)
{
    char ip[ADDRESS_TEXT_BYTES];

    int result =
        json_object_set_new(data, "cip", json_string(peer_address_format(&entry->peer, ip)));
    result |= json_object_set_new(data, "cport", json_integer(entry->peer.port));
    return result;
}

static json_t *text_or_null(const char *text)
{
    return text[0] != '\0' ? json_string(text) : json_null();
}

/* Owns data. Returns 0 when there is no room, or no memory: it is tried again then. */
static size_t write_event(const char *name, uint64_t id, json_t *data, char *buf, size_t size)
{
    const int head = snprintf(buf, size, "id: %" PRIu64 "\nevent: %s\ndata: ", id, name);
    size_t len = 0;

    if (data && head > 0 && (size_t)head < size) {
        const size_t room = size - (size_t)head;
        const size_t wanted =
            json_dumpb(data, buf + head, room, JSON_COMPACT | JSON_REAL_PRECISION(13));
        if (wanted > 0 && wanted + 2 <= room) {
            len = (size_t)head + wanted;
            buf[len++] = '\n';
            buf[len++] = '\n';
        }
    }
    json_decref(data);
    return len;
}
