// Storage in the browser. If it is full or forbidden, items are kept in memory only.

const fallback = { local: new Map(), session: new Map() };
const stores = { local: () => localStorage, session: () => sessionStorage };

/** A stored text, or null. `kind` is "local" (this browser) or "session" (this tab). */
export function readItem(name, kind = "local") {
  try {
    const text = stores[kind]().getItem(`mocme.${name}`);
    if (text !== null) return text;
  } catch {
    // Storage is forbidden: use the memory.
  }
  return fallback[kind].get(name) ?? null;
}

/** Store a text, or delete it if null. Returns false if it is kept in memory only. */
export function writeItem(name, text, kind = "local") {
  fallback[kind].delete(name);
  try {
    if (text === null) stores[kind]().removeItem(`mocme.${name}`);
    else stores[kind]().setItem(`mocme.${name}`, text);
    return true;
  } catch {
    if (text !== null) fallback[kind].set(name, text);
    return false;
  }
}

/** The names of stored local items that begin with a prefix. */
export function itemNames(prefix) {
  const names = new Set([...fallback.local.keys()].filter((name) => name.startsWith(prefix)));
  try {
    for (let index = 0; index < localStorage.length; index += 1) {
      const key = localStorage.key(index);
      if (key.startsWith(`mocme.${prefix}`)) names.add(key.slice("mocme.".length));
    }
  } catch {
    // Storage is forbidden: only the memory has items.
  }
  return [...names];
}
