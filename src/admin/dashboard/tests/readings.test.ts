import assert from "node:assert/strict";
import { test } from "node:test";

import { readMetrics, Readings } from "../src/lib/readings";

function text(values: { start?: number; connects?: number; ended?: number; refused?: number; rtt?: number }): string {
    const { start = 100, connects = 0, ended = 0, refused = 0, rtt = 0 } = values;

    return `process_start_time_seconds ${start}
cliser_clients{status="connected"} 5
cliser_clients{status="disconnected"} 2
cliser_handshake_duration_seconds_count ${connects}
cliser_disconnects_total{reason="left"} ${ended}
cliser_disconnects_total{reason="reset"} ${ended}
cliser_refusals_total{code="410"} ${refused}
cliser_keepalive_rtt_seconds_bucket{le="0.002"} ${rtt}
cliser_keepalive_rtt_seconds_bucket{le="+Inf"} ${rtt}
`;
}

test("rates are of the time between two readings", () => {
    const readings = new Readings();
    assert.equal(readings.add(readMetrics(text({ connects: 10, ended: 1 }), 0, 0)), false);
    assert.equal(readings.stepRates(), null);
    assert.equal(readings.add(readMetrics(text({ connects: 30, ended: 3 }), 2000, 2)), true);
    assert.deepEqual(readings.stepRates(), { connects: 10, disconnects: 2 });
    assert.equal(readings.last?.connected, 5);
});

test("nothing is worked out across a restart", () => {
    const readings = new Readings();
    readings.add(readMetrics(text({ connects: 1000, refused: 7 }), 0, 0));
    assert.equal(readings.add(readMetrics(text({ start: 200, connects: 3, refused: 1 }), 1000, 1)), false);
    assert.equal(readings.rates(), null);
    assert.equal(readings.rttSeconds(0.5), null);
    assert.equal(readings.recentRefusals("410"), 0);
});

test("refusals are those of the last minute", () => {
    const readings = new Readings();
    for (let s = 0; s <= 120; s++)
        readings.add(readMetrics(text({ refused: s }), s * 1000, s));
    assert.equal(readings.recentRefusals("410"), 60);
    assert.equal(readings.recentRefusals("499"), 0);
});

test("round trips are those of the last ten seconds", () => {
    const readings = new Readings();
    for (let s = 0; s <= 30; s++)
        readings.add(readMetrics(text({ rtt: Math.min(s, 15) }), s * 1000, s));
    assert.equal(readings.rttSeconds(0.5), null);
    readings.add(readMetrics(text({ rtt: 16 }), 31_000, 31));
    assert.equal(readings.rttSeconds(0.5), 0.001);
});
