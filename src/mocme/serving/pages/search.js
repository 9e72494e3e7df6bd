// The search field in the top bar, which opens an entity.

import { combobox } from "./combobox.js";
import * as route from "./route.js";
import * as runs from "./runs.js";
import { el } from "./dom.js";

/** Add the search field to the page. Returns a function that focuses it. */
export function placeSearch() {
  const box = combobox({
    label: "Search entities",
    placeholder: "Search entities",
    hideLabel: true,
    enterTakesFirst: true,
    offer: (text) => offerToAdd(text),
    onChoose: (name) => {
      box.input.value = "";
      box.input.blur();
      route.go(["entity", name]);
    },
  });
  function offerToAdd(text) {
    const href = route.href(["add"], { name: text });
    const clear = () => {
      box.input.value = "";
      document.activeElement?.blur();
    };
    return runs.acceptsAdditions()
      ? el("a", { class: "button", href, on: { click: clear } }, "Add it as a new entity")
      : null;
  }
  box.append(el("kbd", { class: "search-key", "aria-hidden": "true" }, "/"));
  document.getElementById("search").replaceChildren(box);
  return () => box.input.focus();
}
