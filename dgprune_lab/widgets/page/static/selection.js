// Filters selected in B: by click, Shift, Ctrl or a brush, and by keys; and what is done with them.

import { cellBox } from "./cells.js";
import { button, node, say, show, swallow } from "./elements.js";
import { placeIn } from "./projector.js";
import { cellAt, numbersOf } from "./strip.js";

const FORCE = { r: "remove", k: "keep", u: "score" };

// The selected filters by layer and number in the full network.
export const cellsOf = (strip) => [...strip.selected].flatMap(([g, places]) => named(strip, g, [...places]));

const named = (strip, g, places) => places.map((f) => ({ group: strip.view.groups[g].full, filter: numbersOf(strip, g)[f] }));

function cellsAt(strip, { row, bin }) {
  const { g, bins } = strip.rows[row];
  return named(strip, g, [...(bins[bin] ?? [])]);
}

export function clearSelection(strip) {
  strip.selected.clear();
  strip.anchor = null;
  strip.alone = false;
}

function add(strip, { row, bin }, { toggle = false } = {}) {
  const { g, bins } = strip.rows[row];
  const places = strip.selected.get(g) ?? new Set();
  const off = toggle && bins[bin].every((f) => places.has(f));
  for (const f of bins[bin]) off ? places.delete(f) : places.add(f);
  strip.selected.set(g, places);
  if (!places.size) strip.selected.delete(g);
}

// From the anchor to a cell: along the row, or over several rows all cells between the two.
function addSpan(strip, from, to) {
  if (from.row === to.row) {
    for (let bin = Math.min(from.bin, to.bin); bin <= Math.max(from.bin, to.bin); bin += 1) add(strip, { row: to.row, bin });
    return;
  }
  const corners = [from, to].map(({ row, bin }) => cellBox(strip.rows[row], bin));
  addBrush(strip, boxOf(...corners.map(({ x, y, size }) => ({ x: x + size / 2, y: y + size / 2 }))));
}

const boxOf = (a, b) => ({ x: Math.min(a.x, b.x), y: Math.min(a.y, b.y), width: Math.abs(a.x - b.x), height: Math.abs(a.y - b.y) });

// All cells whose box meets the brushed one.
function addBrush(strip, { x, y, width, height }) {
  strip.rows.forEach((row, r) => {
    if (row.top > y + height || row.top + row.tall < y) return;
    row.bins.forEach((_, bin) => {
      const cell = cellBox(row, bin);
      if (cell.x <= x + width && cell.x + cell.size >= x && cell.y <= y + height && cell.y + cell.size >= y) add(strip, { row: r, bin });
    });
  });
}

const openCard = (strip) => strip.acts.open(cellsOf(strip));

// What is selected is forced, or else the cell with the focus, which is not selected by it.
function force(strip, to) {
  const cells = strip.selected.size || !strip.at ? cellsOf(strip) : cellsAt(strip, strip.at);
  if (cells.length) strip.acts.force(cells, to);
}

export function listenToCells(strip) {
  const { canvas, changed } = strip;
  const pointOf = (event) => {
    const { x, y } = placeIn(canvas, event);
    return { x, y: y + strip.scroll.scrollTop };
  };
  let start = null;
  const down = (event) => {
    if (event.button === 0 && event.pointerType !== "touch") start = pointOf(event);
  };
  const move = (event) => {
    const point = pointOf(event);
    strip.hover = cellAt(strip, point.x, point.y);
    const far = start && Math.hypot(point.x - start.x, point.y - start.y) > 5;
    if (far && !strip.brush) canvas.setPointerCapture?.(event.pointerId);
    if (far || strip.brush) strip.brush = boxOf(start, point);
    strip.redraw();
  };
  const up = (event) => {
    if (strip.brush) endBrush(strip, event);
    strip.brush = start = null;
    changed();
  };
  const click = (event) => {
    if (strip.brushed) return void (strip.brushed = false);
    const point = pointOf(event);
    const cell = cellAt(strip, point.x, point.y);
    pick(strip, cell, event);
    changed();
  };
  const leave = () => {
    strip.hover = null;
    strip.redraw();
  };
  const blur = () => {
    strip.at = null;
    strip.redraw();
  };
  const events = { pointerdown: down, pointermove: move, pointerup: up, pointercancel: up, pointerleave: leave, click, blur };
  for (const [name, handler] of Object.entries(events)) canvas.addEventListener(name, handler);
  canvas.addEventListener("keydown", (event) => onKey(strip, event));
}

