// The facts of a new entity: a relation, the other entity, and which of the two is the head.

import { combobox } from "./combobox.js";
import { el } from "./dom.js";
import { rows, trouble } from "./field.js";
import { chooser } from "./question.js";
import * as runs from "./runs.js";

/** `.value(name)` gives facts of an entity of this name, or null where one is wrong; see `contents`. */
export function newFacts() {
  const list = rows({ title: "fact", add: "Add a fact", make: row });
  const box = el(
    "fieldset",
    { class: "card stack" },
    el("legend", { class: "add-legend" }, "What is known of it"),
    el("p", { class: "hint" }, "A few facts say more than anything else: its place among the others is fitted by them."),
    list,
  );
  return Object.assign(box, {
    value(name) {
      const found = list.rows().map((one) => one.fact(name));
      return found.includes(null) ? null : found;
    },
    tell(field, text) {
      const [, number] = /^facts\.(\d+)/.exec(field) ?? [];
      const place = list.rows()[number];
      place?.trouble.tell(text);
      return place !== undefined;
    },
    clear: () => list.rows().forEach((one) => one.trouble.tell()),
  });
}

function row() {
  const side = chooser("The new entity is", [["head", "the head"], ["tail", "the tail"]], "head");
  const relation = chooser("Relation", runs.relations().map((one) => one.name), "", "choose");
  const other = combobox({ label: "Other entity", placeholder: "its name" });
  const told = trouble(relation.input, other.input);
  for (const input of told.inputs) input.setAttribute("aria-describedby", told.id);
  const box = el("div", { class: "add-row add-fact" }, side, relation, other, told);
  return Object.assign(box, {
    trouble: told,
    fact(name) {
      if (!relation.input.value || !other.input.value) {
        told.tell("Give a relation and an entity, or leave this line out.");
        return null;
      }
      const [head, tail] = side.input.value === "head" ? [name, other.input.value] : [other.input.value, name];
      return { head, relation: relation.input.value, tail };
    },
  });
}
