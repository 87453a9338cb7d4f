/*
 * Sessions, as the server has them: the real state machine, rules, registry, keep-alive wheel,
 * shutdown orders and store (memory); clock, connections and network are the target's own. The
 * input is a script: what clients send, when, and what operators ask for meanwhile.
 *
 * Checked after each step: that the sums agree with each other, that nobody is told what he may not
 * be told (120 without the password, 140 without the store's answer, 130 without an order for this
 * very ID), that each session ends once with one reason. And at the end: that the same script with
 * all bytes cut otherwise comes to exactly the same.
 */
#include "base/hash.h"
#include "base/log.h"
#include "session/internal.h"

#include "fuzz.h"

#include <fnmatch.h>

#define SLOTS      8
#define MAX_TRACE  8192
#define MAX_SCRIPT 2048
#define MAX_BYTES  16384 /* that one client may send in a script */
#define MAX_PINGS  4
/* More turns than this with nothing but "at once" in them: it spins. */
#define MAX_TURNS 10000

/* A step is a byte, with the slot in its upper half, and its arguments. */
enum step {
    STEP_CONNECT, /* with the highest bit: gone already */
    STEP_SEND,    /* length, bytes */
    STEP_LINE,    /* one of lines[] */
    STEP_WAIT,    /* one of waits_ms[]; then turns until nothing is due */
    STEP_QUEUE,   /* length, bytes: they wait in the kernel for the next look, or the next turn */
    STEP_ORDER,   /* one of matches[], grace and hold */
    STEP_CANCEL,
    STEP_DISCONNECT, /* by an operator: one of ids[] */
    STEP_FORGET,     /* one of ids[] */
    STEP_PING,       /* one of ids[] */
    STEP_RELOAD,     /* options */
    STEP_LEAVE,      /* one of ends[] */
    STEP_FAIL,       /* its next line cannot be sent */
    STEP_STORE,      /* what the store answers from here on, and whether it does */
    STEP_JUMP,       /* the wall clock, by so many hours */
    STEP_LOOK,       /* at those who are on their way; or freeze the orders */
    STEP_COUNT
};

static const char *const lines[] = {
    "secret\n", "other\n", "a\n",   "b1\n", "b2\n", "c\n",  "100\n",     "130\n",
    "hello\n",  "\n",      "100\r", "\r\n", "1",    "30\n", "bad id!\n", "secret\na\n100\n",
};
static const unsigned waits_ms[] = {0, 1, 10, 99, 500, 1000, 1999, 2000, 5000, 10000, 20000, 60001};
static const char *const ids[] = {"a", "b1", "b2", "c"};
static const char *const matches[] = {"*", "a", "b*", "c,[ab]", "b1,b2", "nobody", "?", "b[!1]"};
static const enum reason ends[] = {REASON_LEFT, REASON_RESET, REASON_SLOW, REASON_RESOURCES,
                                   REASON_RESTARTING};

#define PICK(array, byte) ((array)[(byte) % (sizeof(array) / sizeof((array)[0]))])

struct client {
    struct session session; /* first, so that a session is its client */
    unsigned number;        /* from 1: its port */
    char *bytes;            /* all that came */
    size_t come;
    size_t taken;
    char *queue; /* in the kernel */
    size_t queued;
    unsigned lines_sent;
    int last_code;
    bool is_resumed;
    bool is_closed;
    bool fails;
    unsigned unasked; /* lines that were no answer, since the last 100 */
    bool was_welcomed;
    bool was_told;
    unsigned said_connected; /* events */
    unsigned said_over;
    enum reason reason;
};

/* What can be seen from outside, in its order. */
struct trace {
    struct {
        unsigned client;
        int what;
        uint64_t at_us;
    } list[MAX_TRACE];
    size_t count;
};

/* In struct trace.what beside codes, which are positive. */
#define TRACE_CLOSED(said_why) (-1 - (int)(said_why))
#define TRACE_EVENT(kind)      (-10 - (int)(kind))
#define TRACE_REASON(reason)   (-100 - (int)(reason))
#define TRACE_PING(result)     (-200 - (int)(result))
#define TRACE_RESULT(result)   (-300 + (int)(result))

