/*
 * Shutdown orders in the store, the upgrade of files that know none, and very many changes at once:
 * what every backend does, and behind it what is in the SQLite file. Orders are freed as soon as
 * the store may not look at them any more, so that a sanitizer sees when it does.
 */
#include "store_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* More changes than any transaction may hold. */
#define TOO_MANY_AT_ONCE 2001

#define MAX_ORDERS       16

/* Every order that was made and may still be looked at. */
static struct store_order *orders[MAX_ORDERS];
static size_t order_count;

/* ---- orders ---- */

static char *text(const char *value)
{
    char *copy = strdup(value);

    assert_non_null(copy);
    return copy;
}

static struct store_order *new_order(int64_t id, size_t wave_count)
{
    struct store_order *order = calloc(1, sizeof(*order));
    char match[32];

    assert_non_null(order);
    assert_true(order_count < MAX_ORDERS);
    orders[order_count++] = order;
    *order = (struct store_order){.id = id,
                                  .by = text("uid 0"),
                                  .state = text("running"),
                                  .created = START_S + id,
                                  .grace_ms = 60000,
                                  .hold_ms = 900000};
    order->waves = calloc(wave_count, sizeof(*order->waves));
    assert_non_null(order->waves);
    for (order->wave_count = 0; order->wave_count < wave_count; order->wave_count++) {
        snprintf(match, sizeof(match), "web-*,o%d-w%zu", (int)id, order->wave_count + 1);
        order->waves[order->wave_count].match = text(match);
    }
    return order;
}

static void set_state(struct store_order *order, const char *state, int64_t ended)
{
    free(order->state);
    order->state = text(state);
    order->ended = ended;
}

static void free_order(struct store_order *order)
{
    for (size_t i = 0; i < order->wave_count; i++)
        free(order->waves[i].match);
    free(order->waves);
    free(order->by);
    free(order->state);
    free(order);
}

/* All but the last one, or really all. */
static void free_orders(bool last_too)
{
    while (order_count > (last_too ? 0 : 1)) {
        free_order(orders[0]);
        order_count--;
        memmove(orders, orders + 1, order_count * sizeof(struct store_order *));
    }
}

static int teardown_orders(void **state)
{
    const int result = teardown(state);

    free_orders(true);
    return result;
}

static void save(struct fixture *f, const struct store_order *order)
{
    assert_int_equal(store_save_order(f->store, order, f->now), 0);
}

/* Gives the next order, which begins its first wave, as session/order.c would: nobody is a target
 * of it yet, and the last one may go. */
static struct store_order *give(struct fixture *f, size_t wave_count)
{
    const int64_t last = order_count > 0 ? orders[order_count - 1]->id : 0;
    struct store_order *order = new_order(last + 1, wave_count);
    struct registry_record *record = NULL;

    for (uint32_t sid = 0; (record = registry_next(f->registry, sid)) != NULL; sid = record->sid)
        record->order_wave = record->order_flags = 0;
    order->waves[0].started = START_S;
    save(f, order);
    free_orders(false);
    return order;
}

static void target(struct fixture *f, const char *cid, uint8_t wave, uint8_t flags)
{
    struct registry_record *record = record_of(f, cid);

    assert_non_null(record);
    record->order_mark = (uint16_t)orders[order_count - 1]->id;
    record->order_wave = wave;
    record->order_flags = flags;
    store_save_target(f->store, record, f->now);
}

/* Lives through the turn; the answer is the last one. */
static enum store_result turn_with_order(struct fixture *f, const struct store_order *order)
{
    const size_t before = f->answered;

    turn(f);
    assert_int_equal(f->answered, before + 1);
    assert_true(f->answers[before].serial == (uint64_t)order->id);
    assert_int_equal(f->answers[before].sid, 0);
    return f->answers[before].result;
}

static void check_same_order(const struct store_order *left, const struct store_order *right)
{
    assert_non_null(left);
    assert_true(left->id == right->id);
    assert_string_equal(left->by, right->by);
    assert_string_equal(left->state, right->state);
    assert_true(left->created == right->created);
    assert_true(left->ended == right->ended);
    assert_true(left->grace_ms == right->grace_ms);
    assert_true(left->hold_ms == right->hold_ms);
    assert_int_equal(left->wave_count, right->wave_count);
    for (size_t i = 0; i < left->wave_count; i++) {
        assert_string_equal(left->waves[i].match, right->waves[i].match);
        assert_true(left->waves[i].started == right->waves[i].started);
        assert_true(left->waves[i].ended == right->waves[i].ended);
    }
}

/* The file has these targets: those of the registry, and no others. */
static void check_targets(struct fixture *f)
{
    struct registry_record *record = NULL;
    int64_t count = 0;
    char sql[160];

    for (uint32_t sid = 0; (record = registry_next(f->registry, sid)) != NULL; sid = record->sid) {
        if (record->order_wave == 0)
            continue;
        count++;
        snprintf(sql, sizeof(sql),
                 "SELECT count(*) FROM order_targets WHERE sid = %u AND wave = %u AND told = %d"
                 " AND acknowledged = %d",
                 record->sid, record->order_wave, (record->order_flags & RECORD_TOLD) != 0,
                 (record->order_flags & RECORD_ACKNOWLEDGED) != 0);
        assert_int_equal(number(f, sql), 1);
    }
    assert_int_equal(number(f, "SELECT count(*) FROM order_targets"), count);
}

static void check_order(struct fixture *f, const struct store_order *order)
{
    char sql[256];

    snprintf(sql, sizeof(sql),
             "SELECT count(*) FROM orders WHERE id = %lld AND state = '%s'"
             " AND ifnull(ended, 0) = %lld AND id = (SELECT max(id) FROM orders)",
             (long long)order->id, order->state, (long long)order->ended);
    assert_int_equal(number(f, sql), 1);
    snprintf(sql, sizeof(sql), "SELECT count(*) FROM order_waves WHERE order_id = %lld",
             (long long)order->id);
    assert_int_equal(number(f, sql), order->wave_count);
}

/* ---- every store ---- */

