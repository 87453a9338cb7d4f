/*
 * What a backend of the store is: a const struct of functions. Private to src/store.
 */
#ifndef STORE_BACKEND_H
#define STORE_BACKEND_H

#include "store/store.h"

/* One change that waits to be made durable: what the row is to be, copied, since the record may
 * change or go while it waits. */
enum change_kind {
    CHANGE_REGISTER,
    CHANGE_DISCONNECT,
    CHANGE_FORGET,
    CHANGE_ORDER,  /* is no record's: all but serial, order and kind is 0 */
    CHANGE_TARGET, /* of the order that was the last one then */
};

struct change {
    uint64_t serial; /* CHANGE_REGISTER, CHANGE_ORDER: to be answered, the latter unless it is 0;
                        CHANGE_TARGET: the order's */
    const struct store_order *order; /* CHANGE_ORDER: stays until another one comes */
    int64_t since;
    int64_t last_seen;
    uint32_t sid;
    uint32_t rtt_us;
    struct peer_address peer;
    uint16_t credential; /* CHANGE_REGISTER: number of its name */
    uint8_t kind;        /* enum change_kind */
    uint8_t reason;
    uint8_t order_wave;
    uint8_t order_flags;
    char cid[PROTO_MAX_ID_BYTES + 1];
};

/* Each function gets the state that open returned. All are called by store.c alone. */
struct store_backend {
    /* As store_open(); may call back only through store_push_answer(). Returns NULL with a message.
     */
    void *(*open)(struct store *store, const struct store_options *options,
                  struct registry *registry, char *message, size_t message_size);

    /* Takes a change down; see store_push_answer(). Returns 0, or -1 when memory is out. */
    int (*take)(void *state, const struct change *change, struct moment now);

    /* Makes durable what is due, and pushes answers; busy as for store_turn(). */
    void (*commit)(void *state, bool busy, struct moment now);

    uint64_t (*next_us)(const void *state);
    bool (*healthy)(const void *state);
    const struct store_order *(*order)(const void *state); /* that open found */
    const struct store_stats *(*stats)(void *state);
    void (*close)(void *state, struct moment now);
};

extern const struct store_backend store_memory;
extern const struct store_backend store_sqlite;

/*
 * A backend has an answer to a CHANGE_REGISTER or CHANGE_ORDER: kept until store_turn() delivers
 * it. To be called once for each, from commit or whenever the backend hears of it, never from take.
 * There is always room.
 */
void store_push_answer(struct store *store, uint64_t serial, uint32_t sid,
                       enum store_result result);

#endif
