/*
 * The client's state machine: every state with every event against a second table, written by hand
 * from docs/protocol.md; above all, that nothing but a 130 shuts a machine down.
 */
#include "cliser/client_fsm.h"

#include "unit.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

struct fake {
    struct client_fsm fsm;
    struct client_fsm_env env;
    char trace[2048];
    int shutdowns;
};

static void note(struct fake *fake, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void note(struct fake *fake, const char *format, ...)
{
    const size_t len = strlen(fake->trace);
    va_list args;

    assert_true(len < sizeof(fake->trace) - 300);
    va_start(args, format);
    vsnprintf(fake->trace + len, sizeof(fake->trace) - len, format, args);
    va_end(args);
}

static void on_send(struct client_fsm *fsm, const char *bytes, size_t len)
{
    assert_true(len >= 2 && len <= PROTO_MAX_LINE_BYTES);
    assert_int_equal(bytes[len - 1], '\n');
    assert_null(memchr(bytes, '\n', len - 1));
    note((struct fake *)fsm, "send %.*s; ", (int)len - 1, bytes);
}

static void on_shutdown(struct client_fsm *fsm)
{
    struct fake *fake = (struct fake *)fsm;

    fake->shutdowns++;
    note(fake, "SHUTDOWN; ");
}

static void on_changed(struct client_fsm *fsm, enum client_fsm_state old)
{
    note((struct fake *)fsm, "%s>%s; ", client_fsm_state_name(old),
         client_fsm_state_name((enum client_fsm_state)fsm->state));
}

static const struct client_fsm_ops ops = {on_send, on_shutdown, on_changed};

static void line(struct fake *fake, const char *text)
{
    client_fsm_line(&fake->fsm, &fake->env, text, strlen(text));
}

static void assert_trace(struct fake *fake, const char *expected)
{
    assert_string_equal(fake->trace, expected);
    fake->trace[0] = '\0';
}

static void start_in(struct fake *fake, enum client_fsm_state wanted)
{
    /* The texts go on behind their length: nothing may depend on a NUL. */
    *fake = (struct fake){.env = {&ops, "secret?", 6, "web-1?", 5}};
    client_fsm_start(&fake->fsm);
    if (wanted == CLIENT_FSM_CLOSED) {
        client_fsm_lost(&fake->fsm, &fake->env);
    } else {
        if (wanted >= CLIENT_FSM_AWAIT_ID)
            line(fake, "110: qual a senha");
        if (wanted >= CLIENT_FSM_AWAIT_CONNECTED)
            line(fake, "120: qual o ID");
        if (wanted >= CLIENT_FSM_CONNECTED)
            line(fake, "140: Connected");
        if (wanted >= CLIENT_FSM_LEAVING)
            line(fake, "130: shutdown sys");
    }
    assert_int_equal(fake->fsm.state, wanted);
    fake->trace[0] = '\0';
    fake->shutdowns = 0;
}

/* The events, with each argument that makes a difference somewhere. */
enum variant {
    LINE_110,
    LINE_120,
    LINE_140,
    LINE_100,
    LINE_130,
    LINE_410,
    LINE_499, /* a refusal that is in no table yet */
    LINE_399,
    LINE_500,
    LINE_TEXT,
    LINE_EMPTY,
    BAD_LINE, /* the codec refused it */
    LOST,
    VARIANT_COUNT
};

static const char *const lines[] = {
    [LINE_110] = "110: qual a senha",
    [LINE_120] = "120: qual o ID",
    [LINE_140] = "140: Connected",
    [LINE_100] = "100: keep alive",
    [LINE_130] = "130: shutdown sys",
    [LINE_410] = "410: wrong password",
    [LINE_499] = "499: not known yet",
    [LINE_399] = "399: not known yet",
    [LINE_500] = "500: not known yet",
    [LINE_TEXT] = "HTTP/1.1 130 shutdown sys",
    [LINE_EMPTY] = "",
};

static void feed(struct fake *fake, enum variant variant)
{
    if (variant == LOST)
        client_fsm_lost(&fake->fsm, &fake->env);
    else if (variant == BAD_LINE)
        client_fsm_bad_line(&fake->fsm, &fake->env);
    else
        line(fake, lines[variant]);
}

#define PW    CLIENT_FSM_AWAIT_PASSWORD
#define ID    CLIENT_FSM_AWAIT_ID
#define WAIT  CLIENT_FSM_AWAIT_CONNECTED
#define CONN  CLIENT_FSM_CONNECTED
#define LEAV  CLIENT_FSM_LEAVING
#define GONE  CLIENT_FSM_CLOSED
#define WRONG CLIENT_FSM_WHY_PROTOCOL

/* why counts only where next is CLOSED. */
struct cell {
    enum client_fsm_state next;
    int why;
    const char *trace;
};

/* clang-format off */
static const struct cell expected[CLIENT_FSM_STATE_COUNT][VARIANT_COUNT] = {
    [PW] = {
        [LINE_110]   = {ID,   0,     "await_password>await_id; send secret; "},
        [LINE_120]   = {GONE, WRONG, "await_password>closed; "},
        [LINE_140]   = {GONE, WRONG, "await_password>closed; "},
        [LINE_100]   = {GONE, WRONG, "await_password>closed; "},
        [LINE_130]   = {GONE, WRONG, "await_password>closed; "},
        [LINE_410]   = {GONE, 410,   "await_password>closed; "},
        [LINE_499]   = {GONE, 499,   "await_password>closed; "},
        [LINE_399]   = {PW,   0,     ""},
        [LINE_500]   = {PW,   0,     ""},
        [LINE_TEXT]  = {GONE, WRONG, "await_password>closed; "},
        [LINE_EMPTY] = {GONE, WRONG, "await_password>closed; "},
        [BAD_LINE]   = {GONE, WRONG, "await_password>closed; "},
        [LOST]       = {GONE, 0,     "await_password>closed; "},
    },
    [ID] = {
        [LINE_110]   = {GONE, WRONG, "await_id>closed; "},
        [LINE_120]   = {WAIT, 0,     "await_id>await_connected; send web-1; "},
        [LINE_140]   = {GONE, WRONG, "await_id>closed; "},
        [LINE_100]   = {GONE, WRONG, "await_id>closed; "},
        [LINE_130]   = {GONE, WRONG, "await_id>closed; "},
        [LINE_410]   = {GONE, 410,   "await_id>closed; "},
        [LINE_499]   = {GONE, 499,   "await_id>closed; "},
        [LINE_399]   = {ID,   0,     ""},
        [LINE_500]   = {ID,   0,     ""},
        [LINE_TEXT]  = {GONE, WRONG, "await_id>closed; "},
        [LINE_EMPTY] = {GONE, WRONG, "await_id>closed; "},
        [BAD_LINE]   = {GONE, WRONG, "await_id>closed; "},
        [LOST]       = {GONE, 0,     "await_id>closed; "},
    },
    [WAIT] = {
        [LINE_110]   = {GONE, WRONG, "await_connected>closed; "},
        [LINE_120]   = {GONE, WRONG, "await_connected>closed; "},
        [LINE_140]   = {CONN, 0,     "await_connected>connected; "},
        [LINE_100]   = {GONE, WRONG, "await_connected>closed; "},
        [LINE_130]   = {GONE, WRONG, "await_connected>closed; "},
        [LINE_410]   = {GONE, 410,   "await_connected>closed; "},
        [LINE_499]   = {GONE, 499,   "await_connected>closed; "},
        [LINE_399]   = {WAIT, 0,     ""},
        [LINE_500]   = {WAIT, 0,     ""},
        [LINE_TEXT]  = {GONE, WRONG, "await_connected>closed; "},
        [LINE_EMPTY] = {GONE, WRONG, "await_connected>closed; "},
        [BAD_LINE]   = {GONE, WRONG, "await_connected>closed; "},
        [LOST]       = {GONE, 0,     "await_connected>closed; "},
    },
    [CONN] = {
        [LINE_110]   = {GONE, WRONG, "connected>closed; "},
        [LINE_120]   = {GONE, WRONG, "connected>closed; "},
        [LINE_140]   = {GONE, WRONG, "connected>closed; "},
        [LINE_100]   = {CONN, 0,     "send 100; "},
        [LINE_130]   = {LEAV, 0,     "connected>leaving; send 130; SHUTDOWN; "},
        [LINE_410]   = {GONE, 410,   "connected>closed; "},
        [LINE_499]   = {GONE, 499,   "connected>closed; "},
        [LINE_399]   = {CONN, 0,     ""},
        [LINE_500]   = {CONN, 0,     ""},
        [LINE_TEXT]  = {GONE, WRONG, "connected>closed; "},
        [LINE_EMPTY] = {GONE, WRONG, "connected>closed; "},
        [BAD_LINE]   = {GONE, WRONG, "connected>closed; "},
        [LOST]       = {GONE, 0,     "connected>closed; "},
    },
    [LEAV] = {
        [LINE_110]   = {GONE, WRONG, "leaving>closed; "},
        [LINE_120]   = {GONE, WRONG, "leaving>closed; "},
        [LINE_140]   = {GONE, WRONG, "leaving>closed; "},
        [LINE_100]   = {LEAV, 0,     "send 100; "},
        [LINE_130]   = {LEAV, 0,     "send 130; "},
        [LINE_410]   = {GONE, 410,   "leaving>closed; "},
        [LINE_499]   = {GONE, 499,   "leaving>closed; "},
        [LINE_399]   = {LEAV, 0,     ""},
        [LINE_500]   = {LEAV, 0,     ""},
        [LINE_TEXT]  = {GONE, WRONG, "leaving>closed; "},
        [LINE_EMPTY] = {GONE, WRONG, "leaving>closed; "},
        [BAD_LINE]   = {GONE, WRONG, "leaving>closed; "},
        [LOST]       = {GONE, 0,     "leaving>closed; "},
    },
    [GONE] = {
        [LINE_110]   = {GONE, 0,     ""},
        [LINE_120]   = {GONE, 0,     ""},
        [LINE_140]   = {GONE, 0,     ""},
        [LINE_100]   = {GONE, 0,     ""},
        [LINE_130]   = {GONE, 0,     ""},
        [LINE_410]   = {GONE, 0,     ""},
        [LINE_499]   = {GONE, 0,     ""},
        [LINE_399]   = {GONE, 0,     ""},
        [LINE_500]   = {GONE, 0,     ""},
        [LINE_TEXT]  = {GONE, 0,     ""},
        [LINE_EMPTY] = {GONE, 0,     ""},
        [BAD_LINE]   = {GONE, 0,     ""},
        [LOST]       = {GONE, 0,     ""},
    },
};
/* clang-format on */

static void every_state_with_every_event_does_what_the_table_says(void **unused)
{
    (void)unused;
    for (int state = 0; state < CLIENT_FSM_STATE_COUNT; state++) {
        for (int variant = 0; variant < VARIANT_COUNT; variant++) {
            const struct cell *cell = &expected[state][variant];
            struct fake fake;

            assert_non_null(cell->trace);
            start_in(&fake, (enum client_fsm_state)state);
            feed(&fake, (enum variant)variant);
            assert_int_equal(fake.fsm.state, cell->next);
            if (cell->next == CLIENT_FSM_CLOSED)
                assert_int_equal(client_fsm_why(&fake.fsm), cell->why);
            assert_trace(&fake, cell->trace);
        }
    }
}

/* The public entry for tables: the same machine, with no cell left out. */
static void every_event_handed_in_directly_has_a_cell(void **unused)
{
    static const struct {
        enum variant variant;
        int code;
    } same_as[CLIENT_FSM_EVENT_COUNT] = {
        [CLIENT_FSM_ASK_PASSWORD] = {LINE_110, 110},
        [CLIENT_FSM_ASK_ID] = {LINE_120, 120},
        [CLIENT_FSM_WELCOME] = {LINE_140, 140},
        [CLIENT_FSM_KEEP_ALIVE] = {LINE_100, 100},
        [CLIENT_FSM_SHUTDOWN] = {LINE_130, 130},
        [CLIENT_FSM_REFUSED] = {LINE_410, 410},
        [CLIENT_FSM_UNKNOWN] = {LINE_500, 500},
        [CLIENT_FSM_GARBAGE] = {BAD_LINE, -1},
        [CLIENT_FSM_LOST] = {LOST, -1},
    };

    (void)unused;
    for (int state = 0; state < CLIENT_FSM_STATE_COUNT; state++) {
        for (int event = 0; event < CLIENT_FSM_EVENT_COUNT; event++) {
            const struct cell *cell = &expected[state][same_as[event].variant];
            struct fake fake;

            start_in(&fake, (enum client_fsm_state)state);
            client_fsm_handle(&fake.fsm, &fake.env, (enum client_fsm_event)event,
                              same_as[event].code);
            assert_int_equal(fake.fsm.state, cell->next);
            assert_trace(&fake, cell->trace);
        }
    }
}

static void nothing_but_a_130_to_a_connected_client_shuts_it_down(void **unused)
{
    (void)unused;
    for (int state = 0; state < CLIENT_FSM_STATE_COUNT; state++) {
        for (int code = 0; code <= 999; code++) {
            static const char *const tails[] = {"", ": shutdown sys", "0", " 130", "130"};

            for (size_t t = 0; t < COUNT(tails); t++) {
                struct fake fake;
                char text[64];

                snprintf(text, sizeof(text), "%03d%s", code, tails[t]);
                start_in(&fake, (enum client_fsm_state)state);
                line(&fake, text);
                assert_int_equal(fake.shutdowns, state == CLIENT_FSM_CONNECTED && code == 130);
            }
        }
    }
}

static void garbage_never_shuts_a_client_down(void **unused)
{
    static const char *const garbage[] = {
        "",
        "1",
        "13",
        " 130",
        "\t130",
        "+130",
        "-130",
        "0x130",
        "l30",
        "13O",
        "shutdown sys",
        "\xef\xbb\xbf"
        "130",
        "\r130",
        "\x7f"
        "130",
        "1 30",
    };

    (void)unused;
    for (int state = 0; state < CLIENT_FSM_STATE_COUNT; state++) {
        for (size_t i = 0; i < COUNT(garbage); i++) {
            struct fake fake;

            start_in(&fake, (enum client_fsm_state)state);
            line(&fake, garbage[i]);
            assert_int_equal(fake.shutdowns, 0);
            assert_int_equal(fake.fsm.state, CLIENT_FSM_CLOSED);
        }
    }
}

/* Losing the server, for however long and however often, is never a command. */
static void lost_connections_never_shut_a_client_down(void **unused)
{
    (void)unused;
    for (int state = 0; state < CLIENT_FSM_STATE_COUNT; state++) {
        struct fake fake;

        start_in(&fake, (enum client_fsm_state)state);
        for (int i = 0; i < 100; i++) {
            client_fsm_lost(&fake.fsm, &fake.env);
            client_fsm_start(&fake.fsm);
            fake.trace[0] = '\0';
        }
        assert_int_equal(fake.shutdowns, 0);
    }
}

static void repeated_130_is_answered_again_and_acted_on_once(void **unused)
{
    struct fake fake;

    (void)unused;
    start_in(&fake, CLIENT_FSM_CONNECTED);
    for (int i = 0; i < 10; i++)
        line(&fake, "130");
    assert_int_equal(fake.shutdowns, 1);
    line(&fake, "100");
    line(&fake, "130: shutdown sys");
    assert_int_equal(fake.shutdowns, 1);
}

static void answer_to_a_130_is_sent_before_acting_on_it(void **unused)
{
    struct fake fake;

    (void)unused;
    start_in(&fake, CLIENT_FSM_CONNECTED);
    line(&fake, "130: shutdown sys");
    assert_true(strstr(fake.trace, "send 130") < strstr(fake.trace, "SHUTDOWN"));
}

static void new_session_after_a_shutdown_may_be_told_again(void **unused)
{
    struct fake fake;

    (void)unused;
    start_in(&fake, CLIENT_FSM_LEAVING);
    client_fsm_lost(&fake.fsm, &fake.env);
    client_fsm_start(&fake.fsm);
    line(&fake, "110");
    line(&fake, "120");
    line(&fake, "140");
    line(&fake, "130");
    assert_int_equal(fake.shutdowns, 1);
}

static void start_forgets_the_session_before(void **unused)
{
    struct fake fake;

    (void)unused;
    start_in(&fake, CLIENT_FSM_CONNECTED);
    line(&fake, "410: wrong password");
    fake.trace[0] = '\0';
    client_fsm_start(&fake.fsm);
    assert_int_equal(fake.fsm.state, CLIENT_FSM_AWAIT_PASSWORD);
    client_fsm_lost(&fake.fsm, &fake.env);
    assert_int_equal(client_fsm_why(&fake.fsm), CLIENT_FSM_WHY_LOST);
    assert_trace(&fake, "await_password>closed; ");
}

static void longest_password_and_id_go_out_whole(void **unused)
{
    struct fake fake;
    char password[PROTO_MAX_PASSWORD_BYTES];
    char id[PROTO_MAX_ID_BYTES];

    (void)unused;
    memset(password, 'p', sizeof(password));
    memset(id, 'i', sizeof(id));
    start_in(&fake, CLIENT_FSM_AWAIT_PASSWORD);
    fake.env = (struct client_fsm_env){&ops, password, sizeof(password), id, sizeof(id)};
    line(&fake, "110");
    assert_non_null(strstr(fake.trace, "send ppp"));
    assert_int_equal(strspn(strstr(fake.trace, "send ppp") + 5, "p"), sizeof(password));
    fake.trace[0] = '\0';
    line(&fake, "120");
    assert_int_equal(strspn(strstr(fake.trace, "send iii") + 5, "i"), sizeof(id));
}

/* docs/protocol.md, "Refusals", third column. */
static enum proto_retry retry_by_specification(int refusal)
{
    switch (refusal) {
    case 400:
    case 410:
    case 420:
    case 422:
    case 430:
    case 431:
        return PROTO_RETRY_LONG_PAUSE;
    case 460:
        return PROTO_RETRY_SPREAD;
    default: /* 408 421 429 450 451, and every one that is not known yet */
        return PROTO_RETRY_BACK_OFF;
    }
}

static void next_try_after_each_refusal_is_as_specified(void **unused)
{
    (void)unused;
    for (int state = 0; state < CLIENT_FSM_CLOSED; state++) {
        for (int code = 400; code <= 499; code++) {
            struct fake fake;
            char text[32];

            snprintf(text, sizeof(text), "%d: why", code);
            start_in(&fake, (enum client_fsm_state)state);
            line(&fake, text);
            assert_int_equal(client_fsm_why(&fake.fsm), code);
            assert_int_equal(client_fsm_retry(&fake.fsm), retry_by_specification(code));
        }
    }
}

static void next_try_after_a_loss_backs_off_and_after_garbage_pauses(void **unused)
{
    (void)unused;
    for (int state = 0; state < CLIENT_FSM_CLOSED; state++) {
        struct fake fake;

        start_in(&fake, (enum client_fsm_state)state);
        client_fsm_lost(&fake.fsm, &fake.env);
        assert_int_equal(client_fsm_retry(&fake.fsm), PROTO_RETRY_BACK_OFF);

        start_in(&fake, (enum client_fsm_state)state);
        client_fsm_bad_line(&fake.fsm, &fake.env);
        assert_int_equal(client_fsm_retry(&fake.fsm), PROTO_RETRY_LONG_PAUSE);
    }
}

static void first_reason_stays_when_the_connection_is_lost_after_it(void **unused)
{
    struct fake fake;

    (void)unused;
    start_in(&fake, CLIENT_FSM_CONNECTED);
    line(&fake, "431: replaced");
    client_fsm_lost(&fake.fsm, &fake.env);
    line(&fake, "460: server restarting");
    client_fsm_bad_line(&fake.fsm, &fake.env);
    assert_int_equal(client_fsm_why(&fake.fsm), PROTO_REPLACED);
    assert_trace(&fake, "connected>closed; ");
}

static void each_state_has_a_name_of_its_own(void **unused)
{
    (void)unused;
    for (int a = 0; a < CLIENT_FSM_STATE_COUNT; a++) {
        assert_non_null(client_fsm_state_name((enum client_fsm_state)a));
        for (int b = 0; b < a; b++)
            assert_string_not_equal(client_fsm_state_name((enum client_fsm_state)a),
                                    client_fsm_state_name((enum client_fsm_state)b));
    }
    assert_non_null(client_fsm_state_name(CLIENT_FSM_STATE_COUNT));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_state_with_every_event_does_what_the_table_says),
        cmocka_unit_test(every_event_handed_in_directly_has_a_cell),
        cmocka_unit_test(nothing_but_a_130_to_a_connected_client_shuts_it_down),
        cmocka_unit_test(garbage_never_shuts_a_client_down),
        cmocka_unit_test(lost_connections_never_shut_a_client_down),
        cmocka_unit_test(repeated_130_is_answered_again_and_acted_on_once),
        cmocka_unit_test(answer_to_a_130_is_sent_before_acting_on_it),
        cmocka_unit_test(new_session_after_a_shutdown_may_be_told_again),
        cmocka_unit_test(start_forgets_the_session_before),
        cmocka_unit_test(longest_password_and_id_go_out_whole),
        cmocka_unit_test(next_try_after_each_refusal_is_as_specified),
        cmocka_unit_test(next_try_after_a_loss_backs_off_and_after_garbage_pauses),
        cmocka_unit_test(first_reason_stays_when_the_connection_is_lost_after_it),
        cmocka_unit_test(each_state_has_a_name_of_its_own),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
