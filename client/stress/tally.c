/* Counting. Decides which outcomes are failures; knows nothing of how they come about or are shown.
 */
#include "tally.h"

#include <assert.h>

/* clang-format off */
static const struct tally_outcome_info outcome_infos[] = {
    [TALLY_UP]             = { "up",              "stayed up",                     TALLY_NOTHING, false },
    [TALLY_SILENT_DROPPED] = { "silent_dropped",  "silent, dropped as expected",   TALLY_CODE,    false },
    [TALLY_CONNECT_FAILED] = { "connect_failed",  "connect failed",                TALLY_ERRNO,   true  },
    [TALLY_TLS_FAILED]     = { "tls_failed",      "TLS failed",                    TALLY_TLS_FAILURE, true },
    [TALLY_REFUSED]        = { "refused",         "refused",                       TALLY_CODE,    true  },
    [TALLY_LOST_EARLY]     = { "lost_early",      "lost before 140",               TALLY_ERRNO,   true  },
    [TALLY_TIMED_OUT]      = { "timed_out",       "no 140 in time, given up",      TALLY_NOTHING, true  },
    [TALLY_DROPPED]        = { "dropped",         "dropped after 140",             TALLY_CODE,    true  },
    [TALLY_LOST]           = { "lost",            "lost after 140",                TALLY_ERRNO,   true  },
    [TALLY_VIOLATED]       = { "violated",        "server broke the protocol",     TALLY_NOTHING, true  },
    [TALLY_INTERRUPTED]    = { "interrupted",     "in handshake when stopped",     TALLY_NOTHING, false },
    [TALLY_NOT_STARTED]    = { "not_started",     "not started when stopped",      TALLY_NOTHING, false },
};

static const struct tally_phase_info phase_infos[] = {
    [TALLY_HANDSHAKE]    = { "handshake",    "handshake, due to 140" },
    [TALLY_LATE]         = { "late",         "  due to connect (own lag)" },
    [TALLY_TCP_CONNECT]  = { "tcp_connect",  "  TCP connect" },
    [TALLY_TLS]          = { "tls",          "  TLS handshake" },
    [TALLY_FIRST_PROMPT] = { "first_prompt", "  connected to 110" },
    [TALLY_LOGIN]        = { "login",        "  110 to 140" },
};
/* clang-format on */

static_assert(sizeof(outcome_infos) / sizeof(outcome_infos[0]) == TALLY_OUTCOME_COUNT,
              "every outcome is described");
static_assert(sizeof(phase_infos) / sizeof(phase_infos[0]) == TALLY_PHASE_COUNT,
              "every phase is described");

const struct tally_outcome_info *tally_outcome_info(enum tally_outcome outcome)
{
    return &outcome_infos[outcome];
}

const struct tally_phase_info *tally_phase_info(enum tally_phase phase)
{
    return &phase_infos[phase];
}

void tally_count(struct tally *tally, enum tally_outcome outcome, int detail, uint64_t clients)
{
    const bool known = detail >= 0 && detail < TALLY_DETAILS;

    tally->outcomes[outcome][known ? detail : TALLY_DETAILS - 1] += clients;
}

uint64_t tally_outcome(const struct tally *tally, enum tally_outcome outcome)
{
    uint64_t clients = 0;

    for (size_t i = 0; i < TALLY_DETAILS; i++)
        clients += tally->outcomes[outcome][i];
    return clients;
}

uint64_t tally_sum(const struct tally *tally)
{
    uint64_t clients = 0;

    for (size_t i = 0; i < TALLY_OUTCOME_COUNT; i++)
        clients += tally_outcome(tally, (enum tally_outcome)i);
    return clients;
}

uint64_t tally_failures(const struct tally *tally)
{
    uint64_t clients = 0;

    for (size_t i = 0; i < TALLY_OUTCOME_COUNT; i++) {
        if (outcome_infos[i].failure)
            clients += tally_outcome(tally, (enum tally_outcome)i);
    }
    return clients;
}

uint64_t tally_welcomed(const struct tally *tally)
{
    return histogram_count(&tally->phases[TALLY_HANDSHAKE]);
}

void tally_merge(struct tally *into, const struct tally *from)
{
    for (size_t i = 0; i < TALLY_OUTCOME_COUNT; i++) {
        for (size_t j = 0; j < TALLY_DETAILS; j++)
            into->outcomes[i][j] += from->outcomes[i][j];
    }
    for (size_t i = 0; i < TALLY_PHASE_COUNT; i++)
        histogram_merge(&into->phases[i], &from->phases[i]);
    histogram_merge(&into->keepalive_gap, &from->keepalive_gap);
    into->keepalives += from->keepalives;
    into->keepalives_answered += from->keepalives_answered;
    into->shutdowns += from->shutdowns;
    into->bytes.in += from->bytes.in;
    into->bytes.out += from->bytes.out;
}

size_t tally_rows(const struct tally *tally, struct tally_row *rows, size_t capacity)
{
    size_t count = 0;

    for (size_t i = 0; i < TALLY_OUTCOME_COUNT; i++) {
        for (size_t j = 0; j < TALLY_DETAILS; j++) {
            if (tally->outcomes[i][j] == 0)
                continue;
            if (count < capacity)
                rows[count] = (struct tally_row){.outcome = (enum tally_outcome)i,
                                                 .detail = (int)j,
                                                 .clients = tally->outcomes[i][j]};
            count++;
        }
    }
    return count;
}
