/* Sources: whose connections are counted together, who earns a penalty and for how long, and that
 * neither very many of them nor want of memory changes that for others. */
#include "session/sources.h"

#include "base/hash.h"

#include "failing_alloc.h"
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define S UINT64_C(1000000)

static struct sources sources;
static struct limits_options limits;
static struct moment now;

static int start(void **state)
{
    (void)state;
    return hash_init();
}

static int setup(void **state)
{
    (void)state;
    limits = (struct limits_options){.auth_failures = 3, .auth_penalty_ms = 60000};
    now = (struct moment){.mono_us = 1000 * S};
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    allocations_left = -1;
    sources_clear(&sources);
    return 0;
}

static struct peer_address peer(const char *ip)
{
    struct peer_address address;

    peer_address_parse(&address, ip, 1234);
    assert_int_not_equal(address.family, AF_UNSPEC);
    return address;
}

static struct peer_address numbered(uint32_t number)
{
    struct peer_address address = {.family = AF_INET};

    memcpy(address.ip, &number, sizeof(number));
    return address;
}

static struct peer_address numbered_prefix(uint32_t number)
{
    struct peer_address address = {.family = AF_INET6, .ip = {0xfd}};

    memcpy(address.ip + 4, &number, sizeof(number));
    address.ip[15] = (uint8_t)number;
    return address;
}

static bool fails_from(const struct peer_address *from)
{
    return sources_note_failure(&sources, &limits, from, now);
}

static bool fails(const char *ip)
{
    const struct peer_address from = peer(ip);

    return fails_from(&from);
}

static bool is_penalised(const char *ip)
{
    const struct peer_address from = peer(ip);

    return sources_is_penalised(&sources, &limits, &from, now);
}

static bool enter(const char *ip)
{
    const struct peer_address from = peer(ip);

    return sources_enter(&sources, &from);
}

static void leave(const char *ip)
{
    const struct peer_address from = peer(ip);

    sources_leave(&sources, &from);
}

static unsigned connections(const char *ip)
{
    const struct peer_address from = peer(ip);

    return sources_connections(&sources, &from);
}

static void penalise(const char *ip)
{
    for (uint64_t i = 1; i < limits.auth_failures; i++)
        assert_false(fails(ip));
    assert_true(fails(ip));
    assert_true(is_penalised(ip));
}

/* ---- penalties ---- */

static void penalty_begins_with_the_last_allowed_failure_and_not_before(void **state)
{
    (void)state;
    assert_false(fails("192.0.2.1"));
    assert_false(is_penalised("192.0.2.1"));
    assert_false(fails("192.0.2.1"));
    assert_false(is_penalised("192.0.2.1"));
    assert_true(fails("192.0.2.1"));
    assert_true(is_penalised("192.0.2.1"));
    assert_false(is_penalised("192.0.2.2"));
    assert_int_equal(sources.penalised.count, 1);
}

static void penalty_after_one_failure_is_possible(void **state)
{
    (void)state;
    limits.auth_failures = 1;
    assert_true(fails("192.0.2.1"));
    assert_true(is_penalised("192.0.2.1"));
}

static void penalty_ends_to_the_microsecond_and_all_is_forgotten(void **state)
{
    (void)state;
    penalise("192.0.2.1");
    now.mono_us += 60 * S - 1;
    assert_true(is_penalised("192.0.2.1"));
    now.mono_us += 1;
    assert_false(is_penalised("192.0.2.1"));
    /* It begins anew, with all its tries. */
    penalise("192.0.2.1");
}

/* A handshake that was under way may still fail; that is no reason to be locked out for longer. */
static void penalty_is_not_prolonged_by_failures_within_it(void **state)
{
    (void)state;
    penalise("192.0.2.1");
    now.mono_us += 59 * S;
    for (int i = 0; i < 20; i++)
        assert_false(fails("192.0.2.1"));
    now.mono_us += 1 * S;
    assert_false(is_penalised("192.0.2.1"));
}

/* An agent with an old password tries once a minute: that must not add up. */
static void failures_are_forgotten_a_penalty_after_the_first(void **state)
{
    (void)state;
    assert_false(fails("192.0.2.1"));
    now.mono_us += 30 * S;
    assert_false(fails("192.0.2.1"));
    now.mono_us += 30 * S;
    assert_false(fails("192.0.2.1")); /* the first one of a new window */
    for (int i = 0; i < 100; i++) {
        now.mono_us += 30 * S;
        assert_false(fails("192.0.2.1"));
    }
    now.mono_us += 60 * S;
    assert_false(fails("192.0.2.1"));
    assert_false(fails("192.0.2.1"));
    now.mono_us += 60 * S - 1;
    assert_true(fails("192.0.2.1")); /* just within the window */
}

