// Each main state of the page in dark and light: accessible as far as axe can tell, and no wider
// than the window from a phone to a wall.
import assert from "node:assert/strict";

import { pageTest } from "../lib/bench.mjs";
import { axeSource } from "../lib/packages.mjs";
import { eachState, stateFleet } from "../lib/states.mjs";

const SIZES = [[360, 780], [768, 1024], [1280, 800], [3840, 2160]];
const WORK_SIZE = { width: 1280, height: 800 };

const RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];

pageTest("each state is accessible, and fits from a phone to a wall", { allowed: { away: true } },
    async (bench) => {
        await stateFleet(bench);
        const view = await bench.visit({ viewport: WORK_SIZE });

        await eachState(bench, view, (state) => bench.part(state, async () => {
            await isAccessible(view);
            await fits(view);
        }));
    });

async function isAccessible(view) {
    for (const colorScheme of ["light", "dark"]) {
        await view.page.emulateMedia({ colorScheme });
        assert.deepEqual(await violations(view), [], colorScheme);
    }
}

async function violations(view) {
    await view.page.evaluate(axeSource);
    return await view.page.evaluate(async (rules) => {
        const { violations } = await window.axe.run({ runOnly: rules });
        return violations.flatMap(({ id, help, nodes }) =>
            nodes.map((node) => `${id}: ${help}: ${node.html} ${node.failureSummary}`));
    }, RULES);
}

async function fits(view) {
    for (const [width, height] of SIZES) {
        await view.page.setViewportSize({ width, height });
        await view.drawn();
        assert.ok(await view.overflow() <= 0, `wider than ${width}`);
        assert.deepEqual(await view.cutOff(), [], `at ${width}`);
    }
    await view.page.setViewportSize(WORK_SIZE);
}
