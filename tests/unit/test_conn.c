/*
 * Connections: real sockets and a real event loop, driven turn by turn as the server drives it.
 * Each client is the other end of a loopback connection, which only does what its test says.
 */
#include "net/conn.h"

#include "base/hash.h"
#include "base/log.h"
#include "cliser/proto.h"

#include "unit.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define ASK_PASSWORD "110: qual a senha\r\n"
#define ASK_ID       "120: qual o ID\r\n"
#define WELCOME      "140: Connected\r\n"
#define KEEP_ALIVE   "100: keep alive\r\n"

/* Nothing here takes this long; a test that waits longer has failed. */
#define PATIENCE_US (10 * CLOCK_US_PER_SEC)

#define MAX_CONNS   64

struct fixture {
    struct event_base *base;
    struct registry *registry;
    struct sessions *sessions;
    struct store *store;
    struct store_options store_options;
    struct conn_env env;
    struct conn *conns[MAX_CONNS]; /* every one not yet freed */
    bool dying[MAX_CONNS];
    uint64_t skipped_us; /* how much later it is for conn_finish() */
    size_t freed;
    bool all_direct; /* no connection may get a bufferevent */
};

static void on_dying(void *user, struct conn *conn)
{
    struct fixture *f = user;

    for (size_t i = 0; i < MAX_CONNS; i++) {
        if (f->conns[i] == conn)
            f->dying[i] = true;
    }
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    const struct sessions_options options = {
        .interval_ms = 3600000,
        .misses = 3,
        .require_reply = SERVER_FSM_REPLY_AUTO,
        .handshake_timeout_ms = 60000,
        .duplicate_id = DUPLICATE_TAKEOVER,
        .forget_after_ms = UINT64_MAX,
        .explain_refusals = true,
        .limits = {.max_clients = 1000, .max_pending = 1000},
    };
    struct credentials *credentials = credentials_new();
    struct event_config *config = event_config_new();
    char message[256] = "";

    if (!f || !credentials || !config || credentials_add(credentials, "secret", 6) != 0)
        return -1;
    f->base = event_base_new_with_config(config);
    event_config_free(config);
    f->registry = registry_new();
    f->sessions = sessions_new(&options, f->registry, credentials, &conn_session_ops, clock_now());
    f->store_options = (struct store_options){.kind = STORE_MEMORY};
    f->store = store_open(&f->store_options, f->registry, sessions_on_answer, f->sessions, message,
                          sizeof(message));
    sessions_set_store(f->sessions, f->store, clock_now());
    f->env = (struct conn_env){.base = f->base,
                               .sessions = f->sessions,
                               .on_dying = on_dying,
                               .user = f,
                               .user_timeout_ms = 30000};
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    for (size_t i = 0; i < MAX_CONNS; i++) {
        if (f->conns[i]) {
            session_end(&f->conns[i]->session, REASON_STOPPED, clock_now());
            conn_free(f->conns[i]);
        }
    }
    (void)event_base_loop(f->base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
    store_turn(f->store, false, clock_now());
    store_close(f->store, clock_now());
    sessions_free(f->sessions);
    registry_free(f->registry);
    event_base_free(f->base);
    free(f);
    return 0;
}

/* ---- libevent's memory, and its voice ---- */

static size_t allocations_left = SIZE_MAX;

/* The one after n others fails, and only that. */
static void fail_allocation(size_t n)
{
    allocations_left = n;
}

/* Has it failed? In any case none does from now on. */
static bool allocation_failed(void)
{
    const bool failed = allocations_left == SIZE_MAX;

    allocations_left = SIZE_MAX;
    return failed;
}

static bool may_allocate(void)
{
    return allocations_left == SIZE_MAX || allocations_left-- > 0;
}

static void *allocate(size_t size)
{
    return may_allocate() ? malloc(size) : NULL;
}

static void *reallocate(void *old, size_t size)
{
    return may_allocate() ? realloc(old, size) : NULL;
}

static void say_nothing(int severity, const char *text)
{
    (void)severity;
    (void)text;
}

/* ---- both ends ---- */

static void make_tcp_pair(int *server, int *client)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof(address);
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    const int on = 1;

    assert_true(listener >= 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &len), 0);
    *client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(*client, (struct sockaddr *)&address, sizeof(address)), 0);
    *server = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    assert_true(*server >= 0);
    assert_int_equal(setsockopt(*client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)), 0);
    close(listener);
}

static struct conn *adopt(struct fixture *f, int fd, uint16_t family)
{
    const struct peer_address peer = {.family = family, .ip = {127, 0, 0, 1}, .port = 4711};
    struct conn *conn = conn_new(&f->env, fd, &peer, false, clock_now());

    assert_non_null(conn);
    for (size_t i = 0; i < MAX_CONNS; i++) {
        if (!f->conns[i]) {
            f->conns[i] = conn;
            f->dying[i] = conn->closing; /* it may have died while it was made */
            return conn;
        }
    }
    fail_msg("too many connections");
    return NULL;
}

/* Returns the client's end. */
static int come(struct fixture *f, struct conn **conn)
{
    int server;
    int client;

    make_tcp_pair(&server, &client);
    *conn = adopt(f, server, AF_INET);
    return client;
}

/* The end of a loop turn, in the server's order. */
static void end_turn(struct fixture *f)
{
    struct moment now;

    store_turn(f->store, false, clock_now());
    now = clock_now();
    now.mono_us += f->skipped_us;
    for (size_t i = 0; i < MAX_CONNS; i++) {
        if (!f->conns[i])
            continue;
        if (f->all_direct)
            assert_null(f->conns[i]->bev);
        if (f->conns[i]->lingering && now.mono_us >= f->conns[i]->linger_until_us)
            f->dying[i] = true;
        if (!f->dying[i])
            continue;
        f->dying[i] = false;
        if (conn_finish(f->conns[i], now)) {
            conn_free(f->conns[i]);
            f->conns[i] = NULL;
            f->freed++;
        }
    }
}

static void turn(struct fixture *f)
{
    assert_true(event_base_loop(f->base, EVLOOP_ONCE | EVLOOP_NONBLOCK) >= 0);
    end_turn(f);
}

