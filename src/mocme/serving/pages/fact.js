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

/** The probability of a prediction: where the relation may not apply at all, times how likely it does. */
export function likelihood({ probability, applies }) {
  if (probability === null || probability === undefined) return null;
  return probability * (applies ?? 1);
}

/** What tells facts apart. */
export const key = ({ head, relation, tail }) => JSON.stringify([head, relation, tail]);
