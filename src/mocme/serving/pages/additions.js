// What follows when the entities of a run have changed; and taking one back.

import { forget } from "./about.js";
import { toast } from "./announce.js";
import * as api from "./api.js";
import { confirmed } from "./dialogs.js";
import * as route from "./route.js";
import * as runs from "./runs.js";

/** What the page remembers of entities and runs is no longer so. */
export async function changed() {
  forget();
  await runs.load(true).catch(() => {}); // What was added is added all the same.
}

/** Take an addition back, once more asked; to the start where it is done. */
export async function takeBack(name) {
  const sure = await confirmed({
    title: "Take it back?",
    text: `${name} and its facts are no longer part of the run. Decisions about it are kept.`,
    submit: "Take it back",
  });
  if (!sure) return;
  try {
    await api.remove(api.address("v1/additions", { name, ...runs.which() }));
  } catch (error) {
    toast(`${error.message} ${error.remedy ?? ""}`, { bad: true, seconds: 15 });
    return;
  }
  await changed();
  toast(`Taken back: ${name}`);
  route.go([]);
}
