// Who decides: asked once, kept in this browser, changed at will.

import { prompted } from "./dialogs.js";
import { recall, remember } from "./kept.js";

/** Tells "change". */
export const changes = new EventTarget();

export const reviewer = () => recall("reviewer") ?? "";

/** The reviewer's name, asked for where it is not known; null if they would rather not say. */
export async function whose() {
  return reviewer() || (await askName());
}

let open = null;

/** Ask for the name; one dialog at a time. */
export function askName() {
  open ??= asked().finally(() => {
    open = null;
  });
  return open;
}

async function asked() {
  const given = await prompted({
    title: "Who reviews?",
    text: "Your name is kept with each decision, and in this browser.",
    label: "Name",
    submit: "Keep name",
    field: { maxlength: "100", autocomplete: "name", value: reviewer() },
  });
  if (given) {
    remember("reviewer", given);
    changes.dispatchEvent(new Event("change"));
  }
  return given;
}
