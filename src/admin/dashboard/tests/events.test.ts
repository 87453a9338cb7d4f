import assert from "node:assert/strict";
import { test } from "node:test";

import { EventReader } from "../src/lib/events";
import { backoffMs } from "../src/lib/stream";

const TEXT = "id: 7\nevent: connected\ndata: {\"cid\":\"nas-1\"}\n\n" +
    ":\n\nid: 8\r\nevent: missed\r\ndata: {\r\ndata: }\r\n\r\n";

const EVENTS = [
    { id: "7", name: "connected", data: "{\"cid\":\"nas-1\"}" },
    { id: "8", name: "missed", data: "{\n}" },
];

test("events of one piece are read with their ids, and comments are none", () => {
    assert.deepEqual(new EventReader().take(TEXT), EVENTS);
});

test("events that are cut anywhere are read whole", () => {
    for (let cut = 0; cut <= TEXT.length; cut++) {
        const reader = new EventReader();
        assert.deepEqual([...reader.take(TEXT.slice(0, cut)), ...reader.take(TEXT.slice(cut))], EVENTS);
    }
});

test("events that come byte by byte are read whole", () => {
    const reader = new EventReader();
    assert.deepEqual([...TEXT].flatMap((byte) => reader.take(byte)), EVENTS);
});

test("an event that is not complete is not told", () => {
    assert.deepEqual(new EventReader().take("id: 7\ndata: {}\n"), []);
});

test("the wait grows from half a second to ten and has chance in it", () => {
    assert.deepEqual([0, 1, 2, 3, 4, 5, 20].map((n) => backoffMs(n, 1)),
        [500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
    assert.equal(backoffMs(0, 0), 250);
});
