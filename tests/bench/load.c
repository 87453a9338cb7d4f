/*
 * The load: one thread on bare epoll that connects, shakes hands, keeps alive and closes, in the
 * protocol of whichever server is measured, and does as little as possible beside that, so that the
 * server is what a run waits for. All it measures is how late it is asked; measure.py reads the
 * server's processor time between its commands, one a line on stdin:
 *
 * - churn N INFLIGHT: N clients connect, get through their handshake and close.
 * - hold N INFLIGHT: connects until N more clients stay connected.
 * - serve SECONDS MS: keeps those held alive at an interval of MS milliseconds. Each client asks so
 *   often, or, where the server is the one that asks, notes how late it is.
 *
 * Each is answered by one JSON line on stdout. bench-load DIALECT PORT PASSWORD
 */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_CLIENTS 20000
#define EVENTS      512
#define MAX_BYTES   512
#define MAX_STEPS   3
/* Connections from one address are fewer than its ports, also while old ones are in TIME_WAIT. */
#define CLIENTS_PER_SOURCE 4000
#define SOURCES            250
/* Lateness is counted in steps of this, and what is later than all of them in the last one. */
#define LATE_STEP_US 100
#define LATE_STEPS   100000
/* A run in which nothing happens for so long has failed. */
#define STALL_MS 10000

struct text {
    const char *bytes;
    size_t len;
};

#define TEXT(literal)                                                                              \
    {                                                                                              \
        literal, sizeof(literal) - 1                                                               \
    }

/*
 * How a protocol shakes hands: each message of the server must begin as expected, and is answered
 * with what make() makes. Messages are lines, or, where message_bytes is set, have that length: in
 * the handshake, and of an answer to a keep-alive.
 */
struct dialect {
    const char *name;
    bool client_begins;
    bool client_asks;
    unsigned steps;                    /* messages of the server up to being connected */
    struct text expect[MAX_STEPS + 1]; /* the one behind those is an answer to a keep-alive */
    unsigned message_bytes[2];         /* 0: a line */
    size_t (*make)(char *out, unsigned step, uint32_t id);
    struct text ask;         /* what the client sends to ask, or to answer */
    struct text server_asks; /* where both ask: what the server begins with … */
    struct text answer;      /* … and what it gets */
};

static size_t make_cliser(char *out, unsigned step, uint32_t id);
static size_t make_redis(char *out, unsigned step, uint32_t id);
static size_t make_mqtt(char *out, unsigned step, uint32_t id);
static size_t make_nats(char *out, unsigned step, uint32_t id);

static const struct dialect dialects[] = {
    {.name = "cliser",
     .steps = 3,
     .expect = {TEXT("110"), TEXT("120"), TEXT("140"), TEXT("100")},
     .make = make_cliser,
     .ask = TEXT("100\n")},
    {.name = "redis",
     .client_begins = true,
     .client_asks = true,
     .steps = 2,
     .expect = {TEXT("+OK"), TEXT("+OK"), TEXT("+PONG")},
     .make = make_redis,
     .ask = TEXT("PING\r\n")},
    {.name = "mqtt",
     .client_begins = true,
     .client_asks = true,
     .steps = 1,
     .expect = {TEXT("\x20\x02\x00\x00"), TEXT("\xd0\x00")},
     .message_bytes = {4, 2},
     .make = make_mqtt,
     .ask = TEXT("\xc0\x00")},
    {.name = "nats",
     .client_asks = true,
     .steps = 2,
     .expect = {TEXT("INFO"), TEXT("PONG"), TEXT("PONG")},
     .make = make_nats,
     .ask = TEXT("PING\r\n"),
     .server_asks = TEXT("PING"),
     .answer = TEXT("PONG\r\n")},
};

/* One client, by its descriptor. */
struct client {
    uint64_t due_us; /* when the server should ask next; 0 before it has asked at all */
    uint32_t id;
    uint32_t held_index; /* in held[] */
    uint8_t step;        /* messages of the handshake that came */
    uint16_t begun;      /* bytes of a message that has not come whole */
    bool open;
    bool stays;
};

static const struct dialect *dialect;
static const char *password;
static struct sockaddr_in server;
static struct client clients[MAX_CLIENTS];
static int held[MAX_CLIENTS];
static uint32_t held_count;
static uint32_t next_id = 1;
static uint32_t shaking;     /* connections on their way */
static uint64_t connected;   /* handshakes done in this command */
static uint64_t round_trips; /* keep-alives asked and answered in this command */
static uint64_t failed;
static uint64_t interval_us; /* while serving */
static uint64_t late[LATE_STEPS];
static uint64_t late_count;
static int epoll_fd;

static void run_command(char *line);
static void churn(uint64_t count, uint32_t inflight, bool stay);
static void serve(double seconds, double interval_ms);
static void note_lateness(struct client *client);
static double late_ms(double share);
static void report(double seconds);
static int turn(int timeout_ms);
static void open_one(bool stays);
static void read_from(int fd);
static void take_message(int fd, const char *message, size_t len);
static void shaken(int fd);
static void close_one(int fd);
static bool begins_with(const char *message, size_t len, const struct text *text);
static void say(int fd, const char *bytes, size_t len);
static double now_s(void);
static void fail(const char *what);

