// Drawings of numbers, each with a table that says the same.

import { el, svg, unique } from "./dom.js";

/** A figure: title, what it shows, a drawing, and the same as a table. */
export function figure(title, lead, drawing, columns, rows, legend = null) {
  const id = unique("figure");
  drawing.setAttribute("role", "img");
  drawing.setAttribute("aria-label", `${title}. The table below says the same.`);
  return el(
    "figure",
    { class: "figure card", "aria-labelledby": id },
    el("figcaption", {}, el("h3", { id }, title), lead ? el("p", { class: "hint" }, lead) : null, legend),
    el("div", { class: "drawing" }, drawing),
    el(
      "details",
      {},
      el("summary", {}, "Table"),
      el(
        "div",
        { class: "scroll", tabindex: "0", role: "group", "aria-label": `Table: ${title}` },
        el(
          "table",
          {},
          el("thead", {}, el("tr", {}, columns.map((name, n) => el("th", { scope: "col", class: n ? "number" : "" }, name)))),
          el("tbody", {}, rows.map((row) => el("tr", {}, row.map((cell, n) => (n ? el("td", { class: "number" }, cell) : el("th", { scope: "row" }, cell)))))),
        ),
      ),
    ),
  );
}

/** Names of series and their colours. */
export function legend(series) {
  return el("ul", { class: "legend" }, series.map(({ name, shade }) => el("li", {}, el("span", { class: `key shade-${shade}`, "aria-hidden": "true" }), name)));
}

/** Horizontal bars, one a series for each row: [{name, values: [number or null, ...]}], from 0 to 1. */
export function bars(rows, { shades = [0], width = 560, names = 190 } = {}) {
  const thick = shades.length > 1 ? 11 : 16;
  const texts = rows.map((row) => wrapped(row.name, Math.floor(names / 7)));
  const heights = rows.map((row, n) => Math.max(row.values.length * (thick + 1), texts[n].length * 14) + 9);
  const tops = heights.map((_, n) => heights.slice(0, n).reduce((sum, one) => sum + one, 4));
  const height = heights.reduce((sum, one) => sum + one, 4);
  const x = (value) => names + (width - names - 50) * value;
  return svg(
    "svg",
    { viewBox: `0 0 ${width} ${height + 18}`, class: "chart" },
    [0, 0.25, 0.5, 0.75, 1].map((tick) => [
      svg("line", { class: "grid", x1: x(tick), x2: x(tick), y1: 0, y2: height }),
      svg("text", { class: "tick", x: x(tick), y: height + 14, "text-anchor": "middle" }, short(tick)),
    ]),
    rows.map((row, n) => [
      barName(row.name, texts[n], names - 10, tops[n] + (heights[n] - 9) / 2),
      row.values.map((value, series) => {
        if (value === null) return null;
        const y = tops[n] + (heights[n] - 9 - row.values.length * (thick + 1)) / 2 + series * (thick + 1);
        return [
          svg("rect", { class: `fill-${shades[series]}`, x: names, y, width: Math.max(1, x(value) - names), height: thick, rx: 3 }),
          svg("text", { class: "bar-value", x: x(value) + 6, y: y + thick / 2 + 4 }, value.toFixed(3)),
        ];
      }),
    ]),
  );
}

function barName(name, parts, x, middle) {
  const first = middle + 4 - (parts.length - 1) * 7;
  return svg(
    "text",
    { class: "bar-name", "text-anchor": "end" },
    svg("title", {}, name),
    parts.map((part, n) => svg("tspan", { x, y: first + n * 14 }, part)),
  );
}

/** A name in at most three lines of so many letters, cut where it is longer. */
function wrapped(text, size) {
  const found = [];
  for (const word of text.split(/(?<=\s)/)) {
    const last = found.at(-1);
    if (last !== undefined && [...(last + word)].length <= size) found[found.length - 1] = last + word;
    else found.push(word);
  }
  const shown = found.slice(0, 3).map((part) => clipped(part.trim(), size));
  if (found.length > 3) shown[2] = clipped(`${shown[2]} …`, size);
  return shown;
}

