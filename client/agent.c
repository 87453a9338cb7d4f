/*
 * cliser-agent: keeps one machine connected and shuts it down on a 130. Decides when to connect,
 * when to give up and for how long to pause; the protocol is client_fsm.c's, carrying out an order
 * is agent_order.c's.
 *
 * An order starts in one place only, agent_on_shutdown(), which the link calls for a 130 in a
 * session that reached 140. No end of a session, no refusal and no signal leads there.
 */
#include "agent_config.h"
#include "agent_order.h"
#include "backoff.h"
#include "endpoint.h"
#include "link.h"

#include "base/container_of.h"
#include "base/log.h"
#include "base/std_fds.h"
#include "tls/spare.h"

#include <event2/event.h>
#include <sodium.h>

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROGRAM "cliser-agent"

/* A server that takes longer to answer is not one to wait for; its own deadline is shorter. */
#define HANDSHAKE_TIMEOUT_S 30

enum exit_status {
    EXIT_DONE = 0,
    EXIT_FAILED = 1,
    EXIT_USAGE = 2,
};

/* How far this attempt has come. */
enum progress {
    PROGRESS_NONE,
    PROGRESS_OPENED,    /* a connection is there, with TLS if it is to have that */
    PROGRESS_CONNECTED, /* 140 */
};

struct agent {
    struct agent_config config;
    struct event_base *base;
    struct link_env env;
    struct link link;
    struct endpoint_addresses addresses; /* of this attempt */
    size_t next_address;
    enum progress progress;
    struct backoff backoff;
    struct agent_order *order;
    struct event *connect_due;
    struct event *handshake_overdue;
    struct event *signals[3];
    enum exit_status status;
};

static void agent_on_opened(struct link *link);
static void agent_on_secured(struct link *link);
static void agent_on_received(struct link *link, int code);
static void agent_on_changed(struct link *link, enum client_fsm_state old);
static void agent_on_shutdown(struct link *link);
static void agent_on_ended(struct link *link, int error);

static const struct link_ops link_ops = {
    .opened = agent_on_opened,
    .secured = agent_on_secured,
    .received = agent_on_received,
    .changed = agent_on_changed,
    .shutdown = agent_on_shutdown,
    .ended = agent_on_ended,
};

static const int signal_numbers[] = {SIGTERM, SIGINT, SIGHUP};

static_assert(sizeof(signal_numbers) / sizeof(signal_numbers[0]) ==
                  sizeof((struct agent){0}.signals) / sizeof((struct agent){0}.signals[0]),
              "every signal has its event");

static int agent_init(struct agent *agent);
static void agent_clear(struct agent *agent);
static void agent_on_connect_due(evutil_socket_t fd, short what, void *arg);
static void agent_on_handshake_overdue(evutil_socket_t fd, short what, void *arg);
static void agent_on_signal(evutil_socket_t signal_number, short what, void *arg);
static void agent_on_order_done(void *owner, bool ok);
static const char *word_tls_failure(const struct link *link, char *text, size_t size);
static void connect_next(struct agent *agent);
static void attempt_over(struct agent *agent, enum proto_retry retry, int code, const char *reason);
static void session_over(struct agent *agent, enum proto_retry retry, int code, const char *reason);
static void try_again(struct agent *agent, enum proto_retry retry);
static const char *retry_name(enum proto_retry retry);
static void stop(struct agent *agent, enum exit_status status);
static struct agent *agent_of(struct link *link);

int main(int argc, char **argv)
{
    struct agent agent = {.status = EXIT_DONE};

    std_fds_fill();
    spare_install();
    switch (agent_config_read(&agent.config, argc, argv)) {
    case AGENT_CONFIG_RUN:
        break;
    case AGENT_CONFIG_DONE:
        agent_config_clear(&agent.config);
        return EXIT_DONE;
    case AGENT_CONFIG_WRONG:
        agent_config_clear(&agent.config);
        return EXIT_USAGE;
    }

    if (agent_init(&agent) == 0) {
        log_event(LOG_LEVEL_INFO, "start", LOG_STR("version", CLISER_VERSION),
                  LOG_STR("server", agent.config.server), LOG_STR("cid", agent.config.id));
        event_active(agent.connect_due, EV_TIMEOUT, 0);
        event_base_dispatch(agent.base);
    } else {
        fprintf(stderr, PROGRAM ": cannot set up the event loop\n");
        agent.status = EXIT_FAILED;
    }
    agent_clear(&agent);
    return (int)agent.status;
}

