/* The arithmetic of a run. Knows nothing of sockets, clocks or what becomes of a client. */
#include "plan.h"

#include <assert.h>

#define US_PER_SEC UINT64_C(1000000)

static uint64_t due_by(const struct plan *plan, uint64_t now_us);
static uint64_t share_of(uint64_t count, uint32_t share);

void plan_init(struct plan *plan, const struct plan_options *options)
{
    *plan = (struct plan){.options = *options};
}

uint64_t plan_startable(const struct plan *plan, uint64_t now_us)
{
    const uint64_t due = due_by(plan, now_us);
    const uint64_t unfinished = plan_unfinished(plan);

    if (due <= plan->started || unfinished >= plan->options.inflight)
        return 0;

    const uint64_t waiting = due - plan->started;
    const uint64_t room = plan->options.inflight - unfinished;
    return waiting < room ? waiting : room;
}

uint64_t plan_wait_us(const struct plan *plan, uint64_t now_us)
{
    if (plan_all_started(plan) || plan_unfinished(plan) >= plan->options.inflight)
        return PLAN_NEVER;

    const uint64_t due_us = plan_due_us(plan, plan->started, now_us);
    return due_us > now_us ? due_us - now_us : 0;
}

uint64_t plan_start(struct plan *plan)
{
    assert(!plan_all_started(plan));
    return plan->started++;
}

void plan_settle(struct plan *plan)
{
    assert(plan->settled < plan->started);
    plan->settled++;
}

uint64_t plan_due_us(const struct plan *plan, uint64_t number, uint64_t now_us)
{
    const uint64_t rate = plan->options.rate;

    if (rate == 0)
        return now_us;
    /* Rounded up, so that at its due time a connect is due. */
    return number / rate * US_PER_SEC + (number % rate * US_PER_SEC + rate - 1) / rate;
}

bool plan_is_silent(const struct plan *plan, uint64_t number)
{
    return share_of(number + 1, plan->options.silent) > share_of(number, plan->options.silent);
}

uint64_t plan_unfinished(const struct plan *plan)
{
    return plan->started - plan->settled;
}

bool plan_all_started(const struct plan *plan)
{
    return plan->started == plan->options.clients;
}

bool plan_all_settled(const struct plan *plan)
{
    return plan->settled == plan->options.clients;
}

/* How many connects should have started by now. */
static uint64_t due_by(const struct plan *plan, uint64_t now_us)
{
    const uint64_t rate = plan->options.rate;
    const uint64_t clients = plan->options.clients;

    if (rate == 0)
        return clients;

    /* In two parts: the product of a long run and a high rate would not fit. */
    const uint64_t due = now_us / US_PER_SEC * rate + now_us % US_PER_SEC * rate / US_PER_SEC + 1;
    return due < clients ? due : clients;
}

static uint64_t share_of(uint64_t count, uint32_t share)
{
    return count / PLAN_WHOLE * share + count % PLAN_WHOLE * share / PLAN_WHOLE;
}
