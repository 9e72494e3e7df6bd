// Entry point: the top bar, keyboard shortcuts, and the choice of the view from the address.

import { toast } from "./announce.js";
import * as api from "./api.js";
import { undoWithToast } from "./decision-buttons.js";
import { el, icon } from "./dom.js";
import { factText } from "./fact.js";
import { plural } from "./format.js";
import { showHelp } from "./help.js";
import { bind } from "./keys.js";
import * as outbox from "./outbox.js";
import * as route from "./route.js";
import * as runs from "./runs.js";
import { placeSearch } from "./search.js";
import { empty, failure, skeleton } from "./states.js";
import * as theme from "./theme.js";
import { askToken } from "./token-dialog.js";
import * as add from "./add.js";
import * as ask from "./ask.js";
import * as compare from "./compare.js";
import * as decisions from "./decisions.js";
import * as entity from "./entity.js";
import * as home from "./home.js";
import * as report from "./report.js";
import * as review from "./review.js";

const VIEWS = { "": home, add, entity, ask, compare, review, decisions, run: report };

const NAVIGATION = [
  { view: "review", title: "Review", key: "r", shape: ["M4 12.5 9 17.5 20 6.5"] },
  {
    view: "ask",
    title: "Ask",
    key: "a",
    shape: [
      "M9 9a3 3 0 1 1 4.5 2.6c-1 .6-1.5 1.2-1.5 2.4",
      "M12 17.5v.1",
      "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18",
    ],
  },
  { view: "compare", title: "Compare", key: "c", shape: ["M5 5h5v14H5z", "M14 5h5v14h-5z"] },
  {
    view: "decisions",
    title: "Decisions",
    key: "d",
    shape: ["M9 6h11M9 12h11M9 18h11", "M4 6h.1M4 12h.1M4 18h.1"],
  },
  { view: "run", title: "Run", key: "s", shape: ["M4 20V4", "M4 20h16", "M8 16l4-5 3 3 5-7"] },
];

const main = document.getElementById("main");
let viewController = new AbortController();
let path = null;

function navigate() {
  const address = route.current();
  runs.select(address.params.get("run"));
  viewController.abort();
  viewController = new AbortController();
  const [view = ""] = address.parts;
  const previous = path;
  path = address.parts.join("\n");
  const moved = previous !== null && previous !== path;
  main.replaceChildren();
  const module = VIEWS[view];
  let title = "Page not found";
  if (module) title = module.show(main, address, viewController.signal);
  else
    main.append(
      el("h1", { tabindex: "-1" }, title),
      empty("No view has this address.", el("a", { href: route.href([]) }, "Go to the start page")),
    );
  document.title = `${title} · mocme`;
  updateNavigation(view);
  updateRunSelect();
  updateAddLink(view);
  if (moved) {
    scrollTo(0, 0);
    main.querySelector("h1")?.focus({ preventScroll: true });
  }
}

function updateNavigation(view) {
  const unsent = outbox.pending().length;
  document
    .getElementById("nav")
    .replaceChildren(
      ...NAVIGATION.map((item) =>
        el(
          "a",
          { href: route.href([item.view]), "aria-current": item.view === view ? "page" : null },
          icon(...item.shape),
          item.title,
          item.view === "decisions" && unsent
            ? el(
                "span",
                { class: "count", title: "not sent yet" },
                unsent,
                el("span", { class: "visually-hidden" }, " not sent yet"),
              )
            : null,
        ),
      ),
    );
}

function updateRunSelect() {
  const container = document.getElementById("runs");
  const all = runs.all();
  if (all.length < 2) return container.replaceChildren();
  const change = (event) => {
    const { parts, params } = route.current();
    runs.select(event.target.value);
    params.delete("run");
    route.go(parts, Object.fromEntries(params));
  };
  return container.replaceChildren(
    el(
      "select",
      { class: "field", "aria-label": "Run", on: { change } },
      all.map((run) =>
        el("option", { value: run.name, selected: run === runs.current() }, run.name),
      ),
    ),
  );
}

function updateAddLink(view) {
  const link = document.getElementById("add");
  link.hidden = !runs.acceptsAdditions();
  link.href = route.href(["add"]);
  if (view === "add") link.setAttribute("aria-current", "page");
  else link.removeAttribute("aria-current");
}

