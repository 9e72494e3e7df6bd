// The why of a prediction, as the server explains it.

import * as api from "./api.js";
import { bar, change, changed, weights } from "./bars.js";
import { el, named } from "./dom.js";
import { entityLink, sentence } from "./fact.js";
import { ordinal, percent, plural, score, signed } from "./format.js";
import * as runs from "./runs.js";
import { empty, filled } from "./states.js";

let last = Promise.resolve();

/**
 * One explanation at a time: the server works on one to its end even where nobody waits for it any
 * more, and decisions wait behind. Who has left before their turn asks nothing.
 */
function inTurn(ask, signal) {
  const turn = last.then(() => {
    if (signal?.aborted) throw new DOMException("left", "AbortError");
    return ask();
  });
  last = turn.catch(() => {});
  return turn;
}

/** An element that loads and shows why. */
export function why({ head, relation, tail }, { run = null, signal = null } = {}) {
  const where = run ? runs.which(run) : runs.which();
  const load = async () => {
    try {
      return await inTurn(() => api.post("v1/explain", { head, relation, tail, ...where }), signal);
    } catch (error) {
      // A server that explains nothing is no failure of the page.
      if (error.status === 501 || (error.status === 404 && error.code !== "unknown_name")) return null;
      throw error;
    }
  };
  return filled(load, explained, { lines: 5, label: "Looking for the why", signal });
}

function explained(told) {
  if (told === null) return empty("This server gives no explanations.", "The probability and the weights above are all that it tells.");
  const parts = [
    standing(told),
    withheld(told),
    supports(told.supports ?? []),
    patterns(told.patterns ?? []),
    paths(told.paths ?? []),
    weighing(told),
    neighbours(told.neighbours ?? []),
    notes(told.notes ?? []),
  ];
  return el("div", { class: "why" }, parts);
}

function part(title, lead, ...content) {
  return el("section", { class: "why-part" }, el("h3", {}, title), lead ? el("p", { class: "hint" }, lead) : null, content);
}

function standing(told) {
  const known = told.known ? "The graph holds this fact. " : "";
  return el(
    "p",
    { class: "why-standing" },
    known,
    named(told.tail),
    ` ranks ${ordinal(told.tail_rank)} among the answers for the tail, `,
    named(told.head),
    ` ${ordinal(told.head_rank)} among those for the head. Score ${score(told.score)}.`,
  );
}

/** Modalities of head and of tail, where there are any. */
function sides(told) {
  const all = ["head", "tail"].map((of) => ({ of, rows: (told.modalities ?? []).filter((one) => one.of === of) }));
  return all.filter((side) => side.rows.length);
}

function withheld(told) {
  const both = sides(told);
  if (!both.length) return null;
  const largest = Math.max(0, ...told.modalities.map((one) => Math.abs(one.without ?? 0)));
  return part(
    "What each modality changes",
    "Withheld, one at a time: to the right it speaks for the fact, to the left against it.",
    el("div", { class: "two" }, both.map((side) => changes(side, told, largest))),
  );
}

/** Weights as reasons, where they were seen to be such; otherwise what they are not, first. */
function weighing(told) {
  const both = sides(told);
  if (!both.length) return null;
  const shown = el("div", { class: "two" }, both.map((side) => weighed(side, told)));
  const text = told.weights?.text;
  if (told.weights?.reasons === true) return part("What the vectors are made of", text, shown);
  return part(
    "What the vectors are made of (weights are not reasons)",
    null,
    el("p", { class: "notice" }, text || "Weights of this run do not predict what withholding a modality changes, so they are no reasons."),
    el("details", {}, el("summary", {}, "Show the weights of modalities"), shown),
  );
}