static struct {
    struct moment now;
    enum fuzz_cut cut;
    uint64_t cut_state;
    struct registry *registry;
    struct sessions *sessions;
    struct store *store;
    struct store_options store_options;
    struct client *clients[SLOTS];
    unsigned started;
    unsigned closed;
    unsigned turned_away;
    unsigned passwords; /* the set that holds */
    struct ping pings[MAX_PINGS];
    bool is_pinging[MAX_PINGS];
    enum store_result answers;
    bool is_store_stuck;
    bool is_in_turn;
    char order[256]; /* globs of the order that was given last, all waves */
    bool is_frozen;
} world;

static struct trace traces[FUZZ_CUT_COUNT];
static struct trace *trace;

static void run(struct fuzz_input script, enum fuzz_cut cut);
static void take_step(struct fuzz_input *script);
static void turns(void);
static void turn(void);
static void feed(struct client *client, const char *bytes, size_t len);
static void come(struct client *client, const char *bytes, size_t len);
static void look(struct session *session);
static void send_line(struct session *session, const char *line, size_t len);
static void resume(struct session *session);
static void close_session(struct session *session, bool said_why);
static void on_answer(void *user, const struct store_answer *answer, struct moment now);
static void on_event(void *user, const struct session_event *event);
static void on_ping(struct ping *ping, enum ping_result result, uint64_t rtt_us);
static void start_client(unsigned slot, bool fails);
static void order(uint8_t what, uint8_t times);
static void read_options(struct fuzz_input *script, struct sessions_options *options);
static struct credentials *credentials_of(unsigned set);
static bool is_password(const char *line, size_t len);
static bool naive_line(const struct client *client, unsigned index, const char **line, size_t *len);
static bool is_ordered(const char *cid);
static void check(void);
static void check_over(const struct client *client);
static void note(unsigned client, int what);

static const struct session_ops ops = {
    .send = send_line,
    .resume = resume,
    .look = look,
    .close = close_session,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > MAX_SCRIPT)
        return -1;
    for (int cut = 0; cut < FUZZ_CUT_COUNT; cut++) {
        trace = &traces[cut];
        run(fuzz_input_of(data, size), (enum fuzz_cut)cut);
        fuzz_require(trace->count == traces[0].count);
        for (size_t i = 0; i < trace->count && i < MAX_TRACE; i++) {
            fuzz_require(trace->list[i].client == traces[0].list[i].client);
            fuzz_require(trace->list[i].what == traces[0].list[i].what);
            fuzz_require(trace->list[i].at_us == traces[0].list[i].at_us);
        }
    }
    return 0;
}

static void run(struct fuzz_input script, enum fuzz_cut cut)
{
    struct sessions_options options = {.misses = 1};
    char message[256];

    memset(&world, 0, sizeof(world));
    trace->count = 0;
    (void)log_open(&(struct log_options){.program = "fuzz", .level = LOG_LEVEL_ERROR});
    world.now = (struct moment){.mono_us = 1000 * CLOCK_US_PER_SEC, .wall_ms = 1700000000000};
    world.cut = cut;
    world.cut_state = script.left;
    world.store_options = (struct store_options){.kind = STORE_MEMORY, .node = "fuzz"};
    read_options(&script, &options);
    world.registry = registry_new();
    fuzz_require(world.registry);
    world.sessions =
        sessions_new(&options, world.registry, credentials_of(world.passwords), &ops, world.now);
    sessions_set_watch(world.sessions, on_event, NULL);
    world.store =
        store_open(&world.store_options, world.registry, on_answer, NULL, message, sizeof(message));
    fuzz_require(world.store);
    sessions_set_store(world.sessions, world.store, world.now);

    while (script.left > 0) {
        take_step(&script);
        check();
    }

    /* The end, as server_stop() has it. */
    sessions_freeze_orders(world.sessions);
    world.is_store_stuck = false;
    for (unsigned i = 0; i < SLOTS; i++) {
        if (world.clients[i])
            session_end(&world.clients[i]->session, REASON_STOPPED, world.now);
    }
    turn();
    turn();
    check();
    fuzz_require(world.started == world.closed);
    fuzz_require(registry_connected(world.registry) == 0);
    for (unsigned i = 0; i < MAX_PINGS; i++)
        fuzz_require(!world.is_pinging[i]);
    store_close(world.store, world.now);
    sessions_free(world.sessions);
    registry_free(world.registry);
}

