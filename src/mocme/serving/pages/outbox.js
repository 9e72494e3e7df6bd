// Decisions that are sent to the server in the background. None is lost: each one is stored in this
// browser, and sent again, until the server has it.
//
// Each decision is a separate item in storage, so that tabs do not overwrite each other's:
//   {key, made (time), head, relation, tail, decision, reviewer, note, run,
//    tries, error, stuck (the server refused it), undone, id (of the review on the server)}

import * as api from "./api.js";
import * as fact from "./fact.js";
import { readItem, writeItem, itemNames } from "./storage.js";
import * as runs from "./runs.js";

const PREFIX = "outbox.";
const MAX_RETRY_SECONDS = 30;

/** Dispatches "change" if a decision is made, sent, refused or undone; "failed" {entry, error}. */
export const changes = new EventTarget();

const history = []; // decisions since the page was loaded, oldest first: lists of entry keys
// By key, the entries since the page was loaded, with the id of the review once it is known.
const sessionEntries = new Map();
let lastTime = 0;
let timer = 0;
let retrySeconds = 1;
let persistent = true;

const notifyChange = () => changes.dispatchEvent(new Event("change"));

/** Entries that the server does not have yet, oldest first. */
export function pending() {
  const entries = itemNames(PREFIX).map((name) => JSON.parse(readItem(name)));
  return entries.sort((a, b) => a.made - b.made || (a.key < b.key ? -1 : 1));
}

/** Whether decisions survive closing the page; false if browser storage is not available. */
export const isPersistent = () => persistent;

/** The latest decision on a fact since the page was loaded, or null. */
export function findDecision(target) {
  const targetKey = fact.factKey(target);
  for (const key of history.flat().reverse()) {
    const entry = readEntry(key) ?? sessionEntries.get(key);
    if (entry && !entry.undone && fact.factKey(entry) === targetKey) return entry;
  }
  return null;
}

export const canUndo = () => history.length > 0;

function readEntry(key) {
  const text = readItem(PREFIX + key);
  return text === null ? null : JSON.parse(text);
}

function writeEntry(entry) {
  persistent = writeItem(PREFIX + entry.key, JSON.stringify(entry)) && persistent;
}

const deleteEntry = (key) => writeItem(PREFIX + key, null);

/**
 * Store a decision and send it in the background. A decision on a symmetric prediction has an entry
 * for each direction; both are undone together. Returns the first entry.
 */
export function decide(prediction, decision, reviewer, note = "") {
  const entries = fact.decidedFacts(prediction).map((item) => {
    // Strictly increasing times keep the order of decisions in the same millisecond.
    lastTime = Math.max(Date.now(), lastTime + 1);
    const key = `${lastTime}-${Math.random().toString(36).slice(2)}`;
    return {
      key,
      made: lastTime,
      ...item,
      decision,
      reviewer,
      note,
      ...runs.runParameter(),
      tries: 0,
    };
  });
  for (const entry of entries) {
    writeEntry(entry);
    // Counted as tried: if another tab sends it, its id must be looked up, as after a failure.
    sessionEntries.set(entry.key, { ...entry, tries: 1 });
  }
  history.push(entries.map((entry) => entry.key));
  notifyChange();
  flush();
  return entries[0];
}

/** Undo a decision made on this page, by default the last. Returns its first entry, or null. */
export function undo(key = history.at(-1)?.[0]) {
  const index = history.findIndex((keys) => keys.includes(key));
  if (index < 0) return null;
  const [keys] = history.splice(index, 1);
  const entries = keys.map((entryKey) => readEntry(entryKey) ?? sessionEntries.get(entryKey));
  for (const entry of entries) {
    // An entry that was never sent is just deleted.
    if (readEntry(entry.key)?.tries === 0) deleteEntry(entry.key);
    else writeEntry({ ...entry, undone: true, stuck: false });
  }
  notifyChange();
  flush();
  return entries[0];
}

/** Undo a review of the server's list. */
export function undoReview(review) {
  const key = `undo-${review.id}`;
  writeEntry({ ...review, key, made: Date.now(), tries: 0, undone: true });
  const isReview = (entryKey) => sessionEntries.get(entryKey).id === review.id;
  const index = history.findIndex((keys) => keys.some(isReview));
  // The other direction of a symmetric fact stays decided, and can still be undone.
  if (index >= 0) history[index] = history[index].filter((entryKey) => !isReview(entryKey));
  if (index >= 0 && !history[index].length) history.splice(index, 1);
  notifyChange();
  return flush();
}

