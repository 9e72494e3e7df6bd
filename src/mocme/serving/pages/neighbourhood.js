// The surroundings of an entity: a drawing one can walk, and the same as a list.

import * as api from "./api.js";
import { drawGraph } from "./drawing.js";
import { el, named } from "./dom.js";
import { sentence } from "./fact.js";
import { plural } from "./format.js";
import * as runs from "./runs.js";
import { empty, filled } from "./states.js";

const LIMIT = 40;
const COLOURS = 7; // relations with a colour of their own; the others share the last

export function surroundings(name, params, signal) {
  const limit = Number(params.get("limit")) || LIMIT;
  const load = () => api.get("v1/neighbourhood", { name, limit, ...runs.which() }, { signal });
  return el(
    "section",
    { "aria-labelledby": "around-title" },
    el("h2", { id: "around-title" }, "Neighbourhood"),
    filled(load, (found) => drawn(name, found, signal), { lines: 8, signal }),
  );
}

function drawn(name, { nodes, edges, left_out: left }, signal) {
  if (!edges.length) return empty("The graph holds no fact of this entity.", "It stands alone; see what is missing about it.");
  const text = `${plural(nodes.length, "entity", "entities")}, ${plural(edges.length, "fact")}`;
  const shades = shaded(name, edges);
  const canvas = el("div", { class: "graph", role: "img", "aria-label": `Drawing of the neighbourhood: ${text}. The list below it says the same.` });
  drawGraph(canvas, { name, nodes, edges, shades }, signal);
  return [
    el("p", { class: "hint" }, `${text}. Choose an entity to go there.`, left ? ` ${plural(left, "more neighbour")} ${left === 1 ? "is" : "are"} not drawn; the facts have all.` : ""),
    canvas,
    key(shades),
    el(
      "details",
      { class: "graph-list" },
      el("summary", {}, "The same as a list"),
      el("ul", { class: "lines" }, edges.map((edge) => el("li", { class: "line" }, sentence(edge, { here: name }), edge.split === "train" ? null : el("span", { class: "split" }, named(edge.split))))),
    ),
  ];
}

/** Relations by how often they meet the entity, with the number of their colour. */
function shaded(name, edges) {
  const counts = new Map();
  for (const edge of edges) {
    const weight = edge.head === name || edge.tail === name ? 1 : 0.01;
    counts.set(edge.relation, (counts.get(edge.relation) ?? 0) + weight);
  }
  const ordered = [...counts].sort((a, b) => b[1] - a[1]).map(([relation]) => relation);
  return new Map(ordered.map((relation, place) => [relation, Math.min(place, COLOURS)]));
}

function key(shades) {
  const own = [...shades].filter(([, shade]) => shade < COLOURS);
  const rest = shades.size - own.length;
  return el(
    "ul",
    { class: "legend", "aria-label": "Colours of relations" },
    own.map(([relation, shade]) => el("li", {}, el("span", { class: `key shade-${shade}`, "aria-hidden": "true" }), named(relation))),
    rest ? el("li", {}, el("span", { class: `key shade-${COLOURS}`, "aria-hidden": "true" }), plural(rest, "other relation")) : null,
  );
}
