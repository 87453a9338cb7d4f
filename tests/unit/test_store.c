/*
 * The store: one suite that every backend passes, and behind it what only a durable one can be
 * asked for. The tests do with records and answers what a session does; the clock is fake, the file
 * is real, and what is in it is read through a second, read-only connection as anybody else would.
 */
#include "store/store.h"

#include "store_fixture.h"

#include "registry/credential_name.h"

#include <fcntl.h>
#include <glob.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- every store ---- */

static void store_without_work_wants_no_turn_and_is_healthy(void **state)
{
    struct fixture *f = *state;

    assert_true(store_healthy(f->store));
    assert_true(store_next_us(f->store) == UINT64_MAX);
    turn(f);
    assert_int_equal(f->answered, 0);
    assert_true(store_next_us(f->store) == UINT64_MAX);
}

/* on_answer() itself checks that a turn runs. */
static void store_answers_from_the_turn_and_from_nowhere_else(void **state)
{
    struct fixture *f = *state;
    const uint64_t serial = claim(f, "a");

    assert_int_equal(f->answered, 0);
    assert_true(store_next_us(f->store) <= f->now.mono_us);
    (void)claim(f, "b");
    assert_true(store_healthy(f->store));
    assert_int_equal(f->answered, 0);
    turn(f);
    assert_int_equal(f->answered, 2);
    assert_true(f->answers[0].serial == serial);
    assert_int_equal(f->answers[0].sid, record_of(f, "a")->sid);
    assert_int_equal(f->answers[0].result, STORE_OK);
    turn(f);
    turn(f);
    assert_int_equal(f->answered, 2);
}

static void store_closed_with_claims_in_flight_answers_none(void **state)
{
    struct fixture *f = *state;

    (void)claim(f, "a");
    close_store(f);
    assert_int_equal(f->answered, 0);
    open_store(f);
}

static void store_answers_thousands_once_each_in_order(void **state)
{
    struct fixture *f = *state;
    char cid[32];
    size_t asked = 0;

    for (int round = 1; round <= 4; round++) {
        for (int i = 0; i < round * 1000; i++) {
            snprintf(cid, sizeof(cid), "r%d-%d", round, i);
            (void)claim(f, cid);
            asked++;
        }
        turn(f);
        assert_int_equal(f->answered, asked);
        advance_us(f, 1000);
    }
    for (size_t i = 0; i < asked; i++) {
        assert_true(f->answers[i].serial == i + 1);
        assert_int_equal(f->answers[i].sid, i + 1);
        assert_int_equal(f->answers[i].result, STORE_OK);
    }
}

static void store_answers_each_of_several_claims_of_one_record(void **state)
{
    struct fixture *f = *state;
    const uint64_t first = claim(f, "a");
    const uint64_t second = claim(f, "a");

    turn(f);
    assert_int_equal(f->answered, 2);
    assert_true(f->answers[0].serial == first);
    assert_true(f->answers[1].serial == second);
    assert_int_equal(f->answers[0].sid, f->answers[1].sid);
}

static void claim_another(struct fixture *f, const struct store_answer *answer)
{
    char cid[32];

    if (answer->serial > 500)
        return;
    snprintf(cid, sizeof(cid), "next-%lu", (unsigned long)answer->serial);
    (void)claim(f, cid);
    assert_true(store_next_us(f->store) <= f->now.mono_us);
}

static void store_claim_while_answering_is_answered_in_the_next_turn(void **state)
{
    struct fixture *f = *state;
    char cid[32];

    f->hook = claim_another;
    for (int i = 0; i < 100; i++) {
        snprintf(cid, sizeof(cid), "first-%d", i);
        (void)claim(f, cid);
    }
    for (size_t turns = 1; turns <= 6; turns++) {
        assert_true(store_next_us(f->store) <= f->now.mono_us);
        turn(f);
        assert_int_equal(f->answered, turns * 100);
    }
    turn(f);
    assert_int_equal(f->answered, 600);
    assert_true(store_next_us(f->store) > f->now.mono_us);
    for (size_t i = 0; i < 600; i++)
        assert_true(f->answers[i].serial == i + 1);
}

static void leave_and_forget(struct fixture *f, const struct store_answer *answer)
{
    if (answer->serial % 2 == 0)
        leave(f, registry_by_sid(f->registry, answer->sid)->cid, REASON_RESET);
    if (answer->serial == 8)
        forget(f, "c2");
}

static void store_takes_every_call_while_answering(void **state)
{
    struct fixture *f = *state;
    char cid[32];

    f->hook = leave_and_forget;
    for (int i = 1; i <= 10; i++) {
        snprintf(cid, sizeof(cid), "c%d", i);
        (void)claim(f, cid);
    }
    turn(f);
    assert_int_equal(f->answered, 10);
    idle_us(f, CLOCK_US_PER_SEC);
    assert_int_equal(registry_connected(f->registry), 5);
    assert_null(record_of(f, "c2"));
}

static void store_disconnects_and_forgets_without_an_answer(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(enter(f, "a"), STORE_OK);
    leave(f, "a", REASON_LEFT);
    turn(f);
    forget(f, "a");
    idle_us(f, 3 * CLOCK_US_PER_SEC);
    assert_int_equal(f->answered, 1);
    assert_true(store_next_us(f->store) == UINT64_MAX);
    assert_int_equal(registry_count(f->registry), 0);
}

static void store_close_of_nothing_is_allowed(void **state)
{
    struct fixture *f = *state;

    store_close(NULL, f->now);
}

/* ---- sqlite: what is durable when ---- */

static void sqlite_file_is_what_the_documentation_says(void **state)
{
    struct fixture *f = *state;
    const struct peer_address local = {.family = AF_UNIX};
    char id[PROTO_MAX_ID_BYTES + 1] = "";

    memset(id, 'x', PROTO_MAX_ID_BYTES);
    assert_int_equal(enter(f, "web-1"), STORE_OK);
    (void)claim_from(f, id, &local);
    turn(f);
    assert_int_equal(number(f, "PRAGMA user_version"), 3);
    assert_int_not_equal(number(f, "PRAGMA application_id"), 0);
    assert_int_equal(number(f, "SELECT count(*) FROM clients WHERE sid = 1 AND cid = 'web-1' AND"
                               " cip = '192.0.2.7' AND cport = 40000 AND cstatus = 1 AND"
                               " since = 1700000000 AND last_seen = 1700000000 AND rtt_ms IS NULL"
                               " AND reason = '' AND node = 'node-a'"
                               " AND credential = 'credential-1'"),
                     1);
    assert_int_equal(number(f, "SELECT count(*) FROM clients WHERE sid = 2 AND length(cid) = 64 AND"
                               " cip = 'unix' AND cport = 0"),
                     1);
    assert_int_equal(number(f, "SELECT count(*) FROM pragma_table_info('clients')"), 11);
    assert_int_equal(number(f, "SELECT count(*) FROM pragma_table_info('clients') WHERE name IN"
                               " ('sid', 'cid', 'cip', 'cport', 'cstatus', 'since', 'last_seen',"
                               " 'rtt_ms', 'reason', 'node', 'credential')"),
                     11);
    close_store(f);
    assert_int_equal(number(f, "SELECT count(*) FROM clients"), 2);
    open_store(f);
    assert_string_equal(credential_name(record_of(f, "web-1")->credential), "credential-1");
    assert_string_equal(credential_name(record_of(f, id)->credential), "credential-0");
}

