// Requests to the server: errors with a remedy, the token, retries, the state of the connection.

import { readItem, writeItem } from "./storage.js";

const MAX_ATTEMPTS = 4;
const MAX_WAIT = 30; // seconds

/** An error response of the server, or the reason why there was no response (status 0). */
export class ServerError extends Error {
  constructor(status, { code = "", message = "", remedy = "", near = [], field = "" } = {}) {
    super(message || `The server answered with status ${status}.`);
    this.name = "ServerError";
    Object.assign(this, { status, code, remedy, near, field });
  }
}

/** Dispatches "busy" (detail: seconds until the next attempt), "lost" and "restored". */
export const connection = new EventTarget();

let promptToken = null;
let pendingPrompt = null;
let lost = false;

/** Set the function that asks for a token: (refused) => promise of a token or null. */
export function setTokenPrompt(prompt) {
  promptToken = prompt;
}

export const token = () => readItem("token", "session");

/** GET JSON. */
export function get(path, parameters = {}, options = {}) {
  return request("GET", withQuery(path, parameters), options);
}

/** POST JSON. */
export function post(path, body, options = {}) {
  return request("POST", path, { ...options, body });
}

/** POST the bytes of a file. */
export function upload(path, file, options = {}) {
  return request("POST", path, { ...options, body: file });
}

export function remove(path, options = {}) {
  return request("DELETE", path, options);
}

/** GET a file, sending the token. */
export function download(url, options = {}) {
  return request("GET", url, { ...options, blob: true });
}

/** A path with query parameters; empty ones are omitted. */
export function withQuery(path, parameters = {}) {
  const present = Object.entries(parameters).filter(
    ([, v]) => v !== "" && v !== null && v !== undefined,
  );
  const query = new URLSearchParams(present).toString();
  return query ? `${path}?${query}` : path;
}

async function request(method, url, { body, signal, blob = false } = {}) {
  for (let attempt = 1; ; attempt += 1) {
    const usedToken = token();
    const response = await fetchOnce(method, url, body, signal, usedToken);
    if (response.status === 401 && promptToken) {
      await renewToken(usedToken);
      continue;
    }
    if (response.status === 503 && attempt < MAX_ATTEMPTS) {
      await waitToRetry(response.headers.get("Retry-After"), attempt, signal);
      continue;
    }
    if (!response.ok) throw await serverError(response);
    if (response.status === 204) return null;
    try {
      return blob ? await toFile(response) : await response.json();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ServerError(response.status, {
        code: "unreadable",
        message: "The server's answer is incomplete.",
        remedy: "Try again.",
      });
    }
  }
}

/** The body of a response as a file, named as its headers say. */
async function toFile(response) {
  const [, name = ""] =
    /filename="([^"]*)"/.exec(response.headers.get("Content-Disposition") ?? "") ?? [];
  const blob = await response.blob();
  return new File([blob], name, { type: blob.type });
}

async function fetchOnce(method, url, body, signal, usedToken) {
  const headers = { Accept: "application/json" };
  const isFile = body instanceof Blob;
  if (isFile)
    headers["Content-Type"] = body.type.startsWith("image/")
      ? body.type
      : "application/octet-stream";
  else if (body !== undefined) headers["Content-Type"] = "application/json";
  if (usedToken) headers.Authorization = `Bearer ${usedToken}`;
  try {
    const payload = isFile || body === undefined ? body : JSON.stringify(body);
    const response = await fetch(url, { method, headers, body: payload, signal });
    if (lost) connection.dispatchEvent(new Event("restored"));
    lost = false;
    return response;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    lost = true;
    connection.dispatchEvent(new Event("lost"));
    throw new ServerError(0, {
      code: "unreachable",
      message: "The server cannot be reached.",
      remedy: "Check that `mocme serve` is running and the network is available, then try again.",
    });
  }
}

/** Ask for a token, unless another request has already replaced the refused one. */
async function renewToken(refused) {
  if (token() !== refused) return;
  pendingPrompt ??= promptToken(refused !== null).finally(() => {
    pendingPrompt = null;
  });
  const entered = await pendingPrompt;
  if (entered === null) {
    throw new ServerError(401, {
      code: "unauthorized",
      message: "This server requires a token.",
      remedy: "Ask whoever started the server for the token, then try again.",
    });
  }
  writeItem("token", entered, "session");
}

async function waitToRetry(retryAfter, attempt, signal) {
  const requested = Number.parseFloat(retryAfter);
  const seconds = Math.min(
    MAX_WAIT,
    Number.isFinite(requested) && requested >= 0 ? requested : 2 ** (attempt - 1),
  );
  connection.dispatchEvent(new CustomEvent("busy", { detail: seconds }));
  await new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(new DOMException("left", "AbortError"));
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, seconds * 1000);
    if (signal?.aborted) stop();
    else signal?.addEventListener("abort", stop, { once: true });
  });
}

async function serverError(response) {
  let detail = {};
  try {
    detail = (await response.json()).error ?? {};
  } catch {
    // Not JSON, for instance from a proxy: only the status is known.
  }
  if (response.status === 503 && !detail.remedy)
    detail = { ...detail, remedy: "Try again in a moment." };
  return new ServerError(response.status, detail);
}
