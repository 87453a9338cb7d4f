/*
 * Links against a listening socket in the same thread: what the owner is told, how often, and that
 * it may close the link wherever it is told something.
 */
#include "link.h"

#include "base/clock.h"
#include "base/container_of.h"
#include "unit.h"

#include <event2/event.h>

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEADLINE_US (10 * CLOCK_US_PER_SEC)

#define HANDSHAKE   "110: qual a senha\r\n120: qual o ID\r\n140: Connected\r\n"

enum call { CALL_OPENED, CALL_RECEIVED, CALL_CHANGED, CALL_SHUTDOWN, CALL_ENDED, CALL_COUNT };

/* One link with its server's end. */
struct fixture {
    struct event_base *base;
    struct link_env env;
    struct sockaddr_in address;
    int listener;
    int server; /* -1 until accepted */
    struct owner {
        char before[16]; /* embedded, and not first */
        struct link link;
        unsigned calls[CALL_COUNT];
        char trace[512];
        int close_at;        /* enum call, or -1 */
        unsigned reopen;     /* so many more times, from ended */
        unsigned unexpected; /* calls after link_close() */
        bool closed;
        int error;
        struct fixture *fixture;
    } owner;
};

static struct link_target target_of(const struct fixture *fixture)
{
    return (struct link_target){
        .server = (const struct sockaddr *)&fixture->address,
        .server_len = sizeof(fixture->address),
    };
}

static void open_link(struct fixture *fixture)
{
    const struct link_target target = target_of(fixture);

    assert_int_equal(link_open(&fixture->owner.link, &fixture->env, &target, "a password", "an-id"),
                     0);
}

static void note(struct link *link, enum call call, int number)
{
    static const char names[CALL_COUNT] = {'o', 'r', 'c', 's', 'e'};
    struct owner *owner = container_of(link, struct owner, link);
    const size_t len = strlen(owner->trace);

    owner->calls[call]++;
    owner->unexpected += owner->closed;
    snprintf(owner->trace + len, sizeof(owner->trace) - len, "%c%d ", names[call], number);
    if (owner->close_at == (int)call) {
        owner->closed = true;
        link_close(link);
        link_close(link);
    }
}

static void on_opened(struct link *link)
{
    note(link, CALL_OPENED, 0);
}

static void on_received(struct link *link, int code)
{
    note(link, CALL_RECEIVED, code);
}

static void on_changed(struct link *link, enum client_fsm_state old)
{
    assert_int_not_equal(link->fsm.state, CLIENT_FSM_CLOSED);
    note(link, CALL_CHANGED, (int)old);
}

static void on_shutdown(struct link *link)
{
    note(link, CALL_SHUTDOWN, 0);
}

static void on_ended(struct link *link, int error)
{
    struct owner *owner = container_of(link, struct owner, link);

    assert_null(link->bev);
    assert_int_equal(link->fsm.state, CLIENT_FSM_CLOSED);
    owner->error = error;
    note(link, CALL_ENDED, client_fsm_why(&link->fsm));
    if (owner->reopen > 0) {
        owner->reopen--;
        open_link(owner->fixture);
    }
}

static const struct link_ops ops = {on_opened, on_received, on_changed, on_shutdown, on_ended};

static int set_up(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    socklen_t len = sizeof(fixture->address);

    signal(SIGPIPE, SIG_IGN);
    fixture->base = event_base_new();
    fixture->env = (struct link_env){.base = fixture->base, .ops = &ops};
    fixture->address = (struct sockaddr_in){.sin_family = AF_INET};
    fixture->address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    fixture->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    fixture->server = -1;
    fixture->owner.close_at = -1;
    fixture->owner.fixture = fixture;
    assert_int_equal(bind(fixture->listener, (struct sockaddr *)&fixture->address, len), 0);
    assert_int_equal(listen(fixture->listener, 16), 0);
    assert_int_equal(getsockname(fixture->listener, (struct sockaddr *)&fixture->address, &len), 0);
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;

    link_close(&fixture->owner.link);
    if (fixture->server >= 0)
        close(fixture->server);
    close(fixture->listener);
    event_base_free(fixture->base);
    free(fixture);
    return 0;
}

