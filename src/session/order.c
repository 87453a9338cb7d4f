/*
 * The life of an order: plan (who belongs to which wave), then wave by wave tell and wait, then
 * hold. What is known of each client stands in its record, and each wave keeps its sums, so that
 * news of a client costs the same however many there are. Must never know how a client is told.
 */
#include "session/order.h"

#include "base/log.h"
#include "base/units.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* Bounds of one tick: comparisons of an ID with a pattern, records looked at, clients told. */
#define PLAN_BUDGET 8192
#define LOOK_BUDGET 16384
#define TELL_BUDGET 256

enum step {
    STEP_PLAN,  /* finding out who belongs to which wave, up to the cursor */
    STEP_BEGIN, /* the current wave is to begin */
    STEP_TELL,  /* the current wave is being told, up to the cursor */
    STEP_WAIT,  /* for those who were told */
};

/* The sums of one wave. "present" is connected. */
struct sums {
    size_t targets;
    size_t told;
    size_t acknowledged;
    size_t present_told;
    size_t present_acknowledged;
    size_t present_untold;
    size_t awaited; /* untold, and not present */
};

struct orders {
    struct registry *registry;
    struct store *store;
    const struct order_ops *ops;
    void *user;

    struct order_waves waves;
    struct sums sums[ORDER_MAX_WAVES];
    struct store_order_wave rows[ORDER_MAX_WAVES];
    struct store_order row; /* what is kept; its texts are by, state_word and those of waves */
    char state_word[16];

    enum order_state state;
    enum step step;
    unsigned current; /* the wave that runs, ran last or is to run first, from 0 */
    uint32_t cursor;  /* sid: of STEP_PLAN and STEP_TELL */
    uint64_t wave_due_us;
    uint64_t hold_until_us; /* of no meaning without hold */

    unsigned saves; /* not yet answered */
    bool held_back; /* nobody is told before the order is kept */
    bool durable;
    bool frozen; /* the server ends: what happens from here on is not the order's doing */
    struct log_limit log_limit;
};

/* clang-format off */
const char *const order_state_words[] = {
    [ORDER_NONE] = "none", [ORDER_RUNNING] = "running", [ORDER_HOLDING] = "holding",
    [ORDER_DONE] = "done", [ORDER_CANCELLED] = "cancelled", [ORDER_EXPIRED] = "expired", NULL,
};
const char *const order_wave_state_words[] = {
    [ORDER_WAVE_PENDING] = "pending", [ORDER_WAVE_RUNNING] = "running", [ORDER_WAVE_DONE] = "done",
    [ORDER_WAVE_NEVER] = "cancelled", NULL,
};
const char *const order_target_words[] = {
    [ORDER_TARGET_NONE] = "none", [ORDER_TARGET_PENDING] = "pending", [ORDER_TARGET_TOLD] = "told",
    [ORDER_TARGET_ACKNOWLEDGED] = "acknowledged", [ORDER_TARGET_GONE] = "gone",
    [ORDER_TARGET_STILL_UP] = "still_up", [ORDER_TARGET_NOT_CONNECTED] = "not_connected", NULL,
};
const char *const order_what_words[] = {
    [ORDER_WAS_STARTED] = "started", [ORDER_WAVE_STARTED] = "wave_started",
    [ORDER_WAVE_ENDED] = "wave_ended", [ORDER_CLIENT_TOLD] = "told",
    [ORDER_CLIENT_ACKNOWLEDGED] = "acknowledged", [ORDER_IS_HOLDING] = "holding",
    [ORDER_IS_DONE] = "done", [ORDER_WAS_CANCELLED] = "cancelled", [ORDER_HAS_EXPIRED] = "expired",
    [ORDER_SAVED] = "saved", NULL,
};
/* clang-format on */

static_assert(sizeof(order_state_words) / sizeof(char *) == ORDER_STATE_COUNT + 1,
              "every state has a word");
