// What a new entity looks like: fields for texts, pictures and numbers, as the run's modalities take them.

import * as api from "./api.js";
import { el, named, unique } from "./dom.js";
import { labelled, rows, trouble } from "./field.js";
import { chooser } from "./question.js";

const LARGEST = 20_000_000; // bytes of a picture that the server takes

/**
 * The fields of a run's modalities; nothing is asked for that it does not take.
 *
 * `.value()` is the part of the request that they make, or null where one of them is wrong; `.ready()`
 * waits for pictures that are on their way; `.tell(field, text)` puts what the server says beside its
 * field, and gives whether there is one.
 */
export function contents(run, signal) {
  const of = (kind) => run.modalities.filter((one) => one.takes === kind);
  const parts = [
    of("texts").length ? texts(of("texts")) : null,
    ...of("pictures").map((one) => pictures(one.name, signal)),
    of("numbers").length ? numbers(of("numbers")) : null,
  ].filter(Boolean);
  const other = run.modalities.filter((one) => ["sounds", "videos"].includes(one.takes));
  const box = el(
    "fieldset",
    { class: "card stack" },
    el("legend", { class: "add-legend" }, "What it is like"),
    parts.length ? parts : el("p", { class: "hint" }, "This run knows facts only."),
    other.length ? el("p", { class: "hint" }, "Sounds and videos are not sent from here, but added on the server: ", el("code", {}, "mocme entities add RUN NAME --file MODALITY=PATH")) : null,
  );
  return Object.assign(box, {
    value() {
      const found = parts.map((part) => part.value());
      if (found.includes(null)) return null;
      const content = Object.assign({}, ...found.map((one) => one.content ?? {}));
      return { ...Object.assign({}, ...found), content };
    },
    ready: () => Promise.all(parts.map((part) => part.ready?.())),
    tell: (field, text) => parts.some((part) => part.tell(field, text)),
    clear: () => parts.forEach((part) => part.clear()),
  });
}

function area(label, hint) {
  return labelled(label, el("textarea", { class: "field", rows: "3", dir: "auto" }), { hint });
}

/** One text for all modalities that are made of texts, and where there are several, one for each. */
function texts(modalities) {
  const names = modalities.map((one) => one.name);
  const shared = area("Text", names.length > 1 ? `For ${names.join(", ")}.` : "Its names, or a description, as other entities have them.");
  const own = new Map(names.length > 1 ? names.map((name) => [name, area(named(name), null)]) : []);
  const apart = own.size ? el("details", { class: "add-apart" }, el("summary", {}, "A text of its own for one of them"), [...own.values()]) : null;
  return Object.assign(el("div", { class: "stack" }, shared, apart), {
    value() {
      const given = [...own].filter(([, field]) => field.input.value.trim());
      const text = shared.input.value.trim();
      return {
        ...(text ? { text } : {}),
        content: Object.fromEntries(given.map(([name, field]) => [name, { texts: [field.input.value.trim()] }])),
      };
    },
    tell(field, text) {
      const name = field.replace(/^content\./, "");
      if (field !== "text" && !names.includes(name)) return false;
      const place = own.get(name)?.input.value.trim() ? own.get(name) : shared;
      if (place !== shared) apart.open = true;
      place.trouble.tell(text);
      return true;
    },
    clear: () => [shared, ...own.values()].forEach((field) => field.trouble.tell()),
  });
}

/** Pictures of one modality: they are sent as soon as they are chosen, and shown. */
function pictures(modality, signal) {
  const input = el("input", { type: "file", class: "field", accept: "image/*", multiple: true });
  const field = labelled(`Pictures (${modality})`, input, { hint: "Several count as their mean. They are not kept: what the run takes of them is." });
  const list = el("ul", { class: "add-pictures", "aria-label": `Chosen pictures of ${modality}` });
  const chosen = new Set();
  input.addEventListener("change", () => {
    for (const file of input.files) choose(file);
    input.value = "";
  });

  function choose(file) {
    const address = URL.createObjectURL(file);
    const state = el("span", { class: "hint", role: "status" }, "on its way");
    const shown = el("img", { class: "add-picture", alt: "" });
    shown.addEventListener("error", () => shown.remove(), { once: true });
    shown.src = address;
    const remove = el("button", { class: "quiet", type: "button", "aria-label": `Leave out: ${file.name}` }, "Leave out");
    const item = el("li", {}, shown, el("div", {}, named(file.name), " ", state), remove);
    const one = { id: null, wrong: "" };
    const gone = () => URL.revokeObjectURL(address);
    signal?.addEventListener("abort", gone, { once: true });
    remove.addEventListener("click", () => {
      chosen.delete(one);
      item.remove();
      gone();
      field.trouble.tell();
      input.focus();
    });
    one.sent = send(file).then(
      (id) => {
        one.id = id;
        state.textContent = "ready";
      },
      (error) => {
        if (error.name === "AbortError") return;
        one.wrong = [`${file.name}: ${error.message}`, error.remedy].filter(Boolean).join("; ");
        state.textContent = "cannot be used";
        field.trouble.tell(one.wrong);
      },
    );
    chosen.add(one);
    list.append(item);
  }

  async function send(file) {
    if (file.size > LARGEST) throw new Error(`It has more than ${LARGEST / 1e6} MB; make it smaller.`);
    const { id } = await api.send("v1/pictures", file, { signal });
    return id;
  }

  return Object.assign(el("div", { class: "stack" }, field, list), {
    ready: () => Promise.all([...chosen].map((one) => one.sent)),
    value() {
      const wrong = [...chosen].find((one) => one.id === null);
      if (wrong) {
        field.trouble.tell(wrong.wrong || "A picture has not arrived; leave it out, or choose it again.");
        return null;
      }
      const ids = [...new Set([...chosen].map((one) => one.id))];
      return { content: ids.length ? { [modality]: { pictures: ids } } : {} };
    },
    tell(told, text) {
      if (told !== `content.${modality}`) return false;
      field.trouble.tell(text);
      return true;
    },
    clear: () => field.trouble.tell(),
  });
}

/** Numbers by attribute, a row each. */
function numbers(modalities) {
  const names = modalities.map((one) => one.name);
  const attributes = [...new Set(modalities.flatMap((one) => one.attributes))];
  const all = trouble();
  const title = unique("numbers");
  const list = rows({
    title: "number",
    add: "Add a number",
    make() {
      const attribute = chooser("Attribute", attributes, attributes[0]);
      const number = labelled("Number", el("input", { class: "field", type: "number", step: "any", inputmode: "decimal" }));
      return Object.assign(el("div", { class: "add-row add-number" }, attribute, number), { attribute, number });
    },
  });
  return Object.assign(el("div", { class: "stack", role: "group", "aria-labelledby": title }, el("p", { class: "label", id: title }, "Numbers"), list, all), {
    value() {
      const found = {};
      for (const { attribute, number } of list.rows()) {
        const text = number.input.value.trim();
        const name = attribute.input.value;
        if (!text || !Number.isFinite(Number(text))) number.trouble.tell("Give a number, or leave this line out.");
        else if (name in found) number.trouble.tell(`${name} is given twice.`);
        else found[name] = Number(text);
      }
      const wrong = list.rows().some(({ number }) => number.trouble.textContent);
      if (wrong) return null;
      return Object.keys(found).length ? { numbers: found } : {};
    },
    tell(field, text) {
      if (field !== "numbers" && !names.includes(field.replace(/^content\./, ""))) return false;
      all.tell(text);
      return true;
    },
    clear() {
      all.tell();
      list.rows().forEach(({ number }) => number.trouble.tell());
    },
  });
}
