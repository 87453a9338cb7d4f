/*
 * What the tests of the store share: a store in a folder of its own, a clock that is turned by
 * hand, what a session does with records and answers, and a look at the file as anybody else would
 * take it, through a second, read-only connection.
 */
#ifndef TESTS_STORE_FIXTURE_H
#define TESTS_STORE_FIXTURE_H

#include "store/store.h"

#include "unit.h"

#include <sqlite3.h>

#include <sys/resource.h>

#define GATHER_US   (50 * CLOCK_US_PER_MS)
#define START_US    (UINT64_C(5000000) * CLOCK_US_PER_SEC)
#define START_S     INT64_C(1700000000)

#define MAX_ANSWERS 20000

/* A store that heals by itself has done so by then. */
#define HEAL_US (10 * CLOCK_US_PER_SEC)

struct fixture;
typedef void answer_hook(struct fixture *fixture, const struct store_answer *answer);

struct fixture {
    char dir[64];
    char path[96];
    struct store_options options;
    struct registry *registry;
    struct store *store;
    struct moment now;
    uint64_t serial;
    struct store_answer answers[MAX_ANSWERS];
    size_t answered;
    bool in_turn;
    bool busy; /* as store_turn() is told */
    answer_hook *hook;
    char message[512];
};

extern const struct peer_address peer;

/* ---- one test in the list ---- */

extern int store_kinds[];

#define ON_BOTH(test)                                                                              \
    {"memory: " #test, test, setup, teardown, &store_kinds[STORE_MEMORY]},                         \
    {                                                                                              \
        "sqlite: " #test, test, setup, teardown, &store_kinds[STORE_SQLITE]                        \
    }
#define ON_SQLITE(test)                                                                            \
    {                                                                                              \
#test, test, setup, teardown, &store_kinds[STORE_SQLITE]                                   \
    }
#define ON_A_FILE(test)                                                                            \
    {                                                                                              \
#test, test, setup_closed, teardown, NULL                                                  \
    }

/* Once before all tests. */
int start_store_tests(void **state);

/* With an open store; without one, the test makes the file first. */
int setup(void **state);
int setup_closed(void **state);
int teardown(void **state);

/* ---- the store ---- */

/* What a session does with an answer. Checks that a turn runs. */
void on_answer(void *user, const struct store_answer *answer, struct moment now);

/* What a client with this ID comes with: credential-0 or credential-1, by its length. */
uint16_t credential_of(const char *cid);

void open_store(struct fixture *f);
void close_store(struct fixture *f);
void reopen_store(struct fixture *f);

/* Opens the store and expects a refusal that names the file. */
void refuse_to_open(struct fixture *f);

void turn(struct fixture *f);
void advance_us(struct fixture *f, uint64_t us);

/* Lives as a server on which nothing happens: only the store's own wishes wake it. */
void idle_us(struct fixture *f, uint64_t us);

struct registry_record *record_of(struct fixture *f, const char *cid);
uint64_t claim_from(struct fixture *f, const char *cid, const struct peer_address *from);
uint64_t claim(struct fixture *f, const char *cid);
enum store_result last_result(struct fixture *f);

/* Registers, and lives through the turn. */
enum store_result enter(struct fixture *f, const char *cid);
void leave(struct fixture *f, const char *cid, enum reason reason);
void forget(struct fixture *f, const char *cid);

/* Registers c0, c1, … in one turn. */
void fill(struct fixture *f, int count);

/* ---- the file, seen by others ---- */

/* The first number of the first row. */
int64_t number_in(const char *path, const char *sql);
int64_t number(struct fixture *f, const char *sql);

/* Makes or changes a database as another program would. */
void execute_in(const char *path, const char *sql);

/* Every stored record is a row with the same content, and there are no other rows. */
void check_file_is_the_registry(struct fixture *f);

/* How many transactions the write-ahead log holds. */
size_t commits(struct fixture *f);

struct content {
    unsigned char *bytes;
    size_t len;
    bool exists;
};

/* Not while a store has it open in this process: closing it again would drop SQLite's locks. */
struct content content_of(const char *path);
void check_content(const char *path, const struct content *before);
void write_content(const char *path, const void *bytes, size_t len);

/* The file cannot be opened, and nobody touches a byte of it. */
void refuse_unchanged(struct fixture *f);

/* The file is damaged: it is kept under another name, byte by byte, and an empty one takes its
 * place, in which a client can be registered. The store is closed again, and both files are gone.
 */
void set_aside_unchanged(struct fixture *f);

/* A registry with a few hundred clients, closed. */
void make_registry_file(struct fixture *f);

/* ---- trouble ---- */

/* Somebody else writes to our file, and does not stop. */
sqlite3 *lock_for_writing(struct fixture *f);
void unlock(sqlite3 *db);

/* Files may not grow beyond this; SIGXFSZ is ignored, as main() does it. */
void limit_file_size(rlim_t bytes);
void lift_file_size_limit(void);

/* The file, and its log if so said. */
void remove_file(struct fixture *f, bool with_log);

#endif
