// B, the filter strip: a row per layer, a cell per filter, on one canvas so that thousands of cells stay fast.

import { node, say } from "./elements.js";

const MOST = 128; // above this many filters a row is binned
const gapOf = (rows) => (rows > 8 ? 4 : 8);
const SIZES = [15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4];

export function createStrip({ open, changed }) {
  const canvas = node("canvas", {
    class: "dgx-canvas", tabindex: 0, role: "application",
    "aria-label": "Filters by layer. Arrow keys move from filter to filter, Enter opens one.",
  });
  const scroll = node("div", { class: "dgx-scroll" }, canvas);
  const about = node("div", { class: "dgx-about", "aria-live": "polite" });
  const strip = { canvas, scroll, about, view: null, byScore: false, at: null, hover: null, rows: [] };
  const locate = (event) => cellAt(strip, event.offsetX, event.offsetY);
  const point = (cell) => {
    strip.hover = cell;
    changed();
  };
  canvas.addEventListener("pointermove", (event) => point(locate(event)));
  canvas.addEventListener("pointerleave", () => point(null));
  canvas.addEventListener("blur", () => {
    strip.at = null;
    changed();
  });
  canvas.addEventListener("click", (event) => {
    const cell = locate(event);
    if (cell) openCell(strip, cell, open);
  });
  canvas.addEventListener("keydown", (event) => onKey(strip, event, open, changed));
  return strip;
}

function openCell(strip, cell, open) {
  const filter = strip.rows[cell.row].bins[cell.bin][0];
  open(strip.view.groups[cell.row].full, filter);
}

function onKey(strip, event, open, changed) {
  if (!strip.rows.length) return;
  if (event.key === "Enter" && strip.at) openCell(strip, strip.at, open);
  else if (event.key.startsWith("Arrow")) strip.at = moved(strip, event.key);
  else return;
  event.preventDefault();
  event.stopPropagation();
  changed();
}

function moved(strip, key) {
  const at = strip.at ?? { row: 0, bin: -1 };
  const { row, bin } = at;
  if (key === "ArrowRight") return { row, bin: Math.min(bin + 1, strip.rows[row].bins.length - 1) };
  if (key === "ArrowLeft") return { row, bin: Math.max(bin - 1, 0) };
  const next = Math.min(Math.max(row + (key === "ArrowDown" ? 1 : -1), 0), strip.rows.length - 1);
  return { row: next, bin: Math.min(Math.max(bin, 0), strip.rows[next].bins.length - 1) };
}

// Where every row's cells lie: the largest cell size at which all rows fit; else the smallest, and the box scrolls.
function layOut(strip, width, height) {
  const { plan, groups } = strip.view;
  const context = strip.canvas.getContext("2d");
  context.font = strip.font;
  const widest = Math.max(...groups.map((group) => context.measureText(group.name).width));
  const left = Math.min(widest, width * 0.26) + 10;
  const right = 46;
  const across = Math.max(width - left - right, 40);
  const bins = plan.groups.map((group, g) => binned(strip.byScore ? plan.order[g] : group.rank.map((_, f) => f)));
  const gap = gapOf(bins.length);
  const lines = (size) => bins.map((row) => Math.ceil(row.length / Math.floor(across / size)));
  const needed = (size) => lines(size).reduce((sum, count) => sum + Math.max(count * size, 13) + gap, 2);
  const size = SIZES.find((candidate) => needed(candidate) <= height) ?? SIZES[SIZES.length - 1];
  const per = Math.floor(across / size);
  const spare = Math.min(Math.max((height - needed(size)) / bins.length, 0), 12);
  let top = 2 + spare / 2;
  strip.rows = bins.map((row) => {
    const tall = Math.max(Math.ceil(row.length / per) * size, 13);
    const placed = { bins: row, left, top, per, size, tall };
    top += tall + gap + spare;
    return placed;
  });
  strip.label = left - 10;
  return Math.max(top, Math.min(height, top));
}

function binned(order) {
  const size = Math.ceil(order.length / MOST);
  const bins = [];
  for (let start = 0; start < order.length; start += size) bins.push(order.slice(start, start + size));
  return bins;
}

function cellAt(strip, x, y) {
  for (const [row, { bins, left, top, per, size }] of strip.rows.entries()) {
    const column = Math.floor((x - left) / size);
    const line = Math.floor((y - top) / size);
    if (column < 0 || column >= per || line < 0) continue;
    const bin = line * per + column;
    if (bin < bins.length && line < Math.ceil(bins.length / per)) return { row, bin };
  }
  return null;
}

// A prefix that all layers share is left out, if words remain: features.conv1, features.conv2 become conv1, conv2.
function plainNames(groups) {
  const parts = groups.map((group) => group.name.split("."));
  let same = 0;
  while (parts.every((part) => part.length > same + 1 && part[same] === parts[0][same])) same += 1;
  const worded = parts.every((part) => /[a-z]/i.test(part.slice(same).join("")));
  return groups.map((group, index) => ({ full: group.name, name: worded ? parts[index].slice(same).join(".") : group.name }));
}

// view: {plan, step, mask, groups, pinned: mask or null, stale, inks}
export function drawStrip(strip, view) {
  strip.view = { ...view, groups: plainNames(view.groups) };
  if (!view.plan || !view.mask) return;
  const width = strip.scroll.clientWidth;
  const height = strip.scroll.clientHeight;
  if (width < 40) return;
  const key = [width, height, strip.byScore, strip.font, view.plan.key, view.plan.groups.length].join("/");
  // A new layout only when its inputs changed: while the slider moves only the fills do.
  if (strip.key !== key || strip.plan !== view.plan) {
    strip.font = `11px ${getComputedStyle(strip.canvas).fontFamily}`;
    strip.tall = layOut(strip, width, height);
    strip.key = [width, height, strip.byScore, strip.font, view.plan.key, view.plan.groups.length].join("/");
    strip.plan = view.plan;
    fitCanvas(strip.canvas, width, strip.tall);
  }
  paintCells(strip);
  describe(strip);
}

