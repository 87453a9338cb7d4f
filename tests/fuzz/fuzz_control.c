/*
 * The whole control API: libmicrohttpd in the real event loop, on its unix socket and its port. The
 * input is a script of what connections send, when, while two clients are connected.
 *
 * Run three times, with the bytes cut otherwise each time: all connections must have been answered
 * the same. Nothing changes, and nobody is told anything, unless a connection may have had the
 * right to it: one to the unix socket, or one over which the token went. Every answer is whole.
 */
#include "admin/http.h"
#include "fake_clock.h"
#include "fuzz.h"
#include "http_text.h"
#include "world.h"

#include <errno.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#define SLOTS      4
#define MACHINES   2
#define MAX_SCRIPT 2048
#define MAX_READ   (64 * 1024)
#define MAX_SENT   16384
/* The library takes some turns for one request. */
#define SETTLE_TURNS (3 * WORLD_SETTLE_TURNS)

/* A step is a byte, with the slot in its upper half, and its arguments. */
enum step {
    STEP_OPEN_SOCKET,
    STEP_OPEN_PORT,
    STEP_SEND,  /* length, bytes */
    STEP_PIECE, /* one of pieces[] */
    STEP_WAIT,  /* one of waits_ms[] */
    STEP_HALF_CLOSE,
    STEP_CLOSE,
    STEP_ANSWER, /* a machine says 100 and 130 */
    STEP_LEAVE,  /* a machine leaves */
    STEP_DEAF,   /* stops reading, or reads again */
    STEP_COUNT
};

#define TOKEN_HEADER "Authorization: Bearer " WORLD_TOKEN "\r\n"
#define JSON_HEADER  "Content-Type: application/json\r\n"

/* What makes requests that get far. HOST is where the server listens, another port each time. */
static const char *const pieces[] = {
    "GET /v1/status HTTP/1.1\r\n",
    "GET /v1/clients?limit=1 HTTP/1.1\r\n",
    "POST /v1/shutdown HTTP/1.1\r\n",
    "DELETE /v1/shutdown HTTP/1.1\r\n",
    "POST /v1/clients/web-1/ping HTTP/1.1\r\n",
    "POST /v1/clients/db-1/disconnect HTTP/1.1\r\n",
    "GET /v1/events HTTP/1.1\r\n",
    "GET /metrics HTTP/1.1\r\n",
    "POST /v1/reload HTTP/1.1\r\n",
    "HEAD /v1/clients/web-1 HTTP/1.1\r\n",
    "Host: HOST\r\n",
    TOKEN_HEADER,
    JSON_HEADER,
    "Content-Length: 20\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Connection: close\r\n",
    "Expect: 100-continue\r\n",
    "\r\n",
    "{\"waves\": [[\"*\"]]}  ",
    "14\r\n{\"waves\": [[\"*\"]]}  \r\n0\r\n\r\n",
    "Host: HOST\r\n" TOKEN_HEADER JSON_HEADER,
    "GET /healthz HTTP/1.0\r\n\r\n",
    "Content-Length: 0\r\n\r\n",
    "X: ",
    "GET / HTTP/1.1\r\n",
    "If-None-Match: *\r\n",
    "GET /v1/clients?sort=-since&limit=1 HTTP/1.1\r\n",
};
static const unsigned waits_ms[] = {0, 20, 100, 999, 1000, 5000, 10000, 15000, 31000};

#define PICK(array, byte) ((array)[(byte) % (sizeof(array) / sizeof((array)[0]))])

struct peer {
    int fd; /* -1: not connected */
    bool is_port;
    bool is_deaf;
    bool has_ended;
    char sent[MAX_SENT + 1];
    size_t sent_len;
    char read[MAX_READ + 1];
    size_t read_len;
};

/* What one connection was answered in all, but for dates. */
struct answers {
    char *text;
    size_t len;
};

static struct {
    struct world world;
    struct peer peers[SLOTS];
    int machines[MACHINES];
    struct fuzz_input script;
    enum fuzz_cut cut;
    uint64_t cut_state;
    char pending[1024]; /* to be sent, a segment a turn */
    size_t pending_len;
    size_t pending_at;
    unsigned pending_slot;
    unsigned settle;
    bool had_authority; /* somebody may have been an operator */
    size_t machine_lines;
    bool is_told;
} run;

