/*
 * The wheel under a fake clock: everyone once an interval, nobody twice, and no work for those
 * whose time has not come. Time stands still unless a test moves it.
 */
#include "session/keepalive.h"

#include "base/clock.h"

#include "unit.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Slots are 10 ms wide, without rounding. */
#define INTERVAL_US (KEEPALIVE_SLOTS * 10 * CLOCK_US_PER_MS)
#define SLOT_US     (INTERVAL_US / KEEPALIVE_SLOTS)
/* Anywhere: the clock counts from a start that has nothing to do with the wheel. */
#define START_US (UINT64_C(987654321) * 1000)

struct client {
    struct keepalive_entry entry;
    uint64_t added_us;
    uint64_t last_us; /* asked, or 0 */
    uint64_t times;
    bool on_wheel;
};

static struct client *client_of(struct keepalive_entry *entry)
{
    return (struct client *)(void *)entry;
}

static uint64_t random64(void)
{
    static uint64_t x = UINT64_C(88172645463325252);

    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return x;
}

static struct client *new_clients(size_t count)
{
    struct client *clients = calloc(count, sizeof(*clients));

    assert_non_null(clients);
    return clients;
}

static void put(struct keepalive *wheel, struct client *client, uint64_t random, uint64_t now_us)
{
    client->added_us = now_us;
    client->last_us = 0;
    client->times = 0;
    client->on_wheel = true;
    keepalive_add(wheel, &client->entry, random, now_us);
}

static void take_off(struct keepalive *wheel, struct client *client)
{
    keepalive_remove(wheel, &client->entry);
    client->on_wheel = false;
}

/* Fetches one, if one is due, and writes down when. */
static struct client *ask_one(struct keepalive *wheel, uint64_t now_us)
{
    struct keepalive_entry *entry = keepalive_next(wheel, now_us);

    if (!entry)
        return NULL;
    struct client *client = client_of(entry);
    assert_true(client->on_wheel);
    client->last_us = now_us;
    client->times++;
    return client;
}

static size_t ask_all(struct keepalive *wheel, uint64_t now_us)
{
    size_t asked = 0;

    while (ask_one(wheel, now_us))
        asked++;
    return asked;
}

/* Does what a server with nothing else to do does: sleeps until the wheel says, and asks. */
static void serve(struct keepalive *wheel, uint64_t *now_us, uint64_t until_us)
{
    for (;;) {
        const uint64_t next_us = keepalive_next_us(wheel);

        if (next_us > until_us)
            break;
        if (next_us > *now_us)
            *now_us = next_us;
        assert_true(ask_all(wheel, *now_us) > 0);
    }
    *now_us = until_us;
}

static void keepalive_of_nobody_is_never_due(void **state)
{
    struct keepalive wheel;

    (void)state;
    keepalive_init(&wheel, INTERVAL_US, START_US);
    assert_true(keepalive_next_us(&wheel) == UINT64_MAX);
    assert_null(keepalive_next(&wheel, START_US));
    assert_null(keepalive_next(&wheel, START_US + 1000 * INTERVAL_US));
    assert_true(keepalive_next_us(&wheel) == UINT64_MAX);
}

static void keepalive_asks_everyone_exactly_once_an_interval(void **state)
{
    enum { CLIENTS = 5000, TURNS = 10 };
    struct client *clients = new_clients(CLIENTS);
    struct keepalive wheel;
    uint64_t now_us = START_US;

    (void)state;
    keepalive_init(&wheel, INTERVAL_US, now_us);
    for (size_t i = 0; i < CLIENTS; i++)
        put(&wheel, &clients[i], random64(), now_us);
    for (uint64_t turn = 1; turn <= TURNS; turn++) {
        serve(&wheel, &now_us, START_US + turn * INTERVAL_US);
        for (size_t i = 0; i < CLIENTS; i++)
            assert_int_equal(clients[i].times, turn);
    }
    free(clients);
}

