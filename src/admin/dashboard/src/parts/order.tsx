// The shutdown order under way, or the last one: the band that is above everything, and the
// section with its waves and survivors.
import { useSignal } from "@preact/signals";

import { Failure, messageOf } from "../lib/api";
import { count, counted } from "../lib/format";
import type { Order, OrderNumbers, OrderWave, Target } from "../lib/types";
import { targetMeanings } from "../lib/words";
import { serverNow } from "../state/clock";
import { lookSoon } from "../state/monitor";
import { cancelOrder, isUnderWay, order, survivors, SURVIVORS_SHOWN } from "../state/order";
import { Dialog } from "./dialog";
import { AsOf } from "./header";
import { At } from "./when";

const RECENT_S = 3600;

export function OrderBand({ onCancel }: { onCancel: () => void }) {
    if (!order.value || !isUnderWay.value)
        return null;
    return (
        <aside class="band order-band" aria-label="Shutdown under way">
            <p><strong>{headline(order.value)}</strong> <AsOf /></p>
            <div class="actions">
                <button type="button" onClick={showOrder}>Show</button>
                <button type="button" onClick={onCancel}>Cancel order</button>
            </div>
        </aside>
    );
}

/** For screen readers: what has changed, and not each number that has. */
export function OrderNews() {
    return <p class="unseen" aria-live="polite">{order.value && newsOf(order.value)}</p>;
}

function newsOf(now: Order): string {
    return now.state === "running" ? `Shutdown order ${now.id} is running: ${waveText(now)}.`
                                   : `Shutdown order ${now.id}: ${now.state}.`;
}

export function showOrder(): void {
    const title = document.getElementById("order-title");

    title?.closest("section")?.scrollIntoView({ block: "start" });
    title?.focus({ preventScroll: true });
}

function headline(now: Order): string {
    const { told, acknowledged, still_up: stillUp } = now.totals;
    const progress = `${count(acknowledged)} of ${count(told)} acknowledged, ${count(stillUp)} still up`;

    if (now.state === "holding")
        return `Shutdown order ${now.id} is holding: who connects is told as well. ${progress}.`;
    return `Shutdown order ${now.id} is running: ${waveText(now)}, ${progress}.`;
}

function waveText(now: Order): string {
    return now.wave === 0 ? "before its first wave" : `wave ${now.wave} of ${now.waves.length}`;
}

function holdText(now: Order): string {
    return now.hold_until === null ? "no hold" : `hold ${now.hold}`;
}

export function OrderSection({ onCancel }: { onCancel: () => void }) {
    const now = order.value;

    if (!now)
        return null;
    const isRecent = isUnderWay.value || now.ended === null || serverNow.value - now.ended < RECENT_S;
    return (
        <section aria-labelledby="order-title" class="order">
            <h2 id="order-title" tabIndex={-1}>Shutdown order <AsOf /></h2>
            <p class="order-state"><StateText now={now} /></p>
            {!now.durable && <p class="problem">
                The database could not be written: a restart of the server would forget the last change of this order.
            </p>}
            {isUnderWay.value && <button type="button" onClick={onCancel}>Cancel order</button>}
            <details key={now.id} open={isRecent}>
                <summary>Waves and survivors</summary>
                <Waves now={now} />
                <Survivors now={now} />
            </details>
        </section>
    );
}

function StateText({ now }: { now: Order }) {
    const given = <>given at <At time={now.created} /> by {now.by}, grace {now.grace}, {holdText(now)}</>;

    switch (now.state) {
    case "running":
        return <><b>Order {now.id} is running</b>, {waveText(now)}; {given}.</>;
    case "holding":
        return <>
            <b>Order {now.id} is holding</b>: all waves are over, and who connects
            {now.hold_until !== null && <> until <At time={now.hold_until} /></>} is told; {given}.
        </>;
    case "done":
        return <><b>Order {now.id} is done</b>{now.ended !== null && <> since <At time={now.ended} /></>}; {given}.</>;
    case "cancelled":
        return <>
            <b>Order {now.id} was cancelled</b>{now.ended !== null && <> at <At time={now.ended} /></>}; {given}.
        </>;
    case "expired":
        return <><b>Order {now.id} has expired</b>: the server was away for too long; {given}.</>;
    }
}

function Waves({ now }: { now: Order }) {
    return (
        <table class="waves">
            <caption class="unseen">Waves of order {now.id}</caption>
            <thead>
                <tr>
                    <th scope="col">Wave</th>
                    <th scope="col">Who</th>
                    <th scope="col">State</th>
                    <th scope="col" class="number">Told</th>
                    <th scope="col" class="number">Acknowledged</th>
                    <th scope="col" class="number">Gone</th>
                    <th scope="col" class="number">Still up</th>
                    <th scope="col">Progress</th>
                </tr>
            </thead>
            <tbody>
                {now.waves.map((wave, i) => <Wave key={i} number={i + 1} wave={wave} />)}
            </tbody>
        </table>
    );
}

