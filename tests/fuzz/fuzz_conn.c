/*
 * Connections: real sockets, the real listener, connections and server in the real event loop. The
 * input is a script of what clients do, when, and of operators between them.
 *
 * Run three times: all bytes as they come; byte by byte; and cut somewhere, while the server's own
 * socket takes only part of what it sends, or nothing. Each client must have read exactly the same
 * at each step. Nobody reads 130 without an order; nothing is sent that is not counted; at the end
 * nobody is left.
 */
#include "fake_clock.h"
#include "world.h"

#include "fuzz.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#define SLOTS      8
#define MAX_SCRIPT 2048
#define MAX_READ   (64 * 1024)
#define MAX_STEPS  (MAX_SCRIPT + 1)

/* A step is a byte, with the slot in its upper half, and its arguments. */
enum step {
    STEP_CONNECT,
    STEP_SEND, /* length, bytes */
    STEP_LINE, /* one of lines[] */
    STEP_WAIT, /* one of waits_ms[] */
    STEP_HALF_CLOSE,
    STEP_CLOSE,
    STEP_ORDER, /* one of matches[], grace and hold */
    STEP_CANCEL,
    STEP_DISCONNECT, /* one of ids[] */
    STEP_RELOAD,     /* rules */
    STEP_END,        /* drain or stop */
    STEP_DEAF,       /* stops reading, or reads again */
    STEP_BULK,       /* so many times 64 bytes */
    STEP_COUNT
};

static const char *const lines[] = {
    "secret\n", "other\n", "a\n",   "b1\n", "b2\n", "c\n",  "100\n",     "130\n",
    "hello\n",  "\n",      "100\r", "\r\n", "1",    "30\n", "bad id!\n", "secret\na\n100\n",
};
static const unsigned waits_ms[] = {0, 1, 10, 99, 500, 1000, 1999, 2000, 5000, 10000, 20000, 60001};
static const char *const ids[] = {"a", "b1", "b2", "c"};
static const char *const matches[] = {"*", "a", "b*", "c,[ab]", "b1,b2", "nobody", "?", "b[!1]"};

#define PICK(array, byte) ((array)[(byte) % (sizeof(array) / sizeof((array)[0]))])

struct client {
    int fd; /* -1: not connected */
    bool is_deaf;
    bool has_ended; /* the server has, on its side */
};

/* What each client has read by the end of each step. */
struct trace {
    struct {
        char bytes[MAX_READ];
        size_t len;
        unsigned ends;
    } slots[SLOTS];
    struct {
        size_t len;
        unsigned ends;
    } steps[MAX_STEPS][SLOTS];
    size_t step_count;
};

static struct {
    struct world world;
    struct client clients[SLOTS];
    struct fuzz_input script;
    enum fuzz_cut cut;
    uint64_t cut_state;
    char pending[256 * 64]; /* to be sent, a segment a turn */
    size_t pending_len;
    size_t pending_at;
    unsigned pending_slot;
    unsigned settle;
    bool may_tell;
    bool is_explaining;
    uint64_t read_bytes;
} run;

static struct trace traces[FUZZ_CUT_COUNT];
static struct trace *trace;

ssize_t __real_send(int fd, const void *bytes, size_t len, int flags);
ssize_t __wrap_send(int fd, const void *bytes, size_t len, int flags);

static void run_script(struct fuzz_input script, enum fuzz_cut cut);
static bool step(void *user);
static void take_step(void);
static void give(unsigned slot, const char *bytes, size_t len);
static void send_segment(void);
static void read_all(void);
static void close_client(struct client *client);
static void note_step(void);
static void check_lines(unsigned slot);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > MAX_SCRIPT)
        return -1;
    for (int cut = 0; cut < FUZZ_CUT_COUNT; cut++) {
        trace = &traces[cut];
        run_script(fuzz_input_of(data, size), (enum fuzz_cut)cut);
        fuzz_require(trace->step_count == traces[0].step_count);
        for (size_t i = 0; i < trace->step_count; i++) {
            for (unsigned slot = 0; slot < SLOTS; slot++) {
                fuzz_require(trace->steps[i][slot].len == traces[0].steps[i][slot].len);
                fuzz_require(trace->steps[i][slot].ends == traces[0].steps[i][slot].ends);
            }
        }
        for (unsigned slot = 0; slot < SLOTS; slot++)
            fuzz_require(memcmp(trace->slots[slot].bytes, traces[0].slots[slot].bytes,
                                trace->slots[slot].len) == 0);
    }
    return 0;
}

