/* Pauses between tries, with every random number that matters chosen by hand. */
#include "backoff.h"

#include "unit.h"

/* The largest pause this call could have drawn, found by asking for it: pauses are random %
 * (most+1). */
static uint64_t largest_of(struct backoff before, enum proto_retry retry)
{
    uint64_t largest = 0;

    for (uint64_t random = 0; random < 80000; random++) {
        struct backoff copy = before;
        const uint64_t pause = backoff_next_ms(&copy, retry, random);

        largest = pause > largest ? pause : largest;
    }
    return largest;
}

static uint64_t smallest_of(struct backoff before, enum proto_retry retry)
{
    uint64_t smallest = UINT64_MAX;

    for (uint64_t random = 0; random < 80000; random++) {
        struct backoff copy = before;
        const uint64_t pause = backoff_next_ms(&copy, retry, random);

        smallest = pause < smallest ? pause : smallest;
    }
    return smallest;
}

static void ceiling_doubles_from_one_second_to_sixty(void **state)
{
    static const uint64_t ceilings[] = {1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000, 60000};
    struct backoff backoff = {0};

    (void)state;
    for (size_t i = 0; i < COUNT(ceilings); i++) {
        assert_int_equal(largest_of(backoff, PROTO_RETRY_BACK_OFF), ceilings[i]);
        assert_int_equal(smallest_of(backoff, PROTO_RETRY_BACK_OFF), 0); /* the jitter is full */
        (void)backoff_next_ms(&backoff, PROTO_RETRY_BACK_OFF, 0);
    }
}

static void ceiling_stays_after_very_many_tries(void **state)
{
    struct backoff backoff = {0};

    (void)state;
    for (int i = 0; i < 200000; i++)
        assert_true(backoff_next_ms(&backoff, PROTO_RETRY_BACK_OFF, UINT64_MAX) <= 60000);
    assert_int_equal(largest_of(backoff, PROTO_RETRY_BACK_OFF), 60000);
}

static void jitter_is_even(void **state)
{
    unsigned below_half = 0;

    (void)state;
    for (uint64_t random = 0; random < 1001; random++) {
        struct backoff backoff = {0};

        below_half += backoff_next_ms(&backoff, PROTO_RETRY_BACK_OFF, random) < 500;
    }
    assert_int_equal(below_half, 500);
}

static void reset_makes_the_next_pause_a_first_one(void **state)
{
    struct backoff backoff = {0};

    (void)state;
    for (int i = 0; i < 10; i++)
        (void)backoff_next_ms(&backoff, PROTO_RETRY_BACK_OFF, 0);
    backoff_reset(&backoff);
    assert_int_equal(largest_of(backoff, PROTO_RETRY_BACK_OFF), 1000);
}

static void long_pause_is_never_shorter_than_a_minute_and_jittered_on_top(void **state)
{
    struct backoff backoff = {0};

    (void)state;
    for (int i = 0; i < 10; i++) {
        assert_int_equal(smallest_of(backoff, PROTO_RETRY_LONG_PAUSE), 60000);
        assert_int_equal(largest_of(backoff, PROTO_RETRY_LONG_PAUSE), 75000);
        (void)backoff_next_ms(&backoff, PROTO_RETRY_LONG_PAUSE, 0);
    }
}

static void long_pauses_count_as_tries(void **state)
{
    struct backoff backoff = {0};

    (void)state;
    (void)backoff_next_ms(&backoff, PROTO_RETRY_LONG_PAUSE, 0);
    (void)backoff_next_ms(&backoff, PROTO_RETRY_LONG_PAUSE, 0);
    assert_int_equal(largest_of(backoff, PROTO_RETRY_BACK_OFF), 4000);
}

static void restarting_server_is_spread_over_the_whole_range_at_the_first_try(void **state)
{
    const struct backoff backoff = {0};

    (void)state;
    assert_int_equal(largest_of(backoff, PROTO_RETRY_SPREAD), 60000);
    assert_int_equal(smallest_of(backoff, PROTO_RETRY_SPREAD), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ceiling_doubles_from_one_second_to_sixty),
        cmocka_unit_test(ceiling_stays_after_very_many_tries),
        cmocka_unit_test(jitter_is_even),
        cmocka_unit_test(reset_makes_the_next_pause_a_first_one),
        cmocka_unit_test(long_pause_is_never_shorter_than_a_minute_and_jittered_on_top),
        cmocka_unit_test(long_pauses_count_as_tries),
        cmocka_unit_test(restarting_server_is_spread_over_the_whole_range_at_the_first_try),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
