// Telling: in a corner of the page, and to who cannot see it.

import { el } from "./dom.js";

/** Tell a screen reader; `urgent` interrupts it. */
export function say(text, urgent = false) {
  const place = document.getElementById(urgent ? "urgent" : "polite");
  // The same text twice is told twice only if it was gone in between.
  place.textContent = "";
  setTimeout(() => {
    place.textContent = text;
  }, 30);
}

/** Show a message for a while, with at most one action: {label, act}. */
export function toast(content, { bad = false, action = null, seconds = 6 } = {}) {
  const box = document.getElementById("toasts");
  const gone = () => message.remove();
  const message = el("div", { class: bad ? "toast bad" : "toast" }, el("span", {}, content));
  if (action) {
    const act = () => {
      gone();
      action.act();
    };
    message.append(el("button", { class: "quiet", type: "button", on: { click: act } }, action.label));
  }
  while (box.children.length > 2) box.firstElementChild.remove();
  box.append(message);
  say(message.firstElementChild.textContent, bad);
  setTimeout(gone, seconds * 1000);
  return gone;
}
