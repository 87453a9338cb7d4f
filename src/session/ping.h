/*
 * Asking one client now, and how long it takes to answer. Several may be under way for one client:
 * it answers every 100, so each waits for its own answer.
 */
#ifndef SESSION_PING_H
#define SESSION_PING_H

#include <stdbool.h>
#include <stdint.h>

#include <sys/queue.h>

#include "base/clock.h"

struct registry_record;
struct session;
struct sessions;

/* How long a client has to answer. */
#define PING_TIMEOUT_MS 5000

enum ping_result {
    PING_ANSWERED,
    PING_TIMED_OUT,
    PING_LEFT, /* its session ended meanwhile */
};

/* Embedded in whoever asks, which owns it and sets done and user before the start. */
struct ping {
    /* Called once, unless it is cancelled before, also from within ping_start(); the ping is over
     * then. rtt_us is of meaning when it was answered. Starts and cancels
     * none. */
    void (*done)(struct ping *ping, enum ping_result result, uint64_t rtt_us);
    void *user;

    /* Private to ping.c. */
    TAILQ_ENTRY(ping) link; /* in the order of due_us */
    struct session *session;
    uint64_t sent_us;
    uint64_t due_us;
    uint64_t heard_us; /* the first answer since, to whichever question; 0 for none */
    unsigned ahead;    /* answers to earlier questions that come before ours */
};

/* Sends a 100 to the client, which must be connected. May end its session, when sending finds it
 * gone. */
void ping_start(struct sessions *all, struct registry_record *record, struct ping *ping,
                struct moment now);

/* Whoever asked does not want to know any more. The ping must be under way. */
void ping_cancel(struct sessions *all, struct ping *ping);

/* The client answered a keep-alive. */
void ping_note_answer(struct session *session);

/* The session is over. */
void ping_note_end(struct session *session);

/* Ends those that were not answered in time, and when the next one is due; UINT64_MAX for never. */
void ping_expire(struct sessions *all);
uint64_t ping_next_us(const struct sessions *all);

#endif
