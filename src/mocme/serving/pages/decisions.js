// The decisions that were made: unsent ones first, a filter, a way back, files to take away.

import * as api from "./api.js";
import { done } from "./deciding.js";
import { el, named, unique } from "./dom.js";
import { sentence, spoken } from "./fact.js";
import { count, moment, percent, plural } from "./format.js";
import * as outbox from "./outbox.js";
import { chooser } from "./question.js";
import * as route from "./route.js";
import * as runs from "./runs.js";
import { combobox } from "./combobox.js";
import { toast } from "./announce.js";
import { empty, filled } from "./states.js";

const PAGE = 100;
const FORMATS = {
  tsv: ["TSV", "for programs: a decision a line, with tabs in between"],
  csv: ["CSV", "for a spreadsheet: a decision a row"],
  jsonl: ["JSON lines", "for programs: a decision a line, as JSON"],
};

export function show(main, { params }, signal) {
  const filter = { decision: params.get("decision") ?? "", name: params.get("name") ?? "" };
  const offset = Math.max(0, Number(params.get("offset")) || 0);
  const load = () => api.get("v1/reviews", { ...filter, offset, limit: PAGE, ...runs.which() }, { signal });
  const list = filled(load, (answer) => listed(answer, filter, offset), { lines: 8, signal });
  const unsent = el("div", {});
  const refresh = () => unsent.replaceChildren(...waiting());
  let before = outbox.waiting().length;
  outbox.changes.addEventListener(
    "change",
    () => {
      refresh();
      const now = outbox.waiting().length;
      if (now < before) list.again();
      before = now;
    },
    { signal },
  );
  refresh();
  main.append(
    el(
      "div",
      { class: "view-head row spread" },
      el("div", {}, el("h1", { tabindex: "-1" }, "Decisions"), el("p", { class: "under-title" }, "What reviewers decided. The server keeps them beside the run.")),
      files(),
    ),
    unsent,
    form(filter),
    list,
  );
  return "Decisions";
}

/** What can be taken away: whatever is filtered below, it is all of them. */
function files() {
  const title = unique("files");
  return el(
    "div",
    { class: "files", role: "group", "aria-labelledby": title },
    el("p", { id: title, class: "label" }, "Download all decisions"),
    el("div", { class: "row" }, Object.entries(FORMATS).map(exportLink)),
    el("p", { class: "hint" }, "Fact, decision, reviewer, note, time, and the probability and score at that time. A training needs none of these files: it takes reviews.sqlite, beside the run."),
  );
}

function exportLink([format, [title, use]]) {
  const href = api.address("v1/reviews/export", { format });
  const link = el("a", { class: "button", href, download: "", title: use, "aria-label": `Download all decisions as ${title}` }, `as ${title}`);
  link.addEventListener("click", async (event) => {
    if (!api.token()) return;
    // A link cannot carry a token.
    event.preventDefault();
    try {
      const file = await api.bytes(href);
      const address = URL.createObjectURL(file);
      el("a", { href: address, download: file.name }).click();
      setTimeout(() => URL.revokeObjectURL(address), 60000);
    } catch (error) {
      toast(`${error.message} ${error.remedy ?? ""}`, { bad: true });
    }
  });
  return link;
}

function form(filter) {
  const decision = chooser("Decision", [["accept", "accepted"], ["reject", "rejected"], ["skip", "skipped"]], filter.decision, "all");
  const name = combobox({ label: "Entity", placeholder: "any", value: filter.name, chosen: go });
  function go() {
    route.go(["decisions"], { decision: decision.input.value, name: name.input.value });
  }
  decision.input.addEventListener("change", go);
  const submit = (event) => {
    event.preventDefault();
    go();
  };
  return el("form", { class: "question-options", on: { submit }, "aria-label": "Filter" }, decision, name, el("button", { class: "button", type: "submit" }, "Filter"));
}

