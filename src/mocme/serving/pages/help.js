// The list of keyboard shortcuts.

import { el, uniqueId } from "./dom.js";
import * as keys from "./keys.js";

const IN_LISTS = [
  { key: "j", label: "Next suggestion in a list (also arrow down)" },
  { key: "k", label: "Previous suggestion (also arrow up)" },
  { key: "w", label: "Show or hide the explanation (also o)" },
  { key: "a", label: "Accept the suggestion" },
  { key: "r", label: "Reject the suggestion" },
  { key: "s", label: "Skip the suggestion" },
];

/** Show the list in a dialog. */
export function showHelp() {
  if (document.querySelector("dialog[open]")) return;
  const title = uniqueId("help");
  const all = keys.bindings();
  const everywhere = all.filter((binding) => binding.everywhere);
  const inView = all.filter((binding) => !binding.everywhere);
  const checkbox = el("input", {
    type: "checkbox",
    checked: keys.enabled(),
    on: { change: (event) => keys.setEnabled(event.target.checked) },
  });
  const close = el(
    "button",
    { class: "button primary-button", type: "button", on: { click: () => box.close() } },
    "Close",
  );
  const box = el(
    "dialog",
    { class: "help", "aria-labelledby": title, on: { close: () => box.remove() } },
    el("h2", { id: title }, "Keyboard shortcuts"),
    inView.length ? table("In this view", inView) : null,
    table("In a list of suggestions", IN_LISTS),
    table("Everywhere", everywhere),
    el("label", { class: "row check" }, checkbox, " Enable single-key shortcuts"),
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
        el(
          "tr",
          {},
          el(
            "th",
            { scope: "row" },
            row.key.split(" ").map((part, n) => [n ? " then " : "", el("kbd", {}, part)]),
          ),
          el("td", {}, row.label),
        ),
      ),
    ),
  );
}
