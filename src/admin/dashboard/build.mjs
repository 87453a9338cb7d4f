// Builds the page: bundles it, gathers the licences of what went into the bundle, and writes all
// files as one C file, which src/admin/dashboard.h describes.
//
//     npm ci && node build.mjs OUT.c
//
// Checks no types: "npm run check" does.
import { createHash } from "node:crypto";
import { readFile, readdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";

// What people who keep their browser up to date have had for two years.
const BROWSERS = ["chrome128", "firefox128", "safari18"];

const BYTES_PER_LINE = 24;

const folder = dirname(fileURLToPath(import.meta.url));

/** Script and style, and the packages that they are made of. */
async function bundle() {
    const result = await build({
        absWorkingDir: folder,
        entryPoints: { "dashboard": "src/main.tsx", "dashboard-style": "style/main.css" },
        outdir: "out",
        bundle: true,
        minify: true,
        format: "esm",
        target: BROWSERS,
        legalComments: "none",
        metafile: true,
        write: false,
        logLevel: "warning",
    });
    const find = (name) => result.outputFiles.find((file) => file.path.endsWith(name)).contents;

    return {
        script: find("dashboard.js"),
        style: find("dashboard-style.css"),
        packages: packagesOf(Object.keys(result.metafile.inputs)),
    };
}

/**
 * The folders of the packages that these files are of, by name: node_modules/preact/dist/preact.mjs
 * is of preact, ../node_modules/@a/b/c.js of @a/b.
 */
function packagesOf(inputs) {
    const homes = new Map();

    for (const input of inputs) {
        const match = /^(?:.*\/)?node_modules\/((?:@[^/]+\/)?[^/]+)(?=\/)/.exec(input);
        if (match)
            homes.set(match[1], join(folder, match[0]));
    }
    return new Map([...homes].sort());
}

async function licences(packages) {
    if (packages.size === 0)
        throw new Error("the page is made of no package at all, which cannot be");
    let text = "The page is made with the packages below. These are their licences.\n";

    for (const [name, home] of packages) {
        const { version } = JSON.parse(await readFile(join(home, "package.json"), "utf8"));
        const file = (await readdir(home)).find((entry) => /^licen[cs]e/i.test(entry));

        if (!file)
            throw new Error(`${name} has no licence beside it, so it cannot be given away`);
        const licence = await readFile(join(home, file), "utf8");
        text += `\n${"=".repeat(80)}\n${name} ${version}\n${"=".repeat(80)}\n\n${licence.trim()}\n`;
    }
    return Buffer.from(text);
}

function cFile(files) {
    const arrays = files.map((file, i) => `static const unsigned char file_${i}[] = {\n${cBytes(file.bytes)}};\n`);
    const rows = files.map((file, i) => `    {${cText(file.path)}, ${cText(file.type)}, ` +
        `${cText(etag(file.bytes))}, file_${i}, sizeof(file_${i})},\n`);

    return "/* Made by src/admin/dashboard/build.mjs; not to be edited. */\n" +
        `#include "admin/dashboard.h"\n\n${arrays.join("\n")}\n` +
        `const struct dashboard_file dashboard_files[] = {\n${rows.join("")}};\n\n` +
        "const size_t dashboard_file_count = sizeof(dashboard_files) / sizeof(dashboard_files[0]);\n";
}

// Numbers, since a string literal of C may be cut after 4095 bytes.
function cBytes(bytes) {
    let lines = "";

    for (let i = 0; i < bytes.length; i += BYTES_PER_LINE)
        lines += `    ${[...bytes.subarray(i, i + BYTES_PER_LINE)].join(",")},\n`;
    return lines;
}

// Good for paths, types and tags of ours, which are plain ASCII.
function cText(text) {
    return JSON.stringify(text);
}

function etag(bytes) {
    return `"${createHash("sha256").update(bytes).digest("hex").slice(0, 16)}"`;
}

async function main(out) {
    const { script, style, packages } = await bundle();

    const files = [
        { path: "/", type: "text/html; charset=utf-8", bytes: await readFile(join(folder, "index.html")) },
        { path: "/dashboard.js", type: "text/javascript; charset=utf-8", bytes: script },
        { path: "/dashboard.css", type: "text/css; charset=utf-8", bytes: style },
        { path: "/icon.svg", type: "image/svg+xml", bytes: await readFile(join(folder, "icon.svg")) },
        { path: "/licences.txt", type: "text/plain; charset=utf-8", bytes: await licences(packages) },
    ];
    await writeFile(out, cFile(files));
}

if (process.argv.length !== 3) {
    console.error("usage: node build.mjs OUT.c");
    process.exit(2);
}
await main(process.argv[2]);