static void check_row_is_visible(struct fixture *f, const struct store_answer *answer)
{
    char sql[96];

    assert_int_equal(answer->result, STORE_OK);
    snprintf(sql, sizeof(sql), "SELECT count(*) FROM clients WHERE sid = %u AND cstatus = 1",
             answer->sid);
    assert_int_equal(number(f, sql), 1);
}

static void sqlite_row_is_there_for_others_when_the_answer_comes(void **state)
{
    struct fixture *f = *state;
    char cid[32];

    f->hook = check_row_is_visible;
    for (int i = 0; i < 50; i++) {
        snprintf(cid, sizeof(cid), "c%d", i % 40);
        (void)claim(f, cid);
        if (i % 5 == 0)
            turn(f);
    }
    turn(f);
    assert_int_equal(f->answered, 50);
}

static void sqlite_all_changes_of_a_turn_are_one_transaction(void **state)
{
    struct fixture *f = *state;
    char cid[32];
    size_t before;

    for (int i = 0; i < 300; i++) {
        snprintf(cid, sizeof(cid), "c%d", i);
        (void)claim(f, cid);
    }
    before = commits(f);
    turn(f);
    assert_int_equal(commits(f), before + 1);
    check_file_is_the_registry(f);

    for (int i = 0; i < 300; i++) {
        snprintf(cid, sizeof(cid), "c%d", i);
        leave(f, cid, REASON_LEFT);
        if (i % 3 == 0)
            forget(f, cid);
        snprintf(cid, sizeof(cid), "d%d", i);
        (void)claim(f, cid);
    }
    before = commits(f);
    turn(f);
    assert_int_equal(commits(f), before + 1);
    check_file_is_the_registry(f);

    before = commits(f);
    turn(f);
    turn(f);
    assert_int_equal(commits(f), before);
}

static void sqlite_disconnections_are_gathered_for_a_tenth_of_a_second(void **state)
{
    struct fixture *f = *state;
    const char disconnected[] = "SELECT count(*) FROM clients WHERE cstatus = 0";
    char cid[32];
    size_t before;

    for (int i = 0; i < 20; i++) {
        snprintf(cid, sizeof(cid), "c%d", i);
        (void)claim(f, cid);
    }
    turn(f);
    before = commits(f);
    const uint64_t first_us = f->now.mono_us;
    for (int i = 0; i < 9; i++) {
        snprintf(cid, sizeof(cid), "c%d", i);
        leave(f, cid, REASON_LEFT);
        assert_in_range(store_next_us(f->store), f->now.mono_us, first_us + GATHER_US);
        turn(f);
        advance_us(f, GATHER_US / 10);
    }
    assert_int_equal(commits(f), before);
    assert_int_equal(store_next_us(f->store), first_us + GATHER_US);

    advance_us(f, first_us + GATHER_US - f->now.mono_us);
    turn(f);
    assert_int_equal(commits(f), before + 1);
    assert_int_equal(number(f, disconnected), 9);
    assert_true(store_next_us(f->store) > f->now.mono_us + GATHER_US);
}

/* One a hundredth of a second, for two seconds: none waits for more than a tenth. */
static void sqlite_no_disconnection_waits_longer_because_others_follow(void **state)
{
    struct fixture *f = *state;
    char cid[32];

    for (int i = 0; i < 200; i++) {
        snprintf(cid, sizeof(cid), "c%d", i);
        (void)claim(f, cid);
    }
    turn(f);
    for (int i = 0; i < 200; i++) {
        snprintf(cid, sizeof(cid), "c%d", i);
        leave(f, cid, REASON_LEFT);
        idle_us(f, GATHER_US / 10);
        if (i >= 10)
            assert_true(number(f, "SELECT count(*) FROM clients WHERE cstatus = 0") >= i - 9);
    }
}

static void sqlite_registration_does_not_hurry_disconnections(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(enter(f, "a"), STORE_OK);
    leave(f, "a", REASON_TIMED_OUT);
    const uint64_t due_us = store_next_us(f->store);
    assert_int_equal(enter(f, "b"), STORE_OK);
    assert_int_equal(number(f, "SELECT cstatus FROM clients WHERE cid = 'a'"), 1);
    assert_true(store_next_us(f->store) == due_us);
    const size_t before = commits(f);
    idle_us(f, GATHER_US);
    assert_int_equal(commits(f), before + 1);
    check_file_is_the_registry(f);
    assert_true(store_next_us(f->store) > f->now.mono_us + GATHER_US); /* nothing waits */
}

static void sqlite_waiting_disconnection_does_not_undo_a_later_registration(void **state)
{
    struct fixture *f = *state;

    for (int i = 0; i < 3; i++) {
        assert_int_equal(enter(f, "a"), STORE_OK);
        leave(f, "a", REASON_REPLACED);
    }
    assert_int_equal(enter(f, "a"), STORE_OK);
    idle_us(f, GATHER_US);
    check_file_is_the_registry(f);
    leave(f, "a", REASON_TIMED_OUT);
    idle_us(f, GATHER_US);
    check_file_is_the_registry(f);
}

static void sqlite_registrations_wait_while_the_server_is_busy(void **state)
{
    struct fixture *f = *state;
    const size_t before = commits(f);

    f->busy = true;
    (void)claim(f, "a");
    turn(f);
    (void)claim(f, "b");
    turn(f);
    assert_int_equal(f->answered, 0);
    assert_true(store_next_us(f->store) == 0);
    f->busy = false;
    turn(f);
    assert_int_equal(f->answered, 2);
    assert_int_equal(commits(f), before + 1);
    check_file_is_the_registry(f);
}

static void sqlite_registrations_wait_two_milliseconds_at_most(void **state)
{
    struct fixture *f = *state;

    f->busy = true;
    (void)claim(f, "a");
    advance_us(f, 1999);
    turn(f);
    (void)claim(f, "b"); /* makes the first one wait no longer */
    assert_int_equal(f->answered, 0);
    advance_us(f, 1);
    turn(f);
    assert_int_equal(f->answered, 2);
}

static void sqlite_many_registrations_wait_for_nobody(void **state)
{
    struct fixture *f = *state;
    char cid[32];

    f->busy = true;
    for (size_t i = 1; i <= 64; i++) {
        assert_int_equal(f->answered, 0);
        snprintf(cid, sizeof(cid), "c%zu", i);
        (void)claim(f, cid);
        turn(f);
    }
    assert_int_equal(f->answered, 64);
}

static void sqlite_registration_that_nobody_was_told_of_is_not_written(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(enter(f, "a"), STORE_OK);
    leave(f, "a", REASON_LEFT);
    f->busy = true;
    (void)claim(f, "a");
    (void)claim(f, "b");
    turn(f);
    assert_int_equal(f->answered, 1);
    store_close(f->store, f->now);
    f->store = NULL;
    assert_int_equal(number(f, "SELECT count(*) FROM clients"), 1);
    assert_int_equal(number(f, "SELECT count(*) FROM clients WHERE cstatus = 1"), 0);
}

