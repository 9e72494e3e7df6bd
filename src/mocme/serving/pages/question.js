// A question: a fact with one or two parts left open, which are predicted.

import * as api from "./api.js";
import { combobox } from "./combobox.js";
import { el, uniqueId } from "./dom.js";
import * as runs from "./runs.js";

const DEFAULTS = { k: 10, among: "all", known: "hide", min: 0 };

/** The question in the parameters of an address. */
export function fromParams(params) {
  const text = (name) => params.get(name) ?? "";
  const share = Number(params.get("min"));
  return {
    head: text("head"),
    relation: text("relation"),
    tail: text("tail"),
    k: Math.min(1000, Math.max(1, Math.round(Number(params.get("k"))) || DEFAULTS.k)),
    among: params.get("among") === "observed" ? "observed" : "all",
    known: params.get("known") === "mark" ? "mark" : "hide",
    min: share > 0 && share <= 1 ? share : 0,
  };
}

/** The parameters of a question, without default values. */
export function toParams(question) {
  const changed = Object.entries(question).filter(
    ([name, value]) => value !== "" && value !== DEFAULTS[name],
  );
  return Object.fromEntries(changed);
}

/** The endpoint: "tails", "heads", "relations", "missing", "score"; null if too little is given. */
export function kind({ head, relation, tail }) {
  if (head && relation && tail) return "score";
  if (head && relation) return "tails";
  if (relation && tail) return "heads";
  if (head && tail) return "relations";
  if (head || tail) return "missing";
  return null;
}

/** The side that is predicted, "head" or "tail", or null. */
export const side = (question) => ({ tails: "tail", heads: "head" })[kind(question)] ?? null;

/** A question as text. */
export function describe(question) {
  const { head, relation, tail } = question;
  if (kind(question) === "missing") return `What is missing about ${head || tail}`;
  return `(${head || "?"}, ${relation || "?"}, ${tail || "?"})`;
}

/** The predictions of a run for a question. */
export async function predict(question, { run = undefined, signal = null } = {}) {
  const { head, relation, tail, k, among, known, min } = question;
  const runParameter = runs.runParameter(run);
  const options = { k, min_probability: min };
  const body = {
    tails: { head, relation, ...options, known, among },
    heads: { relation, tail, ...options, known, among },
    relations: { head, tail, ...options, known },
    missing: { entity: head || tail, ...options },
    score: { facts: [{ head, relation, tail }] },
  }[kind(question)];
  const answer = await api.post(`v1/${kind(question)}`, { ...body, ...runParameter }, { signal });
  return answer.predictions;
}

/** A form for a question, passed to `onSubmit(question)`. `extra` is shown next to the options. */
export function queryForm(question, onSubmit, { extra = null, getRun = undefined } = {}) {
  const probabilities = runs.all().some((run) => run.probabilities);
  const head = combobox({ label: "Head", placeholder: "any", value: question.head, getRun });
  const tail = combobox({ label: "Tail", placeholder: "any", value: question.tail, getRun });
  const relation = selectField("Relation", relationNames(), question.relation, "any");
  const known = selectField(
    "Known facts",
    [
      ["hide", "hidden"],
      ["mark", "marked"],
    ],
    question.known,
  );
  const among = selectField(
    "Candidates",
    [
      ["all", "all entities"],
      ["observed", "entities seen in this position"],
    ],
    question.among,
  );
  const k = numberField("Number of answers", question.k, { min: 1, max: 1000, step: 1 });
  const min = numberField("Minimum probability, %", Math.round(question.min * 1000) / 10, {
    min: 0,
    max: 100,
    step: "any",
  });
  const errorBox = el("p", { class: "field-error", role: "alert" });
  const swap = el(
    "button",
    {
      class: "button swap",
      type: "button",
      title: "Swap head and tail",
      "aria-label": "Swap head and tail",
    },
    "⇄",
  );
  swap.addEventListener("click", () => {
    [head.input.value, tail.input.value] = [tail.input.value, head.input.value];
  });
  const submit = (event) => {
    event.preventDefault();
    const entered = {
      head: head.input.value,
      relation: relation.input.value,
      tail: tail.input.value,
      k: Number(k.input.value) || DEFAULTS.k,
      among: among.input.value,
      known: known.input.value,
      min: (Number(min.input.value) || 0) / 100,
    };
    const complete = kind(entered) !== null;
    errorBox.textContent = complete
      ? ""
      : "Enter an entity, and optionally a relation or a second entity.";
    if (complete) onSubmit(entered);
    else head.input.focus();
  };
  return el(
    "form",
    { class: "question", on: { submit }, "aria-label": "Question", novalidate: true },
    el("div", { class: "question-fact" }, head, relation, tail, swap),
    errorBox,
    el(
      "div",
      { class: "question-options" },
      extra,
      k,
      among,
      known,
      probabilities ? min : null,
      el("button", { class: "button primary-button", type: "submit" }, "Ask"),
    ),
  );
}

/** The names of the relations of all runs, each once. */
export function relationNames() {
  return [...new Set(runs.all().flatMap((run) => run.relations.map((relation) => relation.name)))];
}

/** A labelled select of names or [value, title] pairs; `none` is the title of the empty choice. */
export function selectField(label, options, value, none = null) {
  const id = uniqueId("choice");
  const pairs = options.map((option) => (Array.isArray(option) ? option : [option, option]));
  if (none !== null) pairs.unshift(["", none]);
  const input = el(
    "select",
    { id, class: "field" },
    pairs.map(([key, title]) => el("option", { value: key, selected: key === value }, title)),
  );
  return Object.assign(
    el("div", { class: "labelled" }, el("label", { class: "label", for: id }, label), input),
    { input },
  );
}

/** A labelled number input. */
export function numberField(label, value, limits) {
  const id = uniqueId("number");
  const input = el("input", {
    id,
    class: "field short",
    type: "number",
    inputmode: "decimal",
    ...limits,
    value,
  });
  return Object.assign(
    el("div", { class: "labelled" }, el("label", { class: "label", for: id }, label), input),
    { input },
  );
}