function endBrush(strip, event) {
  if (!(event.ctrlKey || event.metaKey || event.shiftKey)) clearSelection(strip);
  addBrush(strip, strip.brush);
  strip.alone = false;
  strip.brushed = true; // the click that follows is the brush's
  setTimeout(() => (strip.brushed = false), 0);
  if (strip.selected.size) openCard(strip);
}

function pick(strip, cell, { shiftKey, ctrlKey, metaKey }) {
  const more = ctrlKey || metaKey;
  if (!cell) return more || shiftKey ? null : clearSelection(strip);
  strip.alone = !more && !shiftKey;
  if (shiftKey && strip.anchor && strip.rows[strip.anchor.row]) addSpan(strip, strip.anchor, cell);
  else {
    if (!more) strip.selected.clear();
    add(strip, cell, { toggle: more });
    strip.anchor = cell;
  }
  return strip.selected.size ? openCard(strip) : null;
}

function onKey(strip, event) {
  if (!strip.rows.length || event.ctrlKey || event.metaKey || event.altKey) return;
  const to = FORCE[event.key.toLowerCase()];
  if (event.key.startsWith("Arrow")) {
    const from = strip.at;
    if (strip.alone) leaveCell(strip, event);
    strip.at = moved(strip, event.key);
    if (event.shiftKey) addSpan(strip, (strip.anchor ??= from ?? strip.at), strip.at);
    intoView(strip);
  } else if (event.key === "Enter" && strip.at) {
    if (!strip.selected.size) {
      add(strip, strip.at);
      strip.alone = true;
    }
    openCard(strip);
  } else if (event.key === " " && strip.at) {
    strip.alone = false;
    add(strip, strip.at, { toggle: true });
    strip.anchor = strip.at;
  } else if (event.key === "Escape" && strip.selected.size) clearSelection(strip);
  else if (to && (strip.at || strip.selected.size)) force(strip, to);
  else return;
  swallow(event);
  strip.changed();
}

// The one cell that a click or Enter has selected is left by an arrow, so that a key acts on the cell with the focus.
function leaveCell(strip, { shiftKey }) {
  if (shiftKey) strip.alone = false;
  else clearSelection(strip);
}

function moved(strip, key) {
  const { row, bin } = strip.at && strip.rows[strip.at.row] ? strip.at : { row: 0, bin: -1 };
  if (key === "ArrowRight") return { row, bin: Math.min(bin + 1, strip.rows[row].bins.length - 1) };
  if (key === "ArrowLeft") return { row, bin: Math.max(bin - 1, 0) };
  const next = Math.min(Math.max(row + (key === "ArrowDown" ? 1 : -1), 0), strip.rows.length - 1);
  return { row: next, bin: Math.min(Math.max(bin, 0), strip.rows[next].bins.length - 1) };
}

function intoView(strip) {
  const { y, size } = cellBox(strip.rows[strip.at.row], Math.max(strip.at.bin, 0));
  const { scroll } = strip;
  if (y < scroll.scrollTop) scroll.scrollTop = y - 4;
  else if (y + size > scroll.scrollTop + scroll.clientHeight) scroll.scrollTop = y + size + 4 - scroll.clientHeight;
}

// The buttons beside the title of B, while something is selected.
export function createForcing(strip) {
  const number = node("span", {});
  const count = node("span", { class: "dgx-by", "aria-live": "polite" }, number, node("span", { class: "dgx-selected", text: " selected" }));
  const press = (text, key, title) =>
    button(text, () => {
      force(strip, FORCE[key]);
      strip.changed();
    }, { class: "dgx-flip", title, "aria-keyshortcuts": key.toUpperCase() });
  const buttons = [press("Remove", "r", "Remove them, whatever their score (R)"), press("Keep", "k", "Keep them, whatever their score (K)"), press("By score", "u", "Let the score decide (U)")];
  const box = node("span", { class: "dgx-forcing" }, count, ...buttons);
  box.hidden = true;
  return {
    box,
    show: (allowed) => {
      const cells = [...strip.selected.values()].reduce((sum, places) => sum + places.size, 0);
      show(box, allowed && cells > 0);
      say(number, `${cells}`);
    },
  };
}
