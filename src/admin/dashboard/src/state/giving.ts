// Giving a shutdown order, step by step: choose, look who it would be, confirm by typing the
// number, send once. Whatever fails on the way, it is said whether an order was given.
import { signal } from "@preact/signals";

import { Failure, getJson, messageOf } from "../lib/api";
import { counted } from "../lib/format";
import { areSame, isConfirmed, requestOf, type OrderForm } from "../lib/order_request";
import type { DryRun, Order, OrderRequest } from "../lib/types";
import { fetchOrder, takeOrder, underWay } from "./order";

export type Giving =
    | { step: "choose"; problem: string | null; busy: boolean }
    | { step: "confirm"; request: OrderRequest; run: DryRun; notice: string | null; busy: boolean }
    | { step: "unknown"; why: string }
    | { step: "given" };

export const giving = signal<Giving>(choosing(null));

// An order is answered when it is in the database, and a long list takes its time.
const TIMEOUT_MS = 30_000;
const ASK_AGAIN_MS = 1000;

export function beginGiving(): void {
    giving.value = choosing(null);
}

export async function ask(form: OrderForm): Promise<void> {
    const request = requestOf(form);

    if (request.waves.length === 0) {
        giving.value = choosing("Name at least one machine or pattern.");
        return;
    }
    giving.value = { step: "choose", problem: null, busy: true };
    try {
        const run = await dryRun(request);
        giving.value = { step: "confirm", request, run, notice: null, busy: false };
    } catch (error) {
        giving.value = choosing(refusalOf(error));
    }
}

/** The one place that shuts machines down. */
export async function give(typed: string): Promise<void> {
    const now = giving.value;

    if (now.step !== "confirm" || now.busy || !isConfirmed(typed, now.run))
        return;
    giving.value = { ...now, busy: true };
    const lastId = await mayStillBeGiven(now.request, now.run);
    if (lastId === null)
        return;
    try {
        takeOrder(await getJson<Order>("/v1/shutdown",
            { method: "POST", body: now.request, timeoutMs: TIMEOUT_MS }));
        giving.value = { step: "given" };
    } catch (error) {
        if (error instanceof Failure && error.kind !== "away")
            giving.value = choosing(`No order was given: ${error.message}.`);
        else
            await findOut(messageOf(error), lastId);
    }
}

/**
 * Looks once more right before it is sent. Returns the number of the last order there was, or null
 * when it must not go on, which is said then.
 */
async function mayStillBeGiven(request: OrderRequest, before: DryRun): Promise<number | null> {
    try {
        const last = await fetchOrder();
        if (last && underWay(last.state)) {
            giving.value = choosing(`No order was given: order ${last.id} is under way. ` +
                "There is one at a time; wait for its end, or cancel it.");
            return null;
        }
        const run = await dryRun(request);
        if (areSame(before, run))
            return last?.id ?? 0;
        giving.value = { step: "confirm", request, run, notice: differenceOf(before, run), busy: false };
    } catch (error) {
        giving.value = choosing(`Nothing was sent: ${messageOf(error)}.`);
    }
    return null;
}

function differenceOf(before: DryRun, run: DryRun): string {
    const now = counted(run.count, "machine");

    return before.count === run.count
        ? `No order was given: it is still ${now}, but others than you were shown. Look again, and confirm anew.`
        : `No order was given: it was ${counted(before.count, "machine")} a moment ago and is ${now} now. ` +
            "Look again, and confirm anew.";
}

/** The answer was lost. The order may be there or not, and only the server knows. */
async function findOut(why: string, lastId: number): Promise<void> {
    giving.value = { step: "unknown", why };
    for (;;) {
        try {
            const now = await fetchOrder();
            giving.value = now && now.id > lastId
                ? { step: "given" }
                : choosing("The answer was lost, and the server says that it has no new order: none was given.");
            return;
        } catch (error) {
            if (error instanceof Failure && error.kind === "unauthorised")
                return;
            giving.value = { step: "unknown", why: messageOf(error) };
            await new Promise((resolve) => setTimeout(resolve, ASK_AGAIN_MS));
        }
    }
}

function refusalOf(error: unknown): string {
    return error instanceof Failure && error.kind === "refused"
        ? `The server does not take this: ${error.message}.`
        : `The server could not be asked: ${messageOf(error)}.`;
}

function choosing(problem: string | null): Giving {
    return { step: "choose", problem, busy: false };
}

function dryRun(request: OrderRequest): Promise<DryRun> {
    return getJson<DryRun>("/v1/shutdown",
        { method: "POST", body: { ...request, dry_run: true }, timeoutMs: TIMEOUT_MS });
}
