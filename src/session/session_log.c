/*
 * The words for what happens to sessions. Clients cause these events, so each kind is written a few
 * times a second and counted beyond that. A line that a client sent is logged only where it is no
 * password.
 */
#include "session/session_log.h"

#include "session/internal.h"

#include <string.h>
#include <time.h>

#define TIME_TEXT_BYTES 32

void session_log_connected(struct session *session)
{
    const struct registry_record *record = session->record;
    char ip[ADDRESS_TEXT_BYTES];

    if (!log_limit_allows(&session->all->log.connected, session->all->now.mono_us))
        return;
    log_event(LOG_LEVEL_INFO, "connected", LOG_NUM("serial", session->serial),
              LOG_STR("cid", record->cid), LOG_NUM("sid", record->sid),
              LOG_STR("cip", peer_address_format(&session->peer, ip)),
              LOG_NUM("cport", session->peer.port),
              LOG_STR("credential", credential_name(session->login.credential)),
              LOG_NUM("password", session->login.password));
}

void session_log_ended(struct session *session, enum server_fsm_state old, enum reason reason)
{
    struct sessions *all = session->all;
    const bool was_connected = old == SERVER_FSM_CONNECTED || old == SERVER_FSM_LEAVING;
    struct log_limit *limit = was_connected ? &all->log.disconnected : &all->log.refused;
    char ip[ADDRESS_TEXT_BYTES];
    const char *key = "state";
    const char *who = server_fsm_state_name(old);
    size_t len = SIZE_MAX;
    struct log_field login = LOG_NOTHING;

    if (!log_limit_allows(limit, all->now.mono_us))
        return;
    if (session->record) {
        key = "cid";
        who = session->record->cid;
    } else if (all->id_line) {
        key = "id"; /* what it said; it may be none by the grammar */
        who = all->id_line;
        len = all->id_line_len;
    }
    /* Whose password that was: for which section somebody wants more than it gives, or is twice. */
    if (!was_connected && session->login.credential != 0)
        login = (struct log_field)LOG_STR("credential", credential_name(session->login.credential));
    log_event(LOG_LEVEL_INFO, was_connected ? "disconnected" : "refused",
              LOG_NUM("serial", session->serial), LOG_BYTES(key, who, len),
              LOG_STR("reason", reason_word(reason)),
              LOG_STR("cip", peer_address_format(&session->peer, ip)),
              LOG_NUM("cport", session->peer.port), login);
}

void session_log_turned_away(struct sessions *all, const struct peer_address *peer,
                             enum reason reason)
{
    char ip[ADDRESS_TEXT_BYTES];

    if (log_limit_allows(&all->log.refused, all->now.mono_us))
        log_event(LOG_LEVEL_INFO, "refused", LOG_STR("reason", reason_word(reason)),
                  LOG_STR("cip", peer_address_format(peer, ip)), LOG_NUM("cport", peer->port));
}

void session_log_penalty(const struct session *session)
{
    struct sessions *all = session->all;
    const struct limits_options *limits = &all->options.limits;
    const time_t until = (time_t)((all->now.wall_ms + (int64_t)limits->auth_penalty_ms) / 1000);
    char source[SOURCE_TEXT_BYTES];
    char text[TIME_TEXT_BYTES];
    struct tm parts;

    if (!log_limit_allows(&all->log.penalty, all->now.mono_us))
        return;
    gmtime_r(&until, &parts);
    if (strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &parts) == 0)
        text[0] = '\0';
    log_event(LOG_LEVEL_WARN, "penalty", LOG_STR("source", source_format(&session->peer, source)),
              LOG_NUM("wrong_passwords", limits->auth_failures), LOG_STR("until", text));
}

void session_log_suppressed(struct sessions *all)
{
    struct limits_on_log *log = &all->log;

    if (log->connected.suppressed + log->disconnected.suppressed + log->refused.suppressed +
            log->penalty.suppressed ==
        0)
        return;
    log_event(LOG_LEVEL_INFO, "more", LOG_NUM("connected", log->connected.suppressed),
              LOG_NUM("disconnected", log->disconnected.suppressed),
              LOG_NUM("refused", log->refused.suppressed),
              LOG_NUM("penalty", log->penalty.suppressed),
              LOG_NUM("clients", all->connected_count));
    log->connected.suppressed = log->disconnected.suppressed = 0;
    log->refused.suppressed = log->penalty.suppressed = 0;
}
