/* The picture: drawn, scaled, and its blocks as places to go to with the keyboard. */

import { by } from "./dom.js";

const view = by("view");
const LEAST = 0.1, MOST = 4;

let scale = 1, fitted = true;
let boxes = [];  // {element, nodes}, from top to bottom
let shown = null;

/* Draw an SVG picture; null leaves the one before it, as one that is no longer of the text. */
export function draw(svg) {
  view.classList.toggle("stale", svg === null);
  if (svg === null || svg === shown) return;
  const focused = document.activeElement?.dataset?.node;
  const { scrollLeft, scrollTop } = view;
  shown = svg;
  view.innerHTML = svg;
  const root = view.firstElementChild;
  for (const text of root.querySelectorAll("[data-size]")) text.style.fontSize = `${text.dataset.size}px`;
  boxes = Array.from(root.querySelectorAll("[data-node]"), (element) => {
    element.setAttribute("role", "button");
    element.setAttribute("tabindex", -1);
    return { element, nodes: element.dataset.nodes.split(" ") };
  });
  boxes[0]?.element.setAttribute("tabindex", 0);
  resize();
  view.scrollTo(scrollLeft, scrollTop);
  if (focused) boxes.find((box) => box.element.dataset.node === focused)?.element.focus({ preventScroll: true });
}

function resize() {
  const root = view.firstElementChild;
  if (!root) return;
  const { width, height } = root.viewBox.baseVal;
  if (fitted) scale = Math.min(1, (view.clientWidth - 24) / width);
  root.setAttribute("width", width * scale);
  root.setAttribute("height", height * scale);
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
new ResizeObserver(() => { if (fitted) resize(); }).observe(view);

/* One tab stop: the arrows go from block to block. */
view.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target === view && ["+", "=", "-", "0"].includes(event.key)) {
    event.preventDefault();
    by({ "-": "out", 0: "fit" }[event.key] ?? "in").click();
    return;
  }
  const at = boxes.findIndex((box) => box.element === event.target);
  const to = { ArrowUp: at - 1, ArrowLeft: at - 1, ArrowDown: at + 1, ArrowRight: at + 1, Home: 0, End: boxes.length - 1 }[event.key];
  if (at < 0 || to === undefined) return;
  event.preventDefault();
  const next = boxes[Math.max(0, Math.min(to, boxes.length - 1))].element;
  boxes[at].element.setAttribute("tabindex", -1);
  next.setAttribute("tabindex", 0);
  next.focus();
});

/* The nodes of the box that an element is in. */
export function nodesAt(element) {
  const found = element.closest?.("[data-node]");
  return found ? found.dataset.nodes.split(" ") : [];
}

/* Light the boxes that stand for any of these nodes up; `reveal`: scroll to the first. */
export function light(nodes, reveal = false) {
  const set = new Set(nodes);
  let first = null;
  for (const { element, nodes: own } of boxes) {
    const lit = set.size > 0 && own.some((node) => set.has(node));
    element.classList.toggle("lit", lit);
    if (lit && first === null) first = element;
  }
  if (first && reveal) first.scrollIntoView({ block: "nearest", inline: "nearest" });
}
