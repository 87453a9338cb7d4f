/*
 * Which answer belongs to which question. A client answers its questions in their order, so a ping
 * waits for as many answers as questions were open before it. A sloppy client, which answers two
 * questions that came in one segment once, is forgiven: when the time is over, the answer that it
 * did give counts.
 */
#include "session/ping.h"

#include "session/internal.h"

static unsigned questions_open(const struct session *session);
static void finish(struct ping *ping, enum ping_result result, uint64_t heard_us);

void ping_start(struct sessions *all, struct registry_record *record, struct ping *ping,
                struct moment now)
{
    struct session *session = record->holder;

    all->now = now;
    ping->session = session;
    ping->sent_us = now.mono_us;
    ping->due_us = now.mono_us + PING_TIMEOUT_MS * CLOCK_US_PER_MS;
    ping->heard_us = 0;
    ping->ahead = questions_open(session);
    TAILQ_INSERT_TAIL(&all->pings, ping, link);
    (void)server_fsm_ping(&session->fsm, &all->env);
}

void ping_cancel(struct sessions *all, struct ping *ping)
{
    TAILQ_REMOVE(&all->pings, ping, link);
}

void ping_note_answer(struct session *session)
{
    struct sessions *all = session->all;
    struct ping *next = TAILQ_FIRST(&all->pings);

    while (next) {
        struct ping *ping = next;
        next = TAILQ_NEXT(ping, link);
        if (ping->session != session)
            continue;
        if (ping->heard_us == 0)
            ping->heard_us = all->now.mono_us;
        if (ping->ahead > 0)
            ping->ahead--;
        else
            finish(ping, PING_ANSWERED, all->now.mono_us);
    }
}

void ping_note_end(struct session *session)
{
    struct ping *next = TAILQ_FIRST(&session->all->pings);

    while (next) {
        struct ping *ping = next;
        next = TAILQ_NEXT(ping, link);
        if (ping->session == session)
            finish(ping, PING_LEFT, 0);
    }
}

void ping_expire(struct sessions *all)
{
    struct ping *ping;

    while ((ping = TAILQ_FIRST(&all->pings)) != NULL && all->now.mono_us >= ping->due_us) {
        struct session *session = ping->session;

        /* After a stall of ours the answer waits in the kernel. It may end the ping. */
        all->ops->look(session);
        if (TAILQ_FIRST(&all->pings) != ping)
            continue;
        finish(ping, ping->heard_us != 0 ? PING_ANSWERED : PING_TIMED_OUT, ping->heard_us);
    }
}

uint64_t ping_next_us(const struct sessions *all)
{
    const struct ping *first = TAILQ_FIRST(&all->pings);

    return first ? first->due_us : UINT64_MAX;
}

/* How many answers are still to come before the one to a question that is asked now. A regular one
 * that was let pass for a whole interval will hardly be answered any more. */
static unsigned questions_open(const struct session *session)
{
    const struct sessions *all = session->all;
    const struct ping *last = NULL;
    const struct ping *ping = NULL;

    TAILQ_FOREACH (ping, &all->pings, link) {
        if (ping->session == session)
            last = ping;
    }
    if (last)
        return last->ahead + 1;
    return session->since_us != 0 &&
           all->now.mono_us - session->since_us < all->options.interval_ms * CLOCK_US_PER_MS;
}

static void finish(struct ping *ping, enum ping_result result, uint64_t heard_us)
{
    TAILQ_REMOVE(&ping->session->all->pings, ping, link);
    ping->done(ping, result, result == PING_ANSWERED ? heard_us - ping->sent_us : 0);
}
