/* The plan of a load test: when connects are due, how many may be under way, who is silent; and
 * what the preflight computes from it. */
#include "plan.h"

#include "preflight.h"
#include "unit.h"

#define SECOND UINT64_C(1000000)

static struct plan plan_of(uint64_t clients, uint64_t rate, uint64_t inflight)
{
    const struct plan_options options = {.clients = clients, .rate = rate, .inflight = inflight};
    struct plan plan;

    plan_init(&plan, &options);
    return plan;
}

static void start(struct plan *plan, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        plan_start(plan);
}

static void settle(struct plan *plan, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        plan_settle(plan);
}

static void without_rate_inflight_alone_bounds_starts(void **state)
{
    struct plan plan = plan_of(1000, 0, 64);

    (void)state;
    assert_int_equal(plan_startable(&plan, 0), 64);
    assert_int_equal(plan_wait_us(&plan, 0), 0);
    start(&plan, 64);
    assert_int_equal(plan_startable(&plan, 100 * SECOND), 0);
    assert_true(plan_wait_us(&plan, 100 * SECOND) == PLAN_NEVER);
    settle(&plan, 3);
    assert_int_equal(plan_startable(&plan, 0), 3);
    assert_int_equal(plan_wait_us(&plan, 0), 0);
}

static void with_rate_connects_become_due_one_by_one(void **state)
{
    struct plan plan = plan_of(1000, 100, 500);

    (void)state;
    assert_int_equal(plan_startable(&plan, 0), 1);
    start(&plan, 1);
    assert_int_equal(plan_startable(&plan, 9999), 0);
    assert_int_equal(plan_wait_us(&plan, 4000), 6000);
    assert_int_equal(plan_startable(&plan, 10000), 1);
    /* A generator that was held up makes up for it. */
    assert_int_equal(plan_startable(&plan, SECOND), 100);
}

static void due_time_does_not_move_when_the_start_is_late(void **state)
{
    struct plan plan = plan_of(1000, 100, 2);

    (void)state;
    start(&plan, 2);
    /* The server stalls; both slots are taken for ten seconds. */
    assert_int_equal(plan_startable(&plan, 10 * SECOND), 0);
    settle(&plan, 2);
    assert_int_equal(plan_due_us(&plan, plan_start(&plan), 10 * SECOND), 20000);
    assert_int_equal(plan_due_us(&plan, plan_start(&plan), 10 * SECOND), 30000);
}

static void without_rate_a_connect_is_due_when_it_starts(void **state)
{
    struct plan plan = plan_of(10, 0, 10);

    (void)state;
    assert_int_equal(plan_due_us(&plan, 7, 12345), 12345);
}

/* Rates that do not divide a second: what is due must never disagree with when it is due. */
static void due_time_and_due_count_agree(void **state)
{
    static const uint64_t rates[] = {1, 3, 7, 333, 999, 1000, 4999, 1000000, 3000000, 10000000};

    (void)state;
    for (size_t i = 0; i < COUNT(rates); i++) {
        struct plan plan = plan_of(100000, rates[i], 100000);

        for (uint64_t number = 0; number < 20000; number++) {
            const uint64_t due = plan_due_us(&plan, number, 0);

            plan.started = number;
            assert_true(plan_startable(&plan, due) >= 1);
            assert_int_equal(plan_wait_us(&plan, due), 0);
            if (due > 0) {
                assert_int_equal(plan_startable(&plan, due - 1), 0);
                assert_int_equal(plan_wait_us(&plan, due - 1), 1);
            }
            plan.settled = number;
        }
    }
}

static void rate_holds_over_a_long_run(void **state)
{
    const uint64_t year = UINT64_C(365) * 24 * 3600;
    struct plan plan = plan_of(UINT64_MAX, 10000000, UINT64_MAX);

    (void)state;
    assert_true(plan_startable(&plan, year * SECOND) == year * 10000000 + 1);
    assert_true(plan_due_us(&plan, year * 10000000, 0) == year * SECOND);
}

