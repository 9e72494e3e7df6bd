// Where the suggestions under review come from.

import { combobox } from "./combobox.js";
import { el } from "./dom.js";
import { chooser, number, phrase, relationNames } from "./question.js";
import * as route from "./route.js";
import * as runs from "./runs.js";

const USUAL = 0.1; // least probability, where nothing else is said

/** What an address asks to review, and a text that says so. */
export function source(params) {
  const given = (name) => params.get(name) ?? "";
  const [entity, head, relation, tail] = ["entity", "head", "relation", "tail"].map(given);
  const share = params.has("min") ? Number(params.get("min")) : USUAL;
  const min = runs.current()?.probabilities && share > 0 && share <= 1 ? share : 0;
  let text = "Likely new facts, on a walk over the graph.";
  if (entity) text = `What is missing about ${entity}.`;
  else if (head || tail) text = `Answers of ${phrase({ head, relation, tail })}.`;
  else if (relation) text = `Likely new facts of the relation ${relation}, on a walk over the graph.`;
  return { entity, head, relation, tail, min, text };
}

/** A form that chooses. */
export function sourceForm(from) {
  const entity = combobox({ label: "Entity", placeholder: "all, on a walk", value: from.entity || from.head || from.tail });
  const relation = chooser("Relation", relationNames(), from.relation, "any");
  const least = number("Least probability, %", Math.round(from.min * 1000) / 10, { min: 0, max: 100, step: "any" });
  const submit = (event) => {
    event.preventDefault();
    const min = (Number(least.input.value) || 0) / 100;
    route.go(["review"], {
      entity: entity.input.value,
      relation: relation.input.value,
      min: min === USUAL ? "" : String(min),
    });
  };
  return el(
    "details",
    { class: "review-source" },
    el("summary", {}, "Choose what to review"),
    el(
      "form",
      { class: "question-options", on: { submit }, "aria-label": "What to review" },
      entity,
      relation,
      runs.current()?.probabilities ? least : null,
      el("button", { class: "button main-button", type: "submit" }, "Review these"),
    ),
  );
}