static void sqlite_disconnections_are_due_while_the_server_is_busy(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(enter(f, "a"), STORE_OK);
    leave(f, "a", REASON_LEFT);
    f->busy = true;
    advance_us(f, GATHER_US);
    turn(f);
    check_file_is_the_registry(f);
}

static void sqlite_client_that_comes_back_in_the_same_turn_is_connected(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(enter(f, "a"), STORE_OK);
    leave(f, "a", REASON_REPLACED);
    assert_int_equal(enter(f, "a"), STORE_OK);
    check_file_is_the_registry(f);
    assert_int_equal(number(f, "SELECT cstatus FROM clients WHERE cid = 'a'"), 1);
    assert_int_equal(number(f, "SELECT reason = 'replaced' FROM clients WHERE cid = 'a'"), 1);
}

static void sqlite_round_trip_time_goes_into_the_row_and_comes_back(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(enter(f, "a"), STORE_OK);
    record_of(f, "a")->rtt_us = 1250;
    leave(f, "a", REASON_LEFT);
    idle_us(f, CLOCK_US_PER_SEC);
    assert_int_equal(number(f, "SELECT rtt_ms = 1.25 FROM clients"), 1);
    reopen_store(f);
    assert_int_equal(record_of(f, "a")->rtt_us, 1250);
    assert_int_equal(enter(f, "a"), STORE_OK);
    assert_int_equal(number(f, "SELECT rtt_ms IS NULL FROM clients"), 1);
}

static void sqlite_sid_of_a_forgotten_client_may_be_given_in_the_same_turn(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(enter(f, "a"), STORE_OK);
    leave(f, "a", REASON_LEFT);
    forget(f, "a");
    assert_int_equal(enter(f, "b"), STORE_OK);
    assert_int_equal(record_of(f, "b")->sid, 1);
    check_file_is_the_registry(f);
    /* And the old one comes back under another sid. */
    assert_int_equal(enter(f, "a"), STORE_OK);
    assert_int_equal(record_of(f, "a")->sid, 2);
    check_file_is_the_registry(f);
}

/* ---- sqlite: the next start ---- */

static void sqlite_reopened_knows_everyone_as_they_were(void **state)
{
    struct fixture *f = *state;

    (void)claim(f, "a");
    (void)claim(f, "b");
    (void)claim(f, "c");
    turn(f);
    leave(f, "a", REASON_PROTOCOL);
    leave(f, "b", REASON_LEFT);
    forget(f, "b");
    leave(f, "c", REASON_STOPPED);
    close_store(f); /* commits what waited */
    advance_us(f, 10 * CLOCK_US_PER_SEC);
    open_store(f);
    assert_int_equal(registry_count(f->registry), 2);
    assert_int_equal(registry_connected(f->registry), 0);
    assert_int_equal(record_of(f, "a")->sid, 1);
    assert_int_equal(record_of(f, "a")->reason, REASON_PROTOCOL);
    assert_int_equal(record_of(f, "a")->since, START_S);
    assert_int_equal(record_of(f, "a")->last_seen, START_S);
    assert_memory_equal(&record_of(f, "a")->peer, &peer, sizeof(peer));
    assert_true(record_of(f, "a")->stored);
    assert_int_equal(record_of(f, "c")->sid, 3);
    assert_int_equal(record_of(f, "c")->reason, REASON_STOPPED);
    check_file_is_the_registry(f);
    assert_int_equal(enter(f, "d"), STORE_OK);
    assert_int_equal(record_of(f, "d")->sid, 2);
}

/* A process of its own, killed inside the call that tells that a client is registered. */
static void die_on_the_last(struct fixture *f, const struct store_answer *answer)
{
    if (answer->serial == 100 && answer->result == STORE_OK && f->answered == 100)
        (void)kill(getpid(), SIGKILL);
}

static void sqlite_killed_right_after_an_answer_still_knows_the_client(void **state)
{
    struct fixture *f = *state;
    char cid[32];
    int status = 0;
    const pid_t child = fork();

    if (child == 0) {
        open_store(f);
        f->hook = die_on_the_last;
        for (int i = 0; i < 100; i++) {
            snprintf(cid, sizeof(cid), "c%d", i);
            (void)claim(f, cid);
        }
        turn(f);
        _exit(1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);

    assert_int_equal(number(f, "SELECT count(*) FROM clients WHERE cstatus = 1"), 100);
    const int64_t before_s = clock_wall_ms() / 1000;
    open_store(f);
    assert_int_equal(registry_count(f->registry), 100);
    assert_int_equal(registry_connected(f->registry), 0);
    for (uint32_t sid = 1; sid <= 100; sid++) {
        const struct registry_record *record = registry_by_sid(f->registry, sid);
        snprintf(cid, sizeof(cid), "c%u", sid - 1);
        assert_string_equal(record->cid, cid);
        assert_int_equal(record->reason, REASON_CRASH);
        assert_false(record->connected);
        assert_in_range(record->since, before_s, before_s + 60);
        assert_int_equal(record->last_seen, START_S);
    }
    /* In the file at once, not only when somebody asks for a turn. */
    check_file_is_the_registry(f);
}

static void sqlite_synchronous_full_registers_as_well(void **state)
{
    struct fixture *f = *state;

    f->options.sync = STORE_SYNC_FULL;
    open_store(f);
    assert_int_equal(enter(f, "a"), STORE_OK);
    reopen_store(f);
    assert_int_equal(record_of(f, "a")->sid, 1);
}

static void sqlite_write_ahead_log_does_not_grow_for_ever(void **state)
{
    struct fixture *f = *state;
    char path[128];
    char cid[32];
    struct stat info;

    snprintf(path, sizeof(path), "%s-wal", f->path);
    for (int round = 0; round < 40; round++) {
        for (int i = 0; i < 400; i++) {
            snprintf(cid, sizeof(cid), "some-longer-name-%d", i * 37 % 400);
            (void)claim(f, cid);
        }
        turn(f);
        f->answered = 0;
        for (int i = 0; i < 400; i++) {
            snprintf(cid, sizeof(cid), "some-longer-name-%d", i);
            leave(f, cid, REASON_LEFT);
            if (i % 10 == 0) {
                advance_us(f, GATHER_US);
                turn(f);
            }
        }
        idle_us(f, CLOCK_US_PER_SEC);
    }
    assert_int_equal(stat(path, &info), 0);
    assert_in_range(info.st_size, 0, 3000 * 4096);
    check_file_is_the_registry(f);
}

/* ---- sqlite: files that are not for us ---- */

static void sqlite_empty_file_is_made_a_registry(void **state)
{
    struct fixture *f = *state;

    write_content(f->path, "", 0);
    open_store(f);
    assert_int_equal(enter(f, "a"), STORE_OK);
    check_file_is_the_registry(f);
}

static void sqlite_file_that_is_no_database_is_refused_untouched(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
    } contents[] = {
        {BYTES("x")},
        {BYTES("\n")},
        {BYTES("SQLite format 3")},
        {BYTES("SQLite format 3\0")},
        {BYTES("[server]\nlisten = 127.0.0.1:1111\n[auth]\npassword = a\n")},
        {BYTES("SQLite format 4\0 and a lot of other things that follow behind it ......")},
    };
    struct fixture *f = *state;
    char noise[8192];

    for (size_t i = 0; i < COUNT(contents); i++) {
        write_content(f->path, contents[i].bytes, contents[i].len);
        refuse_unchanged(f);
    }
    for (size_t i = 0; i < sizeof(noise); i++)
        noise[i] = (char)(i * 131 + i / 256);
    write_content(f->path, noise, sizeof(noise));
    refuse_unchanged(f);
    memcpy(noise, "SQLite format 3", 16);
    write_content(f->path, noise, sizeof(noise));
    refuse_unchanged(f);
}

