// Keyboard shortcuts; they are inactive while the user types, and "?" lists them.

import { readItem, writeItem } from "./storage.js";

const bound = [];
let prefix = "";
let timer = 0;

/** Bind keys [{key, label, act}] until the signal aborts; "g r" is a sequence of two keys. */
export function bind(list, signal = null) {
  bound.push(...list);
  signal?.addEventListener(
    "abort",
    () => list.forEach((binding) => bound.splice(bound.indexOf(binding), 1)),
    { once: true },
  );
}

/** The current bindings. */
export const bindings = () => [...bound];

/** Whether shortcuts are enabled; users of speech input may disable them. */
export const enabled = () => readItem("keys") !== "off";
export const setEnabled = (on) => writeItem("keys", on ? null : "off");

function isTyping(target) {
  return (
    target instanceof Element &&
    target.closest("input, textarea, select, [contenteditable], dialog") !== null
  );
}

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || isTyping(event.target))
    return;
  if (!enabled() || document.querySelector("dialog[open]")) return;
  const typed = prefix ? `${prefix} ${event.key}` : event.key;
  clearTimeout(timer);
  prefix = "";
  // The last binding of a key wins: views are bound after the page.
  const match = bound.findLast((binding) => binding.key === typed);
  if (match) {
    event.preventDefault();
    match.act();
  } else if (bound.some((binding) => binding.key.startsWith(`${event.key} `))) {
    prefix = event.key;
    timer = setTimeout(() => {
      prefix = "";
    }, 1200);
  }
});
