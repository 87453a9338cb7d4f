// The page of the table of clients that is shown: which one it is, and how it is kept up to date.
import { batch, computed, effect, signal } from "@preact/signals";

import { Failure, getJson } from "../lib/api";
import type { ServerEvent } from "../lib/events";
import { globOfSearch, matcherOf } from "../lib/glob";
import { Poller } from "../lib/poller";
import type { Client, ClientPage } from "../lib/types";
import { onEvents, status } from "./monitor";

export type StatusFilter = "all" | "connected" | "disconnected";
export type SortKey = "cid" | "sid" | "since" | "rtt_ms";

export interface Sort {
    key: SortKey;
    descending: boolean;
}

export const PAGE_SIZE = 100;

const REFRESH_MS = 5000;
const EVENT_GAP_MS = 800;
const TYPING_MS = 200;

// The share of the time that may be spent on the list: a server that is slow with it is asked less.
const SPARE = 10;

export const searchText = signal("");
export const statusFilter = signal<StatusFilter>("all");
export const sort = signal<Sort>({ key: "cid", descending: false });

export const rows = signal<Client[] | null>(null);
export const listError = signal<string | null>(null);
/** Where each page up to this one begins; the first one at the beginning. */
export const cursors = signal<(string | null)[]>([null]);
export const next = signal<string | null>(null);

/** The page that was asked for last is not here yet. */
export const isTurning = signal(false);

/** How many there are in all, where the server says so: it counts no searches. */
export const total = computed((): number | null => {
    const now = status.value;

    if (!now || glob.value !== "")
        return null;
    if (statusFilter.value === "all")
        return now.registered;
    return statusFilter.value === "connected" ? now.connected : now.registered - now.connected;
});

/** What is searched for, which follows what is typed. */
const glob = signal("");

let typing: ReturnType<typeof setTimeout> | undefined;
let lastTookMs = 0;
let question = 0;

const poller = new Poller({
    task: load,
    intervalMs: () => Math.max(REFRESH_MS, SPARE * lastTookMs),
    gapMs: () => Math.max(EVENT_GAP_MS, SPARE * lastTookMs),
});

export function watchFleet(): void {
    onEvents(hear);
    document.addEventListener("visibilitychange", () => {
        if (document.hidden)
            poller.stop();
        else if (isWanted)
            poller.start();
    });
    effect(() => {
        const text = searchText.value;
        clearTimeout(typing);
        typing = setTimeout(() => { glob.value = globOfSearch(text); }, TYPING_MS);
    });
    // Another question begins at its first page.
    effect(() => {
        void [glob.value, statusFilter.value, sort.value];
        turnTo([null]);
    });
}

let isWanted = false;

export function startFleet(): void {
    isWanted = true;
    if (!document.hidden)
        poller.start();
}

export function stopFleet(): void {
    isWanted = false;
    poller.stop();
    question++;
    batch(() => {
        rows.value = null;
        next.value = null;
        cursors.value = [null];
        listError.value = null;
    });
}

export function nextPage(): void {
    if (next.value !== null)
        turnTo([...cursors.value, next.value]);
}

export function previousPage(): void {
    if (cursors.value.length > 1)
        turnTo(cursors.value.slice(0, -1));
}

export function refreshFleet(): void {
    poller.now();
}

/** The first click sorts as one mostly wants it: newest, slowest, and by name from the beginning. */
export function sortBy(key: SortKey): void {
    const now = sort.value;
    const first = key === "since" || key === "rtt_ms";

    sort.value = { key, descending: now.key === key ? !now.descending : first };
}

function turnTo(pages: (string | null)[]): void {
    question++;
    batch(() => {
        cursors.value = pages;
        next.value = null;
        isTurning.value = true;
    });
    poller.now();
}

async function load(): Promise<void> {
    const asked = question;
    const beganMs = performance.now();

    try {
        const page = await getJson<ClientPage>(`/v1/clients?${parameters()}`);
        if (asked === question)
            show(page);
    } catch (error) {
        // When the server is away the page as a whole says so.
        if (asked === question && error instanceof Failure && error.kind === "refused")
            refuse(error.message);
    }
    lastTookMs = performance.now() - beganMs;
}

function parameters(): URLSearchParams {
    const asked = new URLSearchParams({ limit: String(PAGE_SIZE) });
    const { key, descending } = sort.value;
    const after = cursors.value.at(-1);

    if (glob.value !== "")
        asked.set("match", glob.value);
    if (statusFilter.value !== "all")
        asked.set("status", statusFilter.value);
    if (key !== "cid" || descending)
        asked.set("sort", (descending ? "-" : "") + key);
    if (after)
        asked.set("after", after);
    return asked;
}

function show(page: ClientPage): void {
    // All that was on this page is gone meanwhile.
    if (page.clients.length === 0 && cursors.value.length > 1) {
        turnTo(cursors.value.slice(0, -1));
        return;
    }
    batch(() => {
        rows.value = page.clients;
        next.value = page.next;
        listError.value = null;
        isTurning.value = false;
    });
}

function refuse(message: string): void {
    batch(() => {
        listError.value = message;
        rows.value = [];
        isTurning.value = false;
    });
}

interface Change {
    time: number;
    cid: string;
    sid: number;
    cip: string;
    cport: number;
    reason?: string;
    credential?: string;
}

/** Rows that are shown change at once. Whether others come or go, only the server can tell. */
function hear(events: ServerEvent[]): void {
    const changes = new Map<string, Change>();

    if (!rows.value)
        return;
    for (const event of events) {
        if (event.name === "connected" || event.name === "disconnected") {
            const change = JSON.parse(event.data) as Change;
            changes.set(change.cid, change);
        }
    }
    if (changes.size > 0 && rows.value.some((row) => changes.has(row.cid)))
        rows.value = rows.value.map((row) => changed(row, changes.get(row.cid)));
    const concerns = concernOf(rows.value);
    if ([...changes.keys()].some(concerns) || events.some((event) => event.name === "missed"))
        poller.soon();
}

/** Only a disconnection has a reason. */
export function changed(row: Client, change: Change | undefined): Client {
    if (!change)
        return row;
    const isConnected = change.reason === undefined;

    return {
        ...row,
        sid: change.sid,
        cip: change.cip,
        cport: change.cport,
        cstatus: isConnected,
        since: Math.floor(change.time),
        last_seen: Math.floor(change.time),
        rtt_ms: isConnected ? null : row.rtt_ms,
        reason: change.reason ?? row.reason,
        credential: change.credential ?? row.credential,
    };
}

/**
 * Whether what happens to an ID may change who is on this page. In the order of IDs a full page
 * has its place, and the first one reaches to the beginning.
 */
function concernOf(shown: Client[]): (cid: string) => boolean {
    const matches = matcherOf(glob.value);
    const { key, descending } = sort.value;
    const isFirst = cursors.value.length === 1;
    const ends = [shown[0]?.cid ?? "", shown.at(-1)?.cid ?? ""].sort() as [string, string];

    if (key !== "cid" || shown.length < PAGE_SIZE)
        return matches;
    return (cid) => matches(cid) &&
        (cid >= ends[0] || isFirst && !descending) && (cid <= ends[1] || isFirst && descending);
}
