/* From key to picture: asks the library for what is written, one question at a time, always the newest, and again when
   there was no answer. */

import { ask, NoAnswer } from "./ask.js";
import { by } from "./dom.js";

const AGAIN = 1000;  // milliseconds until a server that is gone is asked again
const LATEST = 100;  // until a frame is no longer waited for

let wanted = null, since = 0, busy = false, waiting = 0, lost = false;

/* Ask for this; `pictured(answer, request)` is called with the answer to the newest, and once there is none newer,
   `told(answer, request)` with what is to say about its text: the picture does not wait for that. */
export function live(pictured, told) {
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
      pictured(answer, request);
      if (!wanted) await drawn(typed);
      if (!wanted) told(await ask({ ...request, do: "read" }), request);
      if (!wanted) document.body.dataset.state = "shown";
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

/* The picture is of what is written, and painted before anything else is asked for; how long that took is for who
   measures it. A page that nobody sees has no frames. */
function drawn(typed) {
  document.body.dataset.state = "drawn";
  return new Promise((resolve) => {
    setTimeout(resolve, LATEST);
    requestAnimationFrame(() => setTimeout(() => {  // after the frame is painted
      performance.measure("key to picture", { start: typed });
      resolve();
    }));
  });
}

export function tell(words) {
  by("status").textContent = words;
  by("status").hidden = !words;
}
