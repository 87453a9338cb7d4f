import assert from "node:assert/strict";
import { test } from "node:test";

import { counted, duration, milliseconds, rate, roundMilliseconds } from "../src/lib/format";
import { globOfSearch, globsOf, matcherOf } from "../src/lib/glob";

test("a search without a pattern finds the text anywhere", () => {
    assert.equal(globOfSearch(" nas "), "*nas*");
    assert.equal(globOfSearch("nas-*"), "nas-*");
    assert.equal(globOfSearch("nas-?"), "nas-?");
    assert.equal(globOfSearch("[a-c]1"), "[a-c]1");
    assert.equal(globOfSearch("  "), "");
});

test("what the page hears is matched as the server would, or too generously", () => {
    const cases: [string, string, boolean][] = [
        ["", "nas-1", true],
        ["*", "nas-1", true],
        ["nas-*", "nas-1", true],
        ["nas-*", "db-1", false],
        ["*as*", "nas-1", true],
        ["nas-?", "nas-12", false],
        ["nas-[1-3]", "nas-2", true],
        ["nas-[!1]", "nas-12", false],
        ["a.b", "axb", false],
        ["a[", "a[", true],
        ["a(b", "a", false],
    ];
    for (const [glob, cid, expected] of cases)
        assert.equal(matcherOf(glob)(cid), expected, `${glob} and ${cid}`);
});

test("IDs and patterns are told apart by commas, blanks and lines", () => {
    assert.deepEqual(globsOf(" web-*, db-1\n\nnas ,"), ["web-*", "db-1", "nas"]);
});

test("durations are in the unit that one thinks in", () => {
    assert.deepEqual([-3, 0, 59.9, 60, 3599, 3600, 4800, 36_000, 86_400, 172_800].map(duration),
        ["0 s", "0 s", "59 s", "1 min", "59 min", "1 h", "1 h 20 min", "10 h", "24 h", "2 d"]);
});

test("numbers are as exact as one can read them", () => {
    assert.deepEqual([null, 0, 0.126, 1.25, 12.345, 345.6, 1234].map(milliseconds),
        ["–", "0.000 ms", "0.126 ms", "1.25 ms", "12.3 ms", "346 ms", "1.23 s"]);
    assert.deepEqual([0, 0.5, 60, 1500].map(roundMilliseconds), ["0 ms", "0.5 ms", "60 ms", "1.5 s"]);
    assert.deepEqual([null, 0, 1.26, 26_527.4].map(rate), ["–", "0", "1.3", "26,527"]);
    assert.deepEqual([counted(1, "machine"), counted(1203, "machine")], ["1 machine", "1,203 machines"]);
});
