/* Elements: finding and making them. */

export const by = (id) => document.getElementById(id);

/* An element with its properties and what is in it; text stays text. */
export function make(tag, properties = {}, ...inside) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...inside);
  return element;
}

/* Say something to who hears the page. */
export function say(words) { by("live").textContent = words; }