static_assert(sizeof(order_target_words) / sizeof(char *) == ORDER_TARGET_COUNT + 1,
              "every state of a target has a word");

static void plan_some(struct orders *orders);
static void plan(struct orders *orders, struct registry_record *record);
static bool is_planned(const struct orders *orders, const struct registry_record *record);
static void start_wave(struct orders *orders, unsigned wave, struct moment now);
static void tell_some(struct orders *orders, struct moment now);
static void tell(struct orders *orders, struct registry_record *record, struct moment now);
static bool wave_is_over(const struct orders *orders, struct moment now);
static void end_wave(struct orders *orders, struct moment now);
static void end_order(struct orders *orders, enum order_state state, enum order_what what,
                      struct moment now);
static bool is_under_way(const struct orders *orders);
static bool is_over(const struct orders *orders);
static bool has_begun(const struct orders *orders, unsigned wave);
static bool was_told(const struct orders *orders, unsigned wave);
static bool holds(const struct orders *orders, struct moment now);
static unsigned wave_of_newcomer(const struct orders *orders, const struct registry_record *record,
                                 struct moment now);
static void set_flags(struct orders *orders, struct registry_record *record, unsigned flags);
static void set_wave(struct orders *orders, struct registry_record *record, unsigned wave,
                     unsigned flags);
static void add_up(struct orders *orders, const struct registry_record *record, int sign);
static void save(struct orders *orders, struct moment now);
static void say(struct orders *orders, enum order_what what, unsigned wave,
                const struct registry_record *client);
static void log_order(const struct orders *orders, const char *event, const char *by);
static void log_wave(struct orders *orders, const char *event);
static int take_kept(struct orders *orders, const struct store_order *kept);
static void find_step(struct orders *orders, struct moment now);
static bool has_expired(const struct orders *orders, struct moment now);
static void plan_again(struct orders *orders, struct registry_record *record);
static bool was_there(const struct orders *orders, const struct registry_record *record);
static int64_t seconds(struct moment now);

struct orders *orders_new(struct registry *registry, const struct order_ops *ops, void *user)
{
    struct orders *orders = calloc(1, sizeof(*orders));

    if (!orders)
        return NULL;
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
    free(orders->row.by);
    free(orders);
}

void orders_restore(struct orders *orders, const struct store_order *kept, struct moment now)
{
    struct registry_record *record = NULL;

    if (!kept)
        return;
    if (take_kept(orders, kept) != 0) {
        log_event(LOG_LEVEL_ERROR, "order_unreadable", LOG_NUM("order", kept->id));
        order_waves_clear(&orders->waves);
        orders->row = (struct store_order){.id = kept->id};
        return;
    }
    orders->durable = true;
    find_step(orders, now);
    for (uint32_t sid = 0; (record = registry_next(orders->registry, sid)) != NULL;
         sid = record->sid)
        plan_again(orders, record);
    if (!is_under_way(orders))
        return;
    if (has_expired(orders, now))
        end_order(orders, ORDER_EXPIRED, ORDER_HAS_EXPIRED, now);
    else
        log_order(orders, "order_resumed", orders->row.by);
}

enum order_result orders_start(struct orders *orders, struct order_request *request,
                               struct moment now)
{
    char *by = NULL;

    if (is_under_way(orders)) {
        order_waves_clear(&request->waves);
        return ORDER_ERR_BUSY;
    }
    by = strdup(request->by);
    if (!by) {
        order_waves_clear(&request->waves);
        return ORDER_ERR_NO_MEMORY;
    }

