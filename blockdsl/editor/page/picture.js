/* The picture: drawn, scaled, and its blocks as places to go to with the keyboard. */

import { by } from "./dom.js";
import { element, Pieces } from "./pieces.js";

const view = by("view");
const LEAST = 0.1, MOST = 4, READABLE = 0.25;

let scale = 1, fitted = true;
let shown = null;  // the Pieces
let room = view.clientWidth - 24;  // across
let stop = null;  // the block that Tab goes to
let lit = [], told = [];  // boxes; blocks with a tooltip

/* What the library need not send again. */
export const known = () => shown?.known() ?? {};

/* Draw a picture in pieces; null leaves the one before it, as one that is no longer of the text. */
export function draw(picture) {
  view.classList.toggle("stale", picture === null);
  if (picture === null) return;
  const focused = document.activeElement?.dataset?.node;
  shown ??= new Pieces(view);
  for (const title of told.splice(0)) title.remove();
  shown.show(picture);
  if (!stop?.isConnected) rove(shown.boxes[0]?.element);
  resize();
  if (focused && !document.activeElement.dataset.node) {
    shown.boxes.find(({ nodes }) => nodes[0] === focused)?.element.focus({ preventScroll: true });
  }
}

function rove(block) {
  stop?.setAttribute("tabindex", -1);
  block?.setAttribute("tabindex", 0);
  stop = block ?? null;
}

function resize() {
  if (!shown) return;
  const { width, height } = shown.root.viewBox.baseVal;
  if (fitted) scale = Math.min(1, room / width);
  shown.root.setAttribute("width", width * scale);
  shown.root.setAttribute("height", height * scale);
  shown.root.classList.toggle("far", scale < READABLE);
  by("zoom").textContent = `${Math.round(scale * 100)}%`;
  by("fit").setAttribute("aria-pressed", fitted);
}

/* Scale by a factor; what is at a point of the view stays there. */
function zoom(factor, x = view.clientWidth / 2, y = view.clientHeight / 2) {
  const before = scale;
  scale = Math.max(LEAST, Math.min(MOST, scale * factor));
  fitted = false;
  const [left, top] = [(view.scrollLeft + x) * scale / before - x, (view.scrollTop + y) * scale / before - y];
  resize();
  view.scrollTo(left, top);
}
by("in").addEventListener("click", () => zoom(1.25));
by("out").addEventListener("click", () => zoom(0.8));
by("fit").addEventListener("click", () => { fitted = true; resize(); });
view.addEventListener("wheel", (event) => {
  if (!event.ctrlKey && !event.metaKey) return;
  event.preventDefault();
  const frame = view.getBoundingClientRect();
  zoom(Math.exp(-event.deltaY / 400), event.clientX - frame.left, event.clientY - frame.top);
}, { passive: false });
new ResizeObserver(() => { room = view.clientWidth - 24; if (fitted) resize(); }).observe(view);

/* One tab stop: the arrows go from block to block. */
view.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target === view && ["+", "=", "-", "0"].includes(event.key)) {
    event.preventDefault();
    by({ "-": "out", 0: "fit" }[event.key] ?? "in").click();
    return;
  }
  const boxes = shown?.boxes ?? [], at = boxes.findIndex((box) => box.element === event.target);
  const to = { ArrowUp: at - 1, ArrowLeft: at - 1, ArrowDown: at + 1, ArrowRight: at + 1, Home: 0, End: boxes.length - 1 }[event.key];
  if (at < 0 || to === undefined) return;
  event.preventDefault();
  rove(boxes[Math.max(0, Math.min(to, boxes.length - 1))].element);
  stop.focus();
});

/* The box that an element is in. */
function boxAt(inside) {
  const block = inside.closest?.("[data-node]");
  return block ? shown.boxes.find((box) => box.element === block) : undefined;
}

/* The nodes of the box that an element is in. */
export const nodesAt = (inside) => boxAt(inside)?.nodes ?? [];

/* Light the boxes that stand for any of these nodes up; `reveal`: scroll to the first. */
export function light(nodes, reveal = false) {
  const set = new Set(nodes);
  for (const { element } of lit) element.classList.remove("lit");
  lit = set.size ? shown?.boxes.filter((box) => box.nodes.some((node) => set.has(node))) ?? [] : [];
  for (const { element } of lit) element.classList.add("lit");
  if (lit.length && reveal) lit[0].element.scrollIntoView({ block: "nearest", inline: "nearest" });
}

/* A block that is pointed at, or has the focus, has a tooltip: `asked(node)` gives its words. */
export function explain(asked) {
  for (const kind of ["pointerover", "focusin"]) {
    view.addEventListener(kind, async (event) => {
      const block = boxAt(event.target)?.element, node = block?.dataset.node;
      if (!block || block.querySelector(":scope > title")) return;
      const title = element("title");
      told.push(title);
      block.prepend(title);
      title.textContent = await asked(node);
    });
  }
}
