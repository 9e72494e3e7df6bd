// Two runs side by side: the same question to both, agreements and differences marked.

import { bar } from "./bars.js";
import { el, named } from "./dom.js";
import { entityLink, key, likelihood, sentence } from "./fact.js";
import { percent, plural, score } from "./format.js";
import * as question from "./question.js";
import * as route from "./route.js";
import * as runs from "./runs.js";
import { say } from "./announce.js";
import { empty, filled } from "./states.js";

export function show(main, { params }, signal) {
  main.append(
    el(
      "div",
      { class: "view-head" },
      el("h1", { tabindex: "-1" }, "Compare"),
      el("p", { class: "under-title" }, "The same question to two runs."),
    ),
  );
  const served = runs.all().map((run) => run.name);
  if (served.length < 2) {
    main.append(empty("This server serves one run.", "Start it with two to compare them: ", el("code", {}, "mocme serve RUN OTHER")));
    return "Compare";
  }
  const asked = question.read(params);
  const pick = (name, usual) => (served.includes(params.get(name)) ? params.get(name) : usual);
  const left = pick("left", served[0]);
  const right = pick("right", served.find((name) => name !== left));
  const sides = [question.chooser("First run", served, left), question.chooser("Second run", served, right)];
  const sent = (given) =>
    route.go(["compare"], { ...question.written(given), left: sides[0].input.value, right: sides[1].input.value });
  main.append(question.form(asked, sent, { extra: sides, run: () => left }));
  if (question.kind(asked)) {
    const load = () => Promise.all([left, right].map((run) => question.ask(asked, { run, signal })));
    main.append(
      el(
        "section",
        { class: "answers", "aria-labelledby": "answers-title" },
        el("h2", { id: "answers-title" }, question.phrase(asked)),
        filled(load, (both) => compared(asked, [left, right], both), { lines: 8, signal }),
      ),
    );
  }
  return question.kind(asked) ? `Compare ${question.phrase(asked)}` : "Compare";
}

/** Answers of two lists, in the order of their best rank: {fact, places: [rank or null, ...]}. */
export function merged(both) {
  const found = new Map();
  both.forEach((predictions, side) =>
    predictions.forEach((prediction, place) => {
      const id = key(prediction);
      if (!found.has(id)) found.set(id, { fact: prediction, items: [null, null], ranks: [null, null] });
      found.get(id).items[side] = prediction;
      found.get(id).ranks[side] = place + 1;
    }),
  );
  const best = (row) => Math.min(...row.ranks.map((rank) => rank ?? Infinity));
  const other = (row) => Math.max(...row.ranks.map((rank) => rank ?? 1e9));
  return [...found.values()].sort((a, b) => best(a) - best(b) || other(a) - other(b));
}

function compared(asked, names, both) {
  const rows = merged(both);
  if (!rows.length) return empty("Neither run has an answer left.", "Ask for a lower probability, or among all entities.");
  const shared = rows.filter((row) => row.ranks.every((rank) => rank !== null)).length;
  const text = `${plural(shared, "answer")} in both lists, ${rows.length - shared} in one only.`;
  say(text);
  const side = question.side(asked);
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
            names.map((name) => el("th", { scope: "col", colspan: "2" }, named(name))),
            el("th", { scope: "col" }, "Agreement"),
          ),
        ),
        el("tbody", {}, rows.map((row) => line(row, names, side))),
      ),
    ),
  ];
}

function line({ fact, items, ranks }, names, side) {
  const agree = ranks.every((rank) => rank !== null);
  return el(
    "tr",
    { class: agree ? "agree" : "differ" },
    el("th", { scope: "row" }, side ? entityLink(fact[side]) : sentence(fact)),
    items.map((item, n) => [
      el("td", { class: "rank" }, item ? `${ranks[n]}.` : el("span", { class: "hint" }, "–")),
      el("td", { class: "rank-chance" }, item ? [shown(item), bar(likelihood(item) ?? 0, n ? "shade-1" : "shade-0")] : null),
    ]),
    el("td", {}, agree ? moved(ranks) : el("span", { class: "tag wait" }, "only in ", named(names[ranks[0] === null ? 1 : 0]))),
  );
}

function shown(item) {
  if (item.known) return "known";
  return el("span", { class: "number" }, likelihood(item) === null ? score(item.score) : percent(likelihood(item)));
}

function moved([first, second]) {
  if (first === second) return el("span", { class: "tag yes" }, "same place");
  const step = Math.abs(first - second);
  return el("span", { class: "tag" }, `${plural(step, "place")} ${second < first ? "higher" : "lower"} in the second`);
}
