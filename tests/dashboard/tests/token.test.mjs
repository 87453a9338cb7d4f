// Who may look: the token, and where it is kept.
import assert from "node:assert/strict";

import { pageTest } from "../lib/bench.mjs";
import { TOKEN } from "../lib/programs.mjs";
import { staysTrue, until } from "../lib/wait.mjs";

/** All places in which a page can leave something, but for the session's. */
async function leftBehind(view) {
    return {
        cookies: await view.watched.context.cookies(),
        url: view.page.url(),
        ...await view.page.evaluate(async () => ({
            local: { ...localStorage },
            databases: await indexedDB.databases(),
            caches: await caches.keys(),
            history: history.state,
            name: window.name,
        })),
    };
}

function session(view) {
    return view.page.evaluate(() => Object.values(sessionStorage));
}

async function showsNothing(view) {
    await view.tokenField.waitFor();
    assert.equal(await view.page.getByRole("region").count(), 0);
    assert.equal(await view.page.getByRole("table").count(), 0);
    assert.doesNotMatch(await view.page.title(), /\d/);
}

pageTest("a wrong token is said to be wrong, and nothing is shown", {}, async (bench) => {
    await bench.agent("web-1");
    const view = await bench.visit();

    await showsNothing(view);
    await view.tokenField.fill("guess");
    await view.button("Open").click();
    await view.alert.waitFor();
    assert.match(await view.alert.textContent(), /token is wrong/i);
    await showsNothing(view);
    assert.deepEqual(await session(view), []);

    await view.enter();
    assert.equal(await view.figure("Connected"), "1");
    assert.equal(await view.tokenField.count(), 0);
});

pageTest("the token is in the session of the tab and nowhere else", {}, async (bench) => {
    const view = await bench.open();
    const nothing = {
        cookies: [], url: `${bench.server.origin}/`, local: {}, databases: [], caches: [],
        history: null, name: "",
    };

    assert.deepEqual(await session(view), [TOKEN]);
    assert.deepEqual(await leftBehind(view), nothing);
    await view.page.reload();
    await view.isLive();
    assert.deepEqual(await leftBehind(view), nothing);

    await showsNothing(await bench.visit());
    const tab = await view.watched.context.newPage();
    await tab.goto(bench.server.origin);
    await tab.getByLabel("Token", { exact: true }).waitFor();
});

pageTest("Lock forgets the token and what was shown", {}, async (bench) => {
    const view = await bench.open();

    await view.button("Lock").click();
    await showsNothing(view);
    assert.equal(await view.tokenField.inputValue(), "");
    assert.deepEqual(await session(view), []);
    await view.page.reload();
    await showsNothing(view);
});

pageTest("a locked page asks the server nothing more", {}, async (bench) => {
    const view = await bench.open();
    await view.button("Lock").click();
    await view.tokenField.waitFor();
    // The stream of events ends as well, or the server would go on telling the page.
    await until(async () => await bench.server.metric("cliser_event_subscribers") === 0,
        "the stream to end");
    const before = view.watched.requests.length;
    await staysTrue(() => view.watched.requests.length === before, "no request", 2.5);
});

pageTest("a token that the server does not take any more is asked for anew", {},
    async (bench) => {
        const view = await bench.open();

        await bench.server.changeToken("another");
        await view.alert.waitFor();
        assert.match(await view.alert.textContent(), /does not take this token any more/i);
        await showsNothing(view);
        await view.enter("another");
    });

pageTest("a server that is away is not taken for a wrong token", { allowed: { away: true } },
    async (bench) => {
        const view = await bench.visit();

        await view.tokenField.waitFor();
        await bench.server.stop();
        await view.tokenField.fill(TOKEN);
        await view.button("Open").click();
        await view.alert.waitFor();
        assert.match(await view.alert.textContent(), /cannot be reached/);
        assert.doesNotMatch(await view.alert.textContent(), /wrong/);
        await bench.startAgain();
        await view.button("Open").click();
        await view.isLive();
    });
