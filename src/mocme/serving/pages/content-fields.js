// Fields for the content of a new entity: texts, pictures and numbers.

import * as api from "./api.js";
import { el, nameText, uniqueId } from "./dom.js";
import { labelled, rowList, errorLine } from "./fields.js";
import { selectField } from "./question.js";

const MAX_BYTES = 20_000_000; // of a picture that the server accepts

/**
 * The fields for the modalities of a run.
 *
 * `.value()` returns their part of the request, or null if a field is invalid; `.ready()` waits for
 * uploads; `.showError(field, text)` shows an error of the server next to its field and returns
 * whether there is such a field; `.clearErrors()` removes all errors.
 */
export function contentFields(run, signal) {
  const taking = (kind) => run.modalities.filter((modality) => modality.takes === kind);
  const parts = [
    taking("texts").length ? textFields(taking("texts")) : null,
    ...taking("pictures").map((modality) => pictureField(modality.name, signal)),
    taking("numbers").length ? numberFields(taking("numbers")) : null,
  ].filter(Boolean);
  const unsupported = run.modalities.filter((modality) =>
    ["sounds", "videos"].includes(modality.takes),
  );
  const box = el(
    "fieldset",
    { class: "card stack" },
    el("legend", { class: "add-heading" }, "Content"),
    parts.length ? parts : el("p", { class: "hint" }, "This run has no content modalities."),
    unsupported.length
      ? el(
          "p",
          { class: "hint" },
          "Sounds and videos cannot be uploaded here; add them on the server: ",
          el("code", {}, "mocme entities add RUN NAME --file MODALITY=PATH"),
        )
      : null,
  );
  return Object.assign(box, {
    value() {
      const values = parts.map((part) => part.value());
      if (values.includes(null)) return null;
      const content = Object.assign({}, ...values.map((value) => value.content ?? {}));
      return { ...Object.assign({}, ...values), content };
    },
    ready: () => Promise.all(parts.map((part) => part.ready?.())),
    showError: (field, text) => parts.some((part) => part.showError(field, text)),
    clearErrors: () => parts.forEach((part) => part.clearErrors()),
  });
}

function textArea(label, hint) {
  return labelled(label, el("textarea", { class: "field", rows: "3", dir: "auto" }), { hint });
}

/** One text for all modalities made of texts, and one for each if there are several. */
function textFields(modalities) {
  const names = modalities.map((modality) => modality.name);
  const shared = textArea(
    "Text",
    names.length > 1
      ? `For ${names.join(", ")}.`
      : "Its names or a description, like those of other entities.",
  );
  const fieldOf = new Map(
    names.length > 1 ? names.map((name) => [name, textArea(nameText(name), null)]) : [],
  );
  const ownTexts = fieldOf.size
    ? el("details", { class: "add-own-texts" }, el("summary", {}, "Separate texts per modality"), [
        ...fieldOf.values(),
      ])
    : null;
  return Object.assign(el("div", { class: "stack" }, shared, ownTexts), {
    value() {
      const filled = [...fieldOf].filter(([, field]) => field.input.value.trim());
      const text = shared.input.value.trim();
      return {
        ...(text ? { text } : {}),
        content: Object.fromEntries(
          filled.map(([name, field]) => [name, { texts: [field.input.value.trim()] }]),
        ),
      };
    },
    showError(field, text) {
      const name = field.replace(/^content\./, "");
      if (field !== "text" && !names.includes(name)) return false;
      const target = fieldOf.get(name)?.input.value.trim() ? fieldOf.get(name) : shared;
      if (target !== shared) ownTexts.open = true;
      target.error.show(text);
      return true;
    },
    clearErrors: () => [shared, ...fieldOf.values()].forEach((field) => field.error.show()),
  });
}

