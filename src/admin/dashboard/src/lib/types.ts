// What the control API answers, as docs/control.md has it.

export interface Client {
    sid: number;
    cid: string;
    cip: string;
    cport: number;
    cstatus: boolean;
    since: number;
    last_seen: number;
    rtt_ms: number | null;
    reason: string;
    node: string;
    credential: string;
}

export interface ClientPage {
    clients: Client[];
    next: string | null;
}

export type OrderState = "none" | "running" | "holding" | "done" | "cancelled" | "expired";

export interface Status {
    version: string;
    node: string;
    uptime_s: number;
    ready: boolean;
    connected: number;
    registered: number;
    pending: number;
    max_clients: number;
    penalised_sources: number;
    store: { kind: string; healthy: boolean };
    keepalive: { interval_s: number; misses: number; dead_client_max_s: number };
    shutdown: OrderState;
}

export interface OrderNumbers {
    targets: number;
    pending: number;
    told: number;
    acknowledged: number;
    gone: number;
    still_up: number;
    not_connected: number;
    late: number;
}

export interface OrderWave extends OrderNumbers {
    match: string[];
    state: "pending" | "running" | "done" | "cancelled";
    started: number | null;
    ended: number | null;
}

export interface Order {
    id: number;
    state: Exclude<OrderState, "none">;
    by: string;
    created: number;
    ended: number | null;
    durable: boolean;
    grace: string;
    hold: string;
    hold_until: number | null;
    wave: number;
    waves: OrderWave[];
    totals: OrderNumbers;
}

export interface Target {
    cid: string;
    wave: number;
    state: string;
}

export interface TargetPage {
    targets: Target[];
    next: string | null;
}

export interface OrderRequest {
    waves: string[][];
    grace: string;
    hold: string;
}

export interface DryRun {
    dry_run: true;
    waves: { match: string[]; clients: string[]; count: number }[];
    count: number;
}
