/*
 * When each client is asked next: a wheel of slots that turns once an interval. A client stays in
 * the slot it was put in, so it is asked once a turn; looking for who is due costs what is due,
 * however many clients there are.
 */
#ifndef SESSION_KEEPALIVE_H
#define SESSION_KEEPALIVE_H

#include <stddef.h>
#include <stdint.h>

#include <sys/queue.h>

/*
 * Few enough that a slot has some company: those of a slot are asked in one go, and most of their
 * answers are there when that is done, so that they cost one look at epoll and not one each. Many
 * enough that the server is never busy with one slot for long.
 */
#define KEEPALIVE_SLOTS 256

/* Embedded in whatever is kept alive, and owned by it. */
struct keepalive_entry {
    LIST_ENTRY(keepalive_entry) link;
    uint16_t slot;
};

LIST_HEAD(keepalive_list, keepalive_entry);

struct keepalive {
    struct keepalive_list slots[KEEPALIVE_SLOTS];
    struct keepalive_list due;               /* what is left of the slot that ended last */
    uint64_t due_us;                         /* when that was */
    uint64_t occupied[KEEPALIVE_SLOTS / 64]; /* a bit for each slot that is not empty */
    uint64_t interval_us;
    uint64_t turn_us; /* when slot 0 of this turn began */
    unsigned cursor;  /* the first slot that has not ended, or whose end has not been noticed */
};

/* interval_us: one turn of the wheel, 1 or more. */
void keepalive_init(struct keepalive *wheel, uint64_t interval_us, uint64_t now_us);

/* Takes effect from this moment on; everyone keeps their slot. */
void keepalive_set_interval(struct keepalive *wheel, uint64_t interval_us, uint64_t now_us);

/* Puts an entry on the wheel, at a place that random (64 random bits) chooses: due for the first
 * time within one interval, at any moment of it with the same chance. */
void keepalive_add(struct keepalive *wheel, struct keepalive_entry *entry, uint64_t random,
                   uint64_t now_us);

/* Takes an entry off the wheel, on which it must be. */
void keepalive_remove(struct keepalive *wheel, struct keepalive_entry *entry);

/*
 * The next entry that is due by now, which will be due again an interval later; NULL if there is
 * none. Call until it is; what is not fetched stays due. When the caller itself was late by more
 * than a quarter of the interval, the wheel stood still for that time: nobody is asked again sooner
 * than three quarters of an interval after the last time.
 */
struct keepalive_entry *keepalive_next(struct keepalive *wheel, uint64_t now_us);

/* When keepalive_next() will have something; UINT64_MAX while the wheel is empty. */
uint64_t keepalive_next_us(const struct keepalive *wheel);

#endif
