/*
 * What follows from a configuration, at the start as at each reload: how much room there is, which
 * options that makes, what should be warned of.
 */
#include "main/daemon.h"

#include "base/log.h"
#include "main/host.h"

#include <stdio.h>

/* A certificate that ends in less than this is warned of, at the start and then every day. */
#define EXPIRY_WARNING_DAYS 30

static void log_limits(const struct config *config, uint64_t descriptors, uint64_t room);

struct server_options daemon_server_options(const struct daemon *daemon,
                                            const struct config *config)
{
    return (struct server_options){
        .max_connections = (size_t)daemon->room,
        .drain_ms = config->drain_ms,
        .user_timeout_ms = daemon_user_timeout_ms(config),
    };
}

/* Silent connections may take half of the descriptors at most: the rest is for those that register.
 */
struct sessions_options daemon_sessions_options(const struct daemon *daemon,
                                                const struct config *config)
{
    struct sessions_options options = config->sessions;

    if (options.limits.max_pending > daemon->room / 2)
        options.limits.max_pending = daemon->room > 2 ? daemon->room / 2 : 1;
    return options;
}

unsigned daemon_user_timeout_ms(const struct config *config)
{
    const uint64_t ms = config->sessions.interval_ms * config->sessions.misses;

    return ms > INT32_MAX ? INT32_MAX : (unsigned)ms;
}

/* As many descriptors as there may be connections, or as many as we may have; says so if that is
 * news. */
void daemon_make_room(struct daemon *daemon, const struct config *config)
{
    const struct limits_options *limits = &config->sessions.limits;
    const uint64_t descriptors = host_raise_descriptors(limits->max_clients + limits->max_pending);
    const uint64_t room = host_room_for_connections(descriptors);
    const bool is_news = room != daemon->room || limits->max_clients != daemon->max_clients;

    daemon->room = room;
    daemon->max_clients = limits->max_clients;
    if (is_news)
        log_limits(config, descriptors, room);
}

void daemon_warn_of_expiry(const struct daemon *daemon)
{
    const int64_t expires = server_stats(daemon->server)->tls_expires;
    const int64_t left_s = expires - clock_now().wall_ms / 1000;

    if (expires != 0 && left_s < (int64_t)EXPIRY_WARNING_DAYS * SECONDS_A_DAY)
        log_event(LOG_LEVEL_WARN, "certificate_expires",
                  LOG_NUM("days", left_s > 0 ? left_s / SECONDS_A_DAY : 0));
}

/* No error: others may be trusted on this host, and the password is of use beyond it only. */
void daemon_warn_of_shown_passwords(const struct daemon *daemon, const struct config *config)
{
    char mend[512];

    if (!config->shows_passwords)
        return;
    snprintf(mend, sizeof(mend), "chmod o-rwx %s, or name a file with password_file", daemon->file);
    log_event(LOG_LEVEL_WARN, "passwords_shown", LOG_STR("config", daemon->file),
              LOG_STR("mend", mend));
}

static void log_limits(const struct config *config, uint64_t descriptors, uint64_t room)
{
    const uint64_t backlog = host_backlog(config->backlog);
    const uint64_t max_clients = config->sessions.limits.max_clients;

    log_event(LOG_LEVEL_INFO, "limits", LOG_NUM("descriptors", descriptors),
              LOG_NUM("clients", room < max_clients ? room : max_clients),
              LOG_NUM("max_clients", max_clients), LOG_NUM("backlog", backlog));
    if (backlog < config->backlog)
        log_event(LOG_LEVEL_WARN, "backlog_cut", LOG_NUM("wanted", config->backlog),
                  LOG_NUM("somaxconn", backlog));
}
