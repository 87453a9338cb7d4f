// The page as a whole: who may see it, what stands where, and which dialog is open.
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";

import { access } from "../state/access";
import { startFleet, stopFleet } from "../state/fleet";
import { beginGiving } from "../state/giving";
import { stale, startMonitor, stopMonitor } from "../state/monitor";
import { forgetOrder } from "../state/order";
import { ClientDialog } from "./client_dialog";
import { Fleet } from "./fleet";
import { Header } from "./header";
import { Now } from "./now";
import { CancelDialog, OrderBand, OrderNews, OrderSection } from "./order";
import { OverTime } from "./over_time";
import { ShutdownDialog } from "./shutdown_dialog";
import { TokenForm } from "./token_form";

type Open = { dialog: "none" } | { dialog: "shutdown" } | { dialog: "cancel" } | { dialog: "client"; cid: string };

export function App() {
    const now = access.value;
    switch (now.kind) {
    case "checking":
        return <Checking trouble={now.trouble} />;
    case "asking":
        return <><TokenForm state={now} /><Footer /></>;
    case "open":
        return <Board />;
    }
}

function Checking({ trouble }: { trouble: string | null }) {
    return (
        <main class="entrance">
            <h1>cliser</h1>
            <p role="status">
                {trouble === null ? "Connecting" : `Server away: ${trouble}. It is tried again and again.`}
            </p>
        </main>
    );
}

function Board() {
    const open = useSignal<Open>({ dialog: "none" });
    const close = (): void => { open.value = { dialog: "none" }; };
    const cancel = (): void => { open.value = { dialog: "cancel" }; };
    const shutDown = (): void => {
        beginGiving();
        open.value = { dialog: "shutdown" };
    };

    useEffect(() => {
        startMonitor();
        startFleet();
        return () => {
            stopMonitor();
            stopFleet();
            forgetOrder();
        };
    }, []);

    return (
        <div class={stale.value ? "board stale" : "board"}>
            <div class="top">
                <OrderBand onCancel={cancel} />
                <Header onShutDown={shutDown} />
            </div>
            <main>
                <OrderNews />
                <Now />
                <OrderSection onCancel={cancel} />
                <OverTime />
                <Fleet onOpen={(cid) => { open.value = { dialog: "client", cid }; }} />
            </main>
            <Footer />
            {open.value.dialog === "shutdown" && <ShutdownDialog onClose={close} />}
            {open.value.dialog === "cancel" && <CancelDialog onClose={close} />}
            {open.value.dialog === "client" && <ClientDialog cid={open.value.cid} onClose={close} />}
        </div>
    );
}

function Footer() {
    return <footer><a href="/licences.txt">Licences of what this page is made with</a></footer>;
}
