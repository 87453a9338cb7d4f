/*
 * Requests to the control API, over the unix socket or TCP. Words what goes wrong on the way; what
 * an answer means is the caller's.
 */
#ifndef CTL_API_H
#define CTL_API_H

#include <stdbool.h>
#include <stddef.h>

#include <jansson.h>

#include "say.h"

struct api;
struct api_stream;

struct api_options {
    const char *socket; /* when url is NULL */
    const char *url;
    const char *token;      /* for url */
    const char *token_file; /* for messages */
};

enum api_result {
    API_DONE,
    API_REFUSED,     /* the server says no: status and message */
    API_UNREACHABLE, /* no answer: message */
    API_INTERRUPTED, /* by Ctrl-C, once that is caught */
};

struct api_reply {
    enum api_result result;
    long status;      /* of HTTP; 0 when there was none */
    bool maybe_taken; /* unreachable, but the server may have had the request */
    json_t *body;     /* may be NULL when refused */
    char message[512];
};

/* Never NULL. The texts in options must outlive it. */
struct api *api_new(const struct api_options *options);
void api_free(struct api *api);

/*
 * Asks, and waits for the whole answer; streams that are open go on meanwhile. body, if not NULL,
 * is sent as JSON. Fills the reply, which must be cleared, and returns its result.
 */
enum api_result api_call(struct api *api, const char *method, const char *path, const json_t *body,
                         struct api_reply *reply);
void api_reply_clear(struct api_reply *reply);

/* Says on stderr what went wrong, and returns the exit status for it. Nothing is said about an
 * interruption. */
enum ctl_exit api_complain(const struct api_reply *reply);

/* Bytes of a stream, as they come. */
typedef void api_bytes_fn(void *arg, const char *bytes, size_t len);

/*
 * Opens a stream of server-sent events and returns at once. last_id goes along as Last-Event-ID
 * when it is not empty. bytes is called from inside api_turn() and api_call(), for answers with
 * status 200 only. To be closed.
 */
struct api_stream *api_stream_open(struct api *api, const char *path, const char *last_id,
                                   api_bytes_fn *bytes, void *arg);
void api_stream_close(struct api_stream *stream);

/* Has the server begun to answer with events? */
bool api_stream_is_open(const struct api_stream *stream);

/* Is it over? Then the reply says why; its result is not API_DONE. */
bool api_stream_is_over(struct api_stream *stream, struct api_reply *reply);

/* Waits until something comes, or timeout_ms have passed, or Ctrl-C. */
void api_turn(struct api *api, int timeout_ms);

#endif