static struct answers answers[FUZZ_CUT_COUNT][MAX_SCRIPT];
static size_t answer_counts[FUZZ_CUT_COUNT];
/* There are numbers of the process in it, or an event stream, whose heartbeats come by what else
 * its peer does. */
static bool is_incomparable;

static void run_script(struct fuzz_input script, enum fuzz_cut cut);
static bool step(void *user);
static void take_step(void);
static void open_peer(unsigned slot, enum world_door door);
static void give(unsigned slot, const char *bytes, size_t len);
static void give_piece(unsigned slot, const char *piece);
static void send_segment(void);
static void read_peer(struct peer *peer);
static void read_machines(void);
static void close_peer(struct peer *peer);
static void close_socket(int fd);
static void keep_answers(const struct peer *peer);
static void hide_ports(char *text, size_t len);
static void check_answers(const struct peer *peer);
static const char *header(const char *head, const char *name);
static void check_untouched(void);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > MAX_SCRIPT)
        return -1;
    is_incomparable = false;
    for (int cut = 0; cut < FUZZ_CUT_COUNT; cut++) {
        answer_counts[cut] = 0;
        run_script(fuzz_input_of(data, size), (enum fuzz_cut)cut);
        fuzz_require(answer_counts[cut] == answer_counts[0]);
        for (size_t i = 0; i < answer_counts[cut] && !is_incomparable; i++) {
            fuzz_require(answers[cut][i].len == answers[0][i].len);
            fuzz_require(memcmp(answers[cut][i].text, answers[0][i].text, answers[0][i].len) == 0);
        }
    }
    for (int cut = 0; cut < FUZZ_CUT_COUNT; cut++) {
        for (size_t i = 0; i < answer_counts[cut]; i++)
            free(answers[cut][i].text);
    }
    return 0;
}

static void run_script(struct fuzz_input script, enum fuzz_cut cut)
{
    static const char *const enter[MACHINES] = {WORLD_PASSWORD "\nweb-1\n",
                                                WORLD_PASSWORD "\ndb-1\n"};
    struct sessions_options options = world_options();

    /* Nobody is asked unless an operator wants it: the first time is at a random part of this. */
    options.interval_ms = UINT64_C(10) * 365 * 86400 * 1000;
    memset(&run, 0, sizeof(run));
    run.script = script;
    run.cut = cut;
    run.cut_state = script.left;
    run.settle = SETTLE_TURNS;
    world_open(&run.world, &options, NULL, true, false);
    for (unsigned i = 0; i < SLOTS; i++)
        run.peers[i].fd = -1;
    for (int i = 0; i < MACHINES; i++) {
        run.machines[i] = world_connect(&run.world, WORLD_CLIENTS);
        fuzz_require(run.machines[i] >= 0);
        fuzz_require(write(run.machines[i], enter[i], strlen(enter[i])) > 0);
    }
    world_run(&run.world, step, NULL);
    for (unsigned i = 0; i < SLOTS; i++)
        close_peer(&run.peers[i]);
    for (int i = 0; i < MACHINES; i++) {
        if (run.machines[i] >= 0)
            close(run.machines[i]);
    }
    world_close(&run.world);
}

static bool step(void *user)
{
    (void)user;
    for (unsigned i = 0; i < SLOTS; i++)
        read_peer(&run.peers[i]);
    read_machines();
    if (run.pending_at < run.pending_len) {
        send_segment();
        run.settle = SETTLE_TURNS;
        return true;
    }
    if (run.settle > 0) {
        run.settle--;
        /* The server pauses for some milliseconds when the library does not get on. */
        fake_clock_advance_ms(3);
        return true;
    }
    check_untouched();
    if (run.script.left == 0)
        return false;
    take_step();
    run.settle = SETTLE_TURNS;
    return true;
}