static void sqlite_truncated_file_is_set_aside_if_it_bears_our_mark(void **state)
{
    static const size_t unmarked[] = {15, 16, 71};
    static const size_t lengths[] = {72, 99, 100, 1000, 4095, 4096, 8191, 8192, 12288};
    struct fixture *f = *state;
    struct content whole;

    make_registry_file(f);
    whole = content_of(f->path);
    for (size_t i = 0; i < COUNT(unmarked); i++) {
        write_content(f->path, whole.bytes, unmarked[i]);
        refuse_unchanged(f);
    }
    for (size_t i = 0; i < COUNT(lengths); i++) {
        assert_true(lengths[i] < whole.len);
        write_content(f->path, whole.bytes, lengths[i]);
        set_aside_unchanged(f);
    }
    write_content(f->path, whole.bytes, whole.len - 4096);
    set_aside_unchanged(f);
    /* Nothing but the cut was wrong with it. */
    write_content(f->path, whole.bytes, whole.len);
    open_store(f);
    assert_int_equal(registry_count(f->registry), 300);
    free(whole.bytes);
}

static void sqlite_damaged_file_is_set_aside(void **state)
{
    struct fixture *f = *state;
    struct content whole;

    make_registry_file(f);
    whole = content_of(f->path);
    for (size_t page = 1; page < whole.len / 4096; page++) {
        unsigned char *damaged = malloc(whole.len);
        assert_non_null(damaged);
        memcpy(damaged, whole.bytes, whole.len);
        memset(damaged + page * 4096, 0xff, 200);
        write_content(f->path, damaged, whole.len);
        set_aside_unchanged(f);
        free(damaged);
    }
    free(whole.bytes);
}

static void sqlite_database_of_another_program_is_refused_untouched(void **state)
{
    static const char *const schemas[] = {
        "CREATE TABLE notes (text TEXT); INSERT INTO notes VALUES ('precious')",
        "CREATE TABLE clients (sid INTEGER PRIMARY KEY, cid TEXT)",
        "PRAGMA application_id = 77; CREATE TABLE clients (sid INTEGER PRIMARY KEY, cid TEXT)",
        "PRAGMA application_id = 77",
        "PRAGMA user_version = 1",
        "PRAGMA user_version = 1; CREATE TABLE clients (sid INTEGER PRIMARY KEY, cid TEXT)",
        "PRAGMA journal_mode = WAL; CREATE TABLE notes (text TEXT)",
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < COUNT(schemas); i++) {
        (void)remove(f->path);
        execute_in(f->path, schemas[i]);
        refuse_unchanged(f);
    }
}

static void sqlite_registry_of_another_version_is_refused_untouched(void **state)
{
    static const char *const versions[] = {
        "PRAGMA user_version = 4",
        "PRAGMA user_version = 2147483647",
        "PRAGMA user_version = 0",
        "PRAGMA user_version = -1",
        "PRAGMA application_id = 78", /* not ours after all */
        "PRAGMA application_id = 0",
        "PRAGMA user_version = 4; ALTER TABLE clients ADD COLUMN tags TEXT",
    };
    struct fixture *f = *state;
    struct content whole;

    make_registry_file(f);
    whole = content_of(f->path);
    for (size_t i = 0; i < COUNT(versions); i++) {
        write_content(f->path, whole.bytes, whole.len);
        execute_in(f->path, versions[i]);
        refuse_unchanged(f);
        assert_int_equal(number(f, "SELECT count(*) FROM clients WHERE cstatus = 1"), 300);
    }
    free(whole.bytes);
}

/* A newer server was killed: its last transactions are in the log beside the file, and stay there.
 */
static void sqlite_newer_registry_with_a_log_is_refused_untouched(void **state)
{
    struct fixture *f = *state;
    char from[128];
    sqlite3 *db = NULL;
    struct content file;
    struct content wal;

    make_registry_file(f);
    assert_int_equal(sqlite3_open(f->path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db,
                                  "PRAGMA user_version = 4;"
                                  "UPDATE clients SET reason = 'newer' WHERE sid = 7",
                                  NULL, NULL, NULL),
                     SQLITE_OK);
    snprintf(from, sizeof(from), "%s-wal", f->path);
    file = content_of(f->path);
    wal = content_of(from);
    assert_true(wal.len > 4096);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    write_content(f->path, file.bytes, file.len);
    write_content(from, wal.bytes, wal.len);

    refuse_unchanged(f);
    free(file.bytes);
    free(wal.bytes);
}

static void sqlite_registry_with_another_table_is_refused_untouched(void **state)
{
    static const char *const changes[] = {
        "DROP TABLE clients",
        "ALTER TABLE clients RENAME TO customers",
        "ALTER TABLE clients DROP COLUMN rtt_ms",
        "ALTER TABLE clients RENAME COLUMN cip TO ip",
    };
    struct fixture *f = *state;
    struct content whole;

    make_registry_file(f);
    /* So that going back to a write-ahead log would show. */
    execute_in(f->path, "PRAGMA journal_mode = DELETE");
    whole = content_of(f->path);
    for (size_t i = 0; i < COUNT(changes); i++) {
        write_content(f->path, whole.bytes, whole.len);
        execute_in(f->path, changes[i]);
        refuse_unchanged(f);
    }
    free(whole.bytes);
}

static void sqlite_row_that_is_no_client_is_dropped_and_nothing_else(void **state)
{
    static const char *const rows[] = {
        "UPDATE clients SET cid = '' WHERE sid = 5",
        "UPDATE clients SET cid = 'two words' WHERE sid = 5",
        "UPDATE clients SET sid = 0 WHERE sid = 5",
        "UPDATE clients SET sid = -5 WHERE sid = 5",
        "UPDATE clients SET sid = 4294967296 WHERE sid = 5",
    };
    struct fixture *f = *state;
    struct content whole;

    make_registry_file(f);
    whole = content_of(f->path);
    for (size_t i = 0; i < COUNT(rows); i++) {
        write_content(f->path, whole.bytes, whole.len);
        execute_in(f->path, rows[i]);
        open_store(f);
        assert_int_equal(registry_count(f->registry), 299);
        assert_null(registry_by_sid(f->registry, 5));
        assert_int_equal(store_stats(f->store)->set_aside, 0);
        /* The file has it no more, so its sid and its ID can be somebody's. */
        reopen_store(f);
        assert_int_equal(registry_count(f->registry), 299);
        assert_int_equal(registry_find_or_add(f->registry, "new", 3)->sid, 5);
        close_store(f);
    }
    /* With many of them, the file is not to be trusted. */
    write_content(f->path, whole.bytes, whole.len);
    execute_in(f->path, "UPDATE clients SET cport = -1 WHERE sid < 16");
    open_store(f);
    assert_int_equal(registry_count(f->registry), 285);
    close_store(f);
    write_content(f->path, whole.bytes, whole.len);
    execute_in(f->path, "UPDATE clients SET cport = -1 WHERE sid < 17");
    set_aside_unchanged(f);
    free(whole.bytes);
}