/* The moments at which one is asked are an interval apart to the microsecond. */
static void keepalive_does_not_drift_whatever_the_interval(void **state)
{
    static const uint64_t intervals[] = {
        1000, 1001, 999983, CLOCK_US_PER_SEC, 10000019, INTERVAL_US, UINT64_C(86400000000) * 9};
    struct client client;
    struct keepalive wheel;

    (void)state;
    for (size_t i = 0; i < COUNT(intervals); i++) {
        uint64_t now_us = START_US;

        keepalive_init(&wheel, intervals[i], now_us);
        put(&wheel, &client, random64(), now_us);
        now_us = keepalive_next_us(&wheel);
        assert_in_range(now_us, START_US, START_US + intervals[i]);
        for (uint64_t turn = 0; turn < 5000; turn++) {
            assert_true(keepalive_next_us(&wheel) == now_us);
            assert_null(keepalive_next(&wheel, now_us - 1));
            assert_ptr_equal(ask_one(&wheel, now_us), &client);
            assert_null(ask_one(&wheel, now_us));
            now_us += intervals[i];
        }
    }
}

static void keepalive_first_question_is_spread_evenly_over_the_interval(void **state)
{
    enum { CLIENTS = 64000, PARTS = 64 };
    struct client *clients = new_clients(CLIENTS);
    unsigned parts[PARTS] = {0};
    struct keepalive wheel;
    /* Not at the begin of a slot. */
    uint64_t now_us = START_US;
    const uint64_t begin_us = START_US + 3 * INTERVAL_US + SLOT_US / 3;

    (void)state;
    keepalive_init(&wheel, INTERVAL_US, now_us);
    now_us = begin_us;
    for (size_t i = 0; i < CLIENTS; i++)
        put(&wheel, &clients[i], random64(), now_us);
    serve(&wheel, &now_us, begin_us + INTERVAL_US);
    for (size_t i = 0; i < CLIENTS; i++) {
        assert_int_equal(clients[i].times, 1);
        assert_in_range(clients[i].last_us, begin_us, begin_us + INTERVAL_US);
        parts[(clients[i].last_us - begin_us) * PARTS / (INTERVAL_US + 1)]++;
    }
    /* 1000 each, 32 is the standard deviation. */
    for (size_t i = 0; i < PARTS; i++)
        assert_in_range(parts[i], 1000 - 6 * 32, 1000 + 6 * 32);
    free(clients);
}

/* Thousands that come one after the other while time goes on: each within an interval of its
 * coming. */
static void keepalive_first_question_comes_within_an_interval_of_the_add(void **state)
{
    enum { CLIENTS = 20000 };
    struct client *clients = new_clients(CLIENTS);
    struct keepalive wheel;
    uint64_t now_us = START_US;

    (void)state;
    keepalive_init(&wheel, INTERVAL_US, now_us);
    for (size_t i = 0; i < CLIENTS; i++) {
        serve(&wheel, &now_us, now_us + random64() % (SLOT_US / 2));
        put(&wheel, &clients[i], random64(), now_us);
        if (i >= 4000 && clients[i - 4000].added_us + INTERVAL_US < now_us)
            assert_true(clients[i - 4000].times > 0);
    }
    serve(&wheel, &now_us, now_us + INTERVAL_US);
    for (size_t i = 0; i < CLIENTS; i++)
        assert_true(clients[i].times > 0);
    free(clients);
}

static void keepalive_added_after_a_long_empty_time_waits_its_turn(void **state)
{
    static const uint64_t pauses[] = {0,
                                      1,
                                      SLOT_US,
                                      INTERVAL_US - 1,
                                      INTERVAL_US,
                                      INTERVAL_US + SLOT_US / 2,
                                      1000 * INTERVAL_US + 7,
                                      UINT64_C(400) * 86400 * CLOCK_US_PER_SEC};
    struct client clients[32];
    struct keepalive wheel;

    (void)state;
    for (size_t i = 0; i < COUNT(pauses); i++) {
        uint64_t now_us = START_US;

        keepalive_init(&wheel, INTERVAL_US, now_us);
        put(&wheel, &clients[0], random64(), now_us);
        serve(&wheel, &now_us, now_us + 2 * INTERVAL_US);
        take_off(&wheel, &clients[0]);
        assert_true(keepalive_next_us(&wheel) == UINT64_MAX);
        now_us += pauses[i];
        for (size_t j = 0; j < COUNT(clients); j++)
            put(&wheel, &clients[j], j * (KEEPALIVE_SLOTS / COUNT(clients)), now_us);
        for (uint64_t turn = 1; turn <= 3; turn++) {
            const uint64_t end_us = clients[0].added_us + turn * INTERVAL_US;
            serve(&wheel, &now_us, end_us);
            for (size_t j = 0; j < COUNT(clients); j++)
                assert_int_equal(clients[j].times, turn);
        }
    }
}

