// What canvases are drawn by. Style sheets follow the system's setting and the size of the window by
// themselves, canvases do not.
import { signal } from "@preact/signals";

const dark = matchMedia("(prefers-color-scheme: dark)");

/** Dark or light, and the size of type: with another value of it a canvas is to be made anew. */
export const look = signal(present());

export function remPx(): number {
    return parseFloat(getComputedStyle(document.documentElement).fontSize);
}

function present(): string {
    return `${dark.matches ? "dark" : "light"} ${remPx()}`;
}

dark.addEventListener("change", () => { look.value = present(); });
window.addEventListener("resize", () => { look.value = present(); });
