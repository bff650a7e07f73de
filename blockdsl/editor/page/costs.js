/* The costs: of all, and by stage. */

import { by, make } from "./dom.js";

const COLUMNS = [["parameters", "parameters", "parameters"], ["active", "active", "parameters"], ["flops", "FLOPs a token", ""], ["cache", "cache a row", "B"]];

export function show(costs) {
  by("costs").classList.toggle("stale-costs", !costs);
  if (!costs) return;
  const columns = COLUMNS.filter(([name]) => costs.total[name]);
  by("totals").replaceChildren(...columns.map(([name, label, unit]) => {
    const [short, exact] = costs.total[name];
    return make("div", { title: `${exact}${unit === "B" ? " bytes" : ""}` }, make("dt", {}, label), make("dd", {}, with_(short, unit)));
  }));
  by("stages").hidden = costs.stages.length < 2;
  const head = make("tr", {}, ...["stage", "blocks", ...columns.map(([, label]) => label.replace(/ a (token|row)$/, ""))].map((title) => make("th", { scope: "col" }, title)));
  const rows = costs.stages.map((row) => make("tr", {}, make("td", {}, row.stage), make("td", {}, row.blocks ? String(row.blocks) : ""),
    ...columns.map(([name, , unit]) => make("td", { title: row[name]?.[1] ?? "" }, row[name] ? with_(row[name][0], unit) : ""))));
  by("stages").replaceChildren(make("thead", {}, head), make("tbody", {}, ...rows));
}

/* A number with a unit behind its letter, 1.05 kB; parameters as they are told everywhere, 8.03 B. */
function with_(short, unit) {
  if (unit === "parameters") return short.replace("G", "B");
  return unit ? (/[a-zA-Z]$/.test(short) ? short + unit : `${short} ${unit}`) : short;
}
