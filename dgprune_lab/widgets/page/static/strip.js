// B, the filter strip: a row per layer, a cell per filter. The canvas is as large as what is seen of it, however long the list.

import { binned, cellBox, paintCells } from "./cells.js";
import { node, say } from "./elements.js";
import { gridSvg } from "./picture.js";
import { zoomOf } from "./projector.js";
import { createRows, placeRows } from "./rows.js";
import { LIGHT_INKS, PAPER } from "./views.js";

const SIDE = 148; // pixels left of the cells: name, number, handle, lock
const NARROW = 96; // the same without a kernel: name, number
const LOW = 34; // least height of a row: two lines of its controls
const GAP = 6;
const SIZES = [15, 14, 13, 12, 11, 10, 9, 8];

// acts: {open(cells), force(cells, to), row(layer, ratio, moving), rows(change)}; `changed` asks for a new drawing of the page, `redraw` of the strip.
export function createStrip(acts, changed) {
  const canvas = node("canvas", {
    class: "dgx-canvas", tabindex: 0, role: "application",
    "aria-label": "Filters by layer. Arrow keys move, with Shift they select; Enter opens the card, R removes, K keeps, U gives back to the score.",
  });
  const tall = node("div", { class: "dgx-tall" }, canvas);
  const scroll = node("div", { class: "dgx-scroll" }, tall);
  const about = node("div", { class: "dgx-about", "aria-live": "polite" });
  const strip = { canvas, tall, scroll, about, acts, changed, view: null, byScore: false, at: null, hover: null, rows: [], selected: new Map(), alone: false };
  strip.controls = createRows(strip);
  tall.append(strip.controls.box);
  canvas.place = (layer, filter) => placeOf(strip, layer, filter); // so that one can find a cell on the page
  strip.redraw = () => {
    strip.frame ??= requestAnimationFrame(() => {
      strip.frame = null;
      if (strip.rows.length) drawCells(strip);
    });
  };
  scroll.addEventListener("scroll", strip.redraw, { passive: true });
  return strip;
}

// Where every row's cells lie: the largest size at which all rows fit; else the smallest, and the box scrolls.
function layOut(strip, width, height) {
  const { plan, groups } = strip.view;
  const side = strip.view.offline ? NARROW : SIDE;
  strip.controls.box.style.setProperty("--dgx-side", `${side - 10}px`);
  const across = Math.max(width - side - 2, 40);
  const shown = groups.map((_, g) => g).filter((g) => strip.controls.matches(groups[g].full));
  const bins = shown.map((g) => binned(strip.byScore ? plan.order[g] : plan.groups[g].rank.map((_, f) => f)));
  const tallOf = (row, size) => Math.max(Math.ceil(row.length / Math.floor(across / size)) * size, LOW);
  const needed = (size) => bins.reduce((sum, row) => sum + tallOf(row, size) + GAP, 2);
  const size = SIZES.find((candidate) => needed(candidate) <= height) ?? SIZES[SIZES.length - 1];
  const spare = Math.min(Math.max((height - needed(size)) / Math.max(bins.length, 1), 0), 10);
  let top = 2;
  strip.rows = bins.map((row, k) => {
    const placed = { g: shown[k], bins: row, left: side, top, per: Math.floor(across / size), size, tall: tallOf(row, size) };
    top += placed.tall + GAP + spare;
    return placed;
  });
  return top - spare;
}

export function cellAt(strip, x, y) {
  for (const [row, { bins, left, top, per, size }] of strip.rows.entries()) {
    const column = Math.floor((x - left) / size);
    const line = Math.floor((y - top) / size);
    if (column < 0 || column >= per || line < 0) continue;
    const bin = line * per + column;
    if (bin < bins.length && line < Math.ceil(bins.length / per)) return { row, bin };
  }
  return null;
}

// The middle of a filter's cell on the canvas, by its number in the full network; null where it is not in view.
function placeOf(strip, layer, filter) {
  const row = strip.rows.find(({ g }) => strip.view.groups[g].full === layer);
  const place = row ? numbersOf(strip, row.g).indexOf(filter) : -1;
  if (place < 0) return null;
  const { x, y, size } = cellBox(row, row.bins.findIndex((bin) => bin.includes(place)));
  return { x: x + size / 2, y: y + size / 2 - strip.scroll.scrollTop };
}

