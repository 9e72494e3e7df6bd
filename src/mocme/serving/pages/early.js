// Before the first paint, so that a remembered theme does not flash.
"use strict";
try {
  const theme = localStorage.getItem("mocme.theme");
  if (theme === "dark") document.getElementById("dark").media = "all";
  if (theme === "light") document.getElementById("dark").media = "not all";
} catch {
  // Storage may be forbidden; the system's theme it is.
}
