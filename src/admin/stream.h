/*
 * Answers that are made while they are sent, a slice at a time, so that a list of a million clients
 * costs no memory and holds nobody up. A stream belongs to its reader, which frees it; it keeps no
 * pointer to any client between two calls.
 */
#ifndef ADMIN_STREAM_H
#define ADMIN_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sys/types.h>

#include "admin/admin.h"
#include "admin/sorted.h"

struct stream;

#define STREAM_END           (-1) /* all of it has been read */
#define STREAM_FAILED        (-2) /* memory is out: the answer is not whole */

#define STREAM_DEFAULT_LIMIT 100
#define STREAM_MAX_LIMIT     1000

/* What of the clients is wanted, and how many of them. */
struct stream_filter {
    const char *match; /* a glob, or NULL */
    const char *after; /* the next of the page before, which sort_place_parse() takes, or NULL */
    struct sort_order order; /* for stream_clients() */
    unsigned limit;          /* 1 or more */
    int connected;           /* -1: both */
    int target;              /* enum order_target, -1: any; for stream_targets() */
    unsigned wave;           /* from 1, 0: any; for stream_targets() */
};

/* A page of clients, and one of the targets of the shutdown order. The texts of the filter are
 * copied. NULL when memory is out. */
struct stream *stream_clients(const struct admin *admin, const struct stream_filter *filter);
struct stream *stream_targets(const struct admin *admin, const struct stream_filter *filter);

/* Whom these waves would tell; they are taken over. NULL when memory is out. */
struct stream *stream_dry_run(const struct admin *admin, struct order_waves *waves);

/*
 * Writes what comes next to buf. Returns how many bytes that were, 0 when this took long enough and
 * more comes with another call in a later turn, STREAM_END or STREAM_FAILED.
 */
ssize_t stream_read(struct stream *stream, char *buf, size_t size);

/* NULL is allowed. */
void stream_free(struct stream *stream);

#endif
