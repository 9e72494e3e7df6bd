// Review: one suggestion at a time, one key for each decision.

import { say } from "./announce.js";
import { chance } from "./bars.js";
import { CHOICES, decideHere, done, undoHere } from "./deciding.js";
import { el, icon, named, unique } from "./dom.js";
import { about } from "./about.js";
import { already, entityLink, key, likelihood, spoken } from "./fact.js";
import { percent, plural, score } from "./format.js";
import { bind } from "./keys.js";
import { recall, remember } from "./kept.js";
import { medium } from "./media.js";
import * as outbox from "./outbox.js";
import { Queue, allDecided } from "./queue.js";
import { source, sourceForm } from "./reviewing.js";
import { askName, changes as names, reviewer } from "./reviewer.js";
import { empty, failure, skeleton } from "./states.js";
import { why } from "./why.js";

export function show(main, { params }, signal) {
  const from = source(params);
  const desk = new Desk(from, signal);
  main.append(
    el(
      "div",
      { class: "view-head row spread" },
      el("div", {}, el("h1", { tabindex: "-1" }, "Review"), el("p", { class: "under-title" }, from.text)),
      el("div", { class: "review-who" }, who(signal), desk.tally),
    ),
    sourceForm(from),
    desk.place,
    desk.reasons,
  );
  bind(
    [
      ...CHOICES.map((choice) => ({ key: choice.key, label: `${choice.label} the suggestion`, act: () => desk.decide(choice.decision) })),
      { key: "u", label: "Take back the last decision", act: () => desk.undo() },
      { key: "n", label: "Write a note", act: () => desk.note.focus() },
      { key: "w", label: "Show or hide the why", act: () => desk.turnWhy() },
    ],
    signal,
  );
  desk.begin();
  return "Review";
}

function who(signal) {
  const button = el("button", { class: "quiet", type: "button", on: { click: askName } });
  const write = () => {
    button.replaceChildren(...(reviewer() ? ["Reviewing as ", named(reviewer())] : ["Give your name"]));
  };
  names.addEventListener("change", write, { signal });
  write();
  return button;
}

