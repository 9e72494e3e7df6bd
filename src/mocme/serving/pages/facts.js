// The facts of an entity, by relation and direction, a page at a time.

import * as api from "./api.js";
import { el, named, unique } from "./dom.js";
import { entityLink } from "./fact.js";
import { count, plural } from "./format.js";
import * as route from "./route.js";
import * as runs from "./runs.js";
import { empty, filled } from "./states.js";

const PAGE = 100;

export function factsOf(name, params, signal) {
  const offset = Math.max(0, Number(params.get("offset")) || 0);
  const relation = params.get("relation") ?? "";
  const load = () => api.get("v1/facts", { name, offset, limit: PAGE, relation, ...runs.which() }, { signal });
  const draw = ({ total, facts }) =>
    total ? [groups(name, facts), pager(name, { offset, relation, total, shown: facts.length })] : none(relation);
  return el(
    "section",
    { "aria-labelledby": "facts-title" },
    el("div", { class: "row spread" }, el("h2", { id: "facts-title" }, "Facts"), filter(name, relation)),
    filled(load, draw, { lines: 8, signal }),
  );
}

function none(relation) {
  return relation
    ? empty("The graph holds no fact of this relation here.", "Choose another relation, or all.")
    : empty("The graph holds no fact of this entity.", "What is missing about it is the place to begin.");
}

function filter(name, relation) {
  const id = unique("relation");
  const change = (event) => route.go(["entity", name, "facts"], { relation: event.target.value });
  return el(
    "div",
    { class: "row" },
    el("label", { class: "hint", for: id }, "Relation"),
    el(
      "select",
      { id, class: "field", on: { change } },
      el("option", { value: "", selected: !relation }, "all"),
      runs.relations().map((one) => el("option", { value: one.name, selected: one.name === relation }, one.name)),
    ),
  );
}

function groups(name, facts) {
  const found = new Map();
  for (const fact of facts) {
    const out = fact.head === name;
    const key = JSON.stringify([fact.relation, out]);
    if (!found.has(key)) found.set(key, { relation: fact.relation, out, facts: [] });
    found.get(key).facts.push(fact);
  }
  return [...found.values()].map((group) => {
    const relation = el("span", { class: "relation" }, named(group.relation));
    const here = named(name);
    const dots = el("span", { class: "hint", "aria-hidden": "true" }, "…");
    return el(
      "section",
      { class: "fact-group" },
      el("h3", {}, group.out ? [here, " ", relation, " ", dots] : [dots, " ", relation, " ", here], " ", el("span", { class: "hint" }, count(group.facts.length))),
      el("ul", { class: "fact-ends" }, group.facts.map((fact) => el("li", {}, entityLink(group.out ? fact.tail : fact.head), split(fact.split)))),
    );
  });
}

function split(name) {
  return name === "train" ? null : el("span", { class: "split", title: "not used in training" }, named(name));
}

function pager(name, { offset, relation, total, shown }) {
  const link = (at, text) => el("a", { class: "button", href: route.to(["entity", name, "facts"], { relation, offset: at || "" }) }, text);
  return el(
    "nav",
    { class: "row", "aria-label": "Pages of facts" },
    offset > 0 ? link(Math.max(0, offset - PAGE), "Earlier") : null,
    el("span", { class: "hint" }, total > shown ? `${count(offset + 1)} to ${count(offset + shown)} of ${count(total)}` : plural(total, "fact")),
    offset + shown < total ? link(offset + PAGE, "Later") : null,
  );
}
