// The start page: the served run, and links to the views.

import * as api from "./api.js";
import { bar } from "./bars.js";
import { el, nameText } from "./dom.js";
import { count, plural } from "./format.js";
import * as route from "./route.js";
import * as runs from "./runs.js";

export function show(main, _address, signal) {
  const run = runs.current();
  main.append(
    el(
      "div",
      { class: "view-head" },
      el("h1", { tabindex: "-1" }, nameText(run.graph)),
      el(
        "p",
        { class: "subtitle" },
        `${plural(run.entities, "entity", "entities")}, `,
        `${plural(run.facts.train, "training fact")}${additionText(run.additions)}. Run `,
        nameText(run.name),
        ", experiment ",
        nameText(run.experiment),
        `, seed ${run.seed}.`,
      ),
      run.notes.length
        ? el(
            "ul",
            { class: "notes" },
            run.notes.map((note) => el("li", {}, nameText(note))),
          )
        : null,
    ),
    el(
      "div",
      { class: "home-links" },
      homeLink(
        ["review"],
        "Review",
        "Likely new facts, one by one: accept, reject, skip.",
        reviewProgress(signal),
      ),
      homeLink(
        ["ask"],
        "Ask",
        "A fact with one part left open: predict its head, relation or tail.",
      ),
      homeLink(
        ["run"],
        "Run",
        "Ranking metrics by relation and modality, training curves, and the calibration of " +
          "probabilities.",
      ),
      runs.acceptsAdditions()
        ? homeLink(
            ["add"],
            "Add an entity",
            "An entity that the run was not trained with: its name, content and facts.",
          )
        : null,
    ),
    el(
      "div",
      { class: "columns home" },
      el(
        "section",
        { class: "card", "aria-labelledby": "home-relations" },
        el("h2", { id: "home-relations" }, "Relations"),
        relationTable(run),
      ),
      el(
        "section",
        { class: "card", "aria-labelledby": "home-modalities" },
        el("h2", { id: "home-modalities" }, "Modalities"),
        modalityTable(run),
      ),
    ),
  );
  return run.graph;
}

function additionText(number) {
  if (!number) return "";
  return `, ${number === 1 ? "one" : count(number)} of the entities added`;
}

function homeLink(parts, title, text, extra = null) {
  return el(
    "a",
    { class: "home-link", href: route.href(parts) },
    el("h2", {}, title),
    el("p", {}, text),
    extra,
  );
}

function reviewProgress(signal) {
  const load = () => api.get("v1/reviews", { limit: 1, ...runs.runParameter() }, { signal });
  const render = ({ counts }) => {
    const total = Object.values(counts).reduce((sum, number) => sum + number, 0);
    return el(
      "p",
      { class: "hint" },
      total
        ? `${plural(total, "decision")} so far: ${count(counts.accept ?? 0)} accepted, ` +
            `${count(counts.reject ?? 0)} rejected.`
        : "No decisions yet.",
    );
  };
  const line = el("div", { class: "home-link-line" });
  load()
    .then((answer) => line.append(render(answer)))
    .catch(() => {}); // The link works without the counts.
  return line;
}

function relationTable(run) {
  const largest = Math.max(1, ...run.relations.map((relation) => relation.facts));
  const sorted = [...run.relations].sort((a, b) => b.facts - a.facts);
  return barTable(
    "Relation",
    "Facts",
    sorted.map((relation) => ({
      head: el(
        "a",
        { href: route.href(["review"], { relation: relation.name }) },
        nameText(relation.name),
      ),
      number: count(relation.facts),
      bar: bar(relation.facts / largest),
    })),
  );
}

function modalityTable(run) {
  return barTable(
    "Modality",
    "Entities",
    run.modalities.map((modality) => ({
      head: [
        nameText(modality.name),
        modality.pairs ? el("span", { class: "hint" }, " pairs, used by rules only") : null,
      ],
      number: count(modality.present),
      bar: bar(modality.present / run.entities, `shade-${runs.shade(modality.name)}`),
    })),
  );
}

function barTable(first, second, list) {
  return el(
    "table",
    { class: "bars" },
    el(
      "thead",
      {},
      el(
        "tr",
        {},
        el("th", { scope: "col" }, first),
        el("td", {}),
        el("th", { scope: "col", class: "number" }, second),
      ),
    ),
    el(
      "tbody",
      {},
      list.map((row) =>
        el(
          "tr",
          {},
          el("th", { scope: "row" }, row.head),
          el("td", { class: "bar-cell" }, row.bar),
          el("td", { class: "number" }, row.number),
        ),
      ),
    ),
  );
}
