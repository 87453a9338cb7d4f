/* The table of reasons. */
#include "registry/reason.h"

#include "cliser/proto.h"

#include <assert.h>
#include <string.h>

struct row {
    const char *word;
    int refusal;
};

/* clang-format off */
static const struct row rows[] = {
    [REASON_NONE]       = { "",           0 },
    [REASON_LEFT]       = { "left",       0 },
    [REASON_RESET]      = { "reset",      0 },
    [REASON_SHUTDOWN]   = { "shutdown",   0 },
    [REASON_SLOW]       = { "slow",       0 },
    [REASON_STOPPED]    = { "stopped",    0 },
    [REASON_CRASH]      = { "crash",      0 },
    [REASON_RESOURCES]  = { "resources",  0 },
    [REASON_PROTOCOL]   = { "protocol",   PROTO_PROTOCOL_ERROR },
    [REASON_TIMED_OUT]  = { "timed_out",  PROTO_TIMED_OUT },
    [REASON_PASSWORD]   = { "password",   PROTO_WRONG_PASSWORD },
    [REASON_INVALID_ID] = { "invalid_id", PROTO_INVALID_ID },
    [REASON_DUPLICATE]  = { "duplicate",  PROTO_ID_IN_USE },
    [REASON_NOT_ALLOWED] = { "not_allowed", PROTO_ID_NOT_ALLOWED },
    [REASON_TOO_MANY]   = { "too_many",   PROTO_TOO_MANY },
    [REASON_TLS]        = { "tls",        0 },
    [REASON_OPERATOR]   = { "operator",   PROTO_DISCONNECTED },
    [REASON_REPLACED]   = { "replaced",   PROTO_REPLACED },
    [REASON_FULL]       = { "full",       PROTO_SERVER_FULL },
    [REASON_REGISTRY]   = { "registry",   PROTO_REGISTRY_UNAVAILABLE },
    [REASON_RESTARTING] = { "restarting", PROTO_RESTARTING },
};
/* clang-format on */

static_assert(sizeof(rows) / sizeof(rows[0]) == REASON_COUNT, "every reason has a row");

const char *reason_word(enum reason reason)
{
    return rows[reason].word;
}

int reason_refusal(enum reason reason)
{
    return rows[reason].refusal;
}

enum reason reason_of_refusal(int code)
{
    for (int i = 0; i < REASON_COUNT; i++) {
        if (rows[i].refusal == code && code != 0)
            return (enum reason)i;
    }
    assert(!"a refusal that no reason has");
    return REASON_PROTOCOL;
}

enum reason reason_parse(const char *word)
{
    for (int i = 0; i < REASON_COUNT; i++) {
        if (strcmp(rows[i].word, word) == 0)
            return (enum reason)i;
    }
    return REASON_NONE;
}
