/* From key to picture: asks the library for what is written, one question at a time, always the newest, and again when
   there was no answer. */

import { ask, NoAnswer } from "./ask.js";
import { by } from "./dom.js";

const AGAIN = 1000;  // milliseconds until a server that is gone is asked again

let wanted = null, since = 0, busy = false, waiting = 0, lost = false;

/* Ask for this; `answered(answer, request)` is called with the answer to the newest. */
export function live(answered) {
  async function run() {
    clearTimeout(waiting);
    if (busy || !wanted) return;
    busy = true;
    const request = wanted, typed = since;
    wanted = null;
    try {
      const answer = await ask(request);
      if (lost) tell("");
      lost = false;
      answered(answer, request);
      if (!wanted) shown(typed);
    } catch (error) {
      if (!(error instanceof NoAnswer)) throw error;
      wanted ??= request;
      lost = true;
      tell(error.message);
      waiting = setTimeout(run, AGAIN);
      return;
    } finally {
      busy = false;
    }
    run();
  }
  return (request) => {
    wanted = request;
    since = performance.now();
    document.body.dataset.state = "asking";
    run();
  };
}

/* The picture is of what is written; how long that took is for who measures it. */
function shown(typed) {
  document.body.dataset.state = "shown";
  requestAnimationFrame(() => setTimeout(() => {  // after the frame is painted
    performance.measure("key to picture", { start: typed });
  }));
}

export function tell(words) {
  by("status").textContent = words;
  by("status").hidden = !words;
}
