// The tab "Neighbourhood" of an entity: a plot with links to entities, and the same as a list.

import * as api from "./api.js";
import { plotNeighbourhood } from "./neighbourhood-plot.js";
import { el, nameText } from "./dom.js";
import { factSentence } from "./fact.js";
import { plural } from "./format.js";
import * as runs from "./runs.js";
import { empty, asyncContent } from "./states.js";

const DEFAULT_LIMIT = 40;
const COLOURS = 7; // number of relations with their own colour; the others share the last one

export function neighbourhoodTab(name, params, signal) {
  const limit = Number(params.get("limit")) || DEFAULT_LIMIT;
  const load = () =>
    api.get("v1/neighbourhood", { name, limit, ...runs.runParameter() }, { signal });
  return el(
    "section",
    { "aria-labelledby": "around-title" },
    el("h2", { id: "around-title" }, "Neighbourhood"),
    asyncContent(load, (neighbourhood) => neighbourhoodContent(name, neighbourhood, signal), {
      lines: 8,
      signal,
    }),
  );
}

function neighbourhoodContent(name, { nodes, edges, left_out: omitted }, signal) {
  if (!edges.length)
    return empty(
      "The graph contains no facts of this entity.",
      "Its missing facts are suggestions for the first ones.",
    );
  const text = `${plural(nodes.length, "entity", "entities")}, ${plural(edges.length, "fact")}`;
  const shades = relationShades(name, edges);
  const canvas = el("div", {
    class: "graph",
    role: "img",
    "aria-label": `Plot of the neighbourhood: ${text}. The list below has the same content.`,
  });
  plotNeighbourhood(canvas, { name, nodes, edges, shades }, signal);
  return [
    el(
      "p",
      { class: "hint" },
      `${text}. Click an entity to open it.`,
      omitted
        ? ` ${plural(omitted, "more neighbour")} ${omitted === 1 ? "is" : "are"} not shown; ` +
            "see the facts for all."
        : "",
    ),
    canvas,
    relationLegend(shades),
    el(
      "details",
      { class: "graph-list" },
      el("summary", {}, "Show as a list"),
      el(
        "ul",
        { class: "line-list" },
        edges.map((edge) =>
          el(
            "li",
            { class: "line" },
            factSentence(edge, { here: name }),
            edge.split === "train" ? null : el("span", { class: "split" }, nameText(edge.split)),
          ),
        ),
      ),
    ),
  ];
}

/** The colour of each relation, by its number of facts with the entity itself. */
function relationShades(name, edges) {
  const counts = new Map();
  for (const edge of edges) {
    // Facts among the neighbours only break ties.
    const weight = edge.head === name || edge.tail === name ? 1 : 0.01;
    counts.set(edge.relation, (counts.get(edge.relation) ?? 0) + weight);
  }
  const ordered = [...counts].sort((a, b) => b[1] - a[1]).map(([relation]) => relation);
  return new Map(ordered.map((relation, index) => [relation, Math.min(index, COLOURS)]));
}

function relationLegend(shades) {
  const coloured = [...shades].filter(([, shade]) => shade < COLOURS);
  const others = shades.size - coloured.length;
  return el(
    "ul",
    { class: "legend", "aria-label": "Colours of relations" },
    coloured.map(([relation, shade]) =>
      el(
        "li",
        {},
        el("span", { class: `legend-key shade-${shade}`, "aria-hidden": "true" }),
        nameText(relation),
      ),
    ),
    others
      ? el(
          "li",
          {},
          el("span", { class: `legend-key shade-${COLOURS}`, "aria-hidden": "true" }),
          plural(others, "other relation"),
        )
      : null,
  );
}
