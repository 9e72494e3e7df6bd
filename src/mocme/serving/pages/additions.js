// Reload after the entities of a run have changed, and remove an addition.

import { clearEntityInfo } from "./entity-info.js";
import { toast } from "./announce.js";
import * as api from "./api.js";
import { askConfirmation } from "./dialogs.js";
import * as route from "./route.js";
import * as runs from "./runs.js";

/** Reload what the page caches about entities and runs. */
export async function reloadAfterChange() {
  clearEntityInfo();
  await runs.load(true).catch(() => {}); // The change itself has succeeded.
}

/** Remove an addition after confirmation, and open the start page. */
export async function removeAddition(name) {
  const confirmed = await askConfirmation({
    title: "Remove this entity?",
    text: `${name} and its facts will no longer be part of the run. Decisions about it are kept.`,
    submit: "Remove",
  });
  if (!confirmed) return;
  try {
    await api.remove(api.withQuery("v1/additions", { name, ...runs.runParameter() }));
  } catch (error) {
    toast(`${error.message} ${error.remedy ?? ""}`, { failed: true, seconds: 15 });
    return;
  }
  await reloadAfterChange();
  toast(`Removed: ${name}`);
  route.go([]);
}
