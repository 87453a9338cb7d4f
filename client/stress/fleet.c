/*
 * Translates between the plan, which knows what is due, the links, which do it, and the tally.
 * Decides nothing about timing or about what counts as a failure. Every client struct lives as long
 * as the fleet; with churn it serves one client after the other.
 */
#include "fleet.h"

#include "base/clock.h"
#include "base/container_of.h"
#include "cliser/proto.h"
#include "link.h"
#include "tally.h"

#include <event2/event.h>

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include <sys/queue.h>

/* So many connects are started before the loop looks at its sockets again: a burst must not delay
 * the reading of answers, which would be measured as the server's slowness. */
#define STARTS_PER_TURN 16

enum stage {
    STAGE_IDLE,      /* not yet used, or free for the next */
    STAGE_HANDSHAKE, /* in fleet->handshakes */
    STAGE_UP,
};

struct client {
    struct link link;
    TAILQ_ENTRY(client) entry; /* in fleet->handshakes or fleet->idle */
    struct fleet *fleet;
    /* Microseconds since the start of the run. */
    uint64_t due_us;
    uint64_t started_us;
    uint64_t opened_us;
    uint64_t secured_us; /* opened_us without TLS */
    uint64_t prompted_us;
    uint64_t asked_us; /* when the last 100 came */
    bool opened;
    bool prompted;
    bool asked;
    bool silent;
    uint8_t stage; /* enum stage */
    char id[PROTO_MAX_ID_BYTES + 1];
};

TAILQ_HEAD(client_list, client);

struct fleet {
    struct fleet_options options;
    struct plan plan;
    struct tally *tally;
    fleet_phase_fn *on_phase;
    void *arg;
    struct event_base *base;
    struct link_env link_env;
    const struct client_fsm_ops *spoken; /* those of every link; known once one was opened */
    struct client_fsm_ops mute;          /* the same, but nothing is sent */
    struct event *pace;                  /* the next connect is due */
    struct event *give_up;               /* the oldest handshake has taken too long */
    struct event *hold_over;
    struct client *clients;
    uint64_t client_count;
    struct client_list handshakes; /* oldest first */
    struct client_list idle;
    enum fleet_phase phase;
    bool interrupted;
    bool over; /* the loop is to end */
    uint64_t epoch_us;
    uint64_t connecting_us;
    uint64_t first_welcome_us;
    uint64_t last_welcome_us;
    uint64_t hold_began_us;
    uint64_t held_us;
    uint64_t elapsed_us;
    uint64_t up;
    uint64_t up_most;
    const char *tls_version; /* of the first one that came so far; a constant of OpenSSL */
};

static void client_on_opened(struct link *link);
static void client_on_secured(struct link *link);
static void client_on_received(struct link *link, int code);
static void client_on_changed(struct link *link, enum client_fsm_state old);
static void client_on_ended(struct link *link, int error);

static const struct link_ops client_ops = {
    .opened = client_on_opened,
    .secured = client_on_secured,
    .received = client_on_received,
    .changed = client_on_changed,
    .ended = client_on_ended,
};

static int make_events(struct fleet *fleet);
static int make_clients(struct fleet *fleet);
static void fleet_on_pace(evutil_socket_t fd, short what, void *arg);
static void fleet_on_give_up(evutil_socket_t fd, short what, void *arg);
static void fleet_on_hold_over(evutil_socket_t fd, short what, void *arg);
static void start_client(struct fleet *fleet);
static int open_client(struct client *client, uint64_t number);
static void take_welcome(struct client *client);
static void take_keep_alive(struct client *client);
static void set_mute(struct client *client, bool mute);
static void send_nothing(struct client_fsm *fsm, const char *bytes, size_t len);
static void classify_end(const struct client *client, int error, enum tally_outcome *outcome,
                         int *detail);
