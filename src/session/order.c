/*
 * The life of an order: plan (who belongs to which wave), then wave by wave tell and wait, then
 * hold. Must never know how a client is told.
 */
#include "session/order.h"

#include "base/log.h"
#include "base/units.h"
#include "session/order_internal.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Bounds of one tick: comparisons of an ID with a pattern, records looked at, clients told. */
#define PLAN_BUDGET 8192
#define LOOK_BUDGET 16384
#define TELL_BUDGET 256

static void plan_some(struct orders *orders);
static void plan(struct orders *orders, struct registry_record *record);
static void start_wave(struct orders *orders, unsigned wave, struct moment now);
static void tell_some(struct orders *orders, struct moment now);
static void tell(struct orders *orders, struct registry_record *record, struct moment now);
static bool wave_is_over(const struct orders *orders, struct moment now);
static uint64_t wave_ends_us(const struct orders *orders);
static void end_wave(struct orders *orders, struct moment now);
static bool holds(const struct orders *orders, struct moment now);
static unsigned wave_of_newcomer(const struct orders *orders, const struct registry_record *record,
                                 struct moment now);
static enum order_result why_not(const struct orders *orders);
static void save(struct orders *orders, struct moment now);
static void fill_kept(struct order_kept *kept, const struct order_waves *waves,
                      enum order_state state);
static void say(struct orders *orders, enum order_what what, unsigned wave,
                const struct registry_record *client);
static void log_wave(struct orders *orders, const char *event);

struct orders *orders_new(struct registry *registry, const struct order_ops *ops, void *user)
{
    struct orders *orders = calloc(1, sizeof(*orders));

    if (!orders)
        return NULL;
    orders->kept = &orders->both[0];
    orders->registry = registry;
    orders->ops = ops;
    orders->user = user;
    return orders;
}

void orders_set_store(struct orders *orders, struct store *store)
{
    orders->store = store;
}

void orders_free(struct orders *orders)
{
    if (!orders)
        return;
    order_waves_clear(&orders->waves);
    free(orders->kept->row.by);
    free(orders);
}

enum order_result orders_start(struct orders *orders, struct order_request *request,
                               struct moment now)
{
    /* The store may still have to write the last one: it stays until the new one is taken. */
    struct order_waves last_waves = orders->waves;
    struct order_kept *last = orders->kept;
    struct order_kept *next = &orders->both[last == &orders->both[0]];
    const enum order_result refusal = why_not(orders);
    char *by = refusal == ORDER_OK ? strdup(request->by) : NULL;

    *next = (struct order_kept){.row = {.id = last->row.id + 1,
                                        .by = by,
                                        .created = order_seconds(now),
                                        .grace_ms = request->grace_ms,
                                        .hold_ms = request->hold_ms}};
    if (by)
        fill_kept(next, &request->waves, ORDER_RUNNING);
    if (!by || store_save_order(orders->store, &next->row, now) != 0) {
        free(by);
        order_waves_clear(&request->waves);
        return refusal == ORDER_OK ? ORDER_ERR_NO_MEMORY : refusal;
    }
    order_waves_clear(&last_waves);
    free(last->row.by);
    last->row.by = NULL;

    orders->saves++;
    orders->kept = next;
    orders->waves = request->waves;
    request->waves = (struct order_waves){.count = 0};
    memset(orders->sums, 0, sizeof(orders->sums));
    orders->state = ORDER_RUNNING;
    orders->step = STEP_PLAN;
    orders->current = 0;
    orders->cursor = 0;
    orders->hold_until_us = now.mono_us + next->row.hold_ms * CLOCK_US_PER_MS;
    orders->held_back = true;
    orders->durable = false;
    say(orders, ORDER_WAS_STARTED, 0, NULL);
    plan_some(orders); /* so that the answer has numbers, unless there are very many clients */
    order_log(orders, "order_started", by);
    return ORDER_OK;
}

enum order_result orders_cancel(struct orders *orders, const char *by, struct moment now)
{
    if (!order_is_under_way(orders))
        return ORDER_ERR_NONE;
    order_log(orders, "order_cancelled", by);
    order_end(orders, ORDER_CANCELLED, ORDER_WAS_CANCELLED, now);
    return ORDER_OK;
}