/* Turns until the condition holds. */
#define TURN_UNTIL(f, condition)                                                                   \
    do {                                                                                           \
        const uint64_t end_us_ = clock_monotonic_us() + PATIENCE_US;                               \
        while (!(condition)) {                                                                     \
            if (clock_monotonic_us() > end_us_)                                                    \
                fail_msg("waited in vain for " #condition);                                        \
            turn(f);                                                                               \
        }                                                                                          \
    } while (0)

static void say(int fd, const void *bytes, size_t len)
{
    assert_int_equal(send(fd, bytes, len, MSG_NOSIGNAL), len);
}

#define SAY(fd, text) say((fd), BYTES(text))

/* Reads until the buffer is full or the connection ends, by a reset if *error is set; the server
 * lives on meanwhile. Returns the number of bytes, which have a NUL behind them. */
static size_t hear(struct fixture *f, int fd, char *buf, size_t size, bool *ended, int *error)
{
    const uint64_t end_us = clock_monotonic_us() + PATIENCE_US;
    size_t len = 0;

    *ended = false;
    *error = 0;
    while (len < size - 1 && !*ended) {
        const ssize_t got = recv(fd, buf + len, size - 1 - len, MSG_DONTWAIT);
        if (got > 0) {
            len += (size_t)got;
        } else if (got == 0) {
            *ended = true;
        } else if (errno == EAGAIN) {
            if (clock_monotonic_us() > end_us)
                fail_msg("heard only %zu bytes", len);
            turn(f);
        } else {
            *error = errno;
            *ended = true;
        }
    }
    buf[len] = '\0';
    return len;
}

/* Exactly this comes next. */
static void expect(struct fixture *f, int fd, const char *text)
{
    char buf[8192];
    bool ended;
    int error;

    assert_true(strlen(text) < sizeof(buf));
    (void)hear(f, fd, buf, strlen(text) + 1, &ended, &error);
    assert_string_equal(buf, text);
}

/* Exactly this comes, and then the end, in order and not by a reset. */
static void expect_last(struct fixture *f, int fd, const char *text)
{
    char buf[8192];
    bool ended;
    int error;

    (void)hear(f, fd, buf, sizeof(buf), &ended, &error);
    assert_string_equal(buf, text);
    assert_true(ended);
    assert_int_equal(error, 0);
}

static const struct sessions_counters *counters(struct fixture *f)
{
    return sessions_counters(f->sessions);
}

static size_t living(struct fixture *f)
{
    size_t count = 0;

    for (size_t i = 0; i < MAX_CONNS; i++)
        count += f->conns[i] != NULL;
    return count;
}

static int enter(struct fixture *f, struct conn **conn, const char *id)
{
    const int fd = come(f, conn);

    expect(f, fd, ASK_PASSWORD);
    SAY(fd, "secret\n");
    expect(f, fd, ASK_ID);
    say(fd, id, strlen(id));
    SAY(fd, "\r\n");
    expect(f, fd, WELCOME);
    return fd;
}

static int descriptor_of(const struct conn *conn)
{
    return (int)event_get_fd(&conn->readable);
}

/* Bytes that wait in the connection: to be taken, and to be sent. */
static size_t kept(const struct conn *conn)
{
    return conn->bev ? evbuffer_get_length(bufferevent_get_input(conn->bev)) : 0;
}

static size_t unsent(const struct conn *conn)
{
    return conn->bev ? evbuffer_get_length(bufferevent_get_output(conn->bev)) : 0;
}

/* The kernel has this much for the connection: one event will read it. */
static void wait_for_bytes(struct conn *conn, size_t len)
{
    const uint64_t end_us = clock_monotonic_us() + PATIENCE_US;
    int there = 0;

    while (ioctl(descriptor_of(conn), FIONREAD, &there) == 0 && (size_t)there < len)
        assert_true(clock_monotonic_us() < end_us);
    assert_int_equal(there, len);
}

/* The end, or the reset, of the peer has arrived. */
static void wait_for_end(struct conn *conn)
{
    struct pollfd ended = {.fd = descriptor_of(conn), .events = POLLRDHUP};

    assert_int_equal(poll(&ended, 1, (int)(PATIENCE_US / 1000)), 1);
}

/* Passes of the event loop, in which no turn ends: the store is slow. */
#define LOOP_UNTIL(f, condition)                                                                   \
    do {                                                                                           \
        const uint64_t end_us_ = clock_monotonic_us() + PATIENCE_US;                               \
        while (!(condition)) {                                                                     \
            if (clock_monotonic_us() > end_us_)                                                    \
                fail_msg("waited in vain for " #condition);                                        \
            assert_true(event_base_loop((f)->base, EVLOOP_ONCE | EVLOOP_NONBLOCK) >= 0);           \
        }                                                                                          \
    } while (0)

static void loop_until_registering(struct fixture *f, struct conn *conn)
{
    LOOP_UNTIL(f, conn->session.fsm.state == SERVER_FSM_REGISTERING);
}

static void loop_until_kept(struct fixture *f, struct conn *conn, size_t len)
{
    LOOP_UNTIL(f, kept(conn) >= len);
    assert_int_equal(kept(conn), len);
}

/* Half an answer now and the other half then: it has a bufferevent from here on, with nothing in
 * it. */
static void give_bufferevent(struct fixture *f, struct conn *conn, int fd)
{
    const uint64_t answered = counters(f)->keepalives_answered;

    assert_null(conn->bev);
    SAY(fd, "10");
    TURN_UNTIL(f, conn->bev != NULL);
    SAY(fd, "0\n");
    TURN_UNTIL(f, counters(f)->keepalives_answered == answered + 1);
    assert_int_equal(kept(conn), 0);
}

/* Resets the connection instead of closing it. */
static void reset(int fd)
{
    const struct linger none = {.l_onoff = 1, .l_linger = 0};

    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof(none)), 0);
    close(fd);
}

static void close_in_order(int fd)
{
    close(fd);
}

/* ---- lines ---- */

static void conn_takes_lines_however_they_are_cut(void **state)
{
    static const char bytes[] = "secret\r\nweb-1\n100\n100\r\n";
    struct fixture *f = *state;
    struct conn *conn;

    for (size_t cut = 0; cut < sizeof(bytes) - 1; cut++) {
        const uint64_t answered = counters(f)->keepalives_answered;
        const int fd = come(f, &conn);

        say(fd, bytes, cut);
        for (int i = 0; i < 3; i++)
            turn(f);
        say(fd, bytes + cut, sizeof(bytes) - 1 - cut);
        expect(f, fd, ASK_PASSWORD ASK_ID WELCOME);
        TURN_UNTIL(f, counters(f)->keepalives_answered == answered + 2);
        close(fd);
        TURN_UNTIL(f, living(f) == 0);
    }
}

static void conn_counts_each_byte_once_however_they_are_cut(void **state)
{
    static const char bytes[] = "secret\r\nweb-1\n100\n100\r\nhalf";
    static const char answers[] = ASK_PASSWORD ASK_ID WELCOME;
    struct fixture *f = *state;
    struct conn *conn;

    for (size_t cut = 0; cut < sizeof(bytes) - 1; cut++) {
        const uint64_t received = f->env.received_bytes;
        const uint64_t sent = f->env.sent_bytes;
        const uint64_t answered = counters(f)->keepalives_answered;
        const int fd = come(f, &conn);

        say(fd, bytes, cut);
        for (int i = 0; i < 3; i++)
            turn(f);
        assert_true(f->env.received_bytes <= received + cut);
        say(fd, bytes + cut, sizeof(bytes) - 1 - cut);
        expect(f, fd, answers);
        TURN_UNTIL(f, counters(f)->keepalives_answered == answered + 2);
        close(fd);
        TURN_UNTIL(f, living(f) == 0);
        assert_int_equal(f->env.received_bytes, received + sizeof(bytes) - 1);
        assert_int_equal(f->env.sent_bytes, sent + sizeof(answers) - 1);
    }
}

static void conn_counts_what_comes_behind_its_last_word(void **state)
{
    struct fixture *f = *state;
    struct conn *conn;
    const int fd = come(f, &conn);

    SAY(fd, "wro");
    TURN_UNTIL(f, conn->bev != NULL);
    SAY(fd, "ng\n");
    expect_last(f, fd, ASK_PASSWORD "410: wrong password\r\n");
    SAY(fd, "and more");
    close(fd);
    TURN_UNTIL(f, living(f) == 0);
    assert_int_equal(f->env.received_bytes, 6 + 8);
    assert_int_equal(f->env.sent_bytes, strlen(ASK_PASSWORD "410: wrong password\r\n"));
}