static void leave_handshake(struct client *client);
static void settle(struct client *client, enum tally_outcome outcome, int detail);
static void look_for_end(struct fleet *fleet);
static void begin_hold(struct fleet *fleet);
static void finish(struct fleet *fleet);
static void close_all(struct fleet *fleet);
static void arm_pace(struct fleet *fleet);
static void arm_give_up(struct fleet *fleet);
static void arm(struct event *event, uint64_t wait_us);
static uint64_t now_us(const struct fleet *fleet);

uint64_t fleet_size(const struct fleet_options *options)
{
    const uint64_t clients = options->plan.clients;
    const uint64_t inflight = options->plan.inflight;

    return options->churn && inflight < clients ? inflight : clients;
}

struct fleet *fleet_new(struct event_base *base, const struct fleet_options *options,
                        struct tally *tally, fleet_phase_fn *on_phase, void *arg)
{
    struct fleet *fleet = calloc(1, sizeof(*fleet));

    if (!fleet)
        return NULL;
    fleet->options = *options;
    fleet->tally = tally;
    fleet->on_phase = on_phase;
    fleet->arg = arg;
    fleet->base = base;
    fleet->link_env = (struct link_env){
        .base = base, .ops = &client_ops, .tls = options->tls, .bytes = &tally->bytes};
    plan_init(&fleet->plan, &options->plan);
    TAILQ_INIT(&fleet->handshakes);
    TAILQ_INIT(&fleet->idle);

    if (make_events(fleet) < 0 || make_clients(fleet) < 0) {
        fleet_free(fleet);
        return NULL;
    }
    return fleet;
}

void fleet_free(struct fleet *fleet)
{
    if (!fleet)
        return;
    for (uint64_t i = 0; i < fleet->client_count; i++)
        link_close(&fleet->clients[i].link);
    free(fleet->clients);
    if (fleet->pace)
        event_free(fleet->pace);
    if (fleet->give_up)
        event_free(fleet->give_up);
    if (fleet->hold_over)
        event_free(fleet->hold_over);
    free(fleet);
}

int fleet_run(struct fleet *fleet)
{
    fleet->epoch_us = clock_monotonic_us();
    fleet->on_phase(fleet->arg, FLEET_CONNECTING);
    arm(fleet->pace, 0);

    /* Every end comes from a callback, through finish(). */
    const int result = event_base_dispatch(fleet->base);
    if (!fleet->over)
        finish(fleet);

    fleet->phase = FLEET_CLOSING;
    fleet->on_phase(fleet->arg, FLEET_CLOSING);
    close_all(fleet);
    return result < 0 ? -1 : 0;
}

void fleet_interrupt(struct fleet *fleet)
{
    fleet->interrupted = true;
    finish(fleet);
}

void fleet_progress(const struct fleet *fleet, struct fleet_progress *progress)
{
    const uint64_t elapsed_us = fleet->over ? fleet->elapsed_us : now_us(fleet);

    *progress = (struct fleet_progress){
        .phase = fleet->phase,
        .interrupted = fleet->interrupted,
        .elapsed_us = elapsed_us,
        .connecting_us = fleet->connecting_us > 0 ? fleet->connecting_us : elapsed_us,
        .held_us = fleet->held_us,
        .welcoming_us = fleet->last_welcome_us - fleet->first_welcome_us,
        .started = fleet->plan.started,
        .unfinished = plan_unfinished(&fleet->plan),
        .welcomed = tally_welcomed(fleet->tally),
        .up = fleet->up,
        .up_most = fleet->up_most,
        .tls_version = fleet->tls_version,
    };
}

static int make_events(struct fleet *fleet)
{
    fleet->pace = evtimer_new(fleet->base, fleet_on_pace, fleet);
    fleet->give_up = evtimer_new(fleet->base, fleet_on_give_up, fleet);
    fleet->hold_over = evtimer_new(fleet->base, fleet_on_hold_over, fleet);
    return fleet->pace && fleet->give_up && fleet->hold_over ? 0 : -1;
}