static void penalty_of_none_notes_nothing(void **state)
{
    (void)state;
    limits.auth_failures = 0;
    for (int i = 0; i < 100; i++)
        assert_false(fails("192.0.2.1"));
    assert_false(is_penalised("192.0.2.1"));
    assert_int_equal(sources_count(&sources), 0);
    assert_null(sources.slots);
}

static void penalty_forgiven_is_lifted_for_all(void **state)
{
    (void)state;
    assert_true(enter("192.0.2.3"));
    penalise("192.0.2.1");
    penalise("192.0.2.3");
    assert_false(fails("192.0.2.2"));
    sources_forgive(&sources);
    assert_false(is_penalised("192.0.2.1"));
    assert_false(is_penalised("192.0.2.3"));
    assert_int_equal(sources.penalised.count + sources.suspects.count, 0);
    assert_int_equal(connections("192.0.2.3"), 1);
    assert_int_equal(sources_count(&sources), 1);
    penalise("192.0.2.2");
}

static void penalty_made_shorter_or_longer_holds_for_those_under_it(void **state)
{
    (void)state;
    penalise("192.0.2.1");
    now.mono_us += 30 * S;
    limits.auth_penalty_ms = 30000;
    assert_false(is_penalised("192.0.2.1"));
    limits.auth_penalty_ms = 90000;
    assert_true(is_penalised("192.0.2.1"));
    now.mono_us += 60 * S;
    assert_false(is_penalised("192.0.2.1"));
}

static void expired_sources_are_gone_after_a_second(void **state)
{
    (void)state;
    penalise("192.0.2.1");
    assert_false(fails("192.0.2.2"));
    now.mono_us += 30 * S;
    assert_false(fails("192.0.2.3"));
    now.mono_us += 30 * S;
    sources_expire(&sources, &limits, now);
    assert_int_equal(sources_count(&sources), 1);
    assert_int_equal(sources.penalised.count, 0);
    now.mono_us += 30 * S;
    sources_expire(&sources, &limits, now);
    assert_int_equal(sources_count(&sources), 0);
}

/* ---- what a source is ---- */

static void sources_of_ipv6_are_networks_of_64_bits(void **state)
{
    (void)state;
    assert_false(fails("2001:db8:0:1::1"));
    assert_false(fails("2001:db8:0:1:ffff::2"));
    assert_true(fails("2001:db8:0:1::3"));
    assert_true(is_penalised("2001:db8:0:1:1:2:3:4"));
    assert_false(is_penalised("2001:db8:0:2::1"));
    assert_false(is_penalised("2001:db8:1:1::1"));
    penalise("::1");
    assert_true(is_penalised("::2"));
    assert_false(is_penalised("0.0.0.0"));
    assert_false(is_penalised("0.0.0.1"));
}

static void sources_of_mapped_addresses_are_those_of_ipv4(void **state)
{
    (void)state;
    assert_false(fails("::ffff:192.0.2.1"));
    assert_false(fails("192.0.2.1"));
    assert_true(fails("::ffff:192.0.2.1"));
    assert_true(is_penalised("192.0.2.1"));
    assert_false(is_penalised("::ffff:192.0.2.2"));
    assert_false(is_penalised("::1"));
    assert_true(enter("::ffff:192.0.2.7"));
    assert_int_equal(connections("192.0.2.7"), 1);
}

static void sources_of_unix_sockets_are_none(void **state)
{
    const struct peer_address unknown = {.family = AF_UNSPEC};

    (void)state;
    for (int i = 0; i < 10; i++) {
        assert_false(fails("unix"));
        assert_false(fails_from(&unknown));
    }
    assert_false(is_penalised("unix"));
    assert_false(enter("unix"));
    assert_int_equal(connections("unix"), 0);
    assert_int_equal(sources_count(&sources), 0);
}