/* The server's socket takes all of it, or in the last of the three runs sometimes a part. Not where
 * refusals are silent: then what still waits for the peer is dropped with the session. */
ssize_t __wrap_send(int fd, const void *bytes, size_t len, int flags)
{
    if (run.cut != FUZZ_CUT_SOMEWHERE || !run.is_explaining)
        return __real_send(fd, bytes, len, flags);
    run.cut_state = run.cut_state * UINT64_C(6364136223846793005) + 1;
    const unsigned choice = (unsigned)(run.cut_state >> 33) % 8;
    if (choice == 0) {
        errno = EAGAIN;
        return -1;
    }
    if (choice == 1) {
        errno = EINTR;
        return -1;
    }
    if (choice == 2 && len > 1)
        return __real_send(fd, bytes, 1 + (size_t)(run.cut_state >> 40) % (len - 1), flags);
    return __real_send(fd, bytes, len, flags);
}

static void run_script(struct fuzz_input script, enum fuzz_cut cut)
{
    struct sessions_options options = world_options();

    memset(&run, 0, sizeof(run));
    trace->step_count = 0;
    for (unsigned slot = 0; slot < SLOTS; slot++) {
        run.clients[slot].fd = -1;
        trace->slots[slot].len = 0;
        trace->slots[slot].ends = 0;
    }
    const uint8_t rules = fuzz_byte(&script);
    options.duplicate_id = rules % 3;
    options.require_reply = (rules >> 2) % 3;
    options.explain_refusals = run.is_explaining = !(rules & 16);
    run.script = script;
    run.cut = cut;
    run.cut_state = script.left;
    world_open(&run.world, &options, NULL, false, false);
    world_run(&run.world, step, NULL);
    const struct server_stats *stats = server_stats(run.world.server);
    fuzz_require(stats->pending + stats->connected + stats->leaving + stats->closing == 0);
    for (unsigned slot = 0; slot < SLOTS; slot++)
        close_client(&run.clients[slot]);
    fuzz_require(run.read_bytes <= stats->sent_bytes);
    world_close(&run.world);
}

static bool step(void *user)
{
    (void)user;
    read_all();
    if (run.pending_at < run.pending_len) {
        send_segment();
        run.settle = WORLD_SETTLE_TURNS;
        return true;
    }
    if (run.settle > 0) {
        run.settle--;
        return true;
    }
    note_step();
    if (run.script.left == 0)
        return false;
    take_step();
    run.settle = WORLD_SETTLE_TURNS;
    return true;
}

static void take_step(void)
{
    static const unsigned graces_ms[] = {0, 100, 1000, 60000};
    static const unsigned holds_ms[] = {0, 1000, 15000, 900000};
    const uint8_t what = fuzz_byte(&run.script);
    const unsigned slot = what >> 4 & (SLOTS - 1);
    struct client *client = &run.clients[slot];
    uint8_t argument = 0;
    size_t len = 0;

    switch ((enum step)(what & 15)) {
    case STEP_CONNECT:
        if (client->fd < 0)
            *client = (struct client){.fd = world_connect(&run.world, WORLD_CLIENTS)};
        break;
    case STEP_SEND: {
        argument = fuzz_byte(&run.script);
        const char *bytes = fuzz_bytes(&run.script, argument, &len);
        give(slot, bytes, len);
        break;
    }
    case STEP_LINE:
        argument = fuzz_byte(&run.script);
        give(slot, PICK(lines, argument), strlen(PICK(lines, argument)));
        break;
    case STEP_WAIT:
        argument = fuzz_byte(&run.script);
        fake_clock_advance_ms(PICK(waits_ms, argument));
        break;
    case STEP_HALF_CLOSE:
        if (client->fd >= 0)
            (void)shutdown(client->fd, SHUT_WR);
        break;
    case STEP_CLOSE:
        close_client(client);
        break;
    case STEP_ORDER: {
        const char *match = PICK(matches, fuzz_byte(&run.script));
        argument = fuzz_byte(&run.script);
        if (world_order(&run.world, match, PICK(graces_ms, argument),
                        PICK(holds_ms, argument >> 2)) == ORDER_OK)
            run.may_tell = true;
        break;
    }
    case STEP_CANCEL:
        (void)sessions_cancel_order(run.world.sessions, "fuzz", clock_now());
        break;
    case STEP_DISCONNECT:
        argument = fuzz_byte(&run.script);
        (void)admin_disconnect(&run.world.admin, PICK(ids, argument), clock_now());
        break;
    case STEP_RELOAD: {
        struct sessions_options options = world_options();
        const uint8_t rules = fuzz_byte(&run.script);
        options.duplicate_id = rules % 3;
        options.require_reply = (rules >> 2) % 3;
        options.explain_refusals = run.is_explaining = !(rules & 16);
        options.interval_ms = PICK(waits_ms, 4U + (rules >> 5));
        sessions_reload(run.world.sessions, &options, world_credentials(), clock_now());
        server_reload(run.world.server,
                      &(struct server_options){
                          .drain_ms = 500, .user_timeout_ms = 1000U + rules, .max_connections = 64},
                      NULL);
        break;
    }
    case STEP_END:
        if (server_is_serving(run.world.server)) {
            if (fuzz_byte(&run.script) & 1)
                server_drain(run.world.server);
            else
                run.script.left = 0;
        }
        break;
    case STEP_DEAF:
        client->is_deaf = !client->is_deaf;
        break;
    case STEP_BULK: {
        static char bulk[255 * 64];
        argument = fuzz_byte(&run.script);
        memset(bulk, argument & 1 ? '\n' : 'x', sizeof(bulk));
        give(slot, bulk, argument * 64U);
        break;
    }
    case STEP_COUNT:
        break;
    }
}