function changes({ of, rows }, told, largest) {
  return el(
    "table",
    { class: "changes" },
    el("caption", {}, `Of the ${of}: `, named(told[of])),
    el(
      "thead",
      { class: "unseen-head" },
      el("tr", {}, el("th", { scope: "col" }, "Modality"), el("th", { scope: "col" }, "Change"), el("th", { scope: "col", class: "number" }, "Of the score")),
    ),
    el(
      "tbody",
      {},
      rows.map((one) =>
        el(
          "tr",
          { class: one.present ? "" : "missing" },
          el("th", { scope: "row" }, named(one.name)),
          el("td", { class: "change-cell" }, one.without === null ? null : change(one.without, largest)),
          el("td", { class: "number" }, one.present ? changed(one.without) : "not there"),
        ),
      ),
    ),
  );
}

function weighed({ of, rows }, told) {
  const table = Object.fromEntries(rows.map((one) => [one.name, one.weight]));
  const present = Object.fromEntries(rows.map((one) => [one.name, one.present]));
  const experts = Object.fromEntries(rows.map((one) => [one.name, one.experts ?? []]));
  return el(
    "div",
    {},
    el("p", { class: "hint" }, `Of the ${of}: `, named(told[of])),
    weights(table, { present, extra: (name) => expertBars(experts[name], name) }),
  );
}

function expertBars(shares, name) {
  if (shares.length < 2) return null;
  const text = shares.map((share, n) => `${n + 1}: ${percent(share)}`).join(", ");
  return el(
    "span",
    { class: "experts", role: "img", "aria-label": `Experts of ${name}: ${text}`, title: `Experts ${text}` },
    shares.map((share) => bar(share, `shade-${runs.shade(name)}`)),
  );
}

/** What adds to a fact, a bar each: `lines` has for each {text (nodes), adds, title}. */
function additions(heading, hint, lines) {
  if (!lines.length) return null;
  const largest = Math.max(...lines.map(({ adds }) => Math.abs(adds)));
  const line = ({ text, adds, title }) =>
    el("li", { class: "line" }, el("span", { class: "line-text" }, text), change(adds, largest), el("span", { class: "line-number", title }, signed(adds)));
  return part(heading, hint, el("ul", { class: "lines" }, lines.map(line)));
}

function patterns(list) {
  const lines = list.map((one) => ({
    text: [named(one.name), " ", el("span", { class: "hint" }, plural(one.paths, "path"))],
    adds: one.share,
  }));
  return additions("Patterns that lead there", "What each adds to the log odds of the fact.", lines);
}

function supports(list) {
  const lines = list.map((one) => ({
    text: [one.kind === "token" ? token(one) : sentence(one)],
    // The server tells what happens without it.
    adds: -one.change,
    title: `by vectors ${signed(-one.by_vectors)}, by patterns ${signed(-one.by_patterns)}`,
  }));
  const hint = "What each adds to the score, estimated: by so much it would be lower, had training not seen it.";
  return additions("Training facts that support it", hint, lines);
}

/** A fact of content: its tail is a word or a bin, no entity. */
function token({ head, relation, tail }) {
  return el("span", { class: "fact" }, entityLink(head), " ", el("span", { class: "relation" }, named(relation)), " ", el("q", {}, named(tail)));
}

function paths(list) {
  if (!list.length) return null;
  return part(
    "Short paths between them",
    null,
    el("ul", { class: "paths" }, list.map((path) => el("li", {}, path.map((one, n) => [n ? el("span", { class: "then" }, ", ") : null, sentence(one)])))),
  );
}

function neighbours(list) {
  if (!list.length) return null;
  return part(
    "Nearest entities",
    null,
    el(
      "ul",
      { class: "near" },
      list.map((one) =>
        el(
          "li",
          {},
          el("span", { class: "hint" }, `Of the ${one.of}, by `, named(one.by), ": "),
          one.entities.map((found, n) => [
            n ? ", " : "",
            entityLink(found.name),
            el("span", { class: "hint" }, ` ${found.similarity.toFixed(2)}`),
          ]),
        ),
      ),
    ),
  );
}

function notes(list) {
  return list.length ? el("ul", { class: "notes" }, list.map((text) => el("li", {}, text))) : null;
}
