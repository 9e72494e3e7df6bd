// The view of an entity: its content, missing facts, facts and neighbourhood.

import { entityInfo } from "./entity-info.js";
import { removeAddition } from "./additions.js";
import * as api from "./api.js";
import { weightList } from "./bars.js";
import { LONG_NAME, el, nameText } from "./dom.js";
import { factsTab } from "./facts.js";
import { dateTime, plural, value } from "./format.js";
import { mediaElement } from "./media.js";
import { neighbourhoodTab } from "./neighbourhood.js";
import * as route from "./route.js";
import * as runs from "./runs.js";
import { empty, asyncContent } from "./states.js";
import { announceCount, suggestionList } from "./suggestions.js";

const TABS = { "": "Missing", facts: "Facts", neighbourhood: "Neighbourhood" };
const MAX_TEXT = 420; // characters of a text that are shown at first

export function show(main, { parts, params }, signal) {
  const [, name = "", tab = ""] = parts;
  const title = el("h1", { tabindex: "-1" }, nameText(name));
  const card = asyncContent(
    () => entityInfo(name, signal),
    (info) => sideCards(info, signal),
    { lines: 6, signal },
  );
  const subtitle = el("p", { class: "subtitle" });
  card.loaded.then(async () => subtitle.replaceChildren(...(await entitySummary(name, signal))));
  const content =
    { "": missingTab, facts: factsTab, neighbourhood: neighbourhoodTab }[tab] ?? missingTab;
  main.append(
    el("div", { class: "view-head" }, title, subtitle),
    el(
      "div",
      { class: "entity" },
      el("div", { class: "entity-main" }, tabLinks(name, tab), content(name, params, signal)),
      el("aside", { class: "entity-side", "aria-label": "About the entity" }, card),
    ),
  );
  return name;
}

/** Types, number of facts, and whether the entity occurs in training facts. */
export async function entitySummary(name, signal) {
  try {
    const info = await entityInfo(name, signal);
    const types = (info.types ?? []).map((type) => el("span", { class: "tag" }, nameText(type)));
    let unseen = info.in_training
      ? null
      : el("span", { class: "tag warn" }, "not in training facts");
    if (info.addition)
      unseen = el(
        "span",
        { class: "tag warn", title: "The run was not trained with this entity." },
        "added",
      );
    return [...types, el("span", {}, plural(info.facts, "fact")), unseen].filter(Boolean);
  } catch (error) {
    // The side card shows the error itself.
    const canAdd = error.code === "unknown_name" && runs.acceptsAdditions();
    return canAdd
      ? [
          el(
            "a",
            { class: "button", href: route.href(["add"], { name }) },
            "Add it as a new entity",
          ),
        ]
      : [];
  }
}

function tabLinks(name, current) {
  return el(
    "nav",
    { class: "tabs", "aria-label": "Parts of this view" },
    Object.entries(TABS).map(([tab, title]) =>
      el(
        "a",
        { href: route.entityHref(name, tab), "aria-current": tab === current ? "page" : null },
        title,
      ),
    ),
  );
}

function missingTab(name, params, signal) {
  const k = Number(params.get("k")) || 15;
  const load = () =>
    api.post(
      "v1/missing",
      { entity: name, k, min_probability: 0, ...runs.runParameter() },
      { signal },
    );
  const render = ({ predictions }) => {
    announceCount(predictions);
    if (!predictions.length)
      return empty(
        "Nothing seems to be missing.",
        "No new fact of this entity has a probability above 0.",
      );
    return [
      suggestionList(predictions, { here: name, signal }),
      el(
        "p",
        { class: "row" },
        predictions.length === k
          ? el(
              "a",
              { class: "button", href: route.href(["entity", name], { k: Math.min(1000, k * 2) }) },
              "Show more",
            )
          : null,
        el(
          "a",
          { class: "button", href: route.href(["review"], { entity: name }) },
          "Review one by one",
        ),
      ),
    ];
  };
  return el(
    "section",
    { "aria-labelledby": "missing-title" },
    el("h2", { id: "missing-title" }, "Missing facts"),
    asyncContent(load, render, { lines: 8, signal }),
  );
}

