/* Text and blocks light each other up: under the pointer, and at the caret. */

import { by } from "./dom.js";
import { offsets } from "./offsets.js";
import * as picture from "./picture.js";

const view = by("view");
const texts = [];  // {text, spans: [start, end, nodes]}

/* A text whose spans light up, and are lit by its caret and the pointer. */
export function watch(text) {
  const own = { text, spans: [] };
  texts.push(own);
  let at = -1;
  text.area.addEventListener("pointermove", (event) => {
    const under = text.under(event.clientX, event.clientY);
    if (under !== at) show(own, at = under);
  });
  text.area.addEventListener("pointerleave", () => { at = -1; caret(); });
  return own;
}

/* New spans of a text, as the library counts. */
export function place(own, spans) {
  const { toScript } = offsets(own.text.text);
  own.spans = spans.map(([start, end, nodes]) => [toScript(start), toScript(end), nodes]);
}

/* The smallest span that has a place in it. */
function spanAt(own, at, closing) {
  let best = null;
  for (const span of own.spans) {
    if (span[0] > at) break;
    if ((at < span[1] || (closing && at === span[1])) && (!best || span[1] - span[0] <= best[1] - best[0])) best = span;
  }
  return best ?? definitionAt(own, at);
}

/* The name of a definition where it is defined, with the nodes of all its uses. */
function definitionAt(own, at) {
  const written = own.text.text, name = own.text.marks.get("name").find(([start, end]) => start <= at && at <= end);
  if (!name) return null;
  const word = written.slice(...name), uses = own.spans.filter(([start, end]) => written.slice(start, end) === word);
  return uses.length ? [...name, [...new Set(uses.flatMap((use) => use[2]))]] : null;
}

function show(own, at, reveal = false, closing = false) {
  const span = at < 0 ? null : spanAt(own, at, closing);
  for (const other of texts) other.text.mark("lit", other === own && span ? [[span[0], span[1]]] : []);
  picture.light(span ? span[2] : [], reveal);
}

/* What the caret is in. */
export function caret(reveal = false) {
  const own = texts.find(({ text }) => text.area === document.activeElement);
  if (own) show(own, own.text.area.selectionStart, reveal, true);
  else { for (const { text } of texts) text.mark("lit", []); picture.light([]); }
}
document.addEventListener("selectionchange", () => {
  if (texts.some(({ text }) => text.area === document.activeElement)) caret(true);
});

/* From blocks to text. */
function spansOf(own, nodes) {
  const set = new Set(nodes);
  return own.spans.filter((span) => span[2].some((node) => set.has(node)));
}
for (const kind of ["pointerover", "focusin"]) {
  view.addEventListener(kind, (event) => {
    const nodes = picture.nodesAt(event.target);
    for (const own of texts) own.text.mark("lit", spansOf(own, nodes).map(([start, end]) => [start, end]));
    picture.light(nodes);
  });
}
for (const kind of ["pointerleave", "focusout"]) view.addEventListener(kind, () => caret());

/* A click, or Enter, on a block selects what is written of it. */
function go(nodes) {
  for (const own of texts) {
    const [span] = spansOf(own, nodes);
    if (!span) continue;
    own.text.area.focus();
    own.text.area.setSelectionRange(span[0], span[1]);
    return;
  }
}
view.addEventListener("click", (event) => go(picture.nodesAt(event.target)));
view.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" && event.key !== " ") return;
  const nodes = picture.nodesAt(event.target);
  if (!nodes.length) return;
  event.preventDefault();
  go(nodes);
});
