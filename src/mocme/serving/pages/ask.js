// Ask: a question of one's own, and its answers.

import { el } from "./dom.js";
import * as question from "./question.js";
import * as route from "./route.js";
import * as runs from "./runs.js";
import { empty, filled } from "./states.js";
import { announce, suggestions } from "./suggestions.js";

export function show(main, { params }, signal) {
  const asked = question.read(params);
  const sent = (given) => route.go(["ask"], question.written(given));
  main.append(
    el(
      "div",
      { class: "view-head" },
      el("h1", { tabindex: "-1" }, "Ask"),
      el("p", { class: "under-title" }, "Leave one of the three open; that is what is asked for. With one entity alone: what is missing about it. With all three: is it so?"),
    ),
    question.form(asked, sent),
  );
  if (question.kind(asked)) main.append(answers(asked, signal));
  return question.kind(asked) ? `Ask ${question.phrase(asked)}` : "Ask";
}

function answers(asked, signal) {
  const draw = (predictions) => {
    announce(predictions);
    if (!predictions.length) {
      return empty("No answer is left.", "Ask for a lower probability, among all entities, or have known facts marked.");
    }
    return suggestions(predictions, { strong: question.side(asked), signal });
  };
  const reviewable = ["tails", "heads", "missing"].includes(question.kind(asked));
  const { head, relation, tail } = asked;
  const queue = question.kind(asked) === "missing" ? { entity: head || tail } : { head, relation, tail };
  return el(
    "section",
    { class: "answers", "aria-labelledby": "answers-title" },
    el(
      "div",
      { class: "row spread" },
      el("h2", { id: "answers-title" }, question.phrase(asked)),
      el(
        "div",
        { class: "row" },
        reviewable ? el("a", { class: "button", href: route.to(["review"], queue) }, "Review one by one") : null,
        runs.all().length > 1 ? el("a", { class: "button", href: route.to(["compare"], question.written(asked)) }, "Compare runs") : null,
      ),
    ),
    filled(() => question.ask(asked, { signal }), draw, { lines: 8, signal }),
  );
}
