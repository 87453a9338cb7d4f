/* Who may come in: limits on how many there are, decided before anything is allocated for a
 * newcomer. */
#ifndef SESSION_LIMITS_H
#define SESSION_LIMITS_H

#include <stdbool.h>
#include <stdint.h>

struct limits_options {
    uint64_t max_clients;     /* that are registered or being registered, 1 or more */
    uint64_t max_pending;     /* sessions that are not yet registered, 1 or more */
    uint64_t max_tls_pending; /* of those, the ones whose TLS handshake is not done, 1 or more */
    /* Of one source (session/sources.h). */
    uint64_t max_per_source;  /* sessions; 0: no limit */
    uint64_t auth_failures;   /* wrong passwords that bring a penalty; 0: none do */
    uint64_t auth_penalty_ms; /* that long, and as long are they added up; 1 or more */
};

/*
 * May one more connection become a session while there are that many clients and that many sessions
 * not yet registered? Those do not count as clients, or a few silent ones could fill a small
 * max_clients. From half of max_pending on a growing share is turned away at random, all of them at
 * max_pending, so that a flood of silent connections cannot lock everyone out
 * (docs/protocol.md, "Refusals", 450). random is 64 random bits, used once.
 */
bool limits_admit(const struct limits_options *limits, uint64_t clients, uint64_t pending,
                  uint64_t random);

/* The same rule for one more TLS handshake, which takes far more memory than a session, while there
 * are that many (docs/configuration.md, max_tls_pending). */
bool limits_admit_tls(const struct limits_options *limits, uint64_t pending, uint64_t random);

#endif
