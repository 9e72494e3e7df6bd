// The run in pictures: how well it answers and where, how it learned, whether its probabilities are right.

import * as api from "./api.js";
import { bars, figure, legend, lines, reliability } from "./charts.js";
import { el, named } from "./dom.js";
import { count, percent, value } from "./format.js";
import * as route from "./route.js";
import * as runs from "./runs.js";
import { empty, filled } from "./states.js";

const HEADLINES = { mrr: "Mean reciprocal rank", "hits@1": "First is right", "hits@3": "Within 3", "hits@10": "Within 10" };
const PARTS = {
  relation: ["By relation", "Each relation, both directions."],
  answer: ["Seen or unseen", "Whether the answer occurs in a training fact."],
  "answer has": ["By what is known of the answer", "Structure: it has training facts."],
  cardinality: ["By kind of relation", "How many heads and tails go together."],
  direction: ["By direction", "Which end was asked for."],
};

export function show(main, { params }, signal) {
  const run = runs.current();
  main.append(
    el(
      "div",
      { class: "view-head" },
      el("h1", { tabindex: "-1" }, "The run"),
      el("p", { class: "under-title" }, named(run.name), ": ", named(run.experiment), " on ", named(run.graph), `, seed ${run.seed}.`),
    ),
    filled(() => api.get("v1/report", runs.which(), { signal }), (told) => report(told, params), { lines: 10, signal }),
  );
  return "The run";
}

function report(told, params) {
  return [
    el("section", { "aria-labelledby": "answers-title", class: "chapter" }, el("h2", { id: "answers-title" }, "How well it answers"), answers(told.evaluations ?? [], params)),
    el("section", { "aria-labelledby": "learned-title", class: "chapter" }, el("h2", { id: "learned-title" }, "How it learned"), learned(told.training ?? [])),
    el("section", { "aria-labelledby": "probabilities-title", class: "chapter" }, el("h2", { id: "probabilities-title" }, "Whether its probabilities are right"), calibration(told.calibration)),
  ];
}

function answers(evaluations, params) {
  if (!evaluations.length) return empty("This run has not been evaluated.", "Rank a split: ", el("code", {}, "mocme evaluate RUN --split valid"));
  const splits = evaluations.map((one) => one.split);
  const at = evaluations.find((one) => one.split === params.get("split")) ?? evaluations.at(-1);
  return [
    splits.length > 1
      ? el("nav", { class: "tabs", "aria-label": "Split" }, splits.map((split) => el("a", { href: route.to(["run"], { split }), "aria-current": split === at.split ? "page" : null }, named(split))))
      : null,
    el(
      "dl",
      { class: "figures" },
      Object.entries(HEADLINES)
        .filter(([name]) => name in at)
        .map(([name, title]) => el("div", {}, el("dt", {}, title), el("dd", {}, name === "mrr" ? at[name].toFixed(3) : percent(at[name])))),
      "mr" in at ? el("div", {}, el("dt", {}, "Mean rank"), el("dd", {}, at.mr.toFixed(1))) : null,
      el("div", {}, el("dt", {}, "Questions"), el("dd", {}, count(at.count))),
    ),
    el("p", { class: "hint" }, `Split ${at.split}; known facts filtered, ties at their mean, both directions, all entities compete.`),
    el("div", { class: "figures-grid" }, byModality(at.by?.["answer has"]), Object.entries(PARTS).map(([name, [title, lead]]) => byPart(title, lead, at.by?.[name]))),
  ];
}

function byPart(title, lead, parts) {
  const rows = Object.entries(parts ?? {}).sort(([, a], [, b]) => b.mrr - a.mrr);
  if (!rows.length) return null;
  return figure(
    title,
    `${lead} Mean reciprocal rank, 1 is best.`,
    bars(rows.map(([name, part]) => ({ name, values: [part.mrr] }))),
    ["Part", "MRR", "Hits@1", "Hits@10", "Questions"],
    rows.map(([name, part]) => [named(name), part.mrr.toFixed(3), percent(part["hits@1"]), percent(part["hits@10"]), count(part.count)]),
  );
}

