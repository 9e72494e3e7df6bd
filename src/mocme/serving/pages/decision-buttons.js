// Accept, reject, skip and undo: buttons and their messages.

import { toast } from "./announce.js";
import { el, icon } from "./dom.js";
import { factText } from "./fact.js";
import * as outbox from "./outbox.js";
import { requireReviewer } from "./reviewer.js";

export const DECISIONS = [
  {
    decision: "accept",
    key: "a",
    label: "Accept",
    done: "Accepted",
    shape: "M5 12.5 10 17.5 19 7.5",
  },
  {
    decision: "reject",
    key: "r",
    label: "Reject",
    done: "Rejected",
    shape: "M6.5 6.5l11 11M17.5 6.5l-11 11",
  },
  {
    decision: "skip",
    key: "s",
    label: "Skip",
    done: "Skipped",
    shape: "M6 6l6 6-6 6M13 6l6 6-6 6",
  },
];

export const pastTense = (decision) =>
  DECISIONS.find((choice) => choice.decision === decision)?.done ?? decision;

/**
 * Decide on a prediction and show a message, after asking for the reviewer's name if it is not set.
 * Returns the entry of the outbox, or null if the dialog was cancelled.
 */
export async function decideWithToast(prediction, decision, note = "", quiet = false) {
  const reviewer = await requireReviewer();
  if (!reviewer) return null;
  const entry = outbox.decide(prediction, decision, reviewer, note);
  if (!quiet) {
    toast(
      `${pastTense(decision)}: ${factText(prediction)}` +
        (prediction.symmetric ? ", and the other way round" : ""),
      {
        action: { label: "Undo", act: () => undoWithToast(entry.key) },
      },
    );
  }
  return entry;
}

/** Undo a decision, by default the last one, and show a message. Returns its entry, or null. */
export function undoWithToast(key = undefined) {
  const entry = outbox.undo(key);
  toast(entry ? `Undone: ${factText(entry)}` : "There is nothing to undo in this visit.");
  return entry;
}

/** Three small buttons for a suggestion; `.mark(decision)` highlights the decision made. */
export function decisionButtons(prediction) {
  const buttons = DECISIONS.map(({ decision, label, shape, key }) =>
    el(
      "button",
      {
        class: `decision-button ${decision}`,
        type: "button",
        title: `${label} (${key})`,
        "aria-label": `${label} ${factText(prediction)}`,
        "aria-pressed": "false",
        on: { click: () => decideWithToast(prediction, decision) },
      },
      icon(shape),
    ),
  );
  const group = el(
    "div",
    { class: "decision-buttons", role: "group", "aria-label": "Decision" },
    buttons,
  );
  group.mark = (decision) =>
    buttons.forEach((button, index) =>
      button.setAttribute("aria-pressed", String(DECISIONS[index].decision === decision)),
    );
  return group;
}