/* ---- SQLite without memory ---- */

static sqlite3_mem_methods real_memory;
static int allocations_left = -1; /* before one fails; -1: none does */
static bool all_fail;             /* from that one on */

static bool allocation_fails(void)
{
    if (allocations_left < 0)
        return false;
    if (allocations_left > 0) {
        allocations_left--;
        return false;
    }
    if (!all_fail)
        allocations_left = -1;
    return true;
}

static void *failing_malloc(int size)
{
    return allocation_fails() ? NULL : real_memory.xMalloc(size);
}

static void *failing_realloc(void *memory, int size)
{
    return allocation_fails() ? NULL : real_memory.xRealloc(memory, size);
}

static void make_memory_fail_on_demand(void)
{
    sqlite3_mem_methods failing;

    assert_int_equal(sqlite3_config(SQLITE_CONFIG_GETMALLOC, &real_memory), SQLITE_OK);
    failing = real_memory;
    failing.xMalloc = failing_malloc;
    failing.xRealloc = failing_realloc;
    assert_int_equal(sqlite3_config(SQLITE_CONFIG_MALLOC, &failing), SQLITE_OK);
}

static bool has_set_aside(const struct fixture *f)
{
    char pattern[512];
    glob_t found;

    snprintf(pattern, sizeof(pattern), "%s.damaged-*", f->path);
    const bool has_some = glob(pattern, 0, NULL, &found) == 0;
    globfree(&found);
    return has_some;
}

/* Whatever fails for want of memory while it is opened says nothing about the file. */
static void sqlite_registry_is_not_set_aside_for_want_of_memory(void **state)
{
    struct fixture *f = *state;
    unsigned refused = 0;

    make_registry_file(f);
    for (int mode = 0; mode < 2; mode++) {
        unsigned in_a_row = 0;

        /* Until there were enough from the beginning on. */
        for (int count = 0; in_a_row < 20; count += count < 200 ? 1 : 7) {
            struct registry *registry = registry_new();

            all_fail = mode == 1;
            allocations_left = count;
            struct store *store =
                store_open(&f->options, registry, on_answer, f, f->message, sizeof(f->message));
            const bool had_enough = allocations_left > 0;
            allocations_left = -1;
            refused += !store;
            in_a_row = had_enough ? in_a_row + 1 : 0;
            assert_true(store || !had_enough);
            if (store) {
                assert_int_equal(registry_count(registry), 300);
                store_close(store, f->now);
            }
            registry_free(registry);
            assert_false(has_set_aside(f));
        }
    }
    assert_true(refused > 100);
    open_store(f);
    assert_int_equal(registry_count(f->registry), 300);
}