function waiting() {
  const entries = outbox.waiting();
  if (!entries.length) return [];
  return [
    el(
      "section",
      { class: "unsent", "aria-labelledby": "unsent-title" },
      el(
        "div",
        { class: "row spread" },
        el("h2", { id: "unsent-title" }, `${plural(entries.length, "decision")} not sent yet`),
        el("button", { class: "button", type: "button", on: { click: () => outbox.retry() } }, "Send now"),
      ),
      el("p", { class: "hint" }, outbox.lasting() ? "Kept in this browser, and sent as soon as the server takes them." : "This browser keeps nothing for this page: leave it open until they are sent."),
      el("ul", { class: "lines" }, entries.map(unsentLine)),
    ),
  ];
}

function unsentLine(entry) {
  const discard = el("button", { class: "quiet", type: "button", "aria-label": `Discard the decision on ${spoken(entry)}`, on: { click: () => outbox.discard(entry.key) } }, "Discard");
  return el(
    "li",
    { class: "line" },
    badge(entry.decision, entry.undone),
    el("span", { class: "line-text" }, sentence(entry)),
    entry.error ? el("span", { class: "trouble-text" }, entry.error) : null,
    entry.stuck ? discard : null,
  );
}

const badge = (decision, undone = false) =>
  el("span", { class: `tag ${{ accept: "yes", reject: "no" }[decision] ?? "wait"}` }, undone ? "to take back" : done(decision).toLowerCase());

function listed({ total, counts, reviews }, filter, offset) {
  const sums = el(
    "p",
    { class: "hint" },
    [["accept", "accepted"], ["reject", "rejected"], ["skip", "skipped"]].map(([name, text]) => `${count(counts?.[name] ?? 0)} ${text}`).join(", "),
  );
  if (!total) {
    const filtered = filter.decision || filter.name;
    return filtered
      ? [sums, empty("No decision is like this.", "Choose another filter.")]
      : empty("No decisions yet.", el("a", { href: route.to(["review"]) }, "Review suggestions"), " to make the first.");
  }
  const hint = "Probability then: of the fact as it was asked both ways. A suggestion of what is missing shows it times how likely the relation applies at all.";
  return [sums, table(reviews), el("p", { class: "hint" }, hint), pager(filter, offset, reviews.length, total)];
}

function table(reviews) {
  const columns = ["Decision", "Fact", "Probability then", "Reviewer", "When", "Note"];
  return el(
    "div",
    { class: "scroll", tabindex: "0", role: "group", "aria-label": "Decisions" },
    el(
      "table",
      { class: "decisions" },
      el("thead", {}, el("tr", {}, columns.map((title) => el("th", { scope: "col" }, title)), el("th", { scope: "col" }, el("span", { class: "unseen" }, "Undo")))),
      el("tbody", {}, reviews.map(line)),
    ),
  );
}

function line(review) {
  const undo = el("button", { class: "quiet", type: "button", "aria-label": `Undo the decision on ${spoken(review)}`, on: { click: () => outbox.undoReview(review) } }, "Undo");
  return el(
    "tr",
    {},
    el("td", {}, badge(review.decision)),
    el("td", {}, sentence(review)),
    el("td", {}, percent(review.probability)),
    el("td", {}, named(review.reviewer)),
    el("td", {}, el("time", { datetime: review.time }, moment(review.time))),
    el("td", { dir: "auto" }, review.note),
    el("td", {}, undo),
  );
}

function pager(filter, offset, shown, total) {
  const link = (at, text) => el("a", { class: "button", href: route.to(["decisions"], { ...filter, offset: at || "" }) }, text);
  return el(
    "nav",
    { class: "row", "aria-label": "Pages of decisions" },
    offset > 0 ? link(Math.max(0, offset - PAGE), "Earlier page") : null,
    el("span", { class: "hint" }, `${count(offset + 1)} to ${count(offset + shown)} of ${count(total)}`),
    offset + shown < total ? link(offset + PAGE, "Later page") : null,
  );
}