function sideCards(info, signal) {
  const files = info.files ?? [];
  const texts = info.texts ?? [];
  const numbers = info.numbers ?? [];
  const fullName =
    info.name.length > LONG_NAME ? textBlock({ modality: "full name", text: info.name }) : null;
  return [
    fullName ? el("section", { class: "card" }, el("h2", {}, "Name"), fullName) : null,
    info.addition ? additionCard(info) : null,
    files.length
      ? el(
          "div",
          { class: "media" },
          files.map((file) => mediaElement(file, info.name, { signal })),
        )
      : null,
    el(
      "section",
      { class: "card" },
      el("h2", {}, "Modalities"),
      el("p", { class: "hint" }, "Which modalities it has, and the weight of each in its vector."),
      weightList(info.weights ?? {}, { present: info.modalities ?? {} }),
      pairList(Object.entries(info.pairs ?? {})),
    ),
    numbers.length
      ? el("section", { class: "card" }, el("h2", {}, "Numbers"), numbersTable(numbers))
      : null,
    texts.length
      ? el("section", { class: "card" }, el("h2", {}, "Texts"), texts.map(textBlock))
      : null,
  ];
}

/** Pairs with other entities. They are not content of the entity itself, so they are separate. */
function pairList(list) {
  if (!list.length) return null;
  return el(
    "div",
    { class: "pairs" },
    el("h3", {}, "Used by rules only"),
    el(
      "p",
      { class: "hint" },
      "Pairs with other entities, found in their content. They are not part of its vector.",
    ),
    el(
      "ul",
      {},
      list.map(([name, number]) =>
        el(
          "li",
          {},
          nameText(name),
          " ",
          el("span", { class: "hint" }, number ? plural(number, "pair") : "none"),
        ),
      ),
    ),
  );
}

function additionCard({ name, addition: { time, given, notes } }) {
  const parts = Object.entries(given).map(([modality, description]) =>
    el("li", {}, nameText(modality), `: ${description}`),
  );
  return el(
    "section",
    { class: "card stack" },
    el("h2", {}, "Added"),
    el(
      "p",
      { class: "hint" },
      "The run was not trained with this entity. Added ",
      el("time", { datetime: time }, dateTime(time)),
      parts.length ? ", from:" : ".",
    ),
    parts.length ? el("ul", { class: "addition-content" }, parts) : null,
    notes.length
      ? el(
          "ul",
          { class: "notes" },
          notes.map((note) => el("li", {}, nameText(note))),
        )
      : null,
    runs.acceptsAdditions()
      ? el(
          "div",
          {},
          el(
            "button",
            { class: "button", type: "button", on: { click: () => removeAddition(name) } },
            "Remove",
          ),
        )
      : null,
  );
}

function numbersTable(numbers) {
  return el(
    "table",
    { class: "numbers" },
    el(
      "tbody",
      {},
      numbers.map((number) =>
        el(
          "tr",
          {},
          el("th", { scope: "row" }, nameText(number.name)),
          el("td", { class: "number" }, value(number.value)),
        ),
      ),
    ),
  );
}

function textBlock({ modality, text }) {
  const label = el("p", { class: "hint" }, nameText(modality));
  if (text.length <= MAX_TEXT)
    return el("div", { class: "text" }, label, el("p", { dir: "auto" }, text));
  const cut = [...text].slice(0, MAX_TEXT - 60).join("");
  const body = el("p", { dir: "auto" }, `${cut}…`);
  const more = el("button", { class: "link-button", type: "button" }, "Show all");
  more.addEventListener("click", () => {
    body.textContent = text;
    more.remove();
  });
  return el("div", { class: "text" }, label, body, more);
}
