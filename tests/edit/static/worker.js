/* Python with the library, beside the page: a question as JSON → its answer. */

import { loadPyodide } from "./pyodide/pyodide.mjs";

const START = `
import json
from blockdsl.editor.respond import respond

def answer(request):
    return json.dumps(respond(json.loads(request)))
`;

async function load() {
  const python = await loadPyodide();
  for (const wheel of await (await fetch("wheels.json")).json()) {
    python.unpackArchive(await (await fetch(wheel)).arrayBuffer(), "wheel");
  }
  python.runPython(START);
  return python.globals.get("answer");
}

const loaded = load();
loaded.then(() => postMessage({ ready: true }), (error) => postMessage({ failed: error.message }));
addEventListener("message", async ({ data: { number, request } }) => {
  postMessage({ number, answer: JSON.parse((await loaded)(request)) });
});
