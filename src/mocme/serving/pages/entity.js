// An entity: who it is, what is known, what is missing, its surroundings.

import { about } from "./about.js";
import { takeBack } from "./additions.js";
import * as api from "./api.js";
import { weights } from "./bars.js";
import { LONG_NAME, el, named } from "./dom.js";
import { factsOf } from "./facts.js";
import { moment, plural, value } from "./format.js";
import { medium } from "./media.js";
import { surroundings } from "./neighbourhood.js";
import * as route from "./route.js";
import * as runs from "./runs.js";
import { empty, filled } from "./states.js";
import { announce, suggestions } from "./suggestions.js";

const TABS = { "": "Missing", facts: "Facts", neighbourhood: "Neighbourhood" };
const LONG = 420; // characters of a text that are shown at once

export function show(main, { parts, params }, signal) {
  const [, name = "", tab = ""] = parts;
  const title = el("h1", { tabindex: "-1" }, named(name));
  const card = filled(() => about(name, signal), (told) => aside(told, signal), { lines: 6, signal });
  const line = el("p", { class: "under-title" });
  card.done.then(async () => line.replaceChildren(...(await summary(name, signal))));
  const content = { "": missing, facts: factsOf, neighbourhood: surroundings }[tab] ?? missing;
  main.append(
    el("div", { class: "view-head" }, title, line),
    el(
      "div",
      { class: "entity" },
      el("div", { class: "entity-main" }, tabs(name, tab), content(name, params, signal)),
      el("aside", { class: "entity-side", "aria-label": "About the entity" }, card),
    ),
  );
  return name;
}

/** Types, number of facts, and whether training saw it. */
export async function summary(name, signal) {
  try {
    const told = await about(name, signal);
    const types = (told.types ?? []).map((type) => el("span", { class: "tag" }, named(type)));
    let unseen = told.in_training ? null : el("span", { class: "tag wait" }, "in no training fact");
    if (told.addition) unseen = el("span", { class: "tag wait", title: "The run was not trained with it." }, "added");
    return [...types, el("span", {}, plural(told.facts, "fact")), unseen].filter(Boolean);
  } catch (error) {
    // The card beside it says what went wrong.
    const add = error.code === "unknown_name" && runs.adds();
    return add ? [el("a", { class: "button", href: route.to(["add"], { name }) }, "Add it as a new entity")] : [];
  }
}

function tabs(name, at) {
  return el(
    "nav",
    { class: "tabs", "aria-label": "Of this entity" },
    Object.entries(TABS).map(([tab, title]) =>
      el("a", { href: route.entity(name, tab), "aria-current": tab === at ? "page" : null }, title),
    ),
  );
}

function missing(name, params, signal) {
  const k = Number(params.get("k")) || 15;
  const load = () => api.post("v1/missing", { entity: name, k, min_probability: 0, ...runs.which() }, { signal });
  const draw = ({ predictions }) => {
    announce(predictions);
    if (!predictions.length) return empty("Nothing seems to be missing.", "No new fact of this entity has a probability above 0.");
    return [
      suggestions(predictions, { here: name, signal }),
      el(
        "p",
        { class: "row" },
        predictions.length === k
          ? el("a", { class: "button", href: route.to(["entity", name], { k: Math.min(1000, k * 2) }) }, "Show more")
          : null,
        el("a", { class: "button", href: route.to(["review"], { entity: name }) }, "Review one by one"),
      ),
    ];
  };
  return el(
    "section",
    { "aria-labelledby": "missing-title" },
    el("h2", { id: "missing-title" }, "What is missing"),
    filled(load, draw, { lines: 8, signal }),
  );
}

function aside(told, signal) {
  const files = told.files ?? [];
  const texts = told.texts ?? [];
  const numbers = told.numbers ?? [];
  const whole = told.name.length > LONG_NAME ? text({ modality: "all of its name", text: told.name }) : null;
  return [
    whole ? el("section", { class: "card" }, el("h2", {}, "Name"), whole) : null,
    told.addition ? addition(told) : null,
    files.length ? el("div", { class: "media" }, files.map((file) => medium(file, told.name, { signal }))) : null,
    el(
      "section",
      { class: "card" },
      el("h2", {}, "Modalities"),
      el("p", { class: "hint" }, "Which it has, and what each weighs in its vector."),
      weights(told.weights ?? {}, { present: told.modalities ?? {} }),
      pairs(Object.entries(told.pairs ?? {})),
    ),
    numbers.length ? el("section", { class: "card" }, el("h2", {}, "Numbers"), numbersTable(numbers)) : null,
    texts.length ? el("section", { class: "card" }, el("h2", {}, "Texts"), texts.map(text)) : null,
  ];
}

/** Links between entities that content shows: no content of its own, so they stand apart. */
function pairs(list) {
  if (!list.length) return null;
  return el(
    "div",
    { class: "pairs" },
    el("h3", {}, "Used by patterns only"),
    el("p", { class: "hint" }, "Pairs with other entities, found in their content. They have no part in its vector."),
    el("ul", {}, list.map(([name, many]) => el("li", {}, named(name), " ", el("span", { class: "hint" }, many ? plural(many, "pair") : "none")))),
  );
}

function addition({ name, addition: { time, given, notes } }) {
  const parts = Object.entries(given).map(([modality, what]) => el("li", {}, named(modality), `: ${what}`));
  return el(
    "section",
    { class: "card stack" },
    el("h2", {}, "Added"),
    el("p", { class: "hint" }, "The run was not trained with it. Added ", el("time", { datetime: time }, moment(time)), parts.length ? ", made of:" : "."),
    parts.length ? el("ul", { class: "added-of" }, parts) : null,
    notes.length ? el("ul", { class: "notes" }, notes.map((note) => el("li", {}, named(note)))) : null,
    runs.adds() ? el("div", {}, el("button", { class: "button", type: "button", on: { click: () => takeBack(name) } }, "Take it back")) : null,
  );
}

function numbersTable(numbers) {
  return el(
    "table",
    { class: "numbers" },
    el("tbody", {}, numbers.map((one) => el("tr", {}, el("th", { scope: "row" }, named(one.name)), el("td", { class: "number" }, value(one.value))))),
  );
}

function text(one) {
  const from = el("p", { class: "hint" }, named(one.modality));
  if (one.text.length <= LONG) return el("div", { class: "text" }, from, el("p", { dir: "auto" }, one.text));
  const cut = [...one.text].slice(0, LONG - 60).join("");
  const body = el("p", { dir: "auto" }, `${cut}…`);
  const more = el("button", { class: "quiet", type: "button" }, "Show all of it");
  more.addEventListener("click", () => {
    body.textContent = one.text;
    more.remove();
  });
  return el("div", { class: "text" }, from, body, more);
}
