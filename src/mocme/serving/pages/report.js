// The view "Run": ranking metrics, training curves and calibration.

import * as api from "./api.js";
import { barChart, chartFigure, chartLegend, lineChart, reliabilityDiagram } from "./charts.js";
import { el, nameText } from "./dom.js";
import { count, percent, value } from "./format.js";
import * as route from "./route.js";
import * as runs from "./runs.js";
import { empty, asyncContent } from "./states.js";

const HEADLINES = {
  mrr: "Mean reciprocal rank",
  "hits@1": "Hits@1",
  "hits@3": "Hits@3",
  "hits@10": "Hits@10",
};
const PARTS = {
  relation: ["By relation", "Each relation, in both directions."],
  answer: ["Seen or unseen", "Whether the answer occurs in a training fact."],
  "answer has": ["By modalities of the answer", "Structure: it occurs in training facts."],
  cardinality: ["By cardinality", "Whether relations link one or many heads to one or many tails."],
  direction: ["By direction", "Whether head or tail was predicted."],
};

export function show(main, { params }, signal) {
  const run = runs.current();
  main.append(
    el(
      "div",
      { class: "view-head" },
      el("h1", { tabindex: "-1" }, "Run"),
      el(
        "p",
        { class: "subtitle" },
        nameText(run.name),
        ": ",
        nameText(run.experiment),
        " on ",
        nameText(run.graph),
        `, seed ${run.seed}.`,
      ),
    ),
    asyncContent(
      () => api.get("v1/report", runs.runParameter(), { signal }),
      (data) => report(data, params),
      { lines: 10, signal },
    ),
  );
  return "Run";
}

function report(data, params) {
  return [
    el(
      "section",
      { "aria-labelledby": "answers-title", class: "report-section" },
      el("h2", { id: "answers-title" }, "Ranking metrics"),
      rankingMetrics(data.evaluations ?? [], params),
    ),
    el(
      "section",
      { "aria-labelledby": "learned-title", class: "report-section" },
      el("h2", { id: "learned-title" }, "Training"),
      trainingCharts(data.training ?? []),
    ),
    el(
      "section",
      { "aria-labelledby": "probabilities-title", class: "report-section" },
      el("h2", { id: "probabilities-title" }, "Calibration of probabilities"),
      calibration(data.calibration),
    ),
  ];
}

function rankingMetrics(evaluations, params) {
  if (!evaluations.length)
    return empty(
      "This run has not been evaluated.",
      "Rank a split: ",
      el("code", {}, "mocme evaluate RUN --split valid"),
    );
  const splits = evaluations.map((evaluation) => evaluation.split);
  const evaluation =
    evaluations.find((item) => item.split === params.get("split")) ?? evaluations.at(-1);
  return [
    splits.length > 1
      ? el(
          "nav",
          { class: "tabs", "aria-label": "Split" },
          splits.map((split) =>
            el(
              "a",
              {
                href: route.href(["run"], { split }),
                "aria-current": split === evaluation.split ? "page" : null,
              },
              nameText(split),
            ),
          ),
        )
      : null,
    el(
      "dl",
      { class: "metrics" },
      Object.entries(HEADLINES)
        .filter(([name]) => name in evaluation)
        .map(([name, title]) =>
          el(
            "div",
            {},
            el("dt", {}, title),
            el("dd", {}, name === "mrr" ? evaluation[name].toFixed(3) : percent(evaluation[name])),
          ),
        ),
      "mr" in evaluation
        ? el("div", {}, el("dt", {}, "Mean rank"), el("dd", {}, evaluation.mr.toFixed(1)))
        : null,
      el("div", {}, el("dt", {}, "Questions"), el("dd", {}, count(evaluation.count))),
    ),
    el(
      "p",
      { class: "hint" },
      `Split ${evaluation.split}; known facts filtered, mean rank of ties, both directions, ` +
        "all entities as candidates.",
    ),
    el(
      "div",
      { class: "chart-grid" },
      modalityChart(evaluation.by?.["answer has"]),
      Object.entries(PARTS).map(([name, [title, description]]) =>
        partChart(title, description, evaluation.by?.[name]),
      ),
    ),
  ];
}

function partChart(title, description, parts) {
  const rows = Object.entries(parts ?? {}).sort(([, a], [, b]) => b.mrr - a.mrr);
  if (!rows.length) return null;
  return chartFigure(
    title,
    `${description} Mean reciprocal rank; 1 is best.`,
    barChart(rows.map(([name, part]) => ({ name, values: [part.mrr] }))),
    ["Part", "MRR", "Hits@1", "Hits@10", "Questions"],
    rows.map(([name, part]) => [
      nameText(name),
      part.mrr.toFixed(3),
      percent(part["hits@1"]),
      percent(part["hits@10"]),
      count(part.count),
    ]),
  );
}

