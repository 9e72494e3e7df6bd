// Add an entity that the run was not trained with.

import { say, toast } from "./announce.js";
import { changed } from "./additions.js";
import * as api from "./api.js";
import { contents } from "./contents.js";
import { el } from "./dom.js";
import { labelled } from "./field.js";
import { plural } from "./format.js";
import { newFacts } from "./newfacts.js";
import * as route from "./route.js";
import * as runs from "./runs.js";
import { empty, failure } from "./states.js";

export function show(main, { params }, signal) {
  const title = "Add an entity";
  main.append(
    el(
      "div",
      { class: "view-head" },
      el("h1", { tabindex: "-1" }, title),
      el("p", { class: "under-title" }, "It takes part in every question from then on. Nothing is trained again, and it can be taken back."),
    ),
    runs.adds() ? form(params.get("name") ?? "", signal) : empty("This server adds no entities.", "Start it with: ", el("code", {}, "mocme serve RUN --additions")),
  );
  return title;
}

function form(named, signal) {
  const name = labelled("Name", el("input", { class: "field", type: "text", required: true, autocomplete: "off", maxlength: "10000", value: named }));
  const facts = newFacts();
  const content = contents(runs.current(), signal);
  const trouble = el("div", { class: "add-trouble" });
  const state = el("p", { class: "hint", role: "status" });
  const button = el("button", { class: "button main-button", type: "submit" }, "Add it");
  const box = el("form", { class: "add", novalidate: true, "aria-label": "New entity" }, name, content, facts, trouble, el("div", { class: "row end" }, state, button));
  box.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!button.disabled) submit();
  });

  async function submit() {
    trouble.replaceChildren();
    for (const part of [content, facts]) part.clear();
    name.trouble.tell();
    working("Waiting for pictures to arrive …");
    await content.ready();
    const body = read();
    if (!body) return stuck();
    working("Adding it: what it is like is encoded, and its place is found …");
    try {
      // Left on its way it goes on: what is added is added.
      added(await api.post("v1/additions", body), signal);
    } catch (error) {
      refused(error);
    }
    return undefined;
  }

  function read() {
    const given = name.input.value.trim();
    if (!given) name.trouble.tell("Give it a name.");
    const like = content.value();
    const known = facts.value(given);
    return given && like && known ? { name: given, ...like, facts: known, ...runs.which() } : null;
  }

  function working(text) {
    button.disabled = true;
    box.setAttribute("aria-busy", "true");
    state.textContent = text;
  }

  function stuck() {
    button.disabled = false;
    box.removeAttribute("aria-busy");
    state.textContent = "";
    box.querySelector("[aria-invalid]")?.focus();
  }

  function refused(error) {
    const text = [error.message, error.remedy].filter(Boolean).join("; ");
    const field = error.field ?? "";
    const beside = field === "name" ? (name.trouble.tell(text), true) : [content, facts].some((part) => part.tell(field, text));
    if (!beside) {
      trouble.append(failure(error));
      say(text, true);
    }
    stuck();
  }

  return box;
}

async function added(made, signal) {
  await changed();
  const notes = made.notes.length ? `, with ${plural(made.notes.length, "note")}` : "";
  const open = () => route.go(["entity", made.name]);
  if (signal.aborted) return toast(`Added: ${made.name}${notes}`, { action: { label: "Show", act: open } });
  toast(`Added: ${made.name}${notes}`);
  return open();
}
