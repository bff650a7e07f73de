/* Completion: a list at the caret of what can stand there, each with a line of help. */

import { ask, NoAnswer } from "./ask.js";
import { make } from "./dom.js";
import { offsets } from "./offsets.js";

const WORD = /[\w(,=<^@]$/;

export class Completion {
  constructor(text, settings) {
    this.text = text;
    this.settings = settings;
    this.list = make("ul", { className: "completions", role: "listbox", id: `completions-${text.area.ariaLabel ?? ""}`.replace(/\W+/g, "-"), "aria-label": "Completions", hidden: true });
    document.body.append(this.list);
    this.items = [];
    this.at = -1;
    this.next = null;  // what is to be asked
    this.busy = this.closed = false;
    text.area.setAttribute("aria-controls", this.list.id);
    text.area.addEventListener("keydown", (event) => this.key(event));
    text.area.addEventListener("input", (event) => this.typed(event));
    text.area.addEventListener("blur", () => this.close());
    text.area.addEventListener("pointerdown", () => this.close());
    addEventListener("scroll", () => this.close(), true);
    this.list.addEventListener("pointerdown", (event) => {
      event.preventDefault();  // the caret stays where it is
      const item = event.target.closest("li");
      if (item) this.take([...this.list.children].indexOf(item));
    });
  }

  get open() { return !this.list.hidden; }

  typed(event) {
    const caret = this.text.area.selectionStart, before = this.text.text.slice(Math.max(0, caret - 2), caret);
    if (event.inputType === "insertText" && WORD.test(before)) this.ask(false);
    else if (event.inputType?.startsWith("delete") && this.open) this.ask(false);
    else this.close();
  }

  /* `wanted`: asked for by the person, and not by typing. One question at a time, then the newest. */
  async ask(wanted) {
    this.next = { wanted };
    this.closed = false;
    if (this.busy) return;
    this.busy = true;
    try {
      while (this.next) {
        const { wanted } = this.next;
        this.next = null;
        await this.answer(wanted);
      }
    } catch (error) {
      if (!(error instanceof NoAnswer)) throw error;
    } finally {
      this.busy = false;
    }
  }

  async answer(wanted) {
    const text = this.text.text, caret = this.text.area.selectionStart;
    const { toLibrary, toScript } = offsets(text);
    const answer = await ask({ do: "complete", text, offset: toLibrary(caret), settings: this.settings() });
    if (this.next || this.closed || !answer.ok) return;
    if (this.text.text !== text || this.text.area.selectionStart !== caret) return;
    const items = answer.completions.map((item) => ({ ...item, start: toScript(item.start), end: toScript(item.end) }));
    const written = (item) => text.slice(item.start, item.end) === item.insert;
    if (!items.length || (!wanted && items.some(written))) this.close();
    else this.show(items, wanted ? 0 : -1, caret);
  }

  show(items, at, caret) {
    this.items = items;
    this.list.replaceChildren(...items.map((item, i) =>
      make("li", { role: "option", id: `${this.list.id}-${i}` }, make("b", {}, item.label), make("span", {}, item.help))));
    this.list.hidden = false;
    const place = this.text.place(Math.min(caret, items[0].start));
    const { offsetWidth: width, offsetHeight: height } = this.list;
    const below = place.bottom + 4 + height < innerHeight;
    this.list.style.left = `${Math.max(8, Math.min(place.left, innerWidth - width - 8))}px`;
    this.list.style.top = `${below ? place.bottom + 4 : Math.max(4, place.top - height - 4)}px`;
    this.go(at);
  }

  go(to) {
    this.at = to;
    [...this.list.children].forEach((item, i) => item.setAttribute("aria-selected", i === to));
    const item = this.list.children[to];
    item?.scrollIntoView({ block: "nearest" });
    if (item) this.text.area.setAttribute("aria-activedescendant", item.id);
    else this.text.area.removeAttribute("aria-activedescendant");
  }

  close() {
    this.next = null;
    this.closed = true;  // of an answer that is still to come, too
    if (!this.open) return;
    this.list.hidden = true;
    this.go(-1);
  }

  take(at) {
    const item = this.items[at];
    this.close();
    this.text.replace(item.start, item.end, item.insert);
    this.close();
  }

  key(event) {
    if (event.key === " " && event.ctrlKey) {
      event.preventDefault();
      this.ask(true);
      return;
    }
    if (!this.open || event.ctrlKey || event.metaKey || event.altKey) return;
    const last = this.items.length - 1;
    const to = { ArrowDown: this.at === last ? 0 : this.at + 1, ArrowUp: this.at <= 0 ? last : this.at - 1 }[event.key];
    if (to !== undefined) this.go(to);
    else if (event.key === "Escape") this.close();
    else if (event.key === "Tab" && !event.shiftKey) this.take(Math.max(0, this.at));
    else if (event.key === "Enter" && this.at >= 0) this.take(this.at);
    else return;
    event.preventDefault();
  }
}
