// The view "Review": one suggestion at a time, with one key per decision.

import { announce } from "./announce.js";
import { probabilityLabel } from "./bars.js";
import { DECISIONS, decideWithToast, pastTense, undoWithToast } from "./decision-buttons.js";
import { el, icon, nameText, uniqueId } from "./dom.js";
import { entityInfo } from "./entity-info.js";
import { linkedTag, entityLink, factKey, shownProbability, factText } from "./fact.js";
import { percent, plural, score } from "./format.js";
import { bind } from "./keys.js";
import { readItem, writeItem } from "./storage.js";
import { mediaElement } from "./media.js";
import * as outbox from "./outbox.js";
import { Queue, allDecidedKeys } from "./queue.js";
import { sourceOf, sourceForm } from "./review-source.js";
import { askName, changes as nameChanges, reviewer } from "./reviewer.js";
import { empty, failure, skeleton } from "./states.js";
import { explanation } from "./explanation.js";

export function show(main, { params }, signal) {
  const source = sourceOf(params);
  const session = new ReviewSession(source, signal);
  main.append(
    el(
      "div",
      { class: "view-head row spread" },
      el(
        "div",
        {},
        el("h1", { tabindex: "-1" }, "Review"),
        el("p", { class: "subtitle" }, source.text),
      ),
      el("div", { class: "review-who" }, reviewerButton(signal), session.counter),
    ),
    sourceForm(source),
    session.container,
    session.explanation,
  );
  bind(
    [
      ...DECISIONS.map((choice) => ({
        key: choice.key,
        label: `${choice.label} the suggestion`,
        act: () => session.decide(choice.decision),
      })),
      { key: "u", label: "Undo the last decision", act: () => session.undo() },
      { key: "n", label: "Write a note", act: () => session.note.focus() },
      { key: "w", label: "Show or hide the explanation", act: () => session.toggleExplanation() },
    ],
    signal,
  );
  session.start();
  return "Review";
}

function reviewerButton(signal) {
  const button = el("button", { class: "link-button", type: "button", on: { click: askName } });
  const showName = () => {
    button.replaceChildren(
      ...(reviewer() ? ["Reviewing as ", nameText(reviewer())] : ["Enter your name"]),
    );
  };
  nameChanges.addEventListener("change", showName, { signal });
  showName();
  return button;
}

