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
    sessions_set_store(f->sessions, f->store);
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
    store_turn(f->store, clock_now());
    store_close(f->store, clock_now());
    sessions_free(f->sessions);
    registry_free(f->registry);
    event_base_free(f->base);
    free(f);
    return 0;
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
    struct conn *conn = conn_new(&f->env, fd, &peer, clock_now());

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

    store_turn(f->store, clock_now());
    now = clock_now();
    now.mono_us += f->skipped_us;
    for (size_t i = 0; i < MAX_CONNS; i++) {
        if (!f->conns[i])
            continue;
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

/* Resets the connection instead of closing it. */
static void reset(int fd)
{
    const struct linger none = {.l_onoff = 1, .l_linger = 0};

    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof(none)), 0);
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
    while (conn->session.fsm.state != SERVER_FSM_REGISTERING)
        assert_true(event_base_loop(f->base, EVLOOP_ONCE) >= 0);
    /* The loop runs, but no turn ends: the store is slow. */
    for (int i = 0; i < 300; i++) {
        while (sent < LINES && send(fd, "100\n", 4, MSG_NOSIGNAL | MSG_DONTWAIT) == 4)
            sent++;
        assert_true(event_base_loop(f->base, EVLOOP_ONCE | EVLOOP_NONBLOCK) >= 0);
        const size_t waiting = evbuffer_get_length(bufferevent_get_input(conn->bev));
        most = waiting > most ? waiting : most;
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

/* The last line that came with the end is taken first. */
static void conn_line_that_comes_with_the_end_is_taken(void **state)
{
    struct fixture *f = *state;
    struct conn *conn;
    const int fd = enter(f, &conn, "web-1");

    SAY(fd, "100\n");
    close(fd);
    TURN_UNTIL(f, living(f) == 0);
    assert_int_equal(counters(f)->keepalives_answered, 1);
    assert_int_equal(counters(f)->ended[REASON_LEFT], 1);
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
        while (conn->session.fsm.state != SERVER_FSM_REGISTERING)
            assert_true(event_base_loop(f->base, EVLOOP_ONCE) >= 0);
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

/* ---- the last word ---- */

static void conn_last_line_is_read_by_a_peer_that_still_sends(void **state)
{
    struct fixture *f = *state;
    struct conn *conn;
    char noise[65536];
    const int fd = come(f, &conn);
    size_t sent = 0;

    memset(noise, 'x', sizeof(noise));
    SAY(fd, "wrong\n");
    /* Sends, and the server reads and forgets, far more than any buffer holds. */
    for (int i = 0; i < 400; i++) {
        const ssize_t got = send(fd, noise, sizeof(noise), MSG_NOSIGNAL | MSG_DONTWAIT);
        assert_true(got > 0 || errno == EAGAIN);
        sent += got > 0 ? (size_t)got : 0;
        turn(f);
        if (living(f) > 0)
            assert_in_range(evbuffer_get_length(bufferevent_get_input(conn->bev)), 0, 8192);
    }
    assert_true(sent > 1000000);
    assert_int_equal(living(f), 1); /* it waits for us */
    expect_last(f, fd, ASK_PASSWORD "410: wrong password\r\n");
    close(fd);
    TURN_UNTIL(f, living(f) == 0);
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

    for (int how = 0; how <= 1; how++) {
        const int fd = come(f, &conn);

        SAY(fd, "wrong\n");
        TURN_UNTIL(f, conn->lingering);
        const uint64_t until_us = conn->linger_until_us;
        if (how == 0)
            close(fd);
        else
            reset(fd);
        TURN_UNTIL(f, living(f) == 0);
        assert_true(clock_monotonic_us() < until_us);
    }
    assert_int_equal(counters(f)->refused[REASON_PASSWORD], 2);
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
    struct evbuffer *output = bufferevent_get_output(conn->bev);

    for (int i = 0; i < 2000000 && !conn->closing && evbuffer_get_length(output) < until; i++)
        conn_session_ops.send(&conn->session, BYTES(KEEP_ALIVE));
}

static void make_buffers_small(struct conn *conn, int fd)
{
    const int small = 4096;

    assert_int_equal(
        setsockopt(bufferevent_getfd(conn->bev), SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
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
    assert_in_range(evbuffer_get_length(bufferevent_get_output(conn->bev)),
                    CONN_MAX_UNSENT_BYTES - sizeof(KEEP_ALIVE), CONN_MAX_UNSENT_BYTES);
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

/* ---- the last look ---- */

static void conn_look_finds_what_waits_in_the_kernel(void **state)
{
    struct fixture *f = *state;
    struct conn *conn;
    const int fd = enter(f, &conn, "web-1");

    conn_session_ops.look(&conn->session);
    assert_int_equal(counters(f)->keepalives_answered, 0);
    SAY(fd, "100\n10");
    conn_session_ops.look(&conn->session);
    assert_int_equal(counters(f)->keepalives_answered, 1);
    conn_session_ops.look(&conn->session);
    assert_int_equal(counters(f)->keepalives_answered, 1);

    /* The event loop goes on where the look ended. */
    for (int i = 0; i < 5; i++)
        turn(f);
    assert_int_equal(counters(f)->keepalives_answered, 1);
    SAY(fd, "0\n");
    TURN_UNTIL(f, counters(f)->keepalives_answered == 2);
    SAY(fd, "100\n");
    TURN_UNTIL(f, counters(f)->keepalives_answered == 3);
    close(fd);
}

static void conn_look_may_end_the_session(void **state)
{
    struct fixture *f = *state;
    struct conn *conn;
    const int fd = come(f, &conn);

    SAY(fd, "wrong\n");
    conn_session_ops.look(&conn->session);
    assert_true(session_is_over(&conn->session));
    conn_session_ops.look(&conn->session);
    expect_last(f, fd, ASK_PASSWORD "410: wrong password\r\n");
    close(fd);
    TURN_UNTIL(f, living(f) == 0);
}

static void conn_look_leaves_the_end_to_the_event_loop(void **state)
{
    struct fixture *f = *state;
    struct conn *conn;
    int fd = enter(f, &conn, "web-1");

    close(fd);
    conn_session_ops.look(&conn->session);
    conn_session_ops.look(&conn->session);
    TURN_UNTIL(f, living(f) == 0);
    assert_int_equal(counters(f)->ended[REASON_LEFT], 1);

    fd = enter(f, &conn, "web-1");
    SAY(fd, "100\n");
    close(fd);
    conn_session_ops.look(&conn->session);
    assert_int_equal(counters(f)->keepalives_answered, 1);
    TURN_UNTIL(f, living(f) == 0);
    assert_int_equal(counters(f)->ended[REASON_LEFT], 2);

    fd = enter(f, &conn, "web-1");
    reset(fd);
    conn_session_ops.look(&conn->session);
    TURN_UNTIL(f, living(f) == 0);
    assert_int_equal(registry_connected(f->registry), 0);
    assert_int_equal(sessions_connected(f->sessions), 0);
}

/* ---- other things ---- */

static unsigned user_timeout_of(struct conn *conn)
{
    unsigned timeout_ms = 0;
    socklen_t len = sizeof(timeout_ms);

    assert_int_equal(
        getsockopt(bufferevent_getfd(conn->bev), IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, &len),
        0);
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

#define WITH_LOOP(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

static int start(void **state)
{
    const struct log_options quiet = {.program = "test", .level = LOG_LEVEL_ERROR};

    (void)state;
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
        WITH_LOOP(conn_takes_lines_byte_by_byte),
        WITH_LOOP(conn_lines_behind_a_refused_one_are_not_taken),
        WITH_LOOP(conn_line_that_cannot_be_one_gets_400),
        WITH_LOOP(conn_holds_early_lines_within_bounds_and_takes_them_later),
        WITH_LOOP(conn_closed_by_the_peer_is_left),
        WITH_LOOP(conn_line_that_comes_with_the_end_is_taken),
        WITH_LOOP(conn_reset_at_each_step_is_counted_and_freed),
        WITH_LOOP(conn_reset_before_the_first_line_is_no_trouble),
        WITH_LOOP(conn_gone_in_the_turn_of_its_welcome_is_freed_safely),
        WITH_LOOP(conn_last_line_is_read_by_a_peer_that_still_sends),
        WITH_LOOP(conn_lingers_for_two_seconds_at_most),
        WITH_LOOP(conn_lingering_ends_with_the_peer),
        WITH_LOOP(conn_ended_without_a_word_is_closed_at_once),
        WITH_LOOP(conn_that_does_not_read_is_dropped_at_64_kilobytes),
        WITH_LOOP(conn_that_reads_late_gets_every_byte_in_order),
        WITH_LOOP(conn_look_finds_what_waits_in_the_kernel),
        WITH_LOOP(conn_look_may_end_the_session),
        WITH_LOOP(conn_look_leaves_the_end_to_the_event_loop),
        WITH_LOOP(conn_gets_a_changed_user_timeout_when_it_is_spoken_to),
        WITH_LOOP(conn_over_a_unix_socket_is_as_good),
        WITH_LOOP(conn_replaced_by_another_reads_why),
    };

    return cmocka_run_group_tests(tests, start, finish);
}
