// The colour scheme: light, dark, or that of the system. It is stored in this browser.

import { announce } from "./announce.js";
import { readItem, writeItem } from "./storage.js";

/** Dispatches "change" when the colours change. */
export const changes = new EventTarget();

const SYSTEM = "(prefers-color-scheme: dark)";
const MEDIA = { auto: SYSTEM, light: "not all", dark: "all" };
const ORDER = Object.keys(MEDIA);
export const TITLES = { auto: "as the system", light: "light", dark: "dark" };

/** "auto", "light" or "dark". */
export const theme = () => (readItem("theme") in MEDIA ? readItem("theme") : "auto");

/** Switch to the next of the three. */
export function cycle() {
  const next = ORDER[(ORDER.indexOf(theme()) + 1) % ORDER.length];
  document.getElementById("dark").media = MEDIA[next];
  writeItem("theme", next === "auto" ? null : next);
  changes.dispatchEvent(new Event("change"));
  announce(`Colour scheme: ${TITLES[next]}`);
}

matchMedia(SYSTEM).addEventListener("change", () => changes.dispatchEvent(new Event("change")));
