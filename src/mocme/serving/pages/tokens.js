// The server's token: asked for once, kept for this tab only.

import { prompted } from "./dialogs.js";

/** Ask for the token; `refused` tells whether there was one that the server did not take. */
export function askToken(refused) {
  return prompted({
    title: "This server asks for a token",
    text: refused
      ? "The token was refused. Whoever started the server knows the right one."
      : "Whoever started the server knows it. It is kept until this tab is closed.",
    label: "Token",
    submit: "Go on",
    field: { type: "password", autocomplete: "off" },
  });
}
