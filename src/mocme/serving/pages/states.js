// Loading, nothing there, gone wrong: the same everywhere.

import { say } from "./announce.js";
import { ServerError } from "./api.js";
import { el, named } from "./dom.js";
import * as route from "./route.js";

/** Grey lines in the place of what is on its way. */
export function skeleton(lines = 4, label = "Loading") {
  const widths = [62, 88, 74, 93, 55, 81];
  return el(
    "div",
    { class: "skeleton" },
    el("span", { class: "unseen" }, label),
    Array.from({ length: lines }, (_, n) =>
      el("div", { class: "bone", "aria-hidden": "true", vars: { share: `${widths[n % 6]}%` } }),
    ),
  );
}

/** There is nothing, and what to do about it. */
export function empty(title, ...hint) {
  return el("div", { class: "empty" }, el("p", { class: "empty-title" }, title), hint.length ? el("p", {}, hint) : null);
}

/** What went wrong, the server's remedy, names that were meant perhaps, and a button. */
export function failure(error, retry = null) {
  const near = error.near ?? [];
  const remedy = error instanceof ServerError ? error.remedy : "Reload the page.";
  return el(
    "div",
    { class: "failure", role: "group", "aria-label": "What went wrong" },
    el("p", { class: "failure-title" }, error.message),
    remedy ? el("p", {}, remedy) : null,
    near.length
      ? el(
          "p",
          {},
          "Near names: ",
          near.map((name, n) => [n ? ", " : "", el("a", { href: route.entity(name) }, named(name))]),
        )
      : null,
    retry ? el("button", { class: "button", type: "button", on: { click: retry } }, "Try again") : null,
  );
}

/** A place that is filled by `draw(await load())`, and says so where it cannot be. */
export function filled(load, draw, { lines = 4, label = "Loading", signal = null } = {}) {
  const box = el("div", { class: "filled" });
  async function go() {
    box.setAttribute("aria-busy", "true");
    box.replaceChildren(skeleton(lines, label));
    try {
      const answer = await load();
      if (signal?.aborted) return;
      box.replaceChildren(...[draw(answer)].flat(Infinity).filter(Boolean));
    } catch (error) {
      if (error.name === "AbortError") return;
      if (!(error instanceof ServerError)) console.error(error);
      box.replaceChildren(failure(error, go));
      say(error.message, true);
    } finally {
      box.removeAttribute("aria-busy");
    }
  }
  box.again = go;
  box.done = go();
  return box;
}
