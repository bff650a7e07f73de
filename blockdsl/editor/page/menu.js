/* A list to choose from, with a search: what can be inserted, and how to export. */

import { by, make } from "./dom.js";

const dialog = by("menu"), query = by("query"), found = by("found");
let entries = [], options = [], at = 0, chosen = null;

/* Open with entries {group, name, help}; resolves to the one that is chosen, or null. */
export function choose(title, list, placeholder) {
  entries = list;
  by("menu-title").textContent = title;
  query.placeholder = placeholder;
  query.setAttribute("aria-label", placeholder);
  query.value = "";
  chosen = null;
  fill();
  dialog.showModal();
  query.focus();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(chosen), { once: true }));
}

function fill() {
  const words = query.value.toLowerCase().split(/\s+/).filter(Boolean);
  const fits = (entry) => words.every((word) => `${entry.name} ${entry.help} ${entry.group ?? ""}`.toLowerCase().includes(word));
  const first = (entry) => (words.length && entry.name.toLowerCase().startsWith(words[0]) ? 0 : 1);
  const shown = entries.filter(fits);
  if (words.length) shown.sort((a, b) => first(a) - first(b));
  let group;
  options = [];
  found.replaceChildren(...shown.flatMap((entry, i) => {
    const option = make("li", { id: `option-${i}`, role: "option" }, make("b", {}, entry.name), make("span", {}, entry.help));
    option.addEventListener("click", () => take(entry));
    options.push({ option, entry });
    const heading = !words.length && entry.group !== group;
    group = entry.group;
    return heading ? [make("li", { className: "group", role: "presentation" }, entry.group), option] : [option];
  }));
  if (!shown.length) found.append(make("li", { className: "group", role: "presentation" }, "Nothing has these words."));
  go(0);
}

function go(to) {
  at = Math.max(0, Math.min(to, options.length - 1));
  options.forEach(({ option }, i) => option.setAttribute("aria-selected", i === at));
  if (options[at]) options[at].option.scrollIntoView({ block: "nearest" });
  if (!at) found.scrollTop = 0;
  query.setAttribute("aria-activedescendant", options[at]?.option.id ?? "");
}

function take(entry) {
  chosen = entry;
  dialog.close();
}

query.addEventListener("input", fill);
dialog.addEventListener("keydown", (event) => {
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + 8, PageUp: at - 8 }[event.key];
  if (to !== undefined) {
    event.preventDefault();
    go(to);
  } else if (event.key === "Enter" && event.target === query) {
    event.preventDefault();
    if (options[at]) take(options[at].entry);
  }
});
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
