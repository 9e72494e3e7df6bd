// The drawing of a neighbourhood, by Cytoscape.

import { el } from "./dom.js";
import * as route from "./route.js";
import { empty } from "./states.js";
import * as theme from "./theme.js";

let loading = null;

/** Cytoscape is a classic script, and large: it is loaded where it is needed first. */
function cytoscape() {
  loading ??= new Promise((resolve, reject) => {
    const source = new URL("vendor/cytoscape.min.js", import.meta.url).href;
    document.head.append(el("script", { src: source, on: { load: () => resolve(window.cytoscape), error: reject } }));
  });
  loading.catch(() => {
    loading = null;
  });
  return loading;
}

/** Draw into an element; `shades` gives each relation the number of its colour. */
export async function drawGraph(canvas, { name, nodes, edges, shades }, signal) {
  let make;
  try {
    make = await cytoscape();
  } catch {
    canvas.replaceChildren(empty("The drawing could not be loaded.", "The list below says the same."));
    return;
  }
  if (signal.aborted || !canvas.isConnected) return;
  const ids = new Map(nodes.map((node, place) => [node.name, `n${place}`]));
  const places = placed(name, nodes, edges, shades, canvas.clientWidth / canvas.clientHeight);
  const graph = make({
    container: canvas,
    elements: [
      ...nodes.map((node) => ({
        data: { id: ids.get(node.name), name: node.name, size: 9 + 2.4 * Math.log2(1 + node.facts) },
        position: places.get(node.name),
        classes: node.name === name ? "here" : `shade-${shadeOf(name, node.name, edges, shades)}`,
      })),
      ...edges
        .filter((edge) => ids.has(edge.head) && ids.has(edge.tail))
        .map((edge, place) => ({
          data: { id: `e${place}`, source: ids.get(edge.head), target: ids.get(edge.tail), name: edge.relation },
          classes: [edge.split === "train" ? "" : "held", edge.head === name || edge.tail === name ? "own" : "", `shade-${shades.get(edge.relation)}`].join(" "),
        })),
    ],
    style: styles(canvas),
    layout: { name: "preset", fit: true, padding: 36 },
    userZoomingEnabled: false,
    // A finger that moves over the drawing scrolls the page.
    userPanningEnabled: matchMedia("(pointer: fine)").matches,
    autoungrabify: !matchMedia("(pointer: fine)").matches,
    minZoom: 0.3,
    maxZoom: 1.6,
  });
  graph.on("tap", "node", (event) => route.go(["entity", event.target.data("name"), "neighbourhood"]));
  graph.on("mouseover", "node", (event) => {
    canvas.classList.add("pointing");
    event.target.closedNeighborhood().addClass("near");
  });
  graph.on("mouseout", "node", () => {
    canvas.classList.remove("pointing");
    graph.elements().removeClass("near");
  });
  // What lies above may have grown since; Cytoscape remembers where it stands.
  canvas.addEventListener("pointerenter", () => graph.resize(), { signal });
  canvas.graph = graph;
  const restyle = () => graph.style(styles(canvas));
  theme.changes.addEventListener("change", restyle, { signal });
  signal.addEventListener("abort", () => graph.destroy(), { once: true });
}

function shadeOf(name, other, edges, shades) {
  const edge = edges.find((one) => (one.head === name && one.tail === other) || (one.tail === name && one.head === other));
  return edge ? shades.get(edge.relation) : 7;
}

/** The entity in the middle, the others around it, those of a relation side by side. */
function placed(name, nodes, edges, shades, aspect) {
  const order = (node) => shadeOf(name, node.name, edges, shades);
  const around = nodes.filter((node) => node.name !== name).sort((a, b) => order(a) - order(b) || b.facts - a.facts);
  const wide = Math.min(1.7, Math.max(0.7, aspect));
  // So many that their names would touch: every other one further out.
  const rings = around.length > 30 ? [0.62, 0.86, 1.1] : around.length > 12 ? [0.75, 1.1] : [0.9];
  const found = new Map([[name, { x: 0, y: 0 }]]);
  around.forEach((node, place) => {
    const angle = (2 * Math.PI * place) / around.length - Math.PI / 2;
    const radius = 260 * rings[place % rings.length];
    found.set(node.name, { x: radius * wide * Math.cos(angle), y: radius * Math.sin(angle) });
  });
  return found;
}

/** The colours of the page, for a canvas knows no style sheets. */
function styles(canvas) {
  const colour = (name) => {
    const probe = el("span", { class: `probe-${name}` });
    canvas.append(probe);
    const found = getComputedStyle(probe).color;
    probe.remove();
    return found;
  };
  const [ink, soft, line, sheet] = ["ink", "ink-2", "line-2", "sheet"].map(colour);
  const font = getComputedStyle(canvas).fontFamily;
  const shades = Array.from({ length: 8 }, (_, n) => colour(n));
  return [
    {
      selector: "node",
      style: {
        label: "data(name)",
        width: "data(size)",
        height: "data(size)",
        color: ink,
        "font-family": font,
        "font-size": 12,
        "text-valign": "bottom",
        "text-margin-y": 4,
        "text-wrap": "ellipsis",
        "text-max-width": "110px",
        "text-outline-color": sheet,
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
        color: soft,
        "text-outline-color": sheet,
        "text-outline-width": 2.5,
      },
    },
    ...shades.flatMap((shade, n) => [
      { selector: `node.shade-${n}`, style: { "background-color": shade } },
      { selector: `edge.shade-${n}`, style: { "line-color": shade, "target-arrow-color": shade } },
    ]),
    { selector: "edge.own", style: { opacity: 0.8 } },
    { selector: "edge.held", style: { "line-style": "dashed" } },
    {
      selector: "node.here",
      style: { "background-color": ink, width: 34, height: 34, "font-weight": 700, "font-size": 15, "border-width": 4, "border-color": sheet, "text-outline-width": 4, "z-index": 8 },
    },
    { selector: "edge.near", style: { label: "data(name)", opacity: 1, width: 2, "z-index": 9 } },
    { selector: "node.near", style: { "z-index": 9, "text-outline-color": sheet } },
    { selector: "node:active", style: { "overlay-color": line, "overlay-opacity": 0.2 } },
  ];
}
