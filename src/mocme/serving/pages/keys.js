// Keys: one for each thing, none while one types, all of them listed by "?".

import { recall, remember } from "./kept.js";

const bound = [];
let before = "";
let timer = 0;

/** Bind keys: {key, label, act}; "g r" is one after the other. They end with the signal. */
export function bind(list, signal = null) {
  bound.push(...list);
  signal?.addEventListener("abort", () => list.forEach((one) => bound.splice(bound.indexOf(one), 1)), { once: true });
}

/** All that are bound now. */
export const bindings = () => [...bound];

/** Single keys can be turned off, for who speaks to the computer. */
export const working = () => recall("keys") !== "off";
export const turn = (on) => remember("keys", on ? null : "off");

function typing(target) {
  return target instanceof Element && target.closest("input, textarea, select, [contenteditable], dialog") !== null;
}

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || typing(event.target)) return;
  if (!working() || document.querySelector("dialog[open]")) return;
  const typed = before ? `${before} ${event.key}` : event.key;
  clearTimeout(timer);
  before = "";
  // The last one that was bound is the view's own.
  const found = bound.findLast((one) => one.key === typed);
  if (found) {
    event.preventDefault();
    found.act();
  } else if (bound.some((one) => one.key.startsWith(`${event.key} `))) {
    before = event.key;
    timer = setTimeout(() => {
      before = "";
    }, 1200);
  }
});