static void store_answers_each_save_of_an_order_once_and_from_the_turn(void **state)
{
    struct fixture *f = *state;
    struct store_order *order = new_order(7, 2);

    save(f, order);
    (void)claim(f, "a");
    set_state(order, "holding", 0);
    save(f, order);
    save(f, order);
    assert_int_equal(f->answered, 0);
    assert_true(store_next_us(f->store) == 0);
    turn(f);
    assert_int_equal(f->answered, 4);
    size_t of_order = 0;
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(f->answers[i].result, STORE_OK);
        if (f->answers[i].sid == 0) {
            assert_true(f->answers[i].serial == 7);
            of_order++;
        }
    }
    assert_int_equal(of_order, 3);
    turn(f);
    idle_us(f, CLOCK_US_PER_SEC);
    assert_int_equal(f->answered, 4);
    assert_true(store_next_us(f->store) == UINT64_MAX);
}

static void save_again(struct fixture *f, const struct store_answer *answer)
{
    if (answer->sid == 0 && f->answered < 5) {
        const size_t before = f->answered;
        save(f, orders[order_count - 1]);
        assert_int_equal(f->answered, before);
        assert_true(store_next_us(f->store) == 0);
    }
}

static void store_save_while_answering_is_answered_in_the_next_turn(void **state)
{
    struct fixture *f = *state;

    f->hook = save_again;
    (void)give(f, 1);
    for (size_t i = 1; i <= 5; i++) {
        turn(f);
        assert_int_equal(f->answered, i);
    }
    turn(f);
    assert_int_equal(f->answered, 5);
}

static void store_takes_targets_without_an_answer(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(enter(f, "a"), STORE_OK);
    assert_int_equal(turn_with_order(f, give(f, 1)), STORE_OK);
    target(f, "a", 1, RECORD_TOLD);
    turn(f);
    target(f, "a", 1, RECORD_TOLD | RECORD_ACKNOWLEDGED);
    leave(f, "a", REASON_SHUTDOWN);
    forget(f, "a");
    idle_us(f, CLOCK_US_PER_SEC * 3);
    assert_int_equal(f->answered, 2);
    assert_true(store_next_us(f->store) == UINT64_MAX);
}

static void store_closed_with_an_order_unanswered_answers_none(void **state)
{
    struct fixture *f = *state;

    (void)give(f, 1);
    close_store(f);
    assert_int_equal(f->answered, 0);
    open_store(f);
}

static void store_that_never_had_an_order_has_none(void **state)
{
    struct fixture *f = *state;

    assert_null(store_order(f->store));
    assert_int_equal(turn_with_order(f, give(f, 1)), STORE_OK);
    assert_null(store_order(f->store)); /* it had none when it was opened */
}

static void store_counts_what_it_does(void **state)
{
    struct fixture *f = *state;
    const struct store_stats *stats = store_stats(f->store);

    assert_true(stats->commits == 0 && stats->failures == 0 && stats->waiting == 0);
    (void)claim(f, "a");
    (void)claim(f, "b");
    (void)give(f, 1);
    assert_true(store_stats(f->store)->waiting == 3);
    turn(f);
    turn(f);
    stats = store_stats(f->store);
    assert_true(stats->commits == 1 && stats->failures == 0 && stats->waiting == 0);
    assert_true(stats->commit.total == 1);
}

/* ---- sqlite: what is in the file, and when ---- */

static void check_order_is_visible(struct fixture *f, const struct store_answer *answer)
{
    assert_int_equal(answer->result, STORE_OK);
    check_order(f, orders[order_count - 1]);
}

static void sqlite_order_is_there_for_others_when_the_answer_comes(void **state)
{
    struct fixture *f = *state;

    f->hook = check_order_is_visible;
    f->busy = true; /* it does not wait for company */
    struct store_order *order = give(f, 3);
    assert_true(store_next_us(f->store) == 0);
    assert_int_equal(turn_with_order(f, order), STORE_OK);
    assert_true(store_next_us(f->store) > f->now.mono_us);
    assert_int_equal(number(f, "SELECT count(*) FROM orders WHERE id = 1 AND by = 'uid 0' AND"
                               " state = 'running' AND created = 1700000001 AND ended IS NULL AND"
                               " grace_ms = 60000 AND hold_ms = 900000"),
                     1);
    assert_int_equal(number(f, "SELECT count(*) FROM order_waves WHERE order_id = 1 AND"
                               " ((wave = 1 AND match = 'web-*,o1-w1' AND started = 1700000000) OR"
                               " (wave IN (2, 3) AND started IS NULL)) AND ended IS NULL"),
                     3);
    set_state(order, "done", START_S + 99);
    order->waves[0].ended = START_S + 50;
    save(f, order);
    assert_int_equal(turn_with_order(f, order), STORE_OK);
    assert_int_equal(number(f, "SELECT ended FROM orders"), START_S + 99);
    assert_int_equal(number(f, "SELECT ended FROM order_waves WHERE wave = 1"), START_S + 50);
}

static void sqlite_saves_of_a_turn_are_one_transaction(void **state)
{
    struct fixture *f = *state;

    fill(f, 10);
    const size_t before = commits(f);
    struct store_order *order = give(f, 2);
    save(f, order);
    (void)claim(f, "c10");
    target(f, "c1", 1, RECORD_TOLD);
    turn(f);
    assert_int_equal(commits(f), before + 1);
    turn(f);
    assert_int_equal(commits(f), before + 1);
}

/* A machine that was told is down soon, and killing the server then must not make the next one wait
 * for it. */
static void sqlite_targets_are_durable_at_the_end_of_the_turn(void **state)
{
    struct fixture *f = *state;

    fill(f, 5);
    assert_int_equal(turn_with_order(f, give(f, 2)), STORE_OK);
    const size_t before = commits(f);
    target(f, "c1", 1, RECORD_TOLD);
    target(f, "c2", 1, RECORD_TOLD);
    turn(f);
    assert_int_equal(commits(f), before + 1);
    target(f, "c1", 1, RECORD_TOLD | RECORD_ACKNOWLEDGED | RECORD_AWAITED);
    turn(f);
    assert_int_equal(commits(f), before + 2);
    check_targets(f);
    check_file_is_the_registry(f);
}