/* Runs the loop until the call has come that often. */
static void run_until(struct fixture *fixture, enum call call, unsigned times)
{
    const uint64_t end = clock_monotonic_us() + DEADLINE_US;

    while (fixture->owner.calls[call] < times) {
        if (clock_monotonic_us() > end)
            fail_msg("it did not come in time; so far: %s", fixture->owner.trace);
        event_base_loop(fixture->base, EVLOOP_NONBLOCK);
    }
}

/* Gives wrong callbacks the time to come. */
static void run_some_more(struct fixture *fixture)
{
    const uint64_t end = clock_monotonic_us() + 30 * CLOCK_US_PER_MS;

    while (clock_monotonic_us() < end)
        event_base_loop(fixture->base, EVLOOP_NONBLOCK);
}

static void accept_link(struct fixture *fixture)
{
    if (fixture->server >= 0)
        close(fixture->server);
    fixture->server = accept(fixture->listener, NULL, NULL);
    assert_true(fixture->server >= 0);
}

static void say(struct fixture *fixture, const char *text)
{
    assert_int_equal(write(fixture->server, text, strlen(text)), strlen(text));
}

/* What the link has sent is in the kernel by now, or it has not been sent. */
static void assert_heard(struct fixture *fixture, const char *wanted)
{
    char got[512] = "";
    const ssize_t len = recv(fixture->server, got, sizeof(got) - 1, MSG_DONTWAIT);

    assert_string_equal(got, wanted);
    assert_int_equal(len < 0 ? 0 : len, strlen(wanted));
}

