// The list of keys.

import { el, unique } from "./dom.js";
import * as keys from "./keys.js";

const IN_LISTS = [
  { key: "j", label: "Next suggestion of a list (arrow down does the same)" },
  { key: "k", label: "The one before (arrow up)" },
  { key: "w", label: "Show or hide the why (o does the same)" },
  { key: "a", label: "Accept it" },
  { key: "r", label: "Reject it" },
  { key: "s", label: "Skip it" },
];

/** Show it. */
export function showHelp() {
  if (document.querySelector("dialog[open]")) return;
  const title = unique("help");
  const all = keys.bindings();
  const everywhere = all.filter((one) => one.everywhere);
  const here = all.filter((one) => !one.everywhere);
  const check = el("input", { type: "checkbox", checked: keys.working(), on: { change: (event) => keys.turn(event.target.checked) } });
  const close = el("button", { class: "button main-button", type: "button", on: { click: () => box.close() } }, "Close");
  const box = el(
    "dialog",
    { class: "help", "aria-labelledby": title, on: { close: () => box.remove() } },
    el("h2", { id: title }, "Keys"),
    here.length ? table("In this view", here) : null,
    table("In a list of suggestions", IN_LISTS),
    table("Everywhere", everywhere),
    el("label", { class: "row check" }, check, " Single keys work"),
    el("div", { class: "row end" }, close),
  );
  document.body.append(box);
  box.showModal();
  close.focus();
}

function table(title, rows) {
  return el(
    "table",
    { class: "keys" },
    el("caption", {}, title),
    el(
      "tbody",
      {},
      rows.map((row) =>
        el("tr", {}, el("th", { scope: "row" }, row.key.split(" ").map((part, n) => [n ? " then " : "", el("kbd", {}, part)])), el("td", {}, row.label)),
      ),
    ),
  );
}
