// The view "Compare": the answers of two runs to the same question, with common ones marked.

import { bar } from "./bars.js";
import { el, nameText } from "./dom.js";
import { entityLink, factKey, shownProbability, factSentence } from "./fact.js";
import { percent, plural, score } from "./format.js";
import * as question from "./question.js";
import * as route from "./route.js";
import * as runs from "./runs.js";
import { announce } from "./announce.js";
import { empty, asyncContent } from "./states.js";

export function show(main, { params }, signal) {
  main.append(
    el(
      "div",
      { class: "view-head" },
      el("h1", { tabindex: "-1" }, "Compare"),
      el("p", { class: "subtitle" }, "Ask two runs the same question."),
    ),
  );
  const names = runs.all().map((run) => run.name);
  if (names.length < 2) {
    main.append(
      empty(
        "This server serves only one run.",
        "Start it with two to compare them: ",
        el("code", {}, "mocme serve RUN OTHER"),
      ),
    );
    return "Compare";
  }
  const query = question.fromParams(params);
  const pick = (name, fallback) => (names.includes(params.get(name)) ? params.get(name) : fallback);
  const left = pick("left", names[0]);
  const right = pick(
    "right",
    names.find((name) => name !== left),
  );
  const sides = [
    question.selectField("First run", names, left),
    question.selectField("Second run", names, right),
  ];
  const submit = (entered) =>
    route.go(["compare"], {
      ...question.toParams(entered),
      left: sides[0].input.value,
      right: sides[1].input.value,
    });
  main.append(question.queryForm(query, submit, { extra: sides, getRun: () => left }));
  if (question.kind(query)) {
    const load = () =>
      Promise.all([left, right].map((run) => question.predict(query, { run, signal })));
    main.append(
      el(
        "section",
        { class: "answers", "aria-labelledby": "answers-title" },
        el("h2", { id: "answers-title" }, question.describe(query)),
        asyncContent(load, (both) => comparison(query, [left, right], both), { lines: 8, signal }),
      ),
    );
  }
  return question.kind(query) ? `Compare ${question.describe(query)}` : "Compare";
}

/** The answers of both lists, by best rank: {fact, items: [prediction or null, ...], ranks}. */
export function mergeAnswers(both) {
  const rows = new Map();
  both.forEach((predictions, side) =>
    predictions.forEach((prediction, index) => {
      const id = factKey(prediction);
      if (!rows.has(id))
        rows.set(id, { fact: prediction, items: [null, null], ranks: [null, null] });
      rows.get(id).items[side] = prediction;
      rows.get(id).ranks[side] = index + 1;
    }),
  );
  const bestRank = (row) => Math.min(...row.ranks.map((rank) => rank ?? Infinity));
  const otherRank = (row) => Math.max(...row.ranks.map((rank) => rank ?? 1e9));
  return [...rows.values()].sort(
    (a, b) => bestRank(a) - bestRank(b) || otherRank(a) - otherRank(b),
  );
}

function comparison(query, names, both) {
  const rows = mergeAnswers(both);
  if (!rows.length)
    return empty(
      "Neither run has an answer.",
      "Lower the minimum probability, or use all entities as candidates.",
    );
  const shared = rows.filter((row) => row.ranks.every((rank) => rank !== null)).length;
  const text = `${plural(shared, "answer")} in both lists, ${rows.length - shared} in only one.`;
  announce(text);
  const side = question.side(query);
  return [
    el("p", { class: "hint" }, text),
    el(
      "div",
      { class: "scroll", tabindex: "0", role: "group", "aria-label": "Answers of both runs" },
      el(
        "table",
        { class: "compare" },
        el(
          "thead",
          {},
          el(
            "tr",
            {},
            el("th", { scope: "col" }, "Answer"),
            names.map((name) => el("th", { scope: "col", colspan: "2" }, nameText(name))),
            el("th", { scope: "col" }, "Agreement"),
          ),
        ),
        el(
          "tbody",
          {},
          rows.map((row) => comparisonRow(row, names, side)),
        ),
      ),
    ),
  ];
}

function comparisonRow({ fact, items, ranks }, names, side) {
  const inBoth = ranks.every((rank) => rank !== null);
  return el(
    "tr",
    { class: inBoth ? "agree" : "differ" },
    el("th", { scope: "row" }, side ? entityLink(fact[side]) : factSentence(fact)),
    items.map((item, n) => [
      el("td", { class: "rank" }, item ? `${ranks[n]}.` : el("span", { class: "hint" }, "–")),
      el(
        "td",
        { class: "rank-probability" },
        item
          ? [probabilityText(item), bar(shownProbability(item) ?? 0, n ? "shade-1" : "shade-0")]
          : null,
      ),
    ]),
    el(
      "td",
      {},
      inBoth
        ? rankChangeTag(ranks)
        : el("span", { class: "tag warn" }, "only in ", nameText(names[ranks[0] === null ? 1 : 0])),
    ),
  );
}

function probabilityText(item) {
  if (item.known) return "known";
  return el(
    "span",
    { class: "number" },
    shownProbability(item) === null ? score(item.score) : percent(shownProbability(item)),
  );
}

function rankChangeTag([first, second]) {
  if (first === second) return el("span", { class: "tag yes" }, "same rank");
  const difference = Math.abs(first - second);
  return el(
    "span",
    { class: "tag" },
    `${plural(difference, "rank")} ${second < first ? "higher" : "lower"} in the second run`,
  );
}