// The numbers of a layer's filters in the full network: at a later step some are missing.
export const numbersOf = (strip, g) => strip.view.plan.groups[g].index ?? [...strip.view.plan.groups[g].rank.keys()];

// A prefix that all layers share is left out, if words remain: features.conv1, features.conv2 become conv1, conv2.
function plainNames(groups) {
  const parts = groups.map((group) => group.name.split("."));
  let same = 0;
  while (parts.every((part) => part.length > same + 1 && part[same] === parts[0][same])) same += 1;
  const worded = parts.every((part) => /[a-z]/i.test(part.slice(same).join("")));
  return groups.map((group, index) => ({ full: group.name, name: worded ? parts[index].slice(same).join(".") : group.name }));
}

// view: {plan, mask, groups, pinned: mask or null, stale, inks, choice, silent, offline}
export function drawStrip(strip, view) {
  strip.names = strip.view?.groups && strip.named === view.groups ? strip.names : plainNames(view.groups);
  strip.named = view.groups;
  strip.view = { ...view, groups: strip.names };
  if (strip.step !== (view.choice.step ?? 0)) {
    strip.step = view.choice.step ?? 0;
    strip.selected.clear(); // it holds places in the network of a step
  }
  if (!view.plan || !view.mask) return;
  const width = strip.scroll.clientWidth;
  const height = strip.scroll.clientHeight;
  if (width < 40) return;
  // A new layout only when its inputs changed: while the slider moves only the fills do.
  const key = [width, height, strip.byScore, strip.controls.wanted, view.plan.groups.map(({ rank }) => rank.length)].join("/");
  if (strip.key !== key || (strip.byScore && strip.plan !== view.plan)) {
    strip.plan = view.plan;
    strip.long = layOut(strip, width, height);
    strip.key = key;
    strip.tall.style.height = `${strip.long}px`;
    placeRows(strip);
  }
  fitCanvas(strip.canvas, width, Math.min(height, Math.max(strip.long, 1)));
  drawCells(strip);
}

// What changes while one scrolls or points: nothing else on the page.
function drawCells(strip) {
  const { scrollTop, clientHeight } = strip.scroll;
  strip.states = strip.rows.filter(({ top, tall }) => top + tall > scrollTop && top < scrollTop + clientHeight).map((row) => withStates(strip, row));
  paint(strip);
  strip.controls.show(strip);
  describe(strip);
}

const sharpness = (canvas) => (window.devicePixelRatio || 1) * zoomOf(canvas);

function fitCanvas(canvas, width, height) {
  const ratio = sharpness(canvas);
  const [wide, tall] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width === wide && canvas.height === tall) return;
  Object.assign(canvas, { width: wide, height: tall });
  Object.assign(canvas.style, { width: `${width}px`, height: `${height}px` });
}

// A row with the state of each of its filters, by its place in its layer.
function withStates(strip, row) {
  const { mask, pinned, choice, silent } = strip.view;
  const name = strip.view.groups[row.g].full;
  const [remove, keep, still] = [choice.forced?.remove?.[name], choice.forced?.keep?.[name], silent?.[name]].map((list) => new Set(list));
  const chosen = strip.selected.get(row.g);
  const states = numbersOf(strip, row.g).map((number, f) => ({
    kept: Boolean(mask[row.g][f]), forced: remove.has(number) ? "remove" : keep.has(number) ? "keep" : null, silent: still.has(number),
    differs: Boolean(pinned && Boolean(pinned[row.g]?.[f]) !== Boolean(mask[row.g][f])), selected: Boolean(chosen?.has(f)),
  }));
  return { ...row, states };
}

// All layers, also those out of view, as a picture.
export function pictureOf(strip, setting = []) {
  const { groups, mask } = strip.view;
  const rows = strip.rows.map((row) => {
    const { states, ...rest } = withStates(strip, row);
    const kept = mask[row.g].reduce((sum, keeps) => sum + keeps, 0);
    return { ...rest, states: states.map((state) => ({ ...state, selected: false })), name: groups[row.g].name, share: `${kept} of ${mask[row.g].length}` };
  });
  const width = Math.max(0, ...rows.map(({ left, per, size, bins }) => left + Math.min(per, bins.length) * size));
  return gridSvg({ rows, title: ["Filters kept", ...setting.filter(Boolean)].join(", "), notes: notesOf(strip).join(" \u00B7 "), width, height: strip.long, inks: LIGHT_INKS, paper: PAPER });
}