/* The server sets it back at the end of a turn. */
static void conn_says_when_the_work_of_a_turn_begins(void **state)
{
    struct fixture *f = *state;
    struct conn *conn;
    const uint64_t before_us = clock_monotonic_us();
    const int fd = enter(f, &conn, "web-1");
    const uint64_t began_us = f->env.turn_began_us;

    assert_in_range(began_us, before_us, clock_monotonic_us());
    SAY(fd, "100\n");
    TURN_UNTIL(f, counters(f)->keepalives_answered == 1);
    assert_int_equal(f->env.turn_began_us, began_us); /* the first one stays */

    f->env.turn_began_us = 0;
    turn(f);
    assert_int_equal(f->env.turn_began_us, 0); /* nobody said anything */
    const uint64_t left_us = clock_monotonic_us();
    close(fd);
    TURN_UNTIL(f, living(f) == 0);
    assert_in_range(f->env.turn_began_us, left_us, clock_monotonic_us());
}

static void conn_takes_lines_byte_by_byte(void **state)
{
    static const char bytes[] = "secret\nweb-1\r\n100\n";
    struct fixture *f = *state;
    struct conn *conn;
    const int fd = come(f, &conn);

    for (size_t i = 0; i < sizeof(bytes) - 1; i++) {
        say(fd, bytes + i, 1);
        turn(f);
        turn(f);
    }
    expect(f, fd, ASK_PASSWORD ASK_ID WELCOME);
    TURN_UNTIL(f, counters(f)->keepalives_answered == 1);
    close(fd);
}

/* From the greeting to the close by either side, and whatever the reason: end_turn() watches. */
static void conn_of_whole_lines_never_has_a_bufferevent(void **state)
{
    struct fixture *f = *state;
    struct conn *conn;
    struct conn *other;
    int fd;

    f->all_direct = true;
    fd = enter(f, &conn, "web-1");
    for (uint64_t i = 1; i <= 20; i++) {
        conn_session_ops.send(&conn->session, BYTES(KEEP_ALIVE));
        expect(f, fd, KEEP_ALIVE);
        SAY(fd, "100\r\n");
        TURN_UNTIL(f, counters(f)->keepalives_answered == i);
    }
    /* Several lines in one segment are whole lines, too. */
    SAY(fd, "100\n100\nunasked\n100\n");
    TURN_UNTIL(f, counters(f)->keepalives_answered == 23);
    assert_null(conn->bev);
    close(fd);
    TURN_UNTIL(f, living(f) == 0);

    fd = come(f, &conn);
    SAY(fd, "secret\nweb-2\n");
    expect(f, fd, ASK_PASSWORD ASK_ID WELCOME);
    reset(fd);
    TURN_UNTIL(f, living(f) == 0);

    fd = enter(f, &conn, "web-3");
    const int newer = enter(f, &other, "web-3");
    expect_last(f, fd, "431: replaced\r\n");
    SAY(fd, "too late\nand half");
    wait_for_bytes(conn, 17);
    turn(f);
    assert_int_equal(living(f), 2); /* it lingers */
    close(fd);
    TURN_UNTIL(f, living(f) == 1);
    session_end(&other->session, REASON_STOPPED, clock_now());
    expect_last(f, newer, "");
    close(newer);

    /* Nothing behind a refused line is worth keeping. */
    fd = come(f, &conn);
    SAY(fd, "wrong\nsecret\nhalf a li");
    expect_last(f, fd, ASK_PASSWORD "410: wrong password\r\n");
    reset(fd);
    TURN_UNTIL(f, living(f) == 0);

    assert_int_equal(counters(f)->ended[REASON_LEFT], 1);
    assert_int_equal(counters(f)->ended[REASON_RESET], 1);
    assert_int_equal(counters(f)->ended[REASON_REPLACED], 1);
    assert_int_equal(counters(f)->ended[REASON_STOPPED], 1);
    assert_int_equal(counters(f)->refused[REASON_PASSWORD], 1);
}

static void conn_keeps_half_a_line_in_a_bufferevent_from_then_on(void **state)
{
    struct fixture *f = *state;
    struct conn *conn;
    int fd = come(f, &conn);

    SAY(fd, "sec");
    wait_for_bytes(conn, 3);
    turn(f);
    assert_non_null(conn->bev);
    assert_int_equal(kept(conn), 3);
    assert_int_equal(event_pending(&conn->readable, EV_READ, NULL), 0); /* one of them reads */
    assert_int_equal(evbuffer_add(bufferevent_get_input(conn->bev), "x", 1), -1); /* only that */
    SAY(fd, "ret\nweb-");
    expect(f, fd, ASK_PASSWORD ASK_ID);
    SAY(fd, "1\n100\n10");
    expect(f, fd, WELCOME);
    TURN_UNTIL(f, counters(f)->keepalives_answered == 1);
    SAY(fd, "0\n100\n");
    TURN_UNTIL(f, counters(f)->keepalives_answered == 3);
    assert_int_equal(kept(conn), 0);
    assert_non_null(conn->bev);
    close(fd);
    TURN_UNTIL(f, living(f) == 0);

    /* Whole lines are taken at once, and what is behind them is kept. */
    fd = enter(f, &conn, "web-2");
    SAY(fd, "100\n100\n1");
    wait_for_bytes(conn, 9);
    turn(f);
    assert_int_equal(counters(f)->keepalives_answered, 5);
    assert_int_equal(kept(conn), 1);
    SAY(fd, "00\n");
    TURN_UNTIL(f, counters(f)->keepalives_answered == 6);
    close(fd);
}

/* As much as is read at a time, and no more of it in one wake-up. */
static void conn_takes_all_lines_of_a_read(void **state)
{
    enum { READ_BYTES = 4096, LINES = 3 * READ_BYTES / 4 };
    struct fixture *f = *state;
    struct conn *conn;
    char lines[3 * READ_BYTES];
    const int fd = enter(f, &conn, "web-1");

    for (size_t i = 0; i < LINES; i++)
        memcpy(lines + 4 * i, "100\n", 4);
    say(fd, lines, sizeof(lines));
    wait_for_bytes(conn, sizeof(lines));
    for (uint64_t i = 1; i <= 3; i++) {
        turn(f);
        assert_int_equal(counters(f)->keepalives_answered, i * READ_BYTES / 4);
        assert_null(conn->bev);
    }

    /* Now the end of what is read cuts a line in two. */
    SAY(fd, "\r\n");
    say(fd, lines, sizeof(lines));
    wait_for_bytes(conn, sizeof(lines) + 2);
    turn(f);
    assert_int_equal(counters(f)->keepalives_answered, LINES + READ_BYTES / 4 - 1);
    assert_int_equal(kept(conn), 2);
    TURN_UNTIL(f, counters(f)->keepalives_answered == 2 * LINES);
    assert_int_equal(kept(conn), 0);
    close(fd);
}

static void conn_lines_behind_a_refused_one_are_not_taken(void **state)
{
    struct fixture *f = *state;
    struct conn *conn;
    const int fd = come(f, &conn);

    SAY(fd, "wrong\nsecret\nweb-1\n");
    expect_last(f, fd, ASK_PASSWORD "410: wrong password\r\n");
    assert_int_equal(living(f), 1); /* our end came first, and it waits for the peer's */
    assert_int_equal(counters(f)->refused[REASON_PASSWORD], 1);
    assert_int_equal(registry_count(f->registry), 0);
    close(fd);
    TURN_UNTIL(f, living(f) == 0);
}