static void sqlite_order_and_targets_come_back_as_they_were(void **state)
{
    struct fixture *f = *state;

    fill(f, 5);
    struct store_order *order = give(f, 255);
    order->waves[0].ended = START_S + 3;
    order->waves[1].started = START_S + 4;
    order->grace_ms = 0;
    order->hold_ms = UINT64_C(30) * 24 * 3600 * 1000;
    target(f, "c1", 1, RECORD_TOLD | RECORD_ACKNOWLEDGED);
    target(f, "c2", 2, RECORD_TOLD | RECORD_AWAITED);
    target(f, "c3", 255, RECORD_AWAITED);
    turn(f);
    for (int i = 0; i < 3; i++) {
        reopen_store(f);
        check_same_order(store_order(f->store), order);
        assert_int_equal(record_of(f, "c0")->order_wave, 0);
        assert_int_equal(record_of(f, "c1")->order_wave, 1);
        assert_int_equal(record_of(f, "c1")->order_flags, RECORD_TOLD | RECORD_ACKNOWLEDGED);
        assert_int_equal(record_of(f, "c2")->order_wave, 2);
        assert_int_equal(record_of(f, "c2")->order_flags, RECORD_TOLD);
        assert_int_equal(record_of(f, "c3")->order_wave, 255);
        assert_int_equal(record_of(f, "c3")->order_flags, 0);
    }
    /* And goes on, without being saved again first. */
    target(f, "c3", 255, RECORD_TOLD);
    idle_us(f, GATHER_US);
    check_targets(f);
}

static void sqlite_order_in_no_commit_yet_is_written_at_the_close(void **state)
{
    struct fixture *f = *state;

    fill(f, 2);
    struct store_order *order = give(f, 2);
    target(f, "c1", 2, RECORD_TOLD);
    reopen_store(f);
    check_same_order(store_order(f->store), order);
    assert_int_equal(record_of(f, "c1")->order_wave, 2);
    assert_int_equal(f->answered, 2);
    set_state(order, "done", START_S + 7);
    save(f, order);
    reopen_store(f); /* with nothing else to write */
    check_same_order(store_order(f->store), order);
}

static void sqlite_all_orders_are_kept_and_the_last_one_is_loaded(void **state)
{
    struct fixture *f = *state;
    struct store_order *order = NULL;

    for (int i = 1; i <= 12; i++) {
        order = give(f, (size_t)i);
        assert_int_equal(turn_with_order(f, order), STORE_OK);
    }
    assert_int_equal(number(f, "SELECT count(*) FROM orders"), 12);
    assert_int_equal(number(f, "SELECT count(*) FROM order_waves"), 78);
    reopen_store(f);
    check_same_order(store_order(f->store), order);
}

/* The first is over and the next one given before anything of it could be written: both are. */
static void sqlite_order_that_another_came_after_in_its_turn_is_written(void **state)
{
    struct fixture *f = *state;

    struct store_order *order = give(f, 2);
    set_state(order, "cancelled", START_S + 1);
    save(f, order);
    (void)give(f, 1);
    (void)give(f, 1);
    turn(f);
    assert_int_equal(f->answered, 4);
    assert_true(f->answers[1].serial == 1 && f->answers[3].serial == 3);
    assert_int_equal(number(f, "SELECT count(*) FROM orders"), 3);
    assert_int_equal(number(f, "SELECT count(*) FROM orders WHERE id = 1 AND state = 'cancelled'"),
                     1);
    assert_int_equal(number(f, "SELECT count(*) FROM order_waves WHERE order_id = 1"), 2);
    assert_true(store_stats(f->store)->waiting == 0);
}

static void sqlite_new_order_removes_the_targets_of_the_last(void **state)
{
    struct fixture *f = *state;

    fill(f, 10);
    assert_int_equal(turn_with_order(f, give(f, 2)), STORE_OK);
    target(f, "c1", 1, RECORD_TOLD);
    target(f, "c2", 1, RECORD_TOLD);
    idle_us(f, GATHER_US);
    check_targets(f);

    target(f, "c3", 2, RECORD_TOLD); /* waits, and is overtaken by the next order */
    assert_int_equal(turn_with_order(f, give(f, 1)), STORE_OK);
    assert_int_equal(number(f, "SELECT count(*) FROM order_targets"), 0);
    target(f, "c2", 1, 0);
    idle_us(f, GATHER_US);
    check_targets(f);
    assert_int_equal(number(f, "SELECT sid FROM order_targets"), record_of(f, "c2")->sid);

    /* The same in one turn; and saving it again removes nothing. */
    target(f, "c4", 1, 0);
    struct store_order *order = give(f, 1);
    target(f, "c5", 1, RECORD_TOLD);
    save(f, order);
    idle_us(f, GATHER_US);
    set_state(order, "done", START_S);
    save(f, order);
    idle_us(f, GATHER_US);
    check_targets(f);
    assert_int_equal(number(f, "SELECT sid FROM order_targets"), record_of(f, "c5")->sid);
}

/* Its sid is the next one's. */
static void sqlite_forgotten_client_is_no_target(void **state)
{
    struct fixture *f = *state;

    fill(f, 3);
    assert_int_equal(turn_with_order(f, give(f, 1)), STORE_OK);
    target(f, "c0", 1, RECORD_TOLD);
    target(f, "c2", 1, RECORD_TOLD);
    idle_us(f, GATHER_US);
    target(f, "c1", 1, RECORD_TOLD); /* and this one waits */
    for (int i = 0; i < 2; i++) {
        leave(f, i ? "c1" : "c0", REASON_SHUTDOWN);
        forget(f, i ? "c1" : "c0");
    }
    assert_int_equal(enter(f, "new"), STORE_OK);
    assert_int_equal(record_of(f, "new")->sid, 1);
    check_targets(f);
    target(f, "new", 1, 0);
    reopen_store(f);
    assert_int_equal(record_of(f, "new")->order_wave, 1);
    assert_int_equal(record_of(f, "new")->order_flags, 0);
    check_targets(f);
}

/* ---- sqlite: very many changes ---- */

static void many(struct fixture *f, int count, void (*what)(struct fixture *f, const char *cid))
{
    char cid[32];

    for (int i = 0; i < count; i++) {
        snprintf(cid, sizeof(cid), "c%d", i);
        what(f, cid);
    }
}

static void tell(struct fixture *f, const char *cid)
{
    target(f, cid, 1, RECORD_TOLD);
}

static void acknowledge(struct fixture *f, const char *cid)
{
    target(f, cid, 1, RECORD_TOLD | RECORD_ACKNOWLEDGED);
}

static void shut_down(struct fixture *f, const char *cid)
{
    leave(f, cid, REASON_SHUTDOWN);
}

