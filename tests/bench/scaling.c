/*
 * What must not grow with the number of clients, measured without sockets: real registry, memory
 * store and sessions under a clock turned by hand, beside as many clients as asked for. Prints one
 * JSON object a line for each number of clients. Times are processor time of this thread, so that
 * others on the machine cost accuracy only by what they do to the caches.
 *
 * bench-scaling [CLIENTS...]; 1000 100000 1000000 if none are given
 */
#include "admin/stream.h"
#include "base/container_of.h"
#include "base/hash.h"
#include "base/log.h"
#include "cliser/proto.h"
#include "registry/registry.h"
#include "session/order.h"
#include "session/session.h"
#include "store/store.h"

#include <fnmatch.h>
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* What the server does of each in a turn while somebody reads a list. */
#define ORDER_BUDGET 512
#define PAGE         1000

#define ROUNDS       5      /* the best of so many, where what is measured can be repeated */
#define MANY         100000 /* operations too short for a clock are measured by so many */
#define SAMPLES      2000   /* pages and removals, each with its own time */
#define VISITS       10000
#define NEWCOMERS    1000 /* different IDs that come beside the others */
#define INTERVAL_US  (10 * CLOCK_US_PER_SEC)

struct client {
    struct session session;
    int code; /* the last one it was sent */
};

/* Each client that was sent a 100 or a 130 and has not answered it. */
struct asked {
    struct client **clients;
    size_t count;
};

struct world {
    struct moment now;
    struct registry *registry;
    struct sessions *sessions;
    struct store *store;
    struct client *clients; /* one more than there are: the newcomer's place */
    uint32_t *numbers;      /* of the clients' IDs, in the order in which they come */
    uint32_t count;
};

/* A mean and the worst of it, in nanoseconds. */
struct times {
    double sum;
    double longest;
    size_t count;
};

/* Every time on its own, in nanoseconds, for percentiles. */
struct samples {
    double *values;
    size_t count;
    size_t capacity;
};

static struct asked asked;

static void fail(const char *what)
{
    fprintf(stderr, "bench-scaling: %s\n", what);
    exit(1);
}

static void check(bool holds, const char *what)
{
    if (!holds)
        fail(what);
}

static void *must_have(void *memory)
{
    check(memory != NULL, "out of memory");
    return memory;
}

static double now_ns(void)
{
    struct timespec time;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static void note(struct times *times, double begin_ns)
{
    const double took = now_ns() - begin_ns;

    times->sum += took;
    times->count++;
    if (took > times->longest)
        times->longest = took;
}

static double mean(const struct times *times)
{
    return times->count > 0 ? times->sum / (double)times->count : 0;
}

static void sample(struct samples *samples, double begin_ns)
{
    const double took = now_ns() - begin_ns;

    if (samples->count == samples->capacity) {
        samples->capacity = samples->capacity ? 2 * samples->capacity : 1024;
        samples->values =
            must_have(realloc(samples->values, samples->capacity * sizeof(*samples->values)));
    }
    samples->values[samples->count++] = took;
}

static int compare_doubles(const void *left, const void *right)
{
    const double a = *(const double *)left;
    const double b = *(const double *)right;

    return (a > b) - (a < b);
}

static void tell(const char *name, double value)
{
    printf(", \"%s\": %.4g", name, value);
}

/* The sum, the 99th percentile and the longest, and frees. */
static void tell_samples(const char *name, struct samples *samples)
{
    char full[64];
    double sum = 0;

    qsort(samples->values, samples->count, sizeof(*samples->values), compare_doubles);
    for (size_t i = 0; i < samples->count; i++)
        sum += samples->values[i];
    snprintf(full, sizeof(full), "%s_ms", name);
    tell(full, sum / 1e6);
    snprintf(full, sizeof(full), "%s_slice_p99_us", name);
    tell(full, samples->values[samples->count * 99 / 100] / 1e3);
    snprintf(full, sizeof(full), "%s_slice_longest_us", name);
    tell(full, samples->values[samples->count - 1] / 1e3);
    free(samples->values);
}

static size_t heap_bytes(void)
{
    const struct mallinfo2 info = mallinfo2();

    return info.uordblks + info.hblkhd;
}

/* The same numbers in each run; rand() gives too few bits for a million. */
static uint32_t random_below(uint32_t limit)
{
    static uint64_t state = 1;

    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)((state >> 32) * limit >> 32);
}

/* Machines come in no order. */
static uint32_t *shuffled_numbers(uint32_t count)
{
    uint32_t *numbers = must_have(malloc(count * sizeof(*numbers)));

    for (uint32_t i = 0; i < count; i++) {
        const uint32_t other = random_below(i + 1);
        numbers[i] = numbers[other];
        numbers[other] = i;
    }
    return numbers;
}

