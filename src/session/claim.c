/*
 * Claims on IDs. A record has at most one holder, the session that has or is registering its ID,
 * and at most one probe, a newcomer that waits to hear whether the holder is alive. What the store
 * says is matched by sid and serial, so that it finds the session that asked or none.
 */
#include "session/claim.h"

#include "session/internal.h"

#include <assert.h>
#include <stdlib.h>

/* A newcomer waits to hear whether the holder of its ID is alive. Both know it through the record.
 */
struct probe {
    TAILQ_ENTRY(probe) link; /* in the order of due_us */
    struct session *newcomer;
    uint64_t due_us;
};

static bool may_claim(struct session *session, const char *id, size_t len);
static void welcome(struct session *newcomer, struct registry_record *record);
static void hold(struct session *session, struct registry_record *record);
static void contest(struct session *session, struct registry_record *record);
static void start_probe(struct session *session, struct registry_record *record);
static void end_probe(struct sessions *all, struct registry_record *record);
static void settle_record(struct sessions *all, struct registry_record *record);
static void disconnect_record(struct sessions *all, struct registry_record *record,
                              enum reason reason);

void claim_id(struct session *session, const char *id, size_t len)
{
    struct sessions *all = session->all;

    if (!may_claim(session, id, len)) {
        session_end(session, REASON_NOT_ALLOWED, all->now);
        return;
    }
    struct registry_record *record = registry_find_or_add(all->registry, id, len);
    if (!record)
        session_end(session, REASON_REGISTRY, all->now);
    else if (record->holder)
        contest(session, record);
    else
        hold(session, record);
}

void claim_answered(struct sessions *all, const struct store_answer *answer)
{
    struct registry_record *record = registry_by_sid(all->registry, answer->sid);

    assert(record && record->claims > 0); /* it is not removed while an answer is due */
    record->claims--;
    if (answer->result == STORE_OK)
        record->stored = record->row_connected = true;

    struct session *holder = record->holder;
    if (holder && holder->serial == answer->serial) {
        switch (answer->result) {
        case STORE_OK:
            (void)server_fsm_stored(&holder->fsm, &all->env);
            /* Whoever is to be told hears that right after its 140, and not before. */
            if (session_state(holder) == SERVER_FSM_CONNECTED)
                orders_client_connected(all->orders, record, all->now);
            break;
        case STORE_TAKEN:
            session_end(holder, REASON_DUPLICATE, all->now);
            break;
        case STORE_UNAVAILABLE:
            session_end(holder, REASON_REGISTRY, all->now);
            break;
        }
    } else {
        settle_record(all, record);
    }
}

void claim_holder_answered(struct registry_record *record)
{
    if (record->probe) {
        struct session *newcomer = record->probe->newcomer;
        session_end(newcomer, REASON_DUPLICATE, newcomer->all->now);
    }
}

void claim_release(struct session *session, bool was_connected, enum reason reason)
{
    struct sessions *all = session->all;
    struct registry_record *record = session->record;

    if (!record)
        return;
    session->record = NULL;
    if (record->holder != session) {
        end_probe(all, record); /* the newcomer gave up */
        return;
    }

    record->holder = NULL;
    all->held_count--;
    if (was_connected)
        disconnect_record(all, record, reason);
    if (record->probe) {
        struct session *newcomer = record->probe->newcomer;
        end_probe(all, record);
        welcome(newcomer, record);
    } else {
        settle_record(all, record);
    }
}

void claim_expire_probes(struct sessions *all)
{
    for (int i = 0; i < TICK_BUDGET; i++) {
        struct probe *probe = TAILQ_FIRST(&all->probes);
        if (!probe || all->now.mono_us < probe->due_us)
            return;

        struct registry_record *record = probe->newcomer->record;
        all->ops->look(record->holder);
        /* An answer, or an end, has ended the probe as well. */
        if (record->probe && record->probe->due_us <= all->now.mono_us)
            session_end(record->holder, REASON_REPLACED, all->now);
    }
}

uint64_t claim_next_us(const struct sessions *all)
{
    const struct probe *first = TAILQ_FIRST(&all->probes);

    return first ? first->due_us : UINT64_MAX;
}