int main(int argc, char **argv)
{
    struct rlimit limit;
    char line[256];

    for (size_t i = 0; argc == 4 && i < sizeof(dialects) / sizeof(dialects[0]); i++) {
        if (strcmp(dialects[i].name, argv[1]) == 0)
            dialect = &dialects[i];
    }
    if (!dialect) {
        fputs("usage: bench-load cliser|redis|mqtt|nats PORT PASSWORD\n", stderr);
        return 2;
    }
    server = (struct sockaddr_in){.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)strtoul(argv[2], NULL, 10)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    password = argv[3];
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
    epoll_fd = epoll_create1(0);
    while (fgets(line, sizeof(line), stdin))
        run_command(line);
    return 0;
}

static void run_command(char *line)
{
    char verb[16] = "";
    double a = 0;
    double b = 0;
    const double begin = now_s();

    connected = round_trips = failed = late_count = 0;
    memset(late, 0, sizeof(late));
    if (sscanf(line, "%15s %lf %lf", verb, &a, &b) < 1)
        return;
    if (strcmp(verb, "churn") == 0)
        churn((uint64_t)a, (uint32_t)b, false);
    else if (strcmp(verb, "hold") == 0)
        churn((uint64_t)a, (uint32_t)b, true);
    else if (strcmp(verb, "serve") == 0)
        serve(a, b);
    else
        fail("no such command");
    report(now_s() - begin);
}

static void churn(uint64_t count, uint32_t inflight, bool stay)
{
    uint64_t opened = 0;

    while (opened < count || shaking > 0) {
        while (opened < count && shaking < inflight) {
            open_one(stay);
            opened++;
        }
        if (turn(STALL_MS) == 0)
            fail("nothing happens any more");
    }
}

/* The clients ask in turn, so many a millisecond that each of them asks once an interval. */
static void serve(double seconds, double interval_ms)
{
    const double begin = now_s();
    uint64_t asked = 0;

    interval_us = (uint64_t)(interval_ms * 1000);
    for (uint32_t i = 0; i < held_count; i++)
        clients[held[i]].due_us = 0;
    for (double passed = 0; passed < seconds; passed = now_s() - begin) {
        if (dialect->client_asks) {
            const uint64_t due = (uint64_t)(passed * 1000 / interval_ms * held_count);
            for (; asked < due; asked++)
                say(held[asked % held_count], dialect->ask.bytes, dialect->ask.len);
        }
        (void)turn(1);
    }
    interval_us = 0;
}

/*
 * A client is asked at fixed moments, an interval apart. The first time we are asked sets them;
 * being asked too early shows that it had been late, so it sets them anew.
 */
static void note_lateness(struct client *client)
{
    const uint64_t now = (uint64_t)(now_s() * 1e6);

    if (client->due_us == 0 || now < client->due_us) {
        client->due_us = now + interval_us;
        return;
    }
    const uint64_t step = (now - client->due_us) / LATE_STEP_US;
    late[step < LATE_STEPS ? step : LATE_STEPS - 1]++;
    late_count++;
    client->due_us += interval_us;
}

/* The lateness, in milliseconds, that this share of all stays below. */
static double late_ms(double share)
{
    uint64_t left = (uint64_t)((double)late_count * share);
    size_t step = 0;

    while (step < LATE_STEPS - 1 && left >= late[step])
        left -= late[step++];
    return late_count == 0 ? 0 : (double)(step + 1) * LATE_STEP_US / 1000;
}

static void report(double seconds)
{
    printf("{\"seconds\": %.6f, \"connected\": %" PRIu64 ", \"held\": %" PRIu32
           ", \"round_trips\": %" PRIu64 ", \"failed\": %" PRIu64
           ", \"late_p50_ms\": %.1f, \"late_p99_ms\": %.1f, \"late_max_ms\": %.1f}\n",
           seconds, connected, held_count, round_trips, failed, late_ms(0.5), late_ms(0.99),
           late_ms(0.999999));
    fflush(stdout);
}

static int turn(int timeout_ms)
{
    struct epoll_event events[EVENTS];
    const int count = epoll_wait(epoll_fd, events, EVENTS, timeout_ms);

    for (int i = 0; i < count; i++)
        read_from(events[i].data.fd);
    return count;
}

/* Connecting blocks, which on loopback takes no longer than the call itself. */
static void open_one(bool stays)
{
    const uint32_t id = next_id++;
    const struct sockaddr_in source = {
        .sin_family = AF_INET,
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK + 256 + id / CLIENTS_PER_SOURCE % SOURCES)};
    const int on = 1;
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.fd = fd};
    char bytes[MAX_BYTES];

    if (fd < 0 || fd >= MAX_CLIENTS)
        fail("cannot make a socket");
    (void)setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on));
    /* The cheapest: on loopback, the server's calls pay for much of what our end does. */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4);
    if (bind(fd, (const struct sockaddr *)&source, sizeof(source)) != 0 ||
        connect(fd, (const struct sockaddr *)&server, sizeof(server)) != 0 ||
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0)
        fail("cannot connect");
    clients[fd] = (struct client){.id = id, .open = true, .stays = stays};
    shaking++;
    if (dialect->client_begins)
        say(fd, bytes, dialect->make(bytes, 0, id));
}

