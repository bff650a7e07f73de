/* Another name for the definition, label, tie or stage that the caret is on, at all its places. */

import { ask } from "./ask.js";
import { by } from "./dom.js";
import { offsets } from "./offsets.js";

const dialog = by("renaming"), input = by("new-name"), problem = by("rename-problem");
let apply = null;  // what Enter does

/* Ask for the name, and write it; returns the words of why there is nothing to rename, or "". */
export async function renamed(text) {
  const { toLibrary } = offsets(text.text);
  const request = { text: text.text, offset: toLibrary(text.area.selectionStart) };
  const found = await ask({ ...request, do: "name" });
  if (!found.ok) return found.problem;
  by("rename-title").textContent = `Rename ${found.what} ${found.name}`;
  by("rename-places").textContent = found.places === 1 ? "1 place" : `${found.places} places`;
  input.value = found.name;
  problem.textContent = "";
  apply = async () => {
    const answer = await ask({ ...request, do: "rename", name: input.value.trim() });
    problem.textContent = answer.ok ? "" : answer.problem;
    if (!answer.ok) return;
    dialog.close();
    if (answer.text === text.text) return;
    text.replace(0, text.text.length, answer.text, offsets(answer.text).toScript(answer.offset));
  };
  dialog.showModal();
  input.select();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  text.area.focus();
  return "";
}

dialog.querySelector("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    await apply();
  } catch (error) {  // no answer
    problem.textContent = error.message;
  }
});
by("rename-close").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
