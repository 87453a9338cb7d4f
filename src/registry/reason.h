/*
 * Why a connection ended: one word for the log, the record and the counters, and the refusal that
 * is sent. The only table of its kind.
 */
#ifndef REGISTRY_REASON_H
#define REGISTRY_REASON_H

#include <stddef.h>

enum reason {
    REASON_NONE,     /* has never been disconnected */
    REASON_LEFT,     /* the peer closed */
    REASON_RESET,    /* the connection broke */
    REASON_SHUTDOWN, /* the peer left after it was told to shut down */
    REASON_SLOW,     /* the peer does not read what it is sent */
    REASON_STOPPED,  /* the server was stopped */
    REASON_CRASH, /* found connected in the store at start: the server had ended without a word */
    REASON_RESOURCES,   /* out of memory or descriptors for this connection */
    REASON_PROTOCOL,    /* 400 */
    REASON_TIMED_OUT,   /* 408, or TCP itself gave up */
    REASON_PASSWORD,    /* 410 */
    REASON_INVALID_ID,  /* 420 */
    REASON_DUPLICATE,   /* 421 */
    REASON_NOT_ALLOWED, /* 422 */
    REASON_TOO_MANY,    /* 429 */
    REASON_TLS,         /* no TLS, or none that is allowed, where TLS is spoken */
    REASON_OPERATOR,    /* 430: disconnected by an operator */
    REASON_REPLACED,    /* 431 */
    REASON_FULL,        /* 450 */
    REASON_REGISTRY,    /* 451 */
    REASON_RESTARTING,  /* 460 */
    REASON_COUNT
};

/* The word; "" for REASON_NONE. Never NULL. */
const char *reason_word(enum reason reason);

/* The code of the refusal that is sent, or 0 when the connection is closed without a word. */
int reason_refusal(enum reason reason);

/* The reason for a refusal that the protocol machine decided on. The code must be in the table. */
enum reason reason_of_refusal(int code);

/* Reads a word back; REASON_NONE for one that is not in the table. */
enum reason reason_parse(const char *word);

#endif