/* Lives through turns while they are wanted at once, and returns how many. */
static int turns_without_a_pause(struct fixture *f)
{
    int turns = 0;

    while (store_next_us(f->store) == 0) {
        const uint64_t waiting = store_stats(f->store)->waiting;
        const uint64_t committed = store_stats(f->store)->commits;

        turn(f);
        assert_true(store_stats(f->store)->commits == committed + 1);
        assert_true(waiting - store_stats(f->store)->waiting < TOO_MANY_AT_ONCE);
        turns++;
    }
    return turns;
}

static void sqlite_very_many_changes_are_written_in_slices(void **state)
{
    struct fixture *f = *state;

    fill(f, 5000);
    assert_int_equal(turn_with_order(f, give(f, 1)), STORE_OK);
    many(f, 5000, tell);
    many(f, 5000, acknowledge);
    many(f, 5000, shut_down);
    assert_true(store_stats(f->store)->waiting == 15000);
    assert_true(store_next_us(f->store) == 0); /* these need no more company */
    assert_in_range(turns_without_a_pause(f), 8, 15);
    assert_true(store_stats(f->store)->waiting == 0);
    check_file_is_the_registry(f);
    assert_int_equal(number(f, "SELECT count(*) FROM order_targets WHERE told AND acknowledged"),
                     5000);
    /* What comes next has its own time to wait. */
    (void)enter(f, "c0");
    leave(f, "c0", REASON_LEFT);
    assert_true(store_next_us(f->store) == f->now.mono_us + GATHER_US);
}

/* More come while the last ones are written. */
static void sqlite_slices_keep_the_order_of_changes(void **state)
{
    struct fixture *f = *state;
    char cid[32];

    fill(f, 3000);
    assert_int_equal(turn_with_order(f, give(f, 1)), STORE_OK);
    many(f, 3000, shut_down);
    for (int i = 0; i < 3000; i++) {
        snprintf(cid, sizeof(cid), "c%d", i);
        target(f, cid, 1, i % 2 ? RECORD_TOLD : 0);
        if (i % 3 == 0)
            forget(f, cid);
        if (i % 500 == 0)
            turn(f);
    }
    f->answered = 0;
    for (int i = 0; i < 1500; i++) {
        snprintf(cid, sizeof(cid), "d%d", i);
        (void)claim(f, cid); /* with the sids of those that were forgotten, and new ones */
    }
    idle_us(f, GATHER_US);
    assert_int_equal(f->answered, 1500);
    for (size_t i = 0; i < 1500; i++)
        assert_int_equal(f->answers[i].result, STORE_OK);
    check_file_is_the_registry(f);
    check_targets(f);
    reopen_store(f);
    assert_int_equal(registry_count(f->registry), 3500);
}

/* A client that needs nothing of what waits does not wait for it; one that may, does. */
static void sqlite_registration_waits_only_for_what_it_needs(void **state)
{
    struct fixture *f = *state;

    fill(f, 5000);
    many(f, 5000, shut_down);
    f->answered = 0;
    assert_int_equal(enter(f, "new"), STORE_OK);
    assert_true(store_stats(f->store)->waiting > 0);
    forget(f, "c7");
    (void)claim(f, "heir");
    (void)give(f, 1);
    assert_int_equal(record_of(f, "heir")->sid, 8);
    turn(f);
    assert_int_equal(f->answered, 2); /* the order does not wait either */
    assert_int_equal(f->answers[1].sid, 0);
    f->busy = true;
    assert_in_range(turns_without_a_pause(f), 1, 4);
    f->busy = false;
    assert_int_equal(f->answered, 3);
    assert_int_equal(last_result(f), STORE_OK);
    idle_us(f, GATHER_US);
    check_file_is_the_registry(f);
}

static void sqlite_very_many_changes_are_all_written_at_the_close(void **state)
{
    struct fixture *f = *state;

    fill(f, 5000);
    many(f, 5000, shut_down);
    store_close(f->store, f->now);
    f->store = NULL;
    check_file_is_the_registry(f);
    assert_int_equal(number(f, "SELECT count(*) FROM clients WHERE cstatus = 0"), 5000);
}

static void sqlite_very_many_changes_wait_while_the_file_is_locked(void **state)
{
    struct fixture *f = *state;

    fill(f, 5000);
    sqlite3 *other = lock_for_writing(f);
    many(f, 5000, shut_down);
    turn(f);
    assert_false(store_healthy(f->store));
    assert_true(store_next_us(f->store) > f->now.mono_us); /* no turns for nothing */
    assert_true(store_stats(f->store)->waiting == 5000);
    assert_true(store_stats(f->store)->failures == 1);
    unlock(other);
    idle_us(f, HEAL_US);
    assert_true(store_stats(f->store)->waiting == 0);
    check_file_is_the_registry(f);
}

/* ---- sqlite: trouble ---- */

/* Two orders are given, the first of which ends, and clients are told; none of it can be written.
 */
static void live_through_trouble(struct fixture *f)
{
    struct store_order *order = give(f, 2);

    assert_int_equal(turn_with_order(f, order), STORE_UNAVAILABLE);
    assert_false(store_healthy(f->store));
    target(f, "c1", 1, RECORD_TOLD);
    set_state(order, "done", START_S + 9);
    save(f, order);
    assert_int_equal(turn_with_order(f, order), STORE_UNAVAILABLE);

    order = give(f, 3);
    assert_int_equal(turn_with_order(f, order), STORE_UNAVAILABLE);
    target(f, "c2", 2, RECORD_TOLD);
    target(f, "c3", 2, RECORD_TOLD);
    leave(f, "c3", REASON_SHUTDOWN);
    forget(f, "c3");
    idle_us(f, CLOCK_US_PER_SEC);
    assert_false(store_healthy(f->store));
    assert_true(store_stats(f->store)->failures > 1);
    save(f, order);
    assert_int_equal(turn_with_order(f, order), STORE_UNAVAILABLE);
}

static void check_healed(struct fixture *f)
{
    struct store_order *order = orders[order_count - 1];

    idle_us(f, HEAL_US);
    assert_true(store_healthy(f->store));
    assert_true(store_stats(f->store)->waiting == 0);
    assert_int_equal(number(f, "SELECT count(*) FROM orders WHERE state = 'done' AND id = 2"), 1);
    assert_int_equal(number(f, "SELECT count(*) FROM order_waves WHERE order_id = 2"), 2);
    check_order(f, order);
    check_targets(f);
    check_file_is_the_registry(f);
    reopen_store(f);
    check_same_order(store_order(f->store), order);
    check_targets(f);
}

