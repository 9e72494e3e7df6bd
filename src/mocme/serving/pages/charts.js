// Charts, each with a table of the same data.

import { el, svg, uniqueId } from "./dom.js";

/** A figure with title, description, chart, and a table of the same data. */
export function chartFigure(title, description, chart, columns, rows, legend = null) {
  const id = uniqueId("figure");
  chart.setAttribute("role", "img");
  chart.setAttribute("aria-label", `${title}. The table below has the same data.`);
  return el(
    "figure",
    { class: "chart-figure card", "aria-labelledby": id },
    el(
      "figcaption",
      {},
      el("h3", { id }, title),
      description ? el("p", { class: "hint" }, description) : null,
      legend,
    ),
    el("div", { class: "plot" }, chart),
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
          el(
            "thead",
            {},
            el(
              "tr",
              {},
              columns.map((name, n) => el("th", { scope: "col", class: n ? "number" : "" }, name)),
            ),
          ),
          el(
            "tbody",
            {},
            rows.map((row) =>
              el(
                "tr",
                {},
                row.map((cell, n) =>
                  n ? el("td", { class: "number" }, cell) : el("th", { scope: "row" }, cell),
                ),
              ),
            ),
          ),
        ),
      ),
    ),
  );
}

/** A legend of series and their colours. */
export function chartLegend(series) {
  return el(
    "ul",
    { class: "legend" },
    series.map(({ name, shade }) =>
      el("li", {}, el("span", { class: `legend-key shade-${shade}`, "aria-hidden": "true" }), name),
    ),
  );
}

/**
 * Horizontal bars on a scale from 0 to 1, for rows [{name, values: [number or null, ...]}].
 *
 * A row has one bar per series. `shades` are the colours of the series; `width` and `names` (the
 * space for names) are in units of the SVG.
 */
export function barChart(rows, { shades = [0], width = 560, names = 190 } = {}) {
  const thickness = shades.length > 1 ? 11 : 16;
  const nameLines = rows.map((row) => wrapName(row.name, Math.floor(names / 7)));
  const heights = rows.map(
    (row, n) => Math.max(row.values.length * (thickness + 1), nameLines[n].length * 14) + 9,
  );
  const tops = heights.map((_, n) =>
    heights.slice(0, n).reduce((sum, rowHeight) => sum + rowHeight, 4),
  );
  const height = heights.reduce((sum, rowHeight) => sum + rowHeight, 4);
  const x = (value) => names + (width - names - 50) * value;
  return svg(
    "svg",
    { viewBox: `0 0 ${width} ${height + 18}`, class: "chart" },
    [0, 0.25, 0.5, 0.75, 1].map((tick) => [
      svg("line", { class: "grid", x1: x(tick), x2: x(tick), y1: 0, y2: height }),
      svg(
        "text",
        { class: "tick", x: x(tick), y: height + 14, "text-anchor": "middle" },
        tickText(tick),
      ),
    ]),
    rows.map((row, n) => [
      barName(row.name, nameLines[n], names - 10, tops[n] + (heights[n] - 9) / 2),
      row.values.map((value, series) => {
        if (value === null) return null;
        const y =
          tops[n] +
          (heights[n] - 9 - row.values.length * (thickness + 1)) / 2 +
          series * (thickness + 1);
        return [
          svg("rect", {
            class: `fill-${shades[series]}`,
            x: names,
            y,
            width: Math.max(1, x(value) - names),
            height: thickness,
            rx: 3,
          }),
          svg(
            "text",
            { class: "bar-value", x: x(value) + 6, y: y + thickness / 2 + 4 },
            value.toFixed(3),
          ),
        ];
      }),
    ]),
  );
}

function barName(name, nameLines, x, middle) {
  const firstY = middle + 4 - (nameLines.length - 1) * 7;
  return svg(
    "text",
    { class: "bar-name", "text-anchor": "end" },
    svg("title", {}, name),
    nameLines.map((text, n) => svg("tspan", { x, y: firstY + n * 14 }, text)),
  );
}

/** Wrap a name into at most three lines of `size` characters; the rest is cut. */
function wrapName(text, size) {
  const wrapped = [];
  for (const word of text.split(/(?<=\s)/)) {
    const last = wrapped.at(-1);
    if (last !== undefined && [...(last + word)].length <= size)
      wrapped[wrapped.length - 1] = last + word;
    else wrapped.push(word);
  }
  const shown = wrapped.slice(0, 3).map((part) => clip(part.trim(), size));
  if (wrapped.length > 3) shown[2] = clip(`${shown[2]} …`, size);
  return shown;
}