static void give(unsigned slot, const char *bytes, size_t len)
{
    if (len > 0)
        memcpy(run.pending, bytes, len);
    run.pending_len = len;
    run.pending_at = 0;
    run.pending_slot = slot;
}

/* What the server does not take any more is of no interest. */
static void send_segment(void)
{
    const size_t left = run.pending_len - run.pending_at;
    size_t segment = fuzz_segment(run.cut, left, &run.cut_state);
    const int fd = run.clients[run.pending_slot].fd;

    if (left > 256 && segment < 64)
        segment = 64; /* or it takes too long */
    if (fd >= 0 && write(fd, run.pending + run.pending_at, segment) < 0)
        fuzz_require(errno == EPIPE || errno == ECONNRESET || errno == EAGAIN);
    run.pending_at += segment;
}

static void read_all(void)
{
    for (unsigned slot = 0; slot < SLOTS; slot++) {
        struct client *client = &run.clients[slot];
        char buf[4096];
        ssize_t got = 0;

        if (client->fd < 0 || client->is_deaf || client->has_ended)
            continue;
        while ((got = read(client->fd, buf, sizeof(buf))) > 0) {
            run.read_bytes += (size_t)got;
            if (trace->slots[slot].len + (size_t)got > MAX_READ)
                continue;
            memcpy(trace->slots[slot].bytes + trace->slots[slot].len, buf, (size_t)got);
            trace->slots[slot].len += (size_t)got;
        }
        if (got == 0 || errno == ECONNRESET) {
            client->has_ended = true;
            trace->slots[slot].ends++;
        } else {
            fuzz_require(errno == EAGAIN);
        }
    }
}

static void close_client(struct client *client)
{
    if (client->fd >= 0)
        close(client->fd);
    client->fd = -1;
    client->is_deaf = client->has_ended = false;
}

static void note_step(void)
{
    fuzz_require(trace->step_count < MAX_STEPS);
    for (unsigned slot = 0; slot < SLOTS; slot++) {
        check_lines(slot);
        trace->steps[trace->step_count][slot].len = trace->slots[slot].len;
        trace->steps[trace->step_count][slot].ends = trace->slots[slot].ends;
    }
    trace->step_count++;
}

/* Whole lines of the table of codes, and 130 only by an order. */
static void check_lines(unsigned slot)
{
    const char *at = trace->slots[slot].bytes;
    size_t left = trace->slots[slot].len;

    while (left > 0) {
        const struct proto_code_info *info = proto_code_info(proto_parse_code(at, left));

        fuzz_require(info && info->line_len <= left && memcmp(info->line, at, info->line_len) == 0);
        fuzz_require(info->code != PROTO_SHUTDOWN || run.may_tell);
        at += info->line_len;
        left -= info->line_len;
    }
}
