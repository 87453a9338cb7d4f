/*
 * TLS: a first byte of 0, and the rest is what a peer sends to the TLS port, which is rarely a
 * handshake: nobody registers by it, nothing is said in the clear, and the server is rid of the
 * connection in time. Otherwise a real client shakes hands, and the rest is what it sends then,
 * with the end that the first byte names: it must read exactly what a plain client reads.
 */
#include "fake_clock.h"
#include "fuzz.h"
#include "world.h"

#include <openssl/err.h>
#include <openssl/ssl.h>

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_READ 8192
#define SETTLE   (4 * WORLD_SETTLE_TURNS)

enum way { WAY_RAW, WAY_PLAIN, WAY_TLS };
/* What the client does when it has sent all. */
enum ending { END_WAIT, END_NOTIFY, END_HALF_CLOSE, END_RAW_BYTES, END_COUNT };

struct text {
    char bytes[MAX_READ];
    size_t len;
};

static struct {
    struct world world;
    enum way way;
    enum fuzz_cut cut;
    enum ending ending;
    uint64_t cut_state;
    int fd;
    SSL *ssl;
    const char *bytes;
    size_t left;
    unsigned settle;
    bool is_shaking;
    bool has_ended_here;
    bool has_ended; /* the server has */
    unsigned waits;
    struct text *read;
} run;

static SSL_CTX *context;

static void run_once(enum way way, enum fuzz_cut cut, enum ending ending, const char *bytes,
                     size_t len, struct text *read);
static bool step(void *user);
static void send_segment(void);
static void end_here(void);
static void read_all(void);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct text plain;
    static struct text other;

    if (size < 1 || size > 2048)
        return -1;
    if (!context) {
        context = SSL_CTX_new(TLS_client_method());
        fuzz_require(context);
    }
    const char *bytes = (const char *)data + 1;
    if (data[0] == 0) {
        for (int cut = 0; cut < FUZZ_CUT_COUNT; cut++) {
            run_once(WAY_RAW, (enum fuzz_cut)cut, END_WAIT, bytes, size - 1, &other);
            fuzz_require(!memmem(other.bytes, other.len, "qual", 4));
        }
        return 0;
    }
    const enum ending ending = (enum ending)(data[0] % END_COUNT);
    run_once(WAY_PLAIN, FUZZ_CUT_NOWHERE, ending, bytes, size - 1, &plain);
    for (int cut = 0; cut < FUZZ_CUT_COUNT; cut++) {
        run_once(WAY_TLS, (enum fuzz_cut)cut, ending, bytes, size - 1, &other);
        if (ending == END_RAW_BYTES) /* which end it at once */
            fuzz_require(other.len <= plain.len);
        else
            fuzz_require(other.len == plain.len);
        fuzz_require(memcmp(other.bytes, plain.bytes, other.len) == 0);
    }
    return 0;
}

static void run_once(enum way way, enum fuzz_cut cut, enum ending ending, const char *bytes,
                     size_t len, struct text *read)
{
    struct sessions_options options = world_options();

    memset(&run, 0, sizeof(run));
    run.way = way;
    run.cut = cut;
    run.ending = ending;
    run.cut_state = len;
    run.bytes = bytes;
    run.left = len;
    run.settle = SETTLE;
    run.read = read;
    read->len = 0;
    world_open(&run.world, &options, NULL, false, true);
    run.fd = world_connect(&run.world, way == WAY_PLAIN ? WORLD_CLIENTS : WORLD_TLS);
    fuzz_require(run.fd >= 0);
    if (way == WAY_TLS) {
        run.ssl = SSL_new(context);
        fuzz_require(run.ssl && SSL_set_fd(run.ssl, run.fd) == 1);
        SSL_set_connect_state(run.ssl);
        run.is_shaking = true;
    }
    world_run(&run.world, step, NULL);
    if (way == WAY_RAW)
        fuzz_require(sessions_counters(run.world.sessions)->registered == 0);
    SSL_free(run.ssl);
    const struct linger linger = {.l_onoff = 1};
    (void)setsockopt(run.fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
    close(run.fd);
    world_close(&run.world);
}

static bool step(void *user)
{
    (void)user;
    ERR_clear_error();
    if (run.is_shaking) {
        const int result = SSL_do_handshake(run.ssl);
        fuzz_require(result == 1 || SSL_get_error(run.ssl, result) == SSL_ERROR_WANT_READ);
        run.is_shaking = result != 1;
        fuzz_require(run.world.turns < 1000);
        return true;
    }
    read_all();
    if (run.settle > 0) {
        run.settle--;
        return true;
    }
    if (run.left > 0) {
        send_segment();
        run.settle = run.left > 0 ? 2 : SETTLE;
        return true;
    }
    if (!run.has_ended_here) {
        run.has_ended_here = true;
        end_here();
        run.settle = SETTLE;
        return true;
    }
    /* Whatever it was: after the handshake's time and that to read the last line it is over. */
    if (run.way == WAY_RAW && run.waits < 3) {
        run.waits++;
        fake_clock_advance_ms(10000);
        run.settle = SETTLE;
        return true;
    }
    fuzz_require(run.way != WAY_RAW || run.has_ended);
    return false;
}

static void send_segment(void)
{
    const size_t segment = fuzz_segment(run.cut, run.left, &run.cut_state);

    if (run.way == WAY_TLS)
        (void)SSL_write(run.ssl, run.bytes, (int)segment);
    else
        (void)!write(run.fd, run.bytes, segment);
    run.bytes += segment;
    run.left -= segment;
}

static void end_here(void)
{
    static const char garbage[] = "\x17\x03\x03\x00\x05hello";

    switch (run.ending) {
    case END_NOTIFY:
        if (run.way == WAY_TLS)
            (void)SSL_shutdown(run.ssl);
        else
            (void)shutdown(run.fd, SHUT_WR);
        break;
    case END_HALF_CLOSE:
        (void)shutdown(run.fd, SHUT_WR);
        break;
    case END_RAW_BYTES:
        if (run.way == WAY_TLS)
            (void)!write(run.fd, garbage, sizeof(garbage) - 1);
        break;
    case END_WAIT:
    case END_COUNT:
        break;
    }
}

static void read_all(void)
{
    struct text *read_text = run.read;
    ssize_t got = 0;

    do {
        char *to = read_text->bytes + read_text->len;
        const size_t room = sizeof(read_text->bytes) - read_text->len;
        if (run.way == WAY_TLS)
            got = SSL_read(run.ssl, to, (int)room);
        else
            got = read(run.fd, to, room);
        if (got > 0)
            read_text->len += (size_t)got;
    } while (got > 0 && read_text->len < sizeof(read_text->bytes));
    if (run.way != WAY_TLS && (got == 0 || (got < 0 && errno != EAGAIN)))
        run.has_ended = true;
}