static void begin_with_an_order(struct fixture *f)
{
    fill(f, 5);
    assert_int_equal(turn_with_order(f, give(f, 1)), STORE_OK);
    target(f, "c0", 1, RECORD_TOLD);
    idle_us(f, GATHER_US);
}

static void sqlite_order_given_while_locked_is_written_later(void **state)
{
    struct fixture *f = *state;

    begin_with_an_order(f);
    sqlite3 *other = lock_for_writing(f);
    live_through_trouble(f);
    unlock(other);
    check_healed(f);
    assert_int_equal(number(f, "SELECT count(*) FROM orders"), 3);
}

/* ---- memory ---- */

/* Allocations that go well before all fail; below 0: all go well. */
static int allocations_left = -1;

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__wrap_realloc(void *old, size_t size);

static bool may_allocate(void)
{
    if (allocations_left == 0)
        return false;
    allocations_left -= allocations_left > 0;
    return true;
}

void *__wrap_malloc(size_t size)
{
    return may_allocate() ? __real_malloc(size) : NULL;
}

void *__wrap_calloc(size_t count, size_t size)
{
    return may_allocate() ? __real_calloc(count, size) : NULL;
}

void *__wrap_realloc(void *old, size_t size)
{
    return may_allocate() ? __real_realloc(old, size) : NULL;
}

/* The file is locked, so the last order has to be kept beside the new one; for want of memory there
 * is no new one, and the last one is still written. */
static void sqlite_order_without_memory_to_keep_the_last_one_is_none(void **state)
{
    struct fixture *f = *state;
    int left = 0;

    begin_with_an_order(f);
    sqlite3 *other = lock_for_writing(f);
    struct store_order *last = give(f, 2);
    turn(f);
    set_state(last, "cancelled", START_S + 1);
    save(f, last);
    turn(f);
    struct store_order *next = new_order(last->id + 1, 1);
    for (int result = -1; result != 0; left++) {
        allocations_left = left;
        result = store_save_order(f->store, next, f->now);
        allocations_left = -1;
    }
    assert_true(left > 3); /* the list, the copy, its waves */
    turn(f);
    unlock(other);
    idle_us(f, HEAL_US);
    assert_int_equal(number(f, "SELECT count(*) FROM orders"), 3);
    assert_int_equal(number(f, "SELECT count(*) FROM orders WHERE id = 2 AND state = 'cancelled'"),
                     1);
    assert_int_equal(number(f, "SELECT count(*) FROM order_waves WHERE order_id = 2"), 2);
}

/* Sixty-four registrations have taken the room for answers: the order's end gets none, and is
 * written. After a restart it must not go on. */
static void sqlite_end_of_an_order_without_room_for_its_answer_is_written(void **state)
{
    struct fixture *f = *state;

    struct store_order *order = give(f, 1);
    turn(f);
    for (int i = 0; i < 64; i++) {
        char cid[8];
        snprintf(cid, sizeof(cid), "x%d", i);
        (void)claim(f, cid);
    }
    set_state(order, "cancelled", START_S + 1);
    allocations_left = 0;
    assert_int_equal(store_save_order(f->store, order, f->now), -1);
    allocations_left = -1;
    turn(f);
    idle_us(f, GATHER_US);
    assert_int_equal(number(f, "SELECT count(*) FROM orders WHERE state = 'cancelled'"), 1);
}

/* An I/O error: the file is opened anew, and everything written again. */
static void sqlite_order_given_while_the_file_may_not_grow_is_written_later(void **state)
{
    struct fixture *f = *state;

    begin_with_an_order(f);
    limit_file_size(4096);
    live_through_trouble(f);
    lift_file_size_limit();
    check_healed(f);
    assert_int_equal(number(f, "SELECT count(*) FROM orders"), 3);
}

static void sqlite_deleted_file_gets_the_order_again(void **state)
{
    struct fixture *f = *state;

    begin_with_an_order(f);
    target(f, "c1", 1, RECORD_TOLD | RECORD_ACKNOWLEDGED);
    remove_file(f, true);
    assert_int_equal(enter(f, "new"), STORE_OK);
    check_order(f, orders[0]);
    check_targets(f);
    check_file_is_the_registry(f);

    /* Also the one that was loaded, and saved by nobody since. */
    reopen_store(f);
    remove_file(f, true);
    assert_int_equal(enter(f, "new"), STORE_OK);
    check_order(f, orders[0]);
    check_targets(f);
    assert_int_equal(number(f, "SELECT count(*) FROM order_targets"), 2);
}

/* The plan of a new order takes some turns. Until it comes to a record, what stands there is of the
 * order before, and nobody may be taken for a target because of it. */
static void sqlite_file_written_anew_has_no_target_of_an_order_before(void **state)
{
    struct fixture *f = *state;

    begin_with_an_order(f);
    target(f, "c1", 1, RECORD_TOLD | RECORD_ACKNOWLEDGED);
    assert_int_equal(enter(f, "new"), STORE_OK);
    assert_true(number(f, "SELECT count(*) FROM order_targets") > 0);

    struct store_order *next = new_order(orders[order_count - 1]->id + 1, 1);
    assert_int_equal(store_save_order(f->store, next, f->now), 0);
    assert_int_equal(turn_with_order(f, next), STORE_OK);
    remove_file(f, true);
    assert_int_equal(enter(f, "newer"), STORE_OK);
    assert_int_equal(number(f, "SELECT count(*) FROM orders WHERE id > 1"), 1);
    assert_int_equal(number(f, "SELECT count(*) FROM order_targets"), 0);
}

static void sqlite_stopped_while_failing_writes_the_orders(void **state)
{
    struct fixture *f = *state;

    begin_with_an_order(f);
    sqlite3 *other = lock_for_writing(f);
    live_through_trouble(f);
    unlock(other);
    reopen_store(f);
    check_healed(f);
}

/* ---- sqlite: files that are older, or make no sense ---- */

/* As version 1 made it, to the byte, and what version 3 makes of it. */
#define COLUMNS_1                                                                                  \
    "CREATE TABLE clients ( sid INTEGER PRIMARY KEY, cid TEXT NOT NULL UNIQUE, cip TEXT NOT NULL," \
    " cport INTEGER NOT NULL, cstatus INTEGER NOT NULL, since INTEGER NOT NULL,"                   \
    " last_seen INTEGER NOT NULL, rtt_ms REAL, reason TEXT NOT NULL, node TEXT NOT NULL"
