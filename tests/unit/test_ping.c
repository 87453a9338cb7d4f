/*
 * Pings: which answer belongs to which question, and what ends one without an answer. Sessions,
 * registry and store (in memory) are real; clock and connections are the test's own.
 */
#include "session/ping.h"

#include "base/container_of.h"
#include "base/hash.h"
#include "base/log.h"
#include "registry/credential.h"
#include "session/session.h"
#include "store/store.h"

#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MS          UINT64_C(1000)
#define S           UINT64_C(1000000)
#define TIMEOUT_US  (PING_TIMEOUT_MS * MS)
#define INTERVAL_US (UINT64_C(86400) * S)
#define MAX_CLIENTS 8

/* One connection. */
struct client {
    struct session session;
    unsigned asked;   /* 100s sent */
    unsigned waiting; /* answers in the kernel, for a look */
    bool fails;       /* sending finds it gone */
    bool closed;
};

/* Who asks, and what came of it. */
struct question {
    struct ping ping;
    unsigned results;
    enum ping_result result;
    uint64_t rtt_us;
    struct question *next;       /* to be started from within done() */
    struct registry_record *who; /* of next */
};

static struct {
    struct moment now;
    struct registry *registry;
    struct sessions *sessions;
    struct store *store;
    struct client clients[MAX_CLIENTS];
    size_t count;
} world;

static struct client *client_of(struct session *session)
{
    return container_of(session, struct client, session);
}

static void on_send(struct session *session, const char *line, size_t len)
{
    struct client *client = client_of(session);

    assert_false(client->closed);
    assert_int_not_equal(proto_parse_code(line, len), PROTO_SHUTDOWN);
    client->asked += proto_parse_code(line, len) == PROTO_KEEP_ALIVE;
    if (client->fails)
        session_end(session, REASON_RESET, world.now);
}

static void on_resume(struct session *session)
{
    (void)session;
}

static void feed(struct client *client, const char *line)
{
    assert_true(session_line(&client->session, line, strlen(line), world.now));
}

static void on_look(struct session *session)
{
    struct client *client = client_of(session);

    for (; client->waiting > 0 && !client->closed; client->waiting--)
        feed(client, "100");
}

static void on_close(struct session *session, bool said_why)
{
    (void)said_why;
    client_of(session)->closed = true;
}

static const struct session_ops ops = {
    .send = on_send, .resume = on_resume, .look = on_look, .close = on_close};

static void on_done(struct ping *ping, enum ping_result result, uint64_t rtt_us)
{
    struct question *question = container_of(ping, struct question, ping);

    assert_ptr_equal(ping->user, question);
    question->results++;
    question->result = result;
    question->rtt_us = rtt_us;
    if (question->next) {
        struct question *next = question->next;
        question->next = NULL;
        ping_start(world.sessions, question->who, &next->ping, world.now);
    }
}

static int setup(void **state)
{
    const struct sessions_options options = {
        .interval_ms = INTERVAL_US / MS,
        .misses = 3,
        .require_reply = SERVER_FSM_REPLY_AUTO,
        .handshake_timeout_ms = 10000,
        .duplicate_id = DUPLICATE_PROBE,
        .forget_after_ms = UINT64_MAX,
        .explain_refusals = true,
        .limits = {.max_clients = 100, .max_pending = 100},
    };
    static const struct store_options store = {.kind = STORE_MEMORY, .node = "node"};
    struct credentials *credentials = credentials_new();
    char message[256];

    (void)state;
    memset(&world, 0, sizeof(world));
    world.now = (struct moment){.mono_us = 1000 * S, .wall_ms = INT64_C(1700000000000)};
    if (!credentials || credentials_add(credentials, "secret", 6) != 0)
        return -1;
    world.registry = registry_new();
    world.sessions = sessions_new(&options, world.registry, credentials, &ops, world.now);
    world.store = store_open(&store, world.registry, sessions_on_answer, world.sessions, message,
                             sizeof(message));
    if (!world.store)
        return -1;
    sessions_set_store(world.sessions, world.store, world.now);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (size_t i = 0; i < world.count; i++)
        session_end(&world.clients[i].session, REASON_STOPPED, world.now);
    store_close(world.store, world.now);
    sessions_free(world.sessions);
    registry_free(world.registry);
    return 0;
}

