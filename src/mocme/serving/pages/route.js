// The part of the address after "#": which view, of what, with which choices.

/** {parts, params} of the address. */
export function current() {
  const hash = location.hash.replace(/^#\/?/, "");
  const cut = hash.indexOf("?");
  const path = cut < 0 ? hash : hash.slice(0, cut);
  const params = new URLSearchParams(cut < 0 ? "" : hash.slice(cut + 1));
  return { parts: path.split("/").filter(Boolean).map(decoded), params };
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

let always = () => ({});

/** Set what every address carries: a function that gives parameters. */
export function carry(parameters) {
  always = parameters;
}

/** The address of a view; empty parameters are left out. */
export function to(parts, params = {}) {
  const path = parts.map((part) => encodeURIComponent(String(part).toWellFormed?.() ?? part)).join("/");
  const kept = Object.entries({ ...always(), ...params });
  const held = kept.filter(([, v]) => v !== "" && v !== null && v !== undefined && v !== false);
  const query = new URLSearchParams(held).toString();
  return `#/${path}${query ? `?${query}` : ""}`;
}

/** Go to a view. `replace` leaves no step to go back to. */
export function go(parts, params = {}, { replace = false } = {}) {
  const address = to(parts, params);
  if (address === location.hash) return;
  if (replace) location.replace(address);
  else location.hash = address.slice(1);
}

export const entity = (name, tab = "") => to(tab ? ["entity", name, tab] : ["entity", name]);
