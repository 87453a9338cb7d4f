// Without a mouse: everything can be reached by Tab, shows that it has the focus, and is worked by
// the keys that people expect.
import assert from "node:assert/strict";

import { pageTest } from "../lib/bench.mjs";
import { STAYS, TOKEN } from "../lib/programs.mjs";
import { until } from "../lib/wait.mjs";

const TABS_MAX = 60;

const isFocused = (locator) => locator.evaluate((element) => element === document.activeElement);

/** Tab by Tab until it has the focus; whatever has it on the way shows that. */
async function tabTo(view, locator) {
    await locator.waitFor();
    for (let i = 0; i < TABS_MAX; i++) {
        if (await isFocused(locator))
            return;
        await view.page.keyboard.press("Tab");
        const invisible = await view.page.evaluate(() => inPage.focusWithoutMark());
        assert.equal(invisible, null, "nothing shows that it has the focus");
    }
    assert.fail(`not reached by ${TABS_MAX} Tabs: ${locator}`);
}

pageTest("a dry run, an order and its cancelling are done by keys alone", {}, async (bench) => {
    await bench.agent("web-1", STAYS);
    await bench.agent("db-1", STAYS);
    const view = await bench.visit();
    const { keyboard } = view.page;

    // The first thing that one can type into is where one is.
    await until(() => isFocused(view.tokenField), "the focus on the token");
    await keyboard.type(TOKEN);
    await keyboard.press("Enter");
    await view.isLive();

    await tabTo(view, view.button("Shut down machines…"));
    await keyboard.press("Enter");
    const dialog = view.dialog("Shut down machines");
    await tabTo(view, dialog.getByRole("textbox", { name: "Wave 1" }));
    await keyboard.type("web-*");
    await tabTo(view, dialog.getByRole("button", { name: "Add wave" }));
    await keyboard.press("Enter");
    await tabTo(view, dialog.getByRole("textbox", { name: "Wave 2" }));
    await keyboard.type("db-*");
    await tabTo(view, dialog.getByRole("button", { name: "Who would be told?" }));
    await keyboard.press("Enter");
    await tabTo(view, dialog.getByRole("textbox", { name: "Type the number to confirm" }));
    await keyboard.type("2");
    await tabTo(view, dialog.getByRole("button", { name: "Shut down 2 machines" }));
    await keyboard.press("Enter");
    await dialog.waitFor({ state: "hidden" });

    const order = view.region("Shutdown order");
    await tabTo(view, order.getByRole("button", { name: "Cancel order" }));
    await keyboard.press("Enter");
    const question = view.page.getByRole("dialog", { name: /Cancel/ });
    await tabTo(view, question.getByRole("button", { name: /^Yes/ }));
    await keyboard.press("Enter");
    await order.getByText(/was cancelled/).waitFor();
});

pageTest("Escape closes each dialog, and the focus is where it was", {}, async (bench) => {
    await bench.agent("web-1", STAYS);
    const view = await bench.open();
    const { keyboard } = view.page;
    const openers = [
        [view.button("Shut down machines…"), view.dialog("Shut down machines")],
        [view.idButton("web-1"), view.dialog("web-1")],
    ];

    for (const [opener, dialog] of openers) {
        await tabTo(view, opener);
        await keyboard.press("Enter");
        await dialog.waitFor();
        await keyboard.press("Escape");
        await dialog.waitFor({ state: "hidden" });
        await until(() => isFocused(opener), "the focus to be back");
    }
});

pageTest("the table is searched and sorted by keys", {}, async (bench) => {
    await bench.agent("web-1");
    await bench.agent("db-1");
    const view = await bench.open();
    const { keyboard } = view.page;
    const shows = (...ids) => until(async () => (await view.ids()).join() === ids.join(), `${ids}`);

    await shows("db-1", "web-1");
    await tabTo(view, view.table.getByRole("button", { name: "ID", exact: true }));
    await keyboard.press("Enter");
    await shows("web-1", "db-1");
    await keyboard.press("Shift+Tab");
    await tabTo(view, view.search);
    await keyboard.type("db");
    await shows("db-1");
    await view.statusFilter.focus();
    await keyboard.type("Disc");
    await shows();
});