static struct client *enter(const char *cid)
{
    struct client *client = &world.clients[world.count++];

    session_start(&client->session, world.sessions, &(struct peer_address){.port = 1}, world.now);
    feed(client, "secret");
    feed(client, cid);
    store_turn(world.store, false, world.now);
    assert_non_null(client->session.record);
    assert_true(client->session.record->connected);
    return client;
}

static void advance(uint64_t us)
{
    world.now.mono_us += us;
    world.now.wall_ms += (int64_t)(us / 1000);
}

static void ask(struct client *client, struct question *question)
{
    *question = (struct question){.ping = {.done = on_done, .user = question}};
    ping_start(world.sessions, client->session.record, &question->ping, world.now);
}

static void tick(void)
{
    sessions_tick(world.sessions, world.now);
}

static void expect_open(const struct question *question)
{
    assert_int_equal(question->results, 0);
}

static void expect_result(const struct question *question, enum ping_result result, uint64_t rtt_us)
{
    assert_int_equal(question->results, 1);
    assert_int_equal(question->result, result);
    assert_true(question->rtt_us == rtt_us);
}

/* ---- answers ---- */

static void ping_answered_tells_the_round_trip(void **state)
{
    struct client *client = enter("web-1");
    struct question question;

    (void)state;
    ask(client, &question);
    assert_int_equal(client->asked, 1);
    expect_open(&question);
    assert_true(sessions_next_us(world.sessions) <= world.now.mono_us + TIMEOUT_US);
    advance(1250);
    feed(client, "100");
    expect_result(&question, PING_ANSWERED, 1250);
    assert_int_equal(client->session.record->rtt_us, 1250);
    advance(TIMEOUT_US);
    tick();
    expect_result(&question, PING_ANSWERED, 1250);
}

static void ping_of_several_gives_each_its_own_answer(void **state)
{
    struct client *client = enter("web-1");
    struct question questions[4];

    (void)state;
    for (unsigned i = 0; i < COUNT(questions); i++) {
        ask(client, &questions[i]);
        advance(10 * MS);
    }
    assert_int_equal(client->asked, COUNT(questions));
    for (unsigned i = 0; i < COUNT(questions); i++) {
        for (unsigned later = i; later < COUNT(questions); later++)
            expect_open(&questions[later]);
        feed(client, "100");
        expect_result(&questions[i], PING_ANSWERED, 40 * MS);
        advance(10 * MS);
    }
    feed(client, "100"); /* one too many is nobody's */
}

static void ping_of_several_clients_keeps_them_apart(void **state)
{
    struct client *one = enter("web-1");
    struct client *two = enter("web-2");
    struct question of_one;
    struct question of_two;

    (void)state;
    ask(one, &of_one);
    ask(two, &of_two);
    advance(MS);
    feed(two, "100");
    expect_open(&of_one);
    expect_result(&of_two, PING_ANSWERED, MS);
    advance(MS);
    session_end(&two->session, REASON_LEFT, world.now);
    expect_open(&of_one);
    feed(one, "100");
    expect_result(&of_one, PING_ANSWERED, 2 * MS);
}

/* The regular one was asked first, so its answer comes first. */
static void ping_behind_an_open_keep_alive_waits_for_the_second_answer(void **state)
{
    struct client *client = enter("web-1");
    struct question question;

    (void)state;
    /* The first regular one comes at some moment of the interval. */
    while (client->asked == 0) {
        advance(INTERVAL_US / 64);
        tick();
    }
    assert_int_equal(client->asked, 1);
    ask(client, &question);
    advance(MS);
    feed(client, "100");
    expect_open(&question);
    advance(MS);
    feed(client, "100");
    expect_result(&question, PING_ANSWERED, 2 * MS);
}