static void reset_server_side(struct fixture *fixture)
{
    const struct linger hard = {.l_onoff = 1};

    setsockopt(fixture->server, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
    close(fixture->server);
    fixture->server = -1;
}

static void session_is_reported_in_order_and_ends_once(void **state)
{
    struct fixture *fixture = *state;

    open_link(fixture);
    accept_link(fixture);
    say(fixture, HANDSHAKE "100: keep alive\r\n431: replaced\r\n");
    run_until(fixture, CALL_ENDED, 1);
    run_some_more(fixture);
    assert_string_equal(fixture->owner.trace, "o0 r110 c0 r120 c1 r140 c2 r100 r431 e431 ");
    assert_int_equal(fixture->owner.error, 0);
}

static void answers_are_whole_lines(void **state)
{
    struct fixture *fixture = *state;

    open_link(fixture);
    accept_link(fixture);
    say(fixture, HANDSHAKE "100: keep alive\r\n");
    run_until(fixture, CALL_RECEIVED, 4);
    run_some_more(fixture);
    assert_heard(fixture, "a password\nan-id\n100\n");
    assert_int_equal(fixture->owner.calls[CALL_ENDED], 0);
}

static void lines_arrive_byte_by_byte(void **state)
{
    static const char text[] = HANDSHAKE "100: keep alive\n";
    struct fixture *fixture = *state;

    open_link(fixture);
    accept_link(fixture);
    run_until(fixture, CALL_OPENED, 1);
    for (const char *c = text; *c; c++) {
        assert_int_equal(write(fixture->server, c, 1), 1);
        event_base_loop(fixture->base, EVLOOP_NONBLOCK);
    }
    run_until(fixture, CALL_RECEIVED, 4);
    run_some_more(fixture);
    assert_heard(fixture, "a password\nan-id\n100\n");
}

static void order_is_reported_after_its_answer_and_before_what_follows(void **state)
{
    struct fixture *fixture = *state;

    open_link(fixture);
    accept_link(fixture);
    say(fixture, HANDSHAKE "130: shutdown sys\r\n460: server restarting\r\n");
    shutdown(fixture->server, SHUT_WR);
    run_until(fixture, CALL_SHUTDOWN, 1);
    assert_heard(fixture, "a password\nan-id\n130\n");
    run_until(fixture, CALL_ENDED, 1);
    assert_string_equal(fixture->owner.trace, "o0 r110 c0 r120 c1 r140 c2 r130 c3 s0 r460 e460 ");
}

static void order_is_reported_when_the_connection_breaks_right_after_it(void **state)
{
    struct fixture *fixture = *state;

    open_link(fixture);
    accept_link(fixture);
    run_until(fixture, CALL_OPENED, 1);
    say(fixture, HANDSHAKE "130: shutdown sys\r\n");
    reset_server_side(fixture);
    run_until(fixture, CALL_ENDED, 1);
    run_some_more(fixture);
    /* A reset may overtake the whole session, but never come between an order and its report. */
    assert_int_equal(fixture->owner.calls[CALL_SHUTDOWN],
                     strstr(fixture->owner.trace, "r130") ? 1 : 0);
    assert_int_equal(fixture->owner.calls[CALL_ENDED], 1);
}

static void garbage_ends_as_a_violation(void **state)
{
    static const char *const lines[] = {"SSH-2.0-x\r\n", "\n", "130: shutdown sys\r\n"};
    struct fixture *fixture = *state;

    for (size_t i = 0; i < COUNT(lines); i++) {
        open_link(fixture);
        accept_link(fixture);
        say(fixture, lines[i]);
        run_until(fixture, CALL_ENDED, (unsigned)i + 1);
        assert_int_equal(client_fsm_why(&fixture->owner.link.fsm), CLIENT_FSM_WHY_PROTOCOL);
    }
    assert_int_equal(fixture->owner.calls[CALL_SHUTDOWN], 0);
}

static void endless_line_ends_as_a_violation(void **state)
{
    struct fixture *fixture = *state;
    char text[PROTO_MAX_LINE_BYTES + 1];

    memset(text, '1', sizeof(text));
    text[sizeof(text) - 1] = '\0';
    open_link(fixture);
    accept_link(fixture);
    say(fixture, text);
    run_until(fixture, CALL_ENDED, 1);
    assert_int_equal(client_fsm_why(&fixture->owner.link.fsm), CLIENT_FSM_WHY_PROTOCOL);
}

static void end_of_stream_is_no_error_and_a_reset_is_one(void **state)
{
    struct fixture *fixture = *state;

    open_link(fixture);
    accept_link(fixture);
    shutdown(fixture->server, SHUT_WR);
    run_until(fixture, CALL_ENDED, 1);
    assert_int_equal(fixture->owner.error, 0);

    open_link(fixture);
    accept_link(fixture);
    run_until(fixture, CALL_OPENED, 2);
    reset_server_side(fixture);
    run_until(fixture, CALL_ENDED, 2);
    assert_int_equal(fixture->owner.error, ECONNRESET);
    assert_int_equal(client_fsm_why(&fixture->owner.link.fsm), CLIENT_FSM_WHY_LOST);
}

static void refused_connect_is_reported_with_its_errno(void **state)
{
    struct fixture *fixture = *state;

    close(fixture->listener);
    open_link(fixture);
    run_until(fixture, CALL_ENDED, 1);
    assert_int_equal(fixture->owner.error, ECONNREFUSED);
    assert_string_equal(fixture->owner.trace, "e0 ");
    fixture->listener = socket(AF_INET, SOCK_STREAM, 0);
}

static void refusal_is_read_though_writing_broke_first(void **state)
{
    struct fixture *fixture = *state;

    open_link(fixture);
    accept_link(fixture);
    run_until(fixture, CALL_OPENED, 1);
    /* The server closes with our bytes unread, which resets the connection behind its last line. */
    say(fixture, "110: qual a senha\r\n");
    run_until(fixture, CALL_RECEIVED, 1);
    run_some_more(fixture);
    say(fixture, "120: qual o ID\r\n450: server full\r\n");
    close(fixture->server);
    fixture->server = -1;
    run_until(fixture, CALL_ENDED, 1);
    assert_int_equal(client_fsm_why(&fixture->owner.link.fsm), PROTO_SERVER_FULL);
}

static void server_that_never_reads_is_given_up(void **state)
{
    static const char ask[] = "100: keep alive\r\n";
    struct fixture *fixture = *state;
    const uint64_t end = clock_monotonic_us() + DEADLINE_US;

    open_link(fixture);
    accept_link(fixture);
    say(fixture, HANDSHAKE);
    fixture->env.ops = &(const struct link_ops){.ended = on_ended};
    while (fixture->owner.calls[CALL_ENDED] == 0 && clock_monotonic_us() < end) {
        for (int i = 0; i < 1000; i++)
            (void)send(fixture->server, ask, sizeof(ask) - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
        event_base_loop(fixture->base, EVLOOP_NONBLOCK);
    }
    assert_int_equal(fixture->owner.calls[CALL_ENDED], 1);
    assert_int_equal(fixture->owner.error, ENOBUFS);
}

static void owner_may_close_in_every_callback(void **state)
{
    struct fixture *fixture = *state;

    for (int call = 0; call < CALL_COUNT; call++) {
        struct owner *owner = &fixture->owner;

        memset(owner->calls, 0, sizeof(owner->calls));
        owner->close_at = call;
        owner->closed = false;
        open_link(fixture);
        accept_link(fixture);
        say(fixture, HANDSHAKE "130: shutdown sys\r\n460: server restarting\r\n");
        run_until(fixture, (enum call)call, 1);
        run_some_more(fixture);
        assert_null(owner->link.bev);
        assert_int_equal(owner->calls[call], 1);
        assert_int_equal(owner->unexpected, 0);
        assert_int_equal(owner->calls[CALL_ENDED], call == CALL_ENDED ? 1 : 0);
    }
}

static void link_can_be_opened_again_from_ended(void **state)
{
    struct fixture *fixture = *state;

    fixture->owner.reopen = 3;
    open_link(fixture);
    for (unsigned i = 1; i <= 4; i++) {
        accept_link(fixture);
        say(fixture, "450: server full\r\n");
        shutdown(fixture->server, SHUT_WR);
        run_until(fixture, CALL_ENDED, i);
        assert_int_equal(fixture->owner.error, 0);
    }
    run_some_more(fixture);
    assert_int_equal(fixture->owner.calls[CALL_ENDED], 4);
    assert_int_equal(fixture->owner.calls[CALL_OPENED], 4);
}

static void source_address_is_used(void **state)
{
    struct fixture *fixture = *state;
    struct sockaddr_in source = {.sin_family = AF_INET};
    struct sockaddr_in peer = {.sin_family = AF_UNSPEC};
    struct link_target target = target_of(fixture);
    socklen_t len = sizeof(peer);

    source.sin_addr.s_addr = htonl(0x7f000105);
    target.source = (const struct sockaddr *)&source;
    target.source_len = sizeof(source);
    assert_int_equal(link_open(&fixture->owner.link, &fixture->env, &target, "p", "i"), 0);
    accept_link(fixture);
    assert_int_equal(getpeername(fixture->server, (struct sockaddr *)&peer, &len), 0);
    assert_int_equal(ntohl(peer.sin_addr.s_addr), 0x7f000105);

    /* An address that is not ours: said at once, and the link stays closed. */
    link_close(&fixture->owner.link);
    source.sin_addr.s_addr = htonl(0xc0000201);
    assert_int_equal(link_open(&fixture->owner.link, &fixture->env, &target, "p", "i"), -1);
    assert_int_equal(errno, EADDRNOTAVAIL);
    assert_null(fixture->owner.link.bev);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(session_is_reported_in_order_and_ends_once),
        TEST(answers_are_whole_lines),
        TEST(lines_arrive_byte_by_byte),
        TEST(order_is_reported_after_its_answer_and_before_what_follows),
        TEST(order_is_reported_when_the_connection_breaks_right_after_it),
        TEST(garbage_ends_as_a_violation),
        TEST(endless_line_ends_as_a_violation),
        TEST(end_of_stream_is_no_error_and_a_reset_is_one),
        TEST(refused_connect_is_reported_with_its_errno),
        TEST(refusal_is_read_though_writing_broke_first),
        TEST(server_that_never_reads_is_given_up),
        TEST(owner_may_close_in_every_callback),
        TEST(link_can_be_opened_again_from_ended),
        TEST(source_address_is_used),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
