// The name of the reviewer: asked for once and stored in this browser.

import { askText } from "./dialogs.js";
import { readItem, writeItem } from "./storage.js";

/** Dispatches "change" when the name changes. */
export const changes = new EventTarget();

export const reviewer = () => readItem("reviewer") ?? "";

/** The name of the reviewer, asked for if not set; null if the dialog is cancelled. */
export async function requireReviewer() {
  return reviewer() || (await askName());
}

let openDialog = null;

/** Ask for the name; at most one dialog is open. */
export function askName() {
  openDialog ??= promptForName().finally(() => {
    openDialog = null;
  });
  return openDialog;
}

async function promptForName() {
  const name = await askText({
    title: "Reviewer",
    text: "Your name is stored with each decision, and in this browser.",
    label: "Name",
    submit: "Save name",
    field: { maxlength: "100", autocomplete: "name", value: reviewer() },
  });
  if (name) {
    writeItem("reviewer", name);
    changes.dispatchEvent(new Event("change"));
  }
  return name;
}