/* A client that let a regular one pass for a whole interval will not answer it any more. */
static void ping_behind_an_old_keep_alive_takes_the_first_answer(void **state)
{
    struct client *client = enter("web-1");
    struct question question;

    (void)state;
    while (client->asked == 0) {
        advance(INTERVAL_US / 64);
        tick();
    }
    advance(INTERVAL_US - 1);
    struct question early;
    ask(client, &early);
    feed(client, "100");
    expect_open(&early);
    ping_cancel(world.sessions, &early.ping);
    while (client->asked == 2) {
        advance(INTERVAL_US / 64);
        tick();
    }
    advance(INTERVAL_US);
    ask(client, &question);
    advance(MS);
    feed(client, "100");
    expect_result(&question, PING_ANSWERED, MS);
}

static void ping_of_a_leaving_client_is_answered(void **state)
{
    struct client *client = enter("web-1");
    struct question question;

    (void)state;
    client->session.fsm.state = SERVER_FSM_LEAVING; /* as after a 130 */
    ask(client, &question);
    feed(client, "130");
    expect_open(&question);
    feed(client, "100");
    expect_result(&question, PING_ANSWERED, 0);
    client->session.fsm.state = SERVER_FSM_CONNECTED;
}

/* Two questions in one segment, one answer: it is the first one's, and at the end the second's. */
static void ping_of_a_sloppy_client_counts_the_answer_that_it_gave(void **state)
{
    struct client *client = enter("web-1");
    struct question first;
    struct question second;
    struct question third;

    (void)state;
    ask(client, &first);
    ask(client, &second);
    ask(client, &third);
    advance(3 * MS);
    feed(client, "100");
    expect_result(&first, PING_ANSWERED, 3 * MS);
    expect_open(&second);
    advance(MS);
    feed(client, "100");
    expect_result(&second, PING_ANSWERED, 4 * MS);
    advance(TIMEOUT_US - 4 * MS - 1);
    tick();
    expect_open(&third);
    advance(1);
    tick();
    expect_result(&third, PING_ANSWERED, 3 * MS);
}

static void ping_ignores_what_is_no_answer(void **state)
{
    struct client *client = enter("web-1");
    struct question question;

    (void)state;
    ask(client, &question);
    feed(client, "130");
    feed(client, "hello");
    feed(client, "");
    expect_open(&question);
    feed(client, "100 here I am");
    expect_result(&question, PING_ANSWERED, 0);
}

/* ---- no answer ---- */

static void ping_unanswered_ends_after_its_time(void **state)
{
    struct client *client = enter("web-1");
    struct question first;
    struct question second;

    (void)state;
    ask(client, &first);
    advance(S);
    ask(client, &second);
    advance(TIMEOUT_US - S - 1);
    tick();
    expect_open(&first);
    advance(1);
    assert_true(sessions_next_us(world.sessions) <= world.now.mono_us);
    tick();
    expect_result(&first, PING_TIMED_OUT, 0);
    expect_open(&second);
    advance(S);
    tick();
    expect_result(&second, PING_TIMED_OUT, 0);
    assert_false(client->closed); /* asking is no reason to drop anybody */
    struct question third;
    ask(client, &third);
    feed(client, "100"); /* late, and to the first question; nobody can tell */
    advance(TIMEOUT_US);
    tick();
    assert_int_equal(third.result, PING_ANSWERED);
}

static void ping_answer_that_waits_in_the_kernel_counts(void **state)
{
    struct client *client = enter("web-1");
    struct question first;
    struct question second;

    (void)state;
    ask(client, &first);
    ask(client, &second);
    client->waiting = 2;
    advance(TIMEOUT_US + S); /* the server was stopped */
    tick();
    expect_result(&first, PING_ANSWERED, TIMEOUT_US + S);
    expect_result(&second, PING_ANSWERED, TIMEOUT_US + S);
}