static void take_step(void)
{
    const char *answer = run.is_told ? "100\n130\n" : "100\n"; /* nothing unasked */
    const uint8_t what = fuzz_byte(&run.script);
    const unsigned slot = what >> 4 & (SLOTS - 1);
    struct peer *peer = &run.peers[slot];
    int *machine = &run.machines[slot % MACHINES];
    size_t len = 0;
    const char *bytes = NULL;

    switch ((enum step)(what & 15)) {
    case STEP_OPEN_SOCKET:
        open_peer(slot, WORLD_CONTROL_SOCKET);
        break;
    case STEP_OPEN_PORT:
        open_peer(slot, WORLD_CONTROL_PORT);
        break;
    case STEP_SEND: {
        const uint8_t wanted = fuzz_byte(&run.script);
        bytes = fuzz_bytes(&run.script, wanted, &len);
        give(slot, bytes, len);
        break;
    }
    case STEP_PIECE:
        give_piece(slot, PICK(pieces, fuzz_byte(&run.script)));
        break;
    case STEP_WAIT:
        fake_clock_advance_ms(PICK(waits_ms, fuzz_byte(&run.script)));
        break;
    case STEP_HALF_CLOSE:
        if (peer->fd >= 0)
            (void)shutdown(peer->fd, SHUT_WR);
        break;
    case STEP_CLOSE:
        close_peer(peer);
        break;
    case STEP_ANSWER:
        if (*machine >= 0)
            (void)!write(*machine, answer, strlen(answer));
        break;
    case STEP_LEAVE:
        if (*machine >= 0)
            close(*machine);
        *machine = -1;
        break;
    case STEP_DEAF:
        peer->is_deaf = !peer->is_deaf;
        break;
    case STEP_COUNT:
        break;
    }
}

static void open_peer(unsigned slot, enum world_door door)
{
    struct peer *peer = &run.peers[slot];

    if (peer->fd >= 0)
        return;
    peer->fd = world_connect(&run.world, door);
    fuzz_require(peer->fd >= 0);
    peer->is_port = door == WORLD_CONTROL_PORT;
    peer->is_deaf = peer->has_ended = false;
    peer->sent_len = peer->read_len = 0;
}

static void give(unsigned slot, const char *bytes, size_t len)
{
    if (len > 0)
        memcpy(run.pending, bytes, len);
    run.pending_len = len;
    run.pending_at = 0;
    run.pending_slot = slot;
}

static void give_piece(unsigned slot, const char *piece)
{
    char text[512];
    const char *host = strstr(piece, "HOST");

    if (!host) {
        give(slot, piece, strlen(piece));
        return;
    }
    const int len = snprintf(text, sizeof(text), "%.*s%s%s", (int)(host - piece), piece,
                             http_address(run.world.http), host + 4);
    fuzz_require(len > 0 && (size_t)len < sizeof(text));
    give(slot, text, (size_t)len);
}

static void send_segment(void)
{
    struct peer *peer = &run.peers[run.pending_slot];
    const size_t segment = fuzz_segment(run.cut, run.pending_len - run.pending_at, &run.cut_state);

    if (peer->fd >= 0 && peer->sent_len + segment <= MAX_SENT) {
        memcpy(peer->sent + peer->sent_len, run.pending + run.pending_at, segment);
        peer->sent_len += segment;
        peer->sent[peer->sent_len] = '\0';
        if (write(peer->fd, run.pending + run.pending_at, segment) < 0) {
            fuzz_require(errno == EPIPE || errno == ECONNRESET || errno == EAGAIN);
            /* It was answered and closed in the middle: what the kernel keeps of the answer then
             * depends on the cut. */
            is_incomparable = true;
        }
        if (!peer->is_port || memmem(peer->sent, peer->sent_len, WORLD_TOKEN, strlen(WORLD_TOKEN)))
            run.had_authority = true;
    }
    run.pending_at += segment;
}

static void read_peer(struct peer *peer)
{
    ssize_t got = 0;

    if (peer->fd < 0 || peer->is_deaf || peer->has_ended)
        return;
    while (peer->read_len < MAX_READ &&
           (got = read(peer->fd, peer->read + peer->read_len, MAX_READ - peer->read_len)) > 0)
        peer->read_len += (size_t)got;
    if (got == 0 || errno != EAGAIN)
        peer->has_ended = true;
}

/* Their handshakes, and then only what an operator wants. */
static void read_machines(void)
{
    char buf[1024];
    ssize_t got = 0;

    for (int i = 0; i < MACHINES; i++) {
        if (run.machines[i] < 0 || (got = read(run.machines[i], buf, sizeof(buf))) <= 0)
            continue;
        for (ssize_t at = 0; at < got; at++)
            run.machine_lines += buf[at] == '\n';
        run.is_told |= memmem(buf, (size_t)got, "130:", 4) != NULL;
    }
}

static void close_peer(struct peer *peer)
{
    if (peer->fd < 0)
        return;
    if (!peer->is_deaf)
        read_peer(peer);
    check_answers(peer);
    keep_answers(peer);
    close_socket(peer->fd);
    peer->fd = -1;
}

