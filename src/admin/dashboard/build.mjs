// Usage: node build.mjs OUT.c. Writes the files of the page as the C file that admin/dashboard.h
// declares.
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

async function bundle(entry) {
    const result = await build({ entryPoints: [entry], bundle: true, minify: true, write: false,
                                 format: "esm", target: "es2022" });
    return Buffer.from(result.outputFiles[0].contents);
}

const files = [
    ["/", "text/html; charset=utf-8", readFileSync("index.html")],
    ["/dashboard.js", "text/javascript; charset=utf-8", await bundle("main.js")],
    ["/dashboard.css", "text/css; charset=utf-8", await bundle("main.css")],
    ["/icon.svg", "image/svg+xml", readFileSync("icon.svg")],
    ["/licences.txt", "text/plain; charset=utf-8", Buffer.from("Nothing of others is in here.\n")],
];

const arrays = files.map(([, , bytes], i) =>
    `static const unsigned char bytes_${i}[] = {\n${[...bytes].join(",").replace(/(.{90,94},)/g, "$1\n")}};\n`);
const rows = files.map(([path, type, bytes], i) => {
    const etag = createHash("sha256").update(bytes).digest("hex").slice(0, 16);
    return `    {"${path}", "${type}", "\\"${etag}\\"", bytes_${i}, sizeof(bytes_${i})},\n`;
});
writeFileSync(process.argv[2], `#include "admin/dashboard.h"

${arrays.join("\n")}
const struct dashboard_file dashboard_files[] = {
${rows.join("")}};
const size_t dashboard_file_count = sizeof(dashboard_files) / sizeof(dashboard_files[0]);
`);
