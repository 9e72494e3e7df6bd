// The view "Ask": a form for a question, and its answers.

import { el } from "./dom.js";
import * as question from "./question.js";
import * as route from "./route.js";
import * as runs from "./runs.js";
import { empty, asyncContent } from "./states.js";
import { announceCount, suggestionList } from "./suggestions.js";

export function show(main, { params }, signal) {
  const query = question.fromParams(params);
  const submit = (entered) => route.go(["ask"], question.toParams(entered));
  main.append(
    el(
      "div",
      { class: "view-head" },
      el("h1", { tabindex: "-1" }, "Ask"),
      el(
        "p",
        { class: "subtitle" },
        "Leave one of the three open to predict it. One entity alone gives its missing facts; " +
          "all three give the score of the fact.",
      ),
    ),
    question.queryForm(query, submit),
  );
  if (question.kind(query)) main.append(answers(query, signal));
  return question.kind(query) ? `Ask ${question.describe(query)}` : "Ask";
}

function answers(query, signal) {
  const render = (predictions) => {
    announceCount(predictions);
    if (!predictions.length) {
      return empty(
        "No answer is left.",
        "Lower the minimum probability, use all entities as candidates, or mark known facts.",
      );
    }
    return suggestionList(predictions, { strong: question.side(query), signal });
  };
  const reviewable = ["tails", "heads", "missing"].includes(question.kind(query));
  const { head, relation, tail } = query;
  const queue =
    question.kind(query) === "missing" ? { entity: head || tail } : { head, relation, tail };
  return el(
    "section",
    { class: "answers", "aria-labelledby": "answers-title" },
    el(
      "div",
      { class: "row spread" },
      el("h2", { id: "answers-title" }, question.describe(query)),
      el(
        "div",
        { class: "row" },
        reviewable
          ? el("a", { class: "button", href: route.href(["review"], queue) }, "Review one by one")
          : null,
        runs.all().length > 1
          ? el(
              "a",
              { class: "button", href: route.href(["compare"], question.toParams(query)) },
              "Compare runs",
            )
          : null,
      ),
    ),
    asyncContent(() => question.predict(query, { signal }), render, { lines: 8, signal }),
  );
}