static void take_step(struct fuzz_input *script)
{
    const uint8_t step = fuzz_byte(script);
    const unsigned slot = step >> 4 & (SLOTS - 1);
    struct client *client = world.clients[slot];
    const uint8_t argument = (step & 15) == STEP_CONNECT || (step & 15) == STEP_CANCEL ||
                                     (step & 15) == STEP_FAIL || (step & 15) == STEP_RELOAD
                                 ? 0
                                 : fuzz_byte(script);
    const char *cid = PICK(ids, argument);
    struct registry_record *record = registry_find(world.registry, cid, strlen(cid));
    size_t len = 0;
    const char *bytes = NULL;

    switch ((enum step)(step & 15)) {
    case STEP_CONNECT:
        if (!client)
            start_client(slot, step & 128);
        break;
    case STEP_SEND:
        bytes = fuzz_bytes(script, argument, &len);
        if (client)
            come(client, bytes, len);
        break;
    case STEP_LINE:
        if (client)
            come(client, PICK(lines, argument), strlen(PICK(lines, argument)));
        break;
    case STEP_WAIT:
        world.now.mono_us += PICK(waits_ms, argument) * CLOCK_US_PER_MS;
        world.now.wall_ms += PICK(waits_ms, argument);
        turns();
        break;
    case STEP_QUEUE:
        bytes = fuzz_bytes(script, argument, &len);
        if (client && client->come + client->queued + len <= MAX_BYTES) {
            if (len > 0)
                memcpy(client->queue + client->queued, bytes, len);
            client->queued += len;
        }
        break;
    case STEP_ORDER:
        order(argument, fuzz_byte(script));
        break;
    case STEP_CANCEL:
        note(0, TRACE_RESULT(sessions_cancel_order(world.sessions, "fuzz", world.now)));
        break;
    case STEP_DISCONNECT:
        if (record && record->connected)
            sessions_disconnect(world.sessions, record, world.now);
        break;
    case STEP_FORGET:
        if (record && sessions_may_forget(world.sessions, record))
            sessions_forget(world.sessions, record, world.now);
        break;
    case STEP_PING:
        if (record && record->connected && !world.is_pinging[slot % MAX_PINGS]) {
            world.is_pinging[slot % MAX_PINGS] = true;
            world.pings[slot % MAX_PINGS] = (struct ping){.done = on_ping};
            ping_start(world.sessions, record, &world.pings[slot % MAX_PINGS], world.now);
        }
        break;
    case STEP_RELOAD: {
        struct sessions_options options;
        read_options(script, &options);
        sessions_reload(world.sessions, &options, credentials_of(world.passwords), world.now);
        break;
    }
    case STEP_LEAVE:
        if (client)
            session_end(&client->session, PICK(ends, argument), world.now);
        break;
    case STEP_FAIL:
        if (client)
            client->fails = true;
        break;
    case STEP_STORE:
        world.answers = (enum store_result)(argument % 3);
        world.is_store_stuck = argument & 4;
        break;
    case STEP_JUMP:
        world.now.wall_ms += (int64_t)(int8_t)argument * 3600000;
        break;
    case STEP_LOOK:
        if (argument == 255) {
            sessions_freeze_orders(world.sessions);
            world.is_frozen = true;
        } else {
            sessions_look_at_pending(world.sessions, world.now);
        }
        break;
    case STEP_COUNT:
        break;
    }
}

/* Until nothing is due any more. */
static void turns(void)
{
    unsigned count = 0;

    do {
        turn();
        fuzz_require(++count < MAX_TURNS);
    } while (sessions_next_us(world.sessions) <= world.now.mono_us);
}

/* As server.c has it. */
static void turn(void)
{
    for (unsigned i = 0; i < SLOTS; i++) {
        struct client *client = world.clients[i];

        if (!client)
            continue;
        if (client->is_resumed) {
            client->is_resumed = false;
            feed(client, "", 0);
        }
        look(&client->session);
    }
    if (sessions_next_us(world.sessions) <= world.now.mono_us)
        sessions_tick(world.sessions, world.now);
    if (!world.is_store_stuck) {
        world.is_in_turn = true;
        store_turn(world.store, false, world.now);
        world.is_in_turn = false;
    }
    check();
    for (unsigned i = 0; i < SLOTS; i++) {
        struct client *client = world.clients[i];

        if (!client || !client->is_closed)
            continue;
        check_over(client);
        free(client->bytes);
        free(client->queue);
        memset(client, 0xff, sizeof(*client)); /* nobody may look at it any more */
        free(client);
        world.clients[i] = NULL;
    }
}

