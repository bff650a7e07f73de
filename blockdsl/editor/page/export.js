/* Files for the person: what the library exports, PNG made of its SVG, and the text itself. */

import { ask } from "./ask.js";
import { fixed } from "./theme.js";
import { make } from "./dom.js";

const SCALE = 2;  // pixels of a PNG for one of the picture
const LARGEST = 16000;  // pixels of a side that browsers draw

/* Hand a file to the person. */
export function download(name, content, type) {
  const url = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

/* Export in one of the library's forms; returns the words of what went wrong, or "". */
export async function exported(form, name, request) {
  const answer = await ask({ ...request, do: "export", form });
  if (!answer.ok) return answer.problem;
  const { content, suffix, type } = answer, stem = name.replace(/\.\w+$/, "").replace(/[^\w.-]+/g, "-") || "pattern";
  if (form === "png") download(`${stem}.png`, await png(fixed(content)));
  else download(stem + suffix, content, type);
  return "";
}

async function png(svg) {
  const url = URL.createObjectURL(new Blob([svg], { type: "image/svg+xml" }));
  try {
    const image = new Image();
    image.src = url;
    await image.decode();
    const scale = Math.min(SCALE, LARGEST / image.width, LARGEST / image.height);
    const canvas = make("canvas", { width: Math.ceil(image.width * scale), height: Math.ceil(image.height * scale) });
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    return await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  } finally {
    URL.revokeObjectURL(url);
  }
}
