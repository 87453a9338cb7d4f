/* Who may come in: the hard limits to the client, and the growing share between half and all. */
#include "session/limits.h"

#include "base/hash.h"

#include "unit.h"

#include <math.h>

#define TRIES 4000

static int start(void **state)
{
    (void)state;
    return hash_init();
}

/* The share of newcomers that gets in, over many random numbers. */
static double share(const struct limits_options *limits, uint64_t clients, uint64_t pending)
{
    static uint64_t counter;
    int admitted = 0;

    for (int i = 0; i < TRIES; i++)
        admitted += limits_admit(limits, clients, pending, hash_number(counter++));
    return (double)admitted / TRIES;
}

static bool always(const struct limits_options *limits, uint64_t clients, uint64_t pending)
{
    return share(limits, clients, pending) == 1.0;
}

static bool never(const struct limits_options *limits, uint64_t clients, uint64_t pending)
{
    return share(limits, clients, pending) == 0.0;
}

static void limits_admit_clients_up_to_the_last_and_no_more(void **state)
{
    const struct limits_options limits = {.max_clients = 10, .max_pending = 1000};
    const struct limits_options one = {.max_clients = 1, .max_pending = 1000};

    (void)state;
    assert_true(always(&limits, 0, 0));
    assert_true(always(&limits, 9, 0));
    assert_true(never(&limits, 10, 0));
    assert_true(never(&limits, 11, 0));
    assert_true(never(&limits, UINT64_MAX, 0));
    assert_true(always(&one, 0, 0));
    assert_true(never(&one, 1, 0));
}

static void limits_admit_everyone_below_half_of_pending(void **state)
{
    const struct limits_options limits = {.max_clients = 1000000, .max_pending = 16384};

    (void)state;
    assert_true(always(&limits, 8191, 0));
    assert_true(always(&limits, 8191, 8191));
    assert_true(never(&limits, 16384, 16384));
    assert_true(never(&limits, 16385, 16385));
}

/* Linear from all at half to none at the limit; six standard deviations of each share are allowed.
 */
static void limits_turn_away_a_growing_share_between_half_and_all(void **state)
{
    static const uint64_t sizes[] = {64, 1000, 16384, 1000000};
    double previous = 1.1;

    (void)state;
    for (size_t i = 0; i < COUNT(sizes); i++) {
        const struct limits_options limits = {.max_clients = UINT64_MAX, .max_pending = sizes[i]};
        const uint64_t half = sizes[i] / 2;

        for (uint64_t step = 1; step < 8; step++) {
            const uint64_t pending = half + half * step / 8;
            const double wanted = (double)(sizes[i] - pending) / (double)(sizes[i] - half);
            const double got = share(&limits, pending, pending);
            const double allowed = 6 * sqrt(wanted * (1 - wanted) / TRIES) + 0.001;

            if (fabs(got - wanted) > allowed)
                fail_msg("%.4f of newcomers got in at %lu of %lu, not %.4f", got,
                         (unsigned long)pending, (unsigned long)sizes[i], wanted);
            assert_true(got < previous);
            previous = got;
        }
        previous = 1.1;
    }
}

/* Not random, so that three standard deviations hold each time or never. */
static uint64_t fixed_random(void)
{
    static uint64_t counter;
    uint64_t mixed = counter += UINT64_C(0x9e3779b97f4a7c15);

    mixed = (mixed ^ mixed >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    mixed = (mixed ^ mixed >> 27) * UINT64_C(0x94d049bb133111eb);
    return mixed ^ mixed >> 31;
}

static void limits_admit_the_share_of_the_formula_in_a_million_draws(void **state)
{
    enum { DRAWS = 1000000 };
    const struct limits_options limits = {.max_clients = UINT64_MAX, .max_pending = 16384};

    (void)state;
    for (uint64_t pending = 8192; pending < 16384; pending += 819) {
        const double wanted = (double)(16384 - pending) / 8192;
        int fixed = 0;
        int keyed = 0;

        for (uint64_t i = 0; i < DRAWS; i++) {
            fixed += limits_admit(&limits, pending, pending, fixed_random());
            keyed += i < DRAWS / 10 &&
                     limits_admit(&limits, pending, pending, hash_number(pending * DRAWS + i));
        }
        const double deviation = sqrt(wanted * (1 - wanted) / DRAWS);
        if (fabs((double)fixed / DRAWS - wanted) > 3 * deviation)
            fail_msg("%d of a million got in at %lu, not %.4f", fixed, (unsigned long)pending,
                     wanted);
        /* As the server draws, under a key that is another one each time: six of them. */
        if (fabs(keyed * 10.0 / DRAWS - wanted) > 6 * deviation * sqrt(10))
            fail_msg("%d of 100,000 got in at %lu, not %.4f", keyed, (unsigned long)pending,
                     wanted);
    }
}

/* The last place but one is a rare chance, but one: the flood never locks everyone out. */
static void limits_leave_a_chance_until_the_very_last_place(void **state)
{
    const struct limits_options limits = {.max_clients = UINT64_MAX, .max_pending = 200};
    const double last = share(&limits, 199, 199);

    (void)state;
    assert_true(last > 0);
    assert_true(last < 0.05);
}

static void limits_of_one_two_and_three_pending_let_somebody_in(void **state)
{
    struct limits_options limits = {.max_clients = 1000, .max_pending = 1};
    double middle;

    (void)state;
    assert_true(always(&limits, 0, 0));
    assert_true(never(&limits, 1, 1));

    limits.max_pending = 2;
    assert_true(always(&limits, 0, 0));
    assert_true(share(&limits, 1, 1) > 0);
    assert_true(never(&limits, 2, 2));

    limits.max_pending = 3;
    assert_true(always(&limits, 0, 0));
    assert_true(share(&limits, 1, 1) > 0);
    middle = share(&limits, 2, 2);
    assert_true(middle > 0 && middle < 1);
    assert_true(never(&limits, 3, 3));
}

/* Connected clients are no newcomers: they do not eat the room for those. */
static void limits_on_pending_do_not_count_the_connected(void **state)
{
    const struct limits_options limits = {.max_clients = 1000, .max_pending = 10};

    (void)state;
    assert_true(always(&limits, 999, 4));
    assert_true(never(&limits, 1000, 4));
}

/* By the same rule, and by that limit alone. */
static void limits_on_tls_handshakes_are_their_own(void **state)
{
    const struct limits_options limits = {
        .max_clients = 1, .max_pending = 1, .max_tls_pending = 100};
    int admitted = 0;

    (void)state;
    for (uint64_t i = 0; i < TRIES; i++) {
        assert_true(limits_admit_tls(&limits, 49, hash_number(i)));
        assert_false(limits_admit_tls(&limits, 100, hash_number(i)));
        admitted += limits_admit_tls(&limits, 75, hash_number(i));
    }
    assert_true(admitted > TRIES * 4 / 10 && admitted < TRIES * 6 / 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(limits_admit_clients_up_to_the_last_and_no_more),
        cmocka_unit_test(limits_admit_everyone_below_half_of_pending),
        cmocka_unit_test(limits_turn_away_a_growing_share_between_half_and_all),
        cmocka_unit_test(limits_admit_the_share_of_the_formula_in_a_million_draws),
        cmocka_unit_test(limits_leave_a_chance_until_the_very_last_place),
        cmocka_unit_test(limits_of_one_two_and_three_pending_let_somebody_in),
        cmocka_unit_test(limits_on_pending_do_not_count_the_connected),
        cmocka_unit_test(limits_on_tls_handshakes_are_their_own),
    };

    return cmocka_run_group_tests(tests, start, NULL);
}