/* Bytes come, in one or more segments. */
static void come(struct client *client, const char *bytes, size_t len)
{
    if (client->come + client->queued + len > MAX_BYTES)
        return;
    while (len > 0) {
        const size_t segment = fuzz_segment(world.cut, len, &world.cut_state);

        feed(client, bytes, segment);
        bytes += segment;
        len -= segment;
    }
}

/* As conn.c has it. */
static void feed(struct client *client, const char *bytes, size_t len)
{
    bool is_held = false;

    if (len > 0)
        memcpy(client->bytes + client->come, bytes, len);
    client->come += len;
    while (!client->is_closed && !is_held) {
        const char *line = NULL;
        size_t line_len = 0;
        char *exact = fuzz_copy(client->bytes + client->taken, client->come - client->taken);
        const int got = proto_take_line(exact, client->come - client->taken, &line, &line_len);

        if (got < 0) {
            is_held = !session_bad_line(&client->session, got, world.now);
        } else if (got > 0) {
            const bool is_answer =
                line_len >= 3 &&
                (memcmp(line, "100", 3) == 0 || (client->was_told && memcmp(line, "130", 3) == 0));
            client->unasked += client->was_welcomed && !is_answer;
            is_held = !session_line(&client->session, line, line_len, world.now);
            fuzz_require(client->unasked <= SERVER_FSM_MAX_UNASKED || client->is_closed);
            client->taken += is_held ? 0 : (size_t)got;
        } else {
            is_held = true;
        }
        free(exact);
    }
}

static void look(struct session *session)
{
    struct client *client = (struct client *)session;
    const size_t queued = client->queued;

    if (client->is_closed || queued == 0)
        return;
    client->queued = 0;
    come(client, client->queue, queued);
}

static void send_line(struct session *session, const char *line, size_t len)
{
    struct client *client = (struct client *)session;
    const int code = proto_parse_code(line, len);
    const struct proto_code_info *info = proto_code_info(code);
    const char *text = NULL;
    size_t text_len = 0;

    fuzz_require(info && info->line_len == len && memcmp(info->line, line, len) == 0);
    fuzz_require(!client->is_closed);
    fuzz_require(client->last_code < 400);
    if (client->fails) {
        client->fails = false;
        session_end(session, REASON_RESET, world.now);
        return;
    }
    note(client->number, code);
    switch (code) {
    case PROTO_PASSWORD:
        fuzz_require(client->lines_sent == 0);
        break;
    case PROTO_ID:
        fuzz_require(client->last_code == PROTO_PASSWORD);
        fuzz_require(naive_line(client, 0, &text, &text_len) && is_password(text, text_len));
        break;
    case PROTO_CONNECTED:
        fuzz_require(client->last_code == PROTO_ID && world.is_in_turn);
        fuzz_require(naive_line(client, 1, &text, &text_len));
        fuzz_require(session->record && strlen(session->record->cid) == text_len &&
                     memcmp(session->record->cid, text, text_len) == 0);
        client->was_welcomed = true;
        break;
    case PROTO_KEEP_ALIVE:
        fuzz_require(client->was_welcomed);
        client->unasked = 0;
        break;
    case PROTO_SHUTDOWN:
        fuzz_require(client->was_welcomed && !client->was_told);
        fuzz_require(is_ordered(session->record->cid));
        client->was_told = true;
        break;
    default:
        fuzz_require(code >= 400);
        break;
    }
    client->last_code = code;
    client->lines_sent++;
}

static void resume(struct session *session)
{
    ((struct client *)session)->is_resumed = true;
}

static void close_session(struct session *session, bool said_why)
{
    struct client *client = (struct client *)session;

    fuzz_require(!client->is_closed && session_is_over(session));
    client->is_closed = true;
    world.closed++;
    note(client->number, TRACE_CLOSED(said_why));
}

static void on_answer(void *user, const struct store_answer *answer, struct moment now)
{
    struct store_answer changed = *answer;

    (void)user;
    changed.result = world.answers;
    if (changed.sid == 0 && changed.result == STORE_TAKEN)
        changed.result = STORE_UNAVAILABLE;
    sessions_on_answer(world.sessions, &changed, now);
}