class Desk {
  constructor(from, signal) {
    this.from = from;
    this.signal = signal;
    this.place = el("div", { class: "desk" });
    this.reasons = el("section", { class: "review-why", "aria-label": "Why", hidden: true });
    this.tally = el("span", { class: "hint" });
    this.done = [];
    this.current = null;
    this.stop = null;
    this.note = el("input", { class: "field", type: "text", maxlength: "1000", "aria-label": "Note", placeholder: "Note (n)" });
    this.note.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === "Escape") this.note.blur();
    });
  }

  async begin() {
    this.place.replaceChildren(el("div", { class: "sheet" }, skeleton(6, "Looking for suggestions")));
    this.place.setAttribute("aria-busy", "true");
    try {
      const decided = await allDecided(this.signal);
      outbox.waiting().forEach((entry) => !entry.undone && decided.add(key(entry)));
      this.queue = new Queue(this.from, decided, this.signal);
      await this.next();
    } catch (error) {
      this.trouble(error, () => this.begin());
    }
  }

  trouble(error, retry) {
    if (error.name === "AbortError") return;
    if (error.status === undefined) console.error(error);
    this.place.removeAttribute("aria-busy");
    this.place.replaceChildren(el("div", { class: "sheet" }, failure(error, retry)));
    this.reasons.hidden = true;
    say(error.message, true);
  }

  async next(before = "") {
    this.current = null;
    this.place.setAttribute("aria-busy", "true");
    try {
      const item = await this.queue.peek();
      if (this.signal.aborted) return;
      this.show(item, before);
    } catch (error) {
      this.trouble(error, () => this.next());
    }
  }

  show(item, before) {
    this.current = item;
    this.note.value = "";
    this.stop?.abort();
    this.stop = new AbortController();
    this.signal.addEventListener("abort", () => this.stop.abort(), { once: true });
    this.count();
    this.place.removeAttribute("aria-busy");
    if (!item) {
      this.place.replaceChildren(el("div", { class: "sheet" }, this.finished()));
      this.reasons.hidden = true;
      say(`${before} No suggestion is left.`);
      return;
    }
    this.place.replaceChildren(this.card(item));
    this.showWhy();
    say(`${before} ${spoken(item)}, ${item.probability === null ? `score ${score(item.score)}` : percent(likelihood(item))}`);
    // What comes next should be there when it is asked for.
    const following = this.queue.items[1];
    if (following) for (const name of [following.head, following.tail]) about(name).catch(() => {});
  }

  card(item) {
    const title = unique("card");
    const buttons = CHOICES.map(({ decision, label, key: letter, shape }) =>
      el(
        "button",
        { class: `big ${decision}`, type: "button", "aria-keyshortcuts": letter, on: { click: () => this.decide(decision) } },
        icon(shape),
        el("span", {}, label),
        el("kbd", { "aria-hidden": "true" }, letter.toUpperCase()),
      ),
    );
    const undo = el(
      "button",
      { class: "big undo", type: "button", disabled: !outbox.canUndo(), "aria-keyshortcuts": "u", on: { click: () => this.undo() } },
      icon("M9 6 4 11l5 5", "M4 11h11a4 4 0 0 1 0 8h-3"),
      el("span", {}, "Undo"),
      el("kbd", { "aria-hidden": "true" }, "U"),
    );
    return el(
      "article",
      { class: "sheet review-card", "aria-labelledby": title },
      el("h2", { id: title, class: "unseen" }, spoken(item)),
      el("div", { class: "review-fact" }, this.end(item.head, "head"), el("p", { class: "review-relation" }, el("span", { class: "relation" }, named(item.relation))), this.end(item.tail, "tail")),
      el(
        "div",
        { class: "review-chance" },
        chance(item),
        el("p", { class: "hint" }, this.meaning(item)),
        already(item),
        item.symmetric ? el("p", { class: "hint" }, "Turned around it says the same: the decision is kept for both facts.") : null,
        item.note ? el("p", { class: "notice" }, item.note) : null,
      ),
      el("div", { class: "review-buttons" }, buttons, undo),
      el("div", { class: "review-more" }, this.note, this.whyButton()),
    );
  }

  meaning({ probability, applies }) {
    if (probability === null) return "score; this run has no probabilities";
    if (applies === null || applies === undefined) return "probability that it is a fact, at least";
    return `probability that it is a fact: ${percent(applies)} that the relation applies, times ${percent(probability)} that it is this one`;
  }

  end(name, side) {
    const picture = el("div", { class: "review-picture" });
    const line = el("p", { class: "hint" });
    const box = el("div", { class: `review-end ${side}` }, picture, el("p", { class: "review-name" }, entityLink(name)), line);
    about(name)
      .then((told) => {
        const types = (told.types ?? []).join(", ");
        line.textContent = [types, plural(told.facts, "fact")].filter(Boolean).join(" · ");
        const file = (told.files ?? []).find((one) => one.kind === "image");
        const shown = file ? medium(file, name, { signal: this.stop.signal }) : null;
        if (shown) picture.append(shown);
        else picture.append(el("span", { class: "initial", "aria-hidden": "true" }, [...name.trim()][0] ?? "·"));
      })
      .catch(() => {}); // The names are there; the rest is an extra.
    return box;
  }

  whyButton() {
    this.opener = el("button", { class: "button", type: "button", "aria-keyshortcuts": "w", "aria-expanded": String(this.whyShown), on: { click: () => this.turnWhy() } }, "Why", " ", el("kbd", { "aria-hidden": "true" }, "W"));
    return this.opener;
  }

  get whyShown() {
    return recall("why") !== "hidden";
  }

  turnWhy() {
    remember("why", this.whyShown ? "hidden" : null);
    this.opener?.setAttribute("aria-expanded", String(this.whyShown));
    this.showWhy();
    // Asked for, it is brought into view: on a low screen it begins below the edge.
    if (!this.reasons.hidden) this.reasons.scrollIntoView({ block: "nearest" });
  }

  showWhy() {
    this.reasons.hidden = !this.whyShown || !this.current;
    this.reasons.replaceChildren();
    if (this.reasons.hidden) return;
    const item = this.current;
    this.reasons.append(el("h2", {}, "Why"), el("div", { class: "filled" }, skeleton(5, "Looking for the why")));
    // Who goes on at once does not wait for reasons, and the server need not look for them.
    setTimeout(() => {
      if (this.current !== item || this.stop.signal.aborted || this.reasons.hidden) return;
      this.reasons.replaceChildren(el("h2", {}, "Why"), why(item, { signal: this.stop.signal }));
    }, 400);
  }

  async decide(decision) {
    const item = this.current;
    if (!item) return;
    this.current = null; // A second key before the next is shown decides nothing.
    const entry = await decideHere(item, decision, this.note.value.trim(), true);
    if (!entry) {
      this.current = item;
      return;
    }
    this.queue.shift();
    this.done.push({ item, key: entry.key });
    this.place.firstElementChild?.classList.add(`went-${decision}`);
    await this.next(`${done(decision)}.`);
  }

  undo() {
    const entry = undoHere();
    if (!entry) return;
    const place = this.done.findIndex((one) => one.key === entry.key);
    const item = place >= 0 ? this.done.splice(place, 1)[0].item : null;
    if (!item || !this.queue) return;
    this.queue.unshift(item);
    this.next();
  }

  count() {
    const left = this.queue.items.length;
    const here = this.done.length ? `${plural(this.done.length, "decision")} here, ` : "";
    this.tally.textContent = `${here}${left} waiting`;
  }

  finished() {
    return [
      empty("No suggestion is left here.", "Choose another entity or relation above, or ask for a lower probability."),
      outbox.canUndo() ? el("button", { class: "button", type: "button", on: { click: () => this.undo() } }, "Take back the last decision") : null,
    ].filter(Boolean);
  }
}

