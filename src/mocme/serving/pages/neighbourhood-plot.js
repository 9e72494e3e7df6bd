// The plot of a neighbourhood, drawn by Cytoscape.

import { el } from "./dom.js";
import * as route from "./route.js";
import { empty } from "./states.js";
import * as theme from "./theme.js";

let loading = null;

/** Load Cytoscape on first use: it is a large classic script. */
function cytoscape() {
  loading ??= new Promise((resolve, reject) => {
    const source = new URL("vendor/cytoscape.min.js", import.meta.url).href;
    document.head.append(
      el("script", { src: source, on: { load: () => resolve(window.cytoscape), error: reject } }),
    );
  });
  loading.catch(() => {
    loading = null;
  });
  return loading;
}

/** Draw into an element; `shades` is a map from relations to the numbers of their colours. */
export async function plotNeighbourhood(canvas, { name, nodes, edges, shades }, signal) {
  let createGraph;
  try {
    createGraph = await cytoscape();
  } catch {
    canvas.replaceChildren(
      empty("The plot could not be loaded.", "The list below has the same content."),
    );
    return;
  }
  if (signal.aborted || !canvas.isConnected) return;
  const ids = new Map(nodes.map((node, index) => [node.name, `n${index}`]));
  const positions = nodePositions(
    name,
    nodes,
    edges,
    shades,
    canvas.clientWidth / canvas.clientHeight,
  );
  const graph = createGraph({
    container: canvas,
    elements: [
      ...nodes.map((node) => ({
        data: {
          id: ids.get(node.name),
          name: node.name,
          size: 9 + 2.4 * Math.log2(1 + node.facts),
        },
        position: positions.get(node.name),
        classes: node.name === name ? "centre" : `shade-${shadeOf(name, node.name, edges, shades)}`,
      })),
      ...edges
        .filter((edge) => ids.has(edge.head) && ids.has(edge.tail))
        .map((edge, index) => ({
          data: {
            id: `e${index}`,
            source: ids.get(edge.head),
            target: ids.get(edge.tail),
            name: edge.relation,
          },
          classes: [
            edge.split === "train" ? "" : "held-out",
            edge.head === name || edge.tail === name ? "direct" : "",
            `shade-${shades.get(edge.relation)}`,
          ].join(" "),
        })),
    ],
    style: styles(canvas),
    layout: { name: "preset", fit: true, padding: 36 },
    userZoomingEnabled: false,
    // On touch screens, a finger that moves over the plot scrolls the page.
    userPanningEnabled: matchMedia("(pointer: fine)").matches,
    autoungrabify: !matchMedia("(pointer: fine)").matches,
    minZoom: 0.3,
    maxZoom: 1.6,
  });
  graph.on("tap", "node", (event) =>
    route.go(["entity", event.target.data("name"), "neighbourhood"]),
  );
  graph.on("mouseover", "node", (event) => {
    canvas.classList.add("pointing");
    event.target.closedNeighborhood().addClass("highlighted");
  });
  graph.on("mouseout", "node", () => {
    canvas.classList.remove("pointing");
    graph.elements().removeClass("highlighted");
  });
  // Content above may have moved the canvas, whose position Cytoscape caches.
  canvas.addEventListener("pointerenter", () => graph.resize(), { signal });
  canvas.graph = graph;
  const restyle = () => graph.style(styles(canvas));
  theme.changes.addEventListener("change", restyle, { signal });
  signal.addEventListener("abort", () => graph.destroy(), { once: true });
}

function shadeOf(name, other, edges, shades) {
  const edge = edges.find(
    ({ head, tail }) => (head === name && tail === other) || (tail === name && head === other),
  );
  return edge ? shades.get(edge.relation) : 7;
}

/** Positions: the entity in the centre, the others on rings around it, grouped by relation. */
function nodePositions(name, nodes, edges, shades, aspect) {
  const order = (node) => shadeOf(name, node.name, edges, shades);
  const others = nodes
    .filter((node) => node.name !== name)
    .sort((a, b) => order(a) - order(b) || b.facts - a.facts);
  const stretch = Math.min(1.7, Math.max(0.7, aspect));
  // With many entities, alternate between rings so that their names do not overlap.
  const rings = others.length > 30 ? [0.62, 0.86, 1.1] : others.length > 12 ? [0.75, 1.1] : [0.9];
  const positions = new Map([[name, { x: 0, y: 0 }]]);
  others.forEach((node, index) => {
    const angle = (2 * Math.PI * index) / others.length - Math.PI / 2;
    const radius = 260 * rings[index % rings.length];
    positions.set(node.name, {
      x: radius * stretch * Math.cos(angle),
      y: radius * Math.sin(angle),
    });
  });
  return positions;
}

/** Cytoscape styles with the colours of the page: style sheets do not apply to a canvas. */
function styles(canvas) {
  const colour = (name) => {
    const probe = el("span", { class: `probe-${name}` });
    canvas.append(probe);
    const resolved = getComputedStyle(probe).color;
    probe.remove();
    return resolved;
  };
  const [text, text2, line, surface] = ["text", "text-2", "line-2", "surface"].map(colour);
  const font = getComputedStyle(canvas).fontFamily;
  const shades = Array.from({ length: 8 }, (_, n) => colour(n));
  return [
    {
      selector: "node",
      style: {
        label: "data(name)",
        width: "data(size)",
        height: "data(size)",
        color: text,
        "font-family": font,
        "font-size": 12,
        "text-valign": "bottom",
        "text-margin-y": 4,
        "text-wrap": "ellipsis",
        "text-max-width": "110px",
        "text-outline-color": surface,
        "text-outline-width": 2.5,
      },
    },
    {
      selector: "edge",
      style: {
        width: 1.1,
        opacity: 0.35,
        "target-arrow-shape": "triangle",
        "arrow-scale": 0.8,
        "curve-style": "bezier",
        "control-point-step-size": 22,
        "font-family": font,
        "font-size": 11,
        color: text2,
        "text-outline-color": surface,
        "text-outline-width": 2.5,
      },
    },
    ...shades.flatMap((shade, n) => [
      { selector: `node.shade-${n}`, style: { "background-color": shade } },
      { selector: `edge.shade-${n}`, style: { "line-color": shade, "target-arrow-color": shade } },
    ]),
    { selector: "edge.direct", style: { opacity: 0.8 } },
    { selector: "edge.held-out", style: { "line-style": "dashed" } },
    {
      selector: "node.centre",
      style: {
        "background-color": text,
        width: 34,
        height: 34,
        "font-weight": 700,
        "font-size": 15,
        "border-width": 4,
        "border-color": surface,
        "text-outline-width": 4,
        "z-index": 8,
      },
    },
    {
      selector: "edge.highlighted",
      style: { label: "data(name)", opacity: 1, width: 2, "z-index": 9 },
    },
    { selector: "node.highlighted", style: { "z-index": 9, "text-outline-color": surface } },
    { selector: "node:active", style: { "overlay-color": line, "overlay-opacity": 0.2 } },
  ];
}