static int agent_init(struct agent *agent)
{
    const struct log_options log = {.program = PROGRAM, .level = LOG_LEVEL_INFO};
    struct event_config *settings = event_config_new();

    (void)log_open(&log); /* stderr is always there */
    signal(SIGPIPE, SIG_IGN);
    if (sodium_init() < 0 || !settings)
        return -1;
    /* The environment is not a place to choose how events are waited for. The coarse clock that
     * libevent would use may end a delay some milliseconds early. */
    event_config_set_flag(settings, EVENT_BASE_FLAG_IGNORE_ENV | EVENT_BASE_FLAG_NOLOCK |
                                        EVENT_BASE_FLAG_PRECISE_TIMER);
    agent->base = event_base_new_with_config(settings);
    event_config_free(settings);
    if (!agent->base)
        return -1;

    agent->env = (struct link_env){
        .base = agent->base, .ops = &link_ops, .tls = agent->config.tls, .tcp_keepalive = true};
    agent->order = agent_order_new(&(struct agent_order_options){
        .base = agent->base,
        .command = agent->config.on_shutdown,
        .delay_ms = agent->config.shutdown_delay_ms,
        .done = agent_on_order_done,
        .owner = agent,
    });
    agent->connect_due = evtimer_new(agent->base, agent_on_connect_due, agent);
    agent->handshake_overdue = evtimer_new(agent->base, agent_on_handshake_overdue, agent);
    if (!agent->order || !agent->connect_due || !agent->handshake_overdue)
        return -1;

    for (size_t i = 0; i < sizeof(signal_numbers) / sizeof(signal_numbers[0]); i++) {
        agent->signals[i] = evsignal_new(agent->base, signal_numbers[i], agent_on_signal, agent);
        if (!agent->signals[i] || event_add(agent->signals[i], NULL) != 0)
            return -1;
    }
    return 0;
}

static void agent_clear(struct agent *agent)
{
    link_close(&agent->link);
    agent_order_free(agent->order);
    if (agent->connect_due)
        event_free(agent->connect_due);
    if (agent->handshake_overdue)
        event_free(agent->handshake_overdue);
    for (size_t i = 0; i < sizeof(agent->signals) / sizeof(agent->signals[0]); i++) {
        if (agent->signals[i])
            event_free(agent->signals[i]);
    }
    if (agent->base)
        event_base_free(agent->base);
    agent_config_clear(&agent->config);
    log_close();
}

/*
 * The name is looked up anew for each attempt, because servers move. getaddrinfo() may keep us
 * waiting for as long as resolv.conf says, some seconds; that delays nothing but this attempt, and
 * at worst an order whose session was lost meanwhile, since without a session nobody waits for an
 * answer.
 */
static void agent_on_connect_due(evutil_socket_t fd, short what, void *arg)
{
    struct agent *agent = arg;
    const char *failed = endpoint_resolve(&agent->config.endpoint, &agent->addresses);
    char reason[ENDPOINT_MAX_HOST_BYTES + 128];

    (void)fd;
    (void)what;
    /* Timers count from when the loop last looked at the clock, which was before the resolver's
     * wait. */
    event_base_update_cache_time(agent->base);
    if (failed) {
        snprintf(reason, sizeof(reason), "cannot resolve %s: %s", agent->config.endpoint.host,
                 failed);
        session_over(agent, PROTO_RETRY_BACK_OFF, 0, reason);
        return;
    }
    agent->next_address = 0;
    connect_next(agent);
}

/* Tries the addresses one after the other: "localhost" may mean ::1 while the server listens on
 * 127.0.0.1 only. */
static void connect_next(struct agent *agent)
{
    static const struct timeval timeout = {.tv_sec = HANDSHAKE_TIMEOUT_S};
    const struct address *address = &agent->addresses.items[agent->next_address++];
    const struct link_target target = {
        .server = (const struct sockaddr *)&address->storage,
        .server_len = address->len,
    };

    agent->progress = PROGRESS_NONE;
    if (link_open(&agent->link, &agent->env, &target, agent->config.password, agent->config.id) !=
        0) {
        attempt_over(agent, PROTO_RETRY_BACK_OFF, 0, strerror(errno));
    } else if (event_add(agent->handshake_overdue, &timeout) != 0) {
        link_close(&agent->link);
        attempt_over(agent, PROTO_RETRY_BACK_OFF, 0, "no memory for a timer");
    }
}

static struct agent *agent_of(struct link *link)
{
    return container_of(link, struct agent, link);
}

static void agent_on_opened(struct link *link)
{
    if (!link->env->tls)
        agent_of(link)->progress = PROGRESS_OPENED;
}

static void agent_on_secured(struct link *link)
{
    agent_of(link)->progress = PROGRESS_OPENED;
}

/* A keep-alive tells that the session lasts. 140 alone does not: a server that welcomes everybody
 * and then dies would have all its agents back at once, again and again. */
static void agent_on_received(struct link *link, int code)
{
    if (code == PROTO_KEEP_ALIVE && link->fsm.state == CLIENT_FSM_CONNECTED)
        backoff_reset(&agent_of(link)->backoff);
}

static void agent_on_changed(struct link *link, enum client_fsm_state old)
{
    struct agent *agent = agent_of(link);
    char server[ADDRESS_TEXT_BYTES];

    (void)old;
    if (link->fsm.state != CLIENT_FSM_CONNECTED)
        return;
    event_del(agent->handshake_overdue);
    agent->progress = PROGRESS_CONNECTED;
    address_format(&agent->addresses.items[agent->next_address - 1], server);
    if (link_tls_version(link))
        log_event(LOG_LEVEL_INFO, "connected", LOG_STR("server", server),
                  LOG_STR("tls", link_tls_version(link)));
    else
        log_event(LOG_LEVEL_INFO, "connected", LOG_STR("server", server));
}

