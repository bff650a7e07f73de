/* The mistakes of a text: underlined in it, and listed below it with what mends them. */

import { make } from "./dom.js";
import { offsets } from "./offsets.js";

/* Each fault with its places in the text as a script counts them. */
export function placed(text, faults) {
  const { toScript } = offsets(text);
  return faults.map((fault) => ({
    ...fault, start: toScript(fault.start), end: toScript(fault.end),
    fix: fault.fix && { ...fault.fix, start: toScript(fault.fix.start), end: toScript(fault.fix.end) },
  }));
}

export function underline(text, faults) {
  const of = (severity) => faults.filter((fault) => (fault.severity === "error") === (severity === "error"))
    .map(({ start, end }) => [start, Math.max(end, start + 1)]);
  text.mark("error", of("error"));
  text.mark("warning", of("warning"));
}

/* `faults` of one text each: [text, faults, heading]. */
export function list(element, texts) {
  element.replaceChildren(...texts.flatMap(([text, faults]) => faults.map((fault) => row(text, fault))));
}

function row(text, fault) {
  const [problem, ...hint] = fault.message.split("\n");
  const place = make("button", { className: "place", title: "Go there" }, problem);
  place.addEventListener("click", () => {
    text.area.focus();
    text.area.setSelectionRange(fault.start, fault.end);
  });
  const parts = [make("span", { className: "mark", "aria-hidden": "true" }, fault.severity === "error" ? "✕" : "!"), place];
  if (fault.fix) {
    const fix = make("button", { className: "fix" }, fault.fix.text ? `Change to ${shortened(fault.fix.text)}` : "Take out");
    fix.addEventListener("click", () => text.replace(fault.fix.start, fault.fix.end, fault.fix.text));
    parts.push(fix);
  }
  if (hint.length) parts.push(make("div", { className: "hint" }, hint.join("\n")));
  return make("div", { className: fault.severity }, ...parts);
}

const shortened = (words) => (words.length > 24 ? `${words.slice(0, 23)}…` : words);
