// Shutdown orders, which is what the page must never get wrong: who would be told, the number that
// is typed, one order and no other, and its way through the waves.
import assert from "node:assert/strict";
import { isDeepStrictEqual } from "node:util";

import { pageTest } from "../lib/bench.mjs";
import { GOES, STAYS } from "../lib/programs.mjs";
import { numberField, orderButton } from "../lib/view.mjs";
import { staysTrue, until } from "../lib/wait.mjs";

async function fleet(bench) {
    const commands = { "web-1": GOES, "web-2": GOES, "web-3": STAYS, "db-1": GOES, "nas-7": STAYS };
    const agents = {};

    for (const [id, command] of Object.entries(commands))
        agents[id] = await bench.agent(id, command);
    return agents;
}

/** Not one that only asks who would be told. */
function isOrder(request) {
    return request.method() === "POST" && request.postDataJSON().dry_run !== true;
}

/** The cells of a wave in the section about the order, by the names of its columns. */
async function waveRow(view, number) {
    const row = view.region("Shutdown order").getByRole("row").nth(number);
    const names = await view.region("Shutdown order").getByRole("columnheader").allInnerTexts();
    const cells = await row.locator("th, td").allInnerTexts();

    return Object.fromEntries(names.map((name, i) => [name, cells[i]]));
}

function survivors(view) {
    return view.region("Shutdown order").getByRole("listitem").allInnerTexts();
}

function orderSays(view, pattern, seconds) {
    return until(async () => pattern.test(await view.region("Shutdown order").innerText()),
        `the order to say ${pattern}`, seconds);
}

async function cancel(view) {
    await view.region("Shutdown order").getByRole("button", { name: "Cancel order" }).click();
    const dialog = view.page.getByRole("dialog", { name: /Cancel/ });
    await dialog.getByRole("button", { name: /^Yes/ }).click();
    await dialog.waitFor({ state: "hidden" });
}

pageTest("an order goes through its waves, and the survivors are named", {}, async (bench) => {
    const agents = await fleet(bench);
    const view = await bench.open();
    const dialog = await view.dryRun(["web-*", "db-1, nas-*"], { grace: "2s" });

    await bench.part("a dry run says who would be told", async () => {
        const machines = (list) => list.getByRole("listitem").allInnerTexts();
        const lists = await dialog.getByRole("list").all();
        assert.deepEqual(await Promise.all(lists.map(machines)),
            [["web-1", "web-2", "web-3"], ["db-1", "nas-7"]]);
        assert.equal(await orderButton(dialog).innerText(), "Shut down 5 machines");
    });
    await bench.part("a wrong number keeps the button off", async () => {
        for (const wrong of ["", "4", "55", "5.", "five", "05", "-5", "5 machines"]) {
            await numberField(dialog).fill(wrong);
            await view.drawn();
            assert.ok(await orderButton(dialog).isDisabled(), `after "${wrong}"`);
            await numberField(dialog).press("Enter");
        }
        assert.equal(await bench.server.orderCount(), 0);
    });
    await bench.part("the right one gives one order, however often one clicks", async () => {
        await numberField(dialog).fill("5");
        await orderButton(dialog).dblclick();
        await dialog.waitFor({ state: "hidden" });
        await orderSays(view, /Order 1 is running, wave 1 of 2/);
        assert.equal((await waveRow(view, 2)).State, "pending");
        assert.match(await view.page.title(), /Shutdown/);
    });
    await bench.part("waves and survivors are followed to the end", async () => {
        await orderSays(view, /Order 1 is running, wave 2 of 2/);
        await orderSays(view, /Order 1 is done/, 15);
        const numbers = ({ Told, Gone, "Still up": up }) => [Told, Gone, up];
        assert.deepEqual(numbers(await waveRow(view, 1)), ["3", "2", "1"]);
        assert.deepEqual(numbers(await waveRow(view, 2)), ["2", "1", "1"]);
        assert.equal((await waveRow(view, 2)).Who, "db-1, nas-*");
        await until(async () => isDeepStrictEqual(await survivors(view), ["web-3", "nas-7"]),
            "the survivors", 15);
        await until(async () => await view.figure("Connected") === "2", "two who stay");
        assert.equal(await view.button("Cancel order").count(), 0);
    });
    await bench.part("a second one is cancelled before its second wave", async () => {
        const spared = await bench.agent("pi-1", GOES);
        const second = await view.dryRun(["nas-7", "pi-*"], { grace: "60s" });
        await view.confirm(second, 2);
        await orderSays(view, /Order 2 is running, wave 1 of 2/);
        await cancel(view);
        await orderSays(view, /Order 2 was cancelled/);
        assert.equal((await waveRow(view, 2)).State, "cancelled");
        await staysTrue(() => spared.isRunning && !spared.wasTold, "pi-1", 1);
    });
    assert.ok(agents["web-3"].wasTold && agents["nas-7"].isRunning);
    assert.equal(view.watched.sentOrders().length, 2);
    assert.equal(await bench.server.orderCount(), 2);
});

