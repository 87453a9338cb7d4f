// Makes the pictures of the page in docs/images/: its main states, dark and light, on a phone and
// on a desk. Takes five minutes, in which the charts get something to show.
//
//     node screenshots.mjs
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";

import { Bench } from "./lib/bench.mjs";
import { closeBrowser } from "./lib/browser.mjs";
import { ROOT } from "./lib/packages.mjs";
import { GOES, refuse, STAYS } from "./lib/programs.mjs";

const IMAGES = join(ROOT, "docs/images");

const SIZES = { desktop: { width: 1280, height: 720 }, phone: { width: 360, height: 780 } };

const LIFE_S = 240;

// In the second wave nobody goes within the time that the pictures take.
const SLOW = "sleep 60; kill $PPID";

async function startFleet(bench) {
    for (let i = 1; i <= 12; i++)
        await bench.agent(`web-${String(i).padStart(2, "0")}`, i === 7 ? STAYS : GOES);
    for (const id of ["db-1", "db-2", "nas-7", "nas-8", "pi-garage", "pi-kitchen", "backup"])
        await bench.agent(id, SLOW);
    await bench.crowd(240, { prefix: "sensor-" });
    for (const id of ["nas-9", "pi-attic", "web-13"])
        await (await bench.agent(id)).stop();
}

/** Machines that come and go, and some that may not. */
async function live(bench) {
    const end = Date.now() + LIFE_S * 1000;

    for (let round = 0; Date.now() < end; round++) {
        const holdS = 10 + (round * 7) % 20;
        const options = { prefix: `test-${round % 3}-`, hold: `${holdS}s` };
        bench.startCrowd(8 + (round * 13) % 30, options);
        if (round % 5 === 2)
            await refuse(bench.server, 2);
        await pause(holdS * 800);
    }
}

function scrollToTop(view) {
    return view.page.evaluate(() => window.scrollTo(0, 0));
}

function scrollTo(region) {
    return region.evaluate((element) => element.scrollIntoView({ block: "start" }));
}

/** The same state four times; of a dialog on a desk nothing but that. */
async function shoot(view, name, { dialog, prepare = async () => {} } = {}) {
    for (const [device, size] of Object.entries(SIZES)) {
        await view.page.setViewportSize(size);
        for (const colorScheme of ["light", "dark"]) {
            await view.page.emulateMedia({ colorScheme });
            await prepare();
            await view.drawn();
            const path = join(IMAGES, `page-${name}-${device}-${colorScheme}.png`);
            const isDialogAlone = dialog && device === "desktop";
            await (isDialogAlone ? dialog : view.page).screenshot({ path });
        }
    }
}

async function shootAll(bench) {
    const view = await bench.visit({ viewport: SIZES.desktop });

    await view.tokenField.waitFor();
    await shoot(view, "token");
    await view.enter();
    await view.page.getByRole("radio", { name: "5 min", exact: true }).check();
    await live(bench);
    await shoot(view, "live", { prepare: () => scrollToTop(view) });

    await shoot(view, "fleet", { prepare: () => scrollTo(view.region("Fleet")) });

    let dialog = await view.openClient("nas-7");
    await dialog.getByRole("button", { name: "Ping" }).click();
    await dialog.getByText(/It answered/).waitFor();
    await shoot(view, "client", { dialog });
    await dialog.getByRole("button", { name: "Close" }).click();

    dialog = await view.dryRun(["web-*", "db-*, nas-*"], { grace: "20s" });
    await shoot(view, "shutdown", { dialog });
    await view.confirm(dialog, 16);
    await dialog.waitFor({ state: "hidden" });
    await view.page.getByText(/wave 2 of 2/).first().waitFor({ timeout: 30_000 });
    await view.region("Shutdown order").getByText(/although its wave is over/).waitFor();
    await shoot(view, "order", { prepare: () => view.button("Show").click() });

    await bench.server.stop();
    await view.says(/^Server away/, 20);
    await shoot(view, "away", { prepare: () => scrollToTop(view) });
}

mkdirSync(IMAGES, { recursive: true });
const bench = new Bench();
try {
    await bench.startServer({ allowed: { away: true } });
    await startFleet(bench);
    await shootAll(bench);
} finally {
    await bench.close();
    await closeBrowser();
}
