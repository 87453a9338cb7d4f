import assert from "node:assert/strict";
import { test } from "node:test";

import { growth, histogram, labelled, parseMetrics, quantileBetween } from "../src/lib/metrics";

const TEXT = `# HELP cliser_clients Clients that are known.
# TYPE cliser_clients gauge
cliser_clients{status="connected"} 12
cliser_clients{status="disconnected"} 3
process_start_time_seconds 1795614838.25
lag_bucket{le="0.00001"} 0
lag_bucket{le="0.1"} 5
lag_bucket{le="10"} 9
lag_bucket{le="+Inf"} 10
lag_sum 31.5
lag_count 10
`;

test("series are found by name and labels", () => {
    const series = parseMetrics(TEXT);
    assert.equal(series.get("cliser_clients{status=\"connected\"}"), 12);
    assert.equal(series.get("process_start_time_seconds"), 1795614838.25);
    assert.deepEqual([...labelled(series, "cliser_clients", "status")],
        [["connected", 12], ["disconnected", 3]]);
});

test("a histogram's buckets come in the order of their bounds", () => {
    assert.deepEqual(histogram(parseMetrics(TEXT), "lag"),
        { bounds: [0.00001, 0.1, 10, Infinity], counts: [0, 5, 9, 10] });
});

test("a counter that is smaller began anew", () => {
    assert.equal(growth(5, 8), 3);
    assert.equal(growth(8, 5), 5);
});

const bounds = [1, 2, 4, Infinity];

test("a quantile lies within its bucket, by the share of it", () => {
    const before = { bounds, counts: [10, 10, 10, 10] };
    const after = { bounds, counts: [12, 16, 20, 20] };
    assert.equal(quantileBetween(before, after, 0.5), 1.75);
    assert.equal(quantileBetween(before, after, 0.1), 0.5);
    assert.equal(quantileBetween(before, after, 1), 4);
    assert.equal(quantileBetween(null, { bounds, counts: [0, 0, 2, 2] }, 0.5), 3);
});

test("beyond the last bound only that is known", () => {
    assert.equal(quantileBetween(null, { bounds, counts: [0, 0, 0, 5] }, 0.5), 4);
});

test("without anything recorded there is no quantile", () => {
    const same = { bounds, counts: [1, 2, 3, 3] };
    assert.equal(quantileBetween(same, same, 0.5), null);
    assert.equal(quantileBetween(null, { bounds: [], counts: [] }, 0.5), null);
});
