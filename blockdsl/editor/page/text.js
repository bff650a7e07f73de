/* A text with colours: a text area that has the caret, undo and the keyboard, above the same text with highlights.

The colours are custom highlights (ranges of the text below, without an element for each); where a browser has none,
the area's own text is shown, in one colour. Only what is in sight has colours: thousands take longer to paint than a
picture of thousands of blocks, in every frame. */

import { make } from "./dom.js";

/* The library's types of tokens, by the colour that they have here; others are plain. */
export const COLOURS = {
  kind: ["kind", "macro"], option: ["option", "setting"], value: ["value", "constant", "number"], word: ["keyword"],
  name: ["definition", "stage", "label", "tie"], comment: ["comment"], sign: ["operator", "punctuation"],
};
const TYPES = [...Object.keys(COLOURS), "lit", "warning", "error"];
const has = "highlights" in CSS;
if (!has) document.documentElement.classList.add("plain");
const shared = new Map(TYPES.map((type) => [type, has ? new Highlight() : new Set()]));
if (has) for (const [type, highlight] of shared) CSS.highlights.set(type, highlight);
["lit", "warning", "error"].forEach((type, i) => { if (has) shared.get(type).priority = i + 1; });

const PAD = " \n";  // after the text: a place to underline at its end, and the height of an empty last line
const PART = 800;  // signs of a text node: what it costs to paint colours grows with the square of these
const AROUND = "25%";  // of the window, above and below what is in sight: it has its colours before it is scrolled to

export class Text {
  /* `changed` is called after each edit. */
  constructor(parent, label, changed) {
    this.area = make("textarea", {
      spellcheck: false, autocomplete: "off", autocapitalize: "off", wrap: "soft", "aria-label": label,
      "aria-autocomplete": "list",
    });
    this.below = make("pre", { "aria-hidden": "true" });
    this.parts = [];  // {node, start, near}: the text below, in nodes, and whether each is in sight
    this.sight = new IntersectionObserver((entries) => this.seen(entries), { rootMargin: AROUND, scrollMargin: AROUND });
    this.box = make("div", { className: "editor" }, this.below, this.area);
    parent.append(this.box);
    this.height = 0;
    new ResizeObserver(() => this.resized(parent)).observe(parent);
    this.text = "";
    this.fill(0, 0, PAD);
    this.marks = new Map(TYPES.map((type) => [type, []]));  // [start, end] of each, in sight or not
    this.ranges = new Map(TYPES.map((type) => [type, []]));
    this.area.addEventListener("input", () => { this.synchronise(); changed(this); });
  }

  /* The text below follows the area at once, and the colours move with the edit until new ones come. */
  synchronise() {
    const text = this.area.value, old = this.text;
    let start = 0, end = 0;
    const most = Math.min(text.length, old.length);
    while (start < most && text[start] === old[start]) start++;
    while (end < most - start && text[text.length - 1 - end] === old[old.length - 1 - end]) end++;
    const from = old.length - end, by = text.length - old.length;
    const moved = (at) => (at < start ? at : at >= from ? at + by : start);  // what is typed after a word is its colour
    this.text = text;
    this.renew(start, from, text.slice(start, text.length - end));
    for (const [type, marks] of this.marks) {
      this.mark(type, marks.map(([a, b]) => [moved(a), moved(b)]));
    }
  }

  /* Put words in the place of what is there below, in no other nodes than need be. */
  renew(start, end, words) {
    const first = this.partAt(start), last = this.partAt(end);
    const before = this.parts[first].node.data.slice(0, start - this.parts[first].start);
    this.fill(first, last + 1, before + words + this.parts[last].node.data.slice(end - this.parts[last].start));
  }

  /* Nodes with these words in the place of others, the first of which stays. */
  fill(first, end, words) {
    const cut = [];
    for (let at = 0; at < words.length || !cut.length;) {
      let to = Math.min(words.length, at + PART);
      if (words.length - at > 2 * PART) to = 1 + Math.max(words.lastIndexOf(" ", to), words.lastIndexOf("\n", to));
      else to = words.length;
      if (to <= at) to = Math.min(words.length, at + PART);
      cut.push(words.slice(at, to));
      at = to;
    }
    const old = this.parts.slice(first, end), after = this.parts[end]?.node.parentElement ?? null;
    const parts = cut.map((data, i) => {
      const part = old[i] ?? this.part(after);
      if (part.node.data !== data) part.node.data = data;
      return part;
    });
    for (const { node } of old.slice(cut.length)) {
      this.sight.unobserve(node.parentElement);
      node.parentElement.remove();
    }
    this.parts.splice(first, end - first, ...parts);
    this.length = 0;
    for (const part of this.parts) {
      part.start = this.length;
      this.length += part.node.length;
    }
  }