static void sqlite_registry_locked_by_another_program_is_refused(void **state)
{
    struct fixture *f = *state;
    sqlite3 *db = NULL;

    make_registry_file(f);
    assert_int_equal(sqlite3_open(f->path, &db), SQLITE_OK);
    assert_int_equal(
        sqlite3_exec(db, "PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE", NULL, NULL, NULL),
        SQLITE_OK);
    refuse_to_open(f);
    assert_int_equal(sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    open_store(f);
    assert_int_equal(registry_count(f->registry), 300);
}

/* In another process, as a second server would be; the first goes on as if nothing had happened. */
static void sqlite_second_server_on_one_file_is_refused(void **state)
{
    struct fixture *f = *state;
    int status = 0;

    assert_int_equal(enter(f, "a"), STORE_OK);
    for (int i = 0; i < 3; i++) {
        const pid_t child = fork();
        if (child == 0) {
            struct registry *registry = registry_new();
            struct store *second =
                store_open(&f->options, registry, on_answer, f, f->message, sizeof(f->message));
            _exit(second == NULL && strstr(f->message, f->path) ? 0 : 1);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
        assert_int_equal(enter(f, i % 2 ? "b" : "c"), STORE_OK);
        check_file_is_the_registry(f);
    }
}

static void sqlite_path_that_can_be_no_file_is_refused(void **state)
{
    struct fixture *f = *state;
    struct stat info;

    assert_int_equal(mkdir(f->path, 0700), 0);
    refuse_to_open(f);
    assert_int_equal(rmdir(f->path), 0);

    assert_int_equal(mkfifo(f->path, 0600), 0);
    refuse_to_open(f); /* and does not wait for somebody to write */
    assert_int_equal(stat(f->path, &info), 0);
    assert_true(S_ISFIFO(info.st_mode));
    assert_int_equal(remove(f->path), 0);

    assert_true(snprintf(f->path, sizeof(f->path), "%s/missing/registry.db", f->dir) > 0);
    refuse_to_open(f);
    assert_true(snprintf(f->path, sizeof(f->path), "%s/registry.db", f->dir) > 0);
}

static void sqlite_file_is_not_readable_for_everybody(void **state)
{
    struct fixture *f = *state;
    struct stat info;
    char wal[128];

    assert_int_equal(enter(f, "a"), STORE_OK);
    assert_int_equal(stat(f->path, &info), 0);
    assert_int_equal(info.st_mode & 0007, 0);
    snprintf(wal, sizeof(wal), "%s-wal", f->path);
    assert_int_equal(stat(wal, &info), 0);
    assert_int_equal(info.st_mode & 0007, 0);
}

/* ---- sqlite: trouble while running ---- */

/* Newcomers are refused, others leave and are forgotten; nothing of that may be lost. */
static void live_through_trouble(struct fixture *f)
{
    char cid[32];

    for (int i = 0; i < 30; i++) {
        snprintf(cid, sizeof(cid), "c%d", i);
        leave(f, cid, REASON_TIMED_OUT);
        if (i % 3 == 0)
            forget(f, cid);
        snprintf(cid, sizeof(cid), "refused-%d", i);
        assert_int_equal(enter(f, cid), STORE_UNAVAILABLE);
        assert_null(record_of(f, cid));
        idle_us(f, 37 * CLOCK_US_PER_MS);
        assert_false(store_healthy(f->store));
    }
    /* One who was known comes back in vain. */
    assert_int_equal(enter(f, "c1"), STORE_UNAVAILABLE);
    assert_false(record_of(f, "c1")->connected);
}

static void check_healed(struct fixture *f)
{
    idle_us(f, HEAL_US);
    assert_true(store_healthy(f->store));
    check_file_is_the_registry(f);
    assert_int_equal(number(f, "SELECT count(*) FROM clients WHERE cid LIKE 'refused%'"), 0);
    assert_int_equal(enter(f, "after"), STORE_OK);
    assert_int_equal(enter(f, "c1"), STORE_OK);
    check_file_is_the_registry(f);
    close_store(f);
    open_store(f);
    assert_int_equal(record_of(f, "c2")->reason, REASON_TIMED_OUT);
    assert_null(record_of(f, "c3"));
    assert_int_equal(record_of(f, "c1")->reason, REASON_CRASH);
    assert_non_null(record_of(f, "after"));
}

static void sqlite_file_locked_for_a_while_loses_nothing(void **state)
{
    struct fixture *f = *state;
    sqlite3 *other;

    fill(f, 40);
    other = lock_for_writing(f);
    live_through_trouble(f);
    unlock(other);
    check_healed(f);
}

/* EFBIG: SQLite reports an I/O error, after which the file has to be opened anew. */
static void sqlite_file_that_may_not_grow_loses_nothing(void **state)
{
    struct fixture *f = *state;

    fill(f, 40);
    limit_file_size(4096);
    live_through_trouble(f);
    lift_file_size_limit();
    check_healed(f);
}

/* Told of each new connection of this process, so that a test can limit how far the store's may
 * fill the file: a full disk in its eyes. */
static sqlite3 *last_connection;

static int note_connection(sqlite3 *db, const char **error, const struct sqlite3_api_routines *api)
{
    (void)error;
    (void)api;
    last_connection = db;
    return SQLITE_OK;
}

static void sqlite_full_disk_loses_nothing(void **state)
{
    struct fixture *f = *state;
    char id[PROTO_MAX_ID_BYTES + 1] = "";
    sqlite3 *writer;

    assert_int_equal(sqlite3_auto_extension((void (*)(void))note_connection), SQLITE_OK);
    reopen_store(f);
    writer = last_connection;
    fill(f, 40);
    assert_int_equal(sqlite3_exec(writer, "PRAGMA max_page_count = 1", NULL, NULL, NULL),
                     SQLITE_OK);
    /* The pages that are there take a few more. */
    for (int i = 0; i < 1000 && store_healthy(f->store); i++) {
        snprintf(id, sizeof(id), "%064d", i);
        (void)enter(f, id);
    }
    assert_false(store_healthy(f->store));
    assert_int_equal(last_result(f), STORE_UNAVAILABLE);
    assert_null(record_of(f, id));
    for (int i = 0; i < 30; i += 3) {
        char cid[32];
        snprintf(cid, sizeof(cid), "c%d", i + 2);
        leave(f, cid, REASON_TIMED_OUT);
        id[0] = 'z';
        id[1] = (char)('a' + i);
        (void)enter(f, id);
    }
    leave(f, "c3", REASON_LEFT);
    forget(f, "c3");
    assert_int_equal(sqlite3_exec(writer, "PRAGMA max_page_count = 1000000", NULL, NULL, NULL),
                     SQLITE_OK);
    sqlite3_reset_auto_extension();
    check_healed(f);
}

/* Nobody comes, nobody leaves: the store itself has to find out that the trouble is over. */
static void sqlite_heals_without_another_client(void **state)
{
    struct fixture *f = *state;
    sqlite3 *other;

    fill(f, 5);
    other = lock_for_writing(f);
    assert_int_equal(enter(f, "refused"), STORE_UNAVAILABLE);
    assert_false(store_healthy(f->store));
    idle_us(f, CLOCK_US_PER_SEC);
    assert_false(store_healthy(f->store));
    unlock(other);
    idle_us(f, HEAL_US);
    assert_true(store_healthy(f->store));
    assert_true(store_next_us(f->store) == UINT64_MAX);
    check_file_is_the_registry(f);
}

/* What waits may be overtaken, so that there is nothing to write: that would prove nothing. */
static void sqlite_heals_by_writing(void **state)
{
    struct fixture *f = *state;
    sqlite3 *other;

    fill(f, 5);
    leave(f, "c1", REASON_LEFT);
    assert_int_equal(enter(f, "c1"), STORE_OK);
    other = lock_for_writing(f);
    assert_int_equal(enter(f, "refused"), STORE_UNAVAILABLE);
    unlock(other);
    const size_t before = commits(f);
    idle_us(f, HEAL_US);
    assert_true(store_healthy(f->store));
    assert_int_equal(commits(f), before + 1);
    check_file_is_the_registry(f);
}

static void sqlite_failing_store_keeps_no_registration_waiting(void **state)
{
    struct fixture *f = *state;
    sqlite3 *other;

    fill(f, 5);
    other = lock_for_writing(f);
    assert_int_equal(enter(f, "refused"), STORE_UNAVAILABLE);
    f->busy = true;
    assert_int_equal(enter(f, "refused-too"), STORE_UNAVAILABLE);
    advance_us(f, HEAL_US); /* so that this turn tries again */
    assert_int_equal(enter(f, "refused-again"), STORE_UNAVAILABLE);
    unlock(other);
    advance_us(f, HEAL_US);
    assert_int_equal(enter(f, "taken"), STORE_OK);
    check_file_is_the_registry(f);
}

/* A failing store is tried again now and then, not all the time. */
static void sqlite_failing_store_lets_the_server_sleep(void **state)
{
    struct fixture *f = *state;
    sqlite3 *other;
    int wakes = 0;

    fill(f, 5);
    other = lock_for_writing(f);
    leave(f, "c1", REASON_LEFT);
    const uint64_t end_us = f->now.mono_us + 10 * CLOCK_US_PER_SEC;
    while (store_next_us(f->store) < end_us) {
        const uint64_t next_us = store_next_us(f->store);
        if (next_us > f->now.mono_us)
            advance_us(f, next_us - f->now.mono_us);
        turn(f);
        wakes++;
    }
    assert_in_range(wakes, 1, 110);
    unlock(other);
    idle_us(f, HEAL_US);
    check_file_is_the_registry(f);
}

static void check_deleted_file_is_written_again(struct fixture *f, bool with_log)
{
    fill(f, 100);
    leave(f, "c7", REASON_LEFT);
    idle_us(f, CLOCK_US_PER_SEC);
    remove_file(f, with_log);

    (void)claim(f, "new");
    (void)claim(f, "c7");
    leave(f, "c8", REASON_RESET);
    turn(f);
    assert_int_equal(f->answers[f->answered - 2].result, STORE_OK);
    assert_int_equal(f->answers[f->answered - 1].result, STORE_OK);
    assert_int_equal(number(f, "SELECT count(*) FROM clients"), 101);
    assert_int_equal(number(f, "SELECT count(*) FROM clients WHERE cstatus = 1"), 100);
    check_file_is_the_registry(f);
    leave(f, "c9", REASON_RESET);
    idle_us(f, CLOCK_US_PER_SEC);
    check_file_is_the_registry(f);
    reopen_store(f);
    assert_int_equal(registry_count(f->registry), 101);
}

static void sqlite_deleted_file_is_written_again_completely(void **state)
{
    check_deleted_file_is_written_again(*state, false);
}

static void sqlite_deleted_file_and_log_are_written_again_completely(void **state)
{
    check_deleted_file_is_written_again(*state, true);
}

static void check_lost_log_is_noticed(struct fixture *f, const char *harming)
{
    char command[320];

    fill(f, 50);
    snprintf(command, sizeof(command), "%s %s-wal", harming, f->path);
    assert_int_equal(system(command), 0);
    assert_int_equal(enter(f, "new"), STORE_OK);
    /* Another process sees them all, as the next server would after a kill. */
    assert_int_equal(number_in(f->path, "SELECT count(*) FROM clients WHERE cstatus = 1"), 51);
    check_file_is_the_registry(f);
}

static void sqlite_log_removed_while_running_is_made_good(void **state)
{
    check_lost_log_is_noticed(*state, "rm");
}

static void sqlite_log_emptied_while_running_is_made_good(void **state)
{
    check_lost_log_is_noticed(*state, "truncate -s 0");
}

/* A copy of the file alone is a backup as soon as there is a moment's rest. */
static void sqlite_file_alone_has_everyone_after_a_second_of_rest(void **state)
{
    struct fixture *f = *state;
    char copy[128];
    char command[320];

    snprintf(copy, sizeof(copy), "%s.copy", f->path);
    snprintf(command, sizeof(command), "cp %s %s", f->path, copy);
    fill(f, 100);
    leave(f, "c7", REASON_LEFT);
    idle_us(f, 2 * CLOCK_US_PER_SEC);
    assert_true(store_next_us(f->store) == UINT64_MAX);
    assert_int_equal(system(command), 0);
    assert_int_equal(number_in(copy, "SELECT count(*) FROM clients"), 100);
    assert_int_equal(number_in(copy, "SELECT count(*) FROM clients WHERE cstatus = 1"), 99);
    assert_int_equal(remove(copy), 0);
}

/* The claim was taken down before the file went. */
static void sqlite_file_deleted_with_claims_in_flight_has_them_all(void **state)
{
    struct fixture *f = *state;

    fill(f, 10);
    leave(f, "c1", REASON_LEFT);
    idle_us(f, CLOCK_US_PER_SEC);
    leave(f, "c2", REASON_LEFT);
    (void)claim(f, "c1");
    (void)claim(f, "c2");
    (void)claim(f, "new");
    leave(f, "c3", REASON_LEFT);
    forget(f, "c3");
    remove_file(f, true);
    turn(f);
    for (size_t i = 1; i <= 3; i++)
        assert_int_equal(f->answers[f->answered - i].result, STORE_OK);
    check_file_is_the_registry(f);
    assert_int_equal(number(f, "SELECT count(*) FROM clients WHERE cstatus = 1"), 10);
}

static void sqlite_file_deleted_before_the_stop_is_written_again(void **state)
{
    struct fixture *f = *state;
    char cid[32];

    fill(f, 10);
    remove_file(f, true);
    for (int i = 0; i < 10; i++) {
        snprintf(cid, sizeof(cid), "c%d", i);
        leave(f, cid, REASON_STOPPED);
    }
    reopen_store(f);
    assert_int_equal(registry_count(f->registry), 10);
    for (uint32_t sid = 1; sid <= 10; sid++)
        assert_int_equal(registry_by_sid(f->registry, sid)->reason, REASON_STOPPED);
}

/* The trouble ends with the server: what had to wait is written on the way out. */
static void sqlite_stopped_while_failing_writes_what_waited(void **state)
{
    struct fixture *f = *state;
    sqlite3 *other;

    fill(f, 10);
    other = lock_for_writing(f);
    leave(f, "c1", REASON_LEFT);
    leave(f, "c2", REASON_LEFT);
    forget(f, "c2");
    idle_us(f, CLOCK_US_PER_SEC);
    unlock(other);
    reopen_store(f);
    assert_int_equal(record_of(f, "c1")->reason, REASON_LEFT);
    assert_null(record_of(f, "c2"));
}

static void sqlite_file_replaced_by_a_foreign_one_leaves_that_alone(void **state)
{
    struct fixture *f = *state;
    char other[128];
    struct content before;

    fill(f, 10);
    snprintf(other, sizeof(other), "%s.other", f->path);
    execute_in(other, "CREATE TABLE precious (text TEXT); INSERT INTO precious VALUES ('kept')");
    before = content_of(other);
    assert_int_equal(rename(other, f->path), 0);

    for (int i = 0; i < 5; i++) {
        assert_int_equal(enter(f, "new"), STORE_UNAVAILABLE);
        assert_false(store_healthy(f->store));
        idle_us(f, 500 * CLOCK_US_PER_MS);
    }
    leave(f, "c1", REASON_LEFT);
    idle_us(f, CLOCK_US_PER_SEC);
    close_store(f);
    check_content(f->path, &before);
    free(before.bytes);
    /* Nor may what is left beside it change what is read from it. */
    assert_int_equal(number(f, "SELECT text = 'kept' FROM precious"), 1);
    assert_int_equal(number(f, "SELECT count(*) FROM sqlite_master"), 1);
}

static void sqlite_file_replaced_by_a_text_leaves_that_alone(void **state)
{
    struct fixture *f = *state;
    char other[128];
    struct content before;

    fill(f, 10);
    snprintf(other, sizeof(other), "%s.other", f->path);
    write_content(other, BYTES("some notes of somebody\n"));
    before = content_of(other);
    assert_int_equal(rename(other, f->path), 0);
    assert_int_equal(enter(f, "new"), STORE_UNAVAILABLE);
    leave(f, "c1", REASON_LEFT);
    idle_us(f, CLOCK_US_PER_SEC);

    /* The text goes, and the registry is back by itself, complete. */
    assert_int_equal(remove(f->path), 0);
    idle_us(f, HEAL_US);
    assert_int_equal(enter(f, "new"), STORE_OK);
    assert_true(store_healthy(f->store));
    check_file_is_the_registry(f);
    assert_int_equal(number(f, "SELECT count(*) FROM clients"), 11);
    free(before.bytes);
}

/* A copy from last week, put there while we run: it must not be read, and not be written. */
static void sqlite_file_replaced_by_a_copy_leaves_that_alone(void **state)
{
    struct fixture *f = *state;
    char other[128];
    struct content before;

    fill(f, 10);
    snprintf(other, sizeof(other), "%s.other", f->path);
    close_store(f);
    before = content_of(f->path);
    open_store(f);
    f->answered = 0;
    fill(f, 30);
    write_content(other, before.bytes, before.len);
    assert_int_equal(rename(other, f->path), 0);
    assert_int_equal(enter(f, "new"), STORE_UNAVAILABLE);
    leave(f, "c1", REASON_LEFT);
    idle_us(f, CLOCK_US_PER_SEC);
    close_store(f);
    check_content(f->path, &before);
    open_store(f);
    assert_int_equal(registry_count(f->registry), 10);
    free(before.bytes);
}

/*
 * Random life, with trouble now and then, against the registry: whenever the store is healthy and
 * has nothing left to write, the file says what the registry says.
 */
static void sqlite_random_life_ends_in_a_file_like_the_registry(void **state)
{
    struct fixture *f = *state;
    sqlite3 *other = NULL;
    bool small = false;
    char cid[32];

    srand(11);
    for (int step = 0; step < 6000; step++) {
        snprintf(cid, sizeof(cid), "c%d", rand() % 60);
        struct registry_record *record = record_of(f, cid);

        switch (rand() % 12) {
        case 0:
        case 1:
        case 2:
        case 3:
            if (!record || !record->connected)
                (void)claim(f, cid);
            break;
        case 4:
        case 5:
        case 6:
            if (record && record->connected)
                leave(f, cid, (enum reason)(1 + rand() % (REASON_COUNT - 1)));
            break;
        case 7:
            if (record && !record->connected && record->claims == 0)
                forget(f, cid);
            break;
        case 8: /* a turn is over before its moment is */
            turn(f);
            f->answered = 0;
            advance_us(f, (uint64_t)(rand() % 300) * CLOCK_US_PER_MS);
            break;
        default:
            break;
        }
        if (rand() % 3 == 0) {
            turn(f);
            f->answered = 0;
        }
        if (rand() % 150 == 0) {
            if (other) {
                unlock(other);
                other = NULL;
            } else if (small) {
                lift_file_size_limit();
                small = false;
            } else if (rand() % 3 == 0) {
                limit_file_size(4096);
                small = true;
            } else if (rand() % 2 == 0) {
                (void)remove(f->path);
            } else if (access(f->path, F_OK) == 0) {
                turn(f);
                f->answered = 0;
                if (access(f->path, F_OK) == 0 && store_healthy(f->store))
                    other = lock_for_writing(f);
            }
        }
        if (!other && !small && rand() % 40 == 0) {
            (void)claim(f, "witness");
            turn(f);
            idle_us(f, HEAL_US);
            (void)claim(f, "witness");
            turn(f);
            assert_int_equal(last_result(f), STORE_OK);
            f->answered = 0;
            assert_true(store_healthy(f->store));
            check_file_is_the_registry(f);
        }
    }
    if (other)
        unlock(other);
    lift_file_size_limit();
}

/* ---- the list ---- */

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_BOTH(store_without_work_wants_no_turn_and_is_healthy),
        ON_BOTH(store_answers_from_the_turn_and_from_nowhere_else),
        ON_BOTH(store_closed_with_claims_in_flight_answers_none),
        ON_BOTH(store_answers_thousands_once_each_in_order),
        ON_BOTH(store_answers_each_of_several_claims_of_one_record),
        ON_BOTH(store_claim_while_answering_is_answered_in_the_next_turn),
        ON_BOTH(store_takes_every_call_while_answering),
        ON_BOTH(store_disconnects_and_forgets_without_an_answer),
        ON_BOTH(store_close_of_nothing_is_allowed),

        ON_SQLITE(sqlite_file_is_what_the_documentation_says),
        ON_SQLITE(sqlite_row_is_there_for_others_when_the_answer_comes),
        ON_SQLITE(sqlite_all_changes_of_a_turn_are_one_transaction),
        ON_SQLITE(sqlite_disconnections_are_gathered_for_a_tenth_of_a_second),
        ON_SQLITE(sqlite_no_disconnection_waits_longer_because_others_follow),
        ON_SQLITE(sqlite_registration_does_not_hurry_disconnections),
        ON_SQLITE(sqlite_waiting_disconnection_does_not_undo_a_later_registration),
        ON_SQLITE(sqlite_registrations_wait_while_the_server_is_busy),
        ON_SQLITE(sqlite_registrations_wait_two_milliseconds_at_most),
        ON_SQLITE(sqlite_many_registrations_wait_for_nobody),
        ON_SQLITE(sqlite_disconnections_are_due_while_the_server_is_busy),
        ON_SQLITE(sqlite_registration_that_nobody_was_told_of_is_not_written),
        ON_SQLITE(sqlite_client_that_comes_back_in_the_same_turn_is_connected),
        ON_SQLITE(sqlite_round_trip_time_goes_into_the_row_and_comes_back),
        ON_SQLITE(sqlite_sid_of_a_forgotten_client_may_be_given_in_the_same_turn),

        ON_SQLITE(sqlite_reopened_knows_everyone_as_they_were),
        ON_A_FILE(sqlite_killed_right_after_an_answer_still_knows_the_client),
        ON_A_FILE(sqlite_synchronous_full_registers_as_well),
        ON_SQLITE(sqlite_write_ahead_log_does_not_grow_for_ever),

        ON_A_FILE(sqlite_empty_file_is_made_a_registry),
        ON_A_FILE(sqlite_file_that_is_no_database_is_refused_untouched),
        ON_A_FILE(sqlite_truncated_file_is_set_aside_if_it_bears_our_mark),
        ON_A_FILE(sqlite_damaged_file_is_set_aside),
        ON_A_FILE(sqlite_database_of_another_program_is_refused_untouched),
        ON_A_FILE(sqlite_registry_of_another_version_is_refused_untouched),
        ON_A_FILE(sqlite_newer_registry_with_a_log_is_refused_untouched),
        ON_A_FILE(sqlite_registry_with_another_table_is_refused_untouched),
        ON_A_FILE(sqlite_row_that_is_no_client_is_dropped_and_nothing_else),
        ON_A_FILE(sqlite_registry_is_not_set_aside_for_want_of_memory),
        ON_A_FILE(sqlite_registry_locked_by_another_program_is_refused),
        ON_SQLITE(sqlite_second_server_on_one_file_is_refused),
        ON_A_FILE(sqlite_path_that_can_be_no_file_is_refused),
        ON_SQLITE(sqlite_file_is_not_readable_for_everybody),

        ON_SQLITE(sqlite_file_locked_for_a_while_loses_nothing),
        ON_SQLITE(sqlite_file_that_may_not_grow_loses_nothing),
        ON_SQLITE(sqlite_full_disk_loses_nothing),
        ON_SQLITE(sqlite_heals_without_another_client),
        ON_SQLITE(sqlite_heals_by_writing),
        ON_SQLITE(sqlite_failing_store_keeps_no_registration_waiting),
        ON_SQLITE(sqlite_failing_store_lets_the_server_sleep),
        ON_SQLITE(sqlite_deleted_file_is_written_again_completely),
        ON_SQLITE(sqlite_deleted_file_and_log_are_written_again_completely),
        ON_SQLITE(sqlite_file_deleted_with_claims_in_flight_has_them_all),
        ON_SQLITE(sqlite_log_removed_while_running_is_made_good),
        ON_SQLITE(sqlite_log_emptied_while_running_is_made_good),
        ON_SQLITE(sqlite_file_alone_has_everyone_after_a_second_of_rest),
        ON_SQLITE(sqlite_file_deleted_before_the_stop_is_written_again),
        ON_SQLITE(sqlite_stopped_while_failing_writes_what_waited),
        ON_SQLITE(sqlite_file_replaced_by_a_foreign_one_leaves_that_alone),
        ON_SQLITE(sqlite_file_replaced_by_a_text_leaves_that_alone),
        ON_SQLITE(sqlite_file_replaced_by_a_copy_leaves_that_alone),
        ON_SQLITE(sqlite_random_life_ends_in_a_file_like_the_registry),
    };

    make_memory_fail_on_demand();
    return cmocka_run_group_tests(tests, start_store_tests, NULL);
}