/** Discard an entry that the server refused. */
export function discard(key) {
  deleteEntry(key);
  notifyChange();
}

/** Send all entries now, including refused ones. */
export function retry() {
  for (const entry of pending()) if (entry.stuck) writeEntry({ ...entry, stuck: false });
  retrySeconds = 1;
  return flush();
}

let flushing = null;

/** Send the pending entries one after the other; only one tab sends at a time. */
export function flush() {
  clearTimeout(timer);
  flushing ??= withLock(sendAll).finally(() => {
    flushing = null;
    if (pending().some((entry) => !entry.stuck)) retryLater();
  });
  return flushing;
}

function retryLater() {
  clearTimeout(timer);
  timer = setTimeout(flush, retrySeconds * 1000);
}

function withLock(work) {
  return navigator.locks ? navigator.locks.request("mocme.outbox", work) : work();
}

async function sendAll() {
  for (let entry = nextEntry(); entry; entry = nextEntry()) {
    try {
      const id = await send(entry);
      completeEntry(entry, id);
      retrySeconds = 1;
    } catch (error) {
      recordFailure(entry, error);
      if (!readEntry(entry.key)?.stuck) return;
    } finally {
      notifyChange();
    }
  }
}

const nextEntry = () => pending().find((entry) => !entry.stuck);

/** Send an entry. Returns the id of its review, or null if it was undone. */
async function send(entry) {
  let id = entry.id ?? null;
  // A failed attempt may have reached the server, so look for the review first.
  if (id === null && entry.tries) id = await findReviewId(entry);
  if ((readEntry(entry.key) ?? entry).undone) {
    if (id !== null) await removeReview(id);
    return null;
  }
  if (id !== null) return id;
  // Counted before sending, because the page may be closed before the answer arrives.
  writeEntry({ ...entry, tries: entry.tries + 1 });
  const { head, relation, tail, decision, reviewer, note } = entry;
  const runParameter = entry.run ? { run: entry.run } : {};
  const review = await api.post("v1/reviews", {
    head,
    relation,
    tail,
    decision,
    reviewer,
    note,
    ...runParameter,
  });
  return review.id;
}

function completeEntry(entry, id) {
  const current = readEntry(entry.key);
  // Undone while it was being sent: the next round removes the review.
  if (id !== null && current?.undone) {
    writeEntry({ ...current, id });
    return;
  }
  deleteEntry(entry.key);
  if (id !== null && sessionEntries.has(entry.key)) sessionEntries.set(entry.key, { ...entry, id });
}

function recordFailure(entry, error) {
  const current = readEntry(entry.key) ?? entry;
  const refused =
    error.status >= 400 && error.status < 500 && ![401, 408, 429].includes(error.status);
  writeEntry({
    ...current,
    tries: current.tries + (refused ? 0 : 1),
    error: `${error.message} ${error.remedy ?? ""}`.trim(),
    stuck: refused,
  });
  retrySeconds = Math.min(MAX_RETRY_SECONDS, retrySeconds * 2);
  changes.dispatchEvent(new CustomEvent("failed", { detail: { entry: current, error } }));
}

async function findReviewId(entry) {
  const answer = await api.get("v1/reviews", {
    name: entry.head,
    decision: entry.decision,
    limit: 100,
  });
  const matches = answer.reviews.filter(
    (review) => fact.factKey(review) === fact.factKey(entry) && review.reviewer === entry.reviewer,
  );
  return matches.length ? Math.max(...matches.map((review) => review.id)) : null;
}

async function removeReview(id) {
  try {
    await api.remove(`v1/reviews/${encodeURIComponent(id)}`);
  } catch (error) {
    if (error.status !== 404) throw error;
  }
}

/** Send the entries left by an earlier page, now and whenever the connection is restored. */
export function start() {
  addEventListener("online", retry);
  addEventListener("storage", (event) => {
    if (event.key?.startsWith(`mocme.${PREFIX}`)) notifyChange();
  });
  if (pending().length) flush();
}
