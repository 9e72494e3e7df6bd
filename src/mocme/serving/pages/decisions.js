// The view "Decisions": unsent decisions, the list with filter and undo, and downloads.

import * as api from "./api.js";
import { pastTense } from "./decision-buttons.js";
import { el, nameText, uniqueId } from "./dom.js";
import { factSentence, factText } from "./fact.js";
import { count, dateTime, percent, plural } from "./format.js";
import * as outbox from "./outbox.js";
import { selectField } from "./question.js";
import * as route from "./route.js";
import * as runs from "./runs.js";
import { combobox } from "./combobox.js";
import { toast } from "./announce.js";
import { empty, asyncContent } from "./states.js";

const PAGE = 100;
const FORMATS = {
  tsv: ["TSV", "for programs: one decision per line, separated by tabs"],
  csv: ["CSV", "for spreadsheets: one decision per row"],
  jsonl: ["JSON lines", "for programs: one decision per line, as JSON"],
};

export function show(main, { params }, signal) {
  const filter = { decision: params.get("decision") ?? "", name: params.get("name") ?? "" };
  const offset = Math.max(0, Number(params.get("offset")) || 0);
  const load = () =>
    api.get("v1/reviews", { ...filter, offset, limit: PAGE, ...runs.runParameter() }, { signal });
  const list = asyncContent(load, (answer) => reviewList(answer, filter, offset), {
    lines: 8,
    signal,
  });
  const unsent = el("div", {});
  const refresh = () => unsent.replaceChildren(...unsentSection());
  let previous = outbox.pending().length;
  outbox.changes.addEventListener(
    "change",
    () => {
      refresh();
      const current = outbox.pending().length;
      if (current < previous) list.reload();
      previous = current;
    },
    { signal },
  );
  refresh();
  main.append(
    el(
      "div",
      { class: "view-head row spread" },
      el(
        "div",
        {},
        el("h1", { tabindex: "-1" }, "Decisions"),
        el(
          "p",
          { class: "subtitle" },
          "Reviewers' decisions. The server stores them with the run.",
        ),
      ),
      downloads(),
    ),
    unsent,
    filterForm(filter),
    list,
  );
  return "Decisions";
}

/** Download links; the files contain all decisions, whatever the filter is. */
function downloads() {
  const title = uniqueId("files");
  return el(
    "div",
    { class: "downloads", role: "group", "aria-labelledby": title },
    el("p", { id: title, class: "label" }, "Download all decisions"),
    el("div", { class: "row" }, Object.entries(FORMATS).map(exportLink)),
    el(
      "p",
      { class: "hint" },
      "Fact, decision, reviewer, note, time, and the probability and score at that time. " +
        "Training does not need these files: it reads reviews.sqlite in the folder of the run.",
    ),
  );
}

function exportLink([format, [title, purpose]]) {
  const href = api.withQuery("v1/reviews/export", { format });
  const link = el(
    "a",
    {
      class: "button",
      href,
      download: "",
      title: purpose,
      "aria-label": `Download all decisions as ${title}`,
    },
    `as ${title}`,
  );
  link.addEventListener("click", async (event) => {
    if (!api.token()) return;
    // A link cannot send a token: fetch the file, then save it from memory.
    event.preventDefault();
    try {
      const file = await api.download(href);
      const address = URL.createObjectURL(file);
      el("a", { href: address, download: file.name }).click();
      setTimeout(() => URL.revokeObjectURL(address), 60000);
    } catch (error) {
      toast(`${error.message} ${error.remedy ?? ""}`, { failed: true });
    }
  });
  return link;
}

function filterForm(filter) {
  const decision = selectField(
    "Decision",
    [
      ["accept", "accepted"],
      ["reject", "rejected"],
      ["skip", "skipped"],
    ],
    filter.decision,
    "all",
  );
  const name = combobox({ label: "Entity", placeholder: "any", value: filter.name, onChoose: go });
  function go() {
    route.go(["decisions"], { decision: decision.input.value, name: name.input.value });
  }
  decision.input.addEventListener("change", go);
  const submit = (event) => {
    event.preventDefault();
    go();
  };
  return el(
    "form",
    { class: "question-options", on: { submit }, "aria-label": "Filter" },
    decision,
    name,
    el("button", { class: "button", type: "submit" }, "Filter"),
  );
}

