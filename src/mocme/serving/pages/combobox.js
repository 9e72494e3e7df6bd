// A field that suggests entities while one types.

import { say } from "./announce.js";
import * as api from "./api.js";
import { el, named, unique } from "./dom.js";
import { plural } from "./format.js";
import * as runs from "./runs.js";

const PAUSE = 120; // milliseconds without a key before the server is asked
const SHOWN = 12;
const LONGEST = 500; // letters of what is typed that the server is asked about

/**
 * A combobox of entities.
 *
 * `chosen(name)` is called when one is taken from the list; `run` names the run to search.
 * With `first` the Enter key takes the first suggestion where none is marked. The field is `.input`;
 * what stands in it need not be a name. `none(text)` gives what is offered where no name is like it.
 */
export function combobox({ label, placeholder = "", value = "", chosen, run, hideLabel = false, first = false, none = null }) {
  const ids = { field: unique("field"), list: unique("list") };
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
  const list = el("ul", { id: ids.list, class: "options", role: "listbox", "aria-label": `${label}: suggestions`, hidden: true });
  // A button of it can be reached: taking the pointer to it, or the focus, leaves it open.
  const trouble = el("div", { class: "options trouble", hidden: true, on: { pointerdown: (event) => event.preventDefault() } });
  trouble.addEventListener("focusout", (event) => {
    if (!trouble.contains(event.relatedTarget)) trouble.hidden = true;
  });
  const state = { names: [], at: -1, asked: 0, timer: 0, stop: null };

  function close() {
    clearTimeout(state.timer);
    state.stop?.abort();
    state.asked += 1;
    state.names = [];
    show([]);
  }

  function show(found) {
    state.names = found.map((one) => one.name);
    state.at = -1;
    trouble.hidden = true;
    list.replaceChildren(
      ...found.map((one, place) =>
        el(
          "li",
          {
            id: `${ids.list}-${place}`,
            role: "option",
            "aria-selected": "false",
            on: { pointerdown: (event) => event.preventDefault(), click: () => take(place) },
          },
          named(one.name),
          " ",
          el("span", { class: "aside" }, plural(one.facts, "fact")),
        ),
      ),
    );
    list.hidden = !found.length;
    input.setAttribute("aria-expanded", String(found.length > 0));
    input.removeAttribute("aria-activedescendant");
  }

  function tell(text, offer = null) {
    trouble.replaceChildren(el("p", {}, text), ...(offer ? [offer] : []));
    trouble.hidden = false;
    say(text);
  }

  function mark(place) {
    const options = list.children;
    options[state.at]?.setAttribute("aria-selected", "false");
    state.at = place;
    const option = options[place];
    if (!option) return input.removeAttribute("aria-activedescendant");
    option.setAttribute("aria-selected", "true");
    option.scrollIntoView({ block: "nearest" });
    return input.setAttribute("aria-activedescendant", option.id);
  }

  function take(place) {
    const name = state.names[place];
    close();
    input.value = name;
    chosen?.(name);
  }

  async function ask() {
    const text = input.value;
    state.stop?.abort();
    state.asked += 1;
    if (!text.trim()) return show([]);
    const mine = state.asked;
    state.stop = new AbortController();
    try {
      const parameters = { q: [...text].slice(0, LONGEST).join(""), k: SHOWN, ...runs.which(run?.()) };
      const answer = await api.get("v1/search", parameters, { signal: state.stop.signal });
      // An answer that was overtaken is dropped.
      if (mine !== state.asked) return undefined;
      show(answer.entities);
      if (answer.entities.length) say(plural(answer.entities.length, "suggestion"));
      else tell("No entity has a name like this.", none?.(text.trim()));
    } catch (error) {
      if (error.name !== "AbortError" && mine === state.asked) {
        show([]);
        tell(`${error.message} ${error.remedy ?? ""}`);
      }
    }
    return undefined;
  }

  input.addEventListener("input", () => {
    clearTimeout(state.timer);
    state.timer = setTimeout(ask, PAUSE);
  });
  input.addEventListener("blur", (event) => {
    close();
    if (!trouble.contains(event.relatedTarget)) trouble.hidden = true;
  });
  input.addEventListener("keydown", (event) => {
    const size = state.names.length;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (!size) ask();
      else mark(event.key === "ArrowDown" ? (state.at + 1) % size : (Math.max(state.at, 0) + size - 1) % size);
    } else if (event.key === "Enter" && size && (state.at >= 0 || first)) {
      event.preventDefault();
      take(Math.max(0, state.at));
    } else if (event.key === "Escape") {
      if (size || !trouble.hidden) event.stopPropagation();
      else input.value = "";
      close();
      trouble.hidden = true;
    }
  });

  const box = el(
    "div",
    { class: "combobox" },
    el("label", { class: hideLabel ? "unseen" : "label", for: ids.field }, label),
    el("div", { class: "combobox-field" }, input, list, trouble),
  );
  return Object.assign(box, { input });
}
