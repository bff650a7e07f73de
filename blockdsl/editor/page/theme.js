/* Light and dark: as the reader's system has it, or as chosen here. The picture's own style sheet asks the system, and
   is told the choice. */

import { by } from "./dom.js";

const setting = matchMedia("(prefers-color-scheme: dark)");
const sheet = new CSSStyleSheet();
let dark = setting.matches;

export const isDark = () => dark;

/* The picture's colours. */
export function style(text) {
  sheet.replaceSync(text);
  document.adoptedStyleSheets = [sheet];
  apply();
}

/* A picture that is to leave this page, in the page's colours. */
export const fixed = (svg) => svg.replace("@media (prefers-color-scheme:dark)", `@media ${dark ? "all" : "not all"}`);

function apply() {
  document.documentElement.classList.toggle("dark", dark);
  by("dark").setAttribute("aria-pressed", dark);
  for (const rule of sheet.cssRules) {
    if (rule instanceof CSSMediaRule && (rule.own ??= rule.conditionText.includes("prefers-color-scheme"))) {
      rule.media.mediaText = dark ? "all" : "not all";
    }
  }
}
function set(value) {
  dark = value;
  apply();
}
setting.addEventListener("change", () => set(setting.matches));
by("dark").addEventListener("click", () => {
  set(!dark);
  try { localStorage.setItem("blockdsl-dark", dark); } catch { /* no storage here */ }
});
try {
  const kept = localStorage.getItem("blockdsl-dark");
  if (kept) dark = kept === "true";
} catch { /* no storage here */ }
apply();
