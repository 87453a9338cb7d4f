// Tests the page in a real browser, against the real cliserd with real clients. Needs what
// scripts/install-dependencies installs, and what npm fetches when the release is built.
//
//     node run.mjs [NAME…]                        all, or NAME.test.mjs alone
//     node --test-name-pattern=wave run.mjs       tests with such a name
//
// CLISER_BIN is the folder with the programs, and CLISER_BROWSER the one with the packages; by
// default they are those of build/release. What is kept of a failed test lies there in failed/.
import { readdirSync, rmSync } from "node:fs";
import { after, test } from "node:test";

import { browser, closeBrowser } from "./lib/browser.mjs";
import { KEPT } from "./lib/packages.mjs";

const SUFFIX = ".test.mjs";

const folder = new URL("tests/", import.meta.url);
const names = process.argv.slice(2);

rmSync(KEPT, { recursive: true, force: true });
after(closeBrowser);

// First of all, so that each of the others need not say it.
test("Chromium runs", async (t) => t.diagnostic(`Chromium ${(await browser()).version()}`));

const isWanted = (name) => names.length === 0 || names.includes(name);

for (const file of readdirSync(folder).sort()) {
    if (file.endsWith(SUFFIX) && isWanted(file.slice(0, -SUFFIX.length)))
        await import(new URL(file, folder));
}