/** Lines over a common x: series [{name, points: [[x, y], ...], shade}]. */
export function lines(series, { width = 560, height = 240, xLabel = "", from = null, to = null } = {}) {
  const points = series.flatMap((one) => one.points);
  const [left, right] = extent(points.map(([x]) => x));
  const [low, high] = padded(extent(points.map(([, y]) => y)), from, to);
  const area = { left: 52, right: width - 12, top: 10, bottom: height - 34 };
  const x = (value) => area.left + ((area.right - area.left) * (value - left)) / (right - left || 1);
  const y = (value) => area.bottom - ((area.bottom - area.top) * (value - low)) / (high - low || 1);
  return svg(
    "svg",
    { viewBox: `0 0 ${width} ${height}`, class: "chart" },
    grid(area, x, y, steps(left, right, 6), steps(low, high, 5)),
    svg("text", { class: "tick", x: (area.left + area.right) / 2, y: height - 2, "text-anchor": "middle" }, xLabel),
    series.map((one) => [
      svg("polyline", { class: `line-${one.shade}`, points: one.points.map(([a, b]) => `${x(a).toFixed(1)},${y(b).toFixed(1)}`).join(" ") }),
      one.points.length < 25 ? one.points.map(([a, b]) => svg("circle", { class: `fill-${one.shade}`, cx: x(a), cy: y(b), r: 2.6 })) : null,
    ]),
  );
}

/** Predicted against observed shares: series [{name, points: [[predicted, observed, size], ...], shade}]. */
export function reliability(series, { width = 380, height = 380 } = {}) {
  const area = { left: 46, right: width - 12, top: 10, bottom: height - 40 };
  const x = (value) => area.left + (area.right - area.left) * value;
  const y = (value) => area.bottom - (area.bottom - area.top) * value;
  const even = [0, 0.2, 0.4, 0.6, 0.8, 1];
  return svg(
    "svg",
    { viewBox: `0 0 ${width} ${height}`, class: "chart square" },
    grid(area, x, y, even, even),
    svg("line", { class: "ideal", x1: x(0), y1: y(0), x2: x(1), y2: y(1) }),
    svg("text", { class: "tick", x: (area.left + area.right) / 2, y: height - 4, "text-anchor": "middle" }, "predicted probability"),
    svg("text", { class: "tick", transform: `translate(11 ${(area.top + area.bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, "share that are facts"),
    series.map((one) => [
      svg("polyline", { class: `line-${one.shade}`, points: one.points.map(([a, b]) => `${x(a).toFixed(1)},${y(b).toFixed(1)}`).join(" ") }),
      one.points.map(([a, b, size]) => svg("circle", { class: `fill-${one.shade}`, cx: x(a), cy: y(b), r: 2.5 + Math.min(4, Math.log10(1 + size)) * 0.8 })),
    ]),
  );
}

function grid(area, x, y, across, up) {
  return [
    up.map((tick) => [
      svg("line", { class: "grid", x1: area.left, x2: area.right, y1: y(tick), y2: y(tick) }),
      svg("text", { class: "tick", x: area.left - 8, y: y(tick) + 4, "text-anchor": "end" }, short(tick)),
    ]),
    across.map((tick) => svg("text", { class: "tick", x: x(tick), y: area.bottom + 16, "text-anchor": "middle" }, short(tick))),
  ];
}

function extent(values) {
  return values.length ? [Math.min(...values), Math.max(...values)] : [0, 1];
}

function padded([low, high], from, to) {
  const room = (high - low || Math.abs(high) || 1) * 0.06;
  return [from ?? low - room, to ?? high + room];
}

/** Round numbers between two ends. */
function steps(low, high, wanted) {
  const rough = (high - low || 1) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const found = [];
  for (let tick = Math.ceil(low / step) * step; tick <= high + step * 1e-9; tick += step) found.push(tick);
  return found;
}

const short = (number) => String(Number(number.toPrecision(4)));

function clipped(text, size) {
  const letters = [...text];
  return letters.length > size ? `${letters.slice(0, size - 1).join("")}…` : text;
}
