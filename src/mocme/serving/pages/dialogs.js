// Dialogs: one that asks for a text, one that asks for confirmation.

import { el, uniqueId } from "./dom.js";

/** Ask for a text. Returns it without surrounding spaces, or null if the dialog was cancelled. */
export function askText({ title, text, label, submit, field = {} }) {
  const id = uniqueId("dialog");
  const input = el("input", {
    id: `${id}-field`,
    class: "field",
    type: "text",
    required: true,
    ...field,
  });
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
        el(
          "button",
          { class: "button", type: "button", on: { click: () => box.close("") } },
          "Cancel",
        ),
        el("button", { class: "button primary-button", type: "submit", value: "ok" }, submit),
      ),
    ),
  );
  document.body.append(box);
  return new Promise((resolve) => {
    box.addEventListener("close", () => {
      const entered = box.returnValue === "ok" ? input.value.trim() : "";
      box.remove();
      resolve(entered || null);
    });
    box.showModal();
    input.focus();
    input.select();
  });
}

/** Ask for confirmation. Closing the dialog counts as no. */
export function askConfirmation({ title, text, submit }) {
  const id = uniqueId("dialog");
  const cancel = el("button", { class: "button", type: "submit", value: "" }, "Cancel");
  const box = el(
    "dialog",
    { "aria-labelledby": id, "aria-describedby": `${id}-text` },
    el(
      "form",
      { method: "dialog", class: "stack" },
      el("h2", { id }, title),
      el("p", { id: `${id}-text` }, text),
      el(
        "div",
        { class: "row end" },
        cancel,
        el("button", { class: "button primary-button", type: "submit", value: "ok" }, submit),
      ),
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
