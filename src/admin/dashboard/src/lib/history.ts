// What the charts show: a sample for each reading of the last hour, kept in the page.

export interface Sample {
    time: number;
    connected: number | null;
    connects: number | null;
    disconnects: number | null;
    p50Ms: number | null;
    p99Ms: number | null;
}

export type SampleKey = Exclude<keyof Sample, "time">;

const KEPT_S = 3600;

// A hidden page is woken once a minute by some browsers; beyond that nothing is known in between.
const GAP_S = 75;

export class History {
    private samples: Sample[] = [];

    add(sample: Sample): void {
        const last = this.samples.at(-1);

        // The clock was set back: what is drawn must go forwards.
        if (last && sample.time <= last.time)
            this.samples = this.samples.filter((s) => s.time < sample.time);
        else if (last && sample.time - last.time > GAP_S)
            this.gap(last.time + 1);
        this.samples.push(sample);
        while (this.samples[0] && sample.time - this.samples[0].time > KEPT_S)
            this.samples.shift();
    }

    /** From here to the next sample the charts show nothing. */
    gap(time: number): void {
        const last = this.samples.at(-1);

        if (last && last.connected !== null && time > last.time)
            this.samples.push({
                time, connected: null, connects: null, disconnects: null, p50Ms: null, p99Ms: null,
            });
    }

    clear(): void {
        this.samples = [];
    }

    /** Times, and below them a row for each key. */
    columns(keys: SampleKey[], from: number): [number[], ...(number | null)[][]] {
        const shown = this.samples.filter((sample) => sample.time >= from);

        return [shown.map((sample) => sample.time),
                ...keys.map((key) => shown.map((sample) => sample[key]))];
    }
}
