// Suggestions in a list: probability, fact, the why behind a button, a decision by a key.

import { say } from "./announce.js";
import * as api from "./api.js";
import { chance, strip } from "./bars.js";
import { el, icon, unique } from "./dom.js";
import { already, key, sentence, spoken } from "./fact.js";
import { percent } from "./format.js";
import { decisionButtons, decideHere } from "./deciding.js";
import * as outbox from "./outbox.js";
import * as runs from "./runs.js";
import { why } from "./why.js";

/**
 * A list of predictions.
 *
 * `here`: an entity that needs no link; `strong`: "head" or "tail", the side that was asked for.
 */
export function suggestions(predictions, { here = null, strong = null, run = null, signal = null } = {}) {
  const rows = predictions.map((prediction) => row(prediction, { here, strong, run, signal }));
  const list = el("ol", { class: "suggestions", "data-keys": "suggestions" }, rows);
  const refresh = () => rows.forEach((one) => one.refresh());
  outbox.changes.addEventListener("change", refresh, signal ? { signal } : {});
  list.addEventListener("keydown", (event) => keys(event, list));
  earlier(predictions, signal).then((found) => rows.forEach((one) => one.recall(found.get(key(one.prediction)))));
  return list;
}

/** The newest decision on each fact, where all are about one entity. */
async function earlier(predictions, signal) {
  const found = new Map();
  const shared = ["head", "tail"].map((side) => predictions[0]?.[side]).find((name) => name !== undefined && predictions.every((one) => one.head === name || one.tail === name));
  if (shared === undefined) return found;
  try {
    const { reviews } = await api.get("v1/reviews", { name: shared, limit: 1000, ...runs.which() }, signal ? { signal } : {});
    reviews.forEach((review) => found.has(key(review)) || found.set(key(review), review));
  } catch {
    // Only marks are missing then; what is wrong shows where decisions are made.
  }
  return found;
}

const BOTH = "Turned around it says the same: it is shown once, and a decision is kept for both facts.";
const WORDS = { accept: "accepted", reject: "rejected", skip: "skipped" };

function row(prediction, { here, strong, run, signal }) {
  const id = unique("why");
  const panel = el("div", { id, class: "why-panel", hidden: true });
  const opener = el(
    "button",
    { class: "opener", type: "button", "aria-expanded": "false", "aria-controls": id, "aria-label": `Why ${spoken(prediction)}?` },
    "Why",
    icon("m6 9 6 6 6-6"),
  );
  opener.addEventListener("click", () => {
    const open = panel.hidden;
    panel.hidden = !open;
    opener.setAttribute("aria-expanded", String(open));
    if (open && !panel.firstChild) panel.append(why(prediction, { run, signal }));
  });
  const actions = prediction.known ? null : decisionButtons(prediction);
  const before = el("span", { class: "hint" });
  let review = null;
  const node = el(
    "li",
    { class: "suggestion" },
    el(
      "div",
      { class: "suggestion-row" },
      chance(prediction),
      el(
        "div",
        { class: "suggestion-fact" },
        sentence(prediction, { here, strong }),
        prediction.known ? el("span", { class: "tag" }, "known") : null,
        already(prediction),
        prediction.symmetric ? el("span", { class: "hint", title: BOTH }, "and the other way round") : null,
        prediction.note ? el("span", { class: "hint" }, prediction.note) : null,
        before,
      ),
      el("div", { class: "suggestion-weights" }, strip(prediction.weights), applies(prediction)),
      actions,
      opener,
    ),
    panel,
  );
  node.prediction = prediction;
  node.opener = opener;
  node.refresh = () => {
    const now = outbox.decided(prediction);
    const decision = now?.decision ?? review?.decision ?? "";
    before.textContent = review && !now ? `${WORDS[review.decision]} by ${review.reviewer}` : "";
    node.dataset.decision = decision;
    actions?.mark(decision);
  };
  node.recall = (found) => {
    review = found ?? null;
    node.refresh();
  };
  node.refresh();
  return node;
}

function applies(prediction) {
  if (prediction.applies === null || prediction.applies === undefined) return null;
  const text = "The probability is the product: that the entity has a fact, or one more, of this relation, and that it is this one.";
  const likely = `applies ${percent(prediction.applies)}`;
  return el("span", { class: "hint", title: text }, prediction.probability === null ? likely : `${likely} × ${percent(prediction.probability)}`);
}

const DECISIONS = { a: "accept", r: "reject", s: "skip" };

function keys(event, list) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, textarea, select")) return;
  const at = event.target.closest(".suggestion");
  const step = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 }[event.key];
  if (step) {
    const all = [...list.children];
    all[all.indexOf(at) + step]?.opener.focus();
  } else if (DECISIONS[event.key] && at && !at.prediction.known) {
    decideHere(at.prediction, DECISIONS[event.key]).then((made) => {
      if (made) at.nextElementSibling?.opener.focus();
    });
  } else if (["o", "w"].includes(event.key) && at) {
    at.opener.click();
  } else {
    return;
  }
  event.preventDefault();
  event.stopPropagation();
}

/** Say how many there are. */
export function announce(predictions) {
  say(predictions.length === 1 ? "1 suggestion" : `${predictions.length} suggestions`);
}
