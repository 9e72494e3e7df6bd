// Pictures, sounds and videos of an entity. With a token they are fetched: tags cannot send it.

import * as api from "./api.js";
import { el } from "./dom.js";

/** The URL of a file if it is a file of this server, else null. */
function fileUrl(url) {
  const absolute = new URL(url, location.href);
  const isFile = absolute.origin === location.origin && absolute.pathname.endsWith("/v1/file");
  return isFile ? absolute : null;
}

/** An element that shows a file of an entity; null if its URL is not one of this server. */
export function mediaElement(file, name, { signal = null } = {}) {
  const url = fileUrl(file.url);
  if (!url) return null;
  if (file.hidden) return el("p", { class: "hint" }, `This file of ${file.modality} cannot be shown: ${file.hidden}.`);
  const node = createMedia(file, name);
  if (!node) return el("a", { href: url.href, download: true }, `File of ${file.modality}`);
  node.addEventListener("error", () => node.replaceWith(brokenFile(file)), { once: true });
  setSource(node, url, signal);
  return node;
}

function createMedia(file, name) {
  if (file.kind === "image")
    return el("img", { class: "picture", alt: `${name} (${file.modality})`, loading: "lazy" });
  if (file.kind === "audio")
    return el("audio", { controls: true, preload: "metadata", "aria-label": `${name}, sound` });
  if (file.kind === "video")
    return el("video", { controls: true, preload: "metadata", "aria-label": `${name}, video` });
  return null;
}

function brokenFile(file) {
  return el("p", { class: "hint" }, `This file of ${file.modality} cannot be shown.`);
}

async function setSource(node, url, signal) {
  if (!api.token()) {
    node.src = url.href;
    return;
  }
  try {
    const blob = await api.download(url.href, { signal });
    const address = URL.createObjectURL(blob);
    node.src = address;
    signal?.addEventListener("abort", () => URL.revokeObjectURL(address), { once: true });
  } catch (error) {
    if (error.name !== "AbortError") node.dispatchEvent(new Event("error"));
  }
}
