// Messages: in a corner of the page, and for screen readers.

import { el } from "./dom.js";

/** Announce a text to screen readers; `urgent` interrupts them. */
export function announce(text, urgent = false) {
  const region = document.getElementById(urgent ? "urgent" : "polite");
  // Clear first: screen readers announce a repeated text only if it changed in between.
  region.textContent = "";
  setTimeout(() => {
    region.textContent = text;
  }, 30);
}

/** Show a message for a while, with at most one action: {label, act}. */
export function toast(content, { failed = false, action = null, seconds = 6 } = {}) {
  const box = document.getElementById("toasts");
  const dismiss = () => message.remove();
  const message = el("div", { class: failed ? "toast failed" : "toast" }, el("span", {}, content));
  if (action) {
    const act = () => {
      dismiss();
      action.act();
    };
    message.append(
      el("button", { class: "link-button", type: "button", on: { click: act } }, action.label),
    );
  }
  while (box.children.length > 2) box.firstElementChild.remove();
  box.append(message);
  announce(message.firstElementChild.textContent, failed);
  setTimeout(dismiss, seconds * 1000);
  return dismiss;
}