void claim_clear(struct sessions *all)
{
    struct probe *probe;

    while ((probe = TAILQ_FIRST(&all->probes)) != NULL) {
        TAILQ_REMOVE(&all->probes, probe, link);
        free(probe);
    }
}

/*
 * By the password, as the credentials that hold now have it: a reload since it was taken may have
 * changed what it covers, or taken it away, and then it covers nothing. And by what the connection
 * has proved (docs/protocol.md, "Refusals", 422).
 */
static bool may_claim(struct session *session, const char *id, size_t len)
{
    const struct sessions *all = session->all;

    return credentials_allow(all->credentials, session->login.credential, id, len) &&
           (!all->ops->may_have_id || all->ops->may_have_id(session, id, len));
}

/* It has waited for the ID, and a reload meanwhile may say that it is not for it any more. */
static void welcome(struct session *newcomer, struct registry_record *record)
{
    if (may_claim(newcomer, record->cid, record->cid_len)) {
        hold(newcomer, record);
        return;
    }
    session_end(newcomer, REASON_NOT_ALLOWED, newcomer->all->now);
    settle_record(newcomer->all, record);
}

/* The ID is free: it belongs to this session from here on, and the store is asked to say so too. */
static void hold(struct session *session, struct registry_record *record)
{
    struct sessions *all = session->all;

    if (all->held_count >= all->options.limits.max_clients) {
        session_end(session, REASON_FULL, all->now);
        settle_record(all, record);
        return;
    }
    record->holder = session;
    session->record = record;
    all->held_count++;
    if (store_register(all->store, record, &session->peer, session->login.credential,
                       session->serial, all->now) == 0)
        record->claims++;
    else
        session_end(session, REASON_REGISTRY, all->now);
}

/* The ID has a live session already (docs/protocol.md, "Duplicate IDs"). */
static void contest(struct session *session, struct registry_record *record)
{
    struct sessions *all = session->all;
    const enum server_fsm_state holder_state = session_state(record->holder);
    const bool holder_can_answer =
        holder_state == SERVER_FSM_CONNECTED || holder_state == SERVER_FSM_LEAVING;

    switch ((enum duplicate_policy)all->options.duplicate_id) {
    case DUPLICATE_TAKEOVER:
        /* An older newcomer may still wait for a probe, from before a reload. */
        if (record->probe)
            break;
        session_end(record->holder, REASON_REPLACED, all->now);
        hold(session, record);
        return;
    case DUPLICATE_PROBE:
        if (record->probe || !holder_can_answer)
            break;
        start_probe(session, record);
        return;
    case DUPLICATE_REJECT:
        break;
    }
    session_end(session, REASON_DUPLICATE, all->now);
}

static void start_probe(struct session *session, struct registry_record *record)
{
    struct sessions *all = session->all;
    struct probe *probe = calloc(1, sizeof(*probe));

    if (!probe) {
        session_end(session, REASON_DUPLICATE, all->now);
        return;
    }
    probe->newcomer = session;
    probe->due_us = all->now.mono_us + SESSION_PROBE_MS * CLOCK_US_PER_MS;
    TAILQ_INSERT_TAIL(&all->probes, probe, link);
    record->probe = probe;
    session->record = record;
    /* Last: sending may find the holder gone, which ends the probe. */
    (void)server_fsm_ping(&record->holder->fsm, &all->env);
}

static void end_probe(struct sessions *all, struct registry_record *record)
{
    TAILQ_REMOVE(&all->probes, record->probe, link);
    record->probe->newcomer->record = NULL;
    free(record->probe);
    record->probe = NULL;
}

/*
 * Nobody holds the record any more, or one of its registrations was answered: once all of them are,
 * one that was granted to a session that had gone is given back, and a record that was made for a
 * registration which never came to be is removed.
 */
static void settle_record(struct sessions *all, struct registry_record *record)
{
    if (record->holder || record->claims > 0)
        return;
    if (record->row_connected)
        disconnect_record(all, record, REASON_LEFT);
    else if (!record->stored)
        registry_remove(all->registry, record);
}

static void disconnect_record(struct sessions *all, struct registry_record *record,
                              enum reason reason)
{
    record->last_seen = sessions_now_s(all);
    record->row_connected = false;
    registry_disconnect(all->registry, record, reason, sessions_now_s(all));
    store_disconnect(all->store, record, all->now);
}
