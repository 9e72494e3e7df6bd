// Fields for the facts of a new entity: relation, other entity, and which of the two is the head.

import { combobox } from "./combobox.js";
import { el } from "./dom.js";
import { rowList, errorLine } from "./fields.js";
import { selectField } from "./question.js";
import * as runs from "./runs.js";

/** `.value(name)` returns facts of the entity, or null if one is invalid; see `contentFields`. */
export function factFields() {
  const list = rowList({ title: "fact", add: "Add a fact", makeRow: factRow });
  const box = el(
    "fieldset",
    { class: "card stack" },
    el("legend", { class: "add-heading" }, "Facts"),
    el(
      "p",
      { class: "hint" },
      "A few facts help the most: the vector of the entity is fitted to them.",
    ),
    list,
  );
  return Object.assign(box, {
    value(name) {
      const facts = list.rows().map((row) => row.fact(name));
      return facts.includes(null) ? null : facts;
    },
    showError(field, text) {
      const [, index] = /^facts\.(\d+)/.exec(field) ?? [];
      const row = list.rows()[index];
      row?.error.show(text);
      return row !== undefined;
    },
    clearErrors: () => list.rows().forEach((row) => row.error.show()),
  });
}

function factRow() {
  const side = selectField(
    "The new entity is",
    [
      ["head", "the head"],
      ["tail", "the tail"],
    ],
    "head",
  );
  const relation = selectField(
    "Relation",
    runs.relations().map((item) => item.name),
    "",
    "choose",
  );
  const other = combobox({ label: "Other entity", placeholder: "its name" });
  const error = errorLine(relation.input, other.input);
  for (const input of error.inputs) input.setAttribute("aria-describedby", error.id);
  const box = el("div", { class: "add-row add-fact" }, side, relation, other, error);
  return Object.assign(box, {
    error,
    fact(name) {
      if (!relation.input.value || !other.input.value) {
        error.show("Choose a relation and an entity, or remove this row.");
        return null;
      }
      const [head, tail] =
        side.input.value === "head" ? [name, other.input.value] : [other.input.value, name];
      return { head, relation: relation.input.value, tail };
    },
  });
}
