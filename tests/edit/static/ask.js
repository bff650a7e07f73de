/* How the page asks the library: here by a Python of its own, in a worker. The same names as with a server. */

import { by } from "./dom.js";

export class NoAnswer extends Error {}

const waiting = new Map();
let number = 0, failed = "";
const worker = new Worker("worker.js", { type: "module" });
worker.addEventListener("message", ({ data }) => {
  if (data.ready) by("status").hidden = true;
  if (data.failed) fail(data.failed);
  waiting.get(data.number)?.resolve(data.answer);
  waiting.delete(data.number);
});
worker.addEventListener("error", (event) => fail(event.message));
by("status").textContent = "Python is being loaded, once.";
by("status").hidden = false;

function fail(words) {
  failed = by("status").textContent = `Python could not be loaded: ${words}`;
  for (const { reject } of waiting.values()) reject(new NoAnswer(failed));
  waiting.clear();
}

export function ask(request) {
  if (request.do === "open") {
    const text = new URLSearchParams(location.hash.slice(1)).get("text") ?? "(a f)*6\n";
    return Promise.resolve({ ok: true, text, name: "pattern", file: null, seen: "", settings: {} });
  }
  if (failed) return Promise.reject(new NoAnswer(failed));
  const own = number++;
  return new Promise((resolve, reject) => {
    waiting.set(own, { resolve, reject });
    worker.postMessage({ number: own, request: JSON.stringify(request) });
  });
}