static void conn_line_that_cannot_be_one_gets_400(void **state)
{
    struct fixture *f = *state;
    struct conn *conn;
    char long_line[PROTO_MAX_LINE_BYTES + 1];
    int fd = come(f, &conn);

    SAY(fd, "sec\0ret\n");
    expect_last(f, fd, ASK_PASSWORD "400: protocol error\r\n");
    close(fd);

    memset(long_line, 'x', sizeof(long_line));
    fd = come(f, &conn);
    say(fd, long_line, PROTO_MAX_LINE_BYTES);
    expect_last(f, fd, ASK_PASSWORD "400: protocol error\r\n");
    close(fd);

    /* With its end within the limit it is a line, if no password. */
    long_line[PROTO_MAX_LINE_BYTES - 1] = '\n';
    fd = come(f, &conn);
    say(fd, long_line, PROTO_MAX_LINE_BYTES);
    expect_last(f, fd, ASK_PASSWORD "410: wrong password\r\n");
    close(fd);
    TURN_UNTIL(f, living(f) == 0);
}

/* While the store is asked, lines wait, and so many of them at most. */
static void conn_holds_early_lines_within_bounds_and_takes_them_later(void **state)
{
    enum { LINES = 20000 };
    struct fixture *f = *state;
    struct conn *conn;
    const int fd = come(f, &conn);
    size_t sent = 0;
    size_t most = 0;

    SAY(fd, "secret\nweb-1\n");
    loop_until_registering(f, conn);
    for (int i = 0; i < 300; i++) {
        while (sent < LINES && send(fd, "100\n", 4, MSG_NOSIGNAL | MSG_DONTWAIT) == 4)
            sent++;
        assert_true(event_base_loop(f->base, EVLOOP_ONCE | EVLOOP_NONBLOCK) >= 0);
        conn_session_ops.look(&conn->session);
        most = kept(conn) > most ? kept(conn) : most;
    }
    assert_int_equal(sent, LINES);
    assert_in_range(most, 4, 8192);
    assert_int_equal(counters(f)->keepalives_answered, 0);
    turn(f);
    expect(f, fd, ASK_PASSWORD ASK_ID WELCOME);
    TURN_UNTIL(f, counters(f)->keepalives_answered == LINES);
    assert_int_equal(sessions_connected(f->sessions), 1);
    close(fd);
}

/* Nine that nobody asked for end a session: had they overtaken the others, these would be lost. */
static void conn_takes_held_lines_before_what_came_behind(void **state)
{
    static const char answers[] = "100\n100\n";
    static const char unasked[] = "a\nb\nc\nd\ne\nf\ng\nh\ni\n";
    struct fixture *f = *state;
    struct conn *conn;
    int fd;

    for (size_t cut = 0; cut <= 8; cut++) {
        const uint64_t answered = counters(f)->keepalives_answered;
        const uint64_t ended = counters(f)->ended[REASON_PROTOCOL];

        fd = come(f, &conn);
        SAY(fd, "secret\n");
        expect(f, fd, ASK_PASSWORD ASK_ID);
        SAY(fd, "web-1\n");
        loop_until_registering(f, conn);
        assert_null(conn->bev); /* up to now there is nothing to hold */
        say(fd, answers, cut);
        loop_until_kept(f, conn, cut);
        say(fd, answers + cut, 8 - cut);
        loop_until_kept(f, conn, 8);
        say(fd, BYTES(unasked));
        loop_until_kept(f, conn, 8 + sizeof(unasked) - 1);
        assert_int_equal(counters(f)->keepalives_answered, answered);

        expect_last(f, fd, WELCOME "400: protocol error\r\n");
        assert_int_equal(counters(f)->keepalives_answered, answered + 2);
        assert_int_equal(counters(f)->ended[REASON_PROTOCOL], ended + 1);
        close(fd);
        TURN_UNTIL(f, living(f) == 0);
    }
}

/* What had to be held came with the ID, and nothing comes behind that could wake anybody. */
static void conn_takes_lines_that_came_with_the_id(void **state)
{
    struct fixture *f = *state;
    struct conn *conn;
    const int fd = come(f, &conn);

    SAY(fd, "secret\nweb-1\n100\n100\n10");
    loop_until_registering(f, conn);
    assert_int_equal(kept(conn), 10);
    assert_int_equal(counters(f)->keepalives_answered, 0);
    expect(f, fd, ASK_PASSWORD ASK_ID WELCOME);
    TURN_UNTIL(f, counters(f)->keepalives_answered == 2);
    assert_int_equal(kept(conn), 2);
    SAY(fd, "0\n");
    TURN_UNTIL(f, counters(f)->keepalives_answered == 3);
    close(fd);
}

/* ---- how it ends ---- */

static void conn_closed_by_the_peer_is_left(void **state)
{
    struct fixture *f = *state;
    struct conn *conn;
    int fd = come(f, &conn);

    expect(f, fd, ASK_PASSWORD); /* closing with unread bytes would be a reset */
    close(fd);
    TURN_UNTIL(f, living(f) == 0);
    assert_int_equal(counters(f)->refused[REASON_LEFT], 1);

    fd = come(f, &conn);
    SAY(fd, "secret\n");
    expect(f, fd, ASK_PASSWORD ASK_ID);
    close(fd);
    TURN_UNTIL(f, living(f) == 0);
    assert_int_equal(counters(f)->refused[REASON_LEFT], 2);

    fd = enter(f, &conn, "web-1");
    close(fd);
    TURN_UNTIL(f, living(f) == 0);
    assert_int_equal(counters(f)->ended[REASON_LEFT], 1);
    assert_int_equal(registry_find(f->registry, "web-1", 5)->reason, REASON_LEFT);
}

/* Without and with a bufferevent, close and reset, before and after the welcome: each its reason.
 */
static void conn_end_is_noticed_whoever_reads(void **state)
{
    struct fixture *f = *state;
    struct conn *conn;
    const uint64_t *const refused = counters(f)->refused;
    const uint64_t *const ended = counters(f)->ended;

    for (int buffered = 0; buffered <= 1; buffered++) {
        for (int resets = 0; resets <= 1; resets++) {
            const enum reason reason = resets ? REASON_RESET : REASON_LEFT;

            int fd = come(f, &conn);
            expect(f, fd, ASK_PASSWORD);
            if (buffered) {
                SAY(fd, "sec");
                TURN_UNTIL(f, kept(conn) == 3);
            }
            assert_int_equal(conn->bev != NULL, buffered);
            (resets ? reset : close_in_order)(fd);
            wait_for_end(conn);
            turn(f);
            assert_int_equal(living(f), 0);
            assert_int_equal(refused[reason], buffered + 1);

            fd = enter(f, &conn, "web-1");
            if (buffered)
                give_bufferevent(f, conn, fd);
            assert_int_equal(conn->bev != NULL, buffered);
            (resets ? reset : close_in_order)(fd);
            wait_for_end(conn);
            turn(f);
            assert_int_equal(living(f), 0);
            assert_int_equal(ended[reason], buffered + 1);
            assert_int_equal(registry_find(f->registry, "web-1", 5)->reason, reason);
        }
    }
}

