// The programs that the tests start: cliserd, agents, and crowds of clients from cliser-stress.
// Each test has a folder of its own, and all that it has started is ended with it.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join, resolve } from "node:path";

import { ROOT } from "./packages.mjs";
import { limitMs, until } from "./wait.mjs";

const BIN = resolve(process.env.CLISER_BIN ?? join(ROOT, "build/release/bin"));

const PASSWORD = "secret";
export const TOKEN = "correct-horse-battery-staple";

// What a machine does that goes down when it is told to, and what one does that stays.
export const GOES = "sleep 0.3; kill $PPID";
export const STAYS = "true";

const STOP_S = 15;

class Program {
    constructor(name, args, folder) {
        this.name = name;
        this.lines = [];
        this.partial = "";
        // A test run that is killed must not leave programs behind.
        this.process = spawn("setpriv", ["--pdeathsig", "KILL", "--", join(BIN, name), ...args],
            { cwd: folder, stdio: ["ignore", "ignore", "pipe"] });
        this.process.stderr.setEncoding("utf8").on("data", (piece) => this.read(piece));
        // Not until its stderr is closed, which a command of an agent may hold open for longer.
        this.ended = once(this.process, "exit");
    }

    get pid() {
        return this.process.pid;
    }

    get isRunning() {
        return this.process.exitCode === null && this.process.signalCode === null;
    }

    read(piece) {
        const lines = (this.partial + piece).split("\n");

        this.partial = lines.pop();
        this.lines.push(...lines);
    }

    find(pattern, from = 0) {
        for (const line of this.lines.slice(from)) {
            const found = pattern.exec(line);
            if (found)
                return found;
        }
        return null;
    }

    /** Waits for such a line in its log, and returns the match. */
    waitLog(pattern, { from = 0, seconds = 15 } = {}) {
        return until(() => {
            const found = this.find(pattern, from);
            assert.ok(found || this.isRunning, `${this.name} ended, no line like ${pattern}`);
            return found;
        }, `a line like ${pattern} from ${this.name}`, seconds);
    }

    signal(name) {
        this.process.kill(name);
    }

    /** Ends it, if it still runs; one that does not end is killed, and that is an error. */
    async stop(signal = "SIGTERM") {
        if (!this.isRunning)
            return;
        this.signal("SIGCONT");
        this.signal(signal);
        const late = setTimeout(() => this.signal("SIGKILL"), limitMs(STOP_S));
        await this.ended;
        clearTimeout(late);
        assert.ok(signal === "SIGKILL" || this.process.signalCode !== "SIGKILL",
            `${this.name} did not end by ${signal}`);
    }
}

export class Server extends Program {
    /** A port that is 0 is any that is free. */
    constructor(folder, { listen = 0, http = 0, keepalive = "1s" } = {}) {
        writeSecret(join(folder, "token"), TOKEN);
        writeFileSync(join(folder, "cliser.ini"), iniOf({ listen, http, keepalive }),
            { mode: 0o600 });
        super("cliserd", ["cliser.ini"], folder);
        this.folder = folder;
        this.options = { listen, http, keepalive };
    }

    async ready() {
        await this.waitLog(/^ready: /);
        this.port = Number(this.find(/^ready: 127\.0\.0\.1:(\d+)/)[1]);
        this.http = Number(this.find(/ control .*http=127\.0\.0\.1:(\d+)/)[1]);
        return this;
    }

    get origin() {
        return `http://127.0.0.1:${this.http}`;
    }

    /** Another process in the place of this one, which has ended: same folder, same ports. */
    async successor() {
        assert.ok(!this.isRunning, "the server still runs");
        const next = new Server(this.folder,
            { ...this.options, listen: this.port, http: this.http });
        return await next.ready();
    }

    /** The file has another token now, and the server reads it. */
    async changeToken(token) {
        const from = this.lines.length;

        writeSecret(join(this.folder, "token"), token);
        this.signal("SIGHUP");
        await this.waitLog(/ reloaded\b/, { from });
    }

    /** Asks the control API, as another operator: {status, body}. */
    async ask(method, path, body) {
        const answer = await this.fetch(method, path, body);

        return { status: answer.status, body: await answer.json() };
    }

    /** The value of a metric, by its name with its labels as they are printed. */
    async metric(series) {
        const text = await (await this.fetch("GET", "/metrics")).text();
        const line = text.split("\n").find((line) => line.startsWith(`${series} `));

        return Number(line?.slice(series.length + 1));
    }

    fetch(method, path, body) {
        return fetch(this.origin + path, {
            method,
            headers: {
                "Authorization": `Bearer ${TOKEN}`,
                ...(method === "GET" ? {} : { "Content-Type": "application/json" }),
            },
            ...(body === undefined ? {} : { body: JSON.stringify(body) }),
        });
    }

    /** How many orders were ever given. */
    async orderCount() {
        const { body } = await this.ask("GET", "/v1/shutdown");

        return body.id ?? 0;
    }
}

function iniOf({ listen, http, keepalive }) {
    return [
        "[server]", `listen = 127.0.0.1:${listen}`,
        "[auth]", `password = ${PASSWORD}`,
        "[control]", "socket = control.sock", `http = 127.0.0.1:${http}`, "token_file = token",
        "[keepalive]", `interval = ${keepalive}`,
        "[limits]", "auth_failures = 0",
        "[registry]", "path = cliser.db", "",
    ].join("\n");
}

export class Agent extends Program {
    constructor(server, id, onShutdown = STAYS) {
        writeSecret(join(server.folder, "password"), PASSWORD);
        super("cliser-agent", ["--server", `127.0.0.1:${server.port}`, "--id", id,
            "--password-file", "password", "--on-shutdown", onShutdown], server.folder);
        this.id = id;
    }

    get wasTold() {
        return this.find(/ shutdown_ordered /) !== null;
    }

    /** When it logged this event, in Unix milliseconds. */
    async loggedMs(event) {
        const [, time] = await this.waitLog(new RegExp(`^(\\S+) \\w+ ${event}\\b`));

        return Date.parse(time);
    }
}

/** Many clients for a while, that come and go together. */
export class Crowd extends Program {
    constructor(server, count, { prefix = "crowd-", hold = "10m" } = {}) {
        super("cliser-stress", ["--server", `127.0.0.1:${server.port}`, "--clients", String(count),
            "--password", PASSWORD, "--id-prefix", prefix, "--hold", hold], server.folder);
    }
}

function writeSecret(path, text) {
    writeFileSync(path, `${text}\n`, { mode: 0o600 });
}

/** Puts clients into the registry of a server that does not run. */
export function writeRows(folder, clients) {
    const values = clients.map((c) =>
        `(${c.sid}, '${c.cid}', '${c.cip}', ${c.cport}, 0, ${c.since}, ${c.last_seen}, ` +
        `${c.rtt_ms ?? "NULL"}, '${c.reason}', 'vm', 'auth')`);

    execFileSync("sqlite3", [join(folder, "cliser.db")],
        { input: `BEGIN; INSERT INTO clients VALUES ${values.join(",\n")}; COMMIT;` });
}

/** So many connections that are refused for a wrong password. */
export async function refuse(server, count) {
    for (let i = 0; i < count; i++) {
        const socket = connect(server.port, "127.0.0.1");
        socket.end("wrong\n");
        socket.resume();
        await once(socket, "close");
    }
}
