/* The page: what its parts are, and who tells whom. */

import { ask } from "./ask.js";
import { Completion } from "./complete.js";
import * as costs from "./costs.js";
import { by, make, say } from "./dom.js";
import * as drafts from "./drafts.js";
import { download, exported } from "./export.js";
import * as light from "./light.js";
import { live, tell } from "./live.js";
import { choose } from "./menu.js";
import { offsets } from "./offsets.js";
import * as picture from "./picture.js";
import * as problems from "./problems.js";
import { renamed } from "./rename.js";
import { style } from "./theme.js";
import { COLOURS, Text } from "./text.js";

const [opened, known] = await Promise.all([ask({ do: "open" }), ask({ do: "start" })]);

// What can be chosen

for (const [id, names] of [["detail", known.details], ["color", known.colors], ["dtype", known.dtypes]]) {
  by(id).append(...names.map((name) => make("option", {}, name)));
}
by("dtype").value = "float32";
style(known.style);

// The texts

const text = new Text(by("text"), "Pattern", edited);
let against = null;  // a Text, once it is asked for
let writing = text;  // which of the two the caret was in last
document.addEventListener("focusin", ({ target }) => { writing = [text, against].find((each) => each?.area === target) ?? writing; });
const lit = new Map([["text", light.watch(text)]]);
const settings = () => opened.settings;
new Completion(text, settings);

const look = live(drawn, told);
let pictured = null;  // the request whose picture is shown
function request() {
  return {
    do: "look", text: text.text, settings: settings(), against: comparing() ? against.text : null,
    detail: by("detail").value, color: by("color").value, unfold: by("unfold").ariaPressed === "true",
    get known() { return picture.known(); },  // when it is asked: pictures may come between that and the key
    seq_len: Math.max(1, Math.floor(Number(by("length").value)) || 1), dtype: by("dtype").value,
  };
}
let refused = "";  // why something was not done, until something else is asked for
function refuse(words) {
  refused = words;
  tell(words);
}
function ask_again() {
  if (refused && by("status").textContent === refused) tell("");
  refused = "";
  look(request());
}
function edited() {
  ask_again();
  drafts.keep(text.text === saved ? null : text.text);
  marked();
}

function drawn(answer, asked) {
  if (!answer.ok) {
    refuse(answer.problem);
    return;
  }
  picture.draw(answer.picture);
  if (answer.picture) pictured = asked;
  costs.show(answer.costs);
  by("changes").hidden = !answer.changes;
  by("changes").lastElementChild.textContent = answer.changes ?? "";
}

function told(answer, asked) {
  if (!answer.ok) return;  // the picture's answer has said why
  const texts = [["text", text], ["against", against]].filter(([name, own]) => answer[name] && own.text === asked[name]);
  const faults = texts.map(([name, own]) => {
    const told = answer[name], { toScript } = offsets(own.text), placed = problems.placed(own.text, told.faults);
    for (const [colour, marks] of coloured(told.tokens, toScript)) own.mark(colour, marks);
    problems.underline(own, placed);
    light.place(lit.get(name), told.spans);
    return [own, placed];
  });
  problems.list(by("problems"), faults);
  light.caret();
}

/* Where each colour is. Of a token there are three numbers: how far after the one before it starts, how long it is, and
   the number of its type. */
const COLOUR_OF = known.types.map((type) => Object.keys(COLOURS).find((colour) => COLOURS[colour].includes(type)));
function coloured(tokens, toScript) {
  const marks = new Map(Object.keys(COLOURS).map((colour) => [colour, []]));
  for (let i = 0, at = 0; i < tokens.length; i += 3) {
    const start = at + tokens[i];
    at = start + tokens[i + 1];
    marks.get(COLOUR_OF[tokens[i + 2]])?.push([toScript(start), toScript(at)]);
  }
  return marks;
}

picture.explain(async (node) => (await ask({ ...pictured, do: "tip", node }).catch(() => null))?.text ?? "");

// Words on what the caret is in

let helping = 0;
document.addEventListener("selectionchange", () => {
  clearTimeout(helping);
  helping = setTimeout(help, 120);
});
async function help() {
  const own = [text, against].find((each) => each?.area === document.activeElement);
  if (!own) return;
  const { toLibrary } = offsets(own.text);
  const answer = await ask({ do: "hover", text: own.text, offset: toLibrary(own.area.selectionStart), settings: settings() }).catch(() => null);
  if (answer?.ok) by("help").textContent = answer.text;
}

// A second text to hold it against

