/*
 * What became of every client, and how long everything took.
 *
 * Every client ends in exactly one outcome, with a detail that says which refusal or which errno.
 * Adding up all of them gives the number of clients that were asked for. Pure: no clock, no I/O.
 * All of it can be added to another tally, so that several loops can each keep their own.
 */
#ifndef STRESS_TALLY_H
#define STRESS_TALLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "histogram.h"
#include "link.h"

enum tally_outcome {
    TALLY_UP,             /* got its 140 and stayed for as long as it should */
    TALLY_SILENT_DROPPED, /* was silent on purpose and got its 408 */
    TALLY_CONNECT_FAILED, /* no connection; detail: errno */
    TALLY_TLS_FAILED,     /* no 140, because of TLS; detail: enum tls_failure */
    TALLY_REFUSED,        /* a 4xx before 140; detail: the code */
    TALLY_LOST_EARLY,     /* the connection ended before 140 without a 4xx; detail: errno or 0 */
    TALLY_TIMED_OUT,      /* no 140 in time: given up by us */
    TALLY_DROPPED,        /* a 4xx after 140; detail: the code */
    TALLY_LOST,           /* the connection ended after 140 without a 4xx; detail: errno or 0 */
    TALLY_VIOLATED,       /* the server sent what it may not send */
    TALLY_INTERRUPTED,    /* was waiting for its 140 when the run was stopped */
    TALLY_NOT_STARTED,    /* its turn had not come when the run was stopped */
    TALLY_OUTCOME_COUNT
};

/* What the detail of an outcome is. */
enum tally_detail { TALLY_NOTHING, TALLY_CODE, TALLY_ERRNO, TALLY_TLS_FAILURE };

struct tally_outcome_info {
    const char *name; /* one word, for programs */
    const char *text; /* for people */
    enum tally_detail detail;
    bool failure; /* of a client that should have stayed up */
};

/* The parts of a handshake that are measured apart. */
enum tally_phase {
    TALLY_HANDSHAKE,    /* from when the connect was due until 140 */
    TALLY_LATE,         /* from when the connect was due until it was started: our own lag */
    TALLY_TCP_CONNECT,  /* from the start until the connection was up */
    TALLY_TLS,          /* from then until the TLS handshake was done */
    TALLY_FIRST_PROMPT, /* from then until 110 */
    TALLY_LOGIN,        /* from 110 until 140 */
    TALLY_PHASE_COUNT
};

struct tally_phase_info {
    const char *name;
    const char *text;
};

/* Codes end below 1000, errnos far below; what is neither is counted in the last. */
#define TALLY_DETAILS 1000

/* Large: take it from calloc(); zeroed is empty. */
struct tally {
    uint64_t outcomes[TALLY_OUTCOME_COUNT][TALLY_DETAILS];
    struct histogram phases[TALLY_PHASE_COUNT]; /* microseconds; of clients that got that far */
    struct histogram keepalive_gap;             /* between two 100s of one client, microseconds */
    uint64_t keepalives;                        /* 100s that came */
    uint64_t keepalives_answered;
    uint64_t shutdowns; /* 130s that came */
    struct link_bytes bytes;
};

/* Never NULL for an outcome or phase of the enum. */
const struct tally_outcome_info *tally_outcome_info(enum tally_outcome outcome);
const struct tally_phase_info *tally_phase_info(enum tally_phase phase);

/* Counts clients that ended this way. */
void tally_count(struct tally *tally, enum tally_outcome outcome, int detail, uint64_t clients);

/* How many ended this way, whatever the detail. */
uint64_t tally_outcome(const struct tally *tally, enum tally_outcome outcome);

/* All clients that are accounted for. */
uint64_t tally_sum(const struct tally *tally);

/* Those that should have stayed up and did not. */
uint64_t tally_failures(const struct tally *tally);

/* Clients that got as far as 140. */
uint64_t tally_welcomed(const struct tally *tally);

void tally_merge(struct tally *into, const struct tally *from);

/* One row of an account: clients with the same outcome and detail. */
struct tally_row {
    enum tally_outcome outcome;
    int detail;
    uint64_t clients;
};

/*
 * Writes the rows that have clients, in the order of outcomes, then details. Returns how many there
 * are, which can be more than capacity and were then not all written.
 */
size_t tally_rows(const struct tally *tally, struct tally_row *rows, size_t capacity);

#endif