static size_t name_of(uint32_t number, char *cid, size_t size)
{
    return (size_t)snprintf(cid, size, "machine-%" PRIu32, number);
}

/* ---- the registry alone ---- */

static void add_numbered(struct registry *registry, uint32_t number)
{
    char cid[PROTO_MAX_ID_BYTES + 1];
    const size_t len = name_of(number, cid, sizeof(cid));

    (void)must_have(registry_find_or_add(registry, cid, len));
}

static void measure_growth(const struct world *world)
{
    struct registry *registry = must_have(registry_new());
    struct times times = {0};

    for (uint32_t i = 0; i < world->count; i++) {
        char cid[PROTO_MAX_ID_BYTES + 1];
        const size_t len = name_of(world->numbers[i], cid, sizeof(cid));
        const double begin = now_ns();
        const struct registry_record *record = registry_find_or_add(registry, cid, len);
        note(&times, begin);
        check(record && record->sid == i + 1, "a record was not added");
    }
    registry_free(registry);
    tell("add_longest_ms", times.longest / 1e6);
}

static struct registry *fill_registry(const struct world *world)
{
    struct registry *registry = must_have(registry_new());
    const size_t heap_before = heap_bytes();
    const double begin = now_ns();

    for (uint32_t i = 0; i < world->count; i++)
        add_numbered(registry, world->numbers[i]);
    tell("add_ns", (now_ns() - begin) / world->count);
    tell("record_heap_bytes", (double)(heap_bytes() - heap_before) / world->count);
    return registry;
}

static void measure_find(const struct world *world, const struct registry *registry)
{
    static char cids[MANY][32];
    double best = 0;

    for (int i = 0; i < MANY; i++)
        (void)name_of(random_below(world->count), cids[i], sizeof(cids[i]));
    for (int round = 0; round < ROUNDS; round++) {
        const double begin = now_ns();
        for (int i = 0; i < MANY; i++)
            check(registry_find(registry, cids[i], strlen(cids[i])) != NULL, "an ID is not found");
        const double took = now_ns() - begin;
        best = round == 0 || took < best ? took : best;
    }
    tell("find_ns", best / MANY);
}

static void measure_ordering(const struct world *world, struct registry *registry)
{
    const size_t heap_before = heap_bytes();
    struct times steps = {0};

    check(registry_unordered(registry) == world->count, "somebody has been put in order too early");
    while (registry_unordered(registry) > 0) {
        const double begin = now_ns();
        check(registry_order_some(registry, ORDER_BUDGET) == 0, "out of memory");
        note(&steps, begin);
    }
    tell("order_total_ms", steps.sum / 1e6);
    tell("order_step_us", mean(&steps) / 1e3);
    tell("order_step_longest_us", steps.longest / 1e3);
    tell("order_heap_bytes", (double)(heap_bytes() - heap_before) / world->count);
}

/* Pages behind IDs at random places, most of which cut no ID that is there. */
static void measure_pages(const struct world *world, const struct registry *registry, size_t size)
{
    struct registry_record *page[PAGE];
    struct times times = {0};
    char name[32];

    for (int i = 0; i < SAMPLES; i++) {
        char after[PROTO_MAX_ID_BYTES + 4];
        const size_t len = name_of(random_below(world->count), after, sizeof(after));
        memcpy(after + len, "-x", 3);
        const double begin = now_ns();
        const size_t count = registry_page(registry, after, page, size);
        note(&times, begin);
        check(count == 0 || strcmp(page[0]->cid, after) > 0, "a page begins too early");
    }
    snprintf(name, sizeof(name), "page_%zu_us", size);
    tell(name, mean(&times) / 1e3);
    snprintf(name, sizeof(name), "page_%zu_longest_us", size);
    tell(name, times.longest / 1e3);
}

/* With a pattern or without; the pattern matches none, so it sees every record. */
static void measure_list(const struct world *world, const struct registry *registry, bool matching)
{
    struct registry_record *page[PAGE];
    char after[PROTO_MAX_ID_BYTES + 1] = "";
    struct times times = {0};
    size_t seen = 0;
    size_t matches = 0;
    size_t count;

    do {
        const double begin = now_ns();
        count = registry_page(registry, after, page, PAGE);
        if (count > 0)
            strcpy(after, page[count - 1]->cid);
        for (size_t i = 0; matching && i < count; i++)
            matches += fnmatch("*-none-*", page[i]->cid, 0) == 0;
        note(&times, begin);
        seen += count;
    } while (count == PAGE);
    check(seen == world->count && matches == 0, "a list is not complete");
    tell(matching ? "list_matching_ms" : "list_ms", times.sum / 1e6);
    tell(matching ? "list_matching_page_longest_us" : "list_page_longest_us", times.longest / 1e3);
}

