/*
 * Server-sent events, both ends. With a first byte of 0 the rest is a stream that cliserctl reads:
 * the same events, however it is cut. Otherwise the rest is what happens on a server: each event,
 * written down and read again by cliserctl, says what it was, and none is lost or comes twice.
 */
#include "admin/events.h"
#include "event_stream.h"

#include "fuzz.h"

#include <jansson.h>

#define MAX_EVENTS 64

struct reading {
    char *text; /* all that was heard */
    size_t len;
    FILE *out;
    size_t count;
    bool is_ours; /* written by the server */
};

static struct session_event happened[MAX_EVENTS];
static char cids[MAX_EVENTS][PROTO_MAX_ID_BYTES + 1];
static struct peer_address peers[MAX_EVENTS];
static struct order_news news[MAX_EVENTS];

static void check_reader(const char *bytes, size_t len);
static void check_both(struct fuzz_input *input);
static void on_event(void *user, const char *type, const char *data);
static void check_event(const struct session_event *event, const char *type, const char *data);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = fuzz_input_of(data, size);

    if (size > 4096)
        return -1;
    if (fuzz_byte(&input) == 0)
        check_reader((const char *)input.at, input.left);
    else
        check_both(&input);
    return 0;
}

static void check_reader(const char *bytes, size_t len)
{
    struct reading readings[FUZZ_CUT_COUNT] = {{.text = NULL}};

    for (int cut = 0; cut < FUZZ_CUT_COUNT; cut++) {
        struct event_stream stream = {.event = on_event, .arg = &readings[cut]};
        uint64_t state = len;

        readings[cut].out = open_memstream(&readings[cut].text, &readings[cut].len);
        fuzz_require(readings[cut].out);
        for (size_t at = 0; at < len;) {
            const size_t segment = fuzz_segment((enum fuzz_cut)cut, len - at, &state);
            char *exact = fuzz_copy(bytes + at, segment);
            event_stream_take(&stream, exact, segment);
            free(exact);
            at += segment;
        }
        fprintf(readings[cut].out, "last %s\n", stream.last_id);
        fuzz_require(fclose(readings[cut].out) == 0);
        event_stream_restart(&stream);
        event_stream_clear(&stream);
        fuzz_require(readings[cut].len == readings[0].len);
        fuzz_require(memcmp(readings[cut].text, readings[0].text, readings[0].len) == 0);
    }
    for (int cut = 0; cut < FUZZ_CUT_COUNT; cut++)
        free(readings[cut].text);
}

static void check_both(struct fuzz_input *input)
{
    static const char id_bytes[] = "ABCXYZabcxyz0129._:@-";
    struct events *events = events_new(1700000000000);
    struct reading reading = {.is_ours = true};
    struct event_stream stream = {.event = on_event, .arg = &reading};
    uint64_t seen = events_last(events);
    size_t count = 0;

    fuzz_require(events);
    for (; count < MAX_EVENTS && input->left > 0; count++) {
        struct session_event *event = &happened[count];
        const uint8_t what = fuzz_byte(input);
        size_t len = 0;
        const char *bytes = fuzz_bytes(input, what >> 2, &len);

        *event = (struct session_event){.kind = (enum session_event_kind)(what & 3),
                                        .at = {.wall_ms = 1700000000000 + what},
                                        .reason = (enum reason)(fuzz_byte(input) % REASON_COUNT),
                                        .sid = 1U + fuzz_byte(input)};
        for (size_t i = 0; i < len; i++)
            cids[count][i] = id_bytes[(unsigned char)bytes[i] % strlen(id_bytes)];
        cids[count][len] = '\0';
        event->cid = len > 0 ? cids[count] : NULL;
        event->cid_len = len;
        if (event->kind == SESSION_ORDER) {
            news[count] = (struct order_news){
                .what = (enum order_what)(fuzz_byte(input) % (ORDER_SAVED + 1)),
                .order = 1 + fuzz_byte(input),
                .wave = fuzz_byte(input) % 65U,
            };
            event->order = &news[count];
        } else {
            peers[count] = (struct peer_address){.family = what & 4 ? AF_INET : AF_INET6,
                                                 .port = (uint16_t)(what * 257U)};
            memset(peers[count].ip, what, what & 4 ? 4 : 16);
            event->peer = &peers[count];
        }
        events_add(events, event);
    }

    char buf[4096];
    size_t size = EVENTS_MAX_TEXT_BYTES;
    size_t len = 0;
    while ((len = events_read(events, &seen, buf, size)) > 0) {
        fuzz_require(len <= size);
        event_stream_take(&stream, buf, len);
        size = size * 7 % 3001 + EVENTS_MAX_TEXT_BYTES;
    }
    fuzz_require(reading.count == count && seen == events_last(events));
    fuzz_require(count == 0 || strtoull(stream.last_id, NULL, 10) == seen);
    event_stream_clear(&stream);
    events_free(events);
}

static void on_event(void *user, const char *type, const char *data)
{
    struct reading *reading = user;

    if (reading->is_ours) {
        fuzz_require(reading->count < MAX_EVENTS);
        check_event(&happened[reading->count], type, data);
    } else {
        fprintf(reading->out, "%s %zu %s\n", type, strlen(data), data);
    }
    reading->count++;
}

static void check_event(const struct session_event *event, const char *type, const char *data)
{
    static const char *const types[] = {"connected", "disconnected", "refused", "shutdown"};
    json_error_t error;
    json_t *object = json_loads(data, JSON_REJECT_DUPLICATES, &error);
    const char *cid = json_string_value(json_object_get(object, "cid"));
    const char *reason = json_string_value(json_object_get(object, "reason"));

    fuzz_require(object && strcmp(type, types[event->kind]) == 0);
    fuzz_require(strcmp(cid ? cid : "", event->cid ? event->cid : "") == 0);
    if (event->kind == SESSION_DISCONNECTED || event->kind == SESSION_REFUSED)
        fuzz_require(reason && reason_parse(reason) == event->reason);
    if (event->kind == SESSION_ORDER)
        fuzz_require(json_integer_value(json_object_get(object, "order")) == event->order->order);
    else
        fuzz_require(json_integer_value(json_object_get(object, "cport")) == event->peer->port);
    json_decref(object);
}
