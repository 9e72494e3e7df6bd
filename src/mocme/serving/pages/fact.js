// A fact as a sentence whose entities are links.

import { el, named } from "./dom.js";
import * as route from "./route.js";

/** A link to an entity. */
export function entityLink(name, properties = {}) {
  return el("a", { class: "entity-link", href: route.entity(name), ...properties }, named(name));
}

/** "Chad borders Niger", with the relation set apart. `here` is an entity that needs no link. */
export function sentence({ head, relation, tail }, { here = null, strong = null } = {}) {
  const part = (name, side) => {
    const text = name === here ? named(name) : entityLink(name);
    const other = here !== null && name !== here;
    return el(side === strong || other ? "strong" : "span", { class: "fact-end" }, text);
  };
  return el(
    "span",
    { class: "fact" },
    part(head, "head"),
    " ",
    el("span", { class: "relation" }, named(relation)),
    " ",
    part(tail, "tail"),
  );
}

/** As one says it, for labels and messages. */
export const spoken = ({ head, relation, tail }) => `${head} ${relation} ${tail}`;

/** The facts that a decision on a prediction is kept for: where turned around it says the same, both. */
export function decidedFacts({ head, relation, tail, symmetric }) {
  const straight = { head, relation, tail };
  return symmetric ? [straight, { head: tail, relation, tail: head }] : [straight];
}

/** "already: capital of", where other relations link the two; else nothing. */
export function already({ linked = [] }) {
  if (!linked.length) return null;
  return el("span", { class: "tag", title: "other relations that link the two in the graph" }, "already: ", linked.map((name, n) => [n ? ", " : "", named(name)]));
}

/** The probability of a prediction: where the relation may not apply at all, times how likely it does. */
export function likelihood({ probability, applies }) {
  if (probability === null || probability === undefined) return null;
  return probability * (applies ?? 1);
}

/** What tells facts apart. */
export const key = ({ head, relation, tail }) => JSON.stringify([head, relation, tail]);