/* Records that leave the registry, and with it the order. */
static void measure_removal(const struct world *world, struct registry *registry)
{
    struct times removals = {0};
    struct times additions = {0};

    for (uint32_t i = 0; i < SAMPLES; i++) {
        const uint32_t sid = random_below(world->count) + 1;
        struct registry_record *record = registry_by_sid(registry, sid);
        char cid[PROTO_MAX_ID_BYTES + 1];
        const size_t len = record->cid_len;
        memcpy(cid, record->cid, len + 1);

        double begin = now_ns();
        registry_remove(registry, record);
        note(&removals, begin);
        begin = now_ns();
        record = registry_find_or_add(registry, cid, len);
        note(&additions, begin);
        check(record && record->sid == sid && registry_unordered(registry) == 1,
              "a record did not come back as expected");
        check(registry_order_some(registry, 1) == 0, "out of memory");
    }
    tell("remove_ordered_ns", mean(&removals));
    tell("add_beside_ordered_ns", mean(&additions));
}

static void measure_registry(const struct world *world)
{
    measure_growth(world);
    struct registry *registry = fill_registry(world);
    measure_find(world, registry);
    measure_ordering(world, registry);
    measure_pages(world, registry, 100);
    measure_pages(world, registry, PAGE);
    measure_list(world, registry, false);
    measure_list(world, registry, true);
    measure_removal(world, registry);
    registry_free(registry);
}

/* ---- sessions ---- */

static void on_send(struct session *session, const char *line, size_t len)
{
    struct client *client = container_of(session, struct client, session);

    client->code = proto_parse_code(line, len);
    if (client->code == PROTO_KEEP_ALIVE || client->code == PROTO_SHUTDOWN)
        asked.clients[asked.count++] = client;
}

static void on_resume(struct session *session)
{
    (void)session;
}

static void on_close(struct session *session, bool said_why)
{
    (void)session;
    (void)said_why;
}

static const struct session_ops ops = {
    .send = on_send,
    .resume = on_resume,
    .look = on_resume,
    .close = on_close,
};

static void advance_to(struct world *world, uint64_t mono_us)
{
    world->now.wall_ms += (int64_t)((mono_us - world->now.mono_us) / CLOCK_US_PER_MS);
    world->now.mono_us = mono_us;
}

static void feed(struct world *world, struct client *client, const char *line, size_t len)
{
    check(session_line(&client->session, line, len, world->now), "a line was held");
}

static void come(struct world *world, struct client *client, const char *cid, size_t len)
{
    const struct peer_address peer = {.family = AF_INET, .ip = {192, 0, 2, 1}, .port = 1024};

    session_start(&client->session, world->sessions, &peer, world->now);
    feed(world, client, "secret", 6);
    feed(world, client, cid, len);
}

static void end_turn(struct world *world)
{
    store_turn(world->store, false, world->now);
}

static void open_world(struct world *world)
{
    static const struct sessions_options options = {
        .interval_ms = INTERVAL_US / CLOCK_US_PER_MS,
        .misses = 3,
        .handshake_timeout_ms = 10000,
        .forget_after_ms = UINT64_MAX,
        .limits = {.max_clients = UINT32_MAX, .max_pending = UINT32_MAX},
    };
    static const struct store_options store_options = {.kind = STORE_MEMORY, .node = "bench"};
    struct credentials *credentials = must_have(credentials_new());
    char message[256];

    check(credentials_add(credentials, "secret", 6) == 0, "out of memory");
    world->now = (struct moment){.mono_us = CLOCK_US_PER_SEC, .wall_ms = INT64_C(1700000000000)};
    world->registry = must_have(registry_new());
    world->sessions = sessions_new(&options, world->registry, credentials, &ops, world->now);
    world->store = store_open(&store_options, world->registry, sessions_on_answer, world->sessions,
                              message, sizeof(message));
    check(world->store != NULL, message);
    sessions_set_store(world->sessions, world->store, world->now);
}

static void close_world(struct world *world)
{
    for (uint32_t i = 0; i < world->count; i++)
        session_end(&world->clients[i].session, REASON_STOPPED, world->now);
    end_turn(world);
    store_close(world->store, world->now);
    sessions_free(world->sessions);
    registry_free(world->registry);
}