  /* A new part before an element; in sight until it is known. */
  part(after) {
    const node = document.createTextNode(""), around = make("span", {}, node);
    this.below.insertBefore(around, after);
    this.sight.observe(around);
    return { node, start: 0, near: true };
  }

  /* Colours go along with what is in sight. */
  seen(entries) {
    const near = new Map(entries.map((entry) => [entry.target, entry.isIntersecting]));
    const changed = this.parts.filter(({ node, near: was }) => (near.get(node.parentElement) ?? was) !== was);
    for (const part of changed) part.near = !part.near;
    if (changed.length) for (const [type, marks] of this.marks) this.mark(type, marks);
  }

  /* The number of the part that a place is in. */
  partAt(offset) {
    let low = 0, high = this.parts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.parts[middle].start <= offset) low = middle; else high = middle - 1;
    }
    return low;
  }

  /* The node and the place in it. */
  at(offset) {
    const { node, start } = this.parts[this.partAt(offset)];
    return [node, Math.min(offset - start, node.length)];
  }

  /* Show these ranges, and no others, in a type's colour. */
  mark(type, marks) {
    const highlight = shared.get(type), before = this.ranges.get(type);
    this.marks.set(type, marks);
    const near = this.parts.filter((part) => part.near), last = near.at(-1);
    const sight = last ? [near[0].start, last.start + last.node.length] : [0, 0];
    const shown = has ? marks.filter(([a, b]) => b > a && b <= this.length && b > sight[0] && a < sight[1]) : [];
    const wanted = shown.map(([a, b]) => {
      const [startContainer, startOffset] = this.at(a), [endContainer, endOffset] = this.at(b);
      return { startContainer, startOffset, endContainer, endOffset };
    });
    const same = (range, wish) => range && wish && range.startContainer === wish.startContainer && range.startOffset === wish.startOffset
      && range.endContainer === wish.endContainer && range.endOffset === wish.endOffset;
    let start = 0, end = 0;
    const most = Math.min(wanted.length, before.length);
    while (start < most && same(before[start], wanted[start])) start++;
    while (end < most - start && same(before.at(-1 - end), wanted.at(-1 - end))) end++;
    for (const range of before.slice(start, before.length - end)) highlight.delete(range);
    const added = wanted.slice(start, wanted.length - end).map((wish) => new StaticRange(wish));
    for (const range of added) highlight.add(range);
    this.ranges.set(type, [...before.slice(0, start), ...added, ...before.slice(before.length - end)]);
  }

  /* Put a text in the place of a part, as if it were typed: it can be undone. */
  replace(start, end, text, caret = start + text.length) {
    this.area.focus({ preventScroll: true });
    this.area.setSelectionRange(start, end);
    const done = document.execCommand(text ? "insertText" : "delete", false, text);
    if (!done) {
      this.area.setRangeText(text, start, end, "end");
      this.area.dispatchEvent(new InputEvent("input"));
    }
    this.area.setSelectionRange(caret, caret);
  }

  /* What undo does not bring back: the text that the page opens with. */
  open(text) {
    this.area.value = text;
    this.synchronise();
  }

  /* Where a place in the text is on the screen. */
  place(offset) {
    const range = document.createRange();
    range.setStart(...this.at(Math.min(offset, this.length - 1)));
    range.setEnd(...this.at(Math.min(offset + 1, this.length)));
    return range.getClientRects()[0] ?? this.below.getBoundingClientRect();
  }

  /* What comes to be said below takes height from a long text: a caret that was in sight stays so. */
  resized(scroller) {
    const lost = this.height - scroller.clientHeight;
    this.height = scroller.clientHeight;
    if (lost <= 0 || this.area !== document.activeElement) return;
    const hidden = this.place(this.area.selectionEnd).bottom - scroller.getBoundingClientRect().bottom;
    if (hidden > 0 && hidden <= lost) scroller.scrollTop += hidden + 8;
  }

  /* The place in the text that is there on the screen, or -1. */
  under(x, y) {
    this.area.style.pointerEvents = "none";
    this.below.style.pointerEvents = "auto";
    const caret = document.caretPositionFromPoint?.(x, y);
    const range = caret ? null : document.caretRangeFromPoint?.(x, y);
    this.area.style.pointerEvents = this.below.style.pointerEvents = "";
    const [node, at] = caret ? [caret.offsetNode, caret.offset] : [range?.startContainer, range?.startOffset];
    const part = this.parts.find((each) => each.node === node);
    if (!part) return -1;
    const offset = part.start + at;
    const { left, right, top, bottom } = this.place(Math.max(0, offset - 1)), after = this.place(offset);
    const inside = (rect) => x >= rect.left && x <= rect.right && y >= rect.top && y <= rect.bottom;
    if (inside(after)) return offset;
    return inside({ left, right, top, bottom }) ? offset - 1 : -1;
  }
}
