// A list of suggestions with probability, fact, explanation and decision buttons.

import { announce } from "./announce.js";
import * as api from "./api.js";
import { probabilityLabel, weightStrip } from "./bars.js";
import { el, icon, uniqueId } from "./dom.js";
import { linkedTag, factKey, factSentence, factText } from "./fact.js";
import { percent } from "./format.js";
import { decisionButtons, decideWithToast } from "./decision-buttons.js";
import * as outbox from "./outbox.js";
import * as runs from "./runs.js";
import { explanation } from "./explanation.js";

/**
 * A list of predictions.
 *
 * `here`: the entity of the current view, which is not a link; `strong`: "head" or "tail", the
 * predicted side, which is emphasised.
 */
export function suggestionList(
  predictions,
  { here = null, strong = null, run = null, signal = null } = {},
) {
  const rows = predictions.map((prediction) =>
    suggestionRow(prediction, { here, strong, run, signal }),
  );
  const list = el("ol", { class: "suggestions", "data-keys": "suggestions" }, rows);
  const refresh = () => rows.forEach((row) => row.refresh());
  outbox.changes.addEventListener("change", refresh, signal ? { signal } : {});
  list.addEventListener("keydown", (event) => handleKey(event, list));
  previousReviews(predictions, signal).then((reviews) =>
    rows.forEach((row) => row.setReview(reviews.get(factKey(row.prediction)))),
  );
  return list;
}

/** The latest stored review of each fact, if all predictions share an entity. */
async function previousReviews(predictions, signal) {
  const latest = new Map();
  const shared = ["head", "tail"]
    .map((side) => predictions[0]?.[side])
    .find(
      (name) =>
        name !== undefined &&
        predictions.every((prediction) => prediction.head === name || prediction.tail === name),
    );
  if (shared === undefined) return latest;
  try {
    const { reviews } = await api.get(
      "v1/reviews",
      { name: shared, limit: 1000, ...runs.runParameter() },
      signal ? { signal } : {},
    );
    reviews.forEach((review) => latest.has(factKey(review)) || latest.set(factKey(review), review));
  } catch {
    // The list works without the marks of earlier decisions.
  }
  return latest;
}

const SYMMETRIC =
  "The relation is symmetric: the fact is shown once, and a decision is stored for both " +
  "directions.";
const DECIDED = { accept: "accepted", reject: "rejected", skip: "skipped" };

function suggestionRow(prediction, { here, strong, run, signal }) {
  const id = uniqueId("why");
  const panel = el("div", { id, class: "why-panel", hidden: true });
  const whyButton = el(
    "button",
    {
      class: "why-button",
      type: "button",
      "aria-expanded": "false",
      "aria-controls": id,
      "aria-label": `Why ${factText(prediction)}?`,
    },
    "Why",
    icon("m6 9 6 6 6-6"),
  );
  whyButton.addEventListener("click", () => {
    const open = panel.hidden;
    panel.hidden = !open;
    whyButton.setAttribute("aria-expanded", String(open));
    if (open && !panel.firstChild) panel.append(explanation(prediction, { run, signal }));
  });
  const actions = prediction.known ? null : decisionButtons(prediction);
  const reviewText = el("span", { class: "hint" });
  let review = null;
  const node = el(
    "li",
    { class: "suggestion" },
    el(
      "div",
      { class: "suggestion-row" },
      probabilityLabel(prediction),
      el(
        "div",
        { class: "suggestion-fact" },
        factSentence(prediction, { here, strong }),
        prediction.known ? el("span", { class: "tag" }, "known") : null,
        linkedTag(prediction),
        prediction.symmetric
          ? el("span", { class: "hint", title: SYMMETRIC }, "and the other way round")
          : null,
        prediction.note ? el("span", { class: "hint" }, prediction.note) : null,
        reviewText,
      ),
      el(
        "div",
        { class: "suggestion-weights" },
        weightStrip(prediction.weights),
        appliesText(prediction),
      ),
      actions,
      whyButton,
    ),
    panel,
  );
  node.prediction = prediction;
  node.whyButton = whyButton;
  node.refresh = () => {
    const entry = outbox.findDecision(prediction);
    const decision = entry?.decision ?? review?.decision ?? "";
    reviewText.textContent =
      review && !entry ? `${DECIDED[review.decision]} by ${review.reviewer}` : "";
    node.dataset.decision = decision;
    actions?.mark(decision);
  };
  node.setReview = (stored) => {
    review = stored ?? null;
    node.refresh();
  };
  node.refresh();
  return node;
}

function appliesText(prediction) {
  if (prediction.applies === null || prediction.applies === undefined) return null;
  const text =
    "The probability is a product: that the entity has a further fact of this relation, " +
    "times that this is the answer.";
  const appliesPart = `applies ${percent(prediction.applies)}`;
  return el(
    "span",
    { class: "hint", title: text },
    prediction.probability === null
      ? appliesPart
      : `${appliesPart} × ${percent(prediction.probability)}`,
  );
}

const DECISION_KEYS = { a: "accept", r: "reject", s: "skip" };

function handleKey(event, list) {
  if (
    event.ctrlKey ||
    event.metaKey ||
    event.altKey ||
    event.target.matches("input, textarea, select")
  )
    return;
  const row = event.target.closest(".suggestion");
  const step = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 }[event.key];
  if (step) {
    const all = [...list.children];
    all[all.indexOf(row) + step]?.whyButton.focus();
  } else if (DECISION_KEYS[event.key] && row && !row.prediction.known) {
    decideWithToast(row.prediction, DECISION_KEYS[event.key]).then((entry) => {
      if (entry) row.nextElementSibling?.whyButton.focus();
    });
  } else if (["o", "w"].includes(event.key) && row) {
    row.whyButton.click();
  } else {
    return;
  }
  event.preventDefault();
  event.stopPropagation();
}

/** Announce the number of suggestions. */
export function announceCount(predictions) {
  announce(predictions.length === 1 ? "1 suggestion" : `${predictions.length} suggestions`);
}
