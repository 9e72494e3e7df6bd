// Accept, reject, skip, and taking it back: buttons, and what they say.

import { toast } from "./announce.js";
import { el, icon } from "./dom.js";
import { spoken } from "./fact.js";
import * as outbox from "./outbox.js";
import { whose } from "./reviewer.js";

export const CHOICES = [
  { decision: "accept", key: "a", label: "Accept", done: "Accepted", shape: "M5 12.5 10 17.5 19 7.5" },
  { decision: "reject", key: "r", label: "Reject", done: "Rejected", shape: "M6.5 6.5l11 11M17.5 6.5l-11 11" },
  { decision: "skip", key: "s", label: "Skip", done: "Skipped", shape: "M6 6l6 6-6 6M13 6l6 6-6 6" },
];

export const done = (decision) => CHOICES.find((choice) => choice.decision === decision)?.done ?? decision;

/** Decide, ask who it is where that is not known, tell; the entry, or null where it was not made. */
export async function decideHere(prediction, decision, note = "", quiet = false) {
  const reviewer = await whose();
  if (!reviewer) return null;
  const entry = outbox.decide(prediction, decision, reviewer, note);
  if (!quiet) {
    toast(`${done(decision)}: ${spoken(prediction)}${prediction.symmetric ? ", and the other way round" : ""}`, {
      action: { label: "Undo", act: () => undoHere(entry.key) },
    });
  }
  return entry;
}

/** Take back one, by default the last, and tell; what was taken back, or null. */
export function undoHere(key = undefined) {
  const entry = outbox.undo(key);
  toast(entry ? `Taken back: ${spoken(entry)}` : "There is nothing to take back in this visit.");
  return entry;
}

/** Three small buttons of one suggestion; `.mark(decision)` shows what was decided. */
export function decisionButtons(prediction) {
  const buttons = CHOICES.map(({ decision, label, shape, key }) =>
    el(
      "button",
      {
        class: `decide ${decision}`,
        type: "button",
        title: `${label} (${key})`,
        "aria-label": `${label} ${spoken(prediction)}`,
        "aria-pressed": "false",
        on: { click: () => decideHere(prediction, decision) },
      },
      icon(shape),
    ),
  );
  const group = el("div", { class: "decides", role: "group", "aria-label": "Decision" }, buttons);
  group.mark = (decision) =>
    buttons.forEach((button, place) =>
      button.setAttribute("aria-pressed", String(CHOICES[place].decision === decision)),
    );
  return group;
}
