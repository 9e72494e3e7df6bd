// The source of the suggestions under review.

import { combobox } from "./combobox.js";
import { el } from "./dom.js";
import { selectField, numberField, describe, relationNames } from "./question.js";
import * as route from "./route.js";
import * as runs from "./runs.js";

const DEFAULT_MIN = 0.1; // minimum probability

/** The source in the parameters of an address, with a text that describes it. */
export function sourceOf(params) {
  const parameter = (name) => params.get(name) ?? "";
  const [entity, head, relation, tail] = ["entity", "head", "relation", "tail"].map(parameter);
  const share = params.has("min") ? Number(params.get("min")) : DEFAULT_MIN;
  const min = runs.current()?.probabilities && share > 0 && share <= 1 ? share : 0;
  let text = "Likely new facts, on a walk over the graph.";
  if (entity) text = `Missing facts of ${entity}.`;
  else if (head || tail) text = `Answers to ${describe({ head, relation, tail })}.`;
  else if (relation)
    text = `Likely new facts of the relation ${relation}, on a walk over the graph.`;
  return { entity, head, relation, tail, min, text };
}

/** A form to choose the source. */
export function sourceForm(source) {
  const entity = combobox({
    label: "Entity",
    placeholder: "all",
    value: source.entity || source.head || source.tail,
  });
  const relation = selectField("Relation", relationNames(), source.relation, "any");
  const minimum = numberField("Minimum probability, %", Math.round(source.min * 1000) / 10, {
    min: 0,
    max: 100,
    step: "any",
  });
  const submit = (event) => {
    event.preventDefault();
    const min = (Number(minimum.input.value) || 0) / 100;
    route.go(["review"], {
      entity: entity.input.value,
      relation: relation.input.value,
      min: min === DEFAULT_MIN ? "" : String(min),
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
      runs.current()?.probabilities ? minimum : null,
      el("button", { class: "button primary-button", type: "submit" }, "Review"),
    ),
  );
}
