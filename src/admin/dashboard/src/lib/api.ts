// Asks the control API (docs/control.md). Knows the token and what can go wrong, and nothing of the
// page.

/**
 * What became of a request that failed. "unauthorised": the token is missing or wrong. "away": no
 * answer of cliserd came, and it is not known what it did. "refused": it said no, and why.
 */
export type FailureKind = "unauthorised" | "away" | "refused";

export class Failure extends Error {
    constructor(readonly kind: FailureKind, message: string, readonly status = 0) {
        super(message);
    }
}

export interface RequestOptions {
    method?: "GET" | "POST" | "DELETE";
    body?: unknown;
    timeoutMs?: number;
    headers?: Record<string, string>;
    signal?: AbortSignal;
}

const TIMEOUT_MS = 5000;

let token: string | null = null;
let onUnauthorised: (failure: Failure) => void = () => {};
let clockOffsetMs = 0;

export function useToken(next: string | null): void {
    token = next;
}

/** Calls back at each answer that says the token is wrong, whoever asked. */
export function watchUnauthorised(callback: (failure: Failure) => void): void {
    onUnauthorised = callback;
}

/**
 * The time by the server's clock, since the times it tells are by that one. The Date header is in
 * whole seconds, so a small difference is taken for none.
 */
export function serverNowMs(): number {
    return Date.now() + (Math.abs(clockOffsetMs) > 3000 ? clockOffsetMs : 0);
}

export async function getJson<T>(path: string, options: RequestOptions = {}): Promise<T> {
    return await withAnswer(path, options, (answer) => answer.json() as Promise<T>);
}

export async function getText(path: string, options: RequestOptions = {}): Promise<string> {
    return await withAnswer(path, options, (answer) => answer.text());
}

/**
 * Returns an answer whose body goes on for ever; the timeout is for its beginning alone. The
 * caller ends it by options.signal.
 */
export async function openStream(path: string, options: RequestOptions): Promise<Response> {
    const beginning = new AbortController();
    const timer = setTimeout(() => beginning.abort(), options.timeoutMs ?? TIMEOUT_MS);

    options.signal?.addEventListener("abort", () => beginning.abort());
    try {
        return await checked(await send(path, options, beginning.signal));
    } finally {
        clearTimeout(timer);
    }
}

async function withAnswer<T>(path: string, options: RequestOptions,
                             read: (answer: Response) => Promise<T>): Promise<T> {
    const timeout = AbortSignal.timeout(options.timeoutMs ?? TIMEOUT_MS);
    const answer = await checked(await send(path, options, timeout));

    try {
        return await read(answer);
    } catch {
        throw new Failure("away", "the server's answer broke off");
    }
}

async function send(path: string, options: RequestOptions, signal: AbortSignal): Promise<Response> {
    const method = options.method ?? "GET";
    const headers: Record<string, string> = { ...options.headers };

    if (token !== null)
        headers["Authorization"] = `Bearer ${token}`;
    if (method !== "GET")
        headers["Content-Type"] = "application/json";
    try {
        const answer = await fetch(path, {
            method,
            headers,
            signal,
            body: options.body === undefined ? null : JSON.stringify(options.body),
            cache: "no-store",
            credentials: "omit",
            redirect: "error",
        });
        noteClock(answer);
        return answer;
    } catch {
        throw new Failure("away", signal.aborted ? "the server did not answer in time"
                                                 : "the server cannot be reached");
    }
}

function noteClock(answer: Response): void {
    const date = Date.parse(answer.headers.get("Date") ?? "");

    if (!Number.isNaN(date))
        clockOffsetMs = date - Date.now();
}

async function checked(answer: Response): Promise<Response> {
    if (answer.ok)
        return answer;
    const failure = await failureOf(answer);
    if (failure.kind === "unauthorised")
        onUnauthorised(failure);
    throw failure;
}

/** An error without words of cliserd comes from a proxy before it that cannot reach it. */
async function failureOf(answer: Response): Promise<Failure> {
    const message = await errorText(answer);

    if (answer.status === 401)
        return new Failure("unauthorised", message ?? "the token is wrong", 401);
    if (message === null)
        return new Failure("away", `something before the server answered ${answer.status}`, answer.status);
    return new Failure("refused", message, answer.status);
}

async function errorText(answer: Response): Promise<string | null> {
    try {
        const body = await answer.json() as { error?: unknown; why?: unknown };
        const text = body.error ?? body.why;
        return typeof text === "string" ? text : null;
    } catch {
        return null;
    }
}

/** What to tell people, whatever was thrown. */
export function messageOf(error: unknown): string {
    return error instanceof Error ? error.message : String(error);
}
