// What npm has fetched, which lies below the build folder where node would not look for it.
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

export const ROOT = fileURLToPath(new URL("../../..", import.meta.url));

const WORK = resolve(process.env.CLISER_BROWSER ?? join(ROOT, "build/release/browser"));

const require = createRequire(join(WORK, "package.json"));

export const { chromium } = require("playwright-core");

/** The source of axe, to be evaluated in the page: its policy allows no script of others. */
export const axeSource = require("axe-core").source;

/** Where what is kept of a failed test goes. */
export const KEPT = join(WORK, "failed");
