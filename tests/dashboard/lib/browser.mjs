// One Chromium for all tests, and for each test a context of its own in it, which is watched: what
// the page complains of, or asks for elsewhere, fails the test that happens to see it.
import assert from "node:assert/strict";

import { inPageScript } from "./in_page.mjs";
import { chromium } from "./packages.mjs";
import { limitMs } from "./wait.mjs";

const CHROMIUM = "/usr/bin/chromium";

const PAGE_MAX = 100;

let running = null;

export async function browser() {
    running ??= await launch();
    return running;
}

export async function closeBrowser() {
    await running?.close();
    running = null;
}

async function launch() {
    try {
        return await chromium.launch({
            executablePath: CHROMIUM,
            // Chromium's sandbox does not work for root.
            chromiumSandbox: process.getuid() !== 0,
            // Nothing leaves this host, whatever a page may try.
            args: ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--disable-gpu"],
        });
    } catch (error) {
        throw new Error(`${CHROMIUM} cannot be run, so the page cannot be tested. On Debian, ` +
            `scripts/install-dependencies installs it.\n${error.message}`);
    }
}

// What Chromium itself writes about requests that fail.
const NO_ANSWER = new RegExp("^Failed to load resource: net::ERR_(CONNECTION_REFUSED|" +
    "CONNECTION_RESET|EMPTY_RESPONSE|INCOMPLETE_CHUNKED_ENCODING|SOCKET_NOT_CONNECTED|" +
    "INTERNET_DISCONNECTED|NETWORK_CHANGED)$");
const ERROR_STATUS = /^Failed to load resource: the server responded with a status of (\d+) /;


// The page asks without a token first, since a server behind a proxy may want none.
const ALWAYS = ["401"];

/** A context of the browser, and all that went wrong in it. */
export class Watched {
    constructor(context, origin, allowed) {
        this.context = context;
        this.origin = origin;
        this.allowed = allowed;
        this.complaints = [];
        this.requests = [];
    }

    /**
     * allowed: which statuses the test expects to be answered, and whether the server may be away:
     * {statuses: [409], away: false}.
     */
    static async open(origin, allowed, options) {
        const context = await (await browser()).newContext({ reducedMotion: "reduce", ...options });
        const watched = new Watched(context, origin, allowed);

        context.setDefaultTimeout(limitMs(10));
        context.on("request", (request) => watched.noteRequest(request));
        context.on("console", (message) => watched.noteConsole(message));
        context.on("weberror", (error) => watched.complain(`error: ${error.error().stack}`));
        await context.exposeFunction("cliserViolation", (text) => watched.complain(text));
        await context.addInitScript({ content: inPageScript });
        return watched;
    }

    complain(text) {
        this.complaints.push(text);
    }

    noteRequest(request) {
        const url = new URL(request.url());

        this.requests.push(request);
        if (url.origin !== this.origin)
            this.complain(`a request to somebody else: ${url}`);
        // Without a limit the server sends a page of its own size.
        if (url.pathname === "/v1/clients" && Number(url.searchParams.get("limit")) > PAGE_MAX)
            this.complain(`asks for more than a page: ${url}`);
    }

    noteConsole(message) {
        const { url } = message.location();

        if (!this.isAllowed(message.text(), url))
            this.complain(`console: ${message.type()}: ${message.text()} (${url})`);
    }

    isAllowed(text, url) {
        const status = ERROR_STATUS.exec(text);

        if (!url.startsWith(`${this.origin}/`))
            return false;
        if (status)
            return ALWAYS.includes(status[1]) ||
                this.allowed.statuses?.includes(Number(status[1]));
        return this.allowed.away === true && NO_ANSWER.test(text);
    }

    /** What was asked of the server by this method and path, as URLs with bodies. */
    sent(method, path) {
        return this.requests
            .filter((request) => request.method() === method)
            .map((request) => ({ url: new URL(request.url()), body: request.postDataJSON() }))
            .filter(({ url }) => url.pathname === path);
    }

    /** Orders, as opposed to dry runs. */
    sentOrders() {
        return this.sent("POST", "/v1/shutdown").filter((order) => order.body.dry_run !== true);
    }

    check() {
        assert.deepEqual(this.complaints, []);
    }
}
