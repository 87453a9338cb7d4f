/*
 * Who may come in. Joins the limits (limits.c) to what is known of a newcomer's source (sources.c).
 *
 * Connections of a source are counted only while there is a limit on them, so that it costs nothing
 * without one. When a reload brings the limit, those who are there are counted by and by: a walk
 * through a million of them would hold everyone up for half a second. Each session knows in which
 * counting it was counted, so that it is given back exactly if it was.
 */
#include "session/door.h"

#include "base/hash.h"
#include "session/internal.h"
#include "session/session_log.h"

/* Records that are looked at in one go, when sessions are counted: about a millisecond. */
#define COUNT_BUDGET 2048

static bool counts(const struct sessions *all);
static void count_session(struct session *session);
static void start_counting(struct sessions *all);
static void stop_counting(struct sessions *all);
static void count_some(struct sessions *all);
static uint64_t draw(struct sessions *all);

enum reason sessions_admit(struct sessions *all, const struct peer_address *peer, struct moment now)
{
    const struct limits_options *limits = &all->options.limits;
    struct door *door = &all->door;

    if (sources_is_penalised(&door->sources, limits, peer, now))
        return REASON_TOO_MANY;
    if (counts(all) && sources_connections(&door->sources, peer) >= limits->max_per_source)
        return REASON_TOO_MANY;
    if (!limits_admit(limits, all->held_count, all->pending_count, draw(all)))
        return REASON_FULL;
    return REASON_NONE;
}

enum reason sessions_admit_tls(struct sessions *all, size_t pending)
{
    return limits_admit_tls(&all->options.limits, pending, draw(all)) ? REASON_NONE : REASON_FULL;
}

int sessions_turn_away(struct sessions *all, const struct peer_address *peer, enum reason reason,
                       struct moment now)
{
    all->now = now;
    all->counters.refused[reason]++;
    all->counters.turned_away += reason == REASON_RESOURCES;
    session_log_turned_away(all, peer, reason);
    sessions_tell_watch(
        all, &(struct session_event){.kind = SESSION_REFUSED, .reason = reason, .peer = peer});
    if (!all->options.explain_refusals)
        return 0;
    return reason == REASON_RESOURCES ? PROTO_SERVER_FULL : reason_refusal(reason);
}

size_t sessions_penalised_sources(const struct sessions *all)
{
    return all->door.sources.penalised.count;
}

size_t sessions_known_sources(const struct sessions *all)
{
    return sources_count(&all->door.sources);
}

void door_enter(struct session *session)
{
    if (counts(session->all))
        count_session(session);
}

void door_leave(struct session *session)
{
    struct door *door = &session->all->door;

    if (session->counted_in != 0 && session->counted_in == door->counting)
        sources_leave(&door->sources, &session->peer);
}

bool door_is_closed_to(const struct session *session)
{
    const struct sessions *all = session->all;

    return sources_is_penalised(&all->door.sources, &all->options.limits, &session->peer, all->now);
}

void door_note_wrong_password(struct session *session)
{
    struct sessions *all = session->all;

    const bool is_one_too_many =
        sources_note_failure(&all->door.sources, &all->options.limits, &session->peer, all->now);
    all->counters.sources_evicted = all->door.sources.evicted;
    if (!is_one_too_many)
        return;
    all->counters.penalties++;
    session_log_penalty(session);
}

void door_reload(struct sessions *all)
{
    const struct limits_options *limits = &all->options.limits;

    if (limits->auth_failures == 0)
        sources_forgive(&all->door.sources);
    if (limits->max_per_source == 0)
        stop_counting(all);
    else if (!counts(all))
        start_counting(all);
}

uint64_t door_next_us(const struct sessions *all)
{
    return all->door.is_behind ? all->now.mono_us : UINT64_MAX;
}

void door_tick(struct sessions *all)
{
    if (all->door.is_behind)
        count_some(all);
}

void door_keep_house(struct sessions *all)
{
    sources_expire(&all->door.sources, &all->options.limits, all->now);
}

static bool counts(const struct sessions *all)
{
    return all->door.counting != 0;
}

/* Who is not counted for want of memory is let in all the same. */
static void count_session(struct session *session)
{
    struct door *door = &session->all->door;

    if (session->counted_in != door->counting && sources_enter(&door->sources, &session->peer))
        session->counted_in = door->counting;
}

/* Those who are on their way are few, and have no record by which they could be found later. */
static void start_counting(struct sessions *all)
{
    struct session *session;

    all->door.counting = ++all->door.last_counting;
    for (session = TAILQ_FIRST(&all->pending); session; session = TAILQ_NEXT(session, pending))
        count_session(session);
    all->door.is_behind = true;
    all->door.counted_sid = 0;
    count_some(all);
}

static void stop_counting(struct sessions *all)
{
    if (!counts(all))
        return;
    all->door.counting = 0;
    all->door.is_behind = false;
    sources_stop_counting(&all->door.sources);
}

/* By sid: a session keeps its own, and who gets one from here on was counted when it came. */
static void count_some(struct sessions *all)
{
    for (int i = 0; i < COUNT_BUDGET; i++) {
        const struct registry_record *record = registry_next(all->registry, all->door.counted_sid);
        if (!record) {
            all->door.is_behind = false;
            return;
        }
        all->door.counted_sid = record->sid;
        if (record->holder)
            count_session(record->holder);
    }
}

/* 64 bits that no peer can foresee, not even from what it may learn of those that hash_number()
 * gives for other things. */
static uint64_t draw(struct sessions *all)
{
    const uint64_t input[] = {all->door.draws++, UINT64_C(0x64726177)};

    return hash_bytes(input, sizeof(input));
}
