// What fields of a form share: a label, a hint, and what is wrong, told beside the field.

import { el, unique } from "./dom.js";

/** What a line of a form is refused for; `tell()` without a text, or typing, takes it back. */
export function trouble(...inputs) {
  const line = el("p", { class: "field-trouble", id: unique("trouble"), role: "alert" });
  for (const input of inputs) input.addEventListener("input", () => line.tell());
  return Object.assign(line, {
    tell(text = "") {
      line.textContent = text;
      for (const input of inputs) {
        if (text) input.setAttribute("aria-invalid", "true");
        else input.removeAttribute("aria-invalid");
      }
    },
    inputs,
  });
}

/** A labelled input with its hint and its trouble, as `.input` and `.trouble`. */
export function labelled(label, input, { hint = null } = {}) {
  input.id ||= unique("field");
  const told = trouble(input);
  const says = hint ? el("p", { class: "hint", id: unique("hint") }, hint) : null;
  input.setAttribute("aria-describedby", [says?.id, told.id].filter(Boolean).join(" "));
  const box = el("div", { class: "labelled" }, el("label", { class: "label", for: input.id }, label), input, says, told);
  return Object.assign(box, { input, trouble: told });
}

/** Rows that one can add and take away; `make()` gives a row that holds a place to begin. */
export function rows({ title, add, make }) {
  const list = el("div", { class: "add-rows" });
  const more = el("button", { class: "button", type: "button", on: { click: begin } }, add);
  function begin() {
    const row = make();
    const remove = el("button", { class: "quiet", type: "button", "aria-label": `Leave out: ${title}` }, "Leave out");
    remove.addEventListener("click", () => {
      row.remove();
      more.focus();
    });
    row.append(remove);
    list.append(row);
    row.querySelector("input, select")?.focus();
  }
  return Object.assign(el("div", { class: "stack" }, list, el("div", { class: "row" }, more)), { rows: () => [...list.children] });
}
