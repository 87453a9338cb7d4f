import assert from "node:assert/strict";
import { test } from "node:test";

import { areSame, emptyForm, isConfirmed, requestOf } from "../src/lib/order_request";
import type { DryRun } from "../src/lib/types";

function run(...waves: string[][]): DryRun {
    return {
        dry_run: true,
        waves: waves.map((clients) => ({ match: ["*"], clients, count: clients.length })),
        count: waves.flat().length,
    };
}

test("a form becomes waves, and empty ones are left out", () => {
    const form = { ...emptyForm(), waves: ["web-*, web2-*", " \n", "db-1 nas"] };
    assert.deepEqual(requestOf(form),
        { waves: [["web-*", "web2-*"], ["db-1", "nas"]], grace: "60s", hold: "0s" });
});

test("all machines are one wave, whatever stands in the fields", () => {
    const form = { waves: ["web-*"], all: true, grace: " 5 m ", hold: "15m" };
    assert.deepEqual(requestOf(form), { waves: [["*"]], grace: "5m", hold: "15m" });
});

test("a form without a machine names none", () => {
    assert.deepEqual(requestOf(emptyForm()).waves, []);
});

test("two answers are the same only with the same machines in the same waves", () => {
    assert.equal(areSame(run(["a", "b"], ["c"]), run(["a", "b"], ["c"])), true);
    assert.equal(areSame(run(["a", "b"]), run(["a"])), false);
    assert.equal(areSame(run(["a", "b"]), run(["a", "c"])), false);
    assert.equal(areSame(run(["a", "b"], []), run(["a"], ["b"])), false);
});

test("only the exact number confirms, and never nobody", () => {
    const twelve = run([..."abcdefghijkl"]);
    for (const typed of ["", "1", "120", "12.0", "+12", "0x0c", "012", "yes"])
        assert.equal(isConfirmed(typed, twelve), false, typed);
    assert.equal(isConfirmed("12", twelve), true);
    assert.equal(isConfirmed(" 12 ", twelve), true);
    assert.equal(isConfirmed("0", run([])), false);
});
