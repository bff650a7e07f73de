/* Python with the library, beside the page: a question as JSON → its answer. */

import { loadPyodide } from "./pyodide/pyodide.mjs";

const START = `
import gc
import json
from blockdsl.editor.respond import respond

def answer(request):
    return json.dumps(respond(json.loads(request)))

gc.disable()  # as the server does: it would look for garbage in the middle of answers
answer, gc.collect
`;
const QUIET = 5000; // milliseconds without a key

async function load() {
  const python = await loadPyodide();
  for (const wheel of await (await fetch("wheels.json")).json()) {
    python.unpackArchive(await (await fetch(wheel)).arrayBuffer(), "wheel");
  }
  const [answer, collect] = python.runPython(START);
  return { answer, collect };
}

let idle;

const loaded = load();
loaded.then(() => postMessage({ ready: true }), (error) => postMessage({ failed: error.message }));
addEventListener("message", async ({ data: { number, request } }) => {
  const { answer, collect } = await loaded;
  clearTimeout(idle);
  postMessage({ number, answer: JSON.parse(answer(request)) });
  idle = setTimeout(() => collect(), QUIET);
});