static void connect_all(struct world *world)
{
    const size_t heap_before = heap_bytes();

    for (uint32_t i = 0; i < world->count; i++) {
        char cid[PROTO_MAX_ID_BYTES + 1];
        const size_t len = name_of(world->numbers[i], cid, sizeof(cid));
        come(world, &world->clients[i], cid, len);
        end_turn(world);
        check(world->clients[i].code == PROTO_CONNECTED, "a client got no 140");
    }
    tell("session_bytes", sizeof(struct session));
    tell("connected_heap_bytes",
         sizeof(struct session) + (double)(heap_bytes() - heap_before) / world->count);
}

/* The clock stands just before something is due, so each tick looks for it in vain. */
static void measure_idle(struct world *world)
{
    double best_tick = 0;
    double best_next = 0;

    advance_to(world, sessions_next_us(world->sessions) - 1);
    for (int round = 0; round < ROUNDS; round++) {
        double begin = now_ns();
        for (int i = 0; i < MANY; i++)
            sessions_tick(world->sessions, world->now);
        const double tick = now_ns() - begin;
        begin = now_ns();
        for (int i = 0; i < MANY; i++)
            check(sessions_next_us(world->sessions) > world->now.mono_us, "something is due");
        const double next = now_ns() - begin;
        best_tick = round == 0 || tick < best_tick ? tick : best_tick;
        best_next = round == 0 || next < best_next ? next : best_next;
    }
    check(asked.count == 0, "an idle tick has asked somebody");
    tell("idle_tick_ns", best_tick / MANY);
    tell("next_us_ns", best_next / MANY);
}

/* Everybody is asked and answers, for as many intervals as give enough of them. With ticks, each
 * tick has its own time, which costs some itself. */
static uint64_t keep_alive(struct world *world, struct times *ticks)
{
    const uint64_t wanted = world->count > MANY ? world->count : MANY;
    uint64_t done = 0;

    while (done < wanted) {
        const uint64_t next_us = sessions_next_us(world->sessions);
        if (next_us > world->now.mono_us)
            advance_to(world, next_us);
        const double begin = ticks ? now_ns() : 0;
        sessions_tick(world->sessions, world->now);
        if (ticks)
            note(ticks, begin);
        for (size_t i = 0; i < asked.count; i++)
            feed(world, asked.clients[i], "100", 3);
        done += asked.count;
        asked.count = 0;
    }
    return done;
}

static void measure_keepalives(struct world *world)
{
    struct times ticks = {0};
    const double begin = now_ns();
    const uint64_t done = keep_alive(world, NULL);

    tell("keepalive_ns", (now_ns() - begin) / (double)done);
    (void)keep_alive(world, &ticks);
    tell("keepalive_tick_longest_us", ticks.longest / 1e3);
    check(sessions_connected(world->sessions) == world->count, "a client was dropped");
}

/* One more comes, is registered and leaves. */
static void visit(struct world *world, uint32_t number)
{
    struct client *newcomer = &world->clients[world->count];
    char cid[PROTO_MAX_ID_BYTES + 1];
    const size_t len = (size_t)snprintf(cid, sizeof(cid), "new-%" PRIu32, number);

    come(world, newcomer, cid, len);
    end_turn(world);
    check(newcomer->code == PROTO_CONNECTED, "a newcomer got no 140");
    session_end(&newcomer->session, REASON_LEFT, world->now);
    end_turn(world);
}

static void measure_visits(struct world *world)
{
    struct times visits = {0};
    double best = 0;

    for (int round = 0; round < ROUNDS; round++) {
        const double begin = now_ns();
        for (uint32_t i = 0; i < VISITS; i++)
            visit(world, i % NEWCOMERS);
        const double took = now_ns() - begin;
        best = round == 0 || took < best ? took : best;
    }
    for (uint32_t i = 0; i < VISITS; i++) {
        const double begin = now_ns();
        visit(world, i % NEWCOMERS);
        note(&visits, begin);
    }
    tell("visit_ns", best / VISITS);
    tell("visit_longest_us", visits.longest / 1e3);
}

/* Everybody is listed as an operator's program does it, page by page in JSON: the time of each
 * slice, which is what a turn of the loop gives to it. */
