// Texts that others choose: IDs as strange as the protocol allows, and words of the server's. They
// are shown whole, as text, and break nothing.
import assert from "node:assert/strict";

import { pageTest } from "../lib/bench.mjs";

const SIZES = [[360, 780], [1280, 800]];

const IDS = [
    "W".repeat(64), "i".repeat(64), `${"a-b.c_d:e@f".repeat(5)}:7890123_`, "-".repeat(64),
    "__proto__", "constructor", "toString", "-", ":", "@", "a:b@c.d_e-f", "-oProxyCommand", "1e308",
];

const HOSTILE = "<img src=x onerror=\"window.isHit=true\"><b>bold</b> &amp; \u202E";

pageTest("the strangest IDs show whole and break no layout", {}, async (bench) => {
    for (const id of IDS)
        await bench.agent(id);
    const view = await bench.open();

    for (const id of IDS)
        await view.row(id).waitFor();
    for (const [width, height] of SIZES) {
        await view.page.setViewportSize({ width, height });
        assert.ok(await view.overflow() <= 0, `the table at ${width}`);
        assert.deepEqual(await view.cutOff(), []);
    }
    for (const id of IDS) {
        await view.search.fill(id);
        await view.row(id).waitFor();
        const dialog = await view.openClient(id);
        assert.ok(await view.overflow() <= 0, `the panel of ${id}`);
        await dialog.getByRole("button", { name: "Ping" }).click();
        await dialog.getByText(/It answered/).waitFor();
        await dialog.getByRole("button", { name: "Close" }).click();
    }
    const dialog = await view.dryRun(["*"]);
    for (const id of IDS)
        await dialog.getByText(id, { exact: true }).waitFor();
    assert.ok(await view.overflow() <= 0, "the dry run");
    assert.deepEqual(await view.cutOff(), []);
});

const refusing = { allowed: { statuses: [400] } };

pageTest("an error text of the server is text", refusing, async (bench) => {
    await bench.agent("web-1");
    const view = await bench.open();
    const answer = (route) => route.fulfill({ status: 400, json: { error: HOSTILE } });

    await view.page.route("**/v1/shutdown", answer);
    const dialog = await view.openShutdown();
    await dialog.getByRole("textbox", { name: "Wave 1" }).fill("web-*");
    await dialog.getByRole("button", { name: "Who would be told?" }).click();
    await dialog.getByRole("alert").filter({ hasText: HOSTILE }).waitFor();
    await dialog.getByRole("button", { name: "Close" }).click();
    await view.page.unroute("**/v1/shutdown");

    await view.page.route("**/v1/clients?*", answer);
    await view.search.fill("web");
    await view.region("Fleet").getByRole("alert").filter({ hasText: HOSTILE }).waitFor();
    assert.equal(await view.page.locator("img").count(), 0);
    assert.equal(await view.page.evaluate(() => window.isHit), undefined);
});

pageTest("a pattern that makes no sense is said to make none", refusing, async (bench) => {
    await bench.agent("web-1");
    const view = await bench.open();
    const alert = view.region("Fleet").getByRole("alert");

    await view.search.fill("web/1");
    await alert.filter({ hasText: /IDs are made of/ }).waitFor();
    await view.search.fill("web-");
    await view.row("web-1").waitFor();
    assert.equal(await alert.count(), 0);
});

pageTest("dots alone are IDs as well", {}, async (bench) => {
    const view = await bench.open();

    for (const id of [".", ".."]) {
        await bench.agent(id);
        await view.row(id).waitFor();
        const dialog = await view.openClient(id);
        await dialog.getByRole("button", { name: "Ping" }).click();
        await dialog.getByText(/It answered/).waitFor();
        await dialog.getByRole("button", { name: "Close" }).click();
    }
});
