// Small bars beside numbers. The number says it all; the bar is for the eye.

import { el, named } from "./dom.js";
import { likelihood } from "./fact.js";
import { percent, score, signed } from "./format.js";
import * as runs from "./runs.js";

/** A bar of a share of 1. */
export function bar(share, kind = "") {
  const part = Math.max(0, Math.min(1, share || 0));
  return el("span", { class: `bar ${kind}`, "aria-hidden": "true", vars: { share: `${part * 100}%` } });
}

/** A bar to the right of the middle for what is positive, to the left for what is negative. */
export function change(number, largest) {
  const part = largest ? Math.min(1, Math.abs(number) / largest) : 0;
  const kind = number < 0 ? "against" : "for";
  return el("span", { class: `change ${kind}`, "aria-hidden": "true", vars: { share: `${part * 50}%` } });
}

/** The probability of a prediction, or its score where the run has no probabilities. */
export function chance(prediction) {
  const likely = likelihood(prediction);
  if (likely === null) {
    const text = prediction.known ? "known" : score(prediction.score);
    const title = prediction.known ? "the graph holds this fact" : "score; this run has no probabilities";
    return el("span", { class: "chance" }, el("span", { class: "chance-number", title }, text));
  }
  return el(
    "span",
    { class: "chance" },
    el("span", { class: "chance-number" }, percent(likely)),
    bar(likely, "wide"),
  );
}

/** Rows of modality weights: name, bar, percent. `extra(name)` adds to a row. */
export function weights(table, { present = {}, extra = null } = {}) {
  const names = [...new Set([...Object.keys(table), ...Object.keys(present)])];
  return el(
    "ul",
    { class: "weights" },
    names.map((name) => {
      const missing = name in present && !present[name];
      return el(
        "li",
        { class: missing ? "weight missing" : "weight" },
        el("span", { class: "weight-name" }, named(name)),
        el("span", { class: "weight-bar" }, bar(table[name] ?? 0, `shade-${runs.shade(name)}`)),
        el("span", { class: "weight-number" }, missing ? "not there" : percent(table[name] ?? 0)),
        extra?.(name),
      );
    }),
  );
}

/** All weights in one line, as parts of a bar. */
export function strip(table) {
  const held = Object.entries(table).filter(([, weight]) => weight > 0);
  if (!held.length) return null;
  const text = held.map(([name, weight]) => `${name} ${percent(weight)}`).join(", ");
  return el(
    "span",
    { class: "strip", role: "img", "aria-label": `Weights of the answer: ${text}`, title: text },
    held.map(([name, weight]) => el("span", { class: `shade-${runs.shade(name)}`, vars: { part: weight } })),
  );
}

/** What withholding changes, as text. */
export const changed = (number) => (number === null ? "–" : signed(number));
