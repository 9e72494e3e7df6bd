// The served runs, and the selected one.

import * as api from "./api.js";
import * as route from "./route.js";

let served = [];
let selectedName = null;
let additionsAllowed = false;
const shades = new Map();

/** Load the runs from the server: once, or `again`. */
export async function load(again = false) {
  if (!served.length || again) {
    const answer = await api.get("v1/runs");
    served = answer.runs;
    additionsAllowed = answer.adds === true;
    for (const run of served) for (const modality of run.modalities) shade(modality.name);
  }
  return served;
}

export const all = () => served;

/** Whether the server accepts new entities. */
export const acceptsAdditions = () => additionsAllowed;

/** The selected run: the one named in the address, or the first. */
export function current() {
  return served.find((run) => run.name === selectedName) ?? served[0];
}

export function select(name) {
  selectedName = served.some((run) => run.name === name) ? name : null;
}

/** The request parameter that names a run; empty for the first run. */
export function runParameter(name = current()?.name) {
  return name && name !== served[0]?.name ? { run: name } : {};
}

export const relations = (run = current()) => run?.relations ?? [];

/** The number of the colour of a modality, in order of first use. */
export function shade(modality) {
  if (!shades.has(modality)) shades.set(modality, shades.size % 8);
  return shades.get(modality);
}

route.setDefaults(() => runParameter());
