// What is picked in a panel's chart: a cell, by mouse or by arrow keys, and the span of a brush.

import { node } from "./elements.js";

const REST = 150; // ms after which a brush rests
export const NO_BRUSH = { x: null, y: null };

const isCell = (datum) => (datum?.group ?? null) !== null && (datum.filter ?? null) !== null;

// The cell alone, without the other fields of its row; {} for anything that is no cell.
export const cellOf = (datum) => (isCell(datum) ? { group: datum.group, filter: datum.filter } : {});

const isSameCell = (a, b) => isCell(a) && a.group === b?.group && a.filter === b?.filter;

// The element of a chart; one whose cells can be picked takes the focus.
export const chartBox = ({ picks }) => node("div", { class: "dgx-panel-chart", tabindex: picks ? 0 : undefined });

// `picked` returns the present cell, `pick` takes the next.
export function watchCells(holder, { picks, label }, { picked, pick }) {
  const { box, view } = holder;
  // Vega has just given the element the role of a picture; keys reach it only as an application.
  box.setAttribute("role", "application");
  box.setAttribute("aria-label", `${label ? `${label}. ` : ""}Arrow keys move from cell to cell.`);
  box.removeAttribute("aria-roledescription");
  view.addEventListener("click", (_, item) => {
    if (!isCell(item?.datum)) return;
    box.focus({ preventScroll: true });
    pick(item.datum);
  });
  box.addEventListener("keydown", (event) => {
    if (event.target !== box || !event.key.startsWith("Arrow") || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    const next = neighbour(holder.wanted[picks] ?? [], picked(), event.key);
    if (next && !isSameCell(next, picked())) pick(next);
  });
}

// The cell beside another: the next place of its line, or the nearest place of the next line; the first one if none is picked.
export function neighbour(cells, picked, arrow) {
  const at = cells.find((cell) => isSameCell(cell, picked));
  if (!at) return least(cells, (cell) => [cell.line, cell.place]);
  const sign = arrow === "ArrowRight" || arrow === "ArrowDown" ? 1 : -1;
  const along = arrow === "ArrowRight" || arrow === "ArrowLeft";
  const ahead = along
    ? cells.filter((cell) => cell.line === at.line && sign * (cell.place - at.place) > 0)
    : cells.filter((cell) => sign * (cell.line - at.line) > 0);
  const distance = ({ line, place }) => [Math.abs(line - at.line), Math.abs(place - at.place), place];
  return least(ahead, distance) ?? at;
}

function least(cells, measure) {
  const before = (a, b) => a.map((value, k) => value - b[k]).find((gap) => gap) < 0;
  return cells.reduce((best, cell) => (best && !before(measure(cell), measure(best)) ? best : cell), null);
}

// Calls `send({x, y})` when the brush rests or is released, and only when it differs from what was sent last.
export function watchBrush(holder, name, { sent, send }) {
  const { box, view } = holder;
  let timer = null;
  const check = () => {
    clearTimeout(timer);
    const ends = endsOf(view.data(`${name}_store`));
    if (!holder.ended && !isSameBrush(ends, sent())) send(ends);
  };
  view.addSignalListener(name, () => {
    clearTimeout(timer);
    timer = setTimeout(check, REST);
  });
  // The release may happen outside the chart; process the last movement first.
  const release = () => holder.ended || view.runAsync().then(check);
  box.addEventListener("pointerdown", () => window.addEventListener("pointerup", release, { once: true }));
}

// The ends of a brush, from Vega's store of it.
export function endsOf(store) {
  const ends = { ...NO_BRUSH };
  for (const { fields, values } of store)
    fields.forEach(({ channel }, k) => (ends[channel] = [Math.min(...values[k]), Math.max(...values[k])]));
  return ends;
}

// A new domain of an axis moves the brush's pixels and rounds its ends a little.
export const isSameBrush = (a, b) => ["x", "y"].every((channel) => isSameSpan(a[channel], b[channel]));

function isSameSpan(a, b) {
  if (!a || !b) return a === b;
  const slack = 1e-6 * (Math.abs(a[1] - a[0]) + Math.abs(b[1] - b[0]));
  return a.every((end, k) => end === b[k] || Math.abs(end - b[k]) <= slack);
}
