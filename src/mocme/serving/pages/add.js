// Add an entity that the run was not trained with.

import { announce, toast } from "./announce.js";
import { reloadAfterChange } from "./additions.js";
import * as api from "./api.js";
import { contentFields } from "./content-fields.js";
import { el } from "./dom.js";
import { labelled } from "./fields.js";
import { plural } from "./format.js";
import { factFields } from "./fact-fields.js";
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
      el(
        "p",
        { class: "subtitle" },
        "All queries include it from then on. The run is not retrained, and the entity can be " +
          "removed again.",
      ),
    ),
    runs.acceptsAdditions()
      ? form(params.get("name") ?? "", signal)
      : empty(
          "This server does not accept new entities.",
          "Start it with: ",
          el("code", {}, "mocme serve RUN --additions"),
        ),
  );
  return title;
}

function form(initialName, signal) {
  const name = labelled(
    "Name",
    el("input", {
      class: "field",
      type: "text",
      required: true,
      autocomplete: "off",
      maxlength: "10000",
      value: initialName,
    }),
  );
  const facts = factFields();
  const content = contentFields(runs.current(), signal);
  const errorBox = el("div", { class: "add-error" });
  const status = el("p", { class: "hint", role: "status" });
  const button = el("button", { class: "button primary-button", type: "submit" }, "Add entity");
  const box = el(
    "form",
    { class: "add", novalidate: true, "aria-label": "New entity" },
    name,
    content,
    facts,
    errorBox,
    el("div", { class: "row end" }, status, button),
  );
  box.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!button.disabled) submit();
  });

  async function submit() {
    errorBox.replaceChildren();
    for (const part of [content, facts]) part.clearErrors();
    name.error.show();
    showBusy("Uploading pictures …");
    await content.ready();
    const body = readForm();
    if (!body) return enableForm();
    showBusy("Adding: encoding its content and fitting its vector …");
    try {
      // Without the signal: the request continues when the view is left.
      showAdded(await api.post("v1/additions", body), signal);
    } catch (error) {
      showRefusal(error);
    }
    return undefined;
  }

  function readForm() {
    const entityName = name.input.value.trim();
    if (!entityName) name.error.show("Enter a name.");
    const contentBody = content.value();
    const factList = facts.value(entityName);
    return entityName && contentBody && factList
      ? { name: entityName, ...contentBody, facts: factList, ...runs.runParameter() }
      : null;
  }

  function showBusy(text) {
    button.disabled = true;
    box.setAttribute("aria-busy", "true");
    status.textContent = text;
  }

  function enableForm() {
    button.disabled = false;
    box.removeAttribute("aria-busy");
    status.textContent = "";
    box.querySelector("[aria-invalid]")?.focus();
  }

  function showRefusal(error) {
    const text = [error.message, error.remedy].filter(Boolean).join("; ");
    const field = error.field ?? "";
    const shown =
      field === "name"
        ? (name.error.show(text), true)
        : [content, facts].some((part) => part.showError(field, text));
    if (!shown) {
      errorBox.append(failure(error));
      announce(text, true);
    }
    enableForm();
  }

  return box;
}

async function showAdded(addition, signal) {
  await reloadAfterChange();
  const notes = addition.notes.length ? `, with ${plural(addition.notes.length, "note")}` : "";
  const open = () => route.go(["entity", addition.name]);
  if (signal.aborted)
    return toast(`Added: ${addition.name}${notes}`, { action: { label: "Show", act: open } });
  toast(`Added: ${addition.name}${notes}`);
  return open();
}
