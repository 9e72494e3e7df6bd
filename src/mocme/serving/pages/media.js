// Pictures, sounds and videos of an entity; with a token they are fetched, for tags cannot carry it.

import * as api from "./api.js";
import { el } from "./dom.js";

/** A file's address, if it is one of this server's files. */
function own(url) {
  const found = new URL(url, location.href);
  const ours = found.origin === location.origin && found.pathname.endsWith("/v1/file");
  return ours ? found : null;
}

/** An element that shows a file of an entity; nothing where the address is not the server's. */
export function medium(file, name, { signal = null } = {}) {
  const found = own(file.url);
  if (!found) return null;
  const node = made(file, name);
  if (!node) return el("a", { href: found.href, download: true }, `File of ${file.modality}`);
  node.addEventListener("error", () => node.replaceWith(broken(file)), { once: true });
  place(node, found, signal);
  return node;
}

function made(file, name) {
  if (file.kind === "image") return el("img", { class: "picture", alt: `${name} (${file.modality})`, loading: "lazy" });
  if (file.kind === "audio") return el("audio", { controls: true, preload: "metadata", "aria-label": `${name}, sound` });
  if (file.kind === "video") return el("video", { controls: true, preload: "metadata", "aria-label": `${name}, video` });
  return null;
}

function broken(file) {
  return el("p", { class: "hint" }, `This file of ${file.modality} cannot be shown.`);
}

async function place(node, url, signal) {
  if (!api.token()) {
    node.src = url.href;
    return;
  }
  try {
    const blob = await api.bytes(url.href, { signal });
    const address = URL.createObjectURL(blob);
    node.src = address;
    signal?.addEventListener("abort", () => URL.revokeObjectURL(address), { once: true });
  } catch (error) {
    if (error.name !== "AbortError") node.dispatchEvent(new Event("error"));
  }
}