/* Everyone at one place of the wheel, and while they are asked some go and some come. */
static void keepalive_due_entries_may_come_and_go_while_they_are_asked(void **state)
{
    enum { CLIENTS = 300 };
    struct client *clients = new_clients(CLIENTS + 100);
    struct keepalive wheel;
    uint64_t now_us = START_US;
    size_t next_new = CLIENTS;
    size_t asked = 0;
    struct client *client;

    (void)state;
    keepalive_init(&wheel, INTERVAL_US, now_us);
    for (size_t i = 0; i < CLIENTS; i++)
        put(&wheel, &clients[i], 77, now_us);
    now_us = keepalive_next_us(&wheel);
    while ((client = ask_one(&wheel, now_us)) != NULL) {
        asked++;
        assert_int_equal(client->times, 1);
        switch (asked % 4) {
        case 0: /* the one that is being asked */
            take_off(&wheel, client);
            break;
        case 1: /* one that waits behind it, or has been asked */
            client = &clients[random64() % CLIENTS];
            if (client->on_wheel)
                take_off(&wheel, client);
            break;
        case 2:
            if (next_new < CLIENTS + 100)
                put(&wheel, &clients[next_new++], 77, now_us);
            break;
        default:
            break;
        }
        assert_true(asked <= CLIENTS + 100);
    }
    for (size_t i = 0; i < CLIENTS; i++)
        assert_true(!clients[i].on_wheel || clients[i].times == 1);

    serve(&wheel, &now_us, now_us + INTERVAL_US);
    for (size_t i = 0; i < next_new; i++) {
        if (clients[i].on_wheel)
            assert_in_range(clients[i].times, i < CLIENTS ? 2 : 1, 2);
    }
    for (size_t i = 0; i < next_new; i++) {
        if (clients[i].on_wheel)
            take_off(&wheel, &clients[i]);
    }
    assert_true(keepalive_next_us(&wheel) == UINT64_MAX);
    free(clients);
}

static void keepalive_that_was_not_fetched_stays_due(void **state)
{
    struct client clients[10];
    struct keepalive wheel;
    uint64_t now_us = START_US;

    (void)state;
    keepalive_init(&wheel, INTERVAL_US, now_us);
    for (size_t i = 0; i < COUNT(clients); i++)
        put(&wheel, &clients[i], 5, now_us);
    now_us = keepalive_next_us(&wheel);
    for (size_t i = 0; i < COUNT(clients); i++) {
        assert_true(keepalive_next_us(&wheel) <= now_us);
        assert_non_null(ask_one(&wheel, now_us));
        now_us += 10;
    }
    assert_null(ask_one(&wheel, now_us));
    assert_true(keepalive_next_us(&wheel) > now_us + INTERVAL_US * 3 / 4);
    for (size_t i = 0; i < COUNT(clients); i++)
        assert_int_equal(clients[i].times, 1);
}

/*
 * The server stands still for a while, then asks everyone who is due: nobody is left out, and
 * nobody is asked again before three quarters of an interval have passed, since no answer could
 * count before.
 */
static void check_stall(uint64_t stall_us, uint64_t at_us)
{
    enum { CLIENTS = 700 };
    struct client *clients = new_clients(CLIENTS);
    struct keepalive wheel;
    uint64_t now_us = START_US;

    keepalive_init(&wheel, INTERVAL_US, now_us);
    for (size_t i = 0; i < CLIENTS; i++)
        put(&wheel, &clients[i], random64(), now_us);
    serve(&wheel, &now_us, START_US + INTERVAL_US + at_us);
    now_us += stall_us;
    const uint64_t end_us = now_us;

    while (now_us < end_us + 2 * INTERVAL_US + SLOT_US) {
        struct keepalive_entry *entry = keepalive_next(&wheel, now_us);
        if (entry) {
            struct client *client = client_of(entry);
            if (now_us - client->last_us < INTERVAL_US * 3 / 4)
                fail_msg("asked again after %lu of %lu us (stall of %lu)",
                         (unsigned long)(now_us - client->last_us), (unsigned long)INTERVAL_US,
                         (unsigned long)stall_us);
            if (now_us - client->last_us > INTERVAL_US + stall_us + SLOT_US)
                fail_msg("asked only after %lu us (stall of %lu)",
                         (unsigned long)(now_us - client->last_us), (unsigned long)stall_us);
            client->last_us = now_us;
            client->times++;
            continue;
        }
        assert_true(keepalive_next_us(&wheel) > now_us);
        now_us = keepalive_next_us(&wheel);
    }
    for (size_t i = 0; i < CLIENTS; i++)
        assert_in_range(clients[i].last_us, now_us - INTERVAL_US - SLOT_US, now_us);
    free(clients);
}