function paint(strip) {
  const { inks, stale } = strip.view;
  const context = strip.canvas.getContext("2d");
  const ratio = sharpness(strip.canvas);
  const { scrollTop } = strip.scroll;
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, strip.canvas.width, strip.canvas.height);
  context.translate(0, -scrollTop);
  context.globalAlpha = stale ? 0.4 : 1;
  paintCells(context, strip.states, inks);
  context.globalAlpha = 1;
  for (const [cell, ink] of [[strip.hover, inks.ring], [strip.at, inks.focus]]) outline(strip, context, cell, ink);
  if (strip.brush) {
    const { x, y, width, height } = strip.brush;
    context.strokeStyle = inks.focus;
    context.lineWidth = 1;
    context.strokeRect(x, y, width, height);
  }
}

function outline(strip, context, cell, ink) {
  if (!cell || !strip.rows[cell.row]) return;
  const { x, y, size } = cellBox(strip.rows[cell.row], cell.bin);
  context.strokeStyle = ink;
  context.lineWidth = 1.5;
  context.strokeRect(x, y, size, size);
}

function describe(strip) {
  const cell = strip.at ?? strip.hover;
  const row = strip.rows[cell?.row];
  if (!row || cell.bin < 0 || cell.bin >= row.bins.length) return legend(strip);
  const { groups, mask, plan } = strip.view;
  const filters = row.bins[cell.bin];
  const name = groups[row.g].name;
  if (filters.length > 1) {
    const kept = filters.filter((filter) => mask[row.g][filter]).length;
    return say(strip.about, `${name} \u00B7 ${filters.length} filters, ${kept} kept`);
  }
  const [filter] = filters;
  const { rank, score } = plan.groups[row.g];
  const state = strip.states.find(({ g }) => g === row.g)?.states[filter] ?? {};
  const number = score?.[filter];
  const words = [
    name, `filter ${numbersOf(strip, row.g)[filter]}`, `rank ${rank[filter] + 1} of ${rank.length}${rank[filter] ? "" : " (removed first)"}`,
    typeof number === "number" ? `score ${Number(number.toPrecision(4))}` : "",
    (mask[row.g][filter] ? "kept" : "removed") + (state.forced ? " by hand" : ""), state.silent ? "silent: 0 on every source image" : "",
  ];
  return say(strip.about, words.filter(Boolean).join(" \u00B7 "));
}

function legend(strip) {
  const reasons = Object.entries(strip.view.refused ?? {});
  const help = strip.view.offline ? [] : ["Click: card. Drag, Shift, Ctrl: select. R: remove, K: keep, U: by score.", "* set by hand"];
  strip.about.title = [...help, ...reasons.map(([layer, why]) => `${layer}: ${why}`)].join("\n");
  say(strip.about, notesOf(strip).join(" \u00B7 ") + (reasons.length ? " (hover: why)" : ""));
}

// What the shapes mean.
function notesOf(strip) {
  const { pinned, choice, silent, refused, prunable } = strip.view;
  const size = Math.max(1, ...strip.rows.map((row) => row.bins[0]?.length ?? 1));
  const notes = ["disc: kept, ring: removed"];
  if (Object.values(silent ?? {}).some((list) => list.length)) notes.push("line through: silent");
  if (Object.keys(choice.forced?.keep ?? {}).length) notes.push("square: kept by hand");
  if (Object.keys(choice.forced?.remove ?? {}).length) notes.push("cross: removed by hand");
  if (size > 1) notes.push(`large layers: one square = up to ${size} filters, a corner = some by hand`);
  if (pinned) notes.push("dot: differs from pin");
  const [can, every] = prunable ?? [0, 0];
  if (can < every) notes.push(`${can} of ${every} filters can be pruned`);
  const layers = Object.keys(refused ?? {});
  if (layers.length) notes.push(`refused: ${layers.join(", ")}`);
  return notes;
}
