// The explanation of a prediction.

import * as api from "./api.js";
import { bar, changeBar, changeText, weightList } from "./bars.js";
import { el, nameText } from "./dom.js";
import { entityLink, factSentence } from "./fact.js";
import { ordinal, percent, plural, score, signed } from "./format.js";
import * as runs from "./runs.js";
import { empty, asyncContent } from "./states.js";

let last = Promise.resolve();

/**
 * Request one explanation at a time: the server finishes an explanation even if the request is
 * aborted, and other slow requests wait behind it. An aborted one is not requested at all.
 */
function inSequence(request, signal) {
  const result = last.then(() => {
    if (signal?.aborted) throw new DOMException("aborted", "AbortError");
    return request();
  });
  last = result.catch(() => {});
  return result;
}

/** An element that loads and shows the explanation of a fact. */
export function explanation({ head, relation, tail }, { run = null, signal = null } = {}) {
  const runParameter = run ? runs.runParameter(run) : runs.runParameter();
  const load = async () => {
    try {
      return await inSequence(
        () => api.post("v1/explain", { head, relation, tail, ...runParameter }),
        signal,
      );
    } catch (error) {
      // A server without explanations is not an error of the page.
      if (error.status === 501 || (error.status === 404 && error.code !== "unknown_name"))
        return null;
      throw error;
    }
  };
  return asyncContent(load, explanationContent, {
    lines: 5,
    label: "Loading the explanation",
    signal,
  });
}

function explanationContent(report) {
  if (report === null)
    return empty(
      "This server provides no explanations.",
      "Only the probability and the weights above are available.",
    );
  const parts = [
    rankSentence(report),
    modalityContributions(report),
    supportList(report.supports ?? []),
    ruleList(report.rules ?? []),
    pathList(report.paths ?? []),
    modalityWeights(report),
    neighbourList(report.neighbours ?? []),
    noteList(report.notes ?? []),
  ];
  return el("div", { class: "why" }, parts);
}

function section(title, description, ...content) {
  return el(
    "section",
    { class: "why-part" },
    el("h3", {}, title),
    description ? el("p", { class: "hint" }, description) : null,
    content,
  );
}

function rankSentence(report) {
  const known = report.known ? "The graph contains this fact. " : "";
  return el(
    "p",
    { class: "why-standing" },
    known,
    nameText(report.tail),
    ` ranks ${ordinal(report.tail_rank)} among the answers for the tail, `,
    nameText(report.head),
    ` ${ordinal(report.head_rank)} among those for the head. Score ${score(report.score)}.`,
  );
}

/** The modalities of head and tail, without a side that has none. */
function sides(report) {
  const both = ["head", "tail"].map((of) => ({
    of,
    rows: (report.modalities ?? []).filter((row) => row.of === of),
  }));
  return both.filter((side) => side.rows.length);
}

function modalityContributions(report) {
  const both = sides(report);
  if (!both.length) return null;
  const largest = Math.max(0, ...report.modalities.map((row) => Math.abs(row.without ?? 0)));
  return section(
    "Contribution of each modality",
    "By how much the score is lower if the modality is withheld. Bars to the right: it supports " +
      "the fact; to the left: it opposes it.",
    el(
      "div",
      { class: "columns" },
      both.map((side) => contributionTable(side, report, largest)),
    ),
  );
}

/** The weights of modalities, collapsed below a notice unless they were shown to be reasons. */
function modalityWeights(report) {
  const both = sides(report);
  if (!both.length) return null;
  const tables = el(
    "div",
    { class: "columns" },
    both.map((side) => weightTable(side, report)),
  );
  const text = report.weights?.text;
  if (report.weights?.reasons === true) return section("Composition of the vectors", text, tables);
  return section(
    "Composition of the vectors (weights are not reasons)",
    null,
    el(
      "p",
      { class: "notice" },
      text ||
        "The weights of this run do not predict the contributions of modalities, " +
          "so they are not reasons.",
    ),
    el("details", {}, el("summary", {}, "Show the weights of modalities"), tables),
  );
}