static void ping_ends_with_the_session(void **state)
{
    struct client *client = enter("web-1");
    struct question first;
    struct question second;

    (void)state;
    ask(client, &first);
    ask(client, &second);
    advance(MS);
    session_end(&client->session, REASON_LEFT, world.now);
    expect_result(&first, PING_LEFT, 0);
    expect_result(&second, PING_LEFT, 0);
    advance(TIMEOUT_US);
    tick();
    expect_result(&first, PING_LEFT, 0);
}

static void ping_that_finds_the_client_gone_ends_within_the_start(void **state)
{
    struct client *client = enter("web-1");
    struct question question;

    (void)state;
    client->fails = true;
    ask(client, &question);
    expect_result(&question, PING_LEFT, 0);
    assert_true(client->closed);
}

static void ping_cancelled_is_never_called_back(void **state)
{
    struct client *client = enter("web-1");
    struct question questions[3];

    (void)state;
    for (unsigned i = 0; i < COUNT(questions); i++)
        ask(client, &questions[i]);
    ping_cancel(world.sessions, &questions[1].ping);
    memset(&questions[1].ping, 0xa5, sizeof(questions[1].ping)); /* may be freed */
    advance(MS);
    feed(client, "100");
    expect_result(&questions[0], PING_ANSWERED, MS);
    feed(client, "100"); /* to the one that nobody waits for */
    expect_open(&questions[2]);
    feed(client, "100");
    expect_result(&questions[2], PING_ANSWERED, MS);
    expect_open(&questions[1]);
}

static void ping_cancelled_last_leaves_nothing_to_wait_for(void **state)
{
    struct client *client = enter("web-1");
    struct question question;

    (void)state;
    const uint64_t before = sessions_next_us(world.sessions);
    ask(client, &question);
    ping_cancel(world.sessions, &question.ping);
    assert_true(sessions_next_us(world.sessions) == before);
    session_end(&client->session, REASON_LEFT, world.now);
    expect_open(&question);
}

static void ping_started_from_within_an_answer_gets_the_next_one(void **state)
{
    struct client *client = enter("web-1");
    struct question first;
    struct question second = {.ping = {.done = on_done, .user = &second}};

    (void)state;
    ask(client, &first);
    first.next = &second;
    first.who = client->session.record;
    advance(MS);
    feed(client, "100");
    expect_result(&first, PING_ANSWERED, MS);
    expect_open(&second);
    advance(2 * MS);
    feed(client, "100");
    expect_result(&second, PING_ANSWERED, 2 * MS);
}

static int start_all(void **state)
{
    const struct log_options quiet = {.program = "test", .level = LOG_LEVEL_ERROR};

    (void)state;
    return log_open(&quiet) == 0 ? hash_init() : -1;
}

static int end_all(void **state)
{
    (void)state;
    log_close();
    return 0;
}

#define IN_WORLD(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_WORLD(ping_answered_tells_the_round_trip),
        IN_WORLD(ping_of_several_gives_each_its_own_answer),
        IN_WORLD(ping_of_several_clients_keeps_them_apart),
        IN_WORLD(ping_behind_an_open_keep_alive_waits_for_the_second_answer),
        IN_WORLD(ping_behind_an_old_keep_alive_takes_the_first_answer),
        IN_WORLD(ping_of_a_leaving_client_is_answered),
        IN_WORLD(ping_of_a_sloppy_client_counts_the_answer_that_it_gave),
        IN_WORLD(ping_ignores_what_is_no_answer),
        IN_WORLD(ping_unanswered_ends_after_its_time),
        IN_WORLD(ping_answer_that_waits_in_the_kernel_counts),
        IN_WORLD(ping_ends_with_the_session),
        IN_WORLD(ping_that_finds_the_client_gone_ends_within_the_start),
        IN_WORLD(ping_cancelled_is_never_called_back),
        IN_WORLD(ping_cancelled_last_leaves_nothing_to_wait_for),
        IN_WORLD(ping_started_from_within_an_answer_gets_the_next_one),
    };

    return cmocka_run_group_tests(tests, start_all, end_all);
}
