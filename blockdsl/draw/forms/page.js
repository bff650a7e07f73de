"use strict";
(async () => {
  const by = (id) => document.getElementById(id);
  if (!self.DecompressionStream) {
    by("title").textContent = "This page needs a browser of 2023 or later.";
    return;
  }
  const bytes = Uint8Array.from(atob(by("data").textContent), (sign) => sign.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const data = await new Response(stream).json();
  const view = by("view"), picture = by("picture");

  /* An element with its properties and what is in it; text stays text. */
  function make(tag, properties, ...inside) {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...inside);
    return element;
  }
  const say = (text) => { by("live").textContent = text; };
  const name = (node) => data.nodes[node][0];
  const row = (node) => data.rows[data.nodes[node][1]];
  const some = (nodes, set) => nodes.some((node) => set.has(node));

  // Numbers: counts come as text and may be larger than a script's numbers ------------------------------------------

  const exact = (count) => count.toLocaleString("en");
  function short(count) {
    const units = [[15, "P"], [12, "T"], [9, "G"], [6, "M"], [3, "k"]];
    const found = units.find(([power]) => count >= 10n ** BigInt(power));
    return found ? `${Number((Number(count) / 10 ** found[0]).toPrecision(3))}\u00a0${found[1]}` : String(count);
  }
  function rounded(count, unit) {
    if (unit === "parameters") return short(count).replace("G", "B");  // 8.03 B, as they are told everywhere
    return short(count) + (unit && (count < 1000n ? `\u00a0${unit}` : unit));
  }
  function cell(count, unit = "") {
    const more = make("span", { className: "exact" }, exact(count));
    return count < 1000n ? [rounded(count, unit)] : [rounded(count, unit), more];
  }
  function total(nodes, what) {
    const tied = new Set();
    return nodes.reduce((sum, node) => {
      const own = row(node), tie = own.tie;
      const count = own[what] ?? (what === "active" ? own.parameters : undefined) ?? "0";
      const again = (what === "parameters" || what === "active") && tie && tied.has(tie);
      tied.add(tie);
      return again ? sum : sum + BigInt(count);
    }, 0n);
  }

  // The picture: folded or unfolded ---------------------------------------------------------------------------------

  let boxes = [];  // {element, nodes}, in reading order
  let unfolded = data.unfolded, chosen = [], hits = [], now = -1;

  /* Each line's shape, with the numbers that the shape had last and what is added to them. */
  function unpacked(lines) {
    const last = data.shapes.map(() => []);
    return lines.map(([shape, ...steps]) => {
      last[shape] = steps.map((step, i) => step + (last[shape][i] ?? 0));
      let i = 0;
      return data.shapes[shape].replaceAll("\x1f", () => last[shape][i++] / 100);
    }).join("\n");
  }
  function draw() {
    const drawn = data.pictures[unfolded ? data.pictures.length - 1 : 0];
    picture.innerHTML = unpacked(drawn.lines);
    const root = picture.firstElementChild;
    root.setAttribute("role", "group");
    boxes = [...root.querySelectorAll("[data-node]")].map((element, i) => ({ element, nodes: drawn.boxes[i] }));
    root.querySelector("title").remove();
    root.querySelector("desc").id = "alt";
    view.setAttribute("aria-describedby", "help alt");
    for (const box of boxes) {
      box.element.setAttribute("role", "button");
      box.element.setAttribute("aria-label", spoken(box.nodes));
    }
    boxes.sort((a, b) => a.nodes[0] - b.nodes[0]);
    rove(boxes.map((box) => box.element));
    for (const label of root.querySelectorAll(".repeat > text")) label.addEventListener("click", () => open(label));
    by("fold").setAttribute("aria-pressed", unfolded);
    marked();
  }
  function spoken(nodes) {
    const { title, code } = row(nodes[0]);
    const others = nodes.length > 1 ? ` to ${name(nodes.at(-1))}, ${nodes.length} blocks` : "";
    return `${title}${code ? `, ${code}` : ""}, ${name(nodes[0])}${others}`;
  }
  function fold(flag) {
    const kept = chosen[0], focused = picture.contains(document.activeElement);
    unfolded = flag;
    draw();
    search();
    const box = boxes.find((box) => box.nodes.includes(kept));
    if (box) choose(box.nodes);
    first();
    if (box) reveal(box.element);
    if (focused) (box?.element ?? view).focus({ preventScroll: true });
    say(unfolded ? "Every block is drawn." : "Each repeat is drawn once.");
  }
  /* Unfold, and go to what was inside the repeat. */
  function open(label) {
    const frame = label.parentNode.firstElementChild.getBoundingClientRect();
    const inside = boxes.find(({ element }) => {
      const { left, top } = element.getBoundingClientRect();
      return left >= frame.left && left <= frame.right && top >= frame.top && top <= frame.bottom;
    });
    fold(true);
    if (inside) reveal(boxes.find((box) => box.nodes.includes(inside.nodes[0])).element);
  }

  /* One tab stop for many elements. */
  function rove(elements, current = elements[0]) {
    for (const element of elements) element.setAttribute("tabindex", element === current ? 0 : -1);
  }
  function walk(elements, event, back, on) {
    const at = elements.indexOf(event.target);
    const to = { [back]: at - 1, [on]: at + 1, Home: 0, End: elements.length - 1 }[event.key];
    if (at < 0 || to === undefined) return false;
    event.preventDefault();
    const element = elements[Math.max(0, Math.min(to, elements.length - 1))];
    rove(elements, element);
    element.focus({ preventScroll: true });
    return true;
  }

  // Where it is seen from -------------------------------------------------------------------------------------------

  const MARGIN = 24, LEAST = 0.05, READABLE = 0.65, MOST = 8;
  let x = 0, y = 0, scale = 1;

  function place(moves = false) {
    picture.classList.toggle("moves", moves);
    picture.style.transform = `translate(${x}px, ${y}px) scale(${scale})`;
    by("zoom").textContent = `${Math.round(scale * 100)}%`;
  }
  const size = () => ["width", "height"].map((side) => Number(picture.firstElementChild.getAttribute(side)));
  function show(factor, top) {
    const [wide, high] = size();
    scale = Math.max(LEAST, Math.min(MOST, factor));
    x = (view.clientWidth - wide * scale) / 2;
    y = top ? 0 : (view.clientHeight - high * scale) / 2;
    place(true);
  }
  const fitting = () => { const [wide, high] = size(); return [view.clientWidth / wide, view.clientHeight / high]; };
  const fit = () => show(Math.min(...fitting(), 1.6), false);
  /* All of it where that can be read, else from its top on. */
  function first() {
    const [across, down] = fitting();
    const whole = Math.min(across, down, 1.4);
    if (whole >= READABLE) show(whole, false);
    else show(Math.min(1, Math.max(across, READABLE)), down < READABLE);
  }
  function zoom(factor, px = view.clientWidth / 2, py = view.clientHeight / 2, moves = false) {
    const after = Math.max(LEAST, Math.min(MOST, scale * factor));
    x = px - (px - x) * (after / scale);
    y = py - (py - y) * (after / scale);
    scale = after;
    place(moves);
  }
  function pan(dx, dy, moves = false) {
    x += dx;
    y += dy;
    place(moves);
  }
  /* Where an element is once all motion has ended. */
  function target(element) {
    picture.classList.remove("moves");
    const { left, top, right, bottom } = element.getBoundingClientRect(), frame = view.getBoundingClientRect();
    return { left: left - frame.left, top: top - frame.top, right: right - frame.left, bottom: bottom - frame.top };
  }
  function reveal(element) {
    const { left, top, right, bottom } = target(element);
    const shift = (low, high, room) =>
      low < MARGIN || high > room - MARGIN ? (room - low - high) / 2 : 0;
    pan(shift(left, right, view.clientWidth), shift(top, bottom, view.clientHeight), true);
  }

  const pointers = new Map();
  let moved = 0;
  view.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    pointers.set(event.pointerId, event);
    moved = pointers.size > 1 ? Infinity : 0;
  });
  view.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    pointers.set(event.pointerId, event);
    if (pointers.size === 1) {
      const dx = event.clientX - before.clientX, dy = event.clientY - before.clientY;
      moved += Math.abs(dx) + Math.abs(dy);
      if (moved < 4) return;
      view.setPointerCapture(event.pointerId);
      view.classList.add("dragged");
      pan(dx, dy);
    } else {
      const other = [...pointers.values()].find((one) => one.pointerId !== event.pointerId);
      const apart = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY) || 1;
      const frame = view.getBoundingClientRect();
      const middle = (side) => (event[side] + other[side]) / 2;
      zoom(apart(event) / apart(before), middle("clientX") - frame.left, middle("clientY") - frame.top);
    }
  });
  for (const kind of ["pointerup", "pointercancel"]) {
    view.addEventListener(kind, (event) => {
      pointers.delete(event.pointerId);
      view.classList.remove("dragged");
      setTimeout(() => { moved = 0; });  // after the click that ends a drag
    });
  }
  view.addEventListener("wheel", (event) => {
    event.preventDefault();
    const frame = view.getBoundingClientRect();
    const step = event.deltaY * (event.deltaMode === 1 ? 16 : 1);
    zoom(Math.exp(-Math.max(-200, Math.min(200, step)) / 400), event.clientX - frame.left, event.clientY - frame.top);
  }, { passive: false });
  view.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const box = boxes.find((box) => box.element === event.target);
    if (box && (event.key === "Enter" || event.key === " ")) {
      event.preventDefault();
      choose(box.nodes, true);
    } else if (!(box && !event.shiftKey && walk(boxes.map((each) => each.element), event, "ArrowUp", "ArrowDown"))) {
      const way = { ArrowUp: [0, 60], ArrowDown: [0, -60], ArrowLeft: [60, 0], ArrowRight: [-60, 0] }[event.key];
      if (!way) return;
      event.preventDefault();
      pan(...way);
    }
  });

  // A block and its text: under the pointer, and chosen -------------------------------------------------------------

  let bits = [];  // {element, nodes}
  function written() {
    for (const [heading, parts] of data.texts) {
      if (heading) by("text").append(make("h3", {}, heading));
      by("text").append(make("pre", {}, ...parts.map(([text, nodes]) => {
        if (!nodes.length) return text;
        const element = make("span", { className: "bit" }, text);
        element.setAttribute("role", "button");
        element.setAttribute("aria-label", `${text}, ${nodes.length} block${nodes.length > 1 ? "s" : ""}`);
        bits.push({ element, nodes });
        return element;
      })));
    }
    rove(bits.map((bit) => bit.element));
  }
  function marked() {
    const set = new Set(chosen), found = new Set(hits);
    for (const { element, nodes } of [...boxes, ...bits]) {
      element.classList.toggle("chosen", some(nodes, set));
      element.setAttribute("aria-pressed", some(nodes, set));
      element.classList.toggle("hit", found.has(element));
      element.classList.toggle("now", element === hits[now]);
    }
  }
  function light(list, nodes) {
    const set = new Set(nodes);
    for (const other of list) other.element.classList.toggle("lit", some(other.nodes, set));
  }
  const under = (list, event) => list.find(({ element }) => element.contains(event.target));
  for (const [area, from, to] of [[view, () => boxes, () => bits], [by("text"), () => bits, () => boxes]]) {
    for (const kind of ["pointerover", "focusin"]) {
      area.addEventListener(kind, (event) => {
        const own = under(from(), event);
        light(to(), own ? own.nodes : []);
        if (kind === "focusin" && own && area === view && own.element.matches(":focus-visible")) reveal(own.element);
      });
    }
    for (const kind of ["pointerleave", "focusout"]) area.addEventListener(kind, () => light(to(), []));
  }
  view.addEventListener("click", (event) => {
    if (moved >= 4) return;
    const box = under(boxes, event);
    if (box) choose(box.nodes, true);
    else if (!event.target.closest(".repeat > text")) choose([]);
  });
  function chooseText(bit) {
    const set = new Set(bit.nodes);
    const found = boxes.filter((box) => some(box.nodes, set));
    choose(bit.nodes, true);
    if (found.length) reveal(found[0].element);
  }
  by("text").addEventListener("click", (event) => {
    const bit = under(bits, event);
    if (bit) chooseText(bit);
  });
  by("text").addEventListener("keydown", (event) => {
    const bit = under(bits, event);
    if (bit && (event.key === "Enter" || event.key === " ")) {
      event.preventDefault();
      chooseText(bit);
    } else walk(bits.map((each) => each.element), event, "ArrowLeft", "ArrowRight");
  });

  // The details -----------------------------------------------------------------------------------------------------

  function choose(nodes, aloud = false) {
    chosen = nodes;
    marked();
    const box = boxes.find((box) => box.nodes.includes(nodes[0]));
    if (box) rove(boxes.map((each) => each.element), box.element);
    by("details").replaceChildren(...(nodes.length ? details(nodes) : overview()));
    if (aloud) say(`${spoken(nodes)}: ${exact(total(nodes, "parameters"))} parameters. Details follow the pattern.`);
  }
  const heading = (...inside) => make("h2", { id: "details-title" }, ...inside);
  function listed(rows, head) {
    const line = (tag, cells) => make("tr", {}, ...cells.map((inside) => make(tag, {}, ...[inside].flat())));
    const body = make("tbody", {}, ...rows.map((cells) => line("td", cells)));
    return head ? make("table", {}, make("thead", {}, line("th", head)), body) : make("table", {}, body);
  }
  function costs(nodes) {
    const active = nodes.some((node) => row(node).active) ? [["active", "active", "parameters"]] : [];
    const rows = [["parameters", "parameters", "parameters"], ...active, ["FLOPs", "flops", ""], ["cache", "cache", "B"]]
      .map(([label, what, unit]) => [label, BigInt(row(nodes[0])[what] ?? 0), total(nodes, what), unit])
      .filter(([, , all]) => all);
    if (!rows.length) return [];
    const many = nodes.length > 1, each = many && alike(nodes);
    const head = ["", ...(each ? ["each"] : []), `all ${nodes.length}`];
    const cells = rows.map(([label, one, all, unit]) => [label, ...(each ? [cell(one, unit)] : []), cell(all, unit)]);
    return [
      make("h3", {}, "Costs"), listed(cells, many ? head : undefined),
      sizes(),
    ];
  }
  const sizes = () => make("p", {}, `at ${data.at} a row, one row; the cache in ${data.dtype}`);
  const alike = (nodes) => nodes.every((node) => data.nodes[node][1] === data.nodes[nodes[0]][1]);
  function named(nodes) {
    const names = nodes.length > 6 ? [...nodes.slice(0, 4).map(name), "…", name(nodes.at(-1))] : nodes.map(name);
    return make("p", {}, names.join(", ") + (nodes.length > 1 ? ` (${nodes.length} blocks)` : ""));
  }
  /* Blocks of several sorts, as a macro makes them. */
  function mixture(nodes) {
    const sorts = new Map();
    for (const node of nodes) sorts.set(row(node), (sorts.get(row(node)) ?? 0) + 1);
    const cells = [...sorts].map(([{ title, code = "" }, times]) => [[title, " ", make("code", {}, code)], `×${times}`]);
    return [heading(`${nodes.length} blocks`), named(nodes), make("h3", {}, "Sorts"), listed(cells), ...costs(nodes)];
  }
  function details(nodes) {
    if (!alike(nodes)) return mixture(nodes);
    const own = row(nodes[0]);
    const out = [heading(own.title, ...(own.code ? [" ", make("code", {}, own.code)] : [])), named(nodes)];
    if (own.stage) out.push(make("p", {}, `stage ${own.stage}`));
    for (const note of own.notes ?? []) out.push(make("p", {}, note));
    if (own.tie) {
      const others = data.nodes.filter(([, at]) => data.rows[at].tie === own.tie).length;
      out.push(make("p", {}, `one set of parameters for all ${others} blocks @${own.tie}`));
    }
    out.push(...costs(nodes));
    const code = (text, weight) => make("span", { className: weight === 2 ? "mono set" : "mono" }, text);
    const options = (list) => listed(list.map(([key, value, weight]) => [code(key, weight), code(value, weight)]));
    const told = own.options?.filter(([, , weight]) => weight || !own.code) ?? [];
    const others = own.options?.filter(([, , weight]) => !weight && own.code) ?? [];
    if (told.length || others.length) out.push(make("h3", {}, "Options"));
    if (told.length) out.push(options(told));
    if (others.length) {
      out.push(make("details", {}, make("summary", {}, `${others.length} at their default`), options(others)));
    }
    if (own.shapes?.length) {
      out.push(make("h3", {}, "Shapes"), listed(own.shapes.map(([key, shape]) => [code(key), shape])));
    }
    return out;
  }
  function stages([title, stages]) {
    const every = stages.map(([stage, ...counts]) => [stage, ...counts.map(BigInt)]);
    const sums = [1, 2, 3, 4].map((i) => every.reduce((sum, line) => sum + line[i], 0n));
    const shown = (count, i) => (count ? rounded(count, ["parameters", "", "B"][i]) : "");
    const cells = [...every, ["total", ...sums]].map(([stage, blocks, ...counts]) =>
      [stage, blocks ? exact(blocks) : "", ...counts.map(shown)]);
    return [make("h3", {}, title || "Costs"), listed(cells, ["stage", "blocks", "parameters", "FLOPs", "cache"])];
  }
  function overview() {
    return [
      heading("Overview"), make("p", {}, "Choose a block to see its options, shapes and costs."),
      ...data.stages.flatMap(stages), sizes(),
    ];
  }

  // Search ----------------------------------------------------------------------------------------------------------

  /* What a node is found by: words that name it, its options that say something, and all its options. */
  function words(node) {
    const { title, code, kind = "", stage, tie, options = [], notes = [] } = row(node);
    const spelled = ([key, value]) => (value === "true" ? [key, `${key}=true`] : [key, `${key}=${value}`]);
    const names = [name(node), kind, code, tie && `@${tie}`, stage && `stage ${stage}`, title, ...title.split(/[\s-]+/)];
    const lower = (list) => list.filter(Boolean).map((word) => word.toLowerCase());
    const telling = options.filter(([, value, weight]) => weight === 2 || weight && !["false", "none"].includes(value));
    return {
      named: lower([...names, ...notes, ...telling.flatMap(spelled)]),
      any: lower(options.flatMap(spelled)),
    };
  }
  const index = data.nodes.map((_, node) => words(node));
  /* The nodes that a word names outright, else those that it is a part of, else those that have such an option. */
  function found(word) {
    const ways = [
      ({ named }) => named.includes(word), ({ any }) => word.includes("=") && any.includes(word),
      ({ named }) => named.some((each) => each.includes(word)), ({ any }) => any.some((each) => each.startsWith(word)),
    ];
    for (const way of ways) {
      const nodes = index.flatMap((each, node) => (way(each) ? [node] : []));
      if (nodes.length) return new Set(nodes);
    }
    return new Set();
  }
  function search() {
    const query = by("query").value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    const sets = query.map(found);
    const right = (node) => sets.every((set) => set.has(node));
    hits = query.length ? boxes.filter((box) => box.nodes.some(right)).map((box) => box.element) : [];
    now = -1;
    by("hits").textContent = query.length ? `${hits.length || "no"} hit${hits.length === 1 ? "" : "s"}` : "";
    by("next").disabled = by("back").disabled = !hits.length;
    marked();
  }
  function step(way) {
    if (!hits.length) return;
    now = now < 0 && way < 0 ? hits.length - 1 : (now + way + hits.length) % hits.length;
    const box = boxes.find((each) => each.element === hits[now]);
    choose(box.nodes);
    reveal(box.element);
    by("hits").textContent = `${now + 1} of ${hits.length}`;
    say(spoken(box.nodes));
  }
  by("query").addEventListener("input", search);
  by("search").addEventListener("submit", (event) => { event.preventDefault(); step(1); });
  by("back").addEventListener("click", () => step(-1));
  by("query").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && event.shiftKey) { event.preventDefault(); step(-1); }
    if (event.key === "Escape") { by("query").value = ""; search(); view.focus(); }
  });

  // Light and dark: the picture's style sheet and the page's ask for the reader's setting, and are told another one -

  const setting = matchMedia("(prefers-color-scheme: dark)");
  document.head.append(make("style", {}, data.style));
  const rules = [...document.styleSheets].flatMap((sheet) => [...sheet.cssRules])
    .filter((rule) => rule.conditionText?.includes("prefers-color-scheme"));
  let dark = setting.matches;
  function theme() {
    for (const rule of rules) rule.media.mediaText = dark ? "all" : "not all";
    by("dark").setAttribute("aria-pressed", dark);
  }
  setting.addEventListener("change", () => { dark = setting.matches; theme(); });
  by("dark").addEventListener("click", () => { dark = !dark; theme(); });

  // The buttons and their keys --------------------------------------------------------------------------------------

  const actions = {
    fold: () => fold(!unfolded), in: () => zoom(1.25, undefined, undefined, true),
    out: () => zoom(0.8, undefined, undefined, true), fit,
  };
  const keys = { u: "fold", "+": "in", "=": "in", "-": "out", 0: "fit" };
  for (const [id, action] of Object.entries(actions)) by(id).addEventListener("click", action);
  document.addEventListener("keydown", (event) => {
    if (event.target === by("query") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "/") { event.preventDefault(); by("query").select(); by("query").focus(); }
    if (event.key === "Escape") choose([]);
    if (keys[event.key]) actions[keys[event.key]]();
  });

  by("title").textContent = data.title;
  by("fold").disabled = data.pictures.length < 2;
  theme();
  written();
  draw();
  search();
  choose([]);
  first();
  document.body.dataset.ready = "";
})();
