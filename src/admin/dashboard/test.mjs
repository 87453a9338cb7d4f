// Runs the unit tests of the modules that need no browser: bundles each to JavaScript, since Node
// 18 reads no TypeScript, and hands them to node's own test runner.
import { spawnSync } from "node:child_process";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";

const folder = dirname(fileURLToPath(import.meta.url));
const out = await mkdtemp(join(tmpdir(), "cliser-dashboard-"));

try {
    const tests = (await readdir(join(folder, "tests"))).filter((name) => name.endsWith(".test.ts"));
    await build({
        absWorkingDir: folder,
        entryPoints: tests.map((name) => join("tests", name)),
        outdir: out,
        outExtension: { ".js": ".mjs" },
        bundle: true,
        platform: "node",
        format: "esm",
        target: "node18",
        logLevel: "warning",
    });
    const files = tests.map((name) => join(out, name.replace(/\.ts$/, ".mjs")));
    process.exitCode = spawnSync(process.execPath, ["--test", ...files], { stdio: "inherit" }).status ?? 1;
} finally {
    await rm(out, { recursive: true });
}
