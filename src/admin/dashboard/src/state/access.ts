// Who may look: the token, which lives in this tab's session storage and nowhere else.
import { signal } from "@preact/signals";

import { Failure, getJson, useToken, watchUnauthorised } from "../lib/api";

/** "checking": whether a token is needed and a stored one is still good. */
export type Access =
    | { kind: "checking"; trouble: string | null }
    | { kind: "asking"; message: string | null; busy: boolean }
    | { kind: "open"; hasToken: boolean };

const KEY = "cliser.token";
const RETRY_MS = 2000;

const WHERE = "It is the first line of the file that token_file names in the server's cliser.ini.";

export const access = signal<Access>({ kind: "checking", trouble: null });

/** Without a token as well: somebody may have put the page before the unix socket. */
export function begin(): void {
    watchUnauthorised(refused);
    useToken(sessionStorage.getItem(KEY));
    void check();
}

export async function enter(token: string): Promise<void> {
    access.value = { kind: "asking", message: null, busy: true };
    useToken(token);
    try {
        await getJson("/v1/status");
        sessionStorage.setItem(KEY, token);
        access.value = { kind: "open", hasToken: true };
    } catch (error) {
        if (error instanceof Failure && error.kind !== "unauthorised")
            ask(`The token could not be tried: ${error.message}. Is cliserd running?`);
    }
}

export function lock(): void {
    forget();
    ask(null);
}

async function check(): Promise<void> {
    try {
        await getJson("/v1/status");
        access.value = { kind: "open", hasToken: sessionStorage.getItem(KEY) !== null };
    } catch (error) {
        if (!(error instanceof Failure) || error.kind === "unauthorised")
            return;
        access.value = { kind: "checking", trouble: error.message };
        setTimeout(() => void check(), RETRY_MS);
    }
}

/** Several requests may be refused at once, and the first one is enough. */
function refused(): void {
    const was = access.value;

    if (was.kind === "asking" && !was.busy)
        return;
    const hadToken = sessionStorage.getItem(KEY) !== null;

    forget();
    if (was.kind === "asking")
        ask(`This token is wrong. ${WHERE}`);
    else if (hadToken)
        ask(`The server does not take this token any more. ${WHERE}`);
    else
        ask(null);
}

function ask(message: string | null): void {
    access.value = { kind: "asking", message, busy: false };
}

function forget(): void {
    sessionStorage.removeItem(KEY);
    useToken(null);
}