static void source_text_says_what_is_counted_together(void **state)
{
    static const char *const expected[][2] = {
        {"192.0.2.1", "192.0.2.1"}, {"2001:db8:0:1:2:3:4:5", "2001:db8:0:1::/64"},
        {"::1", "::/64"},           {"::ffff:192.0.2.1", "192.0.2.1"},
        {"unix", "unix"},
    };
    char buf[SOURCE_TEXT_BYTES];

    (void)state;
    for (size_t i = 0; i < COUNT(expected); i++) {
        const struct peer_address from = peer(expected[i][0]);
        assert_string_equal(source_format(&from, buf), expected[i][1]);
    }
}

/* ---- connections ---- */

static void connections_are_counted_by_source_and_given_back(void **state)
{
    (void)state;
    for (int i = 0; i < 5; i++)
        assert_true(enter("192.0.2.1"));
    assert_true(enter("192.0.2.2"));
    assert_true(enter("2001:db8::1"));
    assert_true(enter("2001:db8::2"));
    assert_int_equal(connections("192.0.2.1"), 5);
    assert_int_equal(connections("192.0.2.2"), 1);
    assert_int_equal(connections("192.0.2.3"), 0);
    assert_int_equal(connections("2001:db8::"), 2);
    assert_int_equal(sources_count(&sources), 3);
    leave("192.0.2.2");
    assert_int_equal(connections("192.0.2.2"), 0);
    assert_int_equal(sources_count(&sources), 2);
    for (int i = 0; i < 5; i++)
        leave("192.0.2.1");
    leave("2001:db8::2");
    assert_int_equal(connections("2001:db8::"), 1);
    leave("2001:db8::1");
    assert_int_equal(sources_count(&sources), 0);
}

static void connections_outlast_penalties_and_the_other_way_round(void **state)
{
    (void)state;
    assert_true(enter("192.0.2.1"));
    penalise("192.0.2.1");
    leave("192.0.2.1");
    assert_true(is_penalised("192.0.2.1"));
    assert_true(enter("192.0.2.1"));
    now.mono_us += 60 * S;
    sources_expire(&sources, &limits, now);
    assert_int_equal(connections("192.0.2.1"), 1);
    assert_int_equal(sources.penalised.count, 0);
    leave("192.0.2.1");
    assert_int_equal(sources_count(&sources), 0);
}

static void connections_no_longer_counted_leave_failures_as_they_are(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 10000; i++) {
        const struct peer_address from = numbered(i);
        assert_true(sources_enter(&sources, &from));
    }
    assert_true(enter("2001:db8::1"));
    penalise("2001:db8::1");
    now.mono_us += 10 * S;
    penalise("2001:db8:1::1");
    assert_false(fails("2001:db8:2::1"));
    assert_false(fails("2001:db8:2::1"));
    sources_stop_counting(&sources);
    assert_int_equal(connections("2001:db8::1"), 0);
    assert_int_equal(sources_count(&sources), 3);
    assert_true(sources.capacity < 1000);
    assert_true(fails("2001:db8:2::1"));
    now.mono_us += 50 * S;
    assert_false(is_penalised("2001:db8::1"));
    assert_true(is_penalised("2001:db8:1::1"));
    sources_expire(&sources, &limits, now);
    assert_int_equal(sources_count(&sources), 2);
}

static void connections_of_a_million_sources_are_told_apart(void **state)
{
    enum { MANY = 1000000 };

    (void)state;
    for (uint32_t i = 0; i < MANY; i++) {
        const struct peer_address from = numbered(i);
        assert_true(sources_enter(&sources, &from));
    }
    assert_int_equal(sources_count(&sources), MANY);
    for (uint32_t i = 0; i < MANY; i++) {
        const struct peer_address from = numbered(i);
        assert_int_equal(sources_connections(&sources, &from), 1);
        sources_leave(&sources, &from);
    }
    assert_int_equal(sources_count(&sources), 0);
    /* The same numbers serve again. */
    assert_true(enter("192.0.2.1"));
    assert_int_equal(sources.used, MANY);
}

/* ---- too many ---- */

