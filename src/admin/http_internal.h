/*
 * What http.c and exchange.c share: the two sides of the control API, their connections, and the
 * requests that are under way. Private to these two.
 */
#ifndef ADMIN_HTTP_INTERNAL_H
#define ADMIN_HTTP_INTERNAL_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sys/queue.h>

#include "admin/http.h"
#include "admin/metrics.h"
#include "admin/request.h"
#include "base/clock.h"
#include "base/log.h"
#include "net/listen_socket.h"

#include <microhttpd.h>

struct entrance;
struct event;

#define HTTP_MAX_BY_BYTES 96

struct http_connection {
    TAILQ_ENTRY(http_connection) link; /* while it is idle */
    struct endpoint *endpoint;
    int fd;
    uint64_t due_us; /* while it is idle: when its request has to be there */
    bool is_idle;
    char by[HTTP_MAX_BY_BYTES]; /* who it is, for the log */
};

/* What a suspended request waits for. */
enum queue { QUEUE_TURN, QUEUE_CLIENT, QUEUE_ORDER, QUEUE_EVENTS, QUEUE_COUNT };

TAILQ_HEAD(http_connection_list, http_connection);
TAILQ_HEAD(exchange_list, exchange);

/* A request with what the library wants of it. */
struct exchange {
    TAILQ_ENTRY(exchange) link; /* in the queue that it is in */
    struct request request;     /* its user is this */
    struct endpoint *endpoint;
    struct MHD_Connection *connection;
    uint8_t queue; /* enum queue, while it is suspended */
    bool is_suspended;
    bool has_begun;
    bool is_handled;
    bool is_last; /* nobody knows where the next request would begin */
    bool is_too_large;
    bool is_out_of_memory; /* for its body */
    bool is_event_stream;
    bool is_framed_twice;
    bool has_left;             /* an event stream: its reader */
    struct event *left;        /* which the library does not notice while it is suspended */
    const char *malformed;     /* what its first lines have that cannot be; NULL for nothing */
    const char *body_length;   /* as the headers say, or NULL */
    const char *body_encoding; /* the same */
    size_t body_capacity;
    uint64_t events_seen;
    uint64_t sent_us; /* an event stream: when it last was sent anything */
};

/* The unix socket, or the port. */
struct endpoint {
    struct http *http;
    struct request_scope scope;
    struct listen_socket socket;
    struct MHD_Daemon *daemon; /* NULL while it is not there */
    struct event *ready;       /* the library's epoll descriptor */
    struct entrance *entrance;
    struct event *timer; /* its next timeout. Not one event with the other: that would be out
                          * of epoll once its time was up. */
    struct http_connection_list idle;
    struct exchange_list queues[QUEUE_COUNT]; /* of those that are suspended */
    unsigned connections;
    unsigned event_streams;
    uint64_t run_us;     /* when the run began that goes on */
    unsigned stuck_runs; /* in which the library came to nothing new */
    bool must_run;       /* of what there is to do the library's descriptor says nothing */
};

enum { ENDPOINT_SOCKET, ENDPOINT_PORT, ENDPOINT_COUNT };

struct http {
    struct event_base *base;
    struct admin *admin;
    struct events *events;
    struct credentials *tokens;
    struct endpoint endpoints[ENDPOINT_COUNT];
    struct event *housekeeping; /* idle connections, and heartbeats of event streams */
    struct event *deliver;      /* events that are new, in a moment */
    char address[ADDRESS_TEXT_BYTES];
    uint64_t answers[METRICS_STATUS_CLASSES];
    struct process_start process;
    struct log_limit log_limit;
};

/* exchange.c: what the library calls for a request, in this order; see MHD_start_daemon(). */
void *http_on_uri(void *user, const char *uri, struct MHD_Connection *connection);
enum MHD_Result http_on_request(void *user, struct MHD_Connection *connection, const char *path,
                                const char *method, const char *version, const char *upload,
                                size_t *upload_len, void **context);
void http_on_completed(void *user, struct MHD_Connection *connection, void **context,
                       enum MHD_RequestTerminationCode how);

/* Goes on with a suspended request in the next run, or with all of a queue. */
void exchange_resume(struct exchange *exchange);
void exchange_resume_all(struct endpoint *endpoint, enum queue queue);

/* Has an event stream been silent for so long that it should say that it is alive? */
bool exchange_is_heartbeat_due(const struct exchange *exchange, uint64_t now_us);

/* http.c: has this side had its share of the turn? */
bool endpoint_turn_is_over(const struct endpoint *endpoint);

/* Lets the event streams read what is new, in a moment. */
void http_deliver_soon(struct http *http);

/* Runs the library in the next turn. */
void endpoint_run_soon(struct endpoint *endpoint);

/* A connection without a whole request is idle: its time to send one begins, or is stopped. */
void http_connection_set_idle(struct http_connection *connection, bool idle);

/* What was made when it was accepted; NULL when there was no memory for it. */
struct http_connection *http_connection_of(struct MHD_Connection *connection);

#endif
