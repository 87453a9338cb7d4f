// What one reads on the tab.
import { effect } from "@preact/signals";

import { count } from "../lib/format";
import { access } from "./access";
import { connection, status } from "./monitor";
import { isUnderWay } from "./order";

export function keepTitle(): void {
    effect(() => { document.title = title(); });
}

function title(): string {
    if (access.value.kind !== "open" || !status.value)
        return "cliser";
    if (connection.value.kind === "away")
        return "Away · cliser";
    if (isUnderWay.value)
        return "Shutdown running · cliser";
    return `${count(status.value.connected)} connected · cliser`;
}
