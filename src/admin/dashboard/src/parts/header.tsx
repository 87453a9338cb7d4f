// What is always in sight: how the connection is, and the two things one may want at any time.
import { duration, timeOfDay } from "../lib/format";
import { access, lock } from "../state/access";
import { ageMs, connection, goodMs, stale, status } from "../state/monitor";

export function Header({ onShutDown }: { onShutDown: () => void }) {
    const { value } = access;

    return (
        <header>
            <div class="bar">
                <h1>cliser</h1>
                <p role="status" class={`connection ${connection.value.kind}`}><ConnectionText /></p>
                <div class="actions">
                    <button type="button" onClick={onShutDown}>Shut down machines…</button>
                    {value.kind === "open" && value.hasToken &&
                        <button type="button" onClick={lock}>Lock</button>}
                </div>
            </div>
            <StaleBand />
        </header>
    );
}

/** What ticks is not read out each second: it is no news. */
function ConnectionText() {
    const now = connection.value;
    const server = status.value;
    const age = goodMs.value === null ? "" : `, what you see is ${duration(ageMs.value / 1000)} old`;

    switch (now.kind) {
    case "connecting":
        return <>Connecting</>;
    case "live":
        return (
            <>
                <strong>Live</strong>
                {server && <span class="aside">: {server.node}, cliserd {server.version}</span>}
                {server && <span class="aside" aria-live="off">, up {duration(server.uptime_s)}</span>}
                {now.note && `, ${now.note}`}
            </>
        );
    case "reconnecting":
        return (
            <>
                <strong>Reconnecting</strong><span aria-live="off">{age}</span>
                <span class="aside" aria-live="off"> ({now.why})</span>
            </>
        );
    case "away":
        return (
            <>
                <strong>Server away</strong> since {timeOfDay(now.sinceMs / 1000)}
                <span aria-live="off">{age}</span>
            </>
        );
    }
}

function StaleBand() {
    if (!stale.value || goodMs.value === null)
        return null;
    return (
        <p class="band stale-band">
            <strong>Not live.</strong> All that you see is as of {timeOfDay(goodMs.value / 1000)},{" "}
            {duration(ageMs.value / 1000)} ago.
        </p>
    );
}

/** Beside numbers that may be true no longer. */
export function AsOf() {
    if (!stale.value || goodMs.value === null)
        return null;
    return <span class="as-of">as of {timeOfDay(goodMs.value / 1000)}</span>;
}
