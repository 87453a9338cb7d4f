// The table with ten thousand clients: search, filter, order and pages, each a question to the
// server of one page.
import assert from "node:assert/strict";

import { pageTest } from "../lib/bench.mjs";
import { limitMs, until } from "../lib/wait.mjs";

const PAGE = 100;
const KINDS = ["web", "db", "nas", "pi-kitchen", "sensor"];
const NOW = Math.floor(Date.now() / 1000);
const CONNECTED = 120;

// Values in an order that is not that of the IDs, some of them the same for many, some missing.
const clients = Array.from({ length: 10_000 }, (_, i) => {
    const mixed = (i * 7919) % 10_000;

    return {
        sid: i + 1,
        cid: `${KINDS[Math.floor(i / 7) % KINDS.length]}-${String(mixed).padStart(5, "0")}`,
        cip: `10.0.${i % 250}.${i % 240}`,
        cport: 40_000,
        since: NOW - 100_000 - (mixed % 3000),
        last_seen: NOW - 90_000 - (mixed % 3000),
        rtt_ms: i % 10 === 0 ? null : (mixed % 5000) / 100,
        reason: i % 2 === 0 ? "left" : "timed_out",
    };
});

/** In the order of the server: by value, the same values by ID, and what has none last. */
function ordered(list, key, descending = false) {
    const byId = (a, b) => a.cid < b.cid ? -1 : 1;
    const sign = descending ? -1 : 1;

    return [...list].sort((a, b) => {
        if (key === "cid")
            return sign * byId(a, b);
        if (a[key] === b[key])
            return byId(a, b);
        if (a[key] === null || b[key] === null)
            return a[key] === null ? 1 : -1;
        return sign * (a[key] - b[key]);
    }).map(({ cid }) => cid);
}

const like = (pattern) => clients.filter(({ cid }) => pattern.test(cid));

async function shows(view, wanted) {
    const text = wanted.slice(0, PAGE).join();

    await until(async () => (await view.ids()).join() === text, `rows from ${wanted[0]} on`);
}

pageTest("ten thousand clients are searched, filtered, sorted and paged", { rows: clients },
    async (bench) => {
        const view = await bench.open();

        await shows(view, ordered(clients, "cid"));
        await bench.part("search by a pattern, or a part of the ID", () => searches(bench, view));
        await bench.part("sort both ways by each column", () => sorts(view));
        await bench.part("page to the end and back", () => pages(view));
        await bench.part("filter by status", () => filters(bench, view));
        assert.equal(view.watched.sent("GET", "/v1/clients").every(isOnePage), true);
    });

function isOnePage({ url }) {
    return Number(url.searchParams.get("limit")) === PAGE;
}

async function searches(bench, view) {
    const questions = [
        ["web-000*", /^web-000/], ["db-??4[0-3]?", /^db-..4[0-3].$/], ["kitchen-09", /kitchen-09/],
        ["sensor-0[!0-8]*", /^sensor-09/],
    ];
    const times = [];

    for (const [typed, pattern] of questions) {
        await view.search.fill("");
        await shows(view, ordered(clients, "cid"));
        times.push(await timeOfSearch(view, typed, ordered(like(pattern), "cid").slice(0, PAGE)));
    }
    bench.note(`milliseconds from the last key to the rows: ${times.join(", ")}`);
    assert.ok(Math.max(...times) < limitMs(1));

    await view.search.fill("no-such-machine");
    await shows(view, []);
    await view.region("Fleet").getByText("No client is like that.").waitFor();
    await view.search.fill("");
}

async function timeOfSearch(view, typed, wanted) {
    assert.ok(wanted.length > 0);
    const found = await view.rowsToBe(wanted);

    await view.search.pressSequentially(typed.slice(0, -1));
    const lastKey = await view.keyIn(view.search);
    await view.search.press(typed.at(-1));
    return await found.moment - await lastKey.moment;
}

async function sorts(view) {
    const columns = [["ID", "cid"], ["Since", "since"], ["Round trip", "rtt_ms"], ["sid", "sid"]];

    for (const [name, key] of columns) {
        const header = view.table.getByRole("columnheader", { name, exact: true });
        for (let click = 0; click < 2; click++) {
            await header.getByRole("button").click();
            await until(async () => await header.getAttribute("aria-sort") !== "none", "an order");
            const descending = await header.getAttribute("aria-sort") === "descending";
            await shows(view, ordered(clients, key, descending));
        }
    }
    await view.table.getByRole("button", { name: "ID", exact: true }).click();
    await shows(view, ordered(clients, "cid"));
}

async function pages(view) {
    const wanted = ordered(like(/^nas-0/), "cid");
    const last = Math.ceil(wanted.length / PAGE) - 1;
    assert.ok(last >= 2);

    await view.search.fill("nas-0*");
    await shows(view, wanted);
    await view.drawn();
    assert.ok(await view.button("Previous page").isDisabled());
    for (let page = 1; page <= last; page++) {
        await view.button("Next page").click();
        await shows(view, wanted.slice(page * PAGE));
    }
    await view.drawn();
    assert.ok(await view.button("Next page").isDisabled());
    for (let page = last - 1; page >= 0; page--) {
        await view.button("Previous page").click();
        await shows(view, wanted.slice(page * PAGE));
    }
    await view.search.fill("");
    await shows(view, ordered(clients, "cid"));
}

async function filters(bench, view) {
    await bench.crowd(CONNECTED, { prefix: "live-" });
    const live = Array.from({ length: CONNECTED }, (_, i) => ({ cid: `live-${i + 1}` }));

    await view.statusFilter.selectOption("Connected");
    await shows(view, ordered(live, "cid"));
    await view.button("Next page").click();
    await shows(view, ordered(live, "cid").slice(PAGE));
    await view.statusFilter.selectOption("Disconnected");
    await shows(view, ordered(clients, "cid"));
    await view.search.fill("live-*");
    await shows(view, []);
    await view.statusFilter.selectOption("All");
    await shows(view, ordered(live, "cid"));
}