/* The peer lives and lets nothing in, for longer than TCP is to put up with it. */
static void conn_given_up_by_tcp_is_timed_out(void **state)
{
    static char noise[32 * 1024];
    const unsigned timeout_ms = 100;
    struct fixture *f = *state;
    struct conn *conn;

    for (int buffered = 0; buffered <= 1; buffered++) {
        const int fd = enter(f, &conn, "web-1");
        const int small = 4096;

        if (buffered)
            give_bufferevent(f, conn, fd);
        assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)), 0);
        assert_int_equal(setsockopt(descriptor_of(conn), IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms,
                                    sizeof(timeout_ms)),
                         0);
        /* Our kernel has room for all of it: nothing waits in the connection. */
        for (int i = 0; i < 8; i++)
            conn_session_ops.send(&conn->session, noise, sizeof(noise));
        assert_int_equal(unsent(conn), 0);
        assert_int_equal(conn->bev != NULL, buffered);
        TURN_UNTIL(f, living(f) == 0);
        assert_int_equal(counters(f)->ended[REASON_TIMED_OUT], buffered + 1);
        close(fd);
    }
}

/* The last lines that came with the end are taken first. */
static void conn_lines_that_come_with_the_end_are_taken(void **state)
{
    static const char *const said[] = {"100\n", "100\n100\n1"};
    struct fixture *f = *state;
    struct conn *conn;

    for (size_t i = 0; i < COUNT(said); i++) {
        for (int buffered = 0; buffered <= 1; buffered++) {
            const int fd = enter(f, &conn, "web-1");

            if (buffered)
                give_bufferevent(f, conn, fd);
            const uint64_t answered = counters(f)->keepalives_answered;
            const uint64_t left = counters(f)->ended[REASON_LEFT];
            say(fd, said[i], strlen(said[i]));
            close(fd);
            wait_for_end(conn);
            TURN_UNTIL(f, living(f) == 0);
            assert_int_equal(counters(f)->keepalives_answered, answered + i + 1);
            assert_int_equal(counters(f)->ended[REASON_LEFT], left + 1);
        }
    }
}

static void conn_reset_at_each_step_is_counted_and_freed(void **state)
{
    static const char *const said[] = {
        "", "sec", "secret\n", "secret\nweb", "secret\nweb-1\n", "secret\nweb-1\n100\n1"};
    struct fixture *f = *state;
    struct conn *conn;
    uint64_t over = 0;

    for (size_t i = 0; i < COUNT(said); i++) {
        for (int turns = 0; turns < 4; turns++) {
            const int fd = come(f, &conn);

            say(fd, said[i], strlen(said[i]));
            for (int j = 0; j < turns; j++)
                turn(f);
            reset(fd);
            TURN_UNTIL(f, living(f) == 0);
            over = 0;
            for (int j = 0; j < REASON_COUNT; j++)
                over += counters(f)->refused[j] + counters(f)->ended[j];
            assert_int_equal(over, counters(f)->started);
        }
    }
    assert_int_equal(counters(f)->refused[REASON_RESET] + counters(f)->ended[REASON_RESET], over);
    assert_int_equal(sessions_connected(f->sessions), 0);
    assert_int_equal(registry_connected(f->registry), 0);
}

/* It had already gone when it was greeted. */
static void conn_reset_before_the_first_line_is_no_trouble(void **state)
{
    struct fixture *f = *state;
    int server;
    int client;

    for (int i = 0; i < 20; i++) {
        make_tcp_pair(&server, &client);
        reset(client);
        (void)adopt(f, server, AF_INET);
        TURN_UNTIL(f, living(f) == 0);
    }
    assert_int_equal(counters(f)->refused[REASON_RESET], 20);
}

/* Its early lines are to be offered again, and before that happens it is gone and freed. */
static void conn_gone_in_the_turn_of_its_welcome_is_freed_safely(void **state)
{
    struct fixture *f = *state;
    struct conn *conn;
    struct conn *next;

    for (int i = 0; i < 20; i++) {
        const int fd = come(f, &conn);
        const size_t freed = f->freed;

        SAY(fd, "secret\nweb-1\n100\n100\n");
        loop_until_registering(f, conn);
        reset(fd);
        end_turn(f); /* 140 cannot be sent; the connection is freed with a callback on its way */
        assert_int_equal(f->freed, freed + 1);

        /* The next one gets its descriptor, and is not disturbed. */
        const int other = enter(f, &next, "web-2");
        SAY(other, "100\n");
        TURN_UNTIL(f, counters(f)->keepalives_answered == (uint64_t)i + 1);
        close(other);
        TURN_UNTIL(f, living(f) == 0);
    }
}

/* No callback of it is on its way, so nothing is left for later. */
static void conn_freed_gives_its_descriptor_back_at_once(void **state)
{
    struct fixture *f = *state;
    struct conn *conn;

    f->all_direct = true;
    for (uint64_t i = 1; i <= 20; i++) {
        int fd = come(f, &conn);
        const int number = descriptor_of(conn);
        int server;

        expect(f, fd, ASK_PASSWORD);
        /* Bytes wait in the kernel when it ends, every other time. */
        if (i % 2 == 0) {
            SAY(fd, "secret\n");
            wait_for_bytes(conn, 7);
        }
        session_end(&conn->session, REASON_STOPPED, clock_now());
        end_turn(f);
        assert_int_equal(living(f), 0);
        assert_int_equal(fcntl(number, F_GETFD), -1);
        assert_int_equal(errno, EBADF);
        close(fd);

        /* The next one has its number, and is heard. */
        make_tcp_pair(&server, &fd);
        if (server != number) {
            assert_int_equal(dup3(server, number, O_CLOEXEC), number);
            close(server);
        }
        conn = adopt(f, number, AF_INET);
        SAY(fd, "secret\nweb-1\n");
        expect(f, fd, ASK_PASSWORD ASK_ID WELCOME);
        SAY(fd, "100\n");
        TURN_UNTIL(f, counters(f)->keepalives_answered == i);
        close(fd);
        TURN_UNTIL(f, living(f) == 0);
    }
}

/* ---- the last word ---- */

static void conn_last_line_is_read_by_a_peer_that_still_sends(void **state)
{
    struct fixture *f = *state;
    struct conn *conn;
    char noise[65536];

    memset(noise, 'x', sizeof(noise));
    for (int buffered = 0; buffered <= 1; buffered++) {
        const int fd = come(f, &conn);
        size_t sent = 0;

        SAY(fd, "wro");
        if (buffered)
            TURN_UNTIL(f, kept(conn) == 3);
        SAY(fd, "ng\n");
        if (!buffered)
            wait_for_bytes(conn, 6);
        /* Sends, and the server reads and forgets, far more than any buffer holds. */
        for (int i = 0; i < 400 || sent <= 1000000; i++) {
            const ssize_t got = send(fd, noise, sizeof(noise), MSG_NOSIGNAL | MSG_DONTWAIT);
            assert_true(got > 0 || errno == EAGAIN);
            sent += got > 0 ? (size_t)got : 0;
            turn(f);
            assert_int_equal(living(f), 1); /* it waits for us */
            assert_in_range(kept(conn), 0, 8192);
            assert_true(i < 1000000);
        }
        assert_int_equal(conn->bev != NULL, buffered);
        expect_last(f, fd, ASK_PASSWORD "410: wrong password\r\n");
        close(fd);
        TURN_UNTIL(f, living(f) == 0);
    }
}

static void conn_lingers_for_two_seconds_at_most(void **state)
{
    struct fixture *f = *state;
    struct conn *conn;
    const int fd = come(f, &conn);
    char buf[64];

    SAY(fd, "wrong\n");
    TURN_UNTIL(f, conn->lingering);
    /* The peer neither reads nor closes. */
    f->skipped_us = CONN_LINGER_US - CLOCK_US_PER_SEC;
    for (int i = 0; i < 5; i++)
        turn(f);
    assert_int_equal(living(f), 1);
    f->skipped_us = CONN_LINGER_US;
    turn(f);
    assert_int_equal(living(f), 0);
    assert_true(recv(fd, buf, sizeof(buf), 0) > 0);
    close(fd);
}

