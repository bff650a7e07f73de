/* What is written and not saved, kept by the browser: over a reload in its own tab, over closing by the document. */

let key = "";

/* Begin for a document; returns the text that was left unsaved in this tab, or in the last one that was open, or null. */
export function begin(document) {
  key = `blockdsl-draft:${document.file ?? document.name}`;
  try {
    return sessionStorage.getItem(key) ?? localStorage.getItem(key);
  } catch {
    return null;  // no storage here
  }
}

/* Keep a text, or with null nothing. */
export function keep(text) {
  for (const name of ["sessionStorage", "localStorage"]) {
    try {
      if (text === null) window[name].removeItem(key);
      else window[name].setItem(key, text);
    } catch { /* no storage here, or it is full */ }
  }
}
