/* Places in a text: the library counts characters, a script counts UTF-16 units. They differ after an emoji. */

export function offsets(text) {
  if (!/[\ud800-\udfff]/.test(text)) return { toScript: (at) => at, toLibrary: (at) => at };
  const starts = [];
  let units = 0;
  for (const character of text) {
    starts.push(units);
    units += character.length;
  }
  starts.push(units);
  return {
    toScript: (at) => starts[Math.min(at, starts.length - 1)],
    toLibrary: (unit) => { const at = starts.findIndex((start) => start >= unit); return at < 0 ? starts.length - 1 : at; },
  };
}