static const char schema_1[] = COLUMNS_1 ")";
/* Quotes are doubled, to be compared in SQL. */
static const char schema_3[] = COLUMNS_1 ", credential TEXT NOT NULL DEFAULT '''')";

/* What version 2 has beside it, with an order under way. */
static const char orders_2[] =
    "CREATE TABLE orders ( id INTEGER PRIMARY KEY, by TEXT NOT NULL, state TEXT NOT NULL,"
    " created INTEGER NOT NULL, ended INTEGER, grace_ms INTEGER NOT NULL,"
    " hold_ms INTEGER NOT NULL);"
    "CREATE TABLE order_waves ( order_id INTEGER NOT NULL, wave INTEGER NOT NULL,"
    " match TEXT NOT NULL, started INTEGER, ended INTEGER, PRIMARY KEY (order_id, wave));"
    "CREATE TABLE order_targets ( sid INTEGER PRIMARY KEY, wave INTEGER NOT NULL,"
    " told INTEGER NOT NULL, acknowledged INTEGER NOT NULL, late INTEGER NOT NULL);"
    "INSERT INTO orders VALUES (7, 'operator', 'running', 1, NULL, 60000, 0);"
    "INSERT INTO order_waves VALUES (7, 1, 'web-*', 1, NULL);"
    "INSERT INTO order_targets VALUES (1, 1, 1, 0, 0);"
    "PRAGMA user_version = 2;";

static void make_version_1(struct fixture *f)
{
    char sql[1024];

    (void)remove(f->path);
    snprintf(sql, sizeof(sql),
             "PRAGMA journal_mode = WAL; BEGIN; %s; PRAGMA application_id = 0x636c7372;"
             " PRAGMA user_version = 1; COMMIT;"
             "INSERT INTO clients VALUES (1, 'web-1', '192.0.2.7', 40000, 0, 1, 2, 1.5, 'left', "
             "'node-a'),"
             " (3, 'web-3', '192.0.2.7', 40001, 1, 3, 4, NULL, '', 'node-a')",
             schema_1);
    execute_in(f->path, sql);
}

static void sqlite_registry_of_version_1_is_upgraded(void **state)
{
    struct fixture *f = *state;
    char sql[1024];

    for (int round = 0; round < 2; round++) {
        make_version_1(f);
        if (round == 1)
            execute_in(f->path, "PRAGMA journal_mode = DELETE");
        open_store(f);
        assert_int_equal(number(f, "PRAGMA user_version"), 3);
        assert_int_equal(number(f, "PRAGMA application_id"), 0x636c7372);
        assert_int_equal(registry_count(f->registry), 2);
        assert_int_equal(record_of(f, "web-1")->rtt_us, 1500);
        assert_int_equal(record_of(f, "web-3")->reason, REASON_CRASH);
        assert_int_equal(record_of(f, "web-1")->credential, 0);
        assert_null(store_order(f->store));
        check_file_is_the_registry(f);

        assert_int_equal(turn_with_order(f, give(f, 2)), STORE_OK);
        assert_int_equal(enter(f, "web-2"), STORE_OK);
        assert_int_equal(record_of(f, "web-2")->sid, 2);
        target(f, "web-1", 2, RECORD_TOLD);
        reopen_store(f);
        check_same_order(store_order(f->store), orders[0]);
        check_targets(f);
        snprintf(sql, sizeof(sql), "SELECT sql = '%s' FROM sqlite_master WHERE name = 'clients'",
                 schema_3);
        assert_int_equal(number(f, sql), 1);
        close_store(f);
        free_orders(true);
    }
}

static void sqlite_registry_of_version_2_is_upgraded(void **state)
{
    struct fixture *f = *state;
    char sql[1024];

    make_version_1(f);
    execute_in(f->path, orders_2);
    open_store(f);
    assert_int_equal(number(f, "PRAGMA user_version"), 3);
    assert_int_equal(registry_count(f->registry), 2);
    assert_non_null(store_order(f->store));
    assert_int_equal(store_order(f->store)->id, 7);
    assert_int_equal(record_of(f, "web-1")->order_flags, RECORD_TOLD);
    assert_int_equal(record_of(f, "web-1")->credential, 0);
    assert_int_equal(enter(f, "web-1"), STORE_OK);
    reopen_store(f);
    assert_int_equal(record_of(f, "web-1")->credential, credential_of("web-1"));
    assert_int_equal(record_of(f, "web-3")->credential, 0);
    check_file_is_the_registry(f);
    snprintf(sql, sizeof(sql), "SELECT sql = '%s' FROM sqlite_master WHERE name = 'clients'",
             schema_3);
    assert_int_equal(number(f, sql), 1);
}

static void sqlite_registry_of_version_2_that_is_wrong_stays_as_it_was(void **state)
{
    static const char *const changes[] = {
        "ALTER TABLE clients ADD COLUMN credential TEXT",
        "ALTER TABLE clients RENAME COLUMN node TO host",
        "DROP TABLE order_waves",
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < COUNT(changes); i++) {
        make_version_1(f);
        execute_in(f->path, orders_2);
        execute_in(f->path, changes[i]);
        refuse_unchanged(f);
        assert_int_equal(number(f, "PRAGMA user_version"), 2);
    }
}

static void sqlite_new_registry_has_the_table_of_an_upgraded_one(void **state)
{
    struct fixture *f = *state;
    char sql[1024];

    snprintf(sql, sizeof(sql), "SELECT sql = '%s' FROM sqlite_master WHERE name = 'clients'",
             schema_3);
    assert_int_equal(number(f, sql), 1);
}

static void sqlite_registry_of_version_1_that_is_wrong_stays_as_it_was(void **state)
{
    static const char *const changes[] = {
        "ALTER TABLE clients RENAME COLUMN cip TO ip",
        "CREATE TABLE orders (id INTEGER PRIMARY KEY, goods TEXT)",
        "CREATE TABLE order_targets (id INTEGER PRIMARY KEY, goods TEXT)",
        "DROP TABLE clients",
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < COUNT(changes); i++) {
        make_version_1(f);
        execute_in(f->path, changes[i]);
        refuse_unchanged(f);
        assert_int_equal(number(f, "PRAGMA user_version"), 1);
    }
}

