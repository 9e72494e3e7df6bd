// Dialogs: one that asks for a text, one that asks whether to go on.

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

/** Whether to do what is asked about; leaving the dialog is no. */
export function confirmed({ title, text, submit }) {
  const id = unique("dialog");
  const cancel = el("button", { class: "button", type: "submit", value: "" }, "Cancel");
  const box = el(
    "dialog",
    { "aria-labelledby": id, "aria-describedby": `${id}-text` },
    el(
      "form",
      { method: "dialog", class: "stack" },
      el("h2", { id }, title),
      el("p", { id: `${id}-text` }, text),
      el("div", { class: "row end" }, cancel, el("button", { class: "button main-button", type: "submit", value: "ok" }, submit)),
    ),
  );
  document.body.append(box);
  return new Promise((resolve) => {
    box.addEventListener("close", () => {
      box.remove();
      resolve(box.returnValue === "ok");
    });
    box.showModal();
    cancel.focus();
  });
}
