// A dialog that asks for one text.

import { el, unique } from "./dom.js";

/** The text that was given, without spaces around it; null where the dialog was left. */
export function prompted({ title, text, label, submit, field = {} }) {
  const id = unique("dialog");
  const input = el("input", { id: `${id}-field`, class: "field", type: "text", required: true, ...field });
  const box = el(
    "dialog",
    { "aria-labelledby": id },
    el(
      "form",
      { method: "dialog", class: "stack" },
      el("h2", { id }, title),
      el("p", {}, text),
      el("label", { class: "label", for: input.id }, label),
      input,
      el(
        "div",
        { class: "row end" },
        el("button", { class: "button", type: "button", on: { click: () => box.close("") } }, "Cancel"),
        el("button", { class: "button main-button", type: "submit", value: "ok" }, submit),
      ),
    ),
  );
  document.body.append(box);
  return new Promise((resolve) => {
    box.addEventListener("close", () => {
      const given = box.returnValue === "ok" ? input.value.trim() : "";
      box.remove();
      resolve(given || null);
    });
    box.showModal();
    input.focus();
    input.select();
  });
}
