// A question: a fact with something left out. What is left out is what is asked for.

import * as api from "./api.js";
import { combobox } from "./combobox.js";
import { el, unique } from "./dom.js";
import * as runs from "./runs.js";

const DEFAULTS = { k: 10, among: "all", known: "hide", min: 0 };

/** A question of an address's parameters. */
export function read(params) {
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

/** Its parameters, without those that are as usual. */
export function written(question) {
  const kept = Object.entries(question).filter(([name, value]) => value !== "" && value !== DEFAULTS[name]);
  return Object.fromEntries(kept);
}

/** What is asked for: "tails", "heads", "relations", "missing", "score", or null where too little is given. */
export function kind({ head, relation, tail }) {
  if (head && relation && tail) return "score";
  if (head && relation) return "tails";
  if (relation && tail) return "heads";
  if (head && tail) return "relations";
  if (head || tail) return "missing";
  return null;
}

/** The side of the answers that was asked for. */
export const side = (question) => ({ tails: "tail", heads: "head" })[kind(question)] ?? null;

/** As one reads it. */
export function phrase(question) {
  const { head, relation, tail } = question;
  if (kind(question) === "missing") return `What is missing about ${head || tail}`;
  return `(${head || "?"}, ${relation || "?"}, ${tail || "?"})`;
}

/** Ask it of a run; gives the predictions. */
export async function ask(question, { run = undefined, signal = null } = {}) {
  const { head, relation, tail, k, among, known, min } = question;
  const where = runs.which(run);
  const options = { k, min_probability: min };
  const body = {
    tails: { head, relation, ...options, known, among },
    heads: { relation, tail, ...options, known, among },
    relations: { head, tail, ...options, known },
    missing: { entity: head || tail, ...options },
    score: { facts: [{ head, relation, tail }] },
  }[kind(question)];
  const answer = await api.post(`v1/${kind(question)}`, { ...body, ...where }, { signal });
  return answer.predictions;
}

/** A form that asks; `sent(question)` is called with what was given. `extra` stands beside the options. */
export function form(question, sent, { extra = null, run = undefined } = {}) {
  const probabilities = runs.all().some((one) => one.probabilities);
  const head = combobox({ label: "Head", placeholder: "any", value: question.head, run });
  const tail = combobox({ label: "Tail", placeholder: "any", value: question.tail, run });
  const relation = chooser("Relation", relationNames(), question.relation, "any");
  const known = chooser("Known facts", [["hide", "hidden"], ["mark", "marked"]], question.known);
  const among = chooser("Answers among", [["all", "all entities"], ["observed", "those seen in this place"]], question.among);
  const k = number("How many", question.k, { min: 1, max: 1000, step: 1 });
  const min = number("Least probability, %", Math.round(question.min * 1000) / 10, { min: 0, max: 100, step: "any" });
  const trouble = el("p", { class: "field-trouble", role: "alert" });
  const swap = el("button", { class: "button swap", type: "button", title: "Swap head and tail", "aria-label": "Swap head and tail" }, "⇄");
  swap.addEventListener("click", () => {
    [head.input.value, tail.input.value] = [tail.input.value, head.input.value];
  });
  const submit = (event) => {
    event.preventDefault();
    const asked = {
      head: head.input.value,
      relation: relation.input.value,
      tail: tail.input.value,
      k: Number(k.input.value) || DEFAULTS.k,
      among: among.input.value,
      known: known.input.value,
      min: (Number(min.input.value) || 0) / 100,
    };
    const able = kind(asked) !== null;
    trouble.textContent = able ? "" : "Give an entity, and a relation or a second entity.";
    if (able) sent(asked);
    else head.input.focus();
  };
  return el(
    "form",
    { class: "question", on: { submit }, "aria-label": "Question", novalidate: true },
    el("div", { class: "question-fact" }, head, relation, tail, swap),
    trouble,
    el(
      "div",
      { class: "question-options" },
      extra,
      k,
      among,
      known,
      probabilities ? min : null,
      el("button", { class: "button main-button", type: "submit" }, "Ask"),
    ),
  );
}

/** Relations of all runs, each once. */
export function relationNames() {
  return [...new Set(runs.all().flatMap((run) => run.relations.map((one) => one.name)))];
}

/** A labelled choice among names, or [value, title] pairs; `none` is a title for no choice. */
export function chooser(label, options, value, none = null) {
  const id = unique("choice");
  const pairs = options.map((option) => (Array.isArray(option) ? option : [option, option]));
  if (none !== null) pairs.unshift(["", none]);
  const input = el("select", { id, class: "field" }, pairs.map(([key, title]) => el("option", { value: key, selected: key === value }, title)));
  return Object.assign(el("div", { class: "labelled" }, el("label", { class: "label", for: id }, label), input), { input });
}

/** A labelled number. */
export function number(label, value, limits) {
  const id = unique("number");
  const input = el("input", { id, class: "field short", type: "number", inputmode: "decimal", ...limits, value });
  return Object.assign(el("div", { class: "labelled" }, el("label", { class: "label", for: id }, label), input), { input });
}