    order_waves_clear(&orders->waves);
    free(orders->row.by);
    orders->waves = request->waves;
    request->waves = (struct order_waves){.count = 0};
    memset(orders->sums, 0, sizeof(orders->sums));
    memset(orders->rows, 0, sizeof(orders->rows));
    orders->row = (struct store_order){
        .id = orders->row.id + 1,
        .by = by,
        .created = seconds(now),
        .grace_ms = request->grace_ms,
        .hold_ms = request->hold_ms,
    };
    orders->state = ORDER_RUNNING;
    orders->step = STEP_PLAN;
    orders->current = 0;
    orders->cursor = 0;
    orders->hold_until_us = now.mono_us + orders->row.hold_ms * CLOCK_US_PER_MS;
    orders->held_back = true;
    orders->durable = false;
    log_order(orders, "order_started", orders->row.by);
    say(orders, ORDER_WAS_STARTED, 0, NULL);
    save(orders, now);
    plan_some(orders); /* so that the answer has numbers, unless there are very many clients */
    return ORDER_OK;
}

enum order_result orders_cancel(struct orders *orders, const char *by, struct moment now)
{
    if (!is_under_way(orders))
        return ORDER_ERR_NONE;
    if (orders->rows[orders->current].started != 0 && orders->rows[orders->current].ended == 0)
        orders->rows[orders->current].ended = seconds(now);
    log_order(orders, "order_cancelled", by);
    end_order(orders, ORDER_CANCELLED, ORDER_WAS_CANCELLED, now);
    return ORDER_OK;
}

void orders_on_saved(struct orders *orders, enum store_result result)
{
    const bool is_news = result != STORE_OK && (orders->durable || orders->held_back);

    assert(orders->saves > 0);
    orders->saves--;
    orders->durable = result == STORE_OK;
    if (is_news)
        log_order(orders, "order_not_durable", orders->row.by);
    if (orders->saves > 0)
        return;
    /* Kept or not, it is carried out: machines are to be saved from a power failure, and a full
     * disk is no reason to let them die. */
    orders->held_back = false;
    say(orders, ORDER_SAVED, 0, NULL);
}

uint64_t orders_next_us(const struct orders *orders, struct moment now)
{
    if (orders->frozen || !is_under_way(orders))
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
    return wave_is_over(orders, now) ? 0 : orders->wave_due_us;
}