/* The answer has left already: the delay and the command may do what they like. */
static void agent_on_shutdown(struct link *link)
{
    agent_order_start(agent_of(link)->order);
}

static void agent_on_ended(struct link *link, int error)
{
    const int why = client_fsm_why(&link->fsm);
    const char *reason = "the server closed the connection";
    char tls_reason[256];

    event_del(agent_of(link)->handshake_overdue);
    if (why == CLIENT_FSM_WHY_PROTOCOL)
        reason = "the server sent what it may not send here; is it a cliser server?";
    else if (why != CLIENT_FSM_WHY_LOST)
        reason = proto_code_info(why) ? proto_code_info(why)->text : "refused";
    else if (link->tls_failure != TLS_FAILURE_NONE)
        reason = word_tls_failure(link, tls_reason, sizeof(tls_reason));
    else if (error != 0)
        reason = strerror(error);
    attempt_over(agent_of(link), client_fsm_retry(&link->fsm), why > 0 ? why : 0, reason);
}

/* In our words, and in OpenSSL's, which can be looked up. */
static const char *word_tls_failure(const struct link *link, char *text, size_t size)
{
    const char *words = tls_client_last_words();

    snprintf(text, size, "TLS: %s%s%s%s", tls_failure_text(link->tls_failure), words[0] ? " (" : "",
             words, words[0] ? ")" : "");
    return text;
}

static void agent_on_handshake_overdue(evutil_socket_t fd, short what, void *arg)
{
    struct agent *agent = arg;

    (void)fd;
    (void)what;
    link_close(&agent->link);
    attempt_over(agent, PROTO_RETRY_BACK_OFF, 0, "the handshake was not finished in time");
}

/* One address is done with: another one of the same server, or none. */
static void attempt_over(struct agent *agent, enum proto_retry retry, int code, const char *reason)
{
    if (agent->progress == PROGRESS_NONE && agent->next_address < agent->addresses.count)
        connect_next(agent);
    else
        session_over(agent, retry, code, reason);
}

static void session_over(struct agent *agent, enum proto_retry retry, int code, const char *reason)
{
    const char *event = "not_connected";

    if (agent->progress == PROGRESS_CONNECTED)
        event = "disconnected";
    else if (code > 0)
        event = "refused";
    if (code > 0)
        log_event(LOG_LEVEL_WARN, event, LOG_NUM("code", code), LOG_STR("reason", reason));
    else
        log_event(LOG_LEVEL_WARN, event, LOG_STR("reason", reason));
    agent->progress = PROGRESS_NONE;

    if (!agent->config.once) {
        try_again(agent, retry);
    } else if (!agent_order_is_active(agent->order)) {
        fprintf(stderr, PROGRAM ": no order came: %s\n", reason);
        stop(agent, EXIT_FAILED);
    }
}

static void try_again(struct agent *agent, enum proto_retry retry)
{
    uint64_t random;

    randombytes_buf(&random, sizeof(random));
    const uint64_t pause_ms = backoff_next_ms(&agent->backoff, retry, random);
    const struct timeval pause = {
        .tv_sec = (time_t)(pause_ms / 1000),
        .tv_usec = (suseconds_t)(pause_ms % 1000 * 1000),
    };

    log_event(LOG_LEVEL_INFO, "retry", LOG_NUM("pause_ms", pause_ms),
              LOG_STR("kind", retry_name(retry)), LOG_NUM("tries", agent->backoff.tries));
    if (event_add(agent->connect_due, &pause) != 0)
        stop(agent, EXIT_FAILED);
}

static const char *retry_name(enum proto_retry retry)
{
    switch (retry) {
    case PROTO_RETRY_LONG_PAUSE:
        return "long_pause";
    case PROTO_RETRY_SPREAD:
        return "spread";
    case PROTO_RETRY_NONE:
    case PROTO_RETRY_BACK_OFF:
        break;
    }
    return "back_off";
}

static void agent_on_order_done(void *owner, bool ok)
{
    struct agent *agent = owner;

    /* Otherwise stay: until the machine is down, the server should see it. */
    if (agent->config.once)
        stop(agent, ok ? EXIT_DONE : EXIT_FAILED);
}

static void agent_on_signal(evutil_socket_t signal_number, short what, void *arg)
{
    const char *name = strsignal((int)signal_number);

    (void)what;
    if (signal_number == SIGHUP) {
        /* Often sent to make a daemon read its files again, or by a terminal that is closed.
         * Neither is a reason to leave the machine without its agent. */
        log_event(LOG_LEVEL_INFO, "signal", LOG_STR("signal", name),
                  LOG_STR("note", "ignored; start the agent again to change its configuration"));
        return;
    }
    log_event(LOG_LEVEL_INFO, "stop", LOG_STR("signal", name));
    stop(arg, EXIT_DONE);
}

static void stop(struct agent *agent, enum exit_status status)
{
    agent->status = status;
    event_base_loopbreak(agent->base);
}