static void conn_lingering_ends_with_the_peer(void **state)
{
    struct fixture *f = *state;
    struct conn *conn;

    for (int how = 0; how < 4; how++) {
        const int fd = come(f, &conn);

        if (how >= 2) {
            SAY(fd, "wro");
            TURN_UNTIL(f, conn->bev != NULL);
            SAY(fd, "ng\n");
        } else {
            SAY(fd, "wrong\n");
        }
        TURN_UNTIL(f, conn->lingering);
        assert_int_equal(conn->bev != NULL, how >= 2);
        const uint64_t until_us = conn->linger_until_us;
        (how % 2 == 0 ? close_in_order : reset)(fd);
        TURN_UNTIL(f, living(f) == 0);
        assert_true(clock_monotonic_us() < until_us);
    }
    assert_int_equal(counters(f)->refused[REASON_PASSWORD], 4);
    assert_int_equal(counters(f)->refused[REASON_RESET], 0);
}

static void conn_ended_without_a_word_is_closed_at_once(void **state)
{
    struct fixture *f = *state;
    struct conn *conn;
    const int fd = enter(f, &conn, "web-1");

    session_end(&conn->session, REASON_STOPPED, clock_now());
    end_turn(f);
    assert_int_equal(living(f), 0);
    expect_last(f, fd, "");
    close(fd);
}

/* ---- a peer that does not read ---- */

static void fill(struct conn *conn, size_t until)
{
    for (int i = 0; i < 2000000 && !conn->closing && unsent(conn) < until; i++)
        conn_session_ops.send(&conn->session, BYTES(KEEP_ALIVE));
}

static void make_buffers_small(struct conn *conn, int fd)
{
    const int small = 4096;

    assert_int_equal(setsockopt(descriptor_of(conn), SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)),
                     0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)), 0);
}

static void conn_that_does_not_read_is_dropped_at_64_kilobytes(void **state)
{
    struct fixture *f = *state;
    struct conn *conn;
    const int fd = enter(f, &conn, "web-1");

    make_buffers_small(conn, fd);
    fill(conn, CONN_MAX_UNSENT_BYTES - sizeof(KEEP_ALIVE));
    assert_false(conn->closing);
    assert_in_range(unsent(conn), CONN_MAX_UNSENT_BYTES - sizeof(KEEP_ALIVE),
                    CONN_MAX_UNSENT_BYTES);
    for (int i = 0; i < 3 && !conn->closing; i++)
        conn_session_ops.send(&conn->session, BYTES(KEEP_ALIVE));
    assert_true(conn->closing);
    assert_int_equal(counters(f)->ended[REASON_SLOW], 1);
    assert_int_equal(registry_find(f->registry, "web-1", 5)->reason, REASON_SLOW);
    end_turn(f);
    assert_int_equal(living(f), 0); /* nothing more is to be said to it */
    close(fd);
}

/* Takes what the kernels have, while the server does not run. */
static size_t drain_kernels(int fd, char *buf, size_t size)
{
    struct pollfd readable = {.fd = fd, .events = POLLIN};
    size_t len = 0;

    while (poll(&readable, 1, 250) == 1) {
        const ssize_t got = recv(fd, buf + len, size - len, MSG_DONTWAIT);
        assert_true(got > 0);
        len += (size_t)got;
    }
    return len;
}

static void conn_that_reads_late_gets_every_byte_in_order(void **state)
{
    static char heard[1024 * 1024];
    static const char last[] = "460: server restarting\r\n";
    struct fixture *f = *state;
    struct conn *conn;
    const int fd = enter(f, &conn, "web-1");
    const size_t line_len = strlen(KEEP_ALIVE);
    bool ended;
    int error;
    size_t len;
    size_t taken = 0;

    make_buffers_small(conn, fd);
    fill(conn, 32 * 1024);
    assert_false(conn->closing);
    /* The kernel has room again, and still what waits in the connection comes first. */
    len = drain_kernels(fd, heard, sizeof(heard));
    session_end(&conn->session, REASON_RESTARTING, clock_now());
    end_turn(f);
    assert_int_equal(living(f), 1);
    len += hear(f, fd, heard + len, sizeof(heard) - len, &ended, &error);
    assert_true(ended);
    assert_int_equal(error, 0);
    assert_int_equal(living(f), 1);

    for (; len - taken >= line_len && memcmp(heard + taken, KEEP_ALIVE, line_len) == 0;)
        taken += line_len;
    assert_true(taken > 32 * 1024);
    assert_string_equal(heard + taken, last);
    close(fd);
    TURN_UNTIL(f, living(f) == 0);
}

/* What the kernel takes half of is the first to wait, and everything behind it waits, too; and the
 * connection hears as before. */
static void conn_line_sent_in_part_is_completed_in_order(void **state)
{
    enum { FIRST = 48 * 1024, LINES = 500 };
    static char said[FIRST + LINES * 16 + 1];
    static char heard[sizeof(said)];
    struct fixture *f = *state;
    struct conn *conn;
    const int fd = enter(f, &conn, "web-1");
    size_t len = FIRST;
    bool ended;
    int error;

    for (size_t i = 0; i < FIRST; i += 16)
        snprintf(said + i, sizeof(said) - i, "part %08zu\r\n ", i);
    make_buffers_small(conn, fd);
    conn_session_ops.send(&conn->session, said, FIRST);
    assert_false(conn->closing);
    assert_non_null(conn->bev);
    assert_in_range(unsent(conn), 1, FIRST - 1);
    assert_int_equal(event_pending(&conn->readable, EV_READ, NULL), 0);
    for (int i = 0; i < LINES; i++) {
        const int line_len = snprintf(said + len, sizeof(said) - len, "line %d\r\n", i);
        conn_session_ops.send(&conn->session, said + len, (size_t)line_len);
        len += (size_t)line_len;
    }
    assert_false(conn->closing);
    SAY(fd, "100\n10");
    TURN_UNTIL(f, counters(f)->keepalives_answered == 1);

    assert_int_equal(hear(f, fd, heard, len + 1, &ended, &error), len);
    assert_memory_equal(heard, said, len);
    TURN_UNTIL(f, unsent(conn) == 0);
    /* From here on nothing waits any more, and lines go straight out again. */
    conn_session_ops.send(&conn->session, BYTES(KEEP_ALIVE));
    assert_int_equal(unsent(conn), 0);
    expect(f, fd, KEEP_ALIVE);
    SAY(fd, "0\n");
    TURN_UNTIL(f, counters(f)->keepalives_answered == 2);
    close(fd);
}

/* The answer to its own line does not fit any more, and it learns that while it takes lines. A unix
 * socket, since what is free in one does not depend on when a kernel acknowledges. */