static int make_clients(struct fleet *fleet)
{
    const uint64_t count = fleet_size(&fleet->options);

    fleet->clients = calloc(count, sizeof(*fleet->clients));
    if (!fleet->clients)
        return -1;
    fleet->client_count = count;
    for (uint64_t i = 0; i < count; i++) {
        fleet->clients[i].fleet = fleet;
        TAILQ_INSERT_TAIL(&fleet->idle, &fleet->clients[i], entry);
    }
    return 0;
}

static void fleet_on_pace(evutil_socket_t fd, short what, void *arg)
{
    struct fleet *fleet = arg;

    (void)fd;
    (void)what;
    for (int i = 0; i < STARTS_PER_TURN && plan_startable(&fleet->plan, now_us(fleet)) > 0; i++)
        start_client(fleet);
    arm_pace(fleet);
    look_for_end(fleet);
}

static void fleet_on_give_up(evutil_socket_t fd, short what, void *arg)
{
    struct fleet *fleet = arg;
    struct client *client = TAILQ_FIRST(&fleet->handshakes);

    (void)fd;
    (void)what;
    while (client && now_us(fleet) - client->started_us >= fleet->options.timeout_us) {
        link_close(&client->link);
        settle(client, TALLY_TIMED_OUT, 0);
        client = TAILQ_FIRST(&fleet->handshakes);
    }
    arm_give_up(fleet);
}

static void fleet_on_hold_over(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    finish(arg);
}

static void start_client(struct fleet *fleet)
{
    struct client *client = TAILQ_FIRST(&fleet->idle);
    const uint64_t number = plan_start(&fleet->plan);

    /* There is one client for each that may exist at once, so one is idle. */
    assert(client);
    TAILQ_REMOVE(&fleet->idle, client, entry);
    TAILQ_INSERT_TAIL(&fleet->handshakes, client, entry);
    client->stage = STAGE_HANDSHAKE;
    client->started_us = now_us(fleet);
    client->due_us = plan_due_us(&fleet->plan, number, client->started_us);
    client->silent = plan_is_silent(&fleet->plan, number);
    client->opened = client->prompted = client->asked = false;

    histogram_record(&fleet->tally->phases[TALLY_LATE], client->started_us - client->due_us);
    if (open_client(client, number) < 0)
        settle(client, TALLY_CONNECT_FAILED, errno);
    else
        arm_give_up(fleet);
}

static int open_client(struct client *client, uint64_t number)
{
    struct fleet *fleet = client->fleet;
    const struct address *server = fleet->options.server;
    struct address source;

    /* People count from one. The length was checked with the options. */
    snprintf(client->id, sizeof(client->id), "%s%" PRIu64, fleet->options.id_prefix, number + 1);
    sources_at(fleet->options.sources, number, &source);

    const struct link_target target = {
        .server = (const struct sockaddr *)&server->storage,
        .server_len = server->len,
        .source = source.len > 0 ? (const struct sockaddr *)&source.storage : NULL,
        .source_len = source.len,
    };
    if (link_open(&client->link, &fleet->link_env, &target, fleet->options.password, client->id) <
        0)
        return -1;

    if (!fleet->spoken) {
        fleet->spoken = client->link.client.ops;
        fleet->mute = *fleet->spoken;
        fleet->mute.send = send_nothing;
    }

    return 0;
}

static void client_on_opened(struct link *link)
{
    struct client *client = container_of(link, struct client, link);

    client->opened = true;
    client->opened_us = now_us(client->fleet);
    histogram_record(&client->fleet->tally->phases[TALLY_TCP_CONNECT],
                     client->opened_us - client->started_us);
    client->secured_us = client->opened_us;
}

static void client_on_secured(struct link *link)
{
    struct client *client = container_of(link, struct client, link);
    struct fleet *fleet = client->fleet;

    client->secured_us = now_us(fleet);
    histogram_record(&fleet->tally->phases[TALLY_TLS], client->secured_us - client->opened_us);
    if (!fleet->tls_version)
        fleet->tls_version = link_tls_version(link);
}

