// Elements are created only here, so that text from the server never becomes markup.

const SVG = "http://www.w3.org/2000/svg";

/** An HTML element; children are nodes, texts, nested lists of them, or null. */
export function el(tag, properties = {}, ...children) {
  return build(document.createElement(tag), properties, children);
}

/** An SVG element. */
export function svg(tag, properties = {}, ...children) {
  return build(document.createElementNS(SVG, tag), properties, children);
}

function build(node, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    } else if (name === "vars") {
      // The content-security policy forbids style attributes, but allows the object model.
      for (const [key, number] of Object.entries(value)) node.style.setProperty(`--${key}`, number);
    } else if (name === "value" || name === "checked" || name === "selected") {
      node[name] = value;
    } else if (name === "style" || name.startsWith("on") || name === "srcdoc") {
      throw new Error(`the content-security policy forbids the attribute ${name}`);
    } else {
      node.setAttribute(name, value === true ? "" : String(value));
    }
  }
  node.append(...toNodes(children));
  return node;
}

function toNodes(children) {
  return children
    .flat(Infinity)
    .filter((child) => child !== null && child !== undefined && child !== false)
    .map((child) => (child instanceof Node ? child : document.createTextNode(String(child))));
}

/** Characters above which a name is clipped to three lines; its own view shows all of it. */
export const LONG_NAME = 160;

/** A name from the server, isolated from the writing direction of the surrounding text. */
export function nameText(text) {
  const long = String(text).length > LONG_NAME;
  return el("bdi", long ? { class: "name long", title: text } : { class: "name" }, text);
}

/** A line icon, from the `d` attributes of its paths. */
export function icon(...paths) {
  return svg(
    "svg",
    { viewBox: "0 0 24 24", "aria-hidden": "true", focusable: "false" },
    paths.map((d) => svg("path", { d })),
  );
}

let idCount = 0;

/** An id that is unique in the page. */
export function uniqueId(prefix) {
  idCount += 1;
  return `${prefix}-${idCount}`;
}
