// Talking to the server: errors with a remedy, a token, a busy server, a lost connection.

import { recall, remember } from "./kept.js";

const TRIES = 4;
const LONGEST_WAIT = 30;

/** What the server answered instead, or why there was no answer. */
export class ServerError extends Error {
  constructor(status, { code = "", message = "", remedy = "", near = [], field = "" } = {}) {
    super(message || `The server answered with status ${status}.`);
    this.name = "ServerError";
    Object.assign(this, { status, code, remedy, near, field });
  }
}

/** Tells "busy" (detail: seconds), "lost" and "found" (the connection). */
export const connection = new EventTarget();

let askToken = null;
let asking = null;
let lost = false;

/** Set who asks for a token; called with whether the last one was refused, gives a token or null. */
export function onToken(ask) {
  askToken = ask;
}

export const token = () => recall("token", "session");

/** A GET of JSON. */
export function get(path, parameters = {}, options = {}) {
  return request("GET", address(path, parameters), options);
}

/** A POST of JSON. */
export function post(path, body, options = {}) {
  return request("POST", path, { ...options, body });
}

/** A POST of a file's bytes. */
export function send(path, file, options = {}) {
  return request("POST", path, { ...options, body: file });
}

export function remove(path, options = {}) {
  return request("DELETE", path, options);
}

/** A file's bytes, with the token. */
export function bytes(url, options = {}) {
  return request("GET", url, { ...options, blob: true });
}

/** A path with its parameters; empty ones are left out. */
export function address(path, parameters = {}) {
  const held = Object.entries(parameters).filter(([, v]) => v !== "" && v !== null && v !== undefined);
  const query = new URLSearchParams(held).toString();
  return query ? `${path}?${query}` : path;
}

async function request(method, url, { body, signal, blob = false } = {}) {
  for (let tried = 1; ; tried += 1) {
    const used = token();
    const response = await sent(method, url, body, signal, used);
    if (response.status === 401 && askToken) {
      await renewed(used);
      continue;
    }
    if (response.status === 503 && tried < TRIES) {
      await pause(response.headers.get("Retry-After"), tried, signal);
      continue;
    }
    if (!response.ok) throw await refusal(response);
    if (response.status === 204) return null;
    try {
      return blob ? await filed(response) : await response.json();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ServerError(response.status, {
        code: "unreadable",
        message: "The server's answer could not be read to its end.",
        remedy: "Try again.",
      });
    }
  }
}

/** The bytes of an answer, under the name that it gives them. */
async function filed(response) {
  const [, name = ""] = /filename="([^"]*)"/.exec(response.headers.get("Content-Disposition") ?? "") ?? [];
  const bytes = await response.blob();
  return new File([bytes], name, { type: bytes.type });
}

async function sent(method, url, body, signal, used) {
  const headers = { Accept: "application/json" };
  const file = body instanceof Blob;
  if (file) headers["Content-Type"] = body.type.startsWith("image/") ? body.type : "application/octet-stream";
  else if (body !== undefined) headers["Content-Type"] = "application/json";
  if (used) headers.Authorization = `Bearer ${used}`;
  try {
    const sends = file || body === undefined ? body : JSON.stringify(body);
    const response = await fetch(url, { method, headers, body: sends, signal });
    if (lost) connection.dispatchEvent(new Event("found"));
    lost = false;
    return response;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    lost = true;
    connection.dispatchEvent(new Event("lost"));
    throw new ServerError(0, {
      code: "unreachable",
      message: "The server cannot be reached.",
      remedy: "See whether `mocme serve` still runs, and the network is there; then try again.",
    });
  }
}

/** Wait for a token that is not the one that was refused. */
async function renewed(refused) {
  if (token() !== refused) return;
  asking ??= askToken(refused !== null).finally(() => {
    asking = null;
  });
  const given = await asking;
  if (given === null) {
    throw new ServerError(401, {
      code: "unauthorized",
      message: "This server answers only with a token.",
      remedy: "Ask who started it for the token, then try again.",
    });
  }
  remember("token", given, "session");
}

async function pause(after, tried, signal) {
  const told = Number.parseFloat(after);
  const seconds = Math.min(LONGEST_WAIT, Number.isFinite(told) && told >= 0 ? told : 2 ** (tried - 1));
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

async function refusal(response) {
  let told = {};
  try {
    told = (await response.json()).error ?? {};
  } catch {
    // A proxy's page, or nothing: the status has to do.
  }
  if (response.status === 503 && !told.remedy) told = { ...told, remedy: "Try again in a moment." };
  return new ServerError(response.status, told);
}
