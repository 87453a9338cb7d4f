// Measures what the page costs: its bytes, the time until the first numbers are there, and the
// processor time of cliserd with 15,000 clients while nobody, one and five are looking at it.
//
//     node measure.mjs
import { readFileSync } from "node:fs";
import { setTimeout as pause } from "node:timers/promises";
import { gzipSync } from "node:zlib";

import { Bench } from "./lib/bench.mjs";
import { closeBrowser } from "./lib/browser.mjs";

const PATHS = ["/", "/dashboard.js", "/dashboard.css", "/icon.svg", "/licences.txt"];

const LOADS = 10;
const CLIENTS = 15_000;
const VIEWERS = [0, 1, 5];
const SETTLE_S = 5;
const MEASURED_S = 30;

// What Linux counts processor time in, on everything that Debian runs on.
const TICKS_PER_S = 100;

async function printBytes(server) {
    for (const path of PATHS) {
        const bytes = Buffer.from(await (await fetch(server.origin + path)).arrayBuffer());
        const packed = gzipSync(bytes).length;
        console.log(`${path.padEnd(16)} ${bytes.length} bytes, ${packed} if a proxy packs it`);
    }
}

async function printLoadTime(bench) {
    const view = await bench.open();
    const times = [];

    for (let i = 0; i < LOADS; i++) {
        await view.page.reload({ waitUntil: "commit" });
        times.push(await view.page.evaluate(() => inPage.firstNumber("Connected")));
    }
    times.sort((a, b) => a - b);
    const median = (times[LOADS / 2 - 1] + times[LOADS / 2]) / 2;
    console.log(`navigation to the first numbers: median of ${LOADS} ${median.toFixed(0)} ms, ` +
        `from ${times[0].toFixed(0)} to ${times.at(-1).toFixed(0)}`);
    await view.watched.context.close();
}

function cpuSeconds(pid) {
    const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1].split(" ");

    return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_S;
}

async function printCpu(bench) {
    const { pid } = bench.server;
    let open = 0;

    await bench.crowd(CLIENTS);
    for (const viewers of VIEWERS) {
        for (; open < viewers; open++)
            await bench.open();
        await pause(SETTLE_S * 1000);
        const before = cpuSeconds(pid);
        await pause(MEASURED_S * 1000);
        const percent = (cpuSeconds(pid) - before) / MEASURED_S * 100;
        console.log(`cliserd with ${CLIENTS} clients, ${viewers} pages open: ` +
            `${percent.toFixed(2)} % of one processor`);
    }
}

const bench = new Bench();
try {
    await bench.startServer({ keepalive: "10s" });
    await printBytes(bench.server);
    await printLoadTime(bench);
    await printCpu(bench);
} finally {
    await bench.close();
    await closeBrowser();
}