function contributionTable({ of, rows }, report, largest) {
  return el(
    "table",
    { class: "changes" },
    el("caption", {}, `Of the ${of}: `, nameText(report[of])),
    el(
      "thead",
      { class: "visually-hidden-head" },
      el(
        "tr",
        {},
        el("th", { scope: "col" }, "Modality"),
        el("th", { scope: "col" }, "Bar"),
        el("th", { scope: "col", class: "number" }, "Contribution"),
      ),
    ),
    el(
      "tbody",
      {},
      rows.map((row) =>
        el(
          "tr",
          { class: row.present ? "" : "missing" },
          el("th", { scope: "row" }, nameText(row.name)),
          el(
            "td",
            { class: "change-cell" },
            row.without === null ? null : changeBar(row.without, largest),
          ),
          el("td", { class: "number" }, row.present ? changeText(row.without) : "absent"),
        ),
      ),
    ),
  );
}

function weightTable({ of, rows }, report) {
  const weights = Object.fromEntries(rows.map((row) => [row.name, row.weight]));
  const present = Object.fromEntries(rows.map((row) => [row.name, row.present]));
  const views = Object.fromEntries(rows.map((row) => [row.name, row.views ?? []]));
  return el(
    "div",
    {},
    el("p", { class: "hint" }, `Of the ${of}: `, nameText(report[of])),
    weightList(weights, { present, extra: (name) => viewBars(views[name], name) }),
  );
}

function viewBars(shares, name) {
  if (shares.length < 2) return null;
  const text = shares.map((share, n) => `${n + 1}: ${percent(share)}`).join(", ");
  return el(
    "span",
    {
      class: "view-weights",
      role: "img",
      "aria-label": `Views of ${name}: ${text}`,
      title: `Views ${text}`,
    },
    shares.map((share) => bar(share, `shade-${runs.shade(name)}`)),
  );
}

/** Contributions to a score, one bar each: lines [{text (nodes), contribution, title}]. */
function contributions(heading, description, lines) {
  if (!lines.length) return null;
  const largest = Math.max(...lines.map(({ contribution }) => Math.abs(contribution)));
  const line = ({ text, contribution, title }) =>
    el(
      "li",
      { class: "line" },
      el("span", { class: "line-text" }, text),
      changeBar(contribution, largest),
      el("span", { class: "line-number", title }, signed(contribution)),
    );
  return section(heading, description, el("ul", { class: "line-list" }, lines.map(line)));
}

function ruleList(list) {
  const lines = list.map((rule) => ({
    text: [nameText(rule.name), " ", el("span", { class: "hint" }, plural(rule.paths, "path"))],
    contribution: rule.share,
  }));
  return contributions(
    "Rules that predict the fact",
    "The contribution of each to the log odds of the fact.",
    lines,
  );
}

function supportList(list) {
  const lines = list.map((support) => ({
    text: [support.kind === "token" ? tokenFact(support) : factSentence(support)],
    // The server gives the change of the score without the fact.
    contribution: -support.change,
    title:
      `through vectors ${signed(-support.by_vectors)}, ` +
      `through rules ${signed(-support.by_rules)}`,
  }));
  const description =
    "The estimated contribution of each to the score: without it in training, the score would be " +
    "lower by this much.";
  return contributions("Supporting training facts", description, lines);
}

/** A fact about content, whose tail is a token (a word or a bin of numbers) and not an entity. */
function tokenFact({ head, relation, tail }) {
  return el(
    "span",
    { class: "fact" },
    entityLink(head),
    " ",
    el("span", { class: "relation" }, nameText(relation)),
    " ",
    el("q", {}, nameText(tail)),
  );
}

function pathList(list) {
  if (!list.length) return null;
  return section(
    "Short paths between head and tail",
    null,
    el(
      "ul",
      { class: "paths" },
      list.map((path) =>
        el(
          "li",
          {},
          path.map((step, n) => [n ? ", " : null, factSentence(step)]),
        ),
      ),
    ),
  );
}

function neighbourList(list) {
  if (!list.length) return null;
  return section(
    "Nearest entities",
    null,
    el(
      "ul",
      { class: "neighbours" },
      list.map((group) =>
        el(
          "li",
          {},
          el("span", { class: "hint" }, `Of the ${group.of}, by `, nameText(group.by), ": "),
          group.entities.map((entity, n) => [
            n ? ", " : "",
            entityLink(entity.name),
            el("span", { class: "hint" }, ` ${entity.similarity.toFixed(2)}`),
          ]),
        ),
      ),
    ),
  );
}

function noteList(list) {
  return list.length
    ? el(
        "ul",
        { class: "notes" },
        list.map((text) => el("li", {}, text)),
      )
    : null;
}
