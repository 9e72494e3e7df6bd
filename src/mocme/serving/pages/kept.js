// What is remembered between visits. Storage may be full or forbidden; then it lasts as long as the page.

const spare = { local: new Map(), session: new Map() };
const stores = { local: () => localStorage, session: () => sessionStorage };

/** A remembered text, or null. `kind` is "local" (this browser) or "session" (this tab). */
export function recall(name, kind = "local") {
  try {
    const found = stores[kind]().getItem(`mocme.${name}`);
    if (found !== null) return found;
  } catch {
    // Forbidden: the spare one holds what there is.
  }
  return spare[kind].get(name) ?? null;
}

/** Remember a text (null forgets); false where it lasts only as long as the page. */
export function remember(name, text, kind = "local") {
  spare[kind].delete(name);
  try {
    if (text === null) stores[kind]().removeItem(`mocme.${name}`);
    else stores[kind]().setItem(`mocme.${name}`, text);
    return true;
  } catch {
    if (text !== null) spare[kind].set(name, text);
    return false;
  }
}

/** Names of what is remembered that begin with a prefix. */
export function remembered(prefix) {
  const found = new Set([...spare.local.keys()].filter((name) => name.startsWith(prefix)));
  try {
    for (let place = 0; place < localStorage.length; place += 1) {
      const key = localStorage.key(place);
      if (key.startsWith(`mocme.${prefix}`)) found.add(key.slice("mocme.".length));
    }
  } catch {
    // Forbidden.
  }
  return [...found];
}
