// The dialog for the server's token, which is stored for this tab only.

import { askText } from "./dialogs.js";

/** Ask for the token; `refused`: whether the server refused the previous one. */
export function askToken(refused) {
  return askText({
    title: "This server requires a token",
    text: refused
      ? "The token was refused. Ask whoever started the server for the right one."
      : "Ask whoever started the server for it. It is stored until this tab is closed.",
    label: "Token",
    submit: "Continue",
    field: { type: "password", autocomplete: "off" },
  });
}
