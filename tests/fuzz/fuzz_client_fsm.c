/*
 * A client's session: the input is what a server, or something that is none, sends. Checked against
 * a second machine that is written down as the sentences of docs/protocol.md, "Writing a client",
 * and against itself with the same bytes cut otherwise. Above all: the machine is shut down for a
 * 130 and for nothing else.
 */
#include "cliser/client_fsm.h"

#include "fuzz.h"

#define MAX_BYTES 4096
#define PASSWORD  "secret"
#define ID        "web-1"

/* What a client did: the lines it sent, '!' for the shutdown, '.' for its end. */
struct deeds {
    char text[MAX_BYTES * 8];
    size_t len;
};

static struct deeds expected;
static struct deeds found;
static struct deeds *deeds;
static bool is_in_line; /* the only time when anything may be done */

static void run_naively(const uint8_t *data, size_t size, int *why);
static void run(const uint8_t *data, size_t size, enum fuzz_cut cut, int why);
static void note(struct deeds *to, const char *text, size_t len);
static void send_line(struct client_fsm *fsm, const char *bytes, size_t len);
static void shut_down(struct client_fsm *fsm);
static void changed(struct client_fsm *fsm, enum client_fsm_state old);

static const struct client_fsm_ops ops = {
    .send = send_line,
    .shutdown = shut_down,
    .changed = changed,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int why = 0;

    if (size > MAX_BYTES)
        return -1;
    run_naively(data, size, &why);
    for (int cut = 0; cut < FUZZ_CUT_COUNT; cut++) {
        run(data, size, (enum fuzz_cut)cut, why);
        fuzz_require(found.len == expected.len);
        fuzz_require(memcmp(found.text, expected.text, found.len) == 0);
    }
    return 0;
}

/* One byte after the other; where in the session it is, it knows from the question that is next. */
static void run_naively(const uint8_t *data, size_t size, int *why)
{
    int next = 110;
    char line[256];
    size_t len = 0;
    bool is_told = false;

    expected.len = 0;
    *why = CLIENT_FSM_WHY_LOST;
    for (size_t i = 0; i < size; i++) {
        line[len++] = (char)data[i];
        if (data[i] != '\0' && data[i] != '\n' && len < 256)
            continue;
        if (data[i] != '\n') {
            *why = CLIENT_FSM_WHY_PROTOCOL;
            break;
        }
        int digits = len > 3 ? 0 : -1;
        for (size_t at = 0; at < 3 && digits >= 0; at++)
            digits = line[at] >= '0' && line[at] <= '9' ? digits * 10 + line[at] - '0' : -1;
        len = 0;
        if (digits >= 400 && digits < 500) {
            *why = digits;
            break;
        }
        if (digits >= 0 && digits != 100 && digits != 110 && digits != 120 && digits != 130 &&
            digits != 140)
            continue;
        if (digits == 110 && next == 110) {
            note(&expected, PASSWORD "\n", strlen(PASSWORD) + 1);
            next = 120;
        } else if (digits == 120 && next == 120) {
            note(&expected, ID "\n", strlen(ID) + 1);
            next = 140;
        } else if (digits == 140 && next == 140) {
            next = 0;
        } else if (digits == 100 && next == 0) {
            note(&expected, "100\n", 4);
        } else if (digits == 130 && next == 0) {
            note(&expected, "130\n", 4);
            if (!is_told)
                note(&expected, "!", 1);
            is_told = true;
        } else {
            *why = CLIENT_FSM_WHY_PROTOCOL;
            break;
        }
    }
    note(&expected, ".", 1);
}

static void run(const uint8_t *data, size_t size, enum fuzz_cut cut, int why)
{
    const struct client_fsm_env env = {
        .ops = &ops,
        .password = PASSWORD,
        .password_len = strlen(PASSWORD),
        .id = ID,
        .id_len = strlen(ID),
    };
    uint64_t state = size;
    struct client_fsm fsm;
    size_t come = 0;
    size_t taken = 0;

    found.len = 0;
    deeds = &found;
    client_fsm_start(&fsm);
    while (come < size && fsm.state != CLIENT_FSM_CLOSED) {
        come += fuzz_segment(cut, size - come, &state);
        char *buf = fuzz_copy(data + taken, come - taken);
        const char *rest = buf;
        size_t left = come - taken;
        int got = 0;

        do {
            const char *line = NULL;
            size_t len = 0;
            got = proto_take_line(rest, left, &line, &len);
            is_in_line = true;
            if (got > 0)
                client_fsm_line(&fsm, &env, line, len);
            else if (got < 0)
                client_fsm_bad_line(&fsm, &env);
            is_in_line = false;
            if (got > 0) {
                rest += got;
                left -= (size_t)got;
            }
        } while (got > 0 && fsm.state != CLIENT_FSM_CLOSED);
        taken = come - left;
        free(buf);
    }
    is_in_line = true;
    client_fsm_lost(&fsm, &env);
    is_in_line = false;
    fuzz_require(fsm.state == CLIENT_FSM_CLOSED);
    fuzz_require(client_fsm_why(&fsm) == why);
    const enum proto_retry retry = client_fsm_retry(&fsm);
    fuzz_require(retry != PROTO_RETRY_NONE);
    fuzz_require(why != CLIENT_FSM_WHY_PROTOCOL || retry == PROTO_RETRY_LONG_PAUSE);
    fuzz_require(why != CLIENT_FSM_WHY_LOST || retry == PROTO_RETRY_BACK_OFF);

    /* What is closed stays closed, and quiet. */
    for (int event = 0; event < CLIENT_FSM_EVENT_COUNT; event++)
        client_fsm_handle(&fsm, &env, (enum client_fsm_event)event, 130);
    fuzz_require(fsm.state == CLIENT_FSM_CLOSED && client_fsm_why(&fsm) == why);
}

static void note(struct deeds *to, const char *text, size_t len)
{
    fuzz_require(to->len + len <= sizeof(to->text));
    memcpy(to->text + to->len, text, len);
    to->len += len;
}

static void send_line(struct client_fsm *fsm, const char *bytes, size_t len)
{
    (void)fsm;
    fuzz_require(is_in_line && len > 1 && bytes[len - 1] == '\n');
    note(deeds, bytes, len);
}

static void shut_down(struct client_fsm *fsm)
{
    fuzz_require(is_in_line && fsm->state == CLIENT_FSM_LEAVING);
    note(deeds, "!", 1);
}

static void changed(struct client_fsm *fsm, enum client_fsm_state old)
{
    fuzz_require(is_in_line && (enum client_fsm_state)fsm->state > old);
    if (fsm->state == CLIENT_FSM_CLOSED)
        note(deeds, ".", 1);
}
