// The page begins here: the bar, the keys, and which view an address shows.

import { toast } from "./announce.js";
import * as api from "./api.js";
import { undoHere } from "./deciding.js";
import { el, icon } from "./dom.js";
import { spoken } from "./fact.js";
import { plural } from "./format.js";
import { showHelp } from "./help.js";
import { bind } from "./keys.js";
import * as outbox from "./outbox.js";
import * as route from "./route.js";
import * as runs from "./runs.js";
import { placeSearch } from "./search.js";
import { empty, failure, skeleton } from "./states.js";
import * as theme from "./theme.js";
import { askToken } from "./tokens.js";
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
  { view: "ask", title: "Ask", key: "a", shape: ["M9 9a3 3 0 1 1 4.5 2.6c-1 .6-1.5 1.2-1.5 2.4", "M12 17.5v.1", "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18"] },
  { view: "compare", title: "Compare", key: "c", shape: ["M5 5h5v14H5z", "M14 5h5v14h-5z"] },
  { view: "decisions", title: "Decisions", key: "d", shape: ["M9 6h11M9 12h11M9 18h11", "M4 6h.1M4 12h.1M4 18h.1"] },
  { view: "run", title: "Run", key: "s", shape: ["M4 20V4", "M4 20h16", "M8 16l4-5 3 3 5-7"] },
];

const main = document.getElementById("main");
let leaving = new AbortController();
let path = null;

function navigate() {
  const address = route.current();
  runs.choose(address.params.get("run"));
  leaving.abort();
  leaving = new AbortController();
  const [view = ""] = address.parts;
  const before = path;
  path = address.parts.join("\n");
  const moved = before !== null && before !== path;
  main.replaceChildren();
  const shown = VIEWS[view];
  let title = "No such view";
  if (shown) title = shown.show(main, address, leaving.signal);
  else main.append(el("h1", { tabindex: "-1" }, title), empty("There is nothing at this address.", el("a", { href: route.to([]) }, "Go to the start")));
  document.title = `${title} · mocme`;
  drawNavigation(view);
  drawRuns();
  drawAdd(view);
  if (moved) {
    scrollTo(0, 0);
    main.querySelector("h1")?.focus({ preventScroll: true });
  }
}

function drawNavigation(view) {
  const unsent = outbox.waiting().length;
  document.getElementById("nav").replaceChildren(
    ...NAVIGATION.map((one) =>
      el(
        "a",
        { href: route.to([one.view]), "aria-current": one.view === view ? "page" : null },
        icon(...one.shape),
        one.title,
        one.view === "decisions" && unsent ? el("span", { class: "count", title: "not sent yet" }, unsent, el("span", { class: "unseen" }, " not sent yet")) : null,
      ),
    ),
  );
}

function drawRuns() {
  const place = document.getElementById("runs");
  const served = runs.all();
  if (served.length < 2) return place.replaceChildren();
  const change = (event) => {
    const { parts, params } = route.current();
    runs.choose(event.target.value);
    params.delete("run");
    route.go(parts, Object.fromEntries(params));
  };
  return place.replaceChildren(
    el(
      "select",
      { class: "field", "aria-label": "Run", on: { change } },
      served.map((run) => el("option", { value: run.name, selected: run === runs.current() }, run.name)),
    ),
  );
}

function drawAdd(view) {
  const link = document.getElementById("add");
  link.hidden = !runs.adds();
  link.href = route.to(["add"]);
  if (view === "add") link.setAttribute("aria-current", "page");
  else link.removeAttribute("aria-current");
}

