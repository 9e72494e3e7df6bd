// What the server says of entities, remembered for a visit.

import * as api from "./api.js";
import * as runs from "./runs.js";

const asked = new Map();

/** What the server says of an entity; asked once a visit for each run. */
export function about(name, signal) {
  const key = JSON.stringify([name, runs.current()?.name]);
  if (!asked.has(key)) {
    if (asked.size > 300) asked.clear();
    const answer = api.get("v1/entity", { name, ...runs.which() }, { signal });
    asked.set(key, answer);
    answer.catch(() => asked.delete(key));
  }
  return asked.get(key);
}

/** What was said is no longer so. */
export const forget = () => asked.clear();
