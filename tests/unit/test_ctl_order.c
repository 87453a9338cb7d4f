/* What an order's object says, and which waves are shown when not all fit. */
#include "order.h"

#include "order_progress.h"
#include "unit.h"

#include <stdlib.h>
#include <string.h>

static json_t *order_with(const char *state, int still_up)
{
    json_t *order =
        json_pack("{s:i, s:s, s:{s:i}}", "id", 3, "state", state, "totals", "still_up", still_up);

    assert_non_null(order);
    return order;
}

static void exit_status_follows_state_and_who_is_up(void **state)
{
    static const struct {
        const char *state;
        int still_up;
        bool over;
        enum ctl_exit status;
    } samples[] = {
        {"none", 0, false, CTL_DONE},         {"running", 5, false, CTL_DONE},
        {"done", 0, true, CTL_DONE},          {"done", 1, true, CTL_STILL_UP},
        {"holding", 0, true, CTL_DONE},       {"holding", 2, true, CTL_STILL_UP},
        {"cancelled", 2, true, CTL_STILL_UP}, {"expired", 0, true, CTL_DONE},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(samples); i++) {
        json_t *order = order_with(samples[i].state, samples[i].still_up);

        assert_int_equal(order_is_over(order), samples[i].over);
        assert_int_equal(order_exit(order), samples[i].status);
        json_decref(order);
    }
}

static void current_wave_is_among_those_shown(void **state)
{
    (void)state;
    for (size_t waves = 1; waves <= 64; waves++) {
        for (size_t current = 0; current <= waves; current++) {
            for (size_t room = 1; room <= 70; room++) {
                const size_t first = order_progress_first(waves, current, room);
                const size_t index = current > 0 ? current - 1 : 0;

                assert_true(first <= index && index < first + room);
                /* No line is left empty while waves are left out. */
                assert_true(waves <= room ? first == 0 : first + room <= waves);
            }
        }
    }
}

static void clients_are_counted_in_words(void **state)
{
    char text[ORDER_TEXT_BYTES];

    (void)state;
    assert_string_equal(order_clients(0, text), "0 clients");
    assert_string_equal(order_clients(1, text), "1 client");
    assert_string_equal(order_clients(15000, text), "15,000 clients");
}

static void patterns_are_joined(void **state)
{
    json_t *wave = json_pack("{s:[s, s]}", "match", "web-*", "nas");
    char *text = order_patterns(wave);

    (void)state;
    assert_string_equal(text, "web-*, nas");
    free(text);
    json_decref(wave);
    text = order_patterns(NULL);
    assert_string_equal(text, "");
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exit_status_follows_state_and_who_is_up),
        cmocka_unit_test(current_wave_is_among_those_shown),
        cmocka_unit_test(clients_are_counted_in_words),
        cmocka_unit_test(patterns_are_joined),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