/** Lines over a common x axis: series [{name, points: [[x, y], ...], shade}]. */
export function lineChart(
  series,
  { width = 560, height = 240, xLabel = "", from = null, to = null } = {},
) {
  const points = series.flatMap((line) => line.points);
  const [left, right] = extent(points.map(([x]) => x));
  const [low, high] = pad(extent(points.map(([, y]) => y)), from, to);
  const area = { left: 52, right: width - 12, top: 10, bottom: height - 34 };
  const x = (value) =>
    area.left + ((area.right - area.left) * (value - left)) / (right - left || 1);
  const y = (value) => area.bottom - ((area.bottom - area.top) * (value - low)) / (high - low || 1);
  return svg(
    "svg",
    { viewBox: `0 0 ${width} ${height}`, class: "chart" },
    grid(area, x, y, ticks(left, right, 6), ticks(low, high, 5)),
    svg(
      "text",
      { class: "tick", x: (area.left + area.right) / 2, y: height - 2, "text-anchor": "middle" },
      xLabel,
    ),
    series.map((line) => [
      polyline(line, x, y),
      line.points.length < 25
        ? line.points.map(([a, b]) =>
            svg("circle", { class: `fill-${line.shade}`, cx: x(a), cy: y(b), r: 2.6 }),
          )
        : null,
    ]),
  );
}

/**
 * A reliability diagram: observed against predicted probability, with the diagonal.
 *
 * Series are [{name, points: [[predicted, observed, count], ...], shade}]; the count of a bin sets
 * the size of its dot.
 */
export function reliabilityDiagram(series, { width = 380, height = 380 } = {}) {
  const area = { left: 46, right: width - 12, top: 10, bottom: height - 40 };
  const x = (value) => area.left + (area.right - area.left) * value;
  const y = (value) => area.bottom - (area.bottom - area.top) * value;
  const fifths = [0, 0.2, 0.4, 0.6, 0.8, 1];
  return svg(
    "svg",
    { viewBox: `0 0 ${width} ${height}`, class: "chart square" },
    grid(area, x, y, fifths, fifths),
    svg("line", { class: "ideal", x1: x(0), y1: y(0), x2: x(1), y2: y(1) }),
    svg(
      "text",
      { class: "tick", x: (area.left + area.right) / 2, y: height - 4, "text-anchor": "middle" },
      "predicted probability",
    ),
    svg(
      "text",
      {
        class: "tick",
        transform: `translate(11 ${(area.top + area.bottom) / 2}) rotate(-90)`,
        "text-anchor": "middle",
      },
      "observed share of facts",
    ),
    series.map((line) => [
      polyline(line, x, y),
      line.points.map(([a, b, count]) =>
        svg("circle", {
          class: `fill-${line.shade}`,
          cx: x(a),
          cy: y(b),
          r: 2.5 + Math.min(4, Math.log10(1 + count)) * 0.8,
        }),
      ),
    ]),
  );
}

function polyline({ points, shade }, x, y) {
  const coordinates = points.map(([a, b]) => `${x(a).toFixed(1)},${y(b).toFixed(1)}`).join(" ");
  return svg("polyline", { class: `line-${shade}`, points: coordinates });
}

function grid(area, x, y, xTicks, yTicks) {
  return [
    yTicks.map((tick) => [
      svg("line", { class: "grid", x1: area.left, x2: area.right, y1: y(tick), y2: y(tick) }),
      svg(
        "text",
        { class: "tick", x: area.left - 8, y: y(tick) + 4, "text-anchor": "end" },
        tickText(tick),
      ),
    ]),
    xTicks.map((tick) =>
      svg(
        "text",
        { class: "tick", x: x(tick), y: area.bottom + 16, "text-anchor": "middle" },
        tickText(tick),
      ),
    ),
  ];
}

function extent(values) {
  return values.length ? [Math.min(...values), Math.max(...values)] : [0, 1];
}

function pad([low, high], from, to) {
  const margin = (high - low || Math.abs(high) || 1) * 0.06;
  return [from ?? low - margin, to ?? high + margin];
}

/** About `count` round numbers between two ends: multiples of 1, 2 or 5 times a power of ten. */
function ticks(low, high, count) {
  const rough = (high - low || 1) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const values = [];
  // The tolerance keeps the last tick in spite of rounding.
  for (let tick = Math.ceil(low / step) * step; tick <= high + step * 1e-9; tick += step)
    values.push(tick);
  return values;
}

const tickText = (number) => String(Number(number.toPrecision(4)));

function clip(text, size) {
  const characters = [...text];
  return characters.length > size ? `${characters.slice(0, size - 1).join("")}…` : text;
}
