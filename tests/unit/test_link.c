/*
 * Links against a listening socket in the same thread: what the owner is told, how often, and that
 * it may close the link wherever it is told something. All of it over TCP, over TLS, and over TLS
 * with a server that never takes leave of it; then what only TLS can do wrong.
 */
#include "link.h"

#include "base/clock.h"
#include "base/container_of.h"
#include "tls_peer.h"
#include "unit.h"

#include <event2/event.h>
#include <openssl/ssl.h>

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

enum call {
    CALL_OPENED,
    CALL_SECURED,
    CALL_RECEIVED,
    CALL_CHANGED,
    CALL_SHUTDOWN,
    CALL_ENDED,
    CALL_COUNT
};

/* How the connection is spoken over. */
enum mode { MODE_TCP, MODE_TLS, MODE_TLS_WITHOUT_END };

static enum mode mode;
static SSL_CTX *server_tls;
static char server_certificate[32]; /* a file */

/* One link with its server's end. */
struct fixture {
    struct event_base *base;
    SSL *ssl; /* the server's, once accepted; NULL over TCP */
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
    static const char names[CALL_COUNT] = {'o', 't', 'r', 'c', 's', 'e'};
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

static void on_secured(struct link *link)
{
    assert_string_equal(link_tls_version(link), "TLSv1.3");
    note(link, CALL_SECURED, 0);
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

static const struct link_ops ops = {
    .opened = on_opened,
    .secured = on_secured,
    .received = on_received,
    .changed = on_changed,
    .shutdown = on_shutdown,
    .ended = on_ended,
};

static struct tls_client *client_tls(const char *host)
{
    struct tls_client *tls = tls_client_new(host);
    char message[256];

    assert_non_null(tls);
    if (tls_client_take_file(tls, TLS_CLIENT_CA, server_certificate, message, sizeof(message)) != 0)
        fail_msg("%s", message);
    return tls;
}

static int set_up(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    socklen_t len = sizeof(fixture->address);

    signal(SIGPIPE, SIG_IGN);
    fixture->base = event_base_new();
    fixture->env = (struct link_env){
        .base = fixture->base,
        .ops = &ops,
        .tls = mode == MODE_TCP ? NULL : client_tls("127.0.0.1"),
    };
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
    SSL_free(fixture->ssl);
    if (fixture->server >= 0)
        close(fixture->server);
    close(fixture->listener);
    event_base_free(fixture->base);
    tls_client_free(fixture->env.tls);
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

static void accept_tcp(struct fixture *fixture)
{
    if (fixture->server >= 0)
        close(fixture->server);
    SSL_free(fixture->ssl);
    fixture->ssl = NULL;
    fixture->server = accept(fixture->listener, NULL, NULL);
    assert_true(fixture->server >= 0);
}

/* Until the server's side of TLS is done, or the link has come to its end. */
static void shake_hands(struct fixture *fixture, SSL_CTX *context)
{
    const uint64_t end = clock_monotonic_us() + DEADLINE_US;

    fixture->ssl = tls_peer_new(context);
    while (!tls_peer_shake_hands(fixture->ssl, fixture->server) && fixture->owner.link.bev &&
           clock_monotonic_us() < end)
        event_base_loop(fixture->base, EVLOOP_NONBLOCK);
}

static void accept_link(struct fixture *fixture)
{
    accept_tcp(fixture);
    if (mode != MODE_TCP)
        shake_hands(fixture, server_tls);
}

static void say(struct fixture *fixture, const char *text)
{
    if (!fixture->ssl) {
        assert_int_equal(write(fixture->server, text, strlen(text)), strlen(text));
    } else if (SSL_is_init_finished(fixture->ssl)) {
        tls_peer_say(fixture->ssl, text, strlen(text));
        tls_peer_flush(fixture->ssl, fixture->server);
    }
}

/* The server says no more. */
static void end_stream(struct fixture *fixture)
{
    if (mode == MODE_TLS && fixture->ssl) {
        SSL_shutdown(fixture->ssl);
        tls_peer_flush(fixture->ssl, fixture->server);
    }
    shutdown(fixture->server, SHUT_WR);
}

/* What the link has sent is in the kernel by now, or it has not been sent. */
static void assert_heard(struct fixture *fixture, const char *wanted)
{
    char got[512] = "";
    ssize_t len = 0;

    if (fixture->ssl)
        len = (ssize_t)tls_peer_hear(fixture->ssl, fixture->server, got, sizeof(got) - 1);
    else
        len = recv(fixture->server, got, sizeof(got) - 1, MSG_DONTWAIT);
    assert_string_equal(got, wanted);
    assert_int_equal(len < 0 ? 0 : len, strlen(wanted));
}

static void assert_trace(const struct fixture *fixture, const char *wanted)
{
    const char *begin = mode == MODE_TCP ? "o0 " : "o0 t0 ";

    assert_memory_equal(fixture->owner.trace, begin, strlen(begin));
    assert_string_equal(fixture->owner.trace + strlen(begin), wanted);
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
    assert_trace(fixture, "r110 c0 r120 c1 r140 c2 r100 r431 e431 ");
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
        const char byte[2] = {*c, '\0'};
        say(fixture, byte);
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
    end_stream(fixture);
    run_until(fixture, CALL_SHUTDOWN, 1);
    assert_heard(fixture, "a password\nan-id\n130\n");
    run_until(fixture, CALL_ENDED, 1);
    assert_trace(fixture, "r110 c0 r120 c1 r140 c2 r130 c3 s0 r460 e460 ");
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
    end_stream(fixture);
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
    /* Megabytes have to be said until the kernel takes no more. */
    const uint64_t end = clock_monotonic_us() + 6 * DEADLINE_US;

    open_link(fixture);
    accept_link(fixture);
    say(fixture, HANDSHAKE);
    fixture->env.ops = &(const struct link_ops){.ended = on_ended};
    while (fixture->owner.calls[CALL_ENDED] == 0 && clock_monotonic_us() < end) {
        for (int i = 0; i < 1000 && !fixture->ssl; i++)
            (void)send(fixture->server, ask, sizeof(ask) - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
        for (int i = 0; i < 1000 && fixture->ssl; i++)
            tls_peer_say(fixture->ssl, ask, sizeof(ask) - 1);
        if (fixture->ssl)
            tls_peer_flush(fixture->ssl, fixture->server);
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

        if (call == CALL_SECURED && mode == MODE_TCP)
            continue;
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
        end_stream(fixture);
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

static void bytes_are_those_of_the_lines(void **state)
{
    static const char text[] = HANDSHAKE "100: keep alive\r\n";
    struct fixture *fixture = *state;
    struct link_bytes bytes = {0};

    fixture->env.bytes = &bytes;
    open_link(fixture);
    accept_link(fixture);
    say(fixture, text);
    run_until(fixture, CALL_RECEIVED, 4);
    run_some_more(fixture);
    assert_int_equal(bytes.in, sizeof(text) - 1);
    assert_int_equal(bytes.out, strlen("a password\nan-id\n100\n"));
}

/*
 * Says the first half of a line behind so many others that libevent, where it holds them, has less
 * room left than it reads: the next read has two parts, and the second one can find the end.
 */
static void say_half_behind_much(struct fixture *fixture, const char *half)
{
    char text[5200] = "";
    size_t len = 0;

    while (len < 5100)
        len += (size_t)snprintf(text + len, sizeof(text) - len, "199: of a newer server\r\n");
    snprintf(text + len, sizeof(text) - len, "%s", half);
    say(fixture, text);
    run_until(fixture, CALL_RECEIVED, fixture->owner.calls[CALL_RECEIVED] + 200);
    run_some_more(fixture);
}

static void say_rest_and_end_in_one_segment(struct fixture *fixture, const char *rest, bool leave)
{
    tls_peer_say(fixture->ssl, rest, strlen(rest));
    if (leave)
        SSL_shutdown(fixture->ssl);
    tls_peer_flush(fixture->ssl, fixture->server);
    shutdown(fixture->server, SHUT_WR);
}

static void order_in_one_segment_with_the_end_is_answered_and_reported_once(void **state)
{
    struct fixture *fixture = *state;

    for (unsigned round = 1; round <= 2; round++) {
        open_link(fixture);
        accept_link(fixture);
        say(fixture, HANDSHAKE);
        run_until(fixture, CALL_CHANGED, 4 * round - 1);
        say_half_behind_much(fixture, "130: shut");
        say_rest_and_end_in_one_segment(fixture, "down sys\r\n", round == 1);
        run_until(fixture, CALL_ENDED, round);
        run_some_more(fixture);
        assert_int_equal(fixture->owner.calls[CALL_SHUTDOWN], round);
        assert_int_equal(fixture->owner.calls[CALL_ENDED], round);
        assert_int_equal(fixture->owner.error, 0);
        assert_heard(fixture, "a password\nan-id\n130\n");
    }
}

static void last_line_in_one_segment_with_the_end_is_read(void **state)
{
    struct fixture *fixture = *state;

    open_link(fixture);
    accept_link(fixture);
    run_until(fixture, CALL_SECURED, 1);
    say_half_behind_much(fixture, "450: ser");
    say_rest_and_end_in_one_segment(fixture, "ver full\r\n", true);
    run_until(fixture, CALL_ENDED, 1);
    assert_int_equal(client_fsm_why(&fixture->owner.link.fsm), PROTO_SERVER_FULL);
}

/* In a record of its own, which is read by itself: the answer to the one before breaks between. */
static void refusal_in_its_own_record_is_read_though_writing_broke_first(void **state)
{
    struct fixture *fixture = *state;

    open_link(fixture);
    accept_link(fixture);
    say(fixture, "110: qual a senha\r\n");
    run_until(fixture, CALL_RECEIVED, 1);
    run_some_more(fixture);
    tls_peer_say(fixture->ssl, "120: qual o ID\r\n", 16);
    tls_peer_say(fixture->ssl, "450: server full\r\n", 18);
    tls_peer_flush(fixture->ssl, fixture->server);
    close(fixture->server);
    fixture->server = -1;
    run_until(fixture, CALL_ENDED, 1);
    assert_int_equal(client_fsm_why(&fixture->owner.link.fsm), PROTO_SERVER_FULL);
}

static void link_takes_leave_when_it_is_closed(void **state)
{
    struct fixture *fixture = *state;
    char none[8];

    open_link(fixture);
    accept_link(fixture);
    run_until(fixture, CALL_SECURED, 1);
    link_close(&fixture->owner.link);
    run_some_more(fixture);
    assert_int_equal(tls_peer_hear(fixture->ssl, fixture->server, none, sizeof(none)), 0);
    assert_true(SSL_get_shutdown(fixture->ssl) & SSL_RECEIVED_SHUTDOWN);
}

static void assert_failure(struct fixture *fixture, enum tls_failure wanted)
{
    run_until(fixture, CALL_ENDED, 1);
    run_some_more(fixture);
    assert_int_equal(fixture->owner.link.tls_failure, wanted);
    assert_int_equal(fixture->owner.error, EPROTO);
    assert_int_equal(fixture->owner.calls[CALL_ENDED], 1);
    assert_int_equal(fixture->owner.calls[CALL_RECEIVED], 0);
    assert_int_equal(client_fsm_why(&fixture->owner.link.fsm), CLIENT_FSM_WHY_LOST);
    assert_non_null(tls_failure_name(wanted));
}

/* The file is still that of the group's server, unless this one's certificate is trusted. */
static void assert_certificate_fails(struct fixture *fixture,
                                     const struct tls_peer_certificate *certificate, bool trusted,
                                     enum tls_failure wanted)
{
    SSL_CTX *context = tls_peer_context(certificate);
    char path[32];
    char message[256];

    if (trusted) {
        tls_peer_write_certificate(context, path);
        assert_int_equal(
            tls_client_take_file(fixture->env.tls, TLS_CLIENT_CA, path, message, sizeof(message)),
            0);
        unlink(path);
    }
    open_link(fixture);
    accept_tcp(fixture);
    shake_hands(fixture, context);
    assert_failure(fixture, wanted);
    assert_int_equal(fixture->owner.calls[CALL_SECURED], 0);
    SSL_CTX_free(context);
}

static void self_signed_certificate_is_refused(void **state)
{
    static const struct tls_peer_certificate other = {"IP:127.0.0.1", -60, 3600};

    assert_certificate_fails(*state, &other, false, TLS_FAILURE_SELF_SIGNED);
}

static void expired_certificate_is_refused(void **state)
{
    static const struct tls_peer_certificate expired = {"IP:127.0.0.1", -3600, -60};

    assert_certificate_fails(*state, &expired, true, TLS_FAILURE_EXPIRED);
}

static void certificate_of_the_future_is_refused(void **state)
{
    static const struct tls_peer_certificate early = {"IP:127.0.0.1", 3600, 7200};

    assert_certificate_fails(*state, &early, true, TLS_FAILURE_NOT_YET_VALID);
}

static void certificate_of_another_host_is_refused(void **state)
{
    static const struct tls_peer_certificate other = {"IP:127.0.0.2,DNS:127.0.0.1", -60, 3600};

    assert_certificate_fails(*state, &other, true, TLS_FAILURE_WRONG_HOST);
}

static void names_are_verified_and_sent(void **state)
{
    static const struct tls_peer_certificate right = {"DNS:cliser.example", -60, 3600};
    struct fixture *fixture = *state;
    SSL_CTX *context = tls_peer_context(&right);
    char path[32];
    char message[256];

    tls_client_free(fixture->env.tls);
    fixture->env.tls = tls_client_new("cliser.example.");
    tls_peer_write_certificate(context, path);
    assert_int_equal(
        tls_client_take_file(fixture->env.tls, TLS_CLIENT_CA, path, message, sizeof(message)), 0);
    unlink(path);
    open_link(fixture);
    accept_tcp(fixture);
    shake_hands(fixture, context);
    run_until(fixture, CALL_SECURED, 1);
    assert_string_equal(SSL_get_servername(fixture->ssl, TLSEXT_NAMETYPE_host_name),
                        "cliser.example");
    SSL_CTX_free(context);
}

static void address_is_not_sent_as_a_name(void **state)
{
    struct fixture *fixture = *state;

    open_link(fixture);
    accept_link(fixture);
    run_until(fixture, CALL_SECURED, 1);
    assert_null(SSL_get_servername(fixture->ssl, TLSEXT_NAMETYPE_host_name));
}

static void anybody_is_trusted_only_when_told_so(void **state)
{
    static const struct tls_peer_certificate any = {"DNS:elsewhere", -3600, -60};
    struct fixture *fixture = *state;
    SSL_CTX *context = tls_peer_context(&any);

    tls_client_trust_anybody(fixture->env.tls);
    open_link(fixture);
    accept_tcp(fixture);
    shake_hands(fixture, context);
    run_until(fixture, CALL_SECURED, 1);
    SSL_CTX_free(context);
}

static void old_versions_are_refused(void **state)
{
    static const struct tls_peer_certificate old = {"IP:127.0.0.1", -60, 3600};
    struct fixture *fixture = *state;
    SSL_CTX *context = tls_peer_context(&old);

    SSL_CTX_set_security_level(context, 0);
    SSL_CTX_set_min_proto_version(context, TLS1_VERSION);
    SSL_CTX_set_max_proto_version(context, TLS1_1_VERSION);
    open_link(fixture);
    accept_tcp(fixture);
    shake_hands(fixture, context);
    assert_failure(fixture, TLS_FAILURE_NO_VERSION);
    SSL_CTX_free(context);
}

static void server_without_tls_is_told_from_a_broken_one(void **state)
{
    struct fixture *fixture = *state;

    open_link(fixture);
    accept_tcp(fixture);
    say(fixture, HANDSHAKE "130: shutdown sys\r\n");
    assert_failure(fixture, TLS_FAILURE_NO_TLS);
    assert_int_equal(fixture->owner.calls[CALL_SHUTDOWN], 0);
}

static void end_in_the_handshake_is_reported(void **state)
{
    struct fixture *fixture = *state;

    open_link(fixture);
    accept_tcp(fixture);
    shutdown(fixture->server, SHUT_WR);
    assert_failure(fixture, TLS_FAILURE_CLOSED);
}

static void reset_in_the_handshake_has_its_errno(void **state)
{
    struct fixture *fixture = *state;

    open_link(fixture);
    accept_tcp(fixture);
    run_until(fixture, CALL_OPENED, 1);
    run_some_more(fixture);
    reset_server_side(fixture);
    run_until(fixture, CALL_ENDED, 1);
    assert_int_equal(fixture->owner.error, ECONNRESET);
    assert_int_equal(fixture->owner.link.tls_failure, TLS_FAILURE_NONE);
}

/* A server that says nothing: it is the owner's to lose patience. */
static void stalled_handshake_can_be_closed(void **state)
{
    struct fixture *fixture = *state;

    open_link(fixture);
    accept_tcp(fixture);
    run_until(fixture, CALL_OPENED, 1);
    run_some_more(fixture);
    assert_string_equal(fixture->owner.trace, "o0 ");
    assert_null(link_tls_version(&fixture->owner.link));
    link_close(&fixture->owner.link);
    run_some_more(fixture);
    assert_string_equal(fixture->owner.trace, "o0 ");
}

static void wrong_bytes_in_a_session_end_it_and_order_nothing(void **state)
{
    struct fixture *fixture = *state;

    open_link(fixture);
    accept_link(fixture);
    say(fixture, HANDSHAKE);
    run_until(fixture, CALL_RECEIVED, 3);
    assert_int_equal(write(fixture->server, "130: shutdown sys\r\n", 19), 19);
    run_until(fixture, CALL_ENDED, 1);
    assert_int_equal(fixture->owner.error, EPROTO);
    assert_int_equal(fixture->owner.link.tls_failure, TLS_FAILURE_PROTOCOL);
    assert_int_equal(fixture->owner.calls[CALL_SHUTDOWN], 0);
}

/* Whatever OpenSSL says of one connection, the next one starts without it. */
static void failure_is_not_blamed_on_the_next_one(void **state)
{
    struct fixture *fixture = *state;

    open_link(fixture);
    accept_tcp(fixture);
    say(fixture, HANDSHAKE);
    assert_failure(fixture, TLS_FAILURE_NO_TLS);
    open_link(fixture);
    accept_link(fixture);
    say(fixture, "450: server full\r\n");
    end_stream(fixture);
    run_until(fixture, CALL_ENDED, 2);
    assert_int_equal(fixture->owner.error, 0);
    assert_int_equal(fixture->owner.link.tls_failure, TLS_FAILURE_NONE);
    assert_int_equal(client_fsm_why(&fixture->owner.link.fsm), PROTO_SERVER_FULL);
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
        TEST(bytes_are_those_of_the_lines),
    };
    const struct CMUnitTest tls_tests[] = {
        TEST(order_in_one_segment_with_the_end_is_answered_and_reported_once),
        TEST(last_line_in_one_segment_with_the_end_is_read),
        TEST(refusal_in_its_own_record_is_read_though_writing_broke_first),
        TEST(link_takes_leave_when_it_is_closed),
        TEST(self_signed_certificate_is_refused),
        TEST(expired_certificate_is_refused),
        TEST(certificate_of_the_future_is_refused),
        TEST(certificate_of_another_host_is_refused),
        TEST(names_are_verified_and_sent),
        TEST(address_is_not_sent_as_a_name),
        TEST(anybody_is_trusted_only_when_told_so),
        TEST(old_versions_are_refused),
        TEST(server_without_tls_is_told_from_a_broken_one),
        TEST(end_in_the_handshake_is_reported),
        TEST(reset_in_the_handshake_has_its_errno),
        TEST(stalled_handshake_can_be_closed),
        TEST(wrong_bytes_in_a_session_end_it_and_order_nothing),
        TEST(failure_is_not_blamed_on_the_next_one),
    };
    static const struct tls_peer_certificate right = {"IP:127.0.0.1", -60, 3600};
    int failed = 0;

    server_tls = tls_peer_context(&right);
    tls_peer_write_certificate(server_tls, server_certificate);
    mode = MODE_TCP;
    failed += cmocka_run_group_tests_name("over TCP", tests, NULL, NULL);
    mode = MODE_TLS;
    failed += cmocka_run_group_tests_name("over TLS", tests, NULL, NULL);
    failed += cmocka_run_group_tests_name("TLS alone", tls_tests, NULL, NULL);
    mode = MODE_TLS_WITHOUT_END;
    failed += cmocka_run_group_tests_name("over TLS without its end", tests, NULL, NULL);
    unlink(server_certificate);
    SSL_CTX_free(server_tls);
    return failed;
}