void orders_on_saved(struct orders *orders, enum store_result result)
{
    const bool is_news = result != STORE_OK && (orders->durable || orders->held_back);

    assert(orders->saves > 0);
    orders->saves--;
    orders->durable = result == STORE_OK;
    if (is_news)
        order_log(orders, "order_not_durable", orders->kept->row.by);
    if (orders->saves > 0)
        return;
    /* Kept or not, it is carried out: machines are to be saved from a power failure, and a full
     * disk is no reason to let them die. */
    orders->held_back = false;
    say(orders, ORDER_SAVED, 0, NULL);
}

uint64_t orders_next_us(const struct orders *orders, struct moment now)
{
    if (orders->frozen || !order_is_under_way(orders))
        return UINT64_MAX;
    if (orders->state == ORDER_HOLDING)
        return orders->hold_until_us;
    switch (orders->step) {
    case STEP_PLAN:
    case STEP_TELL:
        return 0;
    case STEP_BEGIN:
        return orders->held_back ? UINT64_MAX : 0;
    case STEP_WAIT:
        break;
    }
    return wave_is_over(orders, now) ? 0 : wave_ends_us(orders);
}

void orders_tick(struct orders *orders, struct moment now)
{
    if (orders->frozen || !order_is_under_way(orders))
        return;
    if (orders->state == ORDER_HOLDING) {
        if (now.mono_us >= orders->hold_until_us)
            order_end(orders, ORDER_DONE, ORDER_IS_DONE, now);
        return;
    }
    switch (orders->step) {
    case STEP_PLAN:
        plan_some(orders);
        break;
    case STEP_BEGIN:
        if (!orders->held_back)
            start_wave(orders, orders->current, now);
        break;
    case STEP_TELL:
        tell_some(orders, now);
        break;
    case STEP_WAIT:
        if (wave_is_over(orders, now))
            end_wave(orders, now);
        break;
    }
}

/* Before its wave it is told with the wave; behind it only if the order holds, or if it was missed
 * because the server was away. */
void orders_client_connected(struct orders *orders, struct registry_record *record,
                             struct moment now)
{
    if (orders->frozen || !order_is_under_way(orders) || !order_is_planned(orders, record))
        return;

    const unsigned wave = wave_of_newcomer(orders, record, now);
    /* One that had acknowledged is only waited for, to see it go. */
    const bool awaited = (record->order_flags & (RECORD_AWAITED | RECORD_TOLD)) == RECORD_AWAITED &&
                         orders->state == ORDER_RUNNING;
    if (wave == 0)
        return;
    if (wave == record->order_wave) {
        order_set_flags(orders, record, (record->order_flags & ~RECORD_AWAITED) | RECORD_PRESENT);
    } else {
        order_set_wave(orders, record, wave, RECORD_PRESENT);
        /* After a restart it would be one that missed its first wave. */
        if (wave != order_waves_match(&orders->waves, record->cid, 0))
            store_save_target(orders->store, record, now);
    }
    if (!order_has_begun(orders, wave - 1))
        return;
    if (awaited || holds(orders, now)) {
        if (awaited && wave == orders->current + 1) /* it has the whole grace, too */
            orders->wave_due_us = now.mono_us + orders->kept->row.grace_ms * CLOCK_US_PER_MS;
        tell(orders, record, now);
    } else if (!(record->order_flags & (RECORD_TOLD | RECORD_LATE))) {
        /* Kept, or a restart would take it for one that was missed. */
        order_set_flags(orders, record, record->order_flags | RECORD_LATE);
        store_save_target(orders->store, record, now);
    }
}

void orders_client_acknowledged(struct orders *orders, struct registry_record *record,
                                struct moment now)
{
    if (!order_is_planned(orders, record) || record->order_wave == 0 ||
        !(record->order_flags & RECORD_TOLD) || record->order_flags & RECORD_ACKNOWLEDGED)
        return;
    order_set_flags(orders, record, record->order_flags | RECORD_ACKNOWLEDGED);
    store_save_target(orders->store, record, now);
    say(orders, ORDER_CLIENT_ACKNOWLEDGED, record->order_wave, record);
}

/* Also when the order is over: who took a while has gone in the end. */
void orders_client_gone(struct orders *orders, struct registry_record *record)
{
    if (!orders->frozen && order_is_planned(orders, record) && record->order_wave != 0)
        order_set_flags(orders, record, record->order_flags & ~RECORD_PRESENT);
}

void orders_forget_client(struct orders *orders, struct registry_record *record)
{
    if (order_is_planned(orders, record))
        order_set_wave(orders, record, 0, 0);
}

void orders_freeze(struct orders *orders)
{
    orders->frozen = true;
}

bool orders_need(const struct orders *orders, const struct registry_record *record)
{
    return order_is_under_way(orders) && record->order_wave != 0;
}