static void nothing_starts_behind_the_last_client(void **state)
{
    struct plan plan = plan_of(5, 0, 100);

    (void)state;
    assert_int_equal(plan_startable(&plan, 0), 5);
    assert_false(plan_all_started(&plan));
    start(&plan, 5);
    assert_true(plan_all_started(&plan));
    settle(&plan, 4);
    assert_int_equal(plan_startable(&plan, 100 * SECOND), 0);
    assert_true(plan_wait_us(&plan, 100 * SECOND) == PLAN_NEVER);
    assert_int_equal(plan_unfinished(&plan), 1);
    assert_false(plan_all_settled(&plan));
    settle(&plan, 1);
    assert_true(plan_all_settled(&plan));
}

static uint64_t silent_among(uint32_t share, uint64_t from, uint64_t count)
{
    const struct plan_options options = {.clients = 1000000, .inflight = 1, .silent = share};
    struct plan plan;
    uint64_t silent = 0;

    plan_init(&plan, &options);
    for (uint64_t i = from; i < from + count; i++)
        silent += plan_is_silent(&plan, i);
    return silent;
}

static void silent_share_is_exact(void **state)
{
    (void)state;
    assert_int_equal(silent_among(0, 0, 1000), 0);
    assert_int_equal(silent_among(PLAN_WHOLE, 0, 1000), 1000);
    assert_int_equal(silent_among(10000, 0, 1000), 100);
    assert_int_equal(silent_among(33333, 0, 100000), 33333);
    assert_int_equal(silent_among(500, 0, 200000), 1000);
    assert_int_equal(silent_among(1, 0, 1000000), 10);
}

static void silent_clients_are_spread_evenly(void **state)
{
    (void)state;
    for (uint64_t from = 0; from < 5000; from += 50) {
        assert_int_equal(silent_among(10000, from, 50), 5);
        assert_in_range(silent_among(25500, from, 50), 12, 13);
    }
}

static void port_range_is_read_as_the_kernel_writes_it(void **state)
{
    (void)state;
    assert_int_equal(preflight_parse_port_range("32768\t60999\n"), 28232);
    assert_int_equal(preflight_parse_port_range("1024 65535\n"), 64512);
    assert_int_equal(preflight_parse_port_range("5000 5000"), 1);
    assert_int_equal(preflight_parse_port_range("60999 32768"), 0);
    assert_int_equal(preflight_parse_port_range("1024 65536"), 0);
    assert_int_equal(preflight_parse_port_range("none"), 0);
    assert_int_equal(preflight_parse_port_range(""), 0);
}

static void ports_of_closed_connections_rest_unless_reused(void **state)
{
    const struct preflight_demand held = {.connects = 15000, .at_once = 15000};
    const struct preflight_demand churn = {.connects = 100000, .at_once = 512};
    const struct preflight_demand paced = {.connects = 100000, .at_once = 512, .rate = 100};

    (void)state;
    assert_int_equal(preflight_ports_needed(&held, false), 15000);
    assert_int_equal(preflight_ports_needed(&churn, true), 512);
    assert_int_equal(preflight_ports_needed(&churn, false), 100000);
    assert_int_equal(preflight_ports_needed(&paced, false), 6512);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_rate_inflight_alone_bounds_starts),
        cmocka_unit_test(with_rate_connects_become_due_one_by_one),
        cmocka_unit_test(due_time_does_not_move_when_the_start_is_late),
        cmocka_unit_test(without_rate_a_connect_is_due_when_it_starts),
        cmocka_unit_test(due_time_and_due_count_agree),
        cmocka_unit_test(rate_holds_over_a_long_run),
        cmocka_unit_test(nothing_starts_behind_the_last_client),
        cmocka_unit_test(silent_share_is_exact),
        cmocka_unit_test(silent_clients_are_spread_evenly),
        cmocka_unit_test(port_range_is_read_as_the_kernel_writes_it),
        cmocka_unit_test(ports_of_closed_connections_rest_unless_reused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
