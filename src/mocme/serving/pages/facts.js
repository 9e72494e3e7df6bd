// The tab "Facts" of an entity: its facts by relation and direction, in pages.

import * as api from "./api.js";
import { el, nameText, uniqueId } from "./dom.js";
import { entityLink } from "./fact.js";
import { count, plural } from "./format.js";
import * as route from "./route.js";
import * as runs from "./runs.js";
import { empty, asyncContent } from "./states.js";

const PAGE = 100;

export function factsTab(name, params, signal) {
  const offset = Math.max(0, Number(params.get("offset")) || 0);
  const relation = params.get("relation") ?? "";
  const load = () =>
    api.get(
      "v1/facts",
      { name, offset, limit: PAGE, relation, ...runs.runParameter() },
      { signal },
    );
  const render = ({ total, facts }) =>
    total
      ? [factGroups(name, facts), pager(name, { offset, relation, total, shown: facts.length })]
      : noFacts(relation);
  return el(
    "section",
    { "aria-labelledby": "facts-title" },
    el(
      "div",
      { class: "row spread" },
      el("h2", { id: "facts-title" }, "Facts"),
      relationFilter(name, relation),
    ),
    asyncContent(load, render, { lines: 8, signal }),
  );
}

function noFacts(relation) {
  return relation
    ? empty("The graph contains no such facts of this entity.", "Choose another relation, or all.")
    : empty(
        "The graph contains no facts of this entity.",
        "Its missing facts are suggestions for the first ones.",
      );
}

function relationFilter(name, relation) {
  const id = uniqueId("relation");
  const change = (event) => route.go(["entity", name, "facts"], { relation: event.target.value });
  return el(
    "div",
    { class: "row" },
    el("label", { class: "hint", for: id }, "Relation"),
    el(
      "select",
      { id, class: "field", on: { change } },
      el("option", { value: "", selected: !relation }, "all"),
      runs
        .relations()
        .map(({ name: option }) =>
          el("option", { value: option, selected: option === relation }, option),
        ),
    ),
  );
}

function factGroups(name, facts) {
  const grouped = new Map();
  for (const fact of facts) {
    const isHead = fact.head === name;
    const key = JSON.stringify([fact.relation, isHead]);
    if (!grouped.has(key)) grouped.set(key, { relation: fact.relation, isHead, facts: [] });
    grouped.get(key).facts.push(fact);
  }
  return [...grouped.values()].map((group) => {
    const relation = el("span", { class: "relation" }, nameText(group.relation));
    const here = nameText(name);
    const dots = el("span", { class: "hint", "aria-hidden": "true" }, "…");
    return el(
      "section",
      { class: "fact-group" },
      el(
        "h3",
        {},
        group.isHead ? [here, " ", relation, " ", dots] : [dots, " ", relation, " ", here],
        " ",
        el("span", { class: "hint" }, count(group.facts.length)),
      ),
      el(
        "ul",
        { class: "fact-ends" },
        group.facts.map((fact) =>
          el("li", {}, entityLink(group.isHead ? fact.tail : fact.head), splitTag(fact.split)),
        ),
      ),
    );
  });
}

function splitTag(name) {
  return name === "train"
    ? null
    : el("span", { class: "split", title: "not used in training" }, nameText(name));
}

function pager(name, { offset, relation, total, shown }) {
  const link = (target, text) =>
    el(
      "a",
      {
        class: "button",
        href: route.href(["entity", name, "facts"], { relation, offset: target || "" }),
      },
      text,
    );
  return el(
    "nav",
    { class: "row", "aria-label": "Pages of facts" },
    offset > 0 ? link(Math.max(0, offset - PAGE), "Previous") : null,
    el(
      "span",
      { class: "hint" },
      total > shown
        ? `${count(offset + 1)} to ${count(offset + shown)} of ${count(total)}`
        : plural(total, "fact"),
    ),
    offset + shown < total ? link(offset + PAGE, "Next") : null,
  );
}