/** Pictures of one modality: uploaded and shown as soon as they are chosen. */
function pictureField(modality, signal) {
  const input = el("input", { type: "file", class: "field", accept: "image/*", multiple: true });
  const field = labelled(`Pictures (${modality})`, input, {
    hint: "The vectors of several pictures are averaged. The pictures themselves are not stored.",
  });
  const list = el("ul", { class: "add-pictures", "aria-label": `Chosen pictures of ${modality}` });
  const uploads = new Set();
  input.addEventListener("change", () => {
    for (const file of input.files) add(file);
    input.value = "";
  });

  function add(file) {
    const address = URL.createObjectURL(file);
    const status = el("span", { class: "hint", role: "status" }, "uploading");
    const preview = el("img", { class: "add-picture", alt: "" });
    preview.addEventListener("error", () => preview.remove(), { once: true });
    preview.src = address;
    const remove = el(
      "button",
      { class: "link-button", type: "button", "aria-label": `Remove: ${file.name}` },
      "Remove",
    );
    const item = el("li", {}, preview, el("div", {}, nameText(file.name), " ", status), remove);
    const upload = { id: null, error: "" };
    const release = () => URL.revokeObjectURL(address);
    signal?.addEventListener("abort", release, { once: true });
    remove.addEventListener("click", () => {
      uploads.delete(upload);
      item.remove();
      release();
      field.error.show();
      input.focus();
    });
    upload.finished = send(file).then(
      (id) => {
        upload.id = id;
        status.textContent = "ready";
      },
      (error) => {
        if (error.name === "AbortError") return;
        upload.error = [`${file.name}: ${error.message}`, error.remedy].filter(Boolean).join("; ");
        status.textContent = "cannot be used";
        field.error.show(upload.error);
      },
    );
    uploads.add(upload);
    list.append(item);
  }

  async function send(file) {
    if (file.size > MAX_BYTES)
      throw new Error(`It is larger than ${MAX_BYTES / 1e6} MB; make it smaller.`);
    const { id } = await api.upload("v1/pictures", file, { signal });
    return id;
  }

  return Object.assign(el("div", { class: "stack" }, field, list), {
    ready: () => Promise.all([...uploads].map((upload) => upload.finished)),
    value() {
      const failed = [...uploads].find((upload) => upload.id === null);
      if (failed) {
        field.error.show(
          failed.error || "A picture was not uploaded; remove it or choose it again.",
        );
        return null;
      }
      const ids = [...new Set([...uploads].map((upload) => upload.id))];
      return { content: ids.length ? { [modality]: { pictures: ids } } : {} };
    },
    showError(name, text) {
      if (name !== `content.${modality}`) return false;
      field.error.show(text);
      return true;
    },
    clearErrors: () => field.error.show(),
  });
}

/** Numbers by attribute, one row each. */
function numberFields(modalities) {
  const names = modalities.map((modality) => modality.name);
  const attributes = [...new Set(modalities.flatMap((modality) => modality.attributes))];
  const error = errorLine();
  const title = uniqueId("numbers");
  const list = rowList({
    title: "number",
    add: "Add a number",
    makeRow() {
      const attribute = selectField("Attribute", attributes, attributes[0]);
      const number = labelled(
        "Number",
        el("input", { class: "field", type: "number", step: "any", inputmode: "decimal" }),
      );
      return Object.assign(el("div", { class: "add-row add-number" }, attribute, number), {
        attribute,
        number,
      });
    },
  });
  return Object.assign(
    el(
      "div",
      { class: "stack", role: "group", "aria-labelledby": title },
      el("p", { class: "label", id: title }, "Numbers"),
      list,
      error,
    ),
    {
      value() {
        const byName = {};
        for (const { attribute, number } of list.rows()) {
          const text = number.input.value.trim();
          const name = attribute.input.value;
          if (!text || !Number.isFinite(Number(text)))
            number.error.show("Enter a number, or remove this row.");
          else if (name in byName) number.error.show(`${name} is given twice.`);
          else byName[name] = Number(text);
        }
        const invalid = list.rows().some(({ number }) => number.error.textContent);
        if (invalid) return null;
        return Object.keys(byName).length ? { numbers: byName } : {};
      },
      showError(field, text) {
        if (field !== "numbers" && !names.includes(field.replace(/^content\./, ""))) return false;
        error.show(text);
        return true;
      },
      clearErrors() {
        error.show();
        list.rows().forEach(({ number }) => number.error.show());
      },
    },
  );
}
