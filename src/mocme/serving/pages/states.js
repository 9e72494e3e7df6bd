// Placeholders for content that is loading, empty or failed.

import { announce } from "./announce.js";
import { ServerError } from "./api.js";
import { el, nameText } from "./dom.js";
import * as route from "./route.js";

/** Grey lines as a placeholder for content that is loading. */
export function skeleton(lines = 4, label = "Loading") {
  const widths = [62, 88, 74, 93, 55, 81];
  return el(
    "div",
    { class: "skeleton" },
    el("span", { class: "visually-hidden" }, label),
    Array.from({ length: lines }, (_, n) =>
      el("div", {
        class: "skeleton-line",
        "aria-hidden": "true",
        vars: { share: `${widths[n % 6]}%` },
      }),
    ),
  );
}

/** A message that there is nothing to show, with a hint what to do. */
export function empty(title, ...hint) {
  return el(
    "div",
    { class: "empty" },
    el("p", { class: "empty-title" }, title),
    hint.length ? el("p", {}, hint) : null,
  );
}

/** An error with its remedy, similar names, and a button to retry. */
export function failure(error, retry = null) {
  const near = error.near ?? [];
  const remedy = error instanceof ServerError ? error.remedy : "Reload the page.";
  return el(
    "div",
    { class: "failure", role: "group", "aria-label": "Error" },
    el("p", { class: "failure-title" }, error.message),
    remedy ? el("p", {}, remedy) : null,
    near.length
      ? el(
          "p",
          {},
          "Similar names: ",
          near.map((name, n) => [
            n ? ", " : "",
            el("a", { href: route.entityHref(name) }, nameText(name)),
          ]),
        )
      : null,
    retry
      ? el("button", { class: "button", type: "button", on: { click: retry } }, "Try again")
      : null,
  );
}

/**
 * An element that is filled with `render(await load())`, or with the error of loading.
 * `.reload()` loads again; `.loaded` is the promise of the first load.
 */
export function asyncContent(load, render, { lines = 4, label = "Loading", signal = null } = {}) {
  const box = el("div", { class: "filled" });
  async function fill() {
    box.setAttribute("aria-busy", "true");
    box.replaceChildren(skeleton(lines, label));
    try {
      const answer = await load();
      if (signal?.aborted) return;
      box.replaceChildren(...[render(answer)].flat(Infinity).filter(Boolean));
    } catch (error) {
      if (error.name === "AbortError") return;
      if (!(error instanceof ServerError)) console.error(error);
      box.replaceChildren(failure(error, fill));
      announce(error.message, true);
    } finally {
      box.removeAttribute("aria-busy");
    }
  }
  box.reload = fill;
  box.loaded = fill();
  return box;
}
