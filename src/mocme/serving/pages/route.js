// The part of the address after "#": view, subject and parameters.

/** The current address, as {parts, params}. */
export function current() {
  const hash = location.hash.replace(/^#\/?/, "");
  const queryStart = hash.indexOf("?");
  const path = queryStart < 0 ? hash : hash.slice(0, queryStart);
  const params = new URLSearchParams(queryStart < 0 ? "" : hash.slice(queryStart + 1));
  return { parts: path.split("/").filter(Boolean).map(decodePart), params };
}

function decodePart(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

let defaults = () => ({});

/** Set a function that returns parameters to add to every address. */
export function setDefaults(parameters) {
  defaults = parameters;
}

/** The address of a view; empty parameters are omitted. */
export function href(parts, params = {}) {
  const path = parts
    .map((part) => encodeURIComponent(String(part).toWellFormed?.() ?? part))
    .join("/");
  const all = Object.entries({ ...defaults(), ...params });
  const present = all.filter(([, v]) => v !== "" && v !== null && v !== undefined && v !== false);
  const query = new URLSearchParams(present).toString();
  return `#/${path}${query ? `?${query}` : ""}`;
}

/** Go to a view. With `replace`, the current address is removed from the history. */
export function go(parts, params = {}, { replace = false } = {}) {
  const address = href(parts, params);
  if (address === location.hash) return;
  if (replace) location.replace(address);
  else location.hash = address.slice(1);
}

export const entityHref = (name, tab = "") => href(tab ? ["entity", name, tab] : ["entity", name]);
