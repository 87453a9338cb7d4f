// Dark or light, by the system's setting: style sheets follow it by themselves, canvases do not.
import { signal } from "@preact/signals";

const dark = matchMedia("(prefers-color-scheme: dark)");

export const scheme = signal(dark.matches ? "dark" : "light");

dark.addEventListener("change", () => { scheme.value = dark.matches ? "dark" : "light"; });
