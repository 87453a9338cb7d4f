/*
 * What is known of each client of an order stands in its record, and each wave keeps its sums, so
 * that news of a client costs the same however many there are. And how this reads: the words, and
 * the numbers of the waves. Decides nothing.
 */
#include "session/order.h"

#include "session/order_internal.h"

#include <assert.h>
#include <string.h>

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
    [ORDER_TARGET_STILL_UP] = "still_up", [ORDER_TARGET_NOT_CONNECTED] = "not_connected",
    [ORDER_TARGET_LATE] = "late", NULL,
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

static void add_up(struct orders *orders, const struct registry_record *record, int sign);

void orders_progress(const struct orders *orders, struct order_progress *progress)
{
    const bool before_first = orders->state == ORDER_NONE || orders->kept->waves[0].started == 0;

    *progress = (struct order_progress){
        .id = orders->kept->row.id,
        .state = orders->state,
        .by = orders->kept->row.by ? orders->kept->row.by : "",
        .created = orders->kept->row.created,
        .ended = orders->kept->row.ended,
        .grace_ms = orders->kept->row.grace_ms,
        .hold_ms = orders->kept->row.hold_ms,
        .wave = before_first ? 0 : orders->current + 1,
        .waves = (unsigned)orders->waves.count,
        .durable = orders->durable,
        .is_settling = orders->saves > 0,
    };
}

void orders_wave_progress(const struct orders *orders, unsigned index,
                          struct order_wave_progress *wave)
{
    const struct store_order_wave *row = &orders->kept->waves[index];
    const struct sums *sums = &orders->sums[index];
    const size_t awaited = order_is_under_way(orders) ? sums->awaited : 0;
    const size_t unseen = row->ended == 0 ? sums->awaited_told : 0;
    enum order_wave_state state = ORDER_WAVE_PENDING;

    if (row->ended != 0)
        state = ORDER_WAVE_DONE;
    else if (row->started != 0)
        state = ORDER_WAVE_RUNNING;
    else if (order_is_over(orders))
        state = ORDER_WAVE_NEVER;
    *wave = (struct order_wave_progress){
        .match = orders->waves.match[index],
        .state = state,
        .started = row->started,
        .ended = row->ended,
        .numbers = {.targets = sums->targets,
                    .pending = awaited + sums->present_untold,
                    .told = sums->told,
                    .acknowledged = sums->acknowledged,
                    .gone = sums->told - sums->present_told - unseen,
                    .still_up = sums->present_told + unseen,
                    .late = sums->late},
    };
    wave->numbers.not_connected =
        sums->targets - sums->told - sums->present_untold - sums->late - awaited;
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
        counts[ORDER_TARGET_LATE] += wave.numbers.late;
        if (wave.state == ORDER_WAVE_DONE) {
            counts[ORDER_TARGET_STILL_UP] += wave.numbers.still_up;
        } else {
            counts[ORDER_TARGET_ACKNOWLEDGED] += sums->present_acknowledged + sums->awaited_told;
            counts[ORDER_TARGET_TOLD] += sums->present_told - sums->present_acknowledged;
        }
    }
}

enum order_target orders_target(const struct orders *orders, const struct registry_record *record)
{
    const unsigned flags = record->order_flags;
    const unsigned wave = record->order_wave;

    if (orders->state == ORDER_NONE || wave == 0 || !order_is_planned(orders, record))
        return ORDER_TARGET_NONE;
    if (flags & RECORD_TOLD) {
        const bool ended = orders->kept->waves[wave - 1].ended != 0;

        if (!(flags & (RECORD_PRESENT | RECORD_AWAITED)) || (!(flags & RECORD_PRESENT) && ended))
            return ORDER_TARGET_GONE;
        if (ended)
            return ORDER_TARGET_STILL_UP;
        return flags & RECORD_ACKNOWLEDGED ? ORDER_TARGET_ACKNOWLEDGED : ORDER_TARGET_TOLD;
    }
    if (flags & RECORD_PRESENT)
        return flags & RECORD_LATE ? ORDER_TARGET_LATE : ORDER_TARGET_PENDING;
    return flags & RECORD_AWAITED && order_is_under_way(orders) ? ORDER_TARGET_PENDING
                                                                : ORDER_TARGET_NOT_CONNECTED;
}

/* What stands in a record that the plan has not reached is of an order before this one. */
bool order_is_planned(const struct orders *orders, const struct registry_record *record)
{
    return orders->step != STEP_PLAN || record->sid <= orders->cursor;
}

void order_set_flags(struct orders *orders, struct registry_record *record, unsigned flags)
{
    add_up(orders, record, -1);
    record->order_flags = (uint8_t)flags;
    add_up(orders, record, 1);
}

void order_set_wave(struct orders *orders, struct registry_record *record, unsigned wave,
                    unsigned flags)
{
    if (record->order_wave != 0)
        add_up(orders, record, -1);
    record->order_wave = (uint8_t)wave;
    record->order_mark = (uint16_t)orders->kept->row.id;
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
        sums->present_untold += present && !(flags & RECORD_LATE) ? one : 0;
        sums->late += present && flags & RECORD_LATE ? one : 0;
        sums->awaited += !present && flags & RECORD_AWAITED ? one : 0;
        return;
    }
    sums->told += one;
    sums->present_told += present ? one : 0;
    sums->awaited_told += !present && flags & RECORD_AWAITED ? one : 0;
    if (flags & RECORD_ACKNOWLEDGED) {
        sums->acknowledged += one;
        sums->present_acknowledged += present ? one : 0;
    }
}
