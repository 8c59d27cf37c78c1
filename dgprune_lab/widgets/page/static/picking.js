// What is picked in a panel's chart: a filter or a network, by mouse or by arrow keys, and the span of a brush.

import { node, swallow } from "./elements.js";

const REST = 150; // ms after which a brush rests
export const NO_BRUSH = { x: null, y: null };

const IDENTITIES = [["group", "filter"], ["network"]];

// What a row is about, without its other fields: {group, filter} or {network}; {} for anything else.
export function cellOf(datum) {
  const fields = IDENTITIES.find((names) => names.every((name) => (datum?.[name] ?? null) !== null)) ?? [];
  return Object.fromEntries(fields.map((name) => [name, datum[name]]));
}

// The same in words; "" for nothing.
export const nameOf = (datum) => Object.values(cellOf(datum)).join(", filter ");

const isSameCell = (a, b) => nameOf(a) !== "" && nameOf(a) === nameOf(b);

// The element of a chart; one whose cells can be picked, or that has a brush, takes the focus. A narrow page draws charts
// smaller, but not those with a brush, as Vega places a brush in the chart's own pixels.
export const chartBox = ({ picks, brushes }) =>
  node("div", { class: brushes ? "dgx-panel-chart" : "dgx-panel-chart dgx-shrinks", tabindex: picks || brushes ? 0 : undefined });

// `picked` returns the present cell, `pick` takes the row of the next and whether it was opened: by a click or Enter.
export function watchCells(holder, { picks, label }, { picked, pick }) {
  const { box, view } = holder;
  // Vega has just given the element the role of a picture; keys reach it only as an application.
  box.setAttribute("role", "application");
  box.setAttribute("aria-label", `${label ? `${label}. ` : ""}Arrow keys move from one to the next.`);
  box.removeAttribute("aria-roledescription");
  view.addEventListener("click", (_, item) => {
    if (!nameOf(item?.datum)) return;
    box.focus({ preventScroll: true });
    pick(item.datum, true);
  });
  box.addEventListener("keydown", (event) => {
    if (event.target !== box || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key !== "Enter" && !event.key.startsWith("Arrow")) return;
    swallow(event);
    const rows = holder.wanted[picks] ?? [];
    const next = event.key === "Enter" ? rows.find((row) => isSameCell(row, picked())) : neighbour(rows, picked(), event.key);
    if (next) pick(next, event.key === "Enter");
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
  brushByKeys(holder, name);
  // The release may happen outside the chart; process the last movement first.
  const release = () => holder.ended || view.runAsync().then(check);
  box.addEventListener("pointerdown", () => window.addEventListener("pointerup", release, { once: true }));
}

const ARROWS = { ArrowLeft: ["x", -1], ArrowRight: ["x", 1], ArrowUp: ["y", -1], ArrowDown: ["y", 1] };

// Keys move the brush by Vega's own signals, in steps of a twentieth of the plot.
function brushByKeys({ box, view }, name) {
  box.setAttribute("role", "application");
  box.setAttribute("aria-label", "Arrow keys move a rectangle over the chart, with Shift they change its size, Escape removes it.");
  box.addEventListener("keydown", (event) => {
    const [axis, sign] = ARROWS[event.key] ?? (event.key === "Escape" ? ["", 0] : []);
    if (axis === undefined || event.target !== box || event.ctrlKey || event.metaKey || event.altKey) return;
    swallow(event);
    const signals = Object.keys(view.getState({ signals: () => true, data: () => false }).signals).sort();
    for (const [side, length] of Object.entries({ x: view.width(), y: view.height() })) {
      // The pixels along a side; where the field has the side's name, the first signal holds values and the second pixels.
      const signal = signals.filter((one) => one.match(`^${name}_${side}(_\\d+)?$`)).at(-1);
      if (!signal) continue; // a brush along one axis
      const now = [...(view.signal(signal) ?? [])].sort((a, b) => a - b);
      const next = !axis ? [0, 0] : now.length < 2 || now[0] === now[1] ? [0.3 * length, 0.6 * length] : now;
      view.signal(signal, next === now && side === axis ? stepped(now, (sign * length) / 20, { length, grows: event.shiftKey }) : next);
    }
    view.runAsync();
  });
}

function stepped([low, high], step, { length, grows }) {
  if (grows) return [low, Math.min(Math.max(high + step, low + length / 20), length)];
  const by = Math.min(Math.max(step, -low), length - high);
  return [low + by, high + by];
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