void orders_tick(struct orders *orders, struct moment now)
{
    if (orders->frozen || !is_under_way(orders))
        return;
    if (orders->state == ORDER_HOLDING) {
        if (now.mono_us >= orders->hold_until_us)
            end_order(orders, ORDER_DONE, ORDER_IS_DONE, now);
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
    if (orders->frozen || !is_under_way(orders) || !is_planned(orders, record))
        return;

    const unsigned wave = wave_of_newcomer(orders, record, now);
    const bool awaited = record->order_flags & RECORD_AWAITED && orders->state == ORDER_RUNNING;
    if (wave == 0)
        return;
    if (wave == record->order_wave) {
        set_flags(orders, record, (record->order_flags & ~RECORD_AWAITED) | RECORD_PRESENT);
    } else {
        set_wave(orders, record, wave, RECORD_PRESENT);
        /* After a restart it would be one that missed its first wave. */
        if (wave != order_waves_match(&orders->waves, record->cid, 0))
            store_save_target(orders->store, record, now);
    }
    if (has_begun(orders, wave - 1) && (awaited || holds(orders, now)))
        tell(orders, record, now);
}

void orders_client_acknowledged(struct orders *orders, struct registry_record *record,
                                struct moment now)
{
    if (!is_planned(orders, record) || record->order_wave == 0 ||
        !(record->order_flags & RECORD_TOLD) || record->order_flags & RECORD_ACKNOWLEDGED)
        return;
    set_flags(orders, record, record->order_flags | RECORD_ACKNOWLEDGED);
    store_save_target(orders->store, record, now);
    say(orders, ORDER_CLIENT_ACKNOWLEDGED, record->order_wave, record);
}

/* Also when the order is over: who took a while has gone in the end. */
void orders_client_gone(struct orders *orders, struct registry_record *record)
{
    if (!orders->frozen && is_planned(orders, record) && record->order_wave != 0)
        set_flags(orders, record, record->order_flags & ~RECORD_PRESENT);
}

void orders_forget_client(struct orders *orders, struct registry_record *record)
{
    if (is_planned(orders, record))
        set_wave(orders, record, 0, 0);
}

void orders_freeze(struct orders *orders)
{
    orders->frozen = true;
}

bool orders_need(const struct orders *orders, const struct registry_record *record)
{
    return is_under_way(orders) && record->order_wave != 0;
}

void orders_progress(const struct orders *orders, struct order_progress *progress)
{
    const bool before_first = orders->state == ORDER_NONE || orders->rows[0].started == 0;

    *progress = (struct order_progress){
        .id = orders->row.id,
        .state = orders->state,
        .by = orders->row.by ? orders->row.by : "",
        .created = orders->row.created,
        .ended = orders->row.ended,
        .grace_ms = orders->row.grace_ms,
        .hold_ms = orders->row.hold_ms,
        .wave = before_first ? 0 : orders->current + 1,
        .waves = (unsigned)orders->waves.count,
        .durable = orders->durable,
        .is_settling = orders->saves > 0,
    };
}

void orders_wave_progress(const struct orders *orders, unsigned index,
                          struct order_wave_progress *wave)
{
    const struct store_order_wave *row = &orders->rows[index];
    const struct sums *sums = &orders->sums[index];
    const bool told = was_told(orders, index);
    const size_t awaited = is_under_way(orders) ? sums->awaited : 0;
    const size_t too_late = told ? sums->present_untold : 0;
    enum order_wave_state state = ORDER_WAVE_PENDING;

    if (row->ended != 0)
        state = ORDER_WAVE_DONE;
    else if (row->started != 0)
        state = ORDER_WAVE_RUNNING;
    else if (is_over(orders))
        state = ORDER_WAVE_NEVER;
    *wave = (struct order_wave_progress){
        .match = orders->waves.match[index],
        .state = state,
        .started = row->started,
        .ended = row->ended,
        .numbers = {.targets = sums->targets,
                    .pending = awaited + sums->present_untold - too_late,
                    .told = sums->told,
                    .acknowledged = sums->acknowledged,
                    .gone = sums->told - sums->present_told,
                    .still_up = sums->present_told + too_late},
    };
    wave->numbers.not_connected = sums->targets - sums->told - sums->present_untold - awaited;
}

void orders_count_targets(const struct orders *orders, size_t counts[ORDER_TARGET_COUNT])
{
    memset(counts, 0, ORDER_TARGET_COUNT * sizeof(*counts));
    for (unsigned i = 0; i < orders->waves.count; i++) {
        const struct sums *sums = &orders->sums[i];
        struct order_wave_progress wave;

        orders_wave_progress(orders, i, &wave);
        counts[ORDER_TARGET_PENDING] += wave.numbers.pending;
        counts[ORDER_TARGET_GONE] += wave.numbers.gone;
        counts[ORDER_TARGET_NOT_CONNECTED] += wave.numbers.not_connected;
        if (wave.state == ORDER_WAVE_DONE) {
            counts[ORDER_TARGET_STILL_UP] += wave.numbers.still_up;
        } else {
            counts[ORDER_TARGET_ACKNOWLEDGED] += sums->present_acknowledged;
            counts[ORDER_TARGET_TOLD] += sums->present_told - sums->present_acknowledged;
            counts[ORDER_TARGET_STILL_UP] += wave.numbers.still_up - sums->present_told;
        }
    }
}

enum order_target orders_target(const struct orders *orders, const struct registry_record *record)
{
    const unsigned flags = record->order_flags;
    const unsigned wave = record->order_wave;

    if (orders->state == ORDER_NONE || wave == 0 || !is_planned(orders, record))
        return ORDER_TARGET_NONE;
    if (flags & RECORD_TOLD) {
        if (!(flags & RECORD_PRESENT))
            return ORDER_TARGET_GONE;
        if (orders->rows[wave - 1].ended != 0)
            return ORDER_TARGET_STILL_UP;
        return flags & RECORD_ACKNOWLEDGED ? ORDER_TARGET_ACKNOWLEDGED : ORDER_TARGET_TOLD;
    }
    if (flags & RECORD_PRESENT)
        return was_told(orders, wave - 1) ? ORDER_TARGET_STILL_UP : ORDER_TARGET_PENDING;
    return flags & RECORD_AWAITED && is_under_way(orders) ? ORDER_TARGET_PENDING
                                                          : ORDER_TARGET_NOT_CONNECTED;
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
        set_wave(orders, record, order_waves_match(&orders->waves, record->cid, 0),
                 record->connected ? RECORD_PRESENT : 0);
}

/* What stands in a record that the plan has not reached is of an order before this one. */
static bool is_planned(const struct orders *orders, const struct registry_record *record)
{
    return orders->step != STEP_PLAN || record->sid <= orders->cursor;
}

static void start_wave(struct orders *orders, unsigned wave, struct moment now)
{
    orders->current = wave;
    orders->step = STEP_TELL;
    orders->cursor = 0;
    orders->wave_due_us = now.mono_us + orders->row.grace_ms * CLOCK_US_PER_MS;
    orders->rows[wave].started = seconds(now);
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
            !(record->order_flags & RECORD_TOLD)) {
            tell(orders, record, now);
            told++;
        }
    }
}

