// The last minutes in charts.
import { useSignal } from "@preact/signals";

import { count, milliseconds, rate, roundMilliseconds, roundNumber } from "../lib/format";
import { AsOf } from "./header";
import { Chart, type Line } from "./chart";

const RANGES = [5, 15, 60];

const clients: Line[] = [
    { key: "connected", label: "connected", colour: "first", dash: [] },
];
const comings: Line[] = [
    { key: "connects", label: "connects", colour: "first", dash: [] },
    { key: "disconnects", label: "disconnects", colour: "second", dash: [6, 4] },
];
const roundTrips: Line[] = [
    { key: "p50Ms", label: "p50", colour: "first", dash: [] },
    { key: "p99Ms", label: "p99", colour: "second", dash: [6, 4] },
];

export function OverTime() {
    const minutes = useSignal(15);

    return (
        <section aria-labelledby="over-time-title" class="over-time">
            <div class="title-row">
                <h2 id="over-time-title">Over time <AsOf /></h2>
                <fieldset class="choice">
                    <legend class="unseen">Time shown</legend>
                    {RANGES.map((range) => (
                        <label key={range}>
                            <input type="radio" name="range" checked={minutes.value === range}
                                   onChange={() => { minutes.value = range; }} />
                            {range} min
                        </label>
                    ))}
                </fieldset>
            </div>
            <div class="charts">
                <Chart title="Clients connected" lines={clients} format={count} formatAxis={roundNumber}
                       minutes={minutes.value} />
                <Chart title="Connects and disconnects per second" lines={comings} format={rate}
                       formatAxis={roundNumber} minutes={minutes.value} />
                <Chart title="Keep-alive round trip, each of 10 s" lines={roundTrips} format={milliseconds}
                       formatAxis={roundMilliseconds} isLogarithmic minutes={minutes.value} />
            </div>
        </section>
    );
}
