// Form fields with a label, a hint, and an error message next to the field.

import { el, uniqueId } from "./dom.js";

/** An error message for inputs; `show()` without a text clears it, and so does typing. */
export function errorLine(...inputs) {
  const line = el("p", { class: "field-error", id: uniqueId("error"), role: "alert" });
  for (const input of inputs) input.addEventListener("input", () => line.show());
  return Object.assign(line, {
    show(text = "") {
      line.textContent = text;
      for (const input of inputs) {
        if (text) input.setAttribute("aria-invalid", "true");
        else input.removeAttribute("aria-invalid");
      }
    },
    inputs,
  });
}

/** An input with label, hint and error message; the parts are `.input` and `.error`. */
export function labelled(label, input, { hint = null } = {}) {
  input.id ||= uniqueId("field");
  const error = errorLine(input);
  const hintLine = hint ? el("p", { class: "hint", id: uniqueId("hint") }, hint) : null;
  input.setAttribute("aria-describedby", [hintLine?.id, error.id].filter(Boolean).join(" "));
  const box = el(
    "div",
    { class: "labelled" },
    el("label", { class: "label", for: input.id }, label),
    input,
    hintLine,
    error,
  );
  return Object.assign(box, { input, error });
}

/** Rows that can be added and removed. `makeRow()` creates one; its first input gets focus. */
export function rowList({ title, add, makeRow }) {
  const list = el("div", { class: "add-rows" });
  const addButton = el("button", { class: "button", type: "button", on: { click: addRow } }, add);
  function addRow() {
    const row = makeRow();
    const remove = el(
      "button",
      { class: "link-button", type: "button", "aria-label": `Remove: ${title}` },
      "Remove",
    );
    remove.addEventListener("click", () => {
      row.remove();
      addButton.focus();
    });
    row.append(remove);
    list.append(row);
    row.querySelector("input, select")?.focus();
  }
  return Object.assign(
    el("div", { class: "stack" }, list, el("div", { class: "row" }, addButton)),
    { rows: () => [...list.children] },
  );
}
