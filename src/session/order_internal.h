/*
 * What the files of shutdown orders share: the order itself, and what is asked and set in more than
 * one of them. order.c is its life, order_targets.c what is known of each client, order_restore.c
 * how it is taken up after a restart. Private to these.
 */
#ifndef SESSION_ORDER_INTERNAL_H
#define SESSION_ORDER_INTERNAL_H

#include "base/log.h"
#include "session/order.h"

enum step {
    STEP_PLAN,  /* finding out who belongs to which wave, up to the cursor */
    STEP_BEGIN, /* the current wave is to begin */
    STEP_TELL,  /* the current wave is being told, up to the cursor */
    STEP_WAIT,  /* for those who were told */
};

/* The sums of one wave. "present" is connected; "awaited" was when the server ended, and is not
 * yet again. */
struct sums {
    size_t targets;
    size_t told;
    size_t acknowledged;
    size_t present_told;
    size_t present_acknowledged;
    size_t present_untold; /* but for those who came late */
    size_t late;
    size_t awaited;      /* untold */
    size_t awaited_told; /* told, and acknowledged */
};

/* What the store keeps of an order, and reads whenever it wants to. */
struct order_kept {
    struct store_order row; /* its texts are by, and those below */
    struct store_order_wave waves[ORDER_MAX_WAVES];
    char state_word[16];
};

struct orders {
    struct registry *registry;
    struct store *store;
    const struct order_ops *ops;
    void *user;

    struct order_waves waves;
    struct sums sums[ORDER_MAX_WAVES];
    struct order_kept *kept; /* one of both: the other is that of the order before */
    struct order_kept both[2];

    enum order_state state;
    enum step step;
    unsigned current;       /* the wave that runs, ran last or is to run first, from 0 */
    uint32_t cursor;        /* sid: of STEP_PLAN and STEP_TELL */
    uint64_t wave_due_us;   /* the grace is over */
    uint64_t return_due_us; /* after a restart: who is awaited untold should be back */
    uint64_t hold_until_us; /* of no meaning without hold */

    unsigned saves; /* not yet answered */
    bool held_back; /* nobody is told before the order is kept */
    bool durable;
    bool frozen; /* the server ends: what happens from here on is not the order's doing */
    struct log_limit log_limit;
};

/* Running or holding. */
static inline bool order_is_under_way(const struct orders *orders)
{
    return orders->state == ORDER_RUNNING || orders->state == ORDER_HOLDING;
}

/* Ended, in whichever way. */
static inline bool order_is_over(const struct orders *orders)
{
    return orders->state != ORDER_NONE && !order_is_under_way(orders);
}

/* The telling of a wave, counted from 0, has begun. */
static inline bool order_has_begun(const struct orders *orders, unsigned wave)
{
    return orders->kept->waves[wave].started != 0;
}

/* Does what stands in the record belong to this order? Of one that the plan has not reached it is
 * of an order before. */
bool order_is_planned(const struct orders *orders, const struct registry_record *record);

/* Sets what is known of a client (RECORD_…), which has a wave; or its wave, from 1, with it, 0 for
 * none. The sums follow. */
void order_set_flags(struct orders *orders, struct registry_record *record, unsigned flags);
void order_set_wave(struct orders *orders, struct registry_record *record, unsigned wave,
                    unsigned flags);

/* Ends the order in this state. */
void order_end(struct orders *orders, enum order_state state, enum order_what what,
               struct moment now);

/* Logs an event of the order as a whole. */
void order_log(const struct orders *orders, const char *event, const char *by);

/* Unix seconds. */
int64_t order_seconds(struct moment now);

#endif
