// Small bars next to numbers; they are hidden from screen readers, which read the number.

import { el, nameText } from "./dom.js";
import { shownProbability } from "./fact.js";
import { percent, score, signed } from "./format.js";
import * as runs from "./runs.js";

/** A bar for a share between 0 and 1. */
export function bar(share, kind = "") {
  const width = Math.max(0, Math.min(1, share || 0));
  return el("span", {
    class: `bar ${kind}`,
    "aria-hidden": "true",
    vars: { share: `${width * 100}%` },
  });
}

/** A bar that extends from the middle: to the right if positive, to the left if negative. */
export function changeBar(number, largest) {
  const width = largest ? Math.min(1, Math.abs(number) / largest) : 0;
  const kind = number < 0 ? "against" : "for";
  return el("span", {
    class: `change ${kind}`,
    "aria-hidden": "true",
    vars: { share: `${width * 50}%` },
  });
}

/** The probability of a prediction, or its score if the run has no probabilities. */
export function probabilityLabel(prediction) {
  const probability = shownProbability(prediction);
  if (probability === null) {
    const text = prediction.known ? "known" : score(prediction.score);
    const title = prediction.known
      ? "the graph contains this fact"
      : "score; this run has no probabilities";
    return el(
      "span",
      { class: "probability" },
      el("span", { class: "probability-number", title }, text),
    );
  }
  return el(
    "span",
    { class: "probability" },
    el("span", { class: "probability-number" }, percent(probability)),
    bar(probability, "wide"),
  );
}

/** Rows of modality weights: name, bar, percentage. `extra(name)` is appended to a row. */
export function weightList(table, { present = {}, extra = null } = {}) {
  const names = [...new Set([...Object.keys(table), ...Object.keys(present)])];
  return el(
    "ul",
    { class: "weights" },
    names.map((name) => {
      const missing = name in present && !present[name];
      return el(
        "li",
        { class: missing ? "weight missing" : "weight" },
        el("span", { class: "weight-name" }, nameText(name)),
        el("span", { class: "weight-bar" }, bar(table[name] ?? 0, `shade-${runs.shade(name)}`)),
        el("span", { class: "weight-number" }, missing ? "absent" : percent(table[name] ?? 0)),
        extra?.(name),
      );
    }),
  );
}

/** All weights as segments of one bar. */
export function weightStrip(table) {
  const positive = Object.entries(table).filter(([, weight]) => weight > 0);
  if (!positive.length) return null;
  const text = positive.map(([name, weight]) => `${name} ${percent(weight)}`).join(", ");
  return el(
    "span",
    {
      class: "weight-strip",
      role: "img",
      "aria-label": `Weights of the answer: ${text}`,
      title: text,
    },
    positive.map(([name, weight]) =>
      el("span", { class: `shade-${runs.shade(name)}`, vars: { part: weight } }),
    ),
  );
}

/** The contribution of a modality as text; null if the entity does not have it. */
export const changeText = (number) => (number === null ? "–" : signed(number));
