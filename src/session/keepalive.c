/*
 * The wheel. An entry is due when its slot ends, and then again a turn later. Knows nothing of what
 * an entry is part of, and reads no clock.
 */
#include "session/keepalive.h"

#include <stdbool.h>

#define WORD_BITS 64
#define WORDS     (KEEPALIVE_SLOTS / WORD_BITS)

static void skip_empty_slots(struct keepalive *wheel, uint64_t now_us);
static void insert(struct keepalive *wheel, struct keepalive_entry *entry);
static void take_slot(struct keepalive *wheel, unsigned slot);
static void stand_still_if_late(struct keepalive *wheel, uint64_t now_us);
static void advance(struct keepalive *wheel, uint64_t slots);
static uint64_t begin_of_slot(const struct keepalive *wheel, uint64_t slot);
static unsigned slots_to_occupied(const struct keepalive *wheel);

void keepalive_init(struct keepalive *wheel, uint64_t interval_us, uint64_t now_us)
{
    *wheel = (struct keepalive){.interval_us = interval_us, .turn_us = now_us};
}

void keepalive_set_interval(struct keepalive *wheel, uint64_t interval_us, uint64_t now_us)
{
    if (wheel->interval_us == interval_us)
        return;
    skip_empty_slots(wheel, now_us);
    wheel->interval_us = interval_us;
    wheel->turn_us = now_us - interval_us * wheel->cursor / KEEPALIVE_SLOTS;
}

void keepalive_add(struct keepalive *wheel, struct keepalive_entry *entry, uint64_t random,
                   uint64_t now_us)
{
    skip_empty_slots(wheel, now_us);
    entry->slot = (uint16_t)(random % KEEPALIVE_SLOTS);
    insert(wheel, entry);
}

void keepalive_remove(struct keepalive *wheel, struct keepalive_entry *entry)
{
    LIST_REMOVE(entry, link);
    if (LIST_EMPTY(&wheel->slots[entry->slot]))
        wheel->occupied[entry->slot / WORD_BITS] &= ~(UINT64_C(1) << (entry->slot % WORD_BITS));
}

struct keepalive_entry *keepalive_next(struct keepalive *wheel, uint64_t now_us)
{
    if (LIST_EMPTY(&wheel->due)) {
        const unsigned wait = slots_to_occupied(wheel);
        if (wait == KEEPALIVE_SLOTS)
            return NULL;

        const unsigned slot = (wheel->cursor + wait) % KEEPALIVE_SLOTS;
        const uint64_t end_us = begin_of_slot(wheel, wheel->cursor + wait + 1);
        if (now_us < end_us)
            return NULL;
        advance(wheel, wait + 1);
        take_slot(wheel, slot);
        wheel->due_us = end_us;
    }
    stand_still_if_late(wheel, now_us);

    struct keepalive_entry *entry = LIST_FIRST(&wheel->due);
    LIST_REMOVE(entry, link);
    insert(wheel, entry);
    return entry;
}

uint64_t keepalive_next_us(const struct keepalive *wheel)
{
    if (!LIST_EMPTY(&wheel->due))
        return 0;
    const unsigned wait = slots_to_occupied(wheel);
    return wait == KEEPALIVE_SLOTS ? UINT64_MAX : begin_of_slot(wheel, wheel->cursor + wait + 1);
}

/* The cursor rests while nothing is due; before an entry is placed relative to it, it must be where
 * the time is. It never passes a slot with somebody in it. */
static void skip_empty_slots(struct keepalive *wheel, uint64_t now_us)
{
    const uint64_t begin_us = begin_of_slot(wheel, wheel->cursor);
    const unsigned wait = slots_to_occupied(wheel);

    if (now_us <= begin_us)
        return;
    uint64_t passed = (now_us - begin_us) * KEEPALIVE_SLOTS / wheel->interval_us;
    if (wait < KEEPALIVE_SLOTS && passed > wait)
        passed = wait;
    advance(wheel, passed);
}

static void insert(struct keepalive *wheel, struct keepalive_entry *entry)
{
    LIST_INSERT_HEAD(&wheel->slots[entry->slot], entry, link);
    wheel->occupied[entry->slot / WORD_BITS] |= UINT64_C(1) << (entry->slot % WORD_BITS);
}

/* Moves a slot's list to wheel->due, which is empty; sys/queue.h has no word for that. */
static void take_slot(struct keepalive *wheel, unsigned slot)
{
    wheel->due.lh_first = LIST_FIRST(&wheel->slots[slot]);
    wheel->due.lh_first->link.le_prev = &wheel->due.lh_first;
    LIST_INIT(&wheel->slots[slot]);
    wheel->occupied[slot / WORD_BITS] &= ~(UINT64_C(1) << (slot % WORD_BITS));
}

/* For the time by which the caller was late the wheel did not turn: whoever is asked now is not
 * asked again before most of an interval has passed. */
static void stand_still_if_late(struct keepalive *wheel, uint64_t now_us)
{
    const uint64_t late_us = now_us - wheel->due_us;

    if (late_us <= wheel->interval_us / 4)
        return;
    wheel->turn_us += late_us;
    wheel->due_us = now_us;
}

static void advance(struct keepalive *wheel, uint64_t slots)
{
    const uint64_t next = wheel->cursor + slots;

    wheel->turn_us += next / KEEPALIVE_SLOTS * wheel->interval_us;
    wheel->cursor = (unsigned)(next % KEEPALIVE_SLOTS);
}

/* Counted from the turn's begin, so that no rounding adds up; slot may lie in a later turn. */
static uint64_t begin_of_slot(const struct keepalive *wheel, uint64_t slot)
{
    return wheel->turn_us + wheel->interval_us * slot / KEEPALIVE_SLOTS;
}

/* How far the next slot with somebody in it is from the cursor; KEEPALIVE_SLOTS if all are empty.
 */
static unsigned slots_to_occupied(const struct keepalive *wheel)
{
    const unsigned first = wheel->cursor / WORD_BITS;
    const unsigned bit = wheel->cursor % WORD_BITS;

    /* The cursor's word is looked at twice: from the cursor on first, the rest of it at the end. */
    for (unsigned i = 0; i <= WORDS; i++) {
        const unsigned index = (first + i) % WORDS;
        uint64_t word = wheel->occupied[index];

        if (i == 0)
            word &= UINT64_MAX << bit;
        else if (i == WORDS)
            word &= ~(UINT64_MAX << bit);
        if (word != 0) {
            const unsigned slot = index * WORD_BITS + (unsigned)__builtin_ctzll(word);
            return (slot + KEEPALIVE_SLOTS - wheel->cursor) % KEEPALIVE_SLOTS;
        }
    }
    return KEEPALIVE_SLOTS;
}