static void client_on_received(struct link *link, int code)
{
    struct client *client = container_of(link, struct client, link);
    struct tally *tally = client->fleet->tally;

    if (client->silent)
        set_mute(client, code == PROTO_KEEP_ALIVE);
    if (code == PROTO_PASSWORD && !client->prompted) {
        client->prompted = true;
        client->prompted_us = now_us(client->fleet);
        histogram_record(&tally->phases[TALLY_FIRST_PROMPT],
                         client->prompted_us - client->secured_us);
    } else if (code == PROTO_KEEP_ALIVE && client->stage == STAGE_UP) {
        take_keep_alive(client);
    } else if (code == PROTO_SHUTDOWN && client->stage == STAGE_UP) {
        tally->shutdowns++;
    }
}

static void client_on_changed(struct link *link, enum client_fsm_state old)
{
    struct client *client = container_of(link, struct client, link);

    (void)old;
    if (link->fsm.state == CLIENT_FSM_CONNECTED)
        take_welcome(client);
}

static void client_on_ended(struct link *link, int error)
{
    struct client *client = container_of(link, struct client, link);
    enum tally_outcome outcome = TALLY_LOST;
    int detail = 0;

    classify_end(client, error, &outcome, &detail);
    settle(client, outcome, detail);
}

static void take_welcome(struct client *client)
{
    struct fleet *fleet = client->fleet;
    struct tally *tally = fleet->tally;
    const uint64_t now = now_us(fleet);

    if (tally_welcomed(tally) == 0)
        fleet->first_welcome_us = now;
    fleet->last_welcome_us = now;
    histogram_record(&tally->phases[TALLY_HANDSHAKE], now - client->due_us);
    histogram_record(&tally->phases[TALLY_LOGIN], now - client->prompted_us);
    fleet->up++;
    if (fleet->up > fleet->up_most)
        fleet->up_most = fleet->up;

    leave_handshake(client);
    client->stage = STAGE_UP;
    if (fleet->options.churn) {
        link_close(&client->link);
        settle(client, TALLY_UP, 0);
    } else {
        look_for_end(fleet);
    }
}

static void take_keep_alive(struct client *client)
{
    struct fleet *fleet = client->fleet;
    const uint64_t now = now_us(fleet);

    fleet->tally->keepalives++;
    if (client->asked)
        histogram_record(&fleet->tally->keepalive_gap, now - client->asked_us);
    client->asked = true;
    client->asked_us = now;

    if (!client->silent)
        fleet->tally->keepalives_answered++;
}

/* The machine answers every line; what a silent client says to a 100 is lost on its way to the
 * link. */
static void set_mute(struct client *client, bool mute)
{
    client->link.client.ops = mute ? &client->fleet->mute : client->fleet->spoken;
}

static void send_nothing(struct client_fsm *fsm, const char *bytes, size_t len)
{
    (void)fsm;
    (void)bytes;
    (void)len;
}

static void classify_end(const struct client *client, int error, enum tally_outcome *outcome,
                         int *detail)
{
    const bool up = client->stage == STAGE_UP;
    const int why = client_fsm_why(&client->link.fsm);

    *detail = error;
    if (why == CLIENT_FSM_WHY_PROTOCOL) {
        *outcome = TALLY_VIOLATED;
        *detail = 0;
    } else if (why > 0) {
        *detail = why;
        if (!up)
            *outcome = TALLY_REFUSED;
        else if (client->silent && why == PROTO_TIMED_OUT)
            *outcome = TALLY_SILENT_DROPPED;
        else
            *outcome = TALLY_DROPPED;
    } else if (client->link.tls_failure != TLS_FAILURE_NONE && !up) {
        *outcome = TALLY_TLS_FAILED;
        *detail = (int)client->link.tls_failure;
    } else if (!client->opened) {
        *outcome = TALLY_CONNECT_FAILED;
    } else {
        *outcome = up ? TALLY_LOST : TALLY_LOST_EARLY;
    }
}

