// The shutdown order under way, or the last one, and who of it is still up.
import { computed, signal } from "@preact/signals";

import { Failure, getJson } from "../lib/api";
import type { ServerEvent } from "../lib/events";
import type { Order, OrderState, Status, Target, TargetPage } from "../lib/types";
import { onEvents, onLook } from "./monitor";

/** null: there never was one, or it is not known yet. */
export const order = signal<Order | null>(null);
export const survivors = signal<Target[]>([]);
/** How many of a kind are listed at most; the numbers above the list are of all. */
export const SURVIVORS_SHOWN = 100;

export const isUnderWay = computed(() => order.value !== null && underWay(order.value.state));

const SURVIVORS_MS = 2000;
const SURVIVORS_AFTER_MS = 10_000;
const survivorStates = ["still_up", "told", "acknowledged"];

let isChanged = true;
let survivorsMs = -Infinity;

export function underWay(state: OrderState): boolean {
    return state === "running" || state === "holding";
}

export function watchOrder(): void {
    onEvents(hear);
    onLook(follow);
}

export function forgetOrder(): void {
    order.value = null;
    survivors.value = [];
    isChanged = true;
    survivorsMs = -Infinity;
}

export async function fetchOrder(): Promise<Order | null> {
    const answer = await getJson<Order | { state: "none" }>("/v1/shutdown");

    takeOrder(answer.state === "none" ? null : answer);
    return order.value;
}

export function takeOrder(next: Order | null): void {
    const before = order.value;

    if (next?.id !== before?.id)
        survivors.value = [];
    // Between two steps of an order a list may be a little old; what it comes to is not.
    if (next?.state !== before?.state || !underWay(next?.state ?? "none") &&
        next?.totals.still_up !== before?.totals.still_up)
        survivorsMs = -Infinity;
    order.value = next;
    isChanged = false;
}

/** Throws a Failure; one that is "refused" means that it was over already. */
export async function cancelOrder(): Promise<void> {
    takeOrder(await getJson<Order>("/v1/shutdown", { method: "DELETE" }));
}

function hear(events: ServerEvent[]): void {
    if (events.some((event) => event.name === "shutdown" || event.name === "missed"))
        isChanged = true;
}

async function follow(status: Status): Promise<void> {
    const known = order.value?.state ?? "none";

    if (isChanged || underWay(status.shutdown) || status.shutdown !== known)
        await fetchOrder();
    await followSurvivors();
}

/** Those of an order that is over may still go, though nobody waits for it. */
async function followSurvivors(): Promise<void> {
    const now = performance.now();
    const pause = isUnderWay.value ? SURVIVORS_MS : SURVIVORS_AFTER_MS;

    if (!order.value || now - survivorsMs < pause)
        return;
    survivorsMs = now;
    if (order.value.totals.still_up === 0) {
        survivors.value = [];
        return;
    }
    try {
        const found = [];
        for (const state of survivorStates)
            found.push(...await targetsOf(state));
        survivors.value = found;
    } catch (error) {
        if (!(error instanceof Failure))
            throw error;
    }
}

async function targetsOf(state: string): Promise<Target[]> {
    const page = await getJson<TargetPage>(`/v1/shutdown/targets?state=${state}&limit=${SURVIVORS_SHOWN}`);

    return page.targets;
}
