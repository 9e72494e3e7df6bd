// A field that suggests entities while the user types.

import { announce } from "./announce.js";
import * as api from "./api.js";
import { el, nameText, uniqueId } from "./dom.js";
import { plural } from "./format.js";
import * as runs from "./runs.js";

const DELAY = 120; // milliseconds after the last key before the server is asked
const MAX_SUGGESTIONS = 12;
const MAX_QUERY = 500; // characters of the input that are sent

/**
 * A combobox of entities; its field is `.input`, whose text may be anything.
 *
 * `onChoose(name)` is called when a suggestion is chosen; `getRun()` gives the name of the run to
 * search. With `enterTakesFirst` the Enter key chooses the first suggestion if none is marked.
 * `offer(text)` returns an element shown if no name matches.
 */
export function combobox({
  label,
  placeholder = "",
  value = "",
  onChoose,
  getRun,
  hideLabel = false,
  enterTakesFirst = false,
  offer = null,
}) {
  const ids = { field: uniqueId("field"), list: uniqueId("list") };
  const input = el("input", {
    id: ids.field,
    class: "field",
    type: "text",
    role: "combobox",
    autocomplete: "off",
    autocapitalize: "off",
    spellcheck: "false",
    "aria-autocomplete": "list",
    "aria-expanded": "false",
    "aria-controls": ids.list,
    placeholder,
    value,
  });
  const list = el("ul", {
    id: ids.list,
    class: "options",
    role: "listbox",
    "aria-label": `${label}: suggestions`,
    hidden: true,
  });
  // The message may contain a button: it stays open when the pointer or the focus moves into it.
  const message = el("div", {
    class: "options error",
    hidden: true,
    on: { pointerdown: (event) => event.preventDefault() },
  });
  message.addEventListener("focusout", (event) => {
    if (!message.contains(event.relatedTarget)) message.hidden = true;
  });
  // `request` counts requests, so that answers that arrive out of order are recognised.
  const state = { names: [], marked: -1, request: 0, timer: 0, controller: null };

  function close() {
    clearTimeout(state.timer);
    state.controller?.abort();
    state.request += 1;
    state.names = [];
    show([]);
  }

  function show(entities) {
    state.names = entities.map((entity) => entity.name);
    state.marked = -1;
    message.hidden = true;
    list.replaceChildren(
      ...entities.map((entity, index) =>
        el(
          "li",
          {
            id: `${ids.list}-${index}`,
            role: "option",
            "aria-selected": "false",
            on: { pointerdown: (event) => event.preventDefault(), click: () => choose(index) },
          },
          nameText(entity.name),
          " ",
          el("span", { class: "aside" }, plural(entity.facts, "fact")),
        ),
      ),
    );
    list.hidden = !entities.length;
    input.setAttribute("aria-expanded", String(entities.length > 0));
    input.removeAttribute("aria-activedescendant");
  }

  function showMessage(text, action = null) {
    message.replaceChildren(el("p", {}, text), ...(action ? [action] : []));
    message.hidden = false;
    announce(text);
  }

  function mark(index) {
    const options = list.children;
    options[state.marked]?.setAttribute("aria-selected", "false");
    state.marked = index;
    const option = options[index];
    if (!option) return input.removeAttribute("aria-activedescendant");
    option.setAttribute("aria-selected", "true");
    option.scrollIntoView({ block: "nearest" });
    return input.setAttribute("aria-activedescendant", option.id);
  }

  function choose(index) {
    const name = state.names[index];
    close();
    input.value = name;
    onChoose?.(name);
  }

  async function search() {
    const text = input.value;
    state.controller?.abort();
    state.request += 1;
    if (!text.trim()) return show([]);
    const request = state.request;
    state.controller = new AbortController();
    try {
      const parameters = {
        q: [...text].slice(0, MAX_QUERY).join(""),
        k: MAX_SUGGESTIONS,
        ...runs.runParameter(getRun?.()),
      };
      const answer = await api.get("v1/search", parameters, { signal: state.controller.signal });
      // Drop an answer if a later request was sent meanwhile.
      if (request !== state.request) return undefined;
      show(answer.entities);
      if (answer.entities.length) announce(plural(answer.entities.length, "suggestion"));
      else showMessage("No entity has a similar name.", offer?.(text.trim()));
    } catch (error) {
      if (error.name !== "AbortError" && request === state.request) {
        show([]);
        showMessage(`${error.message} ${error.remedy ?? ""}`);
      }
    }
    return undefined;
  }

  input.addEventListener("input", () => {
    clearTimeout(state.timer);
    state.timer = setTimeout(search, DELAY);
  });
  input.addEventListener("blur", (event) => {
    close();
    if (!message.contains(event.relatedTarget)) message.hidden = true;
  });
  input.addEventListener("keydown", (event) => {
    const count = state.names.length;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (!count) search();
      else
        mark(
          event.key === "ArrowDown"
            ? (state.marked + 1) % count
            : (Math.max(state.marked, 0) + count - 1) % count,
        );
    } else if (event.key === "Enter" && count && (state.marked >= 0 || enterTakesFirst)) {
      event.preventDefault();
      choose(Math.max(0, state.marked));
    } else if (event.key === "Escape") {
      if (count || !message.hidden) event.stopPropagation();
      else input.value = "";
      close();
      message.hidden = true;
    }
  });

  const box = el(
    "div",
    { class: "combobox" },
    el("label", { class: hideLabel ? "visually-hidden" : "label", for: ids.field }, label),
    el("div", { class: "combobox-field" }, input, list, message),
  );
  return Object.assign(box, { input });
}
