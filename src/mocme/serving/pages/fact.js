// Facts as sentences and texts.

import { el, nameText } from "./dom.js";
import * as route from "./route.js";

/** A link to an entity. */
export function entityLink(name, properties = {}) {
  return el(
    "a",
    { class: "entity-link", href: route.entityHref(name), ...properties },
    nameText(name),
  );
}

/**
 * "Chad borders Niger" with links to the entities. `here` is the entity of the current view, which
 * is not a link; `strong` is the side to emphasise.
 */
export function factSentence({ head, relation, tail }, { here = null, strong = null } = {}) {
  const end = (name, side) => {
    const content = name === here ? nameText(name) : entityLink(name);
    const isOther = here !== null && name !== here;
    return el(side === strong || isOther ? "strong" : "span", { class: "fact-end" }, content);
  };
  return el(
    "span",
    { class: "fact" },
    end(head, "head"),
    " ",
    el("span", { class: "relation" }, nameText(relation)),
    " ",
    end(tail, "tail"),
  );
}

/** A fact as plain text, for labels and messages. */
export const factText = ({ head, relation, tail }) => `${head} ${relation} ${tail}`;

/** The facts that a decision applies to: both directions of a symmetric prediction. */
export function decidedFacts({ head, relation, tail, symmetric }) {
  const fact = { head, relation, tail };
  return symmetric ? [fact, { head: tail, relation, tail: head }] : [fact];
}

/** A tag "already: capital of" if other relations link the two entities, else null. */
export function linkedTag({ linked = [] }) {
  if (!linked.length) return null;
  return el(
    "span",
    { class: "tag", title: "other relations that link the two entities in the graph" },
    "already: ",
    linked.map((name, n) => [n ? ", " : "", nameText(name)]),
  );
}

/** The probability to show: that of the prediction, times that the relation applies if given. */
export function shownProbability({ probability, applies }) {
  if (probability === null || probability === undefined) return null;
  return probability * (applies ?? 1);
}

/** A key that identifies a fact. */
export const factKey = ({ head, relation, tail }) => JSON.stringify([head, relation, tail]);
