// What a test works with: a server in a folder of its own, its agents, and the page open in a
// browser. Everything ends with the test; what may explain a failure is kept.
import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { Watched } from "./browser.mjs";
import { KEPT } from "./packages.mjs";
import { Agent, Crowd, Server, writeRows } from "./programs.mjs";
import { View } from "./view.mjs";
import { limitMs, until } from "./wait.mjs";

const LOG_LINES = 60;

// Everything that a test waits for has a deadline of its own; this one is for what we forgot.
const TIMEOUT_S = 120;

/**
 * A test with a bench. options: what the server is started with, which clients are in its registry
 * (rows), and what may go wrong in the browser (allowed).
 */
export function pageTest(name, options, body) {
    test(name, { timeout: limitMs(TIMEOUT_S) }, async (t) => {
        const bench = new Bench(t);
        try {
            await bench.keepIfItFails(name, async () => {
                await bench.startServer(options);
                await body(bench);
                bench.check();
            });
        } finally {
            await bench.close();
        }
    });
}

export class Bench {
    /** t: the test that it is for; there is none where a script wants a bench. */
    constructor(t = null) {
        this.t = t;
        this.folder = mkdtempSync(join(tmpdir(), "cliser-page-"));
        this.programs = [];
        this.contexts = [];
        this.views = [];
        this.allowed = {};
    }

    async startServer({ rows, allowed = {}, ...options } = {}) {
        this.allowed = allowed;
        if (rows) {
            // Its tables are its own to make.
            await this.stopAfter(new Server(this.folder, options));
            writeRows(this.folder, rows);
        }
        this.server = this.add(new Server(this.folder, options));
        await this.server.ready();
    }

    async stopAfter(server) {
        this.add(server);
        await server.ready();
        await server.stop();
    }

    /** Once the server has ended: another one in its place. */
    async startAgain() {
        this.server = this.add(await this.server.successor());
    }

    add(program) {
        this.programs.push(program);
        return program;
    }

    /** A machine that is connected when this returns. */
    async agent(id, onShutdown) {
        const agent = this.startAgent(id, onShutdown);

        await agent.waitLog(/ connected /);
        return agent;
    }

    startAgent(id, onShutdown) {
        return this.add(new Agent(this.server, id, onShutdown));
    }

    async crowd(count, options) {
        this.startCrowd(count, options);
        await until(async () => {
            const { body } = await this.server.ask("GET", "/v1/status");
            return body.connected >= count;
        }, `${count} clients to connect`, 30);
    }

    startCrowd(count, options) {
        return this.add(new Crowd(this.server, count, options));
    }

    /** A page of a browser that has never been here, which asks for the token. */
    async visit(options) {
        const watched = await Watched.open(this.server.origin, this.allowed, options);
        const view = new View(await watched.context.newPage(), watched);

        this.contexts.push(watched);
        this.views.push(view);
        await view.page.goto(this.server.origin);
        return view;
    }

    /** The same, with the token typed and everything there. */
    async open(options) {
        const view = await this.visit(options);

        await view.enter();
        return view;
    }

    check() {
        for (const watched of this.contexts)
            watched.check();
    }

    /** A part of the test, which is reported by itself; the next ones go on when it fails. */
    async part(name, body) {
        await this.t.test(name, () => this.keepIfItFails(name, body));
    }

    /** Something to be read in the report, such as a time. */
    note(text) {
        this.t.diagnostic(text);
    }

    async keepIfItFails(name, body) {
        try {
            await body();
        } catch (error) {
            await this.keep(name);
            throw error;
        }
    }

    /** Of a test that failed: how the pages look, and what the programs said last. */
    async keep(name) {
        const base = join(KEPT, name.replaceAll(/\W+/g, "-"));

        mkdirSync(KEPT, { recursive: true });
        for (const [i, view] of this.views.entries()) {
            const path = `${base}-${i + 1}.png`;
            await view.page.screenshot({ path, fullPage: true }).then(
                () => this.note(`how the page looks: ${path}`),
                (error) => this.note(`the page cannot be shown: ${error.message}`));
        }
        for (const watched of this.contexts)
            watched.complaints.forEach((complaint) => this.note(complaint));
        for (const program of this.programs) {
            this.note(`the last words of ${program.name}, pid ${program.pid}:`);
            program.lines.slice(-LOG_LINES).forEach((line) => this.note(`    ${line}`));
        }
    }

    /** Clients first, so that none of them sees its server go. */
    async close() {
        const isServer = (program) => program instanceof Server;
        const results = [];

        for (const watched of this.contexts)
            results.push(await Promise.allSettled([watched.context.close()]));
        results.push(await stopAll(this.programs.filter((program) => !isServer(program))));
        results.push(await stopAll(this.programs.filter(isServer)));
        rmSync(this.folder, { recursive: true, force: true });
        for (const result of results.flat())
            assert.equal(result.status, "fulfilled", result.reason);
        this.checkServers();
    }

    checkServers() {
        for (const { process } of this.programs.filter((program) => program instanceof Server))
            assert.ok(process.exitCode === 0 || process.signalCode === "SIGKILL",
                `cliserd ended with ${process.exitCode ?? process.signalCode}`);
    }
}

function stopAll(programs) {
    return Promise.allSettled(programs.map((program) => program.stop()));
}