static void keepalive_after_a_stall_of_any_length_asks_nobody_too_soon(void **state)
{
    (void)state;
    for (uint64_t part = 0; part <= 40; part++)
        check_stall(INTERVAL_US * part / 16, INTERVAL_US / 3);
    check_stall(INTERVAL_US / 4 - SLOT_US, 5);
    check_stall(INTERVAL_US / 4 - 1, 5);
    check_stall(INTERVAL_US / 4, 5);
    check_stall(INTERVAL_US / 4 + 1, 5);
    check_stall(INTERVAL_US / 4 + SLOT_US, 5);
    check_stall(INTERVAL_US * 100 + 3, SLOT_US * 1000);
    check_stall(UINT64_C(30) * 86400 * CLOCK_US_PER_SEC, 0);
}

static void keepalive_after_repeated_stalls_asks_nobody_too_soon(void **state)
{
    enum { CLIENTS = 500 };
    struct client *clients = new_clients(CLIENTS);
    struct keepalive wheel;
    uint64_t now_us = START_US;
    struct client *client;

    (void)state;
    keepalive_init(&wheel, INTERVAL_US, now_us);
    for (size_t i = 0; i < CLIENTS; i++)
        put(&wheel, &clients[i], random64(), now_us);
    for (int round = 0; round < 3000; round++) {
        struct keepalive_entry *entry;

        now_us += random64() % (INTERVAL_US / (1 + random64() % 50));
        while ((entry = keepalive_next(&wheel, now_us)) != NULL) {
            client = client_of(entry);
            assert_true(client->last_us == 0 || now_us - client->last_us >= INTERVAL_US * 3 / 4);
            client->last_us = now_us;
        }
    }
    free(clients);
}

/* A stall in the middle of a slot: half of those who were due had been asked when it began. */
static void keepalive_stall_between_two_of_one_slot_asks_nobody_too_soon(void **state)
{
    struct client clients[20];
    struct keepalive wheel;
    struct keepalive_entry *entry;
    uint64_t now_us = START_US;

    (void)state;
    keepalive_init(&wheel, INTERVAL_US, now_us);
    for (size_t i = 0; i < COUNT(clients); i++)
        put(&wheel, &clients[i], 5, now_us);
    now_us = keepalive_next_us(&wheel);
    for (size_t i = 0; i < COUNT(clients) / 2; i++)
        assert_non_null(ask_one(&wheel, now_us));
    now_us += INTERVAL_US * 9 / 10;
    for (size_t i = 0; i < COUNT(clients) / 2; i++)
        assert_non_null(ask_one(&wheel, now_us));
    for (int round = 0; round < 40; round++) {
        while ((entry = keepalive_next(&wheel, now_us)) != NULL) {
            struct client *client = client_of(entry);
            assert_true(now_us - client->last_us >= INTERVAL_US * 3 / 4);
            client->last_us = now_us;
            client->times++;
        }
        now_us += INTERVAL_US / 16;
    }
    for (size_t i = 0; i < COUNT(clients); i++)
        assert_in_range(clients[i].times, 2, 4);
}

/* Their memory is taken away: whoever touches one that is not due dies. */
static void keepalive_costs_nothing_for_those_who_are_not_due(void **state)
{
    const size_t count = 1000000;
    const size_t size = count * sizeof(struct keepalive_entry);
    struct keepalive_entry *entries =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    static struct keepalive wheel;
    uint64_t due_us;

    (void)state;
    assert_ptr_not_equal(entries, MAP_FAILED);
    keepalive_init(&wheel, INTERVAL_US, START_US);
    for (size_t i = 0; i < count; i++)
        keepalive_add(&wheel, &entries[i], random64() % 1023 + 1, START_US);
    assert_int_equal(mprotect(entries, size, PROT_NONE), 0);
    due_us = keepalive_next_us(&wheel);
    assert_true(due_us > START_US);
    for (uint64_t now_us = START_US; now_us < due_us; now_us++) {
        assert_null(keepalive_next(&wheel, now_us));
        assert_true(keepalive_next_us(&wheel) == due_us);
    }
    keepalive_set_interval(&wheel, INTERVAL_US / 2, START_US);
    assert_true(keepalive_next_us(&wheel) > START_US);
    assert_int_equal(munmap(entries, size), 0);
}

