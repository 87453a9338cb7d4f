// One client: all that is known of it, and what can be done with it.
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";

import { Failure, getJson, messageOf } from "../lib/api";
import type { ServerEvent } from "../lib/events";
import { milliseconds, NOTHING } from "../lib/format";
import { Poller } from "../lib/poller";
import type { Client } from "../lib/types";
import { reasonMeanings } from "../lib/words";
import { refreshFleet } from "../state/fleet";
import { onEvents, stale } from "../state/monitor";
import { Dialog } from "./dialog";
import { StatusWord } from "./fleet";
import { AsOf } from "./header";
import { At, Since } from "./when";

interface ClientDialogProps {
    cid: string;
    onClose: () => void;
}

type Action = "disconnect" | "forget";

const REFRESH_MS = 2000;
const GAP_MS = 300;

// The server gives a client five seconds to answer a ping.
const PING_TIMEOUT_MS = 8000;

export function ClientDialog({ cid, onClose }: ClientDialogProps) {
    const client = useSignal<Client | null>(null);
    const isGone = useSignal(false);
    const asked = useSignal<Action | null>(null);
    const said = useSignal("");
    const busy = useSignal(false);
    // Without the "=" a browser would take an ID of dots alone for the way up.
    const path = `/v1/clients/=${encodeURIComponent(cid)}`;

    async function refresh(): Promise<void> {
        try {
            client.value = await getJson<Client>(path);
            isGone.value = false;
        } catch (error) {
            isGone.value = error instanceof Failure && error.status === 404;
        }
    }

    useEffect(() => {
        const poller = new Poller({ task: refresh, intervalMs: () => REFRESH_MS, gapMs: () => GAP_MS });
        const forget = onEvents((events) => {
            if (events.some((event) => isAbout(event, cid)))
                poller.soon();
        });

        poller.start();
        return () => {
            poller.stop();
            forget();
        };
    }, [cid]);

    /** Shows what came of it in words, whatever that is. */
    async function attempt(words: string, task: () => Promise<string>): Promise<void> {
        if (busy.value)
            return;
        busy.value = true;
        said.value = words;
        try {
            said.value = await task();
        } catch (error) {
            said.value = `Not done: ${messageOf(error)}.`;
        }
        busy.value = false;
    }

    function ping(): Promise<void> {
        return attempt("Asking…", async () => {
            const answer = await getJson<{ rtt_ms: number }>(`${path}/ping`,
                { method: "POST", timeoutMs: PING_TIMEOUT_MS });
            return `It answered in ${milliseconds(answer.rtt_ms)}.`;
        });
    }

    async function carryOut(action: Action): Promise<void> {
        asked.value = null;
        if (action === "disconnect")
            await attempt("Disconnecting…", async () => {
                await getJson(`${path}/disconnect`, { method: "POST" });
                return "It was disconnected.";
            });
        else
            await attempt("Forgetting…", async () => {
                await getJson(path, { method: "DELETE" });
                return "It was forgotten.";
            });
        await refresh();
        refreshFleet();
    }

    const isConnected = client.value?.cstatus ?? false;

    return (
        <Dialog titleId="client-title" class="client" onClose={onClose}>
            <h2 id="client-title">{cid}</h2>
            <AsOf />
            {isGone.value && <p>The server does not know this client.</p>}
            {client.value && !isGone.value && <Fields client={client.value} />}
            <p class="outcome" aria-live="polite">{said.value}</p>
            {asked.value !== null &&
                <Question action={asked.value} cid={cid} onYes={carryOut} onNo={() => { asked.value = null; }} />}
            <div class="actions">
                {asked.value === null && client.value && !isGone.value && <>
                    <button type="button" aria-disabled={!isConnected || busy.value}
                            onClick={() => { if (isConnected) void ping(); }}>Ping</button>
                    <button type="button" aria-disabled={!isConnected || busy.value}
                            onClick={() => { if (isConnected) asked.value = "disconnect"; }}>Disconnect</button>
                    <button type="button" aria-disabled={isConnected || stale.value || busy.value}
                            onClick={() => { if (!isConnected) asked.value = "forget"; }}>Forget</button>
                </>}
                <button type="button" class="last" onClick={onClose}>Close</button>
            </div>
        </Dialog>
    );
}

function isAbout(event: ServerEvent, cid: string): boolean {
    return event.name === "missed" || event.data.includes(JSON.stringify(cid));
}

interface QuestionProps {
    action: Action;
    cid: string;
    onYes: (action: Action) => Promise<void>;
    onNo: () => void;
}

function Question({ action, cid, onYes, onNo }: QuestionProps) {
    const words = action === "disconnect"
        ? `End the session of ${cid}? It comes back by itself after its long pause, a minute or ` +
          "a little more."
        : `Forget ${cid}? Its record is removed and its number becomes free. If the machine comes ` +
          "back, it is a new one.";

    return (
        <div class="question" role="group" aria-label="Please confirm">
            <p>{words}</p>
            <div class="actions">
                <button type="button" class="danger" onClick={() => void onYes(action)}>
                    {action === "disconnect" ? "Yes, end it" : "Yes, remove it"}
                </button>
                <button type="button" ref={(button) => button?.focus()} onClick={onNo}>No</button>
            </div>
        </div>
    );
}

function Fields({ client }: { client: Client }) {
    const reason = client.reason === "" ? "never" : client.reason;
    const meaning = reasonMeanings[client.reason];

    return (
        <dl class="fields">
            <dt>Status</dt>
            <dd><StatusWord isConnected={client.cstatus} /> for <Since time={client.since} /></dd>
            <dt>Since</dt>
            <dd><At time={client.since} /></dd>
            <dt>Last heard</dt>
            <dd><At time={client.last_seen} />, <Since time={client.last_seen} /> ago</dd>
            <dt>Address</dt>
            <dd>{client.cip}, port {client.cport}</dd>
            <dt>Round trip</dt>
            <dd>{client.rtt_ms === null ? NOTHING : milliseconds(client.rtt_ms)}</dd>
            <dt>Last disconnected</dt>
            <dd>{reason}{meaning && `: ${meaning}`}</dd>
            <dt>sid</dt>
            <dd>{client.sid}</dd>
            <dt>Credential</dt>
            <dd>{client.credential === "" ? "not known" : client.credential}</dd>
            <dt>Node</dt>
            <dd>{client.node}</dd>
        </dl>
    );
}