function drawTools() {
  const shapes = {
    auto: ["M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18", "M12 3v18", "M12 7h4.5M12 11h6M12 15h5.5"],
    light: ["M12 16a4 4 0 1 0 0-8 4 4 0 0 0 0 8", "M12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.4 1.4M17.6 17.6 19 19M5 19l1.4-1.4M17.6 6.4 19 5"],
    dark: ["M20 14.5A8.5 8.5 0 1 1 9.5 4a7 7 0 0 0 10.5 10.5"],
  };
  const colours = el("button", { class: "icon", type: "button", on: { click: turn } });
  const write = () => {
    const label = `Colours: ${theme.TITLES[theme.theme()]}`;
    colours.setAttribute("aria-label", label);
    colours.title = `${label} (t)`;
    colours.replaceChildren(icon(...shapes[theme.theme()]));
  };
  function turn() {
    theme.turn();
    write();
  }
  write();
  const help = el("button", { class: "icon", type: "button", title: "Keys (?)", "aria-label": "Keys", on: { click: showHelp } }, icon("M3 7h18v10H3z", "M7 11h.1M11 11h.1M15 11h.1M8 14h8"));
  const add = el("a", { id: "add", class: "icon", href: "#/add", title: "Add an entity", "aria-label": "Add an entity", hidden: true }, icon("M12 5v14M5 12h14"));
  document.getElementById("tools").replaceChildren(add, colours, help);
  return turn;
}

function bindKeys(toSearch, turn) {
  const everywhere = (key, label, act) => ({ key, label, act, everywhere: true });
  bind([
    everywhere("/", "Search", toSearch),
    everywhere("?", "This list", showHelp),
    everywhere("j", "Go into the list of suggestions", () => main.querySelector(".opener")?.focus()),
    everywhere("u", "Take back the last decision", () => undoHere()),
    everywhere("t", "Colours: as the system, light, dark", turn),
    everywhere("g h", "Start", () => route.go([])),
    ...NAVIGATION.map((one) => everywhere(`g ${one.key}`, one.title, () => route.go([one.view]))),
  ]);
}

function listen() {
  const banner = document.getElementById("banner");
  const lost = () => {
    banner.replaceChildren("The server cannot be reached. Decisions are kept here and sent later.", el("button", { class: "quiet", type: "button", on: { click: begin } }, "Try again"));
    banner.hidden = false;
  };
  api.connection.addEventListener("lost", lost);
  addEventListener("offline", lost);
  const found = () => {
    banner.hidden = true;
    outbox.flush();
  };
  api.connection.addEventListener("found", found);
  addEventListener("online", found);
  api.connection.addEventListener("busy", (event) => toast(`The server is busy; trying again in ${plural(Math.ceil(event.detail), "second")}.`));
  outbox.changes.addEventListener("change", () => drawNavigation(route.current().parts[0] ?? ""));
  outbox.changes.addEventListener("failed", (event) => {
    const { entry, error } = event.detail;
    if (error.status) toast(`Not sent: ${spoken(entry)}. ${error.message} ${error.remedy ?? ""}`, { bad: true, action: { label: "Show", act: () => route.go(["decisions"]) } });
  });
  document.getElementById("skip").addEventListener("click", (event) => {
    event.preventDefault();
    main.focus();
  });
}

let began = false;

/** Read the runs, then show what the address says; again after a failure. */
async function begin() {
  if (began) return navigate();
  main.replaceChildren(skeleton(8, "Loading the page"));
  try {
    await runs.load();
  } catch (error) {
    if (error.status === undefined) console.error(error);
    main.replaceChildren(el("h1", { tabindex: "-1" }, "mocme"), failure(error, begin));
    return undefined;
  }
  if (!runs.all().length) {
    main.replaceChildren(el("h1", { tabindex: "-1" }, "mocme"), empty("The server serves no run.", "Start it with one: ", el("code", {}, "mocme serve RUN")));
    return undefined;
  }
  began = true;
  if (runs.adds()) bind([{ key: "g n", label: "Add an entity", act: () => route.go(["add"]), everywhere: true }]);
  addEventListener("hashchange", navigate);
  navigate();
  return outbox.start();
}

api.onToken(askToken);
listen();
bindKeys(placeSearch(), drawTools());
begin();
