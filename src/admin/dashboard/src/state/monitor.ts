// Looks at the server every second, and listens to its events in between. What it knows, how old
// that is, and how the connection is, is here for the page to show.
import { batch, computed, signal } from "@preact/signals";

import { Failure, getJson, getText, messageOf } from "../lib/api";
import type { ServerEvent } from "../lib/events";
import { History } from "../lib/history";
import { Poller } from "../lib/poller";
import { readMetrics, Readings } from "../lib/readings";
import { EventStream, type StreamState } from "../lib/stream";
import type { Status } from "../lib/types";
import { nowMs, tick } from "./clock";

const POLL_MS = 1000;
const HIDDEN_POLL_MS = 5000;
const EVENT_GAP_MS = 500;

const STALE_MS = 3000;
const AWAY_MS = 8000;

// Browsers wake a hidden page as rarely as once a minute, and then nobody sees it.
const HIDDEN_STALE_MS = 90_000;

export const status = signal<Status | null>(null);
export const notReadyWhy = signal<string | null>(null);
/** Counts what was read; readings and history are new at each step. */
export const steps = signal(0);
export const readings = new Readings();
export const history = new History();

export const goodMs = signal<number | null>(null);
const trouble = signal<string | null>(null);
const streamTrouble = signal<Failure | null>(null);
const hidden = signal(document.hidden);

export type Connection =
    | { kind: "connecting" }
    | { kind: "live"; note: string | null }
    | { kind: "reconnecting"; why: string }
    | { kind: "away"; sinceMs: number; why: string | null };

export const ageMs = computed(() => goodMs.value === null ? 0 : Math.max(0, nowMs.value - goodMs.value));

export const stale = computed(() => ageMs.value > (hidden.value ? HIDDEN_STALE_MS : STALE_MS));

export const connection = computed((): Connection => {
    const why = trouble.value;
    const streamWhy = streamTrouble.value;

    if (goodMs.value === null)
        return why === null ? { kind: "connecting" } : { kind: "reconnecting", why };
    if (stale.value && ageMs.value > AWAY_MS)
        return { kind: "away", sinceMs: goodMs.value, why };
    if (why !== null || stale.value)
        return { kind: "reconnecting", why: why ?? "the server has not answered yet" };
    // It listens to somebody else: what is shown is as new as the last look, every second.
    if (streamWhy?.kind === "refused")
        return { kind: "live", note: `without events: ${streamWhy.message}` };
    if (streamWhy)
        return { kind: "reconnecting", why: streamWhy.message };
    return { kind: "live", note: null };
});

type EventsListener = (events: ServerEvent[]) => void;
type LookListener = (status: Status) => Promise<void>;

const eventsListeners = new Set<EventsListener>();
const lookListeners: LookListener[] = [];

/** Called with all events that came together. Returns what ends that. */
export function onEvents(listener: EventsListener): () => void {
    eventsListeners.add(listener);
    return () => { eventsListeners.delete(listener); };
}

/** Called after each look that succeeded, and waited for before the next one. */
export function onLook(listener: LookListener): void {
    lookListeners.push(listener);
}

const poller = new Poller({
    task: look,
    intervalMs: () => document.hidden ? HIDDEN_POLL_MS : POLL_MS,
    gapMs: () => EVENT_GAP_MS,
});

const stream = new EventStream({ onEvents: hear, onState: noteStream });

export function startMonitor(): void {
    document.addEventListener("visibilitychange", noteVisibility);
    poller.start();
    noteVisibility();
}

/** Forgets everything: whoever opens the page next may see what the server tells them, no more. */
export function stopMonitor(): void {
    document.removeEventListener("visibilitychange", noteVisibility);
    poller.stop();
    stream.close();
    readings.clear();
    history.clear();
    batch(() => {
        status.value = null;
        goodMs.value = null;
        trouble.value = null;
    });
}

export function lookSoon(): void {
    poller.soon();
}

async function look(): Promise<void> {
    try {
        const [nowStatus, text] = await Promise.all([
            getJson<Status>("/v1/status"), getText("/metrics"),
        ]);
        take(nowStatus, text);
        await lookAtReadiness(nowStatus);
        for (const listener of lookListeners)
            await listener(nowStatus);
    } catch (error) {
        missed(error);
    }
}

function take(nowStatus: Status, text: string): void {
    const reading = readMetrics(text, performance.now(), Date.now() / 1000);

    if (trouble.value !== null)
        stream.retryNow();
    if (!readings.add(reading))
        history.gap(reading.time - 0.5);
    const rates = readings.stepRates();
    history.add({
        time: reading.time,
        connected: reading.connected,
        connects: rates?.connects ?? null,
        disconnects: rates?.disconnects ?? null,
        p50Ms: inMs(readings.rttSeconds(0.5)),
        p99Ms: inMs(readings.rttSeconds(0.99)),
    });
    batch(() => {
        status.value = nowStatus;
        goodMs.value = Date.now();
        trouble.value = null;
        steps.value++;
        tick();
    });
}

async function lookAtReadiness(nowStatus: Status): Promise<void> {
    if (nowStatus.ready) {
        notReadyWhy.value = null;
        return;
    }
    try {
        await getJson("/readyz");
    } catch (error) {
        if (error instanceof Failure && error.kind === "refused")
            notReadyWhy.value = error.message;
    }
}

function missed(error: unknown): void {
    if (error instanceof Failure && error.kind === "unauthorised")
        return;
    const last = readings.last;

    if (last)
        history.gap(last.time + 0.5);
    batch(() => {
        trouble.value = messageOf(error);
        tick();
    });
}

function hear(events: ServerEvent[]): void {
    for (const listener of eventsListeners)
        listener(events);
    poller.soon();
}

function noteStream(state: StreamState): void {
    if (state.kind === "open" || state.kind === "closed")
        streamTrouble.value = null;
    else if (state.kind === "waiting")
        streamTrouble.value = state.why;
}

/** A browser has six connections for each server: a page that nobody sees holds none of them. */
function noteVisibility(): void {
    hidden.value = document.hidden;
    if (document.hidden) {
        stream.close();
        return;
    }
    stream.open();
    poller.soon();
}

function inMs(seconds: number | null): number | null {
    return seconds === null ? null : seconds * 1000;
}