static void conn_whose_answer_has_to_wait_loses_no_line(void **state)
{
    static char heard[1024 * 1024];
    struct fixture *f = *state;
    struct conn *conn;
    int pair[2];
    bool ended;
    int error;
    size_t stuffed = 0;

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(fcntl(pair[0], F_SETFL, O_NONBLOCK), 0);
    conn = adopt(f, pair[0], AF_UNIX);
    expect(f, pair[1], ASK_PASSWORD);
    /* Past the connection, so that it does not know. */
    while (send(pair[0], "x", 1, MSG_NOSIGNAL) == 1)
        stuffed++;
    assert_int_equal(errno, EAGAIN);
    assert_true(stuffed + 64 < sizeof(heard));
    SAY(pair[1], "secret\nwe");
    assert_null(conn->bev);
    assert_true(event_base_loop(f->base, EVLOOP_ONCE | EVLOOP_NONBLOCK) >= 0);
    assert_int_equal(unsent(conn), strlen(ASK_ID));
    assert_int_equal(kept(conn), 2);
    SAY(pair[1], "b-1\n100\n");
    TURN_UNTIL(f, counters(f)->keepalives_answered == 1);
    (void)hear(f, pair[1], heard, stuffed + strlen(ASK_ID WELCOME) + 1, &ended, &error);
    assert_string_equal(heard + stuffed, ASK_ID WELCOME);
    close(pair[1]);
}

/* ---- the last look ---- */

static void conn_look_finds_what_waits_in_the_kernel(void **state)
{
    struct fixture *f = *state;
    struct conn *conn;
    const int fd = enter(f, &conn, "web-1");

    conn_session_ops.look(&conn->session);
    assert_int_equal(counters(f)->keepalives_answered, 0);
    SAY(fd, "100\n");
    conn_session_ops.look(&conn->session);
    assert_int_equal(counters(f)->keepalives_answered, 1);
    conn_session_ops.look(&conn->session);
    assert_null(conn->bev);
    SAY(fd, "100\n10");
    conn_session_ops.look(&conn->session);
    assert_int_equal(counters(f)->keepalives_answered, 2);
    assert_non_null(conn->bev);
    conn_session_ops.look(&conn->session);
    assert_int_equal(counters(f)->keepalives_answered, 2);

    /* The event loop goes on where the look ended. */
    for (int i = 0; i < 5; i++)
        turn(f);
    assert_int_equal(counters(f)->keepalives_answered, 2);
    SAY(fd, "0\n");
    TURN_UNTIL(f, counters(f)->keepalives_answered == 3);

    /* And the look where the event loop ended. */
    SAY(fd, "1");
    TURN_UNTIL(f, kept(conn) == 1);
    SAY(fd, "00\n100\n");
    conn_session_ops.look(&conn->session);
    assert_int_equal(counters(f)->keepalives_answered, 5);
    SAY(fd, "100\n");
    TURN_UNTIL(f, counters(f)->keepalives_answered == 6);
    close(fd);
}

static void conn_look_may_end_the_session(void **state)
{
    struct fixture *f = *state;
    struct conn *conn;

    for (int buffered = 0; buffered <= 1; buffered++) {
        const int fd = come(f, &conn);

        SAY(fd, "wro");
        if (buffered)
            TURN_UNTIL(f, kept(conn) == 3);
        SAY(fd, "ng\nhalf");
        wait_for_bytes(conn, buffered ? 7 : 10);
        conn_session_ops.look(&conn->session);
        assert_true(session_is_over(&conn->session));
        assert_int_equal(conn->bev != NULL, buffered);
        conn_session_ops.look(&conn->session);
        expect_last(f, fd, ASK_PASSWORD "410: wrong password\r\n");
        close(fd);
        TURN_UNTIL(f, living(f) == 0);
    }
}

/* Its end may be noticed at once or by the event loop, but is not lost, nor is its reason. */
static void conn_look_does_not_lose_the_end(void **state)
{
    static const char *const said[] = {"", "100\n"};
    struct fixture *f = *state;
    struct conn *conn;

    for (int how = 0; how < 8; how++) {
        const bool buffered = how & 1;
        const enum reason reason = how & 2 ? REASON_RESET : REASON_LEFT;
        const char *last = said[how >> 2 & 1];
        const int fd = enter(f, &conn, "web-1");

        if (buffered)
            give_bufferevent(f, conn, fd);
        const uint64_t answered = counters(f)->keepalives_answered;
        const uint64_t ended = counters(f)->ended[reason];
        say(fd, last, strlen(last));
        if (*last) {
            conn_session_ops.look(&conn->session);
            assert_int_equal(counters(f)->keepalives_answered, answered + 1);
        }
        (reason == REASON_RESET ? reset : close_in_order)(fd);
        wait_for_end(conn);
        conn_session_ops.look(&conn->session);
        conn_session_ops.look(&conn->session);
        TURN_UNTIL(f, living(f) == 0);
        assert_int_equal(counters(f)->ended[reason], ended + 1);
        assert_int_equal(registry_find(f->registry, "web-1", 5)->reason, reason);
    }
    assert_int_equal(registry_connected(f->registry), 0);
    assert_int_equal(sessions_connected(f->sessions), 0);
}

static void conn_look_takes_the_last_lines_before_the_end(void **state)
{
    struct fixture *f = *state;
    struct conn *conn;

    for (int buffered = 0; buffered <= 1; buffered++) {
        const int fd = enter(f, &conn, "web-1");

        if (buffered)
            give_bufferevent(f, conn, fd);
        const uint64_t answered = counters(f)->keepalives_answered;
        SAY(fd, "100\n1");
        close(fd);
        wait_for_end(conn);
        conn_session_ops.look(&conn->session);
        assert_int_equal(counters(f)->keepalives_answered, answered + 1);
        TURN_UNTIL(f, living(f) == 0);
        assert_int_equal(counters(f)->ended[REASON_LEFT], buffered + 1);
    }
}

/* Lines that are held are not to be overtaken by what the look finds. */
static void conn_look_keeps_the_order_of_held_lines(void **state)
{
    struct fixture *f = *state;
    struct conn *conn;
    const int fd = come(f, &conn);

    SAY(fd, "secret\nweb-1\n");
    loop_until_registering(f, conn);
    SAY(fd, "100\n10");
    wait_for_bytes(conn, 6);
    conn_session_ops.look(&conn->session);
    assert_int_equal(kept(conn), 6);
    SAY(fd, "0\n");
    wait_for_bytes(conn, 2);
    conn_session_ops.look(&conn->session);
    assert_int_equal(kept(conn), 8);
    assert_int_equal(counters(f)->keepalives_answered, 0);
    expect(f, fd, ASK_PASSWORD ASK_ID WELCOME);
    TURN_UNTIL(f, counters(f)->keepalives_answered == 2);
    close(fd);
}

/* ---- other things ---- */

static unsigned user_timeout_of(struct conn *conn)
{
    unsigned timeout_ms = 0;
    socklen_t len = sizeof(timeout_ms);

    assert_int_equal(
        getsockopt(descriptor_of(conn), IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, &len), 0);
    return timeout_ms;
}

static void conn_gets_a_changed_user_timeout_when_it_is_spoken_to(void **state)
{
    struct fixture *f = *state;
    struct conn *conn;
    const int fd = enter(f, &conn, "web-1");

    f->env.user_timeout_ms = 12345;
    f->env.generation++;
    conn_session_ops.send(&conn->session, BYTES(KEEP_ALIVE));
    assert_int_equal(user_timeout_of(conn), 12345);
    expect(f, fd, KEEP_ALIVE);
    close(fd);
}