pageTest("nothing is ordered by a dialog that is closed, at whatever step", {}, async (bench) => {
    const agents = await fleet(bench);
    const view = await bench.open();
    const closed = (dialog) => dialog.waitFor({ state: "hidden" });
    const escape = () => view.page.keyboard.press("Escape");
    const close = (dialog) => dialog.getByRole("button", { name: "Close" }).click();

    for (const leave of [escape, close]) {
        let dialog = await view.openShutdown();
        await leave(dialog);
        await closed(dialog);

        dialog = await view.openShutdown();
        await dialog.getByRole("checkbox", { name: "All machines" }).check();
        await leave(dialog);
        await closed(dialog);

        dialog = await view.dryRun(["*"]);
        await leave(dialog);
        await closed(dialog);

        dialog = await view.dryRun(["*"]);
        await numberField(dialog).fill("5");
        await view.drawn();
        assert.ok(await orderButton(dialog).isEnabled());
        await leave(dialog);
        await closed(dialog);
    }
    // What was chosen before is not there the next time.
    const dialog = await view.openShutdown();
    assert.equal(await dialog.getByRole("textbox", { name: "Wave 1" }).inputValue(), "");
    assert.ok(!await dialog.getByRole("checkbox", { name: "All machines" }).isChecked());

    assert.equal(view.watched.sentOrders().length, 0);
    assert.equal(await bench.server.orderCount(), 0);
    assert.ok(Object.values(agents).every((agent) => agent.isRunning && !agent.wasTold));
});

pageTest("all machines means all of them, with a hold", {}, async (bench) => {
    await fleet(bench);
    const view = await bench.open();
    const dialog = await view.openShutdown();

    await dialog.getByRole("checkbox", { name: "All machines" }).check();
    assert.equal(await dialog.getByRole("textbox", { name: "Hold" }).inputValue(), "15m");
    await dialog.getByRole("textbox", { name: "Grace" }).fill("1s");
    await dialog.getByRole("button", { name: "Who would be told?" }).click();
    await view.confirm(dialog, 5);
    await orderSays(view, /is holding/, 15);
    const [{ body }] = view.watched.sentOrders();
    assert.deepEqual(body, { waves: [["*"]], grace: "1s", hold: "15m" });

    const late = await bench.agent("web-9", GOES);
    await late.waitLog(/ shutdown_ordered /);
    await cancel(view);
    await orderSays(view, /was cancelled/);
});

pageTest("a fleet that has changed meanwhile wants another confirmation", {}, async (bench) => {
    await bench.agent("web-1");
    const view = await bench.open();
    const dialog = await view.dryRun(["web-*"]);

    await bench.agent("web-2");
    await view.confirm(dialog, 1);
    await dialog.getByText(/No order was given/).waitFor();
    assert.equal(await numberField(dialog).inputValue(), "");
    assert.equal(await orderButton(dialog).innerText(), "Shut down 2 machines");
    assert.ok(await orderButton(dialog).isDisabled());
    assert.equal(await bench.server.orderCount(), 0);
});

pageTest("a second order is refused while another is under way", { allowed: { statuses: [409] } },
    async (bench) => {
        await bench.agent("web-1");
        await bench.agent("db-1");
        const view = await bench.open();
        const other = { waves: [["db-*"]], grace: "60s" };

        // Somebody else gives one at the very last moment: behind all that the page can look at.
        let dialog = await view.dryRun(["web-*"]);
        await view.page.route("**/v1/shutdown", async (route) => {
            if (isOrder(route.request()))
                await bench.server.ask("POST", "/v1/shutdown", other);
            await route.continue();
        });
        await view.confirm(dialog, 1);
        await dialog.getByRole("alert").filter({ hasText: /No order was given/ }).waitFor();
        await view.page.unroute("**/v1/shutdown");
        assert.equal(await bench.server.orderCount(), 1);
        await dialog.getByRole("button", { name: "Close" }).click();

        // And one that the page knows of.
        dialog = await view.dryRun(["web-*"]);
        await view.confirm(dialog, 1);
        await dialog.getByRole("alert").filter({ hasText: /No order was given/ }).waitFor();
        assert.equal(await bench.server.orderCount(), 1);
        assert.equal(view.watched.sentOrders().length, 1);
    });

pageTest("an order whose answer is lost is not sent again", { allowed: { away: true } },
    async (bench) => {
        const agent = await bench.agent("web-1", STAYS);
        const view = await bench.open();
        const dialog = await view.dryRun(["web-*"], { grace: "60s" });

        await view.page.route("**/v1/shutdown", async (route) => {
            if (!isOrder(route.request()))
                return await route.continue();
            await bench.server.ask("POST", "/v1/shutdown", route.request().postDataJSON());
            await route.abort("connectionreset");
        });
        await view.confirm(dialog, 1);
        await orderSays(view, /Order 1 is running/);
        await dialog.waitFor({ state: "hidden" });
        await agent.waitLog(/ shutdown_ordered /);
        assert.equal(view.watched.sentOrders().length, 1);
        assert.equal(await bench.server.orderCount(), 1);
    });

pageTest("an order of somebody else is on the page within a second", {}, async (bench) => {
    await bench.agent("web-1", STAYS);
    const view = await bench.open();
    const band = view.page.getByRole("complementary", { name: "Shutdown under way" });

    assert.equal(await band.count(), 0);
    await bench.server.ask("POST", "/v1/shutdown", { waves: [["web-*"]], grace: "60s" });
    await band.waitFor({ timeout: 2000 });
    assert.match(await band.innerText(), /Shutdown order 1 is running: wave 1 of 1/);
});