void order_end(struct orders *orders, enum order_state state, enum order_what what,
               struct moment now)
{
    struct store_order_wave *wave = &orders->kept->waves[orders->current];

    if (wave->started != 0 && wave->ended == 0)
        wave->ended = order_seconds(now);
    orders->state = state;
    orders->kept->row.ended = order_seconds(now);
    order_log(orders, "order_ended", orders->kept->row.by);
    say(orders, what, 0, NULL);
    save(orders, now);
}

void order_log(const struct orders *orders, const char *event, const char *by)
{
    char grace[UNITS_TEXT_BYTES];
    char hold[UNITS_TEXT_BYTES];
    size_t counts[ORDER_TARGET_COUNT];

    orders_count_targets(orders, counts);
    log_event(LOG_LEVEL_WARN, event, LOG_NUM("order", orders->kept->row.id), LOG_STR("by", by),
              LOG_STR("state", order_state_words[orders->state]),
              LOG_NUM("waves", orders->waves.count), LOG_STR("first", orders->waves.match[0]),
              LOG_STR("grace", units_format_duration(orders->kept->row.grace_ms, grace)),
              LOG_STR("hold", units_format_duration(orders->kept->row.hold_ms, hold)),
              LOG_NUM("gone", counts[ORDER_TARGET_GONE]),
              LOG_NUM("still_up", counts[ORDER_TARGET_STILL_UP] + counts[ORDER_TARGET_TOLD] +
                                      counts[ORDER_TARGET_ACKNOWLEDGED]),
              LOG_NUM("not_told", counts[ORDER_TARGET_PENDING]));
}

int64_t order_seconds(struct moment now)
{
    return now.wall_ms / 1000;
}

/* A slice of everybody. When an ID is compared with many patterns, or with long ones, fewer of them
 * at a time. */
static void plan_some(struct orders *orders)
{
    const size_t budget = PLAN_BUDGET / (1 + orders->waves.weight) + 1;

    for (size_t i = 0; i < budget; i++) {
        struct registry_record *record = registry_next(orders->registry, orders->cursor);
        if (!record) {
            orders->step = STEP_BEGIN;
            return;
        }
        orders->cursor = record->sid;
        plan(orders, record);
    }
}

static void plan(struct orders *orders, struct registry_record *record)
{
    record->order_wave = 0;
    record->order_flags = 0;
    /* One that is about to register for the first time comes as a newcomer, or never. */
    if (record->stored)
        order_set_wave(orders, record, order_waves_match(&orders->waves, record->cid, 0),
                       record->connected ? RECORD_PRESENT : 0);
}

static void start_wave(struct orders *orders, unsigned wave, struct moment now)
{
    orders->current = wave;
    orders->step = STEP_TELL;
    orders->cursor = 0;
    orders->wave_due_us = now.mono_us + orders->kept->row.grace_ms * CLOCK_US_PER_MS;
    orders->kept->waves[wave].started = order_seconds(now);
    log_wave(orders, "order_wave_started");
    say(orders, ORDER_WAVE_STARTED, wave + 1, NULL);
    save(orders, now);
}

static void tell_some(struct orders *orders, struct moment now)
{
    size_t told = 0;

    for (size_t i = 0; i < LOOK_BUDGET && told < TELL_BUDGET; i++) {
        struct registry_record *record = registry_next(orders->registry, orders->cursor);
        if (!record) {
            orders->step = STEP_WAIT;
            return;
        }
        orders->cursor = record->sid;
        if (record->order_wave == orders->current + 1 && record->order_flags & RECORD_PRESENT &&
            !(record->order_flags & (RECORD_TOLD | RECORD_LATE))) {
            tell(orders, record, now);
            told++;
        }
    }
}

/* The one place from which a 130 is sent. A session that an earlier order has told is not told
 * again, and counts as told. */
static void tell(struct orders *orders, struct registry_record *record, struct moment now)
{
    order_set_flags(orders, record, RECORD_TOLD | RECORD_PRESENT);
    store_save_target(orders->store, record, now);
    if (log_limit_allows(&orders->log_limit, now.mono_us))
        log_event(LOG_LEVEL_INFO, "told", LOG_NUM("order", orders->kept->row.id),
                  LOG_STR("cid", record->cid), LOG_NUM("wave", record->order_wave));
    say(orders, ORDER_CLIENT_TOLD, record->order_wave, record);
    /* Last: its session may end here. */
    orders->ops->tell(orders->user, record);
}

