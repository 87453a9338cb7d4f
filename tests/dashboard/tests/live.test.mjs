// What happens in the fleet is on the page within a second. The clock starts when the agent has
// logged it, and stops in the page when the words are there.
import assert from "node:assert/strict";

import { pageTest } from "../lib/bench.mjs";
import { refuse } from "../lib/programs.mjs";
import { limitMs, until } from "../lib/wait.mjs";

const ROUNDS = 3;

pageTest("who connects and who leaves is in the numbers and in the table within a second", {},
    async (bench) => {
        await bench.agent("db-1");
        const view = await bench.open();
        await view.row("db-1").waitFor();
        const times = [];

        for (let round = 1; round <= ROUNDS; round++) {
            const [agent, coming] = await timeOfComing(bench, view, `web-${round}`);
            times.push(...coming, ...await timeOfLeaving(agent, view));
        }
        bench.note(`milliseconds from the agent's log to the page: ${times.join(", ")}`);
        assert.ok(Math.max(...times) < limitMs(1));
    });

async function timeOfComing(bench, view, id) {
    const inNumber = await view.figureToBe("Connected", "2");
    const inTable = await view.rowToSay(id, "Connected");
    const agent = bench.startAgent(id);

    return [agent, await timesSince(await agent.loggedMs("connected"), inNumber, inTable)];
}

async function timeOfLeaving(agent, view) {
    const inNumber = await view.figureToBe("Connected", "1");
    const inTable = await view.rowToSay(agent.id, "Disconnected");

    agent.signal("SIGTERM");
    return await timesSince(await agent.loggedMs("stop"), inNumber, inTable);
}

async function timesSince(beganMs, ...waiting) {
    const moments = await Promise.all(waiting.map(({ moment }) => moment));

    return moments.map((moment) => moment - beganMs);
}

pageTest("refusals are counted by code, and handshakes by the second", {}, async (bench) => {
    const view = await bench.open();
    const refusals = view.region("Now").getByRole("table", { name: "Refusals" });

    assert.equal(await refusals.count(), 0);
    await refuse(bench.server, 3);
    const row = refusals.getByRole("row", { name: /^410 / });
    await row.waitFor();
    await until(async () => /\b3\b.*\b3$/.test((await row.innerText()).replaceAll(/\s+/g, " ")),
        "three refusals");

    await bench.crowd(50);
    await until(async () => Number(await view.figure("Handshakes per second")) >= 5, "a rate");
    await until(async () => await view.figure("Handshakes per second") === "0", "quiet again");
});

pageTest("charts say in words what they show", {}, async (bench) => {
    await bench.agent("web-1");
    const view = await bench.open();
    const charts = view.region("Over time").getByRole("img");

    await until(async () => await charts.count() === 3, "three charts");
    const names = await Promise.all([0, 1, 2].map((i) => charts.nth(i).getAttribute("aria-label")));
    assert.match(names[0], /clients/i);
    assert.match(names[1], /connects and disconnects per second/i);
    assert.match(names[2], /round trip/i);
    for (const chart of await charts.all())
        assert.ok(await chart.locator("canvas").evaluate(isDrawn), "something is drawn");
});

/** Some pixels are neither transparent nor all the same. */
function isDrawn(canvas) {
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);

    return data.some((value) => value !== 0 && value !== data[0]);
}
