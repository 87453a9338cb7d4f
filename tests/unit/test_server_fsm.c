/*
 * The server's state machine: every state with every event against a second table, written by hand
 * from docs/protocol.md; then the rules that need more than one event.
 */
#include "cliser/server_fsm.h"

#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A session with ops that record what they are asked, and may feed an event from inside. */
struct fake {
    struct server_fsm fsm;
    struct server_fsm_env env;
    char trace[1024];
    int drop_in_send;      /* code whose sending finds the peer gone; -1: every one */
    bool store_in_claim;   /* the store answers from inside claim_id */
    int drop_in_claim;     /* refusal given from inside claim_id */
    bool drop_in_answered; /* the owner drops the session from inside answered */
    int closed;            /* how often CLOSED was entered */
    int shutdowns;         /* 130s sent */
};

static void note(struct fake *fake, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void note(struct fake *fake, const char *format, ...)
{
    const size_t len = strlen(fake->trace);
    va_list args;

    assert_true(len < sizeof(fake->trace) - 200);
    va_start(args, format);
    vsnprintf(fake->trace + len, sizeof(fake->trace) - len, format, args);
    va_end(args);
}

static void on_send(struct server_fsm *fsm, const struct proto_code_info *code)
{
    struct fake *fake = (struct fake *)fsm;

    assert_non_null(code);
    note(fake, "send %d; ", code->code);
    if (code->code == PROTO_SHUTDOWN)
        fake->shutdowns++;
    if (fake->drop_in_send == -1 || fake->drop_in_send == (int)code->code)
        assert_int_equal(server_fsm_drop(fsm, &fake->env, 0), SERVER_FSM_TAKEN);
}

static bool on_check_password(struct server_fsm *fsm, const char *line, size_t len)
{
    note((struct fake *)fsm, "check %.*s; ", (int)len, line);
    return len == 6 && memcmp(line, "secret", 6) == 0;
}

static void on_claim_id(struct server_fsm *fsm, const char *id, size_t len)
{
    struct fake *fake = (struct fake *)fsm;

    note(fake, "claim %.*s; ", (int)len, id);
    if (fake->store_in_claim)
        assert_int_equal(server_fsm_stored(fsm, &fake->env), SERVER_FSM_TAKEN);
    if (fake->drop_in_claim)
        assert_int_equal(server_fsm_drop(fsm, &fake->env, fake->drop_in_claim), SERVER_FSM_TAKEN);
}

static void on_answered(struct server_fsm *fsm, enum proto_code code)
{
    struct fake *fake = (struct fake *)fsm;

    note(fake, "answered %d; ", code);
    if (fake->drop_in_answered)
        assert_int_equal(server_fsm_drop(fsm, &fake->env, 0), SERVER_FSM_TAKEN);
}

static void on_give_back(struct server_fsm *fsm)
{
    note((struct fake *)fsm, "give back; ");
}

static void on_changed(struct server_fsm *fsm, enum server_fsm_state old, int why)
{
    struct fake *fake = (struct fake *)fsm;

    note(fake, "%s>%s %d; ", server_fsm_state_name(old),
         server_fsm_state_name((enum server_fsm_state)fsm->state), why);
    if (fsm->state == SERVER_FSM_CLOSED)
        fake->closed++;
}

static const struct server_fsm_ops ops = {
    .send = on_send,
    .check_password = on_check_password,
    .claim_id = on_claim_id,
    .answered = on_answered,
    .give_back = on_give_back,
    .changed = on_changed,
};

static enum server_fsm_result line(struct fake *fake, const char *text)
{
    return server_fsm_line(&fake->fsm, &fake->env, text, strlen(text));
}

static enum server_fsm_state state_of(const struct fake *fake)
{
    return (enum server_fsm_state)fake->fsm.state;
}

static void assert_trace(struct fake *fake, const char *expected)
{
    assert_string_equal(fake->trace, expected);
    fake->trace[0] = '\0';
}

/* Brings a new session into the state by the shortest way, then forgets what was recorded. */
static void start_in(struct fake *fake, enum server_fsm_state wanted)
{
    *fake = (struct fake){
        .env = {&ops,
                {.misses = 3, .require_reply = SERVER_FSM_REPLY_AUTO, .explain_refusals = true}},
    };
    server_fsm_start(&fake->fsm, &fake->env);
    if (wanted == SERVER_FSM_CLOSED) {
        server_fsm_drop(&fake->fsm, &fake->env, 0);
    } else {
        if (wanted >= SERVER_FSM_AWAIT_ID)
            line(fake, "secret");
        if (wanted >= SERVER_FSM_REGISTERING)
            line(fake, "web-1");
        if (wanted >= SERVER_FSM_CONNECTED)
            server_fsm_stored(&fake->fsm, &fake->env);
        if (wanted >= SERVER_FSM_LEAVING)
            server_fsm_order(&fake->fsm, &fake->env);
    }
    assert_int_equal(fake->fsm.state, wanted);
    fake->trace[0] = '\0';
    fake->closed = 0;
    fake->shutdowns = 0;
}

/* The events, with each argument that makes a difference somewhere. */
enum variant {
    LINE_SECRET, /* the password; as an ID it is valid */
    LINE_WRONG,  /* no password; as an ID it is valid */
    LINE_BAD_ID, /* no password and no ID */
    LINE_EMPTY,
    LINE_100,
    LINE_130,
    LINE_140,
    LINE_10, /* too short for an answer */
    STORED,
    DEADLINE, /* the first one in this state */
    OVERDUE,  /* three keep-alives went unanswered, silence counts */
    PING,
    ORDER,
    DROP_SILENT,
    DROP_431,
    VARIANT_COUNT
};

static enum server_fsm_result feed(struct fake *fake, enum variant variant)
{
    struct server_fsm *fsm = &fake->fsm;
    const struct server_fsm_env *env = &fake->env;

    switch (variant) {
    case LINE_SECRET:
        return line(fake, "secret");
    case LINE_WRONG:
        return line(fake, "wrong");
    case LINE_BAD_ID:
        return line(fake, "not an ID");
    case LINE_EMPTY:
        return line(fake, "");
    case LINE_100:
        return line(fake, "100");
    case LINE_130:
        return line(fake, "130");
    case LINE_140:
        return line(fake, "140");
    case LINE_10:
        return line(fake, "10");
    case STORED:
        return server_fsm_stored(fsm, env);
    case DEADLINE:
        return server_fsm_deadline(fsm, env);
    case OVERDUE:
        fsm->has_answered = true;
        fsm->unanswered = 3;
        return server_fsm_deadline(fsm, env);
    case PING:
        return server_fsm_ping(fsm, env);
    case ORDER:
        return server_fsm_order(fsm, env);
    case DROP_SILENT:
        return server_fsm_drop(fsm, env, 0);
    case DROP_431:
        return server_fsm_drop(fsm, env, PROTO_REPLACED);
    case VARIANT_COUNT:
        break;
    }
    fail();
    return SERVER_FSM_BUG;
}

struct cell {
    enum server_fsm_result result;
    enum server_fsm_state next;
    const char *trace;
};

#define T     SERVER_FSM_TAKEN
#define HELD  SERVER_FSM_HELD
#define LATER SERVER_FSM_LATER
#define BUG   SERVER_FSM_BUG
#define PW    SERVER_FSM_AWAIT_PASSWORD
#define ID    SERVER_FSM_AWAIT_ID
#define REG   SERVER_FSM_REGISTERING
#define CONN  SERVER_FSM_CONNECTED
#define LEAV  SERVER_FSM_LEAVING
#define GONE  SERVER_FSM_CLOSED

/* clang-format off */
static const struct cell expected[SERVER_FSM_STATE_COUNT][VARIANT_COUNT] = {
    [PW] = {
        [LINE_SECRET] = {T,     ID,   "check secret; await_password>await_id 120; send 120; "},
        [LINE_WRONG]  = {T,     GONE, "check wrong; send 410; await_password>closed 410; "},
        [LINE_BAD_ID] = {T,     GONE, "check not an ID; send 410; await_password>closed 410; "},
        [LINE_EMPTY]  = {T,     GONE, "send 400; await_password>closed 400; "},
        [LINE_100]    = {T,     GONE, "check 100; send 410; await_password>closed 410; "},
        [LINE_130]    = {T,     GONE, "check 130; send 410; await_password>closed 410; "},
        [LINE_140]    = {T,     GONE, "check 140; send 410; await_password>closed 410; "},
        [LINE_10]     = {T,     GONE, "check 10; send 410; await_password>closed 410; "},
        [STORED]      = {BUG,   PW,   ""},
        [DEADLINE]    = {T,     GONE, "send 408; await_password>closed 408; "},
        [OVERDUE]     = {T,     GONE, "send 408; await_password>closed 408; "},
        [PING]        = {BUG,   PW,   ""},
        [ORDER]       = {LATER, PW,   ""},
        [DROP_SILENT] = {T,     GONE, "await_password>closed 0; "},
        [DROP_431]    = {T,     GONE, "send 431; await_password>closed 431; "},
    },
    [ID] = {
        [LINE_SECRET] = {T,     REG,  "await_id>registering 0; claim secret; "},
        [LINE_WRONG]  = {T,     REG,  "await_id>registering 0; claim wrong; "},
        [LINE_BAD_ID] = {T,     GONE, "send 420; await_id>closed 420; "},
        [LINE_EMPTY]  = {T,     GONE, "send 400; await_id>closed 400; "},
        [LINE_100]    = {T,     REG,  "await_id>registering 0; claim 100; "},
        [LINE_130]    = {T,     REG,  "await_id>registering 0; claim 130; "},
        [LINE_140]    = {T,     REG,  "await_id>registering 0; claim 140; "},
        [LINE_10]     = {T,     REG,  "await_id>registering 0; claim 10; "},
        [STORED]      = {BUG,   ID,   ""},
        [DEADLINE]    = {T,     GONE, "send 408; await_id>closed 408; "},
        [OVERDUE]     = {T,     GONE, "send 408; await_id>closed 408; "},
        [PING]        = {BUG,   ID,   ""},
        [ORDER]       = {LATER, ID,   ""},
        [DROP_SILENT] = {T,     GONE, "await_id>closed 0; "},
        [DROP_431]    = {T,     GONE, "send 431; await_id>closed 431; "},
    },
    [REG] = {
        [LINE_SECRET] = {HELD,  REG,  ""},
        [LINE_WRONG]  = {HELD,  REG,  ""},
        [LINE_BAD_ID] = {HELD,  REG,  ""},
        [LINE_EMPTY]  = {HELD,  REG,  ""},
        [LINE_100]    = {HELD,  REG,  ""},
        [LINE_130]    = {HELD,  REG,  ""},
        [LINE_140]    = {HELD,  REG,  ""},
        [LINE_10]     = {HELD,  REG,  ""},
        [STORED]      = {T,     CONN, "registering>connected 140; send 140; "},
        [DEADLINE]    = {T,     GONE, "send 408; registering>closed 408; "},
        [OVERDUE]     = {T,     GONE, "send 408; registering>closed 408; "},
        [PING]        = {BUG,   REG,  ""},
        [ORDER]       = {LATER, REG,  ""},
        [DROP_SILENT] = {T,     GONE, "registering>closed 0; "},
        [DROP_431]    = {T,     GONE, "send 431; registering>closed 431; "},
    },
    [CONN] = {
        [LINE_SECRET] = {T,     CONN, ""},
        [LINE_WRONG]  = {T,     CONN, ""},
        [LINE_BAD_ID] = {T,     CONN, ""},
        [LINE_EMPTY]  = {T,     CONN, ""},
        [LINE_100]    = {T,     CONN, "answered 100; "},
        [LINE_130]    = {T,     CONN, ""},
        [LINE_140]    = {T,     CONN, ""},
        [LINE_10]     = {T,     CONN, ""},
        [STORED]      = {BUG,   CONN, ""},
        [DEADLINE]    = {T,     CONN, "send 100; "},
        [OVERDUE]     = {T,     GONE, "send 408; connected>closed 408; "},
        [PING]        = {T,     CONN, "send 100; "},
        [ORDER]       = {T,     LEAV, "connected>leaving 130; send 130; "},
        [DROP_SILENT] = {T,     GONE, "connected>closed 0; "},
        [DROP_431]    = {T,     GONE, "send 431; connected>closed 431; "},
    },
    [LEAV] = {
        [LINE_SECRET] = {T,     LEAV, ""},
        [LINE_WRONG]  = {T,     LEAV, ""},
        [LINE_BAD_ID] = {T,     LEAV, ""},
        [LINE_EMPTY]  = {T,     LEAV, ""},
        [LINE_100]    = {T,     LEAV, "answered 100; "},
        [LINE_130]    = {T,     LEAV, "answered 130; "},
        [LINE_140]    = {T,     LEAV, ""},
        [LINE_10]     = {T,     LEAV, ""},
        [STORED]      = {BUG,   LEAV, ""},
        [DEADLINE]    = {T,     LEAV, "send 100; "},
        [OVERDUE]     = {T,     GONE, "send 408; leaving>closed 408; "},
        [PING]        = {T,     LEAV, "send 100; "},
        [ORDER]       = {BUG,   LEAV, ""},
        [DROP_SILENT] = {T,     GONE, "leaving>closed 0; "},
        [DROP_431]    = {T,     GONE, "send 431; leaving>closed 431; "},
    },
    [GONE] = {
        [LINE_SECRET] = {T,     GONE, ""},
        [LINE_WRONG]  = {T,     GONE, ""},
        [LINE_BAD_ID] = {T,     GONE, ""},
        [LINE_EMPTY]  = {T,     GONE, ""},
        [LINE_100]    = {T,     GONE, ""},
        [LINE_130]    = {T,     GONE, ""},
        [LINE_140]    = {T,     GONE, ""},
        [LINE_10]     = {T,     GONE, ""},
        [STORED]      = {T,     GONE, "give back; "},
        [DEADLINE]    = {T,     GONE, ""},
        [OVERDUE]     = {T,     GONE, ""},
        [PING]        = {T,     GONE, ""},
        [ORDER]       = {BUG,   GONE, ""},
        [DROP_SILENT] = {T,     GONE, ""},
        [DROP_431]    = {T,     GONE, ""},
    },
};
/* clang-format on */

/* The trace without the refusals that were sent. */
static void strip_refusals(const char *trace, char *out)
{
    while (*trace) {
        const size_t len = strcspn(trace, ";") + 2;

        if (strncmp(trace, "send 4", 6) != 0) {
            memcpy(out, trace, len);
            out += len;
        }
        trace += len;
    }
    *out = '\0';
}

static void every_state_with_every_event_does_what_the_table_says(void **unused)
{
    (void)unused;
    for (int state = 0; state < SERVER_FSM_STATE_COUNT; state++) {
        for (int variant = 0; variant < VARIANT_COUNT; variant++) {
            const struct cell *cell = &expected[state][variant];
            struct fake fake;

            assert_non_null(cell->trace);
            start_in(&fake, (enum server_fsm_state)state);
            assert_int_equal(feed(&fake, (enum variant)variant), cell->result);
            assert_int_equal(fake.fsm.state, cell->next);
            assert_trace(&fake, cell->trace);
        }
    }
}

static void unexplained_refusal_is_the_same_without_its_line(void **unused)
{
    (void)unused;
    for (int state = 0; state < SERVER_FSM_STATE_COUNT; state++) {
        for (int variant = 0; variant < VARIANT_COUNT; variant++) {
            const struct cell *cell = &expected[state][variant];
            struct fake fake;
            char trace[1024];

            start_in(&fake, (enum server_fsm_state)state);
            fake.env.rules.explain_refusals = false;
            assert_int_equal(feed(&fake, (enum variant)variant), cell->result);
            assert_int_equal(fake.fsm.state, cell->next);
            strip_refusals(cell->trace, trace);
            assert_trace(&fake, trace);
        }
    }
}

/* A peer that is found gone while a line is sent to it: closed once, and nothing is called after.
 */
static void drop_inside_each_send_closes_once_and_last(void **unused)
{
    (void)unused;
    for (int state = 0; state < SERVER_FSM_STATE_COUNT; state++) {
        for (int variant = 0; variant < VARIANT_COUNT; variant++) {
            struct fake fake;

            if (!strstr(expected[state][variant].trace, "send"))
                continue;
            start_in(&fake, (enum server_fsm_state)state);
            fake.drop_in_send = -1;
            assert_int_equal(feed(&fake, (enum variant)variant), SERVER_FSM_TAKEN);
            assert_int_equal(fake.fsm.state, SERVER_FSM_CLOSED);
            assert_int_equal(fake.closed, 1);
            assert_string_equal(strstr(fake.trace, ">closed"), ">closed 0; ");
        }
    }
}

static void start_sends_110_and_calls_nothing_else(void **unused)
{
    struct fake fake = {.env = {&ops, {.misses = 3, .explain_refusals = true}}};

    (void)unused;
    memset(&fake.fsm, 0xff, sizeof(fake.fsm));
    server_fsm_start(&fake.fsm, &fake.env);
    assert_int_equal(fake.fsm.state, SERVER_FSM_AWAIT_PASSWORD);
    assert_int_equal(fake.fsm.unanswered, 0);
    assert_int_equal(fake.fsm.unasked, 0);
    assert_false(fake.fsm.has_answered);
    assert_trace(&fake, "send 110; ");
}

static void start_survives_a_peer_that_is_gone_already(void **unused)
{
    struct fake fake = {.env = {&ops, {.misses = 3, .explain_refusals = true}},
                        .drop_in_send = 110};

    (void)unused;
    server_fsm_start(&fake.fsm, &fake.env);
    assert_trace(&fake, "send 110; await_password>closed 0; ");
}

static void password_of_any_length_is_judged_by_the_owner(void **unused)
{
    char text[255];

    (void)unused;
    memset(text, 'x', sizeof(text));
    text[sizeof(text) - 1] = '\0';
    for (size_t len = 1; len < sizeof(text); len++) {
        struct fake fake;

        start_in(&fake, SERVER_FSM_AWAIT_PASSWORD);
        server_fsm_line(&fake.fsm, &fake.env, text, len);
        assert_memory_equal(fake.trace, "check x", 7);
        assert_int_equal(fake.fsm.state, SERVER_FSM_CLOSED);
    }
}

static void id_of_64_bytes_is_claimed_and_of_65_refused(void **unused)
{
    char id[66];

    (void)unused;
    memset(id, 'i', sizeof(id));
    for (size_t len = 64; len <= 65; len++) {
        struct fake fake;

        start_in(&fake, SERVER_FSM_AWAIT_ID);
        server_fsm_line(&fake.fsm, &fake.env, id, len);
        assert_int_equal(fake.fsm.state, len == 64 ? SERVER_FSM_REGISTERING : SERVER_FSM_CLOSED);
        assert_int_equal(strstr(fake.trace, "send 420") != NULL, len == 65);
    }
}

static void claim_may_be_answered_from_inside(void **unused)
{
    struct fake fake;

    (void)unused;
    start_in(&fake, SERVER_FSM_AWAIT_ID);
    fake.store_in_claim = true;
    assert_int_equal(line(&fake, "web-1"), SERVER_FSM_TAKEN);
    assert_trace(&fake,
                 "await_id>registering 0; claim web-1; registering>connected 140; send 140; ");

    start_in(&fake, SERVER_FSM_AWAIT_ID);
    fake.drop_in_claim = PROTO_ID_IN_USE;
    assert_int_equal(line(&fake, "web-1"), SERVER_FSM_TAKEN);
    assert_trace(&fake, "await_id>registering 0; claim web-1; send 421; registering>closed 421; ");
}

static void answer_may_end_the_session_from_inside(void **unused)
{
    struct fake fake;

    (void)unused;
    start_in(&fake, SERVER_FSM_CONNECTED);
    fake.drop_in_answered = true;
    assert_int_equal(line(&fake, "100"), SERVER_FSM_TAKEN);
    assert_trace(&fake, "answered 100; connected>closed 0; ");

    start_in(&fake, SERVER_FSM_LEAVING);
    fake.drop_in_answered = true;
    assert_int_equal(line(&fake, "130"), SERVER_FSM_TAKEN);
    assert_trace(&fake, "answered 130; leaving>closed 0; ");
}

static void early_lines_are_held_and_taken_after_the_welcome(void **unused)
{
    struct fake fake;

    (void)unused;
    start_in(&fake, SERVER_FSM_REGISTERING);
    for (int i = 0; i < 100; i++)
        assert_int_equal(line(&fake, "100"), SERVER_FSM_HELD);
    assert_int_equal(fake.fsm.unasked, 0);
    server_fsm_stored(&fake.fsm, &fake.env);
    assert_int_equal(line(&fake, "100"), SERVER_FSM_TAKEN);
    assert_trace(&fake, "registering>connected 140; send 140; answered 100; ");
}

static void registration_granted_after_the_end_is_given_back(void **unused)
{
    struct fake fake;

    (void)unused;
    start_in(&fake, SERVER_FSM_REGISTERING);
    server_fsm_drop(&fake.fsm, &fake.env, 0);
    fake.trace[0] = '\0';
    assert_int_equal(server_fsm_stored(&fake.fsm, &fake.env), SERVER_FSM_TAKEN);
    assert_trace(&fake, "give back; ");
}

static void order_is_carried_out_once(void **unused)
{
    struct fake fake;

    (void)unused;
    start_in(&fake, SERVER_FSM_REGISTERING);
    assert_int_equal(server_fsm_order(&fake.fsm, &fake.env), SERVER_FSM_LATER);
    server_fsm_stored(&fake.fsm, &fake.env);
    assert_int_equal(fake.shutdowns, 0);
    assert_int_equal(server_fsm_order(&fake.fsm, &fake.env), SERVER_FSM_TAKEN);
    assert_int_equal(server_fsm_order(&fake.fsm, &fake.env), SERVER_FSM_BUG);
    line(&fake, "130");
    assert_int_equal(server_fsm_order(&fake.fsm, &fake.env), SERVER_FSM_BUG);
    server_fsm_drop(&fake.fsm, &fake.env, 0);
    assert_int_equal(server_fsm_order(&fake.fsm, &fake.env), SERVER_FSM_BUG);
    assert_int_equal(fake.shutdowns, 1);
}

/* Lets deadlines pass without an answer; returns how many 100s were sent before the 408, or -1 when
 * there was none. */
static int asked_before_the_end(struct fake *fake, int deadlines)
{
    int asked = 0;

    for (int i = 0; i < deadlines; i++) {
        const bool refuses = server_fsm_deadline_refuses(&fake->fsm, &fake->env);

        fake->trace[0] = '\0';
        assert_int_equal(server_fsm_deadline(&fake->fsm, &fake->env), SERVER_FSM_TAKEN);
        assert_int_equal(fake->fsm.state == SERVER_FSM_CLOSED, refuses);
        if (refuses) {
            assert_non_null(strstr(fake->trace, "send 408; "));
            return asked;
        }
        assert_trace(fake, "send 100; ");
        asked++;
    }
    return -1;
}

static void silent_client_is_dropped_as_the_rules_say(void **unused)
{
    static const struct {
        enum server_fsm_require_reply require_reply;
        bool has_answered;
        bool counts;
    } rules[] = {
        {SERVER_FSM_REPLY_AUTO, false, false}, {SERVER_FSM_REPLY_AUTO, true, true},
        {SERVER_FSM_REPLY_YES, false, true},   {SERVER_FSM_REPLY_YES, true, true},
        {SERVER_FSM_REPLY_NO, false, false},   {SERVER_FSM_REPLY_NO, true, false},
    };
    static const uint8_t misses[] = {1, 2, 3, 254, 255};
    static const enum server_fsm_state states[] = {SERVER_FSM_CONNECTED, SERVER_FSM_LEAVING};

    (void)unused;
    for (size_t r = 0; r < COUNT(rules); r++) {
        for (size_t m = 0; m < COUNT(misses); m++) {
            for (size_t s = 0; s < COUNT(states); s++) {
                struct fake fake;

                start_in(&fake, states[s]);
                fake.env.rules.misses = misses[m];
                fake.env.rules.require_reply = rules[r].require_reply;
                if (rules[r].has_answered) {
                    server_fsm_deadline(&fake.fsm, &fake.env);
                    line(&fake, "100");
                    fake.trace[0] = '\0';
                }
                assert_int_equal(asked_before_the_end(&fake, 1000),
                                 rules[r].counts ? misses[m] : -1);
            }
        }
    }
}

/* The count stays at its largest value; run over, it would forgive the silence. */
static void silence_of_any_length_counts_once_the_rules_say_so(void **unused)
{
    (void)unused;
    for (int deadlines = 3; deadlines < 600; deadlines++) {
        struct fake fake;

        start_in(&fake, SERVER_FSM_CONNECTED);
        fake.env.rules.require_reply = SERVER_FSM_REPLY_NO;
        assert_int_equal(asked_before_the_end(&fake, deadlines), -1);
        fake.env.rules.require_reply = SERVER_FSM_REPLY_YES;
        assert_true(server_fsm_deadline_refuses(&fake.fsm, &fake.env));
    }
}

static void answer_before_the_last_deadline_keeps_the_client(void **unused)
{
    struct fake fake;

    (void)unused;
    start_in(&fake, SERVER_FSM_CONNECTED);
    fake.env.rules.require_reply = SERVER_FSM_REPLY_YES;
    for (int round = 0; round < 100; round++) {
        for (int i = 0; i < 3; i++)
            server_fsm_deadline(&fake.fsm, &fake.env);
        assert_true(server_fsm_deadline_refuses(&fake.fsm, &fake.env));
        line(&fake, "100: here I am");
        assert_false(server_fsm_deadline_refuses(&fake.fsm, &fake.env));
        fake.trace[0] = '\0';
    }
    assert_int_equal(asked_before_the_end(&fake, 10), 3);
}

/* Sent ahead by a simple script, say: it tells nothing about whether the client answers. */
static void answer_sent_before_any_question_does_not_make_silence_count(void **unused)
{
    struct fake fake;

    (void)unused;
    start_in(&fake, SERVER_FSM_CONNECTED);
    line(&fake, "100");
    assert_int_equal(asked_before_the_end(&fake, 10), -1);
    line(&fake, "100");
    fake.trace[0] = '\0';
    assert_int_equal(asked_before_the_end(&fake, 10), 3);
}

static void answer_to_an_order_does_not_count_for_keep_alives(void **unused)
{
    struct fake fake;

    (void)unused;
    start_in(&fake, SERVER_FSM_LEAVING);
    line(&fake, "130");
    assert_false(fake.fsm.has_answered);
    assert_int_equal(asked_before_the_end(&fake, 1000), -1);
}

/* Somebody who asks often, an operator or a duplicate, must not make a living client look dead. */
static void ping_does_not_count_as_missed(void **unused)
{
    struct fake fake;

    (void)unused;
    start_in(&fake, SERVER_FSM_CONNECTED);
    fake.env.rules.require_reply = SERVER_FSM_REPLY_YES;
    for (int i = 0; i < 1000; i++) {
        server_fsm_ping(&fake.fsm, &fake.env);
        fake.trace[0] = '\0';
    }
    assert_int_equal(asked_before_the_end(&fake, 10), 3);
}

static void deadline_refuses_only_where_it_would(void **unused)
{
    (void)unused;
    for (int state = 0; state < SERVER_FSM_STATE_COUNT; state++) {
        struct fake fake;

        start_in(&fake, (enum server_fsm_state)state);
        assert_int_equal(server_fsm_deadline_refuses(&fake.fsm, &fake.env),
                         expected[state][DEADLINE].next == SERVER_FSM_CLOSED &&
                             state != SERVER_FSM_CLOSED);
        assert_trace(&fake, "");
    }
}

static void regular_keep_alive_is_unanswered_until_its_answer_or_the_end(void **unused)
{
    struct fake fake;

    (void)unused;
    for (int state = 0; state < SERVER_FSM_STATE_COUNT; state++) {
        start_in(&fake, (enum server_fsm_state)state);
        assert_false(server_fsm_is_unanswered(&fake.fsm));
    }
    start_in(&fake, SERVER_FSM_CONNECTED);
    server_fsm_ping(&fake.fsm, &fake.env);
    assert_false(server_fsm_is_unanswered(&fake.fsm)); /* out of turn */
    server_fsm_deadline(&fake.fsm, &fake.env);
    assert_true(server_fsm_is_unanswered(&fake.fsm));
    line(&fake, "hello");
    assert_true(server_fsm_is_unanswered(&fake.fsm));
    line(&fake, "100");
    assert_false(server_fsm_is_unanswered(&fake.fsm));

    server_fsm_deadline(&fake.fsm, &fake.env);
    server_fsm_order(&fake.fsm, &fake.env);
    assert_true(server_fsm_is_unanswered(&fake.fsm));
    line(&fake, "130");
    assert_true(server_fsm_is_unanswered(&fake.fsm));
    server_fsm_drop(&fake.fsm, &fake.env, 0);
    assert_false(server_fsm_is_unanswered(&fake.fsm));
}

static void eight_unasked_lines_pass_and_the_ninth_ends_the_session(void **unused)
{
    static const char *const unasked[] = {"hello", "",  "10",        "130",
                                          " 100",  "4", "not an ID", "1 00"};

    (void)unused;
    for (size_t i = 0; i < COUNT(unasked); i++) {
        struct fake fake;

        start_in(&fake, SERVER_FSM_CONNECTED);
        for (int n = 1; n <= 8; n++) {
            line(&fake, unasked[i]);
            assert_int_equal(fake.fsm.state, SERVER_FSM_CONNECTED);
        }
        assert_trace(&fake, "");
        line(&fake, unasked[i]);
        assert_trace(&fake, "send 400; connected>closed 400; ");
    }
}

static void unasked_lines_are_counted_anew_after_each_keep_alive(void **unused)
{
    struct fake fake;

    (void)unused;
    start_in(&fake, SERVER_FSM_LEAVING);
    for (int round = 0; round < 100; round++) {
        for (int n = 1; n <= 8; n++)
            line(&fake, "hello");
        if (round % 2)
            server_fsm_ping(&fake.fsm, &fake.env);
        else
            server_fsm_deadline(&fake.fsm, &fake.env);
        assert_int_equal(fake.fsm.state, SERVER_FSM_LEAVING);
        fake.trace[0] = '\0';
    }
}

static void answers_are_never_unasked_and_do_not_forgive_what_is(void **unused)
{
    struct fake fake;

    (void)unused;
    start_in(&fake, SERVER_FSM_LEAVING);
    for (int i = 0; i < 1000; i++) {
        line(&fake, "100");
        line(&fake, "130 understood");
        fake.trace[0] = '\0';
    }
    for (int n = 1; n <= 8; n++) {
        line(&fake, "hello");
        line(&fake, "100");
    }
    assert_int_equal(fake.fsm.state, SERVER_FSM_LEAVING);
    line(&fake, "hello");
    assert_int_equal(fake.fsm.state, SERVER_FSM_CLOSED);
}

/*
 * Whatever happens in whatever order: states only go forward, a 130 is sent by an order that was
 * taken and by nothing else, and after the end only give_back is called.
 */
static void random_events_never_break_the_invariants(void **unused)
{
    uint32_t random = 1;

    (void)unused;
    for (int session = 0; session < 20000; session++) {
        struct fake fake;
        int orders = 0;

        start_in(&fake, SERVER_FSM_AWAIT_PASSWORD);
        for (int step = 0; step < 24; step++) {
            random = random * 1664525 + 1013904223;
            /* Mostly what leads on, or no walk would get far. */
            static const enum variant usual[] = {LINE_SECRET, LINE_SECRET, STORED, LINE_100};
            const uint32_t pick = random >> 16;
            const enum variant variant = pick % 2 ? usual[pick / 2 % COUNT(usual)]
                                                  : (enum variant)(pick / 2 % VARIANT_COUNT);
            const enum server_fsm_state before = state_of(&fake);

            fake.trace[0] = '\0';
            fake.drop_in_send = pick % 64 == 0 ? -1 : 0;
            const enum server_fsm_result result = feed(&fake, variant);
            orders += variant == ORDER && result == SERVER_FSM_TAKEN;
            assert_true(state_of(&fake) >= before);
            if (before == SERVER_FSM_CLOSED)
                assert_true(fake.trace[0] == '\0' || strcmp(fake.trace, "give back; ") == 0);
        }
        assert_int_equal(fake.shutdowns, orders);
        assert_true(orders <= 1);
        assert_true(fake.closed <= 1);
    }
}

static void each_state_has_a_name_of_its_own(void **unused)
{
    (void)unused;
    for (int a = 0; a < SERVER_FSM_STATE_COUNT; a++) {
        assert_non_null(server_fsm_state_name((enum server_fsm_state)a));
        for (int b = 0; b < a; b++)
            assert_string_not_equal(server_fsm_state_name((enum server_fsm_state)a),
                                    server_fsm_state_name((enum server_fsm_state)b));
    }
    assert_non_null(server_fsm_state_name(SERVER_FSM_STATE_COUNT));
}

static void machine_takes_four_bytes(void **unused)
{
    (void)unused;
    assert_int_equal(sizeof(struct server_fsm), 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_state_with_every_event_does_what_the_table_says),
        cmocka_unit_test(unexplained_refusal_is_the_same_without_its_line),
        cmocka_unit_test(drop_inside_each_send_closes_once_and_last),
        cmocka_unit_test(start_sends_110_and_calls_nothing_else),
        cmocka_unit_test(start_survives_a_peer_that_is_gone_already),
        cmocka_unit_test(password_of_any_length_is_judged_by_the_owner),
        cmocka_unit_test(id_of_64_bytes_is_claimed_and_of_65_refused),
        cmocka_unit_test(claim_may_be_answered_from_inside),
        cmocka_unit_test(answer_may_end_the_session_from_inside),
        cmocka_unit_test(early_lines_are_held_and_taken_after_the_welcome),
        cmocka_unit_test(registration_granted_after_the_end_is_given_back),
        cmocka_unit_test(order_is_carried_out_once),
        cmocka_unit_test(silent_client_is_dropped_as_the_rules_say),
        cmocka_unit_test(silence_of_any_length_counts_once_the_rules_say_so),
        cmocka_unit_test(answer_before_the_last_deadline_keeps_the_client),
        cmocka_unit_test(answer_sent_before_any_question_does_not_make_silence_count),
        cmocka_unit_test(answer_to_an_order_does_not_count_for_keep_alives),
        cmocka_unit_test(ping_does_not_count_as_missed),
        cmocka_unit_test(deadline_refuses_only_where_it_would),
        cmocka_unit_test(regular_keep_alive_is_unanswered_until_its_answer_or_the_end),
        cmocka_unit_test(eight_unasked_lines_pass_and_the_ninth_ends_the_session),
        cmocka_unit_test(unasked_lines_are_counted_anew_after_each_keep_alive),
        cmocka_unit_test(answers_are_never_unasked_and_do_not_forgive_what_is),
        cmocka_unit_test(random_events_never_break_the_invariants),
        cmocka_unit_test(each_state_has_a_name_of_its_own),
        cmocka_unit_test(machine_takes_four_bytes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
