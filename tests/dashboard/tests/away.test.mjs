// The server is away, stands still or is another one: what the page says of that, and that nothing
// which is not live looks as if it were.
import assert from "node:assert/strict";

import { pageTest } from "../lib/bench.mjs";
import { limitMs, staysTrue, until } from "../lib/wait.mjs";

const away = { allowed: { away: true } };

const STALE_S = 5;
const BACK_S = 12;

function banner(view) {
    return view.page.getByRole("paragraph").filter({ hasText: /^Not live\./ });
}

/** That what stands in each region is said to be of an earlier time, and that the age grows. */
async function looksStale(view) {
    await banner(view).waitFor();
    for (const name of ["Now", "Over time", "Fleet"]) {
        const heading = view.region(name).getByRole("heading", { level: 2 });
        assert.match(await heading.innerText(), /as of \d\d:\d\d:\d\d/);
    }
    const before = await banner(view).innerText();
    await until(async () => await banner(view).innerText() !== before, "the age to grow");
}

async function secondsUntilStale(view, beganMs) {
    await banner(view).waitFor();
    return (Date.now() - beganMs) / 1000;
}

async function isNotStale(view) {
    await view.isLive(BACK_S);
    assert.equal(await banner(view).count(), 0);
    assert.equal(await view.page.getByText(/as of \d\d:/).count(), 0);
}

pageTest("a server that goes is seen to be away, and to be back", away, async (bench) => {
    await bench.agent("web-1");
    const view = await bench.open();
    await view.row("web-1").waitFor();
    await view.page.evaluate(() => { window.isTheSame = true; });

    const endedMs = Date.now();
    await bench.server.stop("SIGKILL");
    await view.says(/^Reconnecting/, STALE_S);
    const stale = await secondsUntilStale(view, endedMs);
    await looksStale(view);
    await view.says(/^Server away/, 15);
    assert.match(await view.connection.innerText(), /\d+ s old/);

    await bench.startAgain();
    const backMs = Date.now();
    await isNotStale(view);
    const back = (Date.now() - backMs) / 1000;
    bench.note(`said to be stale after ${stale} s, live ${back} s after the server was back`);
    assert.ok(stale < limitMs(STALE_S) / 1000);
    assert.ok(await view.page.evaluate(() => window.isTheSame === true), "it was not loaded anew");

    // The stream of events is there again as well.
    await until(async () => await bench.server.metric("cliser_event_subscribers") === 1,
        "the stream");
    const inTable = await view.rowToSay("web-9", "Connected");
    const agent = bench.startAgent("web-9");
    assert.ok(await inTable.moment - await agent.loggedMs("connected") < limitMs(1));
});

pageTest("a server that stands still is not taken for live", away, async (bench) => {
    await bench.agent("web-1");
    const view = await bench.open();
    await view.row("web-1").waitFor();

    const stoppedMs = Date.now();
    bench.server.signal("SIGSTOP");
    const stale = await secondsUntilStale(view, stoppedMs);
    bench.note(`said to be stale after ${stale} s`);
    assert.ok(stale < limitMs(STALE_S) / 1000);
    await looksStale(view);
    await view.says(/^Server away/, 15);
    bench.server.signal("SIGCONT");
    await isNotStale(view);
});

pageTest("no rate is worked out between two servers", away, async (bench) => {
    await bench.crowd(400, { hold: "1s" });
    const view = await bench.open();
    await until(async () => await view.figure("Handshakes per second") === "0", "quiet", 20);
    const recorded = await view.region("Now").evaluateHandle(
        (now) => inPage.recording(now, () => inPage.figure(now, "Handshakes per second")));

    // All of them are there before the page looks again: more of them than the first server had.
    await view.watched.context.setOffline(true);
    await bench.server.stop();
    await bench.startAgain();
    await bench.crowd(600);
    await view.watched.context.setOffline(false);
    await view.isLive(BACK_S);
    await staysTrue(async () => /^Live/.test(await view.connection.innerText()), "live", 3);

    const values = await recorded.jsonValue();
    for (const value of values)
        assert.ok(value === "–" || Number(value) === 0, `handshakes per second were ${values}`);
    assert.equal(await view.figure("Connected"), "600");
});

pageTest("what an operator does meanwhile is said not to be done", away, async (bench) => {
    await bench.agent("web-1");
    const view = await bench.open();
    const dialog = await view.openShutdown();

    await dialog.getByRole("textbox", { name: "Wave 1" }).fill("web-*");
    await bench.server.stop();
    await dialog.getByRole("button", { name: "Who would be told?" }).click();
    await dialog.getByRole("alert").filter({ hasText: /could not be asked/ }).waitFor();
    await bench.startAgain();
    assert.equal(await bench.server.orderCount(), 0);
});
