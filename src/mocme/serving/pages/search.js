// The search in the bar at the top: a key away, goes to the entity.

import { combobox } from "./combobox.js";
import * as route from "./route.js";
import * as runs from "./runs.js";
import { el } from "./dom.js";

/** Put the search into its place; returns a function that goes there. */
export function placeSearch() {
  const box = combobox({
    label: "Search entities",
    placeholder: "Search entities",
    hideLabel: true,
    first: true,
    none: (text) => none(text),
    chosen: (name) => {
      box.input.value = "";
      box.input.blur();
      route.go(["entity", name]);
    },
  });
  function none(text) {
    const href = route.to(["add"], { name: text });
    const leave = () => {
      box.input.value = "";
      document.activeElement?.blur();
    };
    return runs.adds() ? el("a", { class: "button", href, on: { click: leave } }, "Add it as a new entity") : null;
  }
  box.append(el("kbd", { class: "search-key", "aria-hidden": "true" }, "/"));
  document.getElementById("search").replaceChildren(box);
  return () => box.input.focus();
}
