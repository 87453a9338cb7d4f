/*
 * Shutdown orders: whom to tell 130, wave by wave, for how long to wait for each, and what became
 * of it (docs/control.md, "What an order does"). There is one order at a time. Only rules: time is
 * an argument, who is told goes out through ops, and the store keeps it all.
 *
 * This is the only place that has a client told to shut down.
 */
#ifndef SESSION_ORDER_H
#define SESSION_ORDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/clock.h"
#include "registry/registry.h"
#include "session/order_waves.h"
#include "store/store.h"

struct orders;

#define ORDER_MAX_GRACE_MS UINT64_C(86400000)
#define ORDER_MAX_HOLD_MS  (30 * UINT64_C(86400000))
#define ORDER_GRACE_MS     UINT64_C(60000) /* the default */
/* An interrupted order is taken up when the server was away no longer than this beyond its end:
 * a database from last week must not shut anybody down. */
#define ORDER_MAX_AWAY_MS UINT64_C(900000)
/* From the restart on, so long at least may clients take to come back before a wave goes on without
 * having told them, however short its grace: they pause for up to 60 s, and then shake hands. */
#define ORDER_RETURN_MS UINT64_C(75000)

enum order_state {
    ORDER_NONE, /* there never was one */
    ORDER_RUNNING,
    ORDER_HOLDING, /* all waves are over, and who comes is told */
    ORDER_DONE,
    ORDER_CANCELLED,
    ORDER_EXPIRED, /* the server was away for too long */
    ORDER_STATE_COUNT
};

enum order_wave_state { ORDER_WAVE_PENDING, ORDER_WAVE_RUNNING, ORDER_WAVE_DONE, ORDER_WAVE_NEVER };

/* What became of one client. */
enum order_target {
    ORDER_TARGET_NONE, /* it is no part of the order */
    ORDER_TARGET_PENDING,
    ORDER_TARGET_TOLD,
    ORDER_TARGET_ACKNOWLEDGED,
    ORDER_TARGET_GONE,
    ORDER_TARGET_STILL_UP, /* told, and connected although its wave is over */
    ORDER_TARGET_NOT_CONNECTED,
    ORDER_TARGET_LATE, /* it came when its wave had begun, and is left alone */
    ORDER_TARGET_COUNT
};

/* Their words, in the order of the enumerators, NULL-terminated. */
extern const char *const order_state_words[];
extern const char *const order_wave_state_words[];
extern const char *const order_target_words[];

enum order_what {
    ORDER_WAS_STARTED,
    ORDER_WAVE_STARTED,
    ORDER_WAVE_ENDED,
    ORDER_CLIENT_TOLD,
    ORDER_CLIENT_ACKNOWLEDGED,
    ORDER_IS_HOLDING,
    ORDER_IS_DONE,
    ORDER_WAS_CANCELLED,
    ORDER_HAS_EXPIRED,
    ORDER_SAVED, /* all that was to be saved is, or could not be: order_progress.durable tells */
};

extern const char *const order_what_words[];

struct order_news {
    enum order_what what;
    int64_t order;
    unsigned wave;                        /* from 1; 0 where it is about no wave */
    const struct registry_record *client; /* or NULL */
};

struct order_ops {
    /* Sends a connected client its 130, unless this session has been told before. May end the
     * session, and so call orders_client_gone(). */
    void (*tell)(void *user, struct registry_record *record);

    /* Must not call back into the orders. */
    void (*news)(void *user, const struct order_news *news);
};

struct order_request {
    struct order_waves waves; /* one or more; taken over by orders_start(), also when it fails */
    uint64_t grace_ms;
    uint64_t hold_ms; /* 0: who connects later is left alone */
    const char *by;   /* who gives it, for people */
};

enum order_result {
    ORDER_OK = 0,
    ORDER_ERR_BUSY = -1,      /* another one is running or holding */
    ORDER_ERR_NONE = -2,      /* there is none to cancel */
    ORDER_ERR_NO_MEMORY = -3, /* nothing has changed */
    ORDER_ERR_ENDING = -4,    /* the server ends: the next one is to be asked */
};

/* Each wave adds up: targets = pending + told + not_connected + late, and told = gone +
 * still_up. */
struct order_numbers {
    size_t targets;
    size_t pending;
    size_t told;
    size_t acknowledged;
    size_t gone;
    size_t still_up;
    size_t not_connected;
    size_t late;
};

struct order_progress {
    int64_t id;
    enum order_state state;
    const char *by;
    int64_t created; /* Unix seconds */
    int64_t ended;   /* 0: not yet */
    uint64_t grace_ms;
    uint64_t hold_ms;
    unsigned wave;    /* the current or last one, from 1; 0 before the first */
    unsigned waves;   /* how many there are */
    bool durable;     /* a restart would know of it */
    bool is_settling; /* something is being saved: wait for ORDER_SAVED */
};

struct order_wave_progress {
    const char *match;
    enum order_wave_state state;
    int64_t started; /* Unix seconds; 0: not yet */
    int64_t ended;
    struct order_numbers numbers;
};

/* Returns NULL when memory is out. The registry and ops must outlive it. Not usable before
 * orders_set_store(); the store must outlive the last call but orders_free(). */
struct orders *orders_new(struct registry *registry, const struct order_ops *ops, void *user);
void orders_set_store(struct orders *orders, struct store *store);
void orders_free(struct orders *orders);

/* Takes up the order that the store knew when it was opened, if it is to be. Once, before the first
 * client comes. Aborts when memory is out. */
void orders_restore(struct orders *orders, const struct store_order *kept, struct moment now);

/* Gives an order; the first 130 is sent once it is saved, or could not be, by orders_tick(). */
enum order_result orders_start(struct orders *orders, struct order_request *request,
                               struct moment now);

/* Nobody is told any more from this very call on. by is who cancels it. */
enum order_result orders_cancel(struct orders *orders, const char *by, struct moment now);

/* The store has answered a save. */
void orders_on_saved(struct orders *orders, enum store_result result);

/* When orders_tick() has something to do; 0 for now, UINT64_MAX for never. */
uint64_t orders_next_us(const struct orders *orders, struct moment now);

/* Plans, tells and ends waves: a bounded number of clients in one call. */
void orders_tick(struct orders *orders, struct moment now);

/* A client has got its 140; it may be told before this returns, and its session be over. */
void orders_client_connected(struct orders *orders, struct registry_record *record,
                             struct moment now);

/* A client has answered its 130. */
void orders_client_acknowledged(struct orders *orders, struct registry_record *record,
                                struct moment now);

/* A client is no longer connected. */
void orders_client_gone(struct orders *orders, struct registry_record *record);

/* A client is about to be forgotten: it is no target any more. */
void orders_forget_client(struct orders *orders, struct registry_record *record);

/* The server ends: sessions that end from here on have not gone for the order, and nobody is told
 * any more. The next start takes the order up. */
void orders_freeze(struct orders *orders);

/* Is the client part of an order that is under way, so that it may not be forgotten? */
bool orders_need(const struct orders *orders, const struct registry_record *record);

/* What the order under way, or the last one, has come to. The texts are valid until the next one is
 * given. index counts from 0. */
void orders_progress(const struct orders *orders, struct order_progress *progress);
void orders_wave_progress(const struct orders *orders, unsigned index,
                          struct order_wave_progress *wave);

/* How many clients are in each state, indexed by enum order_target. */
void orders_count_targets(const struct orders *orders, size_t counts[ORDER_TARGET_COUNT]);

/* What became of this client. */
enum order_target orders_target(const struct orders *orders, const struct registry_record *record);

#endif
