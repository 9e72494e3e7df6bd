// Decisions on their way to the server. None is lost: each is kept in this browser until the server
// has it, and sent again until then.
//
// Each has an entry of its own in storage, so that tabs do not write over each other:
//   {key, made, head, relation, tail, decision, reviewer, note, run,
//    tries, error, stuck (the server refused it), undone, id (of the server's review)}

import * as api from "./api.js";
import * as fact from "./fact.js";
import { recall, remember, remembered } from "./kept.js";
import * as runs from "./runs.js";

const PREFIX = "outbox.";
const LONGEST = 30; // seconds between tries

/** Tells "change" when something was decided, sent, refused or undone. */
export const changes = new EventTarget();

const history = []; // this visit's decisions, the last one last: the keys of each one's entries
const made = new Map(); // key -> this visit's entry, with the review's id once it is known
let latest = 0;
let timer = 0;
let wait = 1;
let kept = true;

const tell = () => changes.dispatchEvent(new Event("change"));

/** Entries that the server does not have, oldest first. */
export function waiting() {
  const found = remembered(PREFIX).map((name) => JSON.parse(recall(name)));
  return found.sort((a, b) => a.made - b.made || (a.key < b.key ? -1 : 1));
}

/** Whether decisions outlive this page; false where the browser keeps nothing. */
export const lasting = () => kept;

/** Entry of this visit by its fact, or nothing. */
export function decided(which) {
  const wanted = fact.key(which);
  for (const key of history.flat().reverse()) {
    const entry = held(key) ?? made.get(key);
    if (entry && !entry.undone && fact.key(entry) === wanted) return entry;
  }
  return null;
}

export const canUndo = () => history.length > 0;

function held(key) {
  const text = recall(PREFIX + key);
  return text === null ? null : JSON.parse(text);
}

function keep(entry) {
  kept = remember(PREFIX + entry.key, JSON.stringify(entry)) && kept;
}

const drop = (key) => remember(PREFIX + key, null);

/**
 * Decide; at once here, and sent in the background. Where the fact turned around says the same, the
 * decision is kept for both, and both are taken back together.
 */
export function decide(prediction, decision, reviewer, note = "") {
  const entries = fact.decidedFacts(prediction).map((one) => {
    // Two in one millisecond keep their order.
    latest = Math.max(Date.now(), latest + 1);
    const key = `${latest}-${Math.random().toString(36).slice(2)}`;
    return { key, made: latest, ...one, decision, reviewer, note, ...runs.which(), tries: 0 };
  });
  for (const entry of entries) {
    keep(entry);
    // If another tab sends it, its id has to be looked up, as after a try that failed.
    made.set(entry.key, { ...entry, tries: 1 });
  }
  history.push(entries.map((entry) => entry.key));
  tell();
  flush();
  return entries[0];
}

/** Take back a decision of this visit, by default the last; its first fact's entry, or null where there is none. */
export function undo(key = history.at(-1)?.[0]) {
  const place = history.findIndex((keys) => keys.includes(key));
  if (place < 0) return null;
  const [keys] = history.splice(place, 1);
  const entries = keys.map((one) => held(one) ?? made.get(one));
  for (const entry of entries) {
    // What never left need not be taken back.
    if (held(entry.key)?.tries === 0) drop(entry.key);
    else keep({ ...entry, undone: true, stuck: false });
  }
  tell();
  flush();
  return entries[0];
}

/** Take back a review of the server's list. */
export function undoReview(review) {
  const key = `undo-${review.id}`;
  keep({ ...review, key, made: Date.now(), tries: 0, undone: true });
  const own = history.findIndex((keys) => keys.some((one) => made.get(one).id === review.id));
  // Its other fact stays decided, and can be taken back as this one was.
  if (own >= 0) history[own] = history[own].filter((one) => made.get(one).id !== review.id);
  if (own >= 0 && !history[own].length) history.splice(own, 1);
  tell();
  return flush();
}

/** Forget one that the server refused. */
export function discard(key) {
  drop(key);
  tell();
}

/** Try all again now, refused ones too. */
export function retry() {
  for (const entry of waiting()) if (entry.stuck) keep({ ...entry, stuck: false });
  wait = 1;
  return flush();
}

let running = null;

/** Send what waits, one after the other; one tab at a time. */
export function flush() {
  clearTimeout(timer);
  running ??= locked(sendAll).finally(() => {
    running = null;
    if (waiting().some((entry) => !entry.stuck)) later();
  });
  return running;
}

function later() {
  clearTimeout(timer);
  timer = setTimeout(flush, wait * 1000);
}

function locked(work) {
  return navigator.locks ? navigator.locks.request("mocme.outbox", work) : work();
}

async function sendAll() {
  for (let entry = next(); entry; entry = next()) {
    try {
      const id = await send(entry);
      finish(entry, id);
      wait = 1;
    } catch (error) {
      failed(entry, error);
      if (!held(entry.key)?.stuck) return;
    } finally {
      tell();
    }
  }
}

const next = () => waiting().find((entry) => !entry.stuck);

/** The review's id, or null where none is there any more. */
async function send(entry) {
  let id = entry.id ?? null;
  // A try that failed may have reached the server all the same.
  if (id === null && entry.tries) id = await found(entry);
  if ((held(entry.key) ?? entry).undone) {
    if (id !== null) await removed(id);
    return null;
  }
  if (id !== null) return id;
  // Counted before it is sent: the page may be closed before the answer comes.
  keep({ ...entry, tries: entry.tries + 1 });
  const { head, relation, tail, decision, reviewer, note } = entry;
  const where = entry.run ? { run: entry.run } : {};
  const review = await api.post("v1/reviews", { head, relation, tail, decision, reviewer, note, ...where });
  return review.id;
}

function finish(entry, id) {
  const now = held(entry.key);
  // Undone while it was on its way: the next round takes it back.
  if (id !== null && now?.undone) {
    keep({ ...now, id });
    return;
  }
  drop(entry.key);
  if (id !== null && made.has(entry.key)) made.set(entry.key, { ...entry, id });
}

function failed(entry, error) {
  const now = held(entry.key) ?? entry;
  const final = error.status >= 400 && error.status < 500 && ![401, 408, 429].includes(error.status);
  keep({ ...now, tries: now.tries + (final ? 0 : 1), error: `${error.message} ${error.remedy ?? ""}`.trim(), stuck: final });
  wait = Math.min(LONGEST, wait * 2);
  changes.dispatchEvent(new CustomEvent("failed", { detail: { entry: now, error } }));
}

async function found(entry) {
  const answer = await api.get("v1/reviews", { name: entry.head, decision: entry.decision, limit: 100 });
  const same = answer.reviews.filter(
    (review) => fact.key(review) === fact.key(entry) && review.reviewer === entry.reviewer,
  );
  return same.length ? Math.max(...same.map((review) => review.id)) : null;
}

async function removed(id) {
  try {
    await api.remove(`v1/reviews/${encodeURIComponent(id)}`);
  } catch (error) {
    if (error.status !== 404) throw error;
  }
}

/** Begin: send what an earlier visit left, and again when the connection is back. */
export function start() {
  addEventListener("online", retry);
  addEventListener("storage", (event) => {
    if (event.key?.startsWith(`mocme.${PREFIX}`)) tell();
  });
  if (waiting().length) flush();
}