static void sqlite_registry_of_version_1_with_a_row_that_is_no_client_is_upgraded(void **state)
{
    struct fixture *f = *state;

    make_version_1(f);
    const int64_t before = number(f, "SELECT count(*) FROM clients");
    execute_in(f->path, "UPDATE clients SET cid = 'two words' WHERE sid = 3");
    open_store(f);
    assert_int_equal(registry_count(f->registry), before - 1);
    assert_int_equal(number(f, "SELECT count(*) FROM clients"), before - 1);
}

static void sqlite_registry_of_version_1_that_cannot_be_written_stays_as_it_was(void **state)
{
    struct fixture *f = *state;

    make_version_1(f);
    sqlite3 *other = lock_for_writing(f);
    refuse_to_open(f);
    assert_non_null(strstr(f->message, "locked"));
    assert_non_null(strstr(f->message, "upgraded"));
    unlock(other);
    assert_int_equal(number(f, "PRAGMA user_version"), 1);

    limit_file_size(4096);
    refuse_unchanged(f);
    lift_file_size_limit();
    assert_int_equal(number(f, "PRAGMA user_version"), 1);

    assert_int_equal(chmod(f->path, 0400), 0);
    if (access(f->path, W_OK) != 0) /* nothing is read-only for root */
        refuse_unchanged(f);
    assert_int_equal(chmod(f->path, 0600), 0);

    open_store(f);
    assert_int_equal(number(f, "PRAGMA user_version"), 3);
    assert_int_equal(registry_count(f->registry), 2);
}

/* An order and a target, closed. */
static void make_file_with_an_order(struct fixture *f)
{
    open_store(f);
    fill(f, 5);
    (void)give(f, 2);
    (void)give(f, 3);
    target(f, "c1", 2, RECORD_TOLD);
    target(f, "c2", 3, RECORD_TOLD);
    close_store(f);
}

static void sqlite_order_that_is_none_is_refused_untouched(void **state)
{
    static const char *const changes[] = {
        "DELETE FROM order_waves WHERE order_id = 2",
        "DELETE FROM order_waves WHERE order_id = 2 AND wave = 1",
        "DELETE FROM order_waves WHERE order_id = 2 AND wave = 2",
        "UPDATE order_waves SET wave = 0 WHERE order_id = 2 AND wave = 1",
        "UPDATE order_waves SET wave = -1 WHERE order_id = 2 AND wave = 1",
        "UPDATE order_waves SET wave = 9223372036854775807 WHERE order_id = 2 AND wave = 3",
        "UPDATE order_waves SET wave = 'last' WHERE order_id = 2 AND wave = 3",
        "WITH RECURSIVE n(i) AS (SELECT 4 UNION ALL SELECT i + 1 FROM n WHERE i < 256)"
        " INSERT INTO order_waves SELECT 2, i, '*', NULL, NULL FROM n",
        "UPDATE order_waves SET started = -1 WHERE order_id = 2",
        "UPDATE order_waves SET ended = 9223372036854775807 WHERE order_id = 2",
        "UPDATE order_waves SET started = 'noon' WHERE order_id = 2",
        "UPDATE orders SET created = -1 WHERE id = 2",
        "UPDATE orders SET created = 1e300 WHERE id = 2",
        "UPDATE orders SET ended = -9223372036854775807 WHERE id = 2",
        "UPDATE orders SET grace_ms = -60000 WHERE id = 2",
        "UPDATE orders SET grace_ms = '1m' WHERE id = 2",
        "UPDATE orders SET hold_ms = 9223372036854775807 WHERE id = 2",
        "INSERT INTO orders SELECT 3, by, state, created, ended, grace_ms, hold_ms FROM orders"
        " WHERE id = 2",
        "INSERT INTO orders SELECT 9223372036854775807, by, state, created, ended, grace_ms,"
        " hold_ms FROM orders WHERE id = 2",
        "DELETE FROM orders; INSERT INTO orders VALUES (0, '', '', 1, NULL, 1, 1)",
        "DELETE FROM orders; INSERT INTO orders VALUES (-7, '', '', 1, NULL, 1, 1)",
    };
    struct fixture *f = *state;

    make_file_with_an_order(f);
    struct content whole = content_of(f->path);
    for (size_t i = 0; i < COUNT(changes); i++) {
        write_content(f->path, whole.bytes, whole.len);
        execute_in(f->path, changes[i]);
        refuse_unchanged(f);
        assert_non_null(strstr(f->message, "order (id "));
    }
    /* What the message says helps. */
    execute_in(f->path, "DELETE FROM orders WHERE id < 1; DELETE FROM order_targets");
    open_store(f);
    assert_null(store_order(f->store));
    free(whole.bytes);
}

static void sqlite_target_that_is_none_is_ignored(void **state)
{
    static const char *const changes[] = {
        "UPDATE order_targets SET sid = 0 WHERE sid = 2",
        "UPDATE order_targets SET sid = -2 WHERE sid = 2",
        "UPDATE order_targets SET sid = 4294967298 WHERE sid = 2",
        "UPDATE order_targets SET sid = 9223372036854775807 WHERE sid = 2",
        "UPDATE order_targets SET sid = 77 WHERE sid = 2",
        "UPDATE order_targets SET wave = 0 WHERE sid = 2",
        "UPDATE order_targets SET wave = -1 WHERE sid = 2",
        "UPDATE order_targets SET wave = 4 WHERE sid = 2",
        "UPDATE order_targets SET wave = 258 WHERE sid = 2",
        "UPDATE order_targets SET wave = 'first' WHERE sid = 2",
    };
    struct fixture *f = *state;

    make_file_with_an_order(f);
    struct content whole = content_of(f->path);
    for (size_t i = 0; i < COUNT(changes); i++) {
        write_content(f->path, whole.bytes, whole.len);
        execute_in(f->path, changes[i]);
        open_store(f);
        assert_int_equal(record_of(f, "c1")->order_wave, 0);
        assert_int_equal(record_of(f, "c1")->order_flags, 0);
        assert_int_equal(record_of(f, "c2")->order_wave, 3);
        /* It must not become the target of whoever gets that sid. */
        assert_int_equal(number(f, "SELECT count(*) FROM order_targets WHERE sid NOT IN"
                                   " (SELECT sid FROM clients)"),
                         0);
        close_store(f);
    }
    free(whole.bytes);
}