static void too_many_suspects_push_out_the_oldest_and_no_penalty(void **state)
{
    const uint32_t many[] = {100000, 1000000};

    (void)state;
    for (size_t round = 0; round < COUNT(many); round++) {
        sources_clear(&sources);
        penalise("192.0.2.1");
        penalise("2001:db8::1");
        assert_false(fails("192.0.2.2"));
        assert_false(fails("192.0.2.2"));
        for (uint32_t i = 0; i < many[round]; i++) {
            const struct peer_address from = i % 2 ? numbered(i) : numbered_prefix(i);
            now.mono_us++;
            assert_false(fails_from(&from));
        }
        assert_int_equal(sources_count(&sources), SOURCES_MAX_FAILING);
        assert_int_equal(sources.suspects.count + sources.penalised.count, SOURCES_MAX_FAILING);
        assert_int_equal(sources.evicted, many[round] + 3 - SOURCES_MAX_FAILING);
        assert_int_equal(sources.capacity, SOURCES_MAX_FAILING); /* 32 bytes each */
        assert_true(sources.index.capacity <= SOURCES_MAX_FAILING * 2);
        assert_true(is_penalised("192.0.2.1"));
        assert_true(is_penalised("2001:db8::1"));
        assert_false(is_penalised("192.0.2.2"));
        assert_int_equal(sources.penalised.count, 2);
        /* The flood locks nobody out, and hides nobody new. */
        penalise("192.0.2.3");
    }
}

static void too_many_penalties_end_the_oldest_one_for_each_new_one(void **state)
{
    struct peer_address from;

    (void)state;
    limits.auth_failures = 2;
    for (uint32_t i = 0; i < SOURCES_MAX_FAILING; i++) {
        from = numbered(i);
        now.mono_us++;
        assert_false(fails_from(&from));
        assert_true(fails_from(&from));
    }
    assert_int_equal(sources.penalised.count, SOURCES_MAX_FAILING);
    /* One failure of somebody new takes one place; those of others after it take that one again. */
    for (uint32_t i = 0; i < 1000; i++) {
        from = numbered_prefix(i);
        assert_false(fails_from(&from));
    }
    assert_int_equal(sources.penalised.count, SOURCES_MAX_FAILING - 1);
    from = numbered(0);
    assert_false(sources_is_penalised(&sources, &limits, &from, now));
    from = numbered(1);
    assert_true(sources_is_penalised(&sources, &limits, &from, now));
    from = numbered_prefix(999);
    assert_true(fails_from(&from));
    assert_int_equal(sources.penalised.count, SOURCES_MAX_FAILING);
}

static void too_many_that_are_over_make_room_without_pushing_anybody_out(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < SOURCES_MAX_FAILING; i++) {
        const struct peer_address from = numbered(i);
        assert_false(fails_from(&from));
    }
    now.mono_us += 60 * S;
    for (uint32_t i = 0; i < SOURCES_MAX_FAILING / 2; i++) {
        const struct peer_address from = numbered_prefix(i);
        assert_false(fails_from(&from));
    }
    assert_int_equal(sources.evicted, 0);
    assert_int_equal(sources_count(&sources), SOURCES_MAX_FAILING / 2);
}

static void too_many_at_once_expire_within_some_seconds(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < SOURCES_MAX_FAILING; i++) {
        const struct peer_address from = numbered(i);
        assert_false(fails_from(&from));
    }
    now.mono_us += 60 * S;
    sources_expire(&sources, &limits, now);
    assert_true(sources_count(&sources) > 0); /* not all in one go */
    for (int second = 0; second < 5; second++)
        sources_expire(&sources, &limits, now);
    assert_int_equal(sources_count(&sources), 0);
}

/* ---- no memory ---- */

static void without_memory_nobody_is_counted_and_nobody_is_hurt(void **state)
{
    (void)state;
    for (int left = 0; left < 2; left++) {
        sources_clear(&sources);
        allocations_left = left;
        assert_false(enter("192.0.2.1"));
        assert_false(fails("192.0.2.1"));
        assert_int_equal(connections("192.0.2.1"), 0);
        assert_false(is_penalised("192.0.2.1"));
        assert_int_equal(sources_count(&sources), 0);
        allocations_left = -1;
        assert_true(enter("192.0.2.1"));
        penalise("192.0.2.1");
        leave("192.0.2.1");
        assert_int_equal(sources_count(&sources), 1);
    }
}

static void without_memory_to_grow_those_who_are_known_stay(void **state)
{
    uint32_t count = 0;

    (void)state;
    assert_true(enter("2001:db8::1"));
    penalise("2001:db8::1");
    allocations_left = 0;
    for (; count < 1000; count++) {
        const struct peer_address from = numbered(count);
        if (!sources_enter(&sources, &from))
            break;
    }
    assert_true(count > 0 && count < 1000);
    assert_true(is_penalised("2001:db8::1"));
    assert_true(enter("2001:db8::1"));
    assert_false(fails("192.0.2.1"));
    assert_int_equal(sources_count(&sources), count + 1);
    sources_stop_counting(&sources); /* needs memory for who is kept; without it, it forgives */
    assert_int_equal(sources_count(&sources), 0);
    allocations_left = -1;
    penalise("2001:db8::1");
}

