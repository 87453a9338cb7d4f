/* Server-sent events, taken from bytes that come in any pieces. Pure. */
#ifndef CTL_EVENT_STREAM_H
#define CTL_EVENT_STREAM_H

#include <stdbool.h>
#include <stddef.h>

/* What an event may have at most; the server's have some hundred bytes. What is longer is left
 * out. */
#define EVENT_STREAM_MAX_BYTES 65536
#define EVENT_STREAM_MAX_ID    64

/* Texts live until the call returns. */
typedef void event_stream_fn(void *arg, const char *type, const char *data);

/* Zeroed, with event and arg set, is ready. To be cleared. */
struct event_stream {
    event_stream_fn *event;
    void *arg;
    char last_id[EVENT_STREAM_MAX_ID + 1]; /* of the last event, for Last-Event-ID */
    struct event_stream_text {
        char *bytes;
        size_t len;
        size_t room;
        bool cut;
    } line, type, data;
    char id[EVENT_STREAM_MAX_ID + 1]; /* of the event that is being read */
    bool after_cr;
};

void event_stream_take(struct event_stream *stream, const char *bytes, size_t len);

/* The connection is another one: what was half read is forgotten, last_id stays. */
void event_stream_restart(struct event_stream *stream);
void event_stream_clear(struct event_stream *stream);

#endif
