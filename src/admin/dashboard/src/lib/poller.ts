// Does something again and again, never twice at once, and sooner when there is a reason to.

export interface PollerOptions {
    /** Must not throw. */
    task: () => Promise<void>;
    /** From the beginning of one to that of the next. */
    intervalMs: () => number;
    /** What soon() leaves between two beginnings at least. */
    gapMs: () => number;
}

export class Poller {
    private active = false;
    private running = false;
    private wantedMs: number | null = null;
    private beganMs = -Infinity;
    private timer: ReturnType<typeof setTimeout> | undefined;

    constructor(private readonly options: PollerOptions) {}

    start(): void {
        if (this.active)
            return;
        this.active = true;
        this.now();
    }

    stop(): void {
        this.active = false;
        clearTimeout(this.timer);
    }

    /** At once, or when the one under way is over. */
    now(): void {
        this.want(-Infinity);
    }

    soon(): void {
        this.want(this.beganMs + this.options.gapMs());
    }

    private want(atMs: number): void {
        if (!this.active)
            return;
        if (this.running)
            this.wantedMs = Math.min(this.wantedMs ?? Infinity, atMs);
        else
            this.schedule(atMs);
    }

    private schedule(atMs: number): void {
        clearTimeout(this.timer);
        this.timer = setTimeout(() => void this.run(), Math.max(0, atMs - performance.now()));
    }

    private async run(): Promise<void> {
        this.running = true;
        this.wantedMs = null;
        this.beganMs = performance.now();
        await this.options.task();
        this.running = false;
        if (this.active)
            this.schedule(this.wantedMs ?? this.beganMs + this.options.intervalMs());
    }
}
