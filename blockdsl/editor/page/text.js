/* A text with colours: a text area that has the caret, undo and the keyboard, above the same text with highlights.

The colours are custom highlights (ranges of the text below, without an element for each); where a browser has none,
the area's own text is shown, in one colour. */

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

export class Text {
  /* `changed` is called after each edit. */
  constructor(parent, label, changed) {
    this.area = make("textarea", {
      spellcheck: false, autocomplete: "off", autocapitalize: "off", wrap: "soft", "aria-label": label,
      "aria-autocomplete": "list",
    });
    this.below = make("pre", { "aria-hidden": "true" }, PAD);
    this.node = this.below.firstChild;
    this.box = make("div", { className: "editor" }, this.below, this.area);
    parent.append(this.box);
    this.text = "";
    this.marks = new Map(TYPES.map((type) => [type, []]));  // [start, end] of each
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
    this.node.data = text + PAD;
    for (const [type, marks] of this.marks) {
      this.mark(type, marks.map(([a, b]) => [moved(a), moved(b)]));
    }
  }

  /* Show these ranges, and no others, in a type's colour. */
  mark(type, marks) {
    const highlight = shared.get(type), length = this.node.length;
    for (const range of this.ranges.get(type)) highlight.delete(range);
    this.marks.set(type, marks);
    const shown = has ? marks.filter(([a, b]) => b > a && b <= length) : [];
    const ranges = shown.map(([startOffset, endOffset]) =>
      new StaticRange({ startContainer: this.node, startOffset, endContainer: this.node, endOffset }));
    for (const range of ranges) highlight.add(range);
    this.ranges.set(type, ranges);
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
    range.setStart(this.node, Math.min(offset, this.node.length - 1));
    range.setEnd(this.node, Math.min(offset + 1, this.node.length));
    return range.getClientRects()[0] ?? this.below.getBoundingClientRect();
  }

  /* The place in the text that is there on the screen, or -1. */
  under(x, y) {
    this.area.style.pointerEvents = "none";
    this.below.style.pointerEvents = "auto";
    const caret = document.caretPositionFromPoint?.(x, y);
    const range = caret ? null : document.caretRangeFromPoint?.(x, y);
    this.area.style.pointerEvents = this.below.style.pointerEvents = "";
    const [node, offset] = caret ? [caret.offsetNode, caret.offset] : [range?.startContainer, range?.startOffset];
    if (node !== this.node) return -1;
    const { left, right, top, bottom } = this.place(Math.max(0, offset - 1)), after = this.place(offset);
    const inside = (rect) => x >= rect.left && x <= rect.right && y >= rect.top && y <= rect.bottom;
    if (inside(after)) return offset;
    return inside({ left, right, top, bottom }) ? offset - 1 : -1;
  }
}
