/*
 * Taking an order up after a restart: which step it was in, who was told, who is to be waited for,
 * and whether it is too old. Happens once, before the first client comes.
 */
#include "session/order.h"

#include "session/order_internal.h"

#include <stdlib.h>
#include <string.h>

/* By which somebody may set the clock back without an order looking as if it came from the future.
 */
#define MAX_STEP_BACK_S 2

static int take_kept(struct orders *orders, const struct store_order *kept);
static void find_step(struct orders *orders, struct moment now);
static bool has_expired(const struct orders *orders, struct moment now);
static void plan_again(struct orders *orders, struct registry_record *record);
static bool was_there(const struct orders *orders, const struct registry_record *record);

void orders_restore(struct orders *orders, const struct store_order *kept, struct moment now)
{
    struct registry_record *record = NULL;

    if (!kept)
        return;
    if (take_kept(orders, kept) != 0) {
        log_event(LOG_LEVEL_ERROR, "order_unreadable", LOG_NUM("order", kept->id));
        order_waves_clear(&orders->waves);
        *orders->kept = (struct order_kept){.row = {.id = kept->id}};
        return;
    }
    orders->durable = true;
    find_step(orders, now);
    const bool was_under_way = order_is_under_way(orders);
    if (was_under_way && has_expired(orders, now))
        orders->state = ORDER_EXPIRED; /* so that nobody is awaited */
    for (uint32_t sid = 0; (record = registry_next(orders->registry, sid)) != NULL;
         sid = record->sid)
        plan_again(orders, record);
    if (order_is_under_way(orders))
        order_log(orders, "order_resumed", orders->kept->row.by);
    else if (was_under_way)
        order_end(orders, ORDER_EXPIRED, ORDER_HAS_EXPIRED, now);
}

/* Takes over what the store has of an order. Returns 0, or -1 when it makes no sense. */
static int take_kept(struct orders *orders, const struct store_order *kept)
{
    char message[128];
    enum order_state state = ORDER_RUNNING;

    while (state < ORDER_STATE_COUNT && strcmp(kept->state, order_state_words[state]) != 0)
        state++;
    if (state == ORDER_STATE_COUNT || kept->wave_count == 0 || kept->wave_count > ORDER_MAX_WAVES)
        return -1;
    for (size_t i = 0; i < kept->wave_count; i++) {
        if (order_waves_add(&orders->waves, kept->waves[i].match, message, sizeof(message)) != 0)
            return -1;
        orders->kept->waves[i] = kept->waves[i];
    }
    orders->kept->row = *kept;
    orders->kept->row.by = strdup(kept->by);
    if (!orders->kept->row.by)
        abort(); /* out of memory while starting */
    orders->state = state;
    return 0;
}

/* Where an interrupted order goes on. The wave that was under way gets its grace anew: its clients
 * need time to come back before they can be told. */
static void find_step(struct orders *orders, struct moment now)
{
    const int64_t hold_until_ms =
        orders->kept->row.created * 1000 + (int64_t)orders->kept->row.hold_ms;

    while (orders->current + 1 < orders->waves.count &&
           orders->kept->waves[orders->current].ended != 0 &&
           (order_is_under_way(orders) || order_has_begun(orders, orders->current + 1)))
        orders->current++;
    /* Whoever is still to be told of a wave that had begun is awaited; others come too late. */
    orders->step = order_has_begun(orders, orders->current) ? STEP_WAIT : STEP_BEGIN;
    orders->cursor = 0;
    orders->wave_due_us = now.mono_us + orders->kept->row.grace_ms * CLOCK_US_PER_MS;
    orders->return_due_us = now.mono_us + ORDER_RETURN_MS * CLOCK_US_PER_MS;
    orders->hold_until_us = now.mono_us;
    if (hold_until_ms > now.wall_ms)
        orders->hold_until_us += (uint64_t)(hold_until_ms - now.wall_ms) * CLOCK_US_PER_MS;
}

/* Also when the clock says that it was given in the future: then nobody knows how old it is. */
static bool has_expired(const struct orders *orders, struct moment now)
{
    const struct store_order *row = &orders->kept->row;
    const int64_t started = orders->kept->waves[orders->current].started;
    const int64_t hold_until_ms = row->created * 1000 + (int64_t)row->hold_ms;
    int64_t until_ms = row->created * 1000;

    if (started != 0)
        until_ms = started * 1000 + (int64_t)row->grace_ms;
    if (hold_until_ms > until_ms)
        until_ms = hold_until_ms;
    return now.wall_ms > until_ms + (int64_t)ORDER_MAX_AWAY_MS ||
           order_seconds(now) < row->created - MAX_STEP_BACK_S;
}

/* What a client is to an order that was interrupted. Its row, if it has one, says that it was told,
 * or is in another wave than the first that matches; who has not answered and was there until the
 * end of the server may never have heard it, and who has may not have gone yet. */
static void plan_again(struct orders *orders, struct registry_record *record)
{
    unsigned wave = record->order_wave <= orders->waves.count ? record->order_wave : 0;
    unsigned flags = record->order_flags & (RECORD_TOLD | RECORD_ACKNOWLEDGED | RECORD_LATE);

    if (wave == 0) {
        wave = order_waves_match(&orders->waves, record->cid, 0);
        flags = 0;
    }
    if (order_is_under_way(orders) && wave > orders->current && !(flags & RECORD_LATE) &&
        was_there(orders, record))
        flags = (flags & RECORD_ACKNOWLEDGED ? flags : 0) | RECORD_AWAITED;
    record->order_wave = 0;
    order_set_wave(orders, record, wave, flags);
}

/* Was it connected when the server ended? */
static bool was_there(const struct orders *orders, const struct registry_record *record)
{
    const enum reason reason = (enum reason)record->reason;

    return record->since >= orders->kept->row.created &&
           (reason == REASON_CRASH || reason == REASON_STOPPED || reason == REASON_RESTARTING);
}