static void on_event(void *user, const struct session_event *event)
{
    struct client *client = NULL;

    (void)user;
    if (event->kind == SESSION_ORDER) {
        note(0, TRACE_EVENT(event->order->what));
        return;
    }
    for (unsigned i = 0; i < SLOTS; i++) {
        if (world.clients[i] && world.clients[i]->number == event->peer->port)
            client = world.clients[i];
    }
    if (!client) {
        fuzz_require(event->kind == SESSION_REFUSED && event->reason == REASON_FULL);
        world.turned_away++;
        return;
    }
    if (event->kind == SESSION_CONNECTED) {
        client->said_connected++;
        return;
    }
    fuzz_require((event->kind == SESSION_DISCONNECTED) == (client->said_connected > 0));
    fuzz_require(event->reason != REASON_NONE && event->reason < REASON_COUNT);
    client->said_over++;
    client->reason = event->reason;
    note(client->number, TRACE_REASON(event->reason));
}

static void on_ping(struct ping *ping, enum ping_result result, uint64_t rtt_us)
{
    const size_t index = (size_t)(ping - world.pings);

    fuzz_require(index < MAX_PINGS && world.is_pinging[index]);
    fuzz_require(rtt_us <= PING_TIMEOUT_MS * CLOCK_US_PER_MS || result == PING_ANSWERED);
    world.is_pinging[index] = false;
    note((unsigned)index, TRACE_PING(result));
}

static void start_client(unsigned slot, bool fails)
{
    struct peer_address peer = {.ip = {127, 0, 0, 1}, .family = AF_INET};

    const enum reason reason = sessions_admit(world.sessions, &peer, world.now);
    if (reason != REASON_NONE) {
        note(0, sessions_turn_away(world.sessions, &peer, reason, world.now));
        return;
    }
    struct client *client = calloc(1, sizeof(*client));
    fuzz_require(client);
    client->number = ++world.started;
    client->fails = fails;
    client->bytes = malloc(MAX_BYTES);
    client->queue = malloc(MAX_BYTES);
    fuzz_require(client->bytes && client->queue);
    peer.port = (uint16_t)client->number;
    world.clients[slot] = client;
    session_start(&client->session, world.sessions, &peer, world.now);
}

static void order(uint8_t what, uint8_t times)
{
    static const unsigned graces_ms[] = {0, 100, 1000, 60000};
    static const unsigned holds_ms[] = {0, 1000, 15000, 900000};
    struct order_request request = {
        .grace_ms = PICK(graces_ms, times),
        .hold_ms = PICK(holds_ms, times >> 2),
        .by = "fuzz",
    };
    const unsigned waves = 1 + (times >> 4) % 3;
    char order[sizeof(world.order)] = "";
    char message[256];

    for (unsigned i = 0; i < waves; i++) {
        const char *match = PICK(matches, what + i * (1U + (what >> 3)));
        fuzz_require(order_waves_add(&request.waves, match, message, sizeof(message)) == 0);
        (void)strncat(order, i > 0 ? "," : "", sizeof(order) - strlen(order) - 1);
        (void)strncat(order, match, sizeof(order) - strlen(order) - 1);
    }
    const enum order_result result = sessions_give_order(world.sessions, &request, world.now);
    if (result == ORDER_OK)
        memcpy(world.order, order, sizeof(order));
    fuzz_require(!world.is_frozen || result != ORDER_OK);
    note(0, TRACE_RESULT(result));
}

static void read_options(struct fuzz_input *script, struct sessions_options *options)
{
    static const unsigned forget_ms[] = {0, 1, 3600000, 30};
    const uint8_t rules = fuzz_byte(script);
    const uint8_t times = fuzz_byte(script);
    const uint8_t limits = fuzz_byte(script);

    *options = (struct sessions_options){
        .interval_ms = PICK(waits_ms, 4U + (times & 7)),
        .misses = 1 + (times >> 3 & 3),
        .require_reply = rules % 3,
        .handshake_timeout_ms = PICK(waits_ms, 4U + (times >> 5)),
        .duplicate_id = (rules >> 2) % 3,
        .forget_after_ms = PICK(forget_ms, rules >> 6),
        .explain_refusals = !(rules & 16),
        .limits = {.max_clients = 1 + (limits & 15), .max_pending = 16},
    };
    if (options->forget_after_ms == 0)
        options->forget_after_ms = UINT64_MAX;
    world.passwords = (limits >> 4) % 3;
}

static struct credentials *credentials_of(unsigned set)
{
    struct credentials *credentials = credentials_new();

    fuzz_require(credentials);
    if (set != 1)
        fuzz_require(credentials_add(credentials, "secret", 6) == 0);
    if (set != 0)
        fuzz_require(credentials_add(credentials, "other", 5) == 0);
    return credentials;
}

