// Waiting: polling with a deadline, never a pause that hopes.
import assert from "node:assert/strict";
import { setTimeout as pause } from "node:timers/promises";

const SCALE = Number(process.env.CLISER_TIME_SCALE ?? "1");

const POLL_MS = 20;

/** A deadline that long in milliseconds, stretched for slow machines. */
export function limitMs(seconds) {
    return seconds * 1000 * SCALE;
}

/** Polls until the question has a true answer, and returns it; fails at the deadline. */
export async function until(question, what, seconds = 10) {
    const end = performance.now() + limitMs(seconds);

    for (;;) {
        const answer = await question();
        if (answer)
            return answer;
        if (performance.now() > end)
            assert.fail(`${what}: not within ${limitMs(seconds) / 1000} s`);
        await pause(POLL_MS);
    }
}

/** The opposite: the answer has to stay true for that long. */
export async function staysTrue(question, what, seconds) {
    const end = performance.now() + seconds * 1000;

    while (performance.now() < end) {
        assert.ok(await question(), `${what}: it did not stay so for ${seconds} s`);
        await pause(POLL_MS);
    }
}