/** Answers that have a modality beside those that have not: means of the parts, by their counts. */
function byModality(parts) {
  const all = Object.entries(parts ?? {}).map(([names, part]) => [new Set(names.split(" + ")), part]);
  const modalities = [...new Set(all.flatMap(([names]) => [...names]))].filter((name) => name !== "nothing");
  const mean = (chosen) => {
    const questions = chosen.reduce((sum, [, part]) => sum + part.count, 0);
    const mrr = questions ? chosen.reduce((sum, [, part]) => sum + part.mrr * part.count, 0) / questions : null;
    return { mrr, questions };
  };
  const rows = modalities.map((name) => ({
    name,
    has: mean(all.filter(([names]) => names.has(name))),
    lacks: mean(all.filter(([names]) => !names.has(name))),
  }));
  if (!rows.length) return null;
  const number = ({ mrr }) => (mrr === null ? "–" : mrr.toFixed(3));
  return figure(
    "By modality",
    "Answers that have it beside those that do not. Mean reciprocal rank. A difference is no proof that the modality makes it.",
    bars(rows.map(({ name, has, lacks }) => ({ name, values: [has.mrr, lacks.mrr] })), { shades: [0, 7] }),
    ["Modality", "MRR with it", "Questions", "MRR without", "Questions"],
    rows.map(({ name, has, lacks }) => [named(name), number(has), count(has.questions), number(lacks), count(lacks.questions)]),
    legend([{ name: "the answer has it", shade: 0 }, { name: "it does not", shade: 7 }]),
  );
}

const PLACES = new Set(["epoch", "step", "seconds", "_crc32"]);

function learned(records) {
  if (!records.length) return empty("The run holds no record of its training.");
  const names = [...new Set(records.flatMap((record) => Object.keys(record)))].filter(
    (name) => !PLACES.has(name) && records.some((record) => typeof record[name] === "number"),
  );
  const figures = names.map((name, place) => {
    const points = records.filter((record) => typeof record[name] === "number").map((record) => [record.epoch, record[name]]);
    return figure(
      name,
      `${name === "loss" ? "What training makes small, the mean of a pass" : "The mean of a pass"}.`,
      lines([{ name, points, shade: place % 8 }], { xLabel: "pass" }),
      ["Pass", name],
      points.map(([pass, number]) => [String(pass), value(number)]),
    );
  });
  const seconds = records.at(-1).seconds;
  return [
    el("p", { class: "hint" }, `${count(records.at(-1).epoch)} passes${seconds ? `, ${count(Math.round(seconds))} seconds` : ""}.`),
    el("div", { class: "figures-grid" }, figures),
  ];
}

function calibration(record) {
  if (!record) return empty("This run has no probabilities.", "They are fitted on the valid split, and its graph has none.");
  const series = [
    { name: "before: share of the softmax", key: "before", shade: 1 },
    { name: "after: probability as shown", key: "after", shade: 0 },
  ].map((one) => ({
    ...one,
    points: record[one.key].bins.filter((bin) => bin.count).map((bin) => [bin.predicted, bin.observed, bin.count]),
  }));
  const table = record.after.bins.map((bin, n) => [
    `${percent(bin.from)} to ${percent(bin.to)}`,
    ...[record.before.bins[n], bin].flatMap((one) => [count(one.count), one.count ? percent(one.observed) : "–"]),
  ]);
  return el(
    "div",
    { class: "two" },
    figure(
      "Predicted and observed",
      "On the diagonal a probability of 30% is a fact in 30 of 100 cases. Above it the probability promises too little, below it too much.",
      reliability(series),
      ["Probability", "Before: candidates", "are facts", "After: candidates", "are facts"],
      table,
      legend(series),
    ),
    el(
      "div",
      { class: "card" },
      el("h3", {}, "Error"),
      el("p", { class: "hint" }, "The mean distance of predicted and observed, of candidates that got 1% or more."),
      el(
        "dl",
        { class: "figures" },
        el("div", {}, el("dt", {}, "Before"), el("dd", {}, percent(record.before.error_of_likely))),
        el("div", {}, el("dt", {}, "After"), el("dd", {}, percent(record.after.error_of_likely))),
        el("div", {}, el("dt", {}, "Questions"), el("dd", {}, count(record.questions))),
        el("div", {}, el("dt", {}, "Candidates"), el("dd", {}, count(record.candidates))),
      ),
      el("p", {}, record.means),
    ),
  );
}
