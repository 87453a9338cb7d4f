// Keeps the stream of events open: reconnects with back-off, goes on behind the last event, and
// gives up a connection on which not even the server's comments come any more. By fetch, since an
// EventSource can send no token.
import { Failure, messageOf, openStream } from "./api";
import { EventReader, type ServerEvent } from "./events";

const BACKOFF_MIN_MS = 500;
const BACKOFF_MAX_MS = 10_000;

// The server sends a comment every 15 s when it has nothing else.
const SILENCE_MS = 40_000;

export type StreamState =
    | { kind: "closed" }
    | { kind: "opening" }
    | { kind: "open" }
    | { kind: "waiting"; why: Failure };

export interface StreamHandlers {
    onEvents: (events: ServerEvent[]) => void;
    onState: (state: StreamState) => void;
}

/** Waits for between half of and all of what grows from half a second to ten. */
export function backoffMs(failures: number, random: number): number {
    const bound = Math.min(BACKOFF_MIN_MS * 2 ** failures, BACKOFF_MAX_MS);

    return bound / 2 + random * bound / 2;
}

export class EventStream {
    private lastId: string | null = null;
    private failures = 0;
    private current: AbortController | null = null;
    private wake: () => void = () => {};

    constructor(private readonly handlers: StreamHandlers) {}

    open(): void {
        if (!this.current)
            void this.run(this.current = new AbortController());
    }

    close(): void {
        this.current?.abort();
        this.current = null;
        this.wake();
        this.handlers.onState({ kind: "closed" });
    }

    /** Ends a wait: there is a reason to believe that it will work now. */
    retryNow(): void {
        this.wake();
    }

    private async run(current: AbortController): Promise<void> {
        while (!current.signal.aborted) {
            this.handlers.onState({ kind: "opening" });
            const why = await this.readToItsEnd(current.signal);
            if (current.signal.aborted)
                return;
            this.handlers.onState({ kind: "waiting", why });
            await this.pause(backoffMs(this.failures++, Math.random()));
        }
    }

    private async readToItsEnd(closed: AbortSignal): Promise<Failure> {
        const connection = new AbortController();
        const end = (): void => connection.abort();

        closed.addEventListener("abort", end);
        try {
            const answer = await openStream("/v1/events", {
                headers: this.lastId === null ? {} : { "Last-Event-ID": this.lastId },
                signal: connection.signal,
            });
            this.handlers.onState({ kind: "open" });
            await this.read(answer, connection);
            return new Failure("away", "the stream of events ended");
        } catch (error) {
            return error instanceof Failure ? error : new Failure("away", messageOf(error));
        } finally {
            closed.removeEventListener("abort", end);
            connection.abort();
        }
    }

    private async read(answer: Response, connection: AbortController): Promise<void> {
        const reader = answer.body!.pipeThrough(new TextDecoderStream()).getReader();
        const events = new EventReader();

        for (;;) {
            const silence = setTimeout(() => connection.abort(), SILENCE_MS);
            const { done, value } = await reader.read().finally(() => clearTimeout(silence));
            if (done)
                return;
            this.failures = 0;
            this.hand(events.take(value));
        }
    }

    private hand(events: ServerEvent[]): void {
        const last = events.at(-1);

        if (!last)
            return;
        this.lastId = last.id;
        this.handlers.onEvents(events);
    }

    private pause(ms: number): Promise<void> {
        return new Promise((resolve) => {
            const timer = setTimeout(resolve, ms);
            this.wake = () => {
                clearTimeout(timer);
                resolve();
            };
        });
    }
}
