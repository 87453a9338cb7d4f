// The form for a shutdown order. What its steps do is in state/giving.ts.
import { useSignal, type Signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";

import { count, counted } from "../lib/format";
import { ALL_HOLD, emptyForm, isConfirmed, type OrderForm } from "../lib/order_request";
import type { DryRun } from "../lib/types";
import { ask, beginGiving, give, giving, type Giving } from "../state/giving";
import { isUnderWay, order } from "../state/order";
import { Dialog } from "./dialog";
import { showOrder } from "./order";

const MACHINES_SHOWN = 300;
const MAX_WAVES = 64;

export function ShutdownDialog({ onClose }: { onClose: () => void }) {
    const form = useSignal(emptyForm());
    const now = giving.value;
    const busy = now.step === "unknown" || now.step !== "given" && now.busy;

    useEffect(() => {
        if (now.step === "given") {
            onClose();
            requestAnimationFrame(showOrder);
        }
    }, [now.step]);

    return (
        <Dialog titleId="shutdown-title" class="shutdown" onClose={onClose} mayClose={!busy}>
            <h2 id="shutdown-title">Shut down machines</h2>
            {now.step === "choose" && <Choose form={form} now={now} onClose={onClose} />}
            {now.step === "confirm" && <Confirm now={now} onBack={beginGiving} onClose={onClose} />}
            {now.step === "unknown" && <Unknown why={now.why} />}
        </Dialog>
    );
}

interface ChooseProps {
    form: Signal<OrderForm>;
    now: Giving & { step: "choose" };
    onClose: () => void;
}

function Choose({ form, now, onClose }: ChooseProps) {
    const change = (part: Partial<OrderForm>): void => { form.value = { ...form.value, ...part }; };

    function chooseAll(all: boolean): void {
        const { hold } = form.value;
        const untouched = hold === "none" || hold === ALL_HOLD;

        change({ all, hold: !untouched ? hold : all ? ALL_HOLD : "none" });
    }

    function submit(event: Event): void {
        event.preventDefault();
        if (!now.busy)
            void ask(form.value);
    }

    return (
        <form onSubmit={submit}>
            {isUnderWay.value && <p class="problem">
                Order {order.value?.id} is under way. There is one at a time; wait for its end, or cancel it.
            </p>}
            <label class="check">
                <input type="checkbox" checked={form.value.all}
                       onChange={(event) => chooseAll(event.currentTarget.checked)} />
                All machines
            </label>
            {!form.value.all && <WaveFields form={form} />}
            <Times form={form} />
            <p class="problem" role="alert">{now.problem}</p>
            <div class="actions">
                <button type="submit" class="main" aria-disabled={now.busy}>Who would be told?</button>
                <button type="button" class="last" onClick={onClose}>Close</button>
            </div>
        </form>
    );
}

function WaveFields({ form }: { form: Signal<OrderForm> }) {
    const { waves } = form.value;
    const change = (next: string[]): void => { form.value = { ...form.value, waves: next }; };

    return (
        <fieldset>
            <legend>Waves, one after the other</legend>
            <p class="hint" id="wave-hint">
                IDs and patterns (* ? [a-c]), by commas or lines. The next wave begins when all of one have gone.
            </p>
            {waves.map((text, i) => (
                <div class="field wave" key={i}>
                    <label for={`wave-${i}`}>Wave {i + 1}</label>
                    <textarea id={`wave-${i}`} rows={2} spellcheck={false} aria-describedby="wave-hint" value={text}
                              placeholder={i === 0 ? "web-*" : ""} autofocus={i === 0}
                              onInput={(event) => change(waves.with(i, event.currentTarget.value))} />
                    {waves.length > 1 &&
                        <button type="button" aria-label={`Remove wave ${i + 1}`}
                                onClick={() => change(waves.toSpliced(i, 1))}>Remove</button>}
                </div>
            ))}
            {waves.length < MAX_WAVES &&
                <button type="button" onClick={() => change([...waves, ""])}>Add wave</button>}
        </fieldset>
    );
}

function Times({ form }: { form: Signal<OrderForm> }) {
    const change = (part: Partial<OrderForm>): void => { form.value = { ...form.value, ...part }; };

    return (
        <div class="pair">
            <div class="field">
                <label for="grace">Grace</label>
                <input id="grace" type="text" autocomplete="off" value={form.value.grace} aria-describedby="grace-hint"
                       onInput={(event) => change({ grace: event.currentTarget.value })} />
                <p class="hint" id="grace-hint">
                    How long a wave may take, such as 60s or 5m. Then the next one begins, even if some are still up.
                </p>
            </div>
            <div class="field">
                <label for="hold">Hold</label>
                <input id="hold" type="text" autocomplete="off" value={form.value.hold} aria-describedby="hold-hint"
                       onInput={(event) => change({ hold: event.currentTarget.value })} />
                <p class="hint" id="hold-hint">
                    For so long whoever connects later is told as well, such as 15m; or none.
                </p>
            </div>
        </div>
    );
}

interface ConfirmProps {
    now: Giving & { step: "confirm" };
    onBack: () => void;
    onClose: () => void;
}

function Confirm({ now, onBack, onClose }: ConfirmProps) {
    const typed = useSignal("");
    const title = useRef<HTMLHeadingElement>(null);
    const { run } = now;

    // Another answer wants another confirmation.
    useEffect(() => {
        typed.value = "";
        title.current!.focus();
    }, [run]);

    return (
        <>
            <h3 ref={title} tabIndex={-1}>
                {run.count === 0 ? "Nobody would be told" : `${counted(run.count, "machine")} would be told`}
            </h3>
            <p class="problem" role="alert">{now.notice}</p>
            {run.count === 0 && <p>Nobody who is connected matches, so there is nothing to order.</p>}
            {run.waves.map((wave, i) => <WouldBe key={i} number={i + 1} wave={wave} />)}
            {run.count > 0 && <>
                <p>Grace {now.request.grace}, hold {now.request.hold === "0s" ? "none" : now.request.hold}.</p>
                <div class="field">
                    <label for="typed">Type the number to confirm</label>
                    <input id="typed" type="text" inputMode="numeric" autocomplete="off" value={typed.value}
                           aria-describedby="typed-hint"
                           onInput={(event) => { typed.value = event.currentTarget.value; }} />
                    <p class="hint" id="typed-hint">
                        Type {run.count} to shut down {counted(run.count, "machine")}. It cannot be taken back.
                    </p>
                </div>
            </>}
            <div class="actions">
                {run.count > 0 && <button type="button" class="danger"
                    disabled={now.busy || !isConfirmed(typed.value, run)} onClick={() => void give(typed.value)}>
                    Shut down {counted(run.count, "machine")}
                </button>}
                <button type="button" disabled={now.busy} onClick={onBack}>Back</button>
                <button type="button" class="last" disabled={now.busy} onClick={onClose}>Close</button>
            </div>
        </>
    );
}

function WouldBe({ number, wave }: { number: number; wave: DryRun["waves"][number] }) {
    const shown = wave.clients.slice(0, MACHINES_SHOWN);
    const name = `Wave ${number}, ${wave.match.join(", ")}`;

    return (
        <div class="would-be">
            <h4>{name}: {counted(wave.count, "machine")}</h4>
            {shown.length > 0 && <ul tabIndex={0} aria-label={`Machines of wave ${number}`}>
                {shown.map((cid) => <li key={cid}>{cid}</li>)}
            </ul>}
            {wave.count > shown.length && <p class="hint">
                The first {count(shown.length)} are listed, {count(wave.count - shown.length)} are not.
            </p>}
        </div>
    );
}

function Unknown({ why }: { why: string }) {
    return (
        <div role="alert">
            <h3>It is not known whether the order was given</h3>
            <p>
                It was sent, and no answer came: {why}. The server is being asked what it knows; do not order
                anything again before it has answered.
            </p>
        </div>
    );
}
