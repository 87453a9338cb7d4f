// The table of clients.
import type { ComponentChildren } from "preact";

import { count, counted, milliseconds } from "../lib/format";
import type { Client } from "../lib/types";
import { reasonMeanings } from "../lib/words";
import {
    cursors, isTurning, listError, next, nextPage, PAGE_SIZE, previousPage, rows, searchText, sort,
    sortBy, statusFilter, total, type SortKey, type StatusFilter,
} from "../state/fleet";
import { AsOf } from "./header";
import { Since } from "./when";

interface FleetProps {
    onOpen: (cid: string) => void;
}

export function Fleet({ onOpen }: FleetProps) {
    return (
        <section aria-labelledby="fleet-title" class="fleet">
            <h2 id="fleet-title">Fleet <AsOf /></h2>
            <Filters />
            <Clients onOpen={onOpen} />
            <Nobody />
            <Pager />
        </section>
    );
}

function Filters() {
    return (
        <search class="filters">
            <div class="field wide">
                <label for="search">Search by ID</label>
                <input id="search" type="search" maxLength={126} autocomplete="off" spellcheck={false}
                       aria-describedby="search-hint" value={searchText.value}
                       onInput={(event) => { searchText.value = event.currentTarget.value; }} />
                <p id="search-hint" class="hint">
                    A part of the ID, or a pattern for all of it: * any text, ? one character, [a-c] one of these.
                </p>
            </div>
            <div class="field">
                <label for="status-filter">Status</label>
                <select id="status-filter" value={statusFilter.value}
                        onChange={(event) => { statusFilter.value = event.currentTarget.value as StatusFilter; }}>
                    <option value="all">All</option>
                    <option value="connected">Connected</option>
                    <option value="disconnected">Disconnected</option>
                </select>
            </div>
            <NarrowSort />
        </search>
    );
}

const orders: [string, string][] = [
    ["cid", "ID"], ["-since", "Newest change"], ["since", "Oldest change"],
    ["-rtt_ms", "Slowest"], ["rtt_ms", "Fastest"], ["sid", "Number"],
];

/** Where the table has no room for all columns, and so not for their headers. */
function NarrowSort() {
    const { key, descending } = sort.value;

    function choose(text: string): void {
        sort.value = { key: text.replace("-", "") as SortKey, descending: text.startsWith("-") };
    }

    return (
        <div class="field narrow-only">
            <label for="order-of-list">Sort by</label>
            <select id="order-of-list" value={(descending ? "-" : "") + key}
                    onChange={(event) => choose(event.currentTarget.value)}>
                {orders.map(([value, label]) => <option key={value} value={value}>{label}</option>)}
            </select>
        </div>
    );
}

function Clients({ onOpen }: FleetProps) {
    return (
        <table class="clients" aria-busy={isTurning.value}>
            <caption class="unseen">Clients</caption>
            <thead>
                <tr>
                    <SortHeader by="cid">ID</SortHeader>
                    <th scope="col">Status</th>
                    <SortHeader by="since">Since</SortHeader>
                    <th scope="col" class="roomy">Address</th>
                    <SortHeader by="rtt_ms" class="roomy" isNumber>Round trip</SortHeader>
                    <SortHeader by="sid" class="roomy" isNumber>sid</SortHeader>
                    <th scope="col" class="roomy">Reason</th>
                </tr>
            </thead>
            <tbody>
                {rows.value?.map((client) => <Row key={client.cid} client={client} onOpen={onOpen} />)}
            </tbody>
        </table>
    );
}

/** Why the table is empty, when it is. */
function Nobody() {
    const isAnyoneExcluded = searchText.value.trim() !== "" || statusFilter.value !== "all";

    if (listError.value !== null)
        return <p class="problem" role="alert">{listError.value}</p>;
    if (rows.value === null)
        return <p class="empty">The list has not come yet.</p>;
    if (rows.value.length > 0)
        return null;
    return <p class="empty">{isAnyoneExcluded ? "No client is like that." : "No client is known yet."}</p>;
}

interface SortHeaderProps {
    by: SortKey;
    /** Of numbers, which end where the word does: the arrow is before it. */
    isNumber?: boolean;
    class?: string;
    children: ComponentChildren;
}

function SortHeader({ by, isNumber = false, class: name = "", children }: SortHeaderProps) {
    const { key, descending } = sort.value;
    const direction = key !== by ? "none" : descending ? "descending" : "ascending";
    const arrow = <span class="arrow" aria-hidden="true">{key !== by ? "" : descending ? "▼" : "▲"}</span>;

    return (
        <th scope="col" class={isNumber ? `${name} number` : name} aria-sort={direction}>
            <button type="button" class="plain" onClick={() => sortBy(by)}>
                {isNumber && arrow}{children}{!isNumber && arrow}
            </button>
        </th>
    );
}

function Row({ client, onOpen }: { client: Client; onOpen: (cid: string) => void }) {
    return (
        <tr class={client.cstatus ? "" : "off"}>
            <th scope="row">
                <button type="button" class="plain id" onClick={() => onOpen(client.cid)}>{client.cid}</button>
            </th>
            <td><StatusWord isConnected={client.cstatus} /></td>
            <td><Since time={client.since} /></td>
            <td class="roomy">{client.cip}</td>
            <td class="roomy number">{client.rtt_ms === null ? "" : milliseconds(client.rtt_ms)}</td>
            <td class="roomy number">{client.sid}</td>
            <td class="roomy" title={reasonMeanings[client.reason]}>{client.reason}</td>
        </tr>
    );
}

/** The mark differs in shape as well as in colour, and the word says it. */
export function StatusWord({ isConnected }: { isConnected: boolean }) {
    return (
        <span class={`status ${isConnected ? "on" : "off"}`}>
            <span class="mark" aria-hidden="true" />
            {isConnected ? "Connected" : "Disconnected"}
        </span>
    );
}

function Pager() {
    const mayGoOn = next.value !== null;

    return (
        <nav class="pager" aria-label="Pages of clients">
            <button type="button" aria-disabled={!mayGoBack()} onClick={previousPage}>Previous page</button>
            <p>{rangeText()}</p>
            <button type="button" aria-disabled={!mayGoOn} onClick={nextPage}>Next page</button>
        </nav>
    );
}

function mayGoBack(): boolean {
    return cursors.value.length > 1;
}

/** How many there are in all is said only where it is known. */
function rangeText(): string {
    const shown = rows.value?.length ?? 0;
    const first = (cursors.value.length - 1) * PAGE_SIZE + 1;
    const last = first + shown - 1;

    if (isTurning.value && rows.value !== null)
        return "…";
    if (shown === 0)
        return "";
    if (next.value === null)
        return mayGoBack() ? `${count(first)}–${count(last)}, the last ones` : counted(shown, "client");
    const range = `${count(first)}–${count(last)}`;
    return total.value === null ? `${range}, and more` : `${range} of ${count(total.value)} known`;
}
