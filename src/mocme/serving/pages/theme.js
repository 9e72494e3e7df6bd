// Light, dark, or as the system says; remembered.

import { say } from "./announce.js";
import { recall, remember } from "./kept.js";

/** Tells "change". */
export const changes = new EventTarget();

const ORDER = ["auto", "light", "dark"];
export const TITLES = { auto: "as the system", light: "light", dark: "dark" };

export const theme = () => document.documentElement.dataset.theme ?? "auto";

/** The next one of the three. */
export function turn() {
  const next = ORDER[(ORDER.indexOf(theme()) + 1) % ORDER.length];
  document.documentElement.dataset.theme = next;
  remember("theme", next === "auto" ? null : next);
  changes.dispatchEvent(new Event("change"));
  say(`Colours: ${TITLES[next]}`);
  return next;
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => changes.dispatchEvent(new Event("change")));

/** Fill in what was remembered, where the early script could not. */
export function restore() {
  const kept = recall("theme");
  if (kept === "light" || kept === "dark") document.documentElement.dataset.theme = kept;
}
