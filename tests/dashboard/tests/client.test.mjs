// One client's panel: ping, disconnect, forget, and what is said when the server cannot.
import assert from "node:assert/strict";

import { pageTest } from "../lib/bench.mjs";
import { until } from "../lib/wait.mjs";

/** Until the panel says so, in the place for what came of what one did. */
function says(dialog, pattern) {
    return until(async () => pattern.test(await dialog.innerText()), `the panel to say ${pattern}`);
}

function hasFocus(locator) {
    return until(() => locator.evaluate((element) => element === document.activeElement),
        "the focus to be there");
}

// With time for the server to give up on the ping before it gives up on the client.
const slow = { keepalive: "10s", allowed: { statuses: [504] } };

pageTest("a ping shows the round trip, or that there was no answer", slow, async (bench) => {
    const agent = await bench.agent("nas-7");
    const view = await bench.open();
    const dialog = await view.openClient("nas-7");

    assert.match(await dialog.innerText(), /Connected/);
    await dialog.getByRole("button", { name: "Ping" }).click();
    await says(dialog, /answered in [\d.]+ m?s/);

    agent.signal("SIGSTOP");
    await dialog.getByRole("button", { name: "Ping" }).click();
    await says(dialog, /Not done/);
    agent.signal("SIGCONT");
});

pageTest("closing the panel gives the focus back to the row", {}, async (bench) => {
    await bench.agent("nas-7");
    await bench.agent("nas-8");
    const view = await bench.open();

    const dialog = await view.openClient("nas-8");
    await dialog.getByRole("button", { name: "Close" }).click();
    await dialog.waitFor({ state: "hidden" });
    await hasFocus(view.idButton("nas-8"));

    await view.openClient("nas-7");
    await view.page.keyboard.press("Escape");
    await view.dialog("nas-7").waitFor({ state: "hidden" });
    await hasFocus(view.idButton("nas-7"));
});

pageTest("disconnect and forget ask first, and then do it", {}, async (bench) => {
    const agent = await bench.agent("nas-7");
    const view = await bench.open();
    const dialog = await view.openClient("nas-7");
    const confirm = dialog.getByRole("group", { name: "Please confirm" });

    await dialog.getByRole("button", { name: "Disconnect" }).click();
    await hasFocus(confirm.getByRole("button", { name: "No" }));
    await confirm.getByRole("button", { name: "No" }).click();
    assert.equal(agent.find(/ refused |disconnected/), null);
    await dialog.getByRole("button", { name: "Disconnect" }).click();
    await confirm.getByRole("button", { name: /^Yes/ }).click();
    await says(dialog, /was disconnected/);
    await agent.waitLog(/code=430/);
    await says(dialog, /Disconnected for/);

    await dialog.getByRole("button", { name: "Forget" }).click();
    await confirm.getByRole("button", { name: "No" }).click();
    assert.equal((await bench.server.ask("GET", "/v1/clients/nas-7")).status, 200);
    await dialog.getByRole("button", { name: "Forget" }).click();
    bench.allowed.statuses = [404];
    await confirm.getByRole("button", { name: /^Yes/ }).click();
    await says(dialog, /was forgotten/);
    assert.equal((await bench.server.ask("GET", "/v1/clients/nas-7")).status, 404);
    await dialog.getByRole("button", { name: "Close" }).click();
    await view.idButton("nas-7").waitFor({ state: "hidden" });
});

pageTest("what the server refuses is shown in its words", { allowed: { statuses: [409] } },
    async (bench) => {
        await (await bench.agent("nas-7")).stop();
        const view = await bench.open();
        const dialog = await view.openClient("nas-7");

        // It comes back between the question and the answer.
        await dialog.getByRole("button", { name: "Forget" }).click();
        await bench.agent("nas-7");
        const { status, body } = await bench.server.ask("DELETE", "/v1/clients/nas-7");
        assert.equal(status, 409);
        await dialog.getByRole("button", { name: /^Yes/ }).click();
        await until(async () => (await dialog.innerText()).includes(body.error), "its words");
        assert.equal((await bench.server.ask("GET", "/v1/clients/nas-7")).status, 200);
    });

pageTest("what a client cannot do now does nothing", {}, async (bench) => {
    await bench.agent("nas-7");
    const view = await bench.open();
    const dialog = await view.openClient("nas-7");
    const forget = dialog.getByRole("button", { name: "Forget" });

    assert.ok(await forget.isDisabled());
    await forget.click({ force: true });
    assert.equal(await dialog.getByRole("group", { name: "Please confirm" }).count(), 0);
    assert.equal(view.watched.sent("DELETE", "/v1/clients/nas-7").length, 0);
});
