// The present in numbers, large enough for the wall.
import { count, milliseconds, NOTHING, rate } from "../lib/format";
import { refusalMeanings } from "../lib/words";
import { notReadyWhy, readings, status, steps } from "../state/monitor";
import { AsOf } from "./header";

type Tone = "" | "ok" | "attention" | "danger";

interface FigureProps {
    term: string;
    value: string;
    hint: string;
    tone?: Tone;
}

const BUSY_LAG_MS = 50;

export function Now() {
    void steps.value;
    const now = status.value;
    const reading = readings.last;
    const rates = readings.rates();
    const lag = readings.lagSeconds(0.99);
    const lagMs = lag === null ? null : lag * 1000;

    return (
        <section aria-labelledby="now-title" class="now">
            <h2 id="now-title">Now <AsOf /></h2>
            <dl class="figures">
                <Figure term="Connected" value={count(reading?.connected ?? null)}
                        hint={now ? `of ${count(now.max_clients)} at most` : ""} />
                <Figure term="Disconnected" value={count(reading?.disconnected ?? null)}
                        hint="known, not there" />
                <Figure term="Handshakes per second" value={rate(rates?.connects ?? null)}
                        hint={now ? `${count(now.pending)} under way` : ""} />
                <Figure term="Loop lag" value={milliseconds(lagMs)} hint="p99 of the last 10 s"
                        tone={lagMs !== null && lagMs > BUSY_LAG_MS ? "attention" : ""} />
                <Store />
                <Readiness />
            </dl>
            <Refusals />
        </section>
    );
}

function Figure({ term, value, hint, tone = "" }: FigureProps) {
    const [number, unit] = value.split(" ");

    return (
        <div class={`figure ${tone}`}>
            <dt>{term}</dt>
            <dd class="value">
                <span class={/\d/.test(value) ? "" : "word"}>{number}</span>
                {unit && <span class="unit"> {unit}</span>}
            </dd>
            <dd class="hint">{hint}</dd>
        </div>
    );
}

function Store() {
    const store = status.value?.store;

    if (!store)
        return <Figure term="Store" value={NOTHING} hint="" />;
    if (store.healthy)
        return <Figure term="Store" value="Healthy" hint={store.kind} tone="ok" />;
    const waiting = readings.last?.waitingChanges ?? 0;
    return <Figure term="Store" value="Failing" tone="danger"
                   hint={`${store.kind} cannot be written; ${count(waiting)} changes wait`} />;
}

function Readiness() {
    const now = status.value;

    if (!now)
        return <Figure term="Ready" value={NOTHING} hint="" />;
    if (now.ready)
        return <Figure term="Ready" value="Yes" hint="takes newcomers" tone="ok" />;
    return <Figure term="Ready" value="No" tone="danger"
                   hint={`newcomers are refused: ${notReadyWhy.value ?? "it is not known why"}`} />;
}

function Refusals() {
    const totals = [...readings.last?.refusals ?? []].filter(([, total]) => total > 0);

    if (totals.length === 0)
        return <p class="hint">Nobody was refused since the server started.</p>;
    return (
        <table class="refusals">
            <caption>Refusals</caption>
            <thead>
                <tr>
                    <th scope="col">Code</th>
                    <th scope="col">Meaning</th>
                    <th scope="col" class="number">Last minute</th>
                    <th scope="col" class="number">In all</th>
                </tr>
            </thead>
            <tbody>
                {totals.map(([code, total]) => (
                    <tr key={code}>
                        <th scope="row">{code}</th>
                        <td>{refusalMeanings[code] ?? "not known to this page"}</td>
                        <td class="number">{count(readings.recentRefusals(code))}</td>
                        <td class="number">{count(total)}</td>
                    </tr>
                ))}
            </tbody>
        </table>
    );
}
