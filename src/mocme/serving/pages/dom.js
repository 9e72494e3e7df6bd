// Elements are made here and nowhere else, so that text enters as text only.

const SVG = "http://www.w3.org/2000/svg";

/** An element; children are nodes, text, lists of them, or nothing. */
export function el(tag, properties = {}, ...children) {
  return filled(document.createElement(tag), properties, children);
}

/** An element of a drawing. */
export function svg(tag, properties = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), properties, children);
}

function filled(node, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    } else if (name === "vars") {
      // Through the object model, which a strict policy allows; attributes of style it does not.
      for (const [key, number] of Object.entries(value)) node.style.setProperty(`--${key}`, number);
    } else if (name === "value" || name === "checked" || name === "selected") {
      node[name] = value;
    } else if (name === "style" || name.startsWith("on") || name === "srcdoc") {
      throw new Error(`${name} is no attribute for a page with a strict policy`);
    } else {
      node.setAttribute(name, value === true ? "" : String(value));
    }
  }
  node.append(...flat(children));
  return node;
}

function flat(children) {
  return children
    .flat(Infinity)
    .filter((child) => child !== null && child !== undefined && child !== false)
    .map((child) => (child instanceof Node ? child : document.createTextNode(String(child))));
}

/** Letters from which a name is shown in three lines at most; an entity's own view has all of it. */
export const LONG_NAME = 160;

/** A name as the server gave it, kept apart from the writing direction of what surrounds it. */
export function named(text) {
  const long = String(text).length > LONG_NAME;
  return el("bdi", long ? { class: "name long", title: text } : { class: "name" }, text);
}

/** An icon of lines, from the `d` of its paths. */
export function icon(...paths) {
  return svg(
    "svg",
    { viewBox: "0 0 24 24", "aria-hidden": "true", focusable: "false" },
    paths.map((d) => svg("path", { d })),
  );
}

let counted = 0;

/** An id that no other element has. */
export function unique(prefix) {
  counted += 1;
  return `${prefix}-${counted}`;
}