function createTools() {
  const shapes = {
    auto: ["M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18", "M12 3v18", "M12 7h4.5M12 11h6M12 15h5.5"],
    light: [
      "M12 16a4 4 0 1 0 0-8 4 4 0 0 0 0 8",
      "M12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.4 1.4M17.6 17.6 19 19M5 19l1.4-1.4M17.6 6.4 19 5",
    ],
    dark: ["M20 14.5A8.5 8.5 0 1 1 9.5 4a7 7 0 0 0 10.5 10.5"],
  };
  const themeButton = el("button", { class: "icon", type: "button", on: { click: cycleTheme } });
  const showTheme = () => {
    const label = `Colour scheme: ${theme.TITLES[theme.theme()]}`;
    themeButton.setAttribute("aria-label", label);
    themeButton.title = `${label} (t)`;
    themeButton.replaceChildren(icon(...shapes[theme.theme()]));
  };
  function cycleTheme() {
    theme.cycle();
    showTheme();
  }
  showTheme();
  const help = el(
    "button",
    {
      class: "icon",
      type: "button",
      title: "Keyboard shortcuts (?)",
      "aria-label": "Keyboard shortcuts",
      on: { click: showHelp },
    },
    icon("M3 7h18v10H3z", "M7 11h.1M11 11h.1M15 11h.1M8 14h8"),
  );
  const addLink = el(
    "a",
    {
      id: "add",
      class: "icon",
      href: "#/add",
      title: "Add an entity",
      "aria-label": "Add an entity",
      hidden: true,
    },
    icon("M12 5v14M5 12h14"),
  );
  document.getElementById("tools").replaceChildren(addLink, themeButton, help);
  return cycleTheme;
}

function bindKeys(focusSearch, cycleTheme) {
  const everywhere = (key, label, act) => ({ key, label, act, everywhere: true });
  bind([
    everywhere("/", "Search", focusSearch),
    everywhere("?", "Show the keyboard shortcuts", showHelp),
    everywhere("j", "Go to the list of suggestions", () =>
      main.querySelector(".why-button")?.focus(),
    ),
    everywhere("u", "Undo the last decision", () => undoWithToast()),
    everywhere("t", "Colour scheme: as the system, light, dark", cycleTheme),
    everywhere("g h", "Start page", () => route.go([])),
    ...NAVIGATION.map((item) =>
      everywhere(`g ${item.key}`, item.title, () => route.go([item.view])),
    ),
  ]);
}

function listen() {
  const banner = document.getElementById("banner");
  const showLost = () => {
    banner.replaceChildren(
      "The server cannot be reached. Decisions are stored in this browser and sent later.",
      el("button", { class: "link-button", type: "button", on: { click: start } }, "Try again"),
    );
    banner.hidden = false;
  };
  api.connection.addEventListener("lost", showLost);
  addEventListener("offline", showLost);
  const hideLost = () => {
    banner.hidden = true;
    outbox.flush();
  };
  api.connection.addEventListener("restored", hideLost);
  addEventListener("online", hideLost);
  api.connection.addEventListener("busy", (event) =>
    toast(`The server is busy; trying again in ${plural(Math.ceil(event.detail), "second")}.`),
  );
  outbox.changes.addEventListener("change", () => updateNavigation(route.current().parts[0] ?? ""));
  outbox.changes.addEventListener("failed", (event) => {
    const { entry, error } = event.detail;
    if (error.status)
      toast(`Not sent: ${factText(entry)}. ${error.message} ${error.remedy ?? ""}`, {
        failed: true,
        action: { label: "Show", act: () => route.go(["decisions"]) },
      });
  });
  document.getElementById("skip").addEventListener("click", (event) => {
    event.preventDefault();
    main.focus();
  });
}

let started = false;

/** Load the runs and show the view of the address; called again to retry after a failure. */
async function start() {
  if (started) return navigate();
  main.replaceChildren(skeleton(8, "Loading the page"));
  try {
    await runs.load();
  } catch (error) {
    if (error.status === undefined) console.error(error);
    main.replaceChildren(el("h1", { tabindex: "-1" }, "mocme"), failure(error, start));
    return undefined;
  }
  if (!runs.all().length) {
    main.replaceChildren(
      el("h1", { tabindex: "-1" }, "mocme"),
      empty("The server serves no run.", "Start it with one: ", el("code", {}, "mocme serve RUN")),
    );
    return undefined;
  }
  started = true;
  if (runs.acceptsAdditions())
    bind([{ key: "g n", label: "Add an entity", act: () => route.go(["add"]), everywhere: true }]);
  addEventListener("hashchange", navigate);
  navigate();
  return outbox.start();
}

api.setTokenPrompt(askToken);
listen();
bindKeys(placeSearch(), createTools());
start();
