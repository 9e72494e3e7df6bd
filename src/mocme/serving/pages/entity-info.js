// Descriptions of entities from the server, cached while the page is open.

import * as api from "./api.js";
import * as runs from "./runs.js";

const answers = new Map();

/** The description of an entity in the current run; requested once. */
export function entityInfo(name, signal) {
  const key = JSON.stringify([name, runs.current()?.name]);
  if (!answers.has(key)) {
    if (answers.size > 300) answers.clear();
    const answer = api.get("v1/entity", { name, ...runs.runParameter() }, { signal });
    answers.set(key, answer);
    answer.catch(() => answers.delete(key));
  }
  return answers.get(key);
}

/** Clear the cache, after entities were added or removed. */
export const clearEntityInfo = () => answers.clear();
