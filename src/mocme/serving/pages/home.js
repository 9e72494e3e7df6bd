// The start: what is served, and where to begin.

import * as api from "./api.js";
import { bar } from "./bars.js";
import { el, named } from "./dom.js";
import { count, plural } from "./format.js";
import * as route from "./route.js";
import * as runs from "./runs.js";

export function show(main, _address, signal) {
  const run = runs.current();
  main.append(
    el(
      "div",
      { class: "view-head" },
      el("h1", { tabindex: "-1" }, named(run.graph)),
      el("p", { class: "under-title" }, `${plural(run.entities, "entity", "entities")}, ${plural(run.facts.train, "training fact")}${run.additions ? `, ${run.additions === 1 ? "one" : count(run.additions)} of the entities added` : ""}. Run `, named(run.name), ", experiment ", named(run.experiment), `, seed ${run.seed}.`),
      run.notes.length ? el("ul", { class: "notes" }, run.notes.map((note) => el("li", {}, named(note)))) : null,
    ),
    el(
      "div",
      { class: "doors" },
      door(["review"], "Review", "Likely new facts, one by one: accept, reject, skip.", progress(signal)),
      door(["ask"], "Ask", "A fact with something left out; what is left out is what is asked for."),
      door(["run"], "The run", "How well it answers, by relation and modality; how it learned; whether its probabilities are right."),
      runs.adds() ? door(["add"], "Add an entity", "One that the run was not trained with: its name, what it is like, what is known of it.") : null,
    ),
    el(
      "div",
      { class: "two home" },
      el("section", { class: "card", "aria-labelledby": "home-relations" }, el("h2", { id: "home-relations" }, "Relations"), relations(run)),
      el("section", { class: "card", "aria-labelledby": "home-modalities" }, el("h2", { id: "home-modalities" }, "Modalities"), modalities(run)),
    ),
  );
  return run.graph;
}

function door(parts, title, text, extra = null) {
  return el("a", { class: "door", href: route.to(parts) }, el("h2", {}, title), el("p", {}, text), extra);
}

function progress(signal) {
  const load = () => api.get("v1/reviews", { limit: 1, ...runs.which() }, { signal });
  const draw = ({ counts }) => {
    const made = Object.values(counts).reduce((sum, number) => sum + number, 0);
    return el("p", { class: "hint" }, made ? `${plural(made, "decision")} so far: ${count(counts.accept ?? 0)} accepted, ${count(counts.reject ?? 0)} rejected.` : "No decisions yet.");
  };
  const line = el("div", { class: "door-line" });
  load().then((answer) => line.append(draw(answer))).catch(() => {}); // The door opens all the same.
  return line;
}

function relations(run) {
  const largest = Math.max(1, ...run.relations.map((one) => one.facts));
  const sorted = [...run.relations].sort((a, b) => b.facts - a.facts);
  return rows(
    "Relation",
    "Facts",
    sorted.map((one) => ({
      head: el("a", { href: route.to(["review"], { relation: one.name }) }, named(one.name)),
      number: count(one.facts),
      bar: bar(one.facts / largest),
    })),
  );
}

function modalities(run) {
  return rows(
    "Modality",
    "Entities",
    run.modalities.map((one) => ({
      head: [named(one.name), one.pairs ? el("span", { class: "hint" }, " pairs, used by patterns only") : null],
      number: count(one.present),
      bar: bar(one.present / run.entities, `shade-${runs.shade(one.name)}`),
    })),
  );
}

function rows(first, second, list) {
  return el(
    "table",
    { class: "bars" },
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, first), el("td", {}), el("th", { scope: "col", class: "number" }, second))),
    el("tbody", {}, list.map((one) => el("tr", {}, el("th", { scope: "row" }, one.head), el("td", { class: "bar-cell" }, one.bar), el("td", { class: "number" }, one.number)))),
  );
}
