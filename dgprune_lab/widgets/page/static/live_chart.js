// One chart, drawn by the page's own Vega, with the inputs that it binds.

import { chartMenu } from "./chart_menu.js";
import { lendKeys, node } from "./elements.js";
import { inked } from "./memory.js";
import { endPage, loadVega, redraw } from "./views.js";
import { watchTheme } from "./watch.js";

// `given` holds the specification and the reference of the page's Vega (`fixed`), the model and its `host`.
export function drawChart(el, given) {
  const page = { ...given, chart: null, embed: null, schedule: () => {} };
  page.box = node("div", { class: "dgx-live-chart-box" });
  const framed = node("div", { class: "dgx-framed" }, page.box, chartMenu(() => page.chart));
  page.root = node("div", { class: "dgx dgx-live-chart", "data-theme": page.fixed.theme }, framed);
  el.append(page.root);
  const stops = [watchTheme(page, () => embed(page)), lendKeys(page.root)];
  loadVega(page, embed, [page.box]);
  return () => endPage(page, stops);
}

// A change of theme draws the chart anew; what its inputs were set to is kept.
function embed(page) {
  if (!page.embed) return;
  const set = page.chart?.view ? page.chart.signals(page.chart.view) : {};
  redraw(page, (inks) => inkedSpec(page.fixed.spec, inks), { fit: false });
  const holder = page.chart;
  const bound = (page.fixed.spec.params ?? []).filter(({ bind }) => bind && typeof bind === "object").map(({ name }) => name);
  holder.signals = (view) => Object.fromEntries(bound.map((name) => [name, view.signal(name)]));
  const restore = () => {
    if (!holder.view || !Object.keys(set).length) return;
    for (const [name, value] of Object.entries(set)) holder.view.signal(name, value);
    holder.view.run();
  };
  holder.ready.then(restore, () => {}); // an error is shown in the box
}

// On a dark page the colours in the rows are mixed with white.
function inkedSpec(spec, { dark, ink }) {
  if (!dark) return spec;
  const visit = (part) => {
    if (Array.isArray(part)) return part.map(visit);
    if (!part || typeof part !== "object") return part;
    const rows = Array.isArray(part.values) && part.values.every((row) => row && typeof row === "object");
    const rest = Object.entries(part).map(([name, value]) => [name, name === "values" && rows ? inked(value, ink) : visit(value)]);
    return Object.fromEntries(rest);
  };
  return visit(spec);
}

function render({ model, el, host }) {
  return drawChart(el, { model, host, fixed: model.get("static") });
}

export default { render };