static bool wave_is_over(const struct orders *orders, struct moment now)
{
    const struct sums *sums = &orders->sums[orders->current];

    return (sums->present_told == 0 && sums->awaited == 0 && sums->awaited_told == 0) ||
           now.mono_us >= wave_ends_us(orders);
}

/* At the latest. Nobody is left untold because the server was restarted and the grace is short. */
static uint64_t wave_ends_us(const struct orders *orders)
{
    if (orders->sums[orders->current].awaited > 0 && orders->return_due_us > orders->wave_due_us)
        return orders->return_due_us;
    return orders->wave_due_us;
}

static void end_wave(struct orders *orders, struct moment now)
{
    orders->kept->waves[orders->current].ended = order_seconds(now);
    log_wave(orders, "order_wave_ended");
    say(orders, ORDER_WAVE_ENDED, orders->current + 1, NULL);
    if (orders->current + 1 < orders->waves.count) {
        start_wave(orders, orders->current + 1, now);
    } else if (holds(orders, now) && now.mono_us < orders->hold_until_us) {
        orders->state = ORDER_HOLDING;
        order_log(orders, "order_holding", orders->kept->row.by);
        say(orders, ORDER_IS_HOLDING, 0, NULL);
        save(orders, now);
    } else {
        order_end(orders, ORDER_DONE, ORDER_IS_DONE, now);
    }
}

/* Are clients told that connect behind their wave? */
static bool holds(const struct orders *orders, struct moment now)
{
    return orders->kept->row.hold_ms > 0 &&
           (orders->state == ORDER_RUNNING || now.mono_us < orders->hold_until_us);
}

/* The wave of a client that has just connected, from 1; 0 for none. One that came too late for its
 * own may be in time for a later one that matches it as well. */
static unsigned wave_of_newcomer(const struct orders *orders, const struct registry_record *record,
                                 struct moment now)
{
    const bool is_bound = record->order_flags & (RECORD_TOLD | RECORD_AWAITED);
    unsigned wave = record->order_wave;

    if (wave == 0)
        wave = order_waves_match(&orders->waves, record->cid, 0);
    if (wave == 0 || is_bound || !order_has_begun(orders, wave - 1) || holds(orders, now))
        return wave;
    for (unsigned later = order_waves_match(&orders->waves, record->cid, wave); later != 0;
         later = order_waves_match(&orders->waves, record->cid, later)) {
        if (!order_has_begun(orders, later - 1))
            return later;
    }
    return wave;
}

/* Why no order may be given now, or ORDER_OK. */
static enum order_result why_not(const struct orders *orders)
{
    if (orders->frozen)
        return ORDER_ERR_ENDING;
    return order_is_under_way(orders) ? ORDER_ERR_BUSY : ORDER_OK;
}

static void save(struct orders *orders, struct moment now)
{
    fill_kept(orders->kept, &orders->waves, orders->state);
    orders->saves++;
    if (store_save_order(orders->store, &orders->kept->row, now) != 0)
        orders_on_saved(orders, STORE_UNAVAILABLE); /* as if the store had said so */
}

static void fill_kept(struct order_kept *kept, const struct order_waves *waves,
                      enum order_state state)
{
    snprintf(kept->state_word, sizeof(kept->state_word), "%s", order_state_words[state]);
    for (size_t i = 0; i < waves->count; i++)
        kept->waves[i].match = waves->match[i];
    kept->row.state = kept->state_word;
    kept->row.waves = kept->waves;
    kept->row.wave_count = waves->count;
}

static void say(struct orders *orders, enum order_what what, unsigned wave,
                const struct registry_record *client)
{
    const struct order_news news = {
        .what = what, .order = orders->kept->row.id, .wave = wave, .client = client};

    orders->ops->news(orders->user, &news);
}

static void log_wave(struct orders *orders, const char *event)
{
    struct order_wave_progress wave;

    orders_wave_progress(orders, orders->current, &wave);
    log_event(LOG_LEVEL_WARN, event, LOG_NUM("order", orders->kept->row.id),
              LOG_NUM("wave", orders->current + 1), LOG_STR("match", wave.match),
              LOG_NUM("targets", wave.numbers.targets), LOG_NUM("told", wave.numbers.told),
              LOG_NUM("acknowledged", wave.numbers.acknowledged),
              LOG_NUM("gone", wave.numbers.gone), LOG_NUM("still_up", wave.numbers.still_up),
              LOG_NUM("not_connected", wave.numbers.not_connected));
}