static void leave_handshake(struct client *client)
{
    struct fleet *fleet = client->fleet;

    TAILQ_REMOVE(&fleet->handshakes, client, entry);
    plan_settle(&fleet->plan);
    if (plan_all_settled(&fleet->plan))
        fleet->connecting_us = now_us(fleet);
    arm_pace(fleet);
}

/* The client has come to its end; its link is closed. */
static void settle(struct client *client, enum tally_outcome outcome, int detail)
{
    struct fleet *fleet = client->fleet;

    if (client->stage == STAGE_HANDSHAKE)
        leave_handshake(client);
    else
        fleet->up--;
    tally_count(fleet->tally, outcome, detail, 1);
    client->stage = STAGE_IDLE;
    TAILQ_INSERT_HEAD(&fleet->idle, client, entry);
    look_for_end(fleet);
}

static void look_for_end(struct fleet *fleet)
{
    if (fleet->over || !plan_all_settled(&fleet->plan))
        return;
    if (fleet->up == 0)
        finish(fleet); /* nobody is left to be held */
    else if (fleet->phase == FLEET_CONNECTING)
        begin_hold(fleet);
}

static void begin_hold(struct fleet *fleet)
{
    fleet->phase = FLEET_HOLDING;
    fleet->on_phase(fleet->arg, FLEET_HOLDING);
    fleet->hold_began_us = now_us(fleet);
    arm(fleet->hold_over, fleet->options.hold_us);
}

/* Only ends the loop: whoever called may stand on a link's stack. */
static void finish(struct fleet *fleet)
{
    if (fleet->over)
        return;
    fleet->over = true;
    fleet->elapsed_us = now_us(fleet);
    if (fleet->phase == FLEET_HOLDING)
        fleet->held_us = fleet->elapsed_us - fleet->hold_began_us;
    event_base_loopbreak(fleet->base);
}

/* Puts everyone who is left into the tally. */
static void close_all(struct fleet *fleet)
{
    struct tally *tally = fleet->tally;

    for (uint64_t i = 0; i < fleet->client_count; i++) {
        struct client *client = &fleet->clients[i];

        link_close(&client->link);
        if (client->stage == STAGE_UP)
            tally_count(tally, TALLY_UP, 0, 1);
        else if (client->stage == STAGE_HANDSHAKE)
            tally_count(tally, TALLY_INTERRUPTED, 0, 1);
        client->stage = STAGE_IDLE;
    }
    tally_count(tally, TALLY_NOT_STARTED, 0, fleet->options.plan.clients - fleet->plan.started);
}

static void arm_pace(struct fleet *fleet)
{
    if (evtimer_pending(fleet->pace, NULL))
        return;

    const uint64_t wait_us = plan_wait_us(&fleet->plan, now_us(fleet));
    if (wait_us != PLAN_NEVER)
        arm(fleet->pace, wait_us);
}

static void arm_give_up(struct fleet *fleet)
{
    const struct client *oldest = TAILQ_FIRST(&fleet->handshakes);

    if (!oldest || evtimer_pending(fleet->give_up, NULL))
        return;

    const uint64_t deadline_us = oldest->started_us + fleet->options.timeout_us;
    const uint64_t now = now_us(fleet);
    arm(fleet->give_up, deadline_us > now ? deadline_us - now : 0);
}

static void arm(struct event *event, uint64_t wait_us)
{
    const struct timeval wait = {
        .tv_sec = (time_t)(wait_us / CLOCK_US_PER_SEC),
        .tv_usec = (suseconds_t)(wait_us % CLOCK_US_PER_SEC),
    };

    evtimer_add(event, &wait);
}

static uint64_t now_us(const struct fleet *fleet)
{
    return clock_monotonic_us() - fleet->epoch_us;
}