static bool is_password(const char *line, size_t len)
{
    return (world.passwords != 1 && len == 6 && memcmp(line, "secret", 6) == 0) ||
           (world.passwords != 0 && len == 5 && memcmp(line, "other", 5) == 0);
}

/* The line of this index in all that the client has sent. */
static bool naive_line(const struct client *client, unsigned index, const char **line, size_t *len)
{
    size_t begin = 0;

    for (size_t i = 0; i < client->come; i++) {
        if (client->bytes[i] != '\n')
            continue;
        if (index-- == 0) {
            *line = client->bytes + begin;
            *len = i > begin && client->bytes[i - 1] == '\r' ? i - begin - 1 : i - begin;
            return true;
        }
        begin = i + 1;
    }
    return false;
}

/* Is there an order under way, and is this ID in it? */
static bool is_ordered(const char *cid)
{
    struct order_progress progress;
    char globs[sizeof(world.order)];
    char *rest = globs;
    char *glob = NULL;

    orders_progress(sessions_orders(world.sessions), &progress);
    if (world.is_frozen || (progress.state != ORDER_RUNNING && progress.state != ORDER_HOLDING))
        return false;
    memcpy(globs, world.order, sizeof(globs));
    while ((glob = strsep(&rest, ",")) != NULL) {
        if (fnmatch(glob, cid, 0) == 0)
            return true;
    }
    return false;
}

static void check(void)
{
    const struct sessions_counters *counters = sessions_counters(world.sessions);
    const struct registry_record *record = NULL;
    size_t pending = 0;
    size_t connected = 0;
    size_t leaving = 0;
    size_t records = 0;
    size_t records_connected = 0;
    uint64_t over = 0;

    for (unsigned i = 0; i < SLOTS; i++) {
        const struct client *client = world.clients[i];
        if (!client)
            continue;
        const enum server_fsm_state state = session_state(&client->session);

        fuzz_require(client->is_closed == (state == SERVER_FSM_CLOSED));
        fuzz_require(strcmp(server_fsm_state_name(state), "unknown") != 0);
        pending += state < SERVER_FSM_CONNECTED;
        connected += state == SERVER_FSM_CONNECTED || state == SERVER_FSM_LEAVING;
        leaving += state == SERVER_FSM_LEAVING;
        fuzz_require(state != SERVER_FSM_CLOSED || !client->session.record);
        if (state == SERVER_FSM_CONNECTED || state == SERVER_FSM_LEAVING)
            fuzz_require(client->session.record &&
                         client->session.record->holder == &client->session &&
                         client->session.record->connected);
        fuzz_require(state != SERVER_FSM_LEAVING || client->was_told);
    }
    for (; records < registry_count(world.registry); records++) {
        record = registry_next(world.registry, record ? record->sid : 0);
        fuzz_require(record);
        records_connected += record->connected;
        fuzz_require(record->stored || record->claims > 0 || record->holder);
        fuzz_require(!record->connected || record->holder);
        /* What the store grants too late is given back. */
        fuzz_require(record->holder || record->claims > 0 || !record->row_connected);
        if (record->holder)
            fuzz_require(record->holder->record == record && !session_is_over(record->holder));
        fuzz_require(registry_find(world.registry, record->cid, record->cid_len) == record);
    }
    for (int i = 0; i < REASON_COUNT; i++)
        over += counters->ended[i] + counters->refused[i];
    fuzz_require(records_connected == registry_connected(world.registry));
    fuzz_require(records_connected == connected);
    fuzz_require(connected == sessions_connected(world.sessions));
    fuzz_require(pending == sessions_pending(world.sessions));
    fuzz_require(leaving == sessions_leaving(world.sessions));
    fuzz_require(counters->started == world.started && over == world.closed + world.turned_away);
}

/* What has to be true of a session that is about to be freed. */
static void check_over(const struct client *client)
{
    fuzz_require(client->said_over == 1);
    fuzz_require(client->said_connected <= 1);
    fuzz_require(client->last_code < 400 || reason_refusal(client->reason) == client->last_code);
}

/* What comes behind the end of the list is counted only. */
static void note(unsigned client, int what)
{
    const size_t i = trace->count++;

    if (i >= MAX_TRACE)
        return;
    trace->list[i].client = client;
    trace->list[i].what = what;
    trace->list[i].at_us = world.now.mono_us;
}