/** Answers with and without each modality: means of the parts, weighted by their counts. */
function modalityChart(parts) {
  const entries = Object.entries(parts ?? {}).map(([names, part]) => [
    new Set(names.split(" + ")),
    part,
  ]);
  const modalities = [...new Set(entries.flatMap(([names]) => [...names]))].filter(
    (name) => name !== "nothing",
  );
  const mean = (selected) => {
    const questions = selected.reduce((sum, [, part]) => sum + part.count, 0);
    const mrr = questions
      ? selected.reduce((sum, [, part]) => sum + part.mrr * part.count, 0) / questions
      : null;
    return { mrr, questions };
  };
  const rows = modalities.map((name) => ({
    name,
    has: mean(entries.filter(([names]) => names.has(name))),
    lacks: mean(entries.filter(([names]) => !names.has(name))),
  }));
  if (!rows.length) return null;
  const number = ({ mrr }) => (mrr === null ? "–" : mrr.toFixed(3));
  return chartFigure(
    "By modality",
    "Mean reciprocal rank of answers that have the modality and of those that do not. " +
      "A difference does not prove that the modality causes it.",
    barChart(
      rows.map(({ name, has, lacks }) => ({ name, values: [has.mrr, lacks.mrr] })),
      { shades: [0, 7] },
    ),
    ["Modality", "MRR with it", "Questions", "MRR without it", "Questions"],
    rows.map(({ name, has, lacks }) => [
      nameText(name),
      number(has),
      count(has.questions),
      number(lacks),
      count(lacks.questions),
    ]),
    chartLegend([
      { name: "the answer has it", shade: 0 },
      { name: "it does not", shade: 7 },
    ]),
  );
}

const NOT_METRICS = new Set(["epoch", "step", "seconds", "_crc32"]);

function trainingCharts(records) {
  if (!records.length) return empty("The run has no training log.");
  const names = [...new Set(records.flatMap((record) => Object.keys(record)))].filter(
    (name) => !NOT_METRICS.has(name) && records.some((record) => typeof record[name] === "number"),
  );
  const figures = names.map((name, index) => {
    const points = records
      .filter((record) => typeof record[name] === "number")
      .map((record) => [record.epoch, record[name]]);
    return chartFigure(
      name,
      name === "loss" ? "The training loss, averaged over an epoch." : "Averaged over an epoch.",
      lineChart([{ name, points, shade: index % 8 }], { xLabel: "epoch" }),
      ["Epoch", name],
      points.map(([epoch, number]) => [String(epoch), value(number)]),
    );
  });
  const seconds = records.at(-1).seconds;
  return [
    el(
      "p",
      { class: "hint" },
      `${count(records.at(-1).epoch)} epochs` +
        `${seconds ? `, ${count(Math.round(seconds))} seconds` : ""}.`,
    ),
    el("div", { class: "chart-grid" }, figures),
  ];
}

function calibration(record) {
  if (!record)
    return empty(
      "This run has no probabilities.",
      "They are fitted on the valid split, which its graph does not have.",
    );
  const series = [
    { name: "before: share of the softmax", key: "before", shade: 1 },
    { name: "after: probability as shown", key: "after", shade: 0 },
  ].map((line) => ({
    ...line,
    points: record[line.key].bins
      .filter((bin) => bin.count)
      .map((bin) => [bin.predicted, bin.observed, bin.count]),
  }));
  const table = record.after.bins.map((bin, n) => [
    `${percent(bin.from)} to ${percent(bin.to)}`,
    ...[record.before.bins[n], bin].flatMap((cell) => [
      count(cell.count),
      cell.count ? percent(cell.observed) : "–",
    ]),
  ]);
  return el(
    "div",
    { class: "columns" },
    chartFigure(
      "Predicted and observed",
      "On the diagonal, 30 of 100 candidates with a probability of 30% are facts. " +
        "Above it, probabilities are too low; below it, too high.",
      reliabilityDiagram(series),
      ["Probability", "Before: candidates", "are facts", "After: candidates", "are facts"],
      table,
      chartLegend(series),
    ),
    el(
      "div",
      { class: "card" },
      el("h3", {}, "Error"),
      el(
        "p",
        { class: "hint" },
        "The mean distance between predicted and observed, over candidates with a probability of " +
          "1% or more.",
      ),
      el(
        "dl",
        { class: "metrics" },
        el("div", {}, el("dt", {}, "Before"), el("dd", {}, percent(record.before.error_of_likely))),
        el("div", {}, el("dt", {}, "After"), el("dd", {}, percent(record.after.error_of_likely))),
        el("div", {}, el("dt", {}, "Questions"), el("dd", {}, count(record.questions))),
        el("div", {}, el("dt", {}, "Candidates"), el("dd", {}, count(record.candidates))),
      ),
      el("p", {}, record.means),
    ),
  );
}