/* The one place from which a 130 is sent. A session that an earlier order has told is not told
 * again, and counts as told. */
static void tell(struct orders *orders, struct registry_record *record, struct moment now)
{
    set_flags(orders, record, RECORD_TOLD | RECORD_PRESENT);
    store_save_target(orders->store, record, now);
    if (log_limit_allows(&orders->log_limit, now.mono_us))
        log_event(LOG_LEVEL_INFO, "told", LOG_NUM("order", orders->row.id),
                  LOG_STR("cid", record->cid), LOG_NUM("wave", record->order_wave));
    say(orders, ORDER_CLIENT_TOLD, record->order_wave, record);
    /* Last: its session may end here. */
    (void)orders->ops->tell(orders->user, record);
}

static bool wave_is_over(const struct orders *orders, struct moment now)
{
    const struct sums *sums = &orders->sums[orders->current];

    return (sums->present_told == 0 && sums->awaited == 0) || now.mono_us >= orders->wave_due_us;
}

static void end_wave(struct orders *orders, struct moment now)
{
    orders->rows[orders->current].ended = seconds(now);
    log_wave(orders, "order_wave_ended");
    say(orders, ORDER_WAVE_ENDED, orders->current + 1, NULL);
    if (orders->current + 1 < orders->waves.count) {
        start_wave(orders, orders->current + 1, now);
    } else if (holds(orders, now) && now.mono_us < orders->hold_until_us) {
        orders->state = ORDER_HOLDING;
        log_order(orders, "order_holding", orders->row.by);
        say(orders, ORDER_IS_HOLDING, 0, NULL);
        save(orders, now);
    } else {
        end_order(orders, ORDER_DONE, ORDER_IS_DONE, now);
    }
}

static void end_order(struct orders *orders, enum order_state state, enum order_what what,
                      struct moment now)
{
    orders->state = state;
    orders->row.ended = seconds(now);
    log_order(orders, "order_ended", orders->row.by);
    say(orders, what, 0, NULL);
    save(orders, now);
}

static bool is_under_way(const struct orders *orders)
{
    return orders->state == ORDER_RUNNING || orders->state == ORDER_HOLDING;
}

static bool is_over(const struct orders *orders)
{
    return orders->state != ORDER_NONE && !is_under_way(orders);
}

/* Its telling has begun. */
static bool has_begun(const struct orders *orders, unsigned wave)
{
    return orders->rows[wave].started != 0;
}

/* All that were there have been told. */
static bool was_told(const struct orders *orders, unsigned wave)
{
    return has_begun(orders, wave) && (wave < orders->current || orders->step == STEP_WAIT);
}