/* Each place of the wheel on a page of its own; only the page of those who are due can be touched.
 */
static void keepalive_asking_some_touches_no_others(void **state)
{
    enum { PAGE = 4096, PER_PAGE = 100 };
    const size_t size = (size_t)KEEPALIVE_SLOTS * PAGE;
    char *pages = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    static size_t order[KEEPALIVE_SLOTS];
    static struct keepalive wheel;
    struct keepalive_entry *entry;
    uint64_t now_us = START_US;
    size_t turns = 0;

    (void)state;
    assert_ptr_not_equal(pages, (char *)MAP_FAILED);
    keepalive_init(&wheel, INTERVAL_US, now_us);
    for (size_t page = 0; page < KEEPALIVE_SLOTS; page++) {
        for (size_t i = 0; i < PER_PAGE; i++) {
            entry = (struct keepalive_entry *)(void *)(pages + page * PAGE) + i;
            keepalive_add(&wheel, entry, page, now_us);
        }
    }
    /* One turn to learn who comes when. */
    for (; turns < KEEPALIVE_SLOTS; turns++) {
        now_us = keepalive_next_us(&wheel);
        entry = keepalive_next(&wheel, now_us);
        order[turns] = (size_t)((char *)entry - pages) / PAGE;
        for (size_t i = 1; i < PER_PAGE; i++)
            assert_int_equal((size_t)((char *)keepalive_next(&wheel, now_us) - pages) / PAGE,
                             order[turns]);
        assert_null(keepalive_next(&wheel, now_us));
    }
    assert_int_equal(mprotect(pages, size, PROT_NONE), 0);
    for (turns = 0; turns < KEEPALIVE_SLOTS; turns++) {
        char *page = pages + order[turns] * PAGE;

        now_us = keepalive_next_us(&wheel);
        assert_int_equal(mprotect(page, PAGE, PROT_READ | PROT_WRITE), 0);
        for (size_t i = 0; i < PER_PAGE; i++)
            assert_non_null(keepalive_next(&wheel, now_us));
        assert_null(keepalive_next(&wheel, now_us));
        assert_int_equal(mprotect(page, PAGE, PROT_NONE), 0);
    }
    assert_int_equal(munmap(pages, size), 0);
}

static void keepalive_new_interval_holds_from_now_on_for_everyone(void **state)
{
    static const uint64_t intervals[] = {INTERVAL_US / 100, INTERVAL_US / 2, INTERVAL_US * 3,
                                         INTERVAL_US * 1000, 1024};
    enum { CLIENTS = 1000 };
    struct client *clients = new_clients(CLIENTS);
    struct keepalive wheel;

    (void)state;
    for (size_t i = 0; i < COUNT(intervals); i++) {
        uint64_t now_us = START_US;
        const uint64_t change_us = START_US + INTERVAL_US + INTERVAL_US * (i + 1) / 7;

        keepalive_init(&wheel, INTERVAL_US, now_us);
        for (size_t j = 0; j < CLIENTS; j++)
            put(&wheel, &clients[j], random64(), now_us);
        serve(&wheel, &now_us, change_us);
        keepalive_set_interval(&wheel, intervals[i], now_us);
        for (size_t j = 0; j < CLIENTS; j++)
            clients[j].times = 0;
        for (uint64_t turn = 1; turn <= 3; turn++) {
            serve(&wheel, &now_us, change_us + turn * intervals[i]);
            for (size_t j = 0; j < CLIENTS; j++)
                assert_int_equal(clients[j].times, turn);
        }
    }
    free(clients);
}

