// The page as people find their way on it: by what things are (their ARIA role) and what they are
// called. Nothing here knows the page's source, and these names are all that the tests rely on.
import { TOKEN } from "./programs.mjs";
import { limitMs, until } from "./wait.mjs";

export class View {
    constructor(page, watched) {
        this.page = page;
        this.watched = watched;
    }

    // Where things are.

    get connection() {
        return this.page.getByRole("status");
    }

    region(name) {
        return this.page.getByRole("region", { name });
    }

    get tokenField() {
        return this.page.getByLabel("Token", { exact: true });
    }

    button(name) {
        return this.page.getByRole("button", { name, exact: true });
    }

    dialog(name) {
        return this.page.getByRole("dialog", { name, exact: true });
    }

    get alert() {
        return this.page.getByRole("alert").filter({ hasText: /\S/ });
    }

    get table() {
        return this.page.getByRole("table", { name: "Clients" });
    }

    get search() {
        return this.page.getByRole("searchbox", { name: "Search by ID" });
    }

    get statusFilter() {
        return this.page.getByRole("combobox", { name: "Status" });
    }

    idButton(id) {
        return this.table.getByRole("button", { name: id, exact: true });
    }

    row(id) {
        const button = this.page.getByRole("button", { name: id, exact: true });

        return this.table.getByRole("row").filter({ has: button });
    }

    // What one does.

    async enter(token = TOKEN) {
        await this.tokenField.fill(token);
        await this.button("Open").click();
        await this.isLive();
    }

    async openClient(id) {
        await this.idButton(id).click();
        const dialog = this.dialog(id);
        await dialog.getByRole("button", { name: "Ping" }).waitFor();
        return dialog;
    }

    async openShutdown() {
        await this.button("Shut down machines…").click();
        return this.dialog("Shut down machines");
    }

    /** Fills the form with these waves, and asks who would be told. */
    async dryRun(waves, { grace } = {}) {
        const dialog = await this.openShutdown();

        for (const [i, wave] of waves.entries()) {
            if (i > 0)
                await dialog.getByRole("button", { name: "Add wave" }).click();
            await dialog.getByRole("textbox", { name: `Wave ${i + 1}`, exact: true }).fill(wave);
        }
        if (grace)
            await dialog.getByRole("textbox", { name: "Grace" }).fill(grace);
        await dialog.getByRole("button", { name: "Who would be told?" }).click();
        await numberField(dialog).waitFor();
        return dialog;
    }

    async confirm(dialog, count) {
        await numberField(dialog).fill(String(count));
        await orderButton(dialog).click();
    }

    /** What follows from what was done is drawn. */
    async drawn() {
        await this.page.evaluate(() => new Promise((done) => {
            requestAnimationFrame(() => requestAnimationFrame(done));
        }));
    }

    // What one sees.

    async isLive(seconds = 10) {
        await this.says(/^Live/, seconds);
    }

    /** The line about the connection. */
    async says(pattern, seconds) {
        await until(async () => pattern.test(await textOf(this.connection)),
            `the page to say ${pattern}`, seconds);
    }

    /** The value of a figure, such as "Connected", as it is written. */
    async figure(term) {
        return await this.region("Now").evaluate((now, term) => inPage.figure(now, term), term);
    }

    /** The IDs in the table, in its order. */
    async ids() {
        return await this.table.evaluate((table) => inPage.ids(table));
    }

    /**
     * Waits in the page until a figure has that value; ask before it can have it. Returns at once
     * with {moment}, a promise of when that was, in Unix milliseconds.
     */
    async figureToBe(term, value) {
        const waiting = await this.region("Now").evaluateHandle(
            (now, [term, value]) => inPage.waiting(now, () => inPage.figure(now, term) === value),
            [term, value]);
        return momentOf(waiting, `${term} to be ${value}`);
    }

    /** The same for the status in the row of a client. */
    async rowToSay(id, word) {
        const waiting = await this.table.evaluateHandle(
            (table, [id, word]) => inPage.waiting(table, () => inPage.status(table, id) === word),
            [id, word]);
        return momentOf(waiting, `the row of ${id} to say ${word}`);
    }

    /** The same for the IDs in the table, all of them and in this order. */
    async rowsToBe(ids) {
        const waiting = await this.table.evaluateHandle(
            (table, wanted) => inPage.waiting(table, () => inPage.ids(table).join() === wanted),
            ids.join());
        return momentOf(waiting, `rows from ${ids[0]} to ${ids.at(-1)}`);
    }

    /** The same for the next key that is pressed in this field. */
    async keyIn(field) {
        const waiting = await field.evaluateHandle((element) => inPage.nextKey(element));

        return momentOf(waiting, "a key");
    }

    /** By how many pixels the page is wider than the window. */
    async overflow() {
        return await this.page.evaluate(() => {
            const { scrollWidth, clientWidth } = document.documentElement;
            return scrollWidth - clientWidth;
        });
    }

    /** What has texts of which a part cannot be seen. */
    async cutOff() {
        return await this.page.evaluate(() => inPage.cutOff());
    }
}

// In the dialog about a shutdown order.

export function numberField(dialog) {
    return dialog.getByRole("textbox", { name: "Type the number to confirm" });
}

export function orderButton(dialog) {
    return dialog.getByRole("button", { name: /^Shut down [\d,]+ machines?$/ });
}

/** Without waiting for it, and "" when it is not there. */
async function textOf(locator) {
    return (await locator.allTextContents()).join(" ").trim();
}

function momentOf(waiting, what, seconds = 10) {
    const late = new Promise((_, reject) => {
        const complain = () => reject(new Error(`${what}: not within ${seconds} s`));
        setTimeout(complain, limitMs(seconds)).unref();
    });
    const moment = Promise.race([waiting.evaluate(({ moment }) => moment), late]);

    // Nobody may be waiting any more when it is too late.
    moment.catch(() => {});
    return { moment };
}