/* Are clients told that connect behind their wave? */
static bool holds(const struct orders *orders, struct moment now)
{
    return orders->row.hold_ms > 0 &&
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
    if (wave == 0 || is_bound || !has_begun(orders, wave - 1) || holds(orders, now))
        return wave;
    for (unsigned later = order_waves_match(&orders->waves, record->cid, wave); later != 0;
         later = order_waves_match(&orders->waves, record->cid, later)) {
        if (!has_begun(orders, later - 1))
            return later;
    }
    return record->order_wave;
}

static void set_flags(struct orders *orders, struct registry_record *record, unsigned flags)
{
    add_up(orders, record, -1);
    record->order_flags = (uint8_t)flags;
    add_up(orders, record, 1);
}

static void set_wave(struct orders *orders, struct registry_record *record, unsigned wave,
                     unsigned flags)
{
    if (record->order_wave != 0)
        add_up(orders, record, -1);
    record->order_wave = (uint8_t)wave;
    record->order_flags = (uint8_t)flags;
    if (wave != 0)
        add_up(orders, record, 1);
}

/* Adds a record to the sums of its wave, or takes it out with sign -1. */
static void add_up(struct orders *orders, const struct registry_record *record, int sign)
{
    struct sums *sums = &orders->sums[record->order_wave - 1];
    const size_t one = (size_t)sign; /* -1 wraps around, which is what subtracting is */
    const unsigned flags = record->order_flags;
    const bool present = flags & RECORD_PRESENT;

    sums->targets += one;
    if (!(flags & RECORD_TOLD)) {
        sums->present_untold += present ? one : 0;
        sums->awaited += !present && flags & RECORD_AWAITED ? one : 0;
        return;
    }
    sums->told += one;
    sums->present_told += present ? one : 0;
    if (flags & RECORD_ACKNOWLEDGED) {
        sums->acknowledged += one;
        sums->present_acknowledged += present ? one : 0;
    }
}

static void save(struct orders *orders, struct moment now)
{
    strncpy(orders->state_word, order_state_words[orders->state], sizeof(orders->state_word) - 1);
    for (size_t i = 0; i < orders->waves.count; i++)
        orders->rows[i].match = orders->waves.match[i];
    orders->row.state = orders->state_word;
    orders->row.waves = orders->rows;
    orders->row.wave_count = orders->waves.count;
    orders->saves++;
    if (store_save_order(orders->store, &orders->row, now) != 0)
        orders_on_saved(orders, STORE_UNAVAILABLE); /* as if the store had said so */
}

static void say(struct orders *orders, enum order_what what, unsigned wave,
                const struct registry_record *client)
{
    const struct order_news news = {
        .what = what, .order = orders->row.id, .wave = wave, .client = client};

    orders->ops->news(orders->user, &news);
}

static void log_order(const struct orders *orders, const char *event, const char *by)
{
    char grace[UNITS_TEXT_BYTES];
    char hold[UNITS_TEXT_BYTES];
    size_t counts[ORDER_TARGET_COUNT];

    orders_count_targets(orders, counts);
    log_event(LOG_LEVEL_WARN, event, LOG_NUM("order", orders->row.id), LOG_STR("by", by),
              LOG_STR("state", order_state_words[orders->state]),
              LOG_NUM("waves", orders->waves.count), LOG_STR("first", orders->waves.match[0]),
              LOG_STR("grace", units_format_duration(orders->row.grace_ms, grace)),
              LOG_STR("hold", units_format_duration(orders->row.hold_ms, hold)),
              LOG_NUM("gone", counts[ORDER_TARGET_GONE]),
              LOG_NUM("still_up", counts[ORDER_TARGET_STILL_UP] + counts[ORDER_TARGET_TOLD] +
                                      counts[ORDER_TARGET_ACKNOWLEDGED]),
              LOG_NUM("not_told", counts[ORDER_TARGET_PENDING]));
}