class ReviewSession {
  constructor(source, signal) {
    this.source = source;
    this.signal = signal;
    this.container = el("div", { class: "review-current" });
    this.explanation = el("section", {
      class: "review-why",
      "aria-label": "Explanation",
      hidden: true,
    });
    this.counter = el("span", { class: "hint" });
    this.decided = []; // {item, key of its entry in the outbox}
    this.current = null;
    this.controller = null;
    this.note = el("input", {
      class: "field",
      type: "text",
      maxlength: "1000",
      "aria-label": "Note",
      placeholder: "Note (n)",
    });
    this.note.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === "Escape") this.note.blur();
    });
  }

  async start() {
    this.container.replaceChildren(
      el("div", { class: "panel" }, skeleton(6, "Looking for suggestions")),
    );
    this.container.setAttribute("aria-busy", "true");
    try {
      const decided = await allDecidedKeys(this.signal);
      outbox.pending().forEach((entry) => !entry.undone && decided.add(factKey(entry)));
      this.queue = new Queue(this.source, decided, this.signal);
      await this.next();
    } catch (error) {
      this.showError(error, () => this.start());
    }
  }

  showError(error, retry) {
    if (error.name === "AbortError") return;
    if (error.status === undefined) console.error(error);
    this.container.removeAttribute("aria-busy");
    this.container.replaceChildren(el("div", { class: "panel" }, failure(error, retry)));
    this.explanation.hidden = true;
    announce(error.message, true);
  }

  async next(message = "") {
    this.current = null;
    this.container.setAttribute("aria-busy", "true");
    try {
      const item = await this.queue.peek();
      if (this.signal.aborted) return;
      this.show(item, message);
    } catch (error) {
      this.showError(error, () => this.next());
    }
  }

  show(item, message) {
    this.current = item;
    this.note.value = "";
    this.controller?.abort();
    this.controller = new AbortController();
    this.signal.addEventListener("abort", () => this.controller.abort(), { once: true });
    this.showCount();
    this.container.removeAttribute("aria-busy");
    if (!item) {
      this.container.replaceChildren(el("div", { class: "panel" }, this.finished()));
      this.explanation.hidden = true;
      announce(`${message} No suggestion is left.`);
      return;
    }
    this.container.replaceChildren(this.card(item));
    this.showExplanation();
    announce(
      `${message} ${factText(item)}, ` +
        (item.probability === null
          ? `score ${score(item.score)}`
          : percent(shownProbability(item))),
    );
    // Prefetch the entities of the next suggestion.
    const next = this.queue.items[1];
    if (next) for (const name of [next.head, next.tail]) entityInfo(name).catch(() => {});
  }

  card(item) {
    const title = uniqueId("card");
    const buttons = DECISIONS.map(({ decision, label, key: letter, shape }) =>
      el(
        "button",
        {
          class: `review-button ${decision}`,
          type: "button",
          "aria-keyshortcuts": letter,
          on: { click: () => this.decide(decision) },
        },
        icon(shape),
        el("span", {}, label),
        el("kbd", { "aria-hidden": "true" }, letter.toUpperCase()),
      ),
    );
    const undo = el(
      "button",
      {
        class: "review-button undo",
        type: "button",
        disabled: !outbox.canUndo(),
        "aria-keyshortcuts": "u",
        on: { click: () => this.undo() },
      },
      icon("M9 6 4 11l5 5", "M4 11h11a4 4 0 0 1 0 8h-3"),
      el("span", {}, "Undo"),
      el("kbd", { "aria-hidden": "true" }, "U"),
    );
    return el(
      "article",
      { class: "panel review-card", "aria-labelledby": title },
      el("h2", { id: title, class: "visually-hidden" }, factText(item)),
      el(
        "div",
        { class: "review-fact" },
        this.end(item.head, "head"),
        el(
          "p",
          { class: "review-relation" },
          el("span", { class: "relation" }, nameText(item.relation)),
        ),
        this.end(item.tail, "tail"),
      ),
      el(
        "div",
        { class: "review-probability" },
        probabilityLabel(item),
        el("p", { class: "hint" }, this.probabilityMeaning(item)),
        linkedTag(item),
        item.symmetric
          ? el(
              "p",
              { class: "hint" },
              "The relation is symmetric: the decision is stored for both facts.",
            )
          : null,
        item.note ? el("p", { class: "notice" }, item.note) : null,
      ),
      el("div", { class: "review-buttons" }, buttons, undo),
      el("div", { class: "review-more" }, this.note, this.createWhyButton()),
    );
  }

  probabilityMeaning({ probability, applies }) {
    if (probability === null) return "score; this run has no probabilities";
    if (applies === null || applies === undefined) return "probability that it is a fact, at least";
    return (
      `probability that it is a fact: ${percent(applies)} that the relation applies, ` +
      `times ${percent(probability)} that this is the answer`
    );
  }

  end(name, side) {
    const picture = el("div", { class: "review-picture" });
    const line = el("p", { class: "hint" });
    const box = el(
      "div",
      { class: `review-end ${side}` },
      picture,
      el("p", { class: "review-name" }, entityLink(name)),
      line,
    );
    entityInfo(name)
      .then((info) => {
        const types = (info.types ?? []).join(", ");
        line.textContent = [types, plural(info.facts, "fact")].filter(Boolean).join(" · ");
        const file = (info.files ?? []).find((candidate) => candidate.kind === "image");
        const image = file ? mediaElement(file, name, { signal: this.controller.signal }) : null;
        if (image) picture.append(image);
        else
          picture.append(
            el(
              "span",
              { class: "placeholder-letter", "aria-hidden": "true" },
              [...name.trim()][0] ?? "·",
            ),
          );
      })
      .catch(() => {}); // The card works without pictures and types.
    return box;
  }

  createWhyButton() {
    this.whyButton = el(
      "button",
      {
        class: "button",
        type: "button",
        "aria-keyshortcuts": "w",
        "aria-expanded": String(this.explanationShown),
        on: { click: () => this.toggleExplanation() },
      },
      "Why",
      " ",
      el("kbd", { "aria-hidden": "true" }, "W"),
    );
    return this.whyButton;
  }

  get explanationShown() {
    return readItem("why") !== "hidden";
  }

  toggleExplanation() {
    writeItem("why", this.explanationShown ? "hidden" : null);
    this.whyButton?.setAttribute("aria-expanded", String(this.explanationShown));
    this.showExplanation();
    // On a low screen it starts below the visible part of the page.
    if (!this.explanation.hidden) this.explanation.scrollIntoView({ block: "nearest" });
  }

  showExplanation() {
    this.explanation.hidden = !this.explanationShown || !this.current;
    this.explanation.replaceChildren();
    if (this.explanation.hidden) return;
    const item = this.current;
    this.explanation.append(
      el("h2", {}, "Explanation"),
      el("div", { class: "filled" }, skeleton(5, "Loading the explanation")),
    );
    // Wait, so that no explanation is requested if the reviewer decides immediately.
    setTimeout(() => {
      if (this.current !== item || this.controller.signal.aborted || this.explanation.hidden)
        return;
      this.explanation.replaceChildren(
        el("h2", {}, "Explanation"),
        explanation(item, { signal: this.controller.signal }),
      );
    }, 400);
  }

  async decide(decision) {
    const item = this.current;
    if (!item) return;
    this.current = null; // Ignore further keys until the next suggestion is shown.
    const entry = await decideWithToast(item, decision, this.note.value.trim(), true);
    if (!entry) {
      this.current = item;
      return;
    }
    this.queue.shift();
    this.decided.push({ item, key: entry.key });
    this.container.firstElementChild?.classList.add(`decided-${decision}`);
    await this.next(`${pastTense(decision)}.`);
  }

  undo() {
    const entry = undoWithToast();
    if (!entry) return;
    const index = this.decided.findIndex((decided) => decided.key === entry.key);
    const item = index >= 0 ? this.decided.splice(index, 1)[0].item : null;
    if (!item || !this.queue) return;
    this.queue.unshift(item);
    this.next();
  }

  showCount() {
    const waiting = this.queue.items.length;
    const decided = this.decided.length
      ? `${plural(this.decided.length, "decision")} in this session, `
      : "";
    this.counter.textContent = `${decided}${waiting} waiting`;
  }

  finished() {
    return [
      empty(
        "No suggestion is left.",
        "Choose another entity or relation above, or lower the minimum probability.",
      ),
      outbox.canUndo()
        ? el(
            "button",
            { class: "button", type: "button", on: { click: () => this.undo() } },
            "Undo the last decision",
          )
        : null,
    ].filter(Boolean);
  }
}