static void measure_walk(struct world *world)
{
    const struct admin admin = {
        .registry = world->registry, .sessions = world->sessions, .node = "bench"};
    char after[PROTO_MAX_ID_BYTES + 1] = "";
    struct samples slices = {0};
    size_t bytes = 0;
    bool more = true;

    while (more) {
        const struct stream_filter filter = {.after = after[0] ? after : NULL,
                                             .limit = STREAM_MAX_LIMIT,
                                             .connected = -1,
                                             .target = -1};
        struct stream *stream = must_have(stream_clients(&admin, &filter));
        char buf[16 * 1024 + 1];
        ssize_t len = 0;

        more = false;
        while (len != STREAM_END) {
            const double begin = now_ns();
            len = stream_read(stream, buf, sizeof(buf) - 1);
            sample(&slices, begin);
            check(len != STREAM_FAILED, "out of memory");
            if (len <= 0)
                continue;
            bytes += (size_t)len;
            buf[len] = '\0';
            const char *next = strstr(buf, "\"next\":\"");
            more = next && sscanf(next, "\"next\":\"%64[^\"]", after) == 1;
        }
        stream_free(stream);
    }
    check(bytes > world->count * 100, "a list is not complete");
    tell_samples("walk", &slices);
}

/* What was sent is answered; who was told leaves. */
static void answer_all(struct world *world)
{
    for (size_t i = 0; i < asked.count; i++) {
        struct client *client = asked.clients[i];

        feed(world, client, client->code == PROTO_SHUTDOWN ? "130" : "100", 3);
        if (client->code == PROTO_SHUTDOWN)
            session_end(&client->session, REASON_LEFT, world->now);
    }
    asked.count = 0;
}

/* Everybody is told, in two waves of patterns, acknowledges and leaves. */
static void measure_order(struct world *world)
{
    struct orders *orders = sessions_orders(world->sessions);
    struct order_request order = {.grace_ms = 600000, .by = "bench"};
    struct order_progress progress;
    struct samples ticks = {0};
    size_t gone[ORDER_TARGET_COUNT];
    char message[256];

    check(order_waves_add(&order.waves, "*[02468]", message, sizeof(message)) == 0 &&
              order_waves_add(&order.waves, "*", message, sizeof(message)) == 0,
          message);
    double begin = now_ns();
    check(orders_start(orders, &order, world->now) == ORDER_OK, "an order was refused");
    sample(&ticks, begin);
    end_turn(world);
    for (orders_progress(orders, &progress); progress.state == ORDER_RUNNING;
         orders_progress(orders, &progress)) {
        const uint64_t next_us = sessions_next_us(world->sessions);
        if (next_us > world->now.mono_us)
            advance_to(world, next_us);
        begin = now_ns();
        sessions_tick(world->sessions, world->now);
        sample(&ticks, begin);
        answer_all(world);
        end_turn(world);
    }
    orders_count_targets(orders, gone);
    check(gone[ORDER_TARGET_GONE] == world->count, "not everybody was told and left");
    tell_samples("shutdown", &ticks);
}

static void measure_sessions(struct world *world)
{
    /* Zeroed by hand: untouched pages would be counted as part of what is measured. */
    const size_t clients_bytes = (world->count + 1U) * sizeof(*world->clients);
    world->clients = must_have(malloc(clients_bytes));
    memset(world->clients, 0xa5, clients_bytes);
    asked.clients = must_have(calloc(world->count, sizeof(*asked.clients)));

    open_world(world);
    connect_all(world);
    measure_idle(world);
    measure_keepalives(world);
    measure_visits(world);
    measure_walk(world);
    measure_order(world);
    close_world(world);
    free(asked.clients);
    free(world->clients);
}

static void measure(uint32_t count)
{
    struct world world = {.count = count, .numbers = shuffled_numbers(count)};

    printf("{\"clients\": %" PRIu32, count);
    measure_registry(&world);
    measure_sessions(&world);
    printf("}\n");
    fflush(stdout);
    free(world.numbers);
}

static uint32_t parse_count(const char *text)
{
    char *end;
    const unsigned long count = strtoul(text, &end, 10);

    if (text[0] < '1' || text[0] > '9' || *end != '\0' || count > 100000000) {
        fprintf(stderr, "bench-scaling: %s: must be numbers of clients, 1 to 100000000\n", text);
        exit(2);
    }
    return (uint32_t)count;
}

int main(int argc, char **argv)
{
    static const uint32_t counts[] = {1000, 100000, 1000000};
    const struct log_options quiet = {.program = "bench-scaling", .level = LOG_LEVEL_ERROR};

    for (int i = 1; i < argc; i++)
        (void)parse_count(argv[i]);
    check(hash_init() == 0, "the system has no randomness to give");
    check(log_open(&quiet) == 0, "the log cannot be opened");
    if (argc == 1) {
        for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++)
            measure(counts[i]);
    }
    for (int i = 1; i < argc; i++)
        measure(parse_count(argv[i]));
    log_close();
    return 0;
}
