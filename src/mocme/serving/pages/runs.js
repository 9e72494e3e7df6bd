// The runs that the server serves, and which of them is looked at.

import * as api from "./api.js";
import * as route from "./route.js";

let served = [];
let chosen = null;
let changing = false;
const shades = new Map();

/** Read them from the server; once, or `again`. */
export async function load(again = false) {
  if (!served.length || again) {
    const answer = await api.get("v1/runs");
    served = answer.runs;
    changing = answer.adds === true;
    for (const run of served) for (const modality of run.modalities) shade(modality.name);
  }
  return served;
}

export const all = () => served;

/** Whether the server takes entities that its runs were not trained with. */
export const adds = () => changing;

/** The run that is looked at: the address names it, the first one otherwise. */
export function current() {
  return served.find((run) => run.name === chosen) ?? served[0];
}

export function choose(name) {
  chosen = served.some((run) => run.name === name) ? name : null;
}

/** The parameter that names the run, where it is not the first. */
export function which(name = current()?.name) {
  return name && name !== served[0]?.name ? { run: name } : {};
}

export const relations = (run = current()) => run?.relations ?? [];

/** A modality's colour, by the order in which modalities were met. */
export function shade(modality) {
  if (!shades.has(modality)) shades.set(modality, shades.size % 8);
  return shades.get(modality);
}

route.carry(() => which());