/* Cuts out whole messages. Servers send each in one piece, so that all there is to remember of one
 * that comes in two is how many bytes were there already. */
static void read_from(int fd)
{
    char bytes[4096];
    const ssize_t count = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);
    struct client *client = &clients[fd];
    const char *at = bytes;

    if (count <= 0) {
        if (count < 0 && errno == EAGAIN)
            return;
        failed++;
        if (client->step < dialect->steps)
            shaking--;
        close_one(fd);
        return;
    }
    while (client->open && at < bytes + count) {
        const size_t rest = (size_t)(bytes + count - at);
        const unsigned fixed = dialect->message_bytes[client->step >= dialect->steps];
        const char *end = fixed == 0                      ? memchr(at, '\n', rest)
                          : rest + client->begun >= fixed ? at + fixed - client->begun - 1
                                                          : NULL;
        if (!end) {
            client->begun = (uint16_t)(client->begun + rest);
            return;
        }
        if (client->begun > 0) /* its begin is gone: taken for what it should be */
            take_message(fd, dialect->expect[client->step].bytes,
                         dialect->expect[client->step].len);
        else
            take_message(fd, at, (size_t)(end + 1 - at));
        client->begun = 0;
        at = end + 1;
    }
}

static void take_message(int fd, const char *message, size_t len)
{
    struct client *client = &clients[fd];
    char bytes[MAX_BYTES];

    if (dialect->server_asks.len > 0 && begins_with(message, len, &dialect->server_asks)) {
        say(fd, dialect->answer.bytes, dialect->answer.len);
        return;
    }
    if (!begins_with(message, len, &dialect->expect[client->step])) {
        fprintf(stderr, "bench-load: unexpected: %.*s\n", (int)len, message);
        exit(1);
    }
    if (client->step == dialect->steps) {
        round_trips++;
        if (interval_us > 0 && !dialect->client_asks)
            note_lateness(client);
        if (!dialect->client_asks)
            say(fd, dialect->ask.bytes, dialect->ask.len);
        return;
    }
    client->step++;
    if (client->step == dialect->steps)
        shaken(fd);
    else
        say(fd, bytes, dialect->make(bytes, client->step, client->id));
}

static void shaken(int fd)
{
    shaking--;
    connected++;
    if (clients[fd].stays) {
        clients[fd].held_index = held_count;
        held[held_count++] = fd;
    } else {
        close_one(fd);
    }
}

static void close_one(int fd)
{
    struct client *client = &clients[fd];

    if (client->stays && client->step == dialect->steps) {
        const int last = held[--held_count];
        held[client->held_index] = last;
        clients[last].held_index = client->held_index;
    }
    client->open = false;
    close(fd);
}

static bool begins_with(const char *message, size_t len, const struct text *text)
{
    return len >= text->len && memcmp(message, text->bytes, text->len) == 0;
}

static void say(int fd, const char *bytes, size_t len)
{
    if (len > 0 && send(fd, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)len)
        failed++;
}

/* make_…(): what the client says when the server's first step messages have come. */

static size_t make_cliser(char *out, unsigned step, uint32_t id)
{
    return (size_t)(step == 1 ? snprintf(out, MAX_BYTES, "%s\n", password)
                              : snprintf(out, MAX_BYTES, "machine-%" PRIu32 "\n", id));
}

static size_t make_redis(char *out, unsigned step, uint32_t id)
{
    return (size_t)(step == 0
                        ? snprintf(out, MAX_BYTES, "AUTH %s\r\n", password)
                        : snprintf(out, MAX_BYTES, "CLIENT SETNAME machine-%" PRIu32 "\r\n", id));
}

/* CONNECT of MQTT 3.1.1 with a clean session, no keep-alive and no credentials. */
static size_t make_mqtt(char *out, unsigned step, uint32_t id)
{
    static const char head[] = {0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 0};
    const int len = snprintf(out + 14, MAX_BYTES - 14, "machine-%" PRIu32, id);

    (void)step;
    out[0] = 0x10;
    out[1] = (char)(sizeof(head) + 2 + (size_t)len);
    memcpy(out + 2, head, sizeof(head));
    out[12] = 0;
    out[13] = (char)len;
    return 14 + (size_t)len;
}

static size_t make_nats(char *out, unsigned step, uint32_t id)
{
    (void)step;
    return (size_t)snprintf(out, MAX_BYTES,
                            "CONNECT {\"verbose\":false,\"pedantic\":false,\"user\":\"bench\","
                            "\"pass\":\"%s\",\"name\":\"machine-%" PRIu32 "\"}\r\nPING\r\n",
                            password, id);
}

static double now_s(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void fail(const char *what)
{
    fprintf(stderr, "bench-load: %s: %s\n", what, strerror(errno));
    exit(1);
}