static void log_wave(struct orders *orders, const char *event)
{
    struct order_wave_progress wave;

    orders_wave_progress(orders, orders->current, &wave);
    log_event(LOG_LEVEL_WARN, event, LOG_NUM("order", orders->row.id),
              LOG_NUM("wave", orders->current + 1), LOG_STR("match", wave.match),
              LOG_NUM("targets", wave.numbers.targets), LOG_NUM("told", wave.numbers.told),
              LOG_NUM("acknowledged", wave.numbers.acknowledged),
              LOG_NUM("gone", wave.numbers.gone), LOG_NUM("still_up", wave.numbers.still_up),
              LOG_NUM("not_connected", wave.numbers.not_connected));
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
        orders->rows[i] = kept->waves[i];
    }
    orders->row = *kept;
    orders->row.by = strdup(kept->by);
    if (!orders->row.by)
        abort(); /* out of memory while starting */
    orders->state = state;
    return 0;
}

/* Where an interrupted order goes on. The wave that was under way gets its grace anew: its clients
 * need time to come back before they can be told. */
static void find_step(struct orders *orders, struct moment now)
{
    const int64_t hold_until_ms = orders->row.created * 1000 + (int64_t)orders->row.hold_ms;

    while (orders->current + 1 < orders->waves.count && orders->rows[orders->current].ended != 0 &&
           (is_under_way(orders) || has_begun(orders, orders->current + 1)))
        orders->current++;
    /* Whoever is still to be told of a wave that had begun is awaited; others come too late. */
    orders->step = has_begun(orders, orders->current) ? STEP_WAIT : STEP_BEGIN;
    orders->cursor = 0;
    orders->wave_due_us = now.mono_us + orders->row.grace_ms * CLOCK_US_PER_MS;
    orders->hold_until_us = now.mono_us;
    if (hold_until_ms > now.wall_ms)
        orders->hold_until_us += (uint64_t)(hold_until_ms - now.wall_ms) * CLOCK_US_PER_MS;
}

/* Also when the clock says that it was given in the future: then nobody knows how old it is. */
static bool has_expired(const struct orders *orders, struct moment now)
{
    const struct store_order *row = &orders->row;
    const int64_t started = orders->rows[orders->current].started;
    const int64_t hold_until_ms = row->created * 1000 + (int64_t)row->hold_ms;
    int64_t until_ms = row->created * 1000;

    if (started != 0)
        until_ms = started * 1000 + (int64_t)row->grace_ms;
    if (hold_until_ms > until_ms)
        until_ms = hold_until_ms;
    return now.wall_ms > until_ms + (int64_t)ORDER_MAX_AWAY_MS || seconds(now) < row->created;
}

/* What a client is to an order that was interrupted. Its row, if it has one, says that it was told,
 * or is in another wave than the first that matches; who has not answered and was there until the
 * end of the server may never have heard it. */
static void plan_again(struct orders *orders, struct registry_record *record)
{
    unsigned wave = record->order_wave <= orders->waves.count ? record->order_wave : 0;
    unsigned flags = record->order_flags & (RECORD_TOLD | RECORD_ACKNOWLEDGED);

    if (wave == 0) {
        wave = order_waves_match(&orders->waves, record->cid, 0);
        flags = 0;
    }
    if (wave > orders->current && !(flags & RECORD_ACKNOWLEDGED) && was_there(orders, record))
        flags = RECORD_AWAITED;
    record->order_wave = 0;
    set_wave(orders, record, wave, flags);
}

/* Was it connected when the server ended? */
static bool was_there(const struct orders *orders, const struct registry_record *record)
{
    const enum reason reason = (enum reason)record->reason;

    return record->since >= orders->row.created &&
           (reason == REASON_CRASH || reason == REASON_STOPPED || reason == REASON_RESTARTING);
}

static int64_t seconds(struct moment now)
{
    return now.wall_ms / 1000;
}