function Wave({ number, wave }: { number: number; wave: OrderWave }) {
    return (
        <tr>
            <th scope="row" data-label="Wave">{number}</th>
            <td data-label="Who" class="globs">{wave.match.join(", ")}</td>
            <td data-label="State">{wave.state}</td>
            <td data-label="Told" class="number">{count(wave.told)}</td>
            <td data-label="Acknowledged" class="number">{count(wave.acknowledged)}</td>
            <td data-label="Gone" class="number">{count(wave.gone)}</td>
            <td data-label="Still up" class="number">{count(wave.still_up)}</td>
            <td data-label="Progress"><Progress numbers={wave} of={`wave ${number}`} /></td>
        </tr>
    );
}

function Progress({ numbers, of }: { numbers: OrderNumbers; of: string }) {
    const all = numbers.told + numbers.pending;
    const rest = [
        numbers.pending > 0 && `${count(numbers.pending)} to be told`,
        numbers.not_connected > 0 && `${count(numbers.not_connected)} not there`,
        numbers.late > 0 && `${count(numbers.late)} came late`,
    ].filter(Boolean);

    return (
        <span class="progress">
            <progress max={Math.max(all, 1)} value={numbers.gone} aria-label={`Gone of ${of}`} />
            <span>{count(numbers.gone)} of {count(all)} gone{rest.length > 0 && `; ${rest.join(", ")}`}</span>
        </span>
    );
}

function Survivors({ now }: { now: Order }) {
    const { still_up: stillUp } = now.totals;
    const listed = survivors.value;

    if (stillUp === 0)
        return <p>{now.totals.told === 0 ? "Nobody was told yet." : "None of those who were told is still up."}</p>;
    return (
        <div class="survivors">
            <h3>Still up: {count(stillUp)}</h3>
            {[...groupsOf(listed)].map(([name, cids]) => (
                <div key={name}>
                    <h4 class="hint">{name}</h4>
                    <ul tabIndex={0} aria-label={name}>{cids.map((cid) => <li key={cid}>{cid}</li>)}</ul>
                </div>
            ))}
            {listed.length >= SURVIVORS_SHOWN && listed.length < stillUp &&
                <p class="hint">{counted(listed.length, "machine")} of {count(stillUp)} shown.</p>}
        </div>
    );
}

/** Those of one wave who are in one state, by words for both. */
function groupsOf(targets: Target[]): Map<string, string[]> {
    const groups = new Map<string, string[]>();

    for (const { wave, state, cid } of [...targets].sort((a, b) => a.wave - b.wave)) {
        const name = `Wave ${wave}, ${targetMeanings[state] ?? state}`;
        groups.set(name, [...groups.get(name) ?? [], cid]);
    }
    return groups;
}

/** Asks before it cancels, and says what that does and what not. */
export function CancelDialog({ onClose }: { onClose: () => void }) {
    const busy = useSignal(false);
    const problem = useSignal<string | null>(null);
    const now = order.value;

    async function cancel(): Promise<void> {
        if (busy.value)
            return;
        busy.value = true;
        try {
            await cancelOrder();
            onClose();
        } catch (error) {
            problem.value = error instanceof Failure && error.kind === "away"
                ? `It is not known whether the order was cancelled: ${error.message}. Look at its state above all else.`
                : `Not cancelled: ${messageOf(error)}.`;
            lookSoon();
        }
        busy.value = false;
    }

    return (
        <Dialog titleId="cancel-title" onClose={onClose}>
            <h2 id="cancel-title">Cancel the shutdown order?</h2>
            {now && <p>
                {counted(now.totals.pending, "machine")} that {now.totals.pending === 1 ? "is" : "are"} not told yet
                will not be{now.hold_until !== null && ", nor who connects later"}.
            </p>}
            {now && <p>
                What was told cannot be taken back: {counted(now.totals.told, "machine")}{" "}
                {now.totals.told === 1 ? "was" : "were"} told, and will go.
            </p>}
            <p class="problem" role="alert">{problem.value}</p>
            <div class="actions">
                <button type="button" class="danger" aria-disabled={busy.value} onClick={() => void cancel()}>
                    Yes, cancel it
                </button>
                <button type="button" class="last" onClick={onClose}>Let it go on</button>
            </div>
        </Dialog>
    );
}
