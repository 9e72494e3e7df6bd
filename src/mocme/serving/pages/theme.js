// Light, dark, or as the system says; remembered.

import { say } from "./announce.js";
import { recall, remember } from "./kept.js";

/** Tells "change". */
export const changes = new EventTarget();

const SYSTEM = "(prefers-color-scheme: dark)";
const MEDIA = { auto: SYSTEM, light: "not all", dark: "all" };
const ORDER = Object.keys(MEDIA);
export const TITLES = { auto: "as the system", light: "light", dark: "dark" };

/** "auto", "light" or "dark". */
export const theme = () => (recall("theme") in MEDIA ? recall("theme") : "auto");

/** The next one of the three. */
export function turn() {
  const next = ORDER[(ORDER.indexOf(theme()) + 1) % ORDER.length];
  document.getElementById("dark").media = MEDIA[next];
  remember("theme", next === "auto" ? null : next);
  changes.dispatchEvent(new Event("change"));
  say(`Colours: ${TITLES[next]}`);
}

matchMedia(SYSTEM).addEventListener("change", () => changes.dispatchEvent(new Event("change")));
