import assert from "node:assert/strict";
import { test } from "node:test";

import { Poller } from "../src/lib/poller";

const wait = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Counts how often it began, and how many were under way at once at most. */
function counting(tookMs: number, intervalMs: number, gapMs: number) {
    const seen = { began: 0, atOnce: 0, most: 0 };
    const poller = new Poller({
        task: async () => {
            seen.began++;
            seen.most = Math.max(seen.most, ++seen.atOnce);
            await wait(tookMs);
            seen.atOnce--;
        },
        intervalMs: () => intervalMs,
        gapMs: () => gapMs,
    });
    return { seen, poller };
}

test("what is wanted while it is under way is done once, afterwards", async () => {
    const { seen, poller } = counting(60, 100_000, 0);
    poller.start();
    await wait(20);
    for (let i = 0; i < 10; i++)
        poller.now();
    await wait(200);
    poller.stop();
    assert.deepEqual(seen, { began: 2, atOnce: 0, most: 1 });
});

test("soon leaves the gap, however often it is said", async () => {
    const { seen, poller } = counting(0, 100_000, 100_000);
    poller.start();
    await wait(20);
    for (let i = 0; i < 10; i++)
        poller.soon();
    await wait(50);
    poller.stop();
    assert.equal(seen.began, 1);
});

test("one that is stopped does nothing more", async () => {
    const { seen, poller } = counting(0, 10, 0);
    poller.start();
    poller.stop();
    poller.now();
    poller.soon();
    await wait(50);
    assert.ok(seen.began <= 1);
});
