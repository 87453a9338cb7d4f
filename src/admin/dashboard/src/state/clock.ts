// The present, for everything on the page that shows an age.
import { signal } from "@preact/signals";

import { serverNowMs } from "../lib/api";

/** Milliseconds by this browser's clock, and Unix seconds by the server's; once a second. */
export const nowMs = signal(Date.now());
export const serverNow = signal(serverNowMs() / 1000);

export function tick(): void {
    nowMs.value = Date.now();
    serverNow.value = serverNowMs() / 1000;
}

setInterval(tick, 1000);