const comparing = () => by("compare").ariaPressed === "true";
by("compare").addEventListener("click", () => {
  const on = !comparing();
  by("compare").ariaPressed = on;
  by("against").hidden = !on;
  if (on && !against) {
    const choice = make("button", { title: "A published model" }, "Choose…");
    by("against").append(make("h2", {}, "Held against", choice));
    against = new Text(by("against"), "Held against", ask_again);
    lit.set("against", light.watch(against));
    new Completion(against, settings);
    choice.addEventListener("click", async () => {
      const entry = await choose("Hold it against", models(), "Search models");
      if (entry) against.replace(0, against.text.length, entry.text);
    });
  }
  if (on && !against.text) against.open(text.text);
  by("color").disabled = by("unfold").disabled = on;
  ask_again();
});
const models = () => known.menu.filter((entry) => entry.text);

// The buttons

for (const id of ["detail", "color", "dtype"]) by(id).addEventListener("change", ask_again);
by("length").addEventListener("input", ask_again);
by("unfold").addEventListener("click", () => {
  by("unfold").ariaPressed = by("unfold").ariaPressed !== "true";
  ask_again();
});
for (const id of ["undo", "redo"]) {
  by(id).addEventListener("click", () => { text.area.focus(); document.execCommand(id); });
}
const actions = {
  async insert() {
    const { selectionStart: start, selectionEnd: end } = text.area;  // before the menu has the focus, which may lose it
    const entry = await choose("Insert", known.menu, "Search models, macros and kinds of blocks");
    if (!entry) return;
    if (entry.text !== undefined) text.replace(0, text.text.length, entry.text);
    else {
      const space = (sign) => (/[\w)*]/.test(sign ?? "") ? " " : "");
      text.replace(start, end, space(text.text[start - 1]) + entry.insert + space(text.text[end]));
    }
  },
  async format() {
    const answer = await ask({ do: "format", text: text.text });
    if (!answer.ok) say(answer.problem);
    else if (answer.text !== text.text) text.replace(0, text.text.length, answer.text, Math.min(text.area.selectionStart, answer.text.length));
  },
  async export() {
    const forms = known.forms.map((form) => ({ name: form.label, help: form.help, form: form.name }));
    const entry = await choose("Export", forms, "Search forms");
    if (entry) refuse(await exported(entry.form, opened.name, request()));
  },
  async rename() {
    const problem = await renamed(writing);
    if (problem) refuse(problem);
  },
  async save() { await save(seen); },
};
for (const [id, action] of Object.entries(actions)) by(id).addEventListener("click", () => attempt(action));
const keys = { "Ctrl+s": "save", "Ctrl+k": "insert", "Ctrl+e": "export", "Shift+Alt+f": "format", F2: "rename" };
document.addEventListener("keydown", (event) => {
  const key = event.altKey && /^Key[A-Z]$/.test(event.code) ? event.code.slice(3).toLowerCase() : event.key.replace(/^[A-Z]$/, (letter) => letter.toLowerCase());
  const held = [["Ctrl", event.ctrlKey || event.metaKey], ["Shift", event.shiftKey], ["Alt", event.altKey]];
  const id = keys[[...held.filter(([, is]) => is).map(([name]) => name), key].join("+")];
  if (!id) return;
  event.preventDefault();
  if (!document.querySelector("dialog[open]")) attempt(actions[id]);
});
async function attempt(action) {
  try {
    await action();
  } catch (error) {
    tell(error.message);
  }
}

// Saving

let { text: saved, seen } = opened;  // what the file holds; another tab or program may write it too
function marked() {
  by("saved").textContent = text.text === saved ? "" : "not saved";
  document.title = `${text.text === saved ? "" : "• "}${opened.name} – blockdsl`;
}
async function save(over) {
  const written = text.text;
  if (opened.file === null) {
    download(`${opened.name.replace(/^zoo:/, "").replace(/\.\w+$/, "")}.pattern`, written, "text/plain");
  } else {
    const answer = await ask({ do: "save", text: written, seen: over });
    if (answer.changed) {
      const anyway = make("button", {}, "Save over it");
      anyway.addEventListener("click", () => attempt(() => save(null)));
      tell(`${answer.problem}. `);
      by("status").append(anyway);
    }
    if (!answer.ok) {
      if (!answer.changed) tell(answer.problem);
      return;
    }
    tell("");
    seen = answer.seen;
  }
  saved = written;
  drafts.keep(text.text === saved ? null : text.text);
  marked();
  say("Saved.");
}

by("name").textContent = opened.name;
if (opened.file !== null) by("name").title = opened.file;
const draft = drafts.begin(opened);
text.open(draft ?? opened.text);
if (draft !== null && draft !== opened.text) {
  const back = make("button", {}, "Take the saved text");
  back.addEventListener("click", () => { text.replace(0, text.text.length, opened.text); tell(""); });
  tell("This is what you had written and not saved. ");
  by("status").append(back);
}
marked();
text.area.focus();
ask_again();
document.body.dataset.ready = "";