static void sqlite_targets_without_an_order_are_nobodys(void **state)
{
    struct fixture *f = *state;

    make_file_with_an_order(f);
    execute_in(f->path, "DELETE FROM orders");
    open_store(f);
    assert_null(store_order(f->store));
    assert_int_equal(record_of(f, "c1")->order_wave, 0);
}

/* ---- sqlite: at random ---- */

/*
 * Orders come and end, clients are told, leave, are forgotten and come back under other sids, with
 * trouble now and then: whenever the store has nothing left to write, the file is what the registry
 * and the last order are.
 */
static void sqlite_random_life_with_orders_ends_in_a_file_like_the_registry(void **state)
{
    struct fixture *f = *state;
    sqlite3 *other = NULL;
    char cid[32];

    srand(11);
    for (int step = 0; step < 8000; step++) {
        snprintf(cid, sizeof(cid), "c%d", rand() % 50);
        struct registry_record *record = record_of(f, cid);

        switch (rand() % 10) {
        case 0:
        case 1:
        case 2:
            if (!record || !record->connected)
                (void)claim(f, cid);
            break;
        case 3:
            if (record && record->connected)
                leave(f, cid, REASON_SHUTDOWN);
            break;
        case 4:
            if (record && !record->connected && record->claims == 0)
                forget(f, cid);
            break;
        case 5:
        case 6:
            if (record && record->stored && order_count > 0)
                target(f, cid, (uint8_t)(1 + rand() % orders[order_count - 1]->wave_count),
                       (uint8_t)(rand() % 4));
            break;
        case 7:
            if (rand() % 10 == 0) {
                (void)give(f, (size_t)(1 + rand() % 5));
            } else if (order_count > 0) {
                orders[0]->waves[0].ended++;
                save(f, orders[0]);
            }
            break;
        default:
            turn(f);
            f->answered = 0;
            advance_us(f, (uint64_t)(rand() % 60) * CLOCK_US_PER_MS);
            break;
        }
        if (rand() % 100 == 0) {
            if (other) {
                unlock(other);
                other = NULL;
            } else if (rand() % 2 == 0) {
                (void)remove(f->path);
            } else {
                turn(f);
                f->answered = 0;
                if (access(f->path, F_OK) == 0 && store_healthy(f->store))
                    other = lock_for_writing(f);
            }
        }
        if (!other && order_count > 0 && rand() % 40 == 0) {
            (void)claim(f, "witness");
            turn(f);
            idle_us(f, HEAL_US);
            f->answered = 0;
            assert_true(store_healthy(f->store));
            assert_true(store_stats(f->store)->waiting == 0);
            check_file_is_the_registry(f);
            check_order(f, orders[0]);
            check_targets(f);
        }
    }
    if (other)
        unlock(other);
}

/* ---- the list ---- */

int main(void)
{
    struct CMUnitTest tests[] = {
        ON_BOTH(store_answers_each_save_of_an_order_once_and_from_the_turn),
        ON_BOTH(store_save_while_answering_is_answered_in_the_next_turn),
        ON_BOTH(store_takes_targets_without_an_answer),
        ON_BOTH(store_closed_with_an_order_unanswered_answers_none),
        ON_BOTH(store_that_never_had_an_order_has_none),
        ON_BOTH(store_counts_what_it_does),

        ON_SQLITE(sqlite_order_is_there_for_others_when_the_answer_comes),
        ON_SQLITE(sqlite_saves_of_a_turn_are_one_transaction),
        ON_SQLITE(sqlite_targets_are_durable_at_the_end_of_the_turn),
        ON_SQLITE(sqlite_order_and_targets_come_back_as_they_were),
        ON_SQLITE(sqlite_order_in_no_commit_yet_is_written_at_the_close),
        ON_SQLITE(sqlite_all_orders_are_kept_and_the_last_one_is_loaded),
        ON_SQLITE(sqlite_order_that_another_came_after_in_its_turn_is_written),
        ON_SQLITE(sqlite_new_order_removes_the_targets_of_the_last),
        ON_SQLITE(sqlite_forgotten_client_is_no_target),

        ON_SQLITE(sqlite_very_many_changes_are_written_in_slices),
        ON_SQLITE(sqlite_slices_keep_the_order_of_changes),
        ON_SQLITE(sqlite_registration_waits_only_for_what_it_needs),
        ON_SQLITE(sqlite_very_many_changes_are_all_written_at_the_close),
        ON_SQLITE(sqlite_very_many_changes_wait_while_the_file_is_locked),

        ON_SQLITE(sqlite_order_given_while_locked_is_written_later),
        ON_SQLITE(sqlite_order_without_memory_to_keep_the_last_one_is_none),
        ON_SQLITE(sqlite_end_of_an_order_without_room_for_its_answer_is_written),
        ON_SQLITE(sqlite_order_given_while_the_file_may_not_grow_is_written_later),
        ON_SQLITE(sqlite_deleted_file_gets_the_order_again),
        ON_SQLITE(sqlite_file_written_anew_has_no_target_of_an_order_before),
        ON_SQLITE(sqlite_stopped_while_failing_writes_the_orders),

        ON_A_FILE(sqlite_registry_of_version_1_is_upgraded),
        ON_A_FILE(sqlite_registry_of_version_2_is_upgraded),
        ON_A_FILE(sqlite_registry_of_version_2_that_is_wrong_stays_as_it_was),
        ON_SQLITE(sqlite_new_registry_has_the_table_of_an_upgraded_one),
        ON_A_FILE(sqlite_registry_of_version_1_that_is_wrong_stays_as_it_was),
        ON_A_FILE(sqlite_registry_of_version_1_with_a_row_that_is_no_client_is_upgraded),
        ON_A_FILE(sqlite_registry_of_version_1_that_cannot_be_written_stays_as_it_was),
        ON_A_FILE(sqlite_order_that_is_none_is_refused_untouched),
        ON_A_FILE(sqlite_target_that_is_none_is_ignored),
        ON_A_FILE(sqlite_targets_without_an_order_are_nobodys),

        ON_SQLITE(sqlite_random_life_with_orders_ends_in_a_file_like_the_registry),
    };

    for (size_t i = 0; i < COUNT(tests); i++)
        tests[i].teardown_func = teardown_orders;
    return cmocka_run_group_tests(tests, start_store_tests, NULL);
}
