/* Follows the HTML standard's "event stream interpretation" as far as cliserd's streams go: no
 * retry, since how long to pause is for the caller to decide. */
#include "event_stream.h"

#include "say.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void take_line(struct event_stream *stream);
static void take_field(struct event_stream *stream, const char *name, const char *value);
static void dispatch(struct event_stream *stream);
static void text_add(struct event_stream_text *text, const char *bytes, size_t len);
static void text_reset(struct event_stream_text *text);

/* A line ends with CR, LF or CRLF; whether a LF follows a CR may show in the next piece only. */
void event_stream_take(struct event_stream *stream, const char *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        const bool second_half = stream->after_cr && bytes[i] == '\n';

        stream->after_cr = bytes[i] == '\r';
        if (second_half)
            continue;
        if (bytes[i] == '\r' || bytes[i] == '\n')
            take_line(stream);
        else
            text_add(&stream->line, &bytes[i], 1);
    }
}

void event_stream_restart(struct event_stream *stream)
{
    text_reset(&stream->line);
    text_reset(&stream->type);
    text_reset(&stream->data);
    stream->after_cr = false;
    memcpy(stream->id, stream->last_id, sizeof(stream->id));
}

void event_stream_clear(struct event_stream *stream)
{
    free(stream->line.bytes);
    free(stream->type.bytes);
    free(stream->data.bytes);
}

static void take_line(struct event_stream *stream)
{
    text_add(&stream->line, "", 1);
    char *name = stream->line.bytes;
    char *colon = strchr(name, ':');

    if (stream->line.cut) {
        stream->data.cut = true;
    } else if (name[0] == '\0') {
        dispatch(stream);
    } else if (colon) {
        *colon = '\0';
        take_field(stream, name, colon + 1 + (colon[1] == ' '));
    } else {
        take_field(stream, name, "");
    }
    text_reset(&stream->line);
}

/* A line that begins with a colon, a comment, has the empty name. */
static void take_field(struct event_stream *stream, const char *name, const char *value)
{
    if (strcmp(name, "event") == 0) {
        text_reset(&stream->type);
        text_add(&stream->type, value, strlen(value));
    } else if (strcmp(name, "data") == 0) {
        text_add(&stream->data, value, strlen(value));
        text_add(&stream->data, "\n", 1);
    } else if (strcmp(name, "id") == 0 && strlen(value) <= EVENT_STREAM_MAX_ID) {
        snprintf(stream->id, sizeof(stream->id), "%s", value);
    }
}

static void dispatch(struct event_stream *stream)
{
    /* Counts as seen also when there is nothing to show. */
    memcpy(stream->last_id, stream->id, sizeof(stream->last_id));
    if (!stream->data.cut && !stream->type.cut && stream->data.len > 0) {
        stream->data.bytes[stream->data.len - 1] = '\0'; /* the last LF */
        text_add(&stream->type, "", 1);
        stream->event(stream->arg, stream->type.len > 1 ? stream->type.bytes : "message",
                      stream->data.bytes);
    }
    text_reset(&stream->type);
    text_reset(&stream->data);
}

static void text_add(struct event_stream_text *text, const char *bytes, size_t len)
{
    if (text->len + len > EVENT_STREAM_MAX_BYTES) {
        text->cut = true;
        /* A line still has to end with NUL. */
        if (text->len > 0)
            text->bytes[text->len - 1] = '\0';
        return;
    }
    if (len == 0) /* and perhaps no memory yet to copy to */
        return;
    if (text->len + len > text->room) {
        text->room = 2 * (text->len + len) + 64;
        text->bytes = realloc(text->bytes, text->room);
        if (!text->bytes)
            say_no_memory();
    }
    memcpy(text->bytes + text->len, bytes, len);
    text->len += len;
}

static void text_reset(struct event_stream_text *text)
{
    text->len = 0;
    text->cut = false;
}