/* By a reset, or some thousand ports would soon be waiting. */
static void close_socket(int fd)
{
    const struct linger linger = {.l_onoff = 1};

    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
    close(fd);
}

static void keep_answers(const struct peer *peer)
{
    struct answers *kept = &answers[run.cut][answer_counts[run.cut]++];
    const char *at = peer->read;
    size_t left = peer->read_len;

    kept->text = malloc(left + 1);
    fuzz_require(kept->text);
    kept->len = 0;
    if (memmem(at, left, "process_", 8) || memmem(at, left, "event-stream", 12))
        is_incomparable = true;
    while (left > 0) {
        const char *end = memchr(at, '\n', left);
        const size_t len = end ? (size_t)(end - at) + 1 : left;

        if (len < 5 || memcmp(at, "Date:", 5) != 0) {
            memcpy(kept->text + kept->len, at, len);
            hide_ports(kept->text + kept->len, len);
            kept->len += len;
        }
        at += len;
        left -= len;
    }
}

/* Of whoever has a token: another one each time. */
static void hide_ports(char *text, size_t len)
{
    static const char host[] = "127.0.0.1:";
    char *end = text + len;

    while ((text = memmem(text, (size_t)(end - text), host, strlen(host))) != NULL) {
        for (text += strlen(host); text < end && *text >= '0' && *text <= '9'; text++)
            *text = '0';
    }
}

/* The first of them, wholly. */
static void check_answers(const struct peer *peer)
{
    char *text = fuzz_string(peer->read, peer->read_len);
    const char *end = strstr(text, "\r\n\r\n");
    int status = 0;
    /* Empty lines before a request are none of it. */
    const bool has_body = strncmp(peer->sent + strspn(peer->sent, "\r\n"), "HEAD", 4) != 0;

    if (end) {
        fuzz_require(sscanf(text, "HTTP/1.%*1[01] %d ", &status) == 1);
        const char *length = header(text, "Content-Length:");
        const char *type = header(text, "Content-Type:");
        const size_t body_len = length ? strtoul(length, NULL, 10) : 0;
        const char *body = end + 4;

        fuzz_require(status == 100 || (status >= 200 && status < 600));
        fuzz_require((status != 401) || header(text, "WWW-Authenticate:"));
        if (status == 200 && peer->is_port &&
            !memmem(peer->sent, peer->sent_len, WORLD_TOKEN, strlen(WORLD_TOKEN)))
            fuzz_require(strstr(peer->sent, "/healthz") || strstr(peer->sent, "/readyz") ||
                         strchr(peer->sent, '%') || header(text, "ETag:"));
        if (length && has_body && peer->has_ended && peer->read_len < MAX_READ && status != 304)
            fuzz_require(strlen(body) >= body_len);
        if (type && has_body && body_len > 0 && strlen(body) >= body_len) {
            if (strncmp(type, " application/json", 17) == 0)
                http_text_check_json(body, body_len);
            if (strncmp(type, " text/plain; version", 20) == 0)
                http_text_check_metrics(body, body_len);
        }
    }
    free(text);
}

/* What stands behind the name in the first head; NULL if it is not there. */
static const char *header(const char *head, const char *name)
{
    const char *end = strstr(head, "\r\n\r\n");

    for (const char *line = strchr(head, '\n'); line && line < end; line = strchr(line + 1, '\n')) {
        if (strncasecmp(line + 1, name, strlen(name)) == 0)
            return line + 1 + strlen(name);
    }
    return NULL;
}

/* As long as nobody had the right to change anything, nothing has changed. */
static void check_untouched(void)
{
    struct order_progress order;
    size_t left = 0;

    for (int i = 0; i < MACHINES; i++)
        left += run.machines[i] < 0;
    if (run.had_authority)
        return;
    orders_progress(sessions_orders(run.world.sessions), &order);
    fuzz_require(order.id == 0 && run.world.reloads == 0 && !run.is_told);
    fuzz_require(registry_count(run.world.registry) == MACHINES);
    fuzz_require(registry_connected(run.world.registry) == MACHINES - left);
    fuzz_require(run.machine_lines == 3U * MACHINES);
    fuzz_require(sessions_counters(run.world.sessions)->ended[REASON_OPERATOR] == 0);
}
