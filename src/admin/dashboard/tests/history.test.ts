import assert from "node:assert/strict";
import { test } from "node:test";

import { History, type Sample } from "../src/lib/history";

function sample(time: number, connected: number): Sample {
    return { time, connected, connects: 0, disconnects: 0, p50Ms: null, p99Ms: null };
}

test("an hour is kept and what is older is not", () => {
    const history = new History();
    for (let s = 0; s < 5000; s++)
        history.add(sample(s, s));
    const [times] = history.columns(["connected"], 0);
    assert.equal(times[0], 4999 - 3600);
    assert.equal(times.length, 3601);
});

test("columns begin where they are asked to", () => {
    const history = new History();
    for (let s = 0; s < 10; s++)
        history.add(sample(s, s * 2));
    assert.deepEqual(history.columns(["connected", "p50Ms"], 8), [[8, 9], [16, 18], [null, null]]);
});

test("a gap shows once, however often it is told", () => {
    const history = new History();
    history.gap(0);
    history.add(sample(1, 5));
    history.gap(1.5);
    history.gap(1.6);
    history.add(sample(9, 6));
    assert.deepEqual(history.columns(["connected"], 0), [[1, 1.5, 9], [5, null, 6]]);
});

test("a long silence is a gap", () => {
    const history = new History();
    history.add(sample(1, 5));
    history.add(sample(61, 6));
    history.add(sample(600, 7));
    assert.deepEqual(history.columns(["connected"], 0), [[1, 61, 62, 600], [5, 6, null, 7]]);
});

test("a clock that is set back leaves times that go forwards", () => {
    const history = new History();
    for (const time of [10, 11, 12, 5, 6])
        history.add(sample(time, time));
    assert.deepEqual(history.columns(["connected"], 0)[0], [5, 6]);
});
