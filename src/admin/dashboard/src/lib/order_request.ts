// From what was typed into the form to what the server is asked, and whether an answer to the same
// question is still the same.
import { globsOf } from "./glob";
import type { DryRun, OrderRequest } from "./types";

export interface OrderForm {
    /** A text for each wave, with IDs and patterns in it. */
    waves: string[];
    all: boolean;
    grace: string;
    hold: string;
}

export const ALL_HOLD = "15m";

export function emptyForm(): OrderForm {
    return { waves: [""], all: false, grace: "60s", hold: "none" };
}

/** Waves in which nothing stands are left out. The server judges all the rest. */
export function requestOf(form: OrderForm): OrderRequest {
    const waves = form.all ? [["*"]] : form.waves.map(globsOf).filter((globs) => globs.length > 0);

    return { waves, grace: durationOf(form.grace), hold: durationOf(form.hold) };
}

/** "1 m" is meant well; "none" and nothing are no time at all. */
function durationOf(text: string): string {
    const plain = text.replace(/\s+/g, "").toLowerCase();

    return plain === "" || plain === "none" || plain === "0" ? "0s" : plain;
}

/** The same machines, each in the same wave. */
export function areSame(a: DryRun, b: DryRun): boolean {
    return a.count === b.count && a.waves.length === b.waves.length &&
        a.waves.every((wave, i) => {
            const others = b.waves[i]!.clients;
            return wave.clients.length === others.length &&
                wave.clients.every((cid, j) => cid === others[j]);
        });
}

export function isConfirmed(typed: string, run: DryRun): boolean {
    return run.count > 0 && typed.trim() === String(run.count);
}