/* ---- all of it at random, against a simple model ---- */

static void sources_of_random_fates_agree_with_a_simple_model(void **state)
{
    enum { STEPS = 300000, NAMES = 40 };
    struct {
        unsigned connections;
        unsigned failures;
        uint64_t since_us;
        bool is_penalised;
    } model[NAMES] = {{0}};
    uint64_t random = 1;

    (void)state;
    for (int step = 0; step < STEPS; step++) {
        random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        const uint32_t name = (uint32_t)(random >> 33) % NAMES;
        const struct peer_address from = name % 2 ? numbered(name) : numbered_prefix(name);
        const unsigned what = (unsigned)(random >> 50) % 8;

        now.mono_us += (random >> 40) % (2 * S);
        if (model[name].failures > 0 && now.mono_us - model[name].since_us >= 60 * S) {
            model[name].failures = 0;
            model[name].is_penalised = false;
        }
        if (what < 2) {
            assert_true(sources_enter(&sources, &from));
            model[name].connections++;
        } else if (what < 4 && model[name].connections > 0) {
            sources_leave(&sources, &from);
            model[name].connections--;
        } else if (what < 7) {
            bool begins = false;
            if (!model[name].is_penalised) {
                if (model[name].failures++ == 0)
                    model[name].since_us = now.mono_us;
                begins = model[name].failures == 3;
                if (begins) {
                    model[name].is_penalised = true;
                    model[name].since_us = now.mono_us;
                }
            }
            assert_int_equal(fails_from(&from), begins);
        } else {
            sources_expire(&sources, &limits, now);
        }
        assert_int_equal(sources_connections(&sources, &from), model[name].connections);
        assert_int_equal(sources_is_penalised(&sources, &limits, &from, now),
                         model[name].is_penalised);
    }
    for (uint32_t name = 0; name < NAMES; name++) {
        const struct peer_address from = name % 2 ? numbered(name) : numbered_prefix(name);
        while (model[name].connections-- > 0)
            sources_leave(&sources, &from);
    }
    now.mono_us += 60 * S;
    sources_expire(&sources, &limits, now);
    assert_int_equal(sources_count(&sources), 0);
    assert_true(sources.used <= NAMES);
}

#define FRESH(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        FRESH(penalty_begins_with_the_last_allowed_failure_and_not_before),
        FRESH(penalty_after_one_failure_is_possible),
        FRESH(penalty_ends_to_the_microsecond_and_all_is_forgotten),
        FRESH(penalty_is_not_prolonged_by_failures_within_it),
        FRESH(failures_are_forgotten_a_penalty_after_the_first),
        FRESH(penalty_of_none_notes_nothing),
        FRESH(penalty_forgiven_is_lifted_for_all),
        FRESH(penalty_made_shorter_or_longer_holds_for_those_under_it),
        FRESH(expired_sources_are_gone_after_a_second),
        FRESH(sources_of_ipv6_are_networks_of_64_bits),
        FRESH(sources_of_mapped_addresses_are_those_of_ipv4),
        FRESH(sources_of_unix_sockets_are_none),
        FRESH(source_text_says_what_is_counted_together),
        FRESH(connections_are_counted_by_source_and_given_back),
        FRESH(connections_outlast_penalties_and_the_other_way_round),
        FRESH(connections_no_longer_counted_leave_failures_as_they_are),
        FRESH(connections_of_a_million_sources_are_told_apart),
        FRESH(too_many_suspects_push_out_the_oldest_and_no_penalty),
        FRESH(too_many_penalties_end_the_oldest_one_for_each_new_one),
        FRESH(too_many_that_are_over_make_room_without_pushing_anybody_out),
        FRESH(too_many_at_once_expire_within_some_seconds),
        FRESH(without_memory_nobody_is_counted_and_nobody_is_hurt),
        FRESH(without_memory_to_grow_those_who_are_known_stay),
        FRESH(sources_of_random_fates_agree_with_a_simple_model),
    };

    return cmocka_run_group_tests(tests, start, NULL);
}
