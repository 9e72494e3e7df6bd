// Apply the stored theme before the first paint, so that the page does not flash.
"use strict";
try {
  const theme = localStorage.getItem("mocme.theme");
  if (theme === "dark") document.getElementById("dark").media = "all";
  if (theme === "light") document.getElementById("dark").media = "not all";
} catch {
  // Storage is not available: use the system's theme.
}