function unsentSection() {
  const entries = outbox.pending();
  if (!entries.length) return [];
  return [
    el(
      "section",
      { class: "unsent", "aria-labelledby": "unsent-title" },
      el(
        "div",
        { class: "row spread" },
        el("h2", { id: "unsent-title" }, `${plural(entries.length, "unsent decision")}`),
        el(
          "button",
          { class: "button", type: "button", on: { click: () => outbox.retry() } },
          "Send now",
        ),
      ),
      el(
        "p",
        { class: "hint" },
        outbox.isPersistent()
          ? "Stored in this browser, and sent as soon as the server accepts them."
          : "This browser does not store data for this page: keep it open until they are sent.",
      ),
      el("ul", { class: "line-list" }, entries.map(unsentLine)),
    ),
  ];
}

function unsentLine(entry) {
  const discard = el(
    "button",
    {
      class: "link-button",
      type: "button",
      "aria-label": `Discard the decision on ${factText(entry)}`,
      on: { click: () => outbox.discard(entry.key) },
    },
    "Discard",
  );
  return el(
    "li",
    { class: "line" },
    decisionTag(entry.decision, entry.undone),
    el("span", { class: "line-text" }, factSentence(entry)),
    entry.error ? el("span", { class: "error-text" }, entry.error) : null,
    entry.stuck ? discard : null,
  );
}

const decisionTag = (decision, undone = false) =>
  el(
    "span",
    { class: `tag ${{ accept: "yes", reject: "no" }[decision] ?? "warn"}` },
    undone ? "to be undone" : pastTense(decision).toLowerCase(),
  );

function reviewList({ total, counts, reviews }, filter, offset) {
  const sums = el(
    "p",
    { class: "hint" },
    [
      ["accept", "accepted"],
      ["reject", "rejected"],
      ["skip", "skipped"],
    ]
      .map(([name, text]) => `${count(counts?.[name] ?? 0)} ${text}`)
      .join(", "),
  );
  if (!total) {
    const filtered = filter.decision || filter.name;
    return filtered
      ? [sums, empty("No decision matches the filter.", "Choose another filter.")]
      : empty(
          "No decisions yet.",
          el("a", { href: route.href(["review"]) }, "Review suggestions"),
          " to make the first.",
        );
  }
  const hint =
    "Probability then: the probability of the fact at that time, the mean of both directions. " +
    "Missing facts are suggested with this probability times the probability that the " +
    "relation applies.";
  return [
    sums,
    reviewTable(reviews),
    el("p", { class: "hint" }, hint),
    pager(filter, offset, reviews.length, total),
  ];
}

function reviewTable(reviews) {
  const columns = ["Decision", "Fact", "Probability then", "Reviewer", "When", "Note"];
  return el(
    "div",
    { class: "scroll", tabindex: "0", role: "group", "aria-label": "Decisions" },
    el(
      "table",
      { class: "decisions" },
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          columns.map((title) => el("th", { scope: "col" }, title)),
          el("th", { scope: "col" }, el("span", { class: "visually-hidden" }, "Undo")),
        ),
      ),
      el("tbody", {}, reviews.map(reviewRow)),
    ),
  );
}

function reviewRow(review) {
  const undo = el(
    "button",
    {
      class: "link-button",
      type: "button",
      "aria-label": `Undo the decision on ${factText(review)}`,
      on: { click: () => outbox.undoReview(review) },
    },
    "Undo",
  );
  return el(
    "tr",
    {},
    el("td", {}, decisionTag(review.decision)),
    el("td", {}, factSentence(review)),
    el("td", {}, percent(review.probability)),
    el("td", {}, nameText(review.reviewer)),
    el("td", {}, el("time", { datetime: review.time }, dateTime(review.time))),
    el("td", { dir: "auto" }, review.note),
    el("td", {}, undo),
  );
}

function pager(filter, offset, shown, total) {
  const link = (target, text) =>
    el(
      "a",
      { class: "button", href: route.href(["decisions"], { ...filter, offset: target || "" }) },
      text,
    );
  return el(
    "nav",
    { class: "row", "aria-label": "Pages of decisions" },
    offset > 0 ? link(Math.max(0, offset - PAGE), "Previous page") : null,
    el(
      "span",
      { class: "hint" },
      `${count(offset + 1)} to ${count(offset + shown)} of ${count(total)}`,
    ),
    offset + shown < total ? link(offset + PAGE, "Next page") : null,
  );
}
