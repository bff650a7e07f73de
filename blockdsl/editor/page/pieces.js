/* A picture of the pieces that the library sends. What is as it was stays in the document: a block that has moved is
   moved, and a new one is a copy of its shape. */

const SVG = "http://www.w3.org/2000/svg";
const CHUNK = 64;  // lines of one path: a longer one is slow to paint

export function element(tag, attributes = {}) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

/* Elements in a row, each a shape at a place: {shape, x, y, element}. */
class Row {
  constructor(parent) {
    this.layer = element("g");
    this.items = [];
    parent.append(this.layer);
  }

  /* The numbers are of other shapes now. */
  forget() {
    for (const { element } of this.items) element.remove();
    this.items = [];
  }

  /* Show these, with `made(shape)` for what is new. Those at the start and at the end that have the same shapes stay. */
  show(items, made) {
    const before = this.items, most = Math.min(items.length, before.length);
    let start = 0, end = 0;
    while (start < most && before[start].shape === items[start].shape) start++;
    while (end < most - start && before.at(-1 - end).shape === items.at(-1 - end).shape) end++;
    for (const { element } of before.slice(start, before.length - end)) element.remove();
    const next = end ? before.at(-end).element : null;
    const added = document.createDocumentFragment();
    items.forEach((item, i) => {
      const kept = i < start ? before[i] : i >= items.length - end ? before[i - items.length + before.length] : null;
      item.element = kept ? kept.element : made(item.shape);
      if (kept?.x !== item.x || kept.y !== item.y) item.element.setAttribute("transform", `translate(${item.x} ${item.y})`);
      if (!kept) added.append(item.element);
    });
    this.layer.insertBefore(added, next);
    this.items = items;
  }
}

/* Lines that are alike, as paths of some of them each. */
class Lines {
  constructor(parent) {
    this.layer = element("g");
    this.paths = [];  // {element, classes, way}
    parent.append(this.layer);
  }

  /* Show these, by their classes, each [number of its way, x, y]. */
  show(lines, ways) {
    const wanted = lines.flatMap(([classes, strokes]) => Array.from({ length: Math.ceil(strokes.length / CHUNK) }, (_, i) => {
      const own = strokes.slice(i * CHUNK, (i + 1) * CHUNK);
      return { classes, way: own.map(([number, x, y]) => `M${x} ${y}${ways[number]}`).join("") };
    }));
    while (this.paths.length > wanted.length) this.paths.pop().element.remove();
    wanted.forEach((line, i) => {
      const kept = this.paths[i] ?? { element: this.layer.appendChild(element("path")) };
      if (kept.classes !== line.classes) kept.element.setAttribute("class", line.classes);
      if (kept.way !== line.way) kept.element.setAttribute("d", line.way);
      this.paths[i] = { ...line, element: kept.element };
    });
  }
}

/* The picture in the document.

   `root` is its element; `boxes` are those that stand for nodes, {element, nodes}, in order. */
export class Pieces {
  constructor(view) {
    this.root = element("svg", { class: "blockdsl", role: "group" });
    this.title = this.root.appendChild(element("title"));
    this.words = this.root.appendChild(element("desc"));
    this.body = this.root.appendChild(element("g"));
    this.frames = new Row(this.body);
    this.lines = new Lines(this.body);
    this.row = new Row(this.body);
    this.upper = this.body.appendChild(element("g"));
    this.name = "";  // by which the library knows what the page has been told
    this.shapes = [];  // by number: the text, or the element that was made of it
    this.ways = [];  // of lines, by number
    this.rows = new Map();  // of the picture, by their names
    this.number = 0;  // the picture's
    this.boxes = [];
    view.replaceChildren(this.root);
  }

  /* What the library need not tell again. */
  known() {
    return { name: this.name, shapes: this.shapes.length, paths: this.ways.length, picture: this.number };
  }

  show(picture) {
    const { frames, boxes, lines } = this.learn(picture);
    const [width, height] = picture.size;
    this.root.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.root.setAttribute("aria-label", picture.title);
    this.title.textContent = picture.title;
    this.words.textContent = picture.alt;
    this.body.setAttribute("transform", `translate(${picture.moved.join(" ")})`);
    const made = (shape) => this.made(shape);
    this.frames.show(frames.map(([shape, x, y]) => ({ shape, x, y })), made);
    this.lines.show(lines, this.ways);
    const items = boxes.map(([shape, x, y, ...nodes]) => ({ shape, x, y, nodes }));
    this.row.show(items, made);
    this.boxes = items.filter(({ nodes }) => nodes.length);
    for (const { element, nodes } of this.boxes) {
      if (element.dataset.node !== nodes[0]) element.dataset.node = nodes[0];
    }
    if (picture.upper !== this.written) {
      this.upper.innerHTML = this.written = picture.upper;
      for (const text of this.upper.querySelectorAll("[data-size]")) text.style.fontSize = `${text.dataset.size}px`;
    }
  }

  /* What is new to the page, put into what it knows; returns the rows of the picture. */
  learn({ name, picture, shapes: [shape, shapes], paths: [way, ways], rows }) {
    if (name !== this.name) {
      this.name = name;
      this.frames.forget();
      this.row.forget();
    }
    this.shapes.splice(shape, Infinity, ...shapes);
    this.ways.splice(way, Infinity, ...ways);
    this.rows = new Map(Object.entries(rows).map(([row, [start, end, between]]) => {
      const before = this.rows.get(row) ?? [];
      return [row, [...before.slice(0, start), ...between, ...before.slice(before.length - end)]];
    }));
    this.number = picture;
    const { frames, boxes } = Object.fromEntries(this.rows);
    return { frames, boxes, lines: [...this.rows].filter(([row]) => row !== "frames" && row !== "boxes") };
  }

  /* A new element of this shape. */
  made(shape) {
    let known = this.shapes[shape];
    if (typeof known === "string") {
      const parsed = element("g");
      parsed.innerHTML = known;
      known = parsed.firstElementChild;
      if (known.matches(".block, .node")) {
        known.setAttribute("role", "button");
        known.setAttribute("tabindex", -1);
        const words = [...known.querySelectorAll("text")].map((text) => text.textContent).join(" ");
        if (words) known.setAttribute("aria-label", words);  // a block has its name where words are too small to be shown
      }
      this.shapes[shape] = known;
    }
    return known.cloneNode(true);
  }
}
