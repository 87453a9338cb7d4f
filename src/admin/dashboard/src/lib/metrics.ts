// Reads the text of /metrics, and works out rates and quantiles between two readings of it. Knows
// the format, and of the names only those that readings.ts asks for.

/** Values by series as they are printed: cliser_clients{status="connected"}. */
export type Series = Map<string, number>;

export interface Histogram {
    /** Upper bounds in seconds, the last one Infinity, and how many were at most that. */
    bounds: number[];
    counts: number[];
}

export function parseMetrics(text: string): Series {
    const series: Series = new Map();

    for (const line of text.split("\n")) {
        if (line === "" || line.startsWith("#"))
            continue;
        const space = line.lastIndexOf(" ");
        const value = Number(line.slice(space + 1));
        if (space > 0 && !Number.isNaN(value))
            series.set(line.slice(0, space), value);
    }
    return series;
}

/** The values of a metric by those of its one label. */
export function labelled(series: Series, name: string, label: string): Map<string, number> {
    const begin = `${name}{${label}="`;
    const values = new Map<string, number>();

    for (const [key, value] of series) {
        if (key.startsWith(begin) && key.endsWith("\"}"))
            values.set(key.slice(begin.length, -2), value);
    }
    return values;
}

export function histogram(series: Series, name: string): Histogram {
    const buckets = [...labelled(series, `${name}_bucket`, "le")]
        .map(([le, count]) => ({ bound: le === "+Inf" ? Infinity : Number(le), count }))
        .sort((a, b) => a.bound - b.bound);

    return { bounds: buckets.map((b) => b.bound), counts: buckets.map((b) => b.count) };
}

/** What a counter has grown by. One that is smaller now has begun anew, from 0. */
export function growth(before: number, after: number): number {
    return after >= before ? after - before : after;
}

/**
 * The value in seconds below which a share q of what was recorded between the two lies, as near as
 * the buckets tell. null: nothing was recorded.
 */
export function quantileBetween(before: Histogram | null, after: Histogram, q: number): number | null {
    const counts = after.counts.map((count, i) => growth(before?.counts[i] ?? 0, count));
    const total = counts.at(-1) ?? 0;

    if (total <= 0)
        return null;
    const rank = q * total;
    const at = counts.findIndex((count) => count >= rank);
    const low = at > 0 ? after.bounds[at - 1]! : 0;
    const high = after.bounds[at]!;

    // Nothing is known about how far beyond the last bound it is.
    if (high === Infinity)
        return low;
    const below = at > 0 ? counts[at - 1]! : 0;
    return low + (high - low) * (rank - below) / (counts[at]! - below);
}