function fitCanvas(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
}

function paintCells(strip) {
  const { mask, inks, stale, groups } = strip.view;
  const context = strip.canvas.getContext("2d");
  const ratio = window.devicePixelRatio || 1;
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, strip.canvas.width, strip.canvas.height);
  context.globalAlpha = stale ? 0.4 : 1;
  const filled = new Path2D();
  const rings = new Path2D();
  const marks = new Path2D();
  const holes = new Path2D();
  strip.rows.forEach((row, g) => addRow({ filled, rings, marks, holes }, row, mask[g], strip.view.pinned?.[g]));
  context.fillStyle = inks.cell;
  context.fill(filled);
  context.strokeStyle = inks.ring;
  context.lineWidth = 1;
  context.stroke(rings);
  context.fillStyle = inks.mark;
  context.fill(marks);
  context.fillStyle = inks.hole;
  context.fill(holes);
  paintLabels(strip, context, groups, mask, inks);
  for (const [cell, ink] of [[strip.hover, inks.ring], [strip.at, inks.focus]]) outline(strip, context, cell, ink);
}

function addRow({ filled, rings, marks, holes }, { bins, left, top, per, size }, mask, pinned) {
  const small = size < 7;
  const radius = size / 2 - 1.4;
  bins.forEach((filters, index) => {
    const x = left + (index % per) * size;
    const y = top + Math.floor(index / per) * size;
    const share = filters.reduce((sum, filter) => sum + mask[filter], 0) / filters.length;
    const [cx, cy] = [x + size / 2, y + size / 2];
    if (small || filters.length > 1) {
      const inner = size - 1.5;
      if (share > 0) filled.rect(x + 0.5, y + 0.5 + inner * (1 - share), inner, inner * share);
      if (share < 1) rings.rect(x + 1, y + 1, inner - 1, inner - 1);
    } else {
      const path = share ? filled : rings;
      const reach = share ? radius : radius - 0.4;
      path.moveTo(cx + reach, cy);
      path.arc(cx, cy, reach, 0, 2 * Math.PI);
    }
    // Where a pinned view differs: a dot in a ring (kept there), a hole in a disc (removed there).
    if (pinned && filters.some((filter) => Boolean(pinned[filter]) !== Boolean(mask[filter]))) {
      const mark = share > 0.5 ? holes : marks;
      mark.moveTo(cx + size * 0.17, cy);
      mark.arc(cx, cy, size * 0.17, 0, 2 * Math.PI);
    }
  });
}

function paintLabels(strip, context, groups, mask, inks) {
  context.font = strip.font;
  context.textBaseline = "middle";
  context.fillStyle = inks.words;
  strip.rows.forEach((row, g) => {
    const middle = row.top + Math.min(row.tall, row.size > 13 ? row.size : 13) / 2;
    context.textAlign = "left";
    context.fillText(shortened(context, groups[g].name, strip.label), 0, middle);
    context.textAlign = "right";
    const kept = mask[g].reduce((sum, keeps) => sum + keeps, 0);
    context.fillText(`${kept}/${mask[g].length}`, strip.canvas.clientWidth - 1, middle);
  });
}

// The end of a dotted name tells more than its beginning.
function shortened(context, name, room) {
  if (context.measureText(name).width <= room) return name;
  let tail = name;
  while (tail.length > 1 && context.measureText(`…${tail}`).width > room) tail = tail.slice(1);
  return `…${tail}`;
}

function outline(strip, context, cell, ink) {
  if (!cell || !strip.rows[cell.row]) return;
  const { left, top, per, size } = strip.rows[cell.row];
  context.strokeStyle = ink;
  context.lineWidth = 1.5;
  const x = left + (cell.bin % per) * size;
  context.strokeRect(x, top + Math.floor(cell.bin / per) * size, size, size);
}

function describe(strip) {
  const cell = strip.at ?? strip.hover;
  const { plan, groups, mask } = strip.view;
  if (!cell || !strip.rows[cell.row] || cell.bin < 0) {
    const size = Math.max(...strip.rows.map((row) => row.bins[0].length));
    const notes = ["filled: kept, ring: removed"];
    if (size > 1) notes.push(`large layers: one square = up to ${size} filters`);
    if (strip.view.pinned) notes.push("dot: differs from pin");
    const refused = Object.entries(strip.view.refused ?? {});
    const [can, every] = strip.view.prunable ?? [0, 0];
    if (can < every) notes.push(`${can} of ${every} filters can be pruned`);
    if (refused.length) notes.push(`refused: ${refused.map(([layer]) => layer).join(", ")} (hover: why)`);
    strip.about.title = refused.map(([layer, why]) => `${layer}: ${why}`).join("\n");
    say(strip.about, notes.join(" · "));
    return;
  }
  const filters = strip.rows[cell.row].bins[cell.bin];
  const name = groups[cell.row].name;
  if (filters.length > 1) {
    const kept = filters.reduce((sum, filter) => sum + mask[cell.row][filter], 0);
    say(strip.about, `${name} · ${filters.length} filters, ${kept} kept`);
    return;
  }
  const { rank, score } = plan.groups[cell.row];
  const state = mask[cell.row][filters[0]] ? "kept" : "removed";
  const number = score?.[filters[0]];
  const scored = typeof number === "number" ? ` · score ${Number(number.toPrecision(4))}` : "";
  say(strip.about, `${name} · filter ${filters[0]} · rank ${rank.length - rank[filters[0]]} of ${rank.length}${scored} · ${state}`);
}
