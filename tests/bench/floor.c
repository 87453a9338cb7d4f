/*
 * The floor: what the kernel alone asks for. A bare epoll server with the same handshake and
 * keep-alives as cliserd, and nothing else: any password, any ID, no registry, no deadlines, no
 * log, no library. What cliserd costs above this is cliserd's own doing.
 *
 * bench-floor PORT INTERVAL_MS
 */
#include <errno.h>
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

#define MAX_CLIENTS   20000
#define EVENTS        512
#define ACCEPT_BUDGET 64
#define NOBODY        0

enum state { CLOSED, AWAIT_PASSWORD, AWAIT_ID, CONNECTED };

/* One client, by its descriptor; those connected are in a ring, the next to be asked first. */
struct client {
    uint64_t due_us;
    uint32_t next, previous; /* descriptors; NOBODY (never a client's) is the ring's head */
    uint8_t state;
};

static struct client clients[MAX_CLIENTS];
static uint64_t interval_us;
static int epoll_fd;

static int listen_on(uint16_t port);
static void accept_some(int listener);
static void read_from(uint32_t fd);
static void take_line(uint32_t fd);
static void close_client(uint32_t fd);
static void ask_who_is_due(void);
static int wait_ms(void);
static void enqueue(uint32_t fd);
static void dequeue(uint32_t fd);
static void say(uint32_t fd, const char *line);
static uint64_t now_us(void);
static void fail(const char *what);

int main(int argc, char **argv)
{
    struct epoll_event events[EVENTS];
    struct rlimit limit;

    if (argc != 3) {
        fputs("usage: bench-floor PORT INTERVAL_MS\n", stderr);
        return 2;
    }
    interval_us = (uint64_t)strtoul(argv[2], NULL, 10) * 1000;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
    const int listener = listen_on((uint16_t)strtoul(argv[1], NULL, 10));
    puts("ready");
    fflush(stdout);

    for (;;) {
        const int count = epoll_wait(epoll_fd, events, EVENTS, wait_ms());
        for (int i = 0; i < count; i++) {
            if (events[i].data.fd == listener)
                accept_some(listener);
            else
                read_from((uint32_t)events[i].data.fd);
        }
        ask_who_is_due();
    }
}

static int listen_on(uint16_t port)
{
    const struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int on = 1;
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};

    epoll_fd = epoll_create1(0);
    if (fd < 0 || epoll_fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0 ||
        bind(fd, (const struct sockaddr *)&address, sizeof(address)) != 0 ||
        listen(fd, 4096) != 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0)
        fail("cannot listen");
    return fd;
}

static void accept_some(int listener)
{
    for (int i = 0; i < ACCEPT_BUDGET; i++) {
        const int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};

        if (fd < 0)
            return;
        if (fd >= MAX_CLIENTS || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
            close(fd);
            return;
        }
        clients[fd].state = AWAIT_PASSWORD;
        say((uint32_t)fd, "110: qual a senha\r\n");
    }
}

static void read_from(uint32_t fd)
{
    char bytes[4096];
    const ssize_t count = recv((int)fd, bytes, sizeof(bytes), 0);

    if (count <= 0) {
        if (count == 0 || errno != EAGAIN)
            close_client(fd);
        return;
    }
    for (const char *end = bytes; (end = memchr(end, '\n', (size_t)(bytes + count - end))); end++)
        take_line(fd);
}

static void take_line(uint32_t fd)
{
    switch ((enum state)clients[fd].state) {
    case AWAIT_PASSWORD:
        clients[fd].state = AWAIT_ID;
        say(fd, "120: qual o ID\r\n");
        break;
    case AWAIT_ID:
        clients[fd].state = CONNECTED;
        enqueue(fd);
        say(fd, "140: Connected\r\n");
        break;
    case CONNECTED: /* the answer to a 100 */
    case CLOSED:
        break;
    }
}

static void close_client(uint32_t fd)
{
    if (clients[fd].state == CONNECTED)
        dequeue(fd);
    clients[fd].state = CLOSED;
    close((int)fd);
}

static void ask_who_is_due(void)
{
    const uint64_t now = now_us();
    uint32_t fd;

    while ((fd = clients[NOBODY].next) != NOBODY && clients[fd].due_us <= now) {
        dequeue(fd);
        enqueue(fd);
        say(fd, "100: keep alive\r\n");
    }
}

static int wait_ms(void)
{
    const uint32_t first = clients[NOBODY].next;

    if (first == NOBODY)
        return -1;
    const uint64_t now = now_us();
    return clients[first].due_us <= now ? 0 : (int)((clients[first].due_us - now + 999) / 1000);
}

/* To the end of the ring: everybody waits for the same time. */
static void enqueue(uint32_t fd)
{
    struct client *head = &clients[NOBODY];

    clients[fd].due_us = now_us() + interval_us;
    clients[fd].next = NOBODY;
    clients[fd].previous = head->previous;
    clients[head->previous].next = fd;
    head->previous = fd;
}

static void dequeue(uint32_t fd)
{
    clients[clients[fd].previous].next = clients[fd].next;
    clients[clients[fd].next].previous = clients[fd].previous;
}

static void say(uint32_t fd, const char *line)
{
    (void)!send((int)fd, line, strlen(line), MSG_NOSIGNAL | MSG_DONTWAIT);
}

static uint64_t now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void fail(const char *what)
{
    fprintf(stderr, "bench-floor: %s: %s\n", what, strerror(errno));
    exit(1);
}