/* One whose question was a tenth of the interval away waits a tenth of the new one. */
static void keepalive_new_interval_leaves_everyone_their_place(void **state)
{
    struct client client;
    struct keepalive wheel;
    uint64_t now_us;
    uint64_t wait_us;

    (void)state;
    keepalive_init(&wheel, INTERVAL_US, START_US);
    put(&wheel, &client, 600, START_US);
    now_us = keepalive_next_us(&wheel) - INTERVAL_US / 10;
    keepalive_set_interval(&wheel, 3 * INTERVAL_US, now_us);
    wait_us = keepalive_next_us(&wheel) - now_us;
    assert_in_range(wait_us, 3 * (INTERVAL_US / 10 - SLOT_US), 3 * (INTERVAL_US / 10 + SLOT_US));
}

static void keepalive_same_interval_again_changes_nothing(void **state)
{
    struct client client;
    struct keepalive wheel;
    uint64_t due_us;

    (void)state;
    keepalive_init(&wheel, INTERVAL_US, START_US);
    put(&wheel, &client, 500, START_US);
    due_us = keepalive_next_us(&wheel);
    for (uint64_t now_us = START_US; now_us < due_us; now_us += SLOT_US * 5 / 7) {
        keepalive_set_interval(&wheel, INTERVAL_US, now_us);
        assert_true(keepalive_next_us(&wheel) == due_us);
    }
}

/* Reloads all the time, each with another interval: nobody may be put off for ever. */
static void keepalive_interval_changed_while_entries_are_due_loses_nobody(void **state)
{
    struct client clients[64];
    struct keepalive wheel;
    uint64_t now_us = START_US;

    (void)state;
    keepalive_init(&wheel, INTERVAL_US, now_us);
    for (size_t i = 0; i < COUNT(clients); i++)
        put(&wheel, &clients[i], i % 2 ? 9 : random64(), now_us);
    now_us += INTERVAL_US;
    for (size_t i = 0; i < 20; i++)
        (void)ask_one(&wheel, now_us);
    keepalive_set_interval(&wheel, INTERVAL_US / 3, now_us);
    serve(&wheel, &now_us, now_us + INTERVAL_US / 3 + SLOT_US);
    for (size_t i = 0; i < COUNT(clients); i++)
        assert_in_range(clients[i].times, 1, 2);
}

static void keepalive_works_from_a_microsecond_to_weeks(void **state)
{
    static const uint64_t intervals[] = {
        1,
        2,
        3,
        10,
        511,
        1023,
        1024,
        1025,
        1000,
        3600 * CLOCK_US_PER_SEC,
        UINT64_C(86400) * CLOCK_US_PER_SEC,
        UINT64_C(30) * 86400 * CLOCK_US_PER_SEC,
    };
    enum { CLIENTS = 200, TURNS = 20 };
    struct client *clients = new_clients(CLIENTS);
    struct keepalive wheel;

    (void)state;
    for (size_t i = 0; i < COUNT(intervals); i++) {
        uint64_t now_us = START_US;

        keepalive_init(&wheel, intervals[i], now_us);
        for (size_t j = 0; j < CLIENTS; j++)
            put(&wheel, &clients[j], random64(), now_us);
        serve(&wheel, &now_us, START_US + TURNS * intervals[i]);
        for (size_t j = 0; j < CLIENTS; j++)
            assert_in_range(clients[j].times, TURNS - 1, TURNS + 1);
    }
    free(clients);
}

/* The clock may stand at zero when the wheel is made, as a test's or a fresh machine's does. */
static void keepalive_works_from_the_first_microsecond_of_the_clock(void **state)
{
    struct client client;
    struct keepalive wheel;
    uint64_t now_us = 0;

    (void)state;
    keepalive_init(&wheel, INTERVAL_US, 0);
    put(&wheel, &client, 1023, 0);
    serve(&wheel, &now_us, INTERVAL_US / 2);
    keepalive_set_interval(&wheel, 100 * INTERVAL_US, now_us);
    serve(&wheel, &now_us, now_us + 300 * INTERVAL_US);
    assert_int_equal(client.times, 3);
}

/*
 * Random adds, removals, questions, stalls and partial fetches, judged by what each client lived
 * through and by nothing the wheel says about itself.
 */
