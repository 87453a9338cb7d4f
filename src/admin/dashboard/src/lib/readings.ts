// What the page wants to know of /metrics at one moment, and what follows from several of them.
import { growth, histogram, labelled, parseMetrics, quantileBetween, type Histogram } from "./metrics";

export interface Reading {
    /** When it came, in milliseconds of a clock that does not jump, and in Unix seconds. */
    atMs: number;
    time: number;
    /** When the process started: another start, other counters. */
    start: number;
    connected: number;
    disconnected: number;
    connects: number;
    disconnects: number;
    refusals: Map<string, number>;
    rtt: Histogram;
    lag: Histogram;
    waitingChanges: number;
}

export interface Rates {
    connects: number;
    disconnects: number;
}

// Keep-alives come every ten seconds by default, so a shorter time would leave out most clients.
const WINDOW_MS = 10_000;
const RATE_MS = 5000;
const KEPT_MS = 60_000;

export function readMetrics(text: string, atMs: number, time: number): Reading {
    const series = parseMetrics(text);
    const value = (name: string): number => series.get(name) ?? 0;
    const disconnects = [...labelled(series, "cliser_disconnects_total", "reason").values()];

    return {
        atMs,
        time,
        start: value("process_start_time_seconds"),
        connected: value("cliser_clients{status=\"connected\"}"),
        disconnected: value("cliser_clients{status=\"disconnected\"}"),
        connects: value("cliser_handshake_duration_seconds_count"),
        disconnects: disconnects.reduce((sum, count) => sum + count, 0),
        refusals: labelled(series, "cliser_refusals_total", "code"),
        rtt: histogram(series, "cliser_keepalive_rtt_seconds"),
        lag: histogram(series, "cliser_loop_lag_seconds"),
        waitingChanges: value("cliser_store_waiting_changes"),
    };
}

/** The readings of the last minute of one and the same process. */
export class Readings {
    private kept: Reading[] = [];

    /** Returns false when this one begins anew: nothing can be said between it and the others. */
    add(reading: Reading): boolean {
        const last = this.kept.at(-1);
        const goesOn = last !== undefined && last.start === reading.start;

        if (!goesOn)
            this.kept = [];
        this.kept.push(reading);
        // One older than a minute stays, so that the whole minute is covered.
        while (this.kept[1] && reading.atMs - this.kept[1].atMs >= KEPT_MS)
            this.kept.shift();
        return goesOn;
    }

    /** Forgets all: there was a time in between of which nothing is known. */
    clear(): void {
        this.kept = [];
    }

    get last(): Reading | null {
        return this.kept.at(-1) ?? null;
    }

    /** Per second since the reading before, which is what a chart wants. */
    stepRates(): Rates | null {
        const before = this.kept.at(-2);

        return before ? ratesBetween(before, this.kept.at(-1)!) : null;
    }

    /** Per second over the last seconds, which is what can be read. */
    rates(): Rates | null {
        const before = this.before(RATE_MS);

        return before ? ratesBetween(before, this.last!) : null;
    }

    rttSeconds(q: number): number | null {
        const before = this.before(WINDOW_MS);

        return before ? quantileBetween(before.rtt, this.last!.rtt, q) : null;
    }

    lagSeconds(q: number): number | null {
        const before = this.before(WINDOW_MS);

        return before ? quantileBetween(before.lag, this.last!.lag, q) : null;
    }

    /** How many were refused with this code in the last minute, or since the page knows. */
    recentRefusals(code: string): number {
        const before = this.kept[0];
        const last = this.last;

        if (!before || !last)
            return 0;
        return growth(before.refusals.get(code) ?? 0, last.refusals.get(code) ?? 0);
    }

    /** The youngest reading that is at least so old, else the oldest one other than the last. */
    private before(ms: number): Reading | null {
        const last = this.last;

        if (!last || this.kept.length < 2)
            return null;
        for (let i = this.kept.length - 2; i >= 0; i--) {
            if (last.atMs - this.kept[i]!.atMs >= ms - 500)
                return this.kept[i]!;
        }
        return this.kept[0]!;
    }
}

function ratesBetween(before: Reading, after: Reading): Rates {
    const seconds = Math.max((after.atMs - before.atMs) / 1000, 0.001);

    return {
        connects: growth(before.connects, after.connects) / seconds,
        disconnects: growth(before.disconnects, after.disconnects) / seconds,
    };
}