static void conn_over_a_unix_socket_is_as_good(void **state)
{
    struct fixture *f = *state;
    struct conn *conn;
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(fcntl(pair[0], F_SETFL, O_NONBLOCK), 0);
    conn = adopt(f, pair[0], AF_UNIX);
    f->env.user_timeout_ms = 1;
    f->env.generation++;
    SAY(pair[1], "secret\nweb-1\n");
    expect(f, pair[1], ASK_PASSWORD ASK_ID WELCOME);
    assert_int_equal(conn->session.record->peer.family, AF_UNIX);
    close(pair[1]);
    TURN_UNTIL(f, living(f) == 0);
}

/* One replaces the other, from inside a callback of its own connection. */
static void conn_replaced_by_another_reads_why(void **state)
{
    struct fixture *f = *state;
    struct conn *first;
    struct conn *second;
    const int one = enter(f, &first, "web-1");
    const int two = enter(f, &second, "web-1");

    expect_last(f, one, "431: replaced\r\n");
    close(one);
    TURN_UNTIL(f, living(f) == 1);
    SAY(two, "100\n");
    TURN_UNTIL(f, counters(f)->keepalives_answered == 1);
    close(two);
}

/* ---- what may run out ---- */

/* Sockets can be watched, and files cannot: a socket for which there is no room fails alike. */
static void conn_that_cannot_be_watched_is_left_to_its_caller(void **state)
{
    const struct peer_address peer = {.family = AF_INET, .ip = {127, 0, 0, 1}, .port = 4711};
    struct fixture *f = *state;
    const int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    event_set_log_callback(say_nothing);
    assert_null(conn_new(&f->env, fd, &peer, false, clock_now()));
    event_set_log_callback(NULL);
    assert_int_equal(counters(f)->started, 0);
    assert_int_equal(close(fd), 0);
}

/* Each allocation that keeping takes fails in turn: that ends this session, or nothing does. */
static void conn_without_memory_to_keep_a_line_is_ended(void **state)
{
    struct fixture *f = *state;
    struct conn *conn;
    struct conn *other;
    const int bystander = enter(f, &other, "web-2");
    uint64_t failed = 0;
    size_t n = 0;

    for (bool kept_it = false; !kept_it; n++) {
        const int fd = enter(f, &conn, "web-1");

        SAY(fd, "10");
        wait_for_bytes(conn, 2);
        fail_allocation(n);
        turn(f);
        kept_it = !allocation_failed();
        if (living(f) == 1) {
            assert_int_equal(counters(f)->ended[REASON_RESOURCES], ++failed);
            expect_last(f, fd, "");
        } else {
            SAY(fd, "0\n");
            const uint64_t answered = counters(f)->keepalives_answered;
            TURN_UNTIL(f, counters(f)->keepalives_answered == answered + 1);
        }
        close(fd);
        TURN_UNTIL(f, living(f) == 1);
        assert_true(n < 100);
    }
    assert_true(failed > 0);
    SAY(bystander, "100\n");
    const uint64_t answered = counters(f)->keepalives_answered;
    TURN_UNTIL(f, counters(f)->keepalives_answered == answered + 1);
    close(bystander);
}

static void conn_without_memory_for_a_line_to_wait_is_ended(void **state)
{
    static char line[48 * 1024];
    static char heard[64 * 1024];
    struct fixture *f = *state;
    struct conn *conn;
    uint64_t failed = 0;
    size_t n = 0;

    for (bool queued = false; !queued; n++) {
        const int fd = enter(f, &conn, "web-1");

        make_buffers_small(conn, fd);
        fail_allocation(n);
        conn_session_ops.send(&conn->session, line, sizeof(line));
        queued = !allocation_failed();
        if (conn->closing)
            assert_int_equal(counters(f)->ended[REASON_RESOURCES], ++failed);
        else
            TURN_UNTIL(f, (drain_kernels(fd, heard, sizeof(heard)), unsent(conn)) == 0);
        close(fd);
        TURN_UNTIL(f, living(f) == 0);
        assert_true(n < 100);
    }
    assert_true(failed > 0);
}

#define WITH_LOOP(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

static int start(void **state)
{
    const struct log_options quiet = {.program = "test", .level = LOG_LEVEL_ERROR};

    (void)state;
    event_set_mem_functions(allocate, reallocate, free);
    (void)signal(SIGPIPE, SIG_IGN);
    return log_open(&quiet) == 0 ? hash_init() : -1;
}

static int finish(void **state)
{
    (void)state;
    log_close();
    libevent_global_shutdown();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_LOOP(conn_takes_lines_however_they_are_cut),
        WITH_LOOP(conn_counts_each_byte_once_however_they_are_cut),
        WITH_LOOP(conn_counts_what_comes_behind_its_last_word),
        WITH_LOOP(conn_says_when_the_work_of_a_turn_begins),
        WITH_LOOP(conn_takes_lines_byte_by_byte),
        WITH_LOOP(conn_of_whole_lines_never_has_a_bufferevent),
        WITH_LOOP(conn_keeps_half_a_line_in_a_bufferevent_from_then_on),
        WITH_LOOP(conn_takes_all_lines_of_a_read),
        WITH_LOOP(conn_lines_behind_a_refused_one_are_not_taken),
        WITH_LOOP(conn_line_that_cannot_be_one_gets_400),
        WITH_LOOP(conn_holds_early_lines_within_bounds_and_takes_them_later),
        WITH_LOOP(conn_takes_held_lines_before_what_came_behind),
        WITH_LOOP(conn_takes_lines_that_came_with_the_id),
        WITH_LOOP(conn_closed_by_the_peer_is_left),
        WITH_LOOP(conn_end_is_noticed_whoever_reads),
        WITH_LOOP(conn_given_up_by_tcp_is_timed_out),
        WITH_LOOP(conn_lines_that_come_with_the_end_are_taken),
        WITH_LOOP(conn_reset_at_each_step_is_counted_and_freed),
        WITH_LOOP(conn_reset_before_the_first_line_is_no_trouble),
        WITH_LOOP(conn_gone_in_the_turn_of_its_welcome_is_freed_safely),
        WITH_LOOP(conn_freed_gives_its_descriptor_back_at_once),
        WITH_LOOP(conn_last_line_is_read_by_a_peer_that_still_sends),
        WITH_LOOP(conn_lingers_for_two_seconds_at_most),
        WITH_LOOP(conn_lingering_ends_with_the_peer),
        WITH_LOOP(conn_ended_without_a_word_is_closed_at_once),
        WITH_LOOP(conn_that_does_not_read_is_dropped_at_64_kilobytes),
        WITH_LOOP(conn_that_reads_late_gets_every_byte_in_order),
        WITH_LOOP(conn_line_sent_in_part_is_completed_in_order),
        WITH_LOOP(conn_whose_answer_has_to_wait_loses_no_line),
        WITH_LOOP(conn_look_finds_what_waits_in_the_kernel),
        WITH_LOOP(conn_look_may_end_the_session),
        WITH_LOOP(conn_look_does_not_lose_the_end),
        WITH_LOOP(conn_look_takes_the_last_lines_before_the_end),
        WITH_LOOP(conn_look_keeps_the_order_of_held_lines),
        WITH_LOOP(conn_gets_a_changed_user_timeout_when_it_is_spoken_to),
        WITH_LOOP(conn_over_a_unix_socket_is_as_good),
        WITH_LOOP(conn_replaced_by_another_reads_why),
        WITH_LOOP(conn_that_cannot_be_watched_is_left_to_its_caller),
        WITH_LOOP(conn_without_memory_to_keep_a_line_is_ended),
        WITH_LOOP(conn_without_memory_for_a_line_to_wait_is_ended),
    };

    return cmocka_run_group_tests(tests, start, finish);
}