static void keepalive_random_life_keeps_every_promise(void **state)
{
    enum { CLIENTS = 400, STEPS = 60000 };
    struct client *clients = new_clients(CLIENTS);
    struct keepalive wheel;
    uint64_t now_us = START_US;
    uint64_t stalled_us = 0; /* in all: how much of the time the wheel may have stood still */
    uint64_t *stalled_before = calloc(CLIENTS, sizeof(*stalled_before));
    size_t on_wheel = 0;

    (void)state;
    assert_non_null(stalled_before);
    keepalive_init(&wheel, INTERVAL_US, now_us);
    for (int step = 0; step < STEPS; step++) {
        const size_t i = random64() % CLIENTS;
        struct client *client = &clients[i];
        uint64_t pause_us = random64() % (2 * SLOT_US);

        if (!client->on_wheel) {
            put(&wheel, client, random64(), now_us);
            stalled_before[i] = stalled_us;
            on_wheel++;
        } else if (random64() % 8 == 0) {
            take_off(&wheel, client);
            on_wheel--;
        }
        if (random64() % 500 == 0)
            pause_us = random64() % (3 * INTERVAL_US);
        now_us += pause_us;
        if (pause_us > SLOT_US)
            stalled_us += pause_us;

        const bool due = keepalive_next_us(&wheel) <= now_us;
        size_t budget = random64() % 4 == 0 ? random64() % 10 : CLIENTS * 2;
        assert_true(on_wheel > 0 || !due);
        for (bool first = true; budget > 0; budget--, first = false) {
            struct keepalive_entry *entry = keepalive_next(&wheel, now_us);
            if (first)
                assert_int_equal(entry != NULL, due);
            if (!entry)
                break;
            client = client_of(entry);
            assert_true(client->on_wheel);
            const size_t index = (size_t)(client - clients);
            const uint64_t since_us = client->last_us ? client->last_us : client->added_us;
            if (client->last_us)
                assert_true(now_us - client->last_us >= INTERVAL_US * 3 / 4);
            /* Late by no more than we stood still, and what a budget may have kept for later. */
            assert_true(now_us - since_us <=
                        INTERVAL_US + (stalled_us - stalled_before[index]) + INTERVAL_US / 4);
            client->last_us = now_us;
            client->times++;
            stalled_before[index] = stalled_us;
        }
    }
    /* And nobody was forgotten. */
    for (int turn = 0; turn < 2 * KEEPALIVE_SLOTS; turn++) {
        (void)ask_all(&wheel, now_us);
        now_us += SLOT_US;
    }
    for (size_t i = 0; i < CLIENTS; i++)
        assert_true(!clients[i].on_wheel ||
                    now_us - clients[i].last_us <= INTERVAL_US + 2 * SLOT_US);
    free(stalled_before);
    free(clients);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keepalive_of_nobody_is_never_due),
        cmocka_unit_test(keepalive_asks_everyone_exactly_once_an_interval),
        cmocka_unit_test(keepalive_does_not_drift_whatever_the_interval),
        cmocka_unit_test(keepalive_first_question_is_spread_evenly_over_the_interval),
        cmocka_unit_test(keepalive_first_question_comes_within_an_interval_of_the_add),
        cmocka_unit_test(keepalive_added_after_a_long_empty_time_waits_its_turn),
        cmocka_unit_test(keepalive_due_entries_may_come_and_go_while_they_are_asked),
        cmocka_unit_test(keepalive_that_was_not_fetched_stays_due),
        cmocka_unit_test(keepalive_after_a_stall_of_any_length_asks_nobody_too_soon),
        cmocka_unit_test(keepalive_after_repeated_stalls_asks_nobody_too_soon),
        cmocka_unit_test(keepalive_stall_between_two_of_one_slot_asks_nobody_too_soon),
        cmocka_unit_test(keepalive_costs_nothing_for_those_who_are_not_due),
        cmocka_unit_test(keepalive_asking_some_touches_no_others),
        cmocka_unit_test(keepalive_new_interval_holds_from_now_on_for_everyone),
        cmocka_unit_test(keepalive_new_interval_leaves_everyone_their_place),
        cmocka_unit_test(keepalive_same_interval_again_changes_nothing),
        cmocka_unit_test(keepalive_interval_changed_while_entries_are_due_loses_nobody),
        cmocka_unit_test(keepalive_works_from_a_microsecond_to_weeks),
        cmocka_unit_test(keepalive_works_from_the_first_microsecond_of_the_clock),
        cmocka_unit_test(keepalive_random_life_keeps_every_promise),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
