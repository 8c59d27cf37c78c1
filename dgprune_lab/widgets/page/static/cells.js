// How a filter is drawn in B: by shape what stays, what was set by hand, what is silent, what a pin has otherwise.

const MOST = 128; // above this many filters a row is binned

export function binned(order) {
  const size = Math.ceil(order.length / MOST);
  const bins = [];
  for (let start = 0; start < order.length; start += size) bins.push(order.slice(start, start + size));
  return bins;
}

export const cellBox = ({ left, top, per, size }, bin) => ({ x: left + (bin % per) * size, y: top + Math.floor(bin / per) * size, size });

const PATHS = ["filled", "rings", "holes", "marks", "crosses", "slits", "chosen"];

// What is drawn of these rows, in this order; `make` returns an empty path.
// `row.states[f]`: {kept, forced: "remove" | "keep" | null, silent, differs, selected}.
export function cellShapes(rows, inks, make) {
  const paths = Object.fromEntries(PATHS.map((name) => [name, make()]));
  for (const row of rows) row.bins.forEach((filters, bin) => addCell(paths, cellBox(row, bin), filters.map((f) => row.states[f])));
  return [
    { path: paths.filled, fill: inks.cell },
    { path: paths.rings, stroke: inks.ring, width: 1 },
    { path: paths.crosses, stroke: inks.mark, width: 1.3 },
    { path: paths.slits, stroke: inks.hole, width: 1.6 },
    { path: paths.marks, fill: inks.mark },
    { path: paths.holes, fill: inks.hole },
    { path: paths.chosen, stroke: inks.focus, width: 2 },
  ];
}

export function paintCells(context, rows, inks) {
  for (const { path, fill, stroke, width } of cellShapes(rows, inks, () => new Path2D())) {
    Object.assign(context, fill ? { fillStyle: fill } : { strokeStyle: stroke, lineWidth: width });
    if (fill) context.fill(path);
    else context.stroke(path);
  }
}

function addCell(paths, box, states) {
  if (states.length > 1 || box.size < 7) addBin(paths, box, states);
  else addFilter(paths, box, states[0]);
  if (states.some(({ selected }) => selected)) paths.chosen.rect(box.x + 0.5, box.y + 0.5, box.size - 1, box.size - 1);
}

// Several filters: a square filled by the share that stays; a corner says that some were set by hand, a line that all are silent.
function addBin({ filled, rings, marks, crosses, slits }, { x, y, size }, states) {
  const share = states.filter(({ kept }) => kept).length / states.length;
  const inner = size - 1.5;
  if (share > 0) filled.rect(x + 0.5, y + 0.5 + inner * (1 - share), inner, inner * share);
  if (share < 1) rings.rect(x + 1, y + 1, inner - 1, inner - 1);
  if (states.some(({ forced }) => forced)) marks.rect(x + size - 3.5, y, 3.5, 3.5);
  if (states.every(({ silent }) => silent)) line(share > 0.5 ? slits : crosses, x + 1.5, y + size / 2, x + size - 2);
}

// One filter: a disc stays, a ring is removed; by hand a square stays, a cross is removed; a line through it is silent.
function addFilter({ filled, rings, marks, holes, crosses, slits }, { x, y, size }, { kept, forced, silent, differs }) {
  const [cx, cy, reach] = [x + size / 2, y + size / 2, size / 2 - 1.4];
  if (forced === "keep") filled.rect(x + 1, y + 1, size - 2, size - 2);
  else circle(kept ? filled : rings, cx, cy, kept ? reach : reach - 0.4);
  if (forced === "remove") {
    const arm = reach * 0.62;
    for (const side of [-1, 1]) {
      crosses.moveTo(cx - arm, cy - side * arm);
      crosses.lineTo(cx + arm, cy + side * arm);
    }
  }
  if (silent && forced !== "remove") line(kept ? slits : crosses, cx - reach * (kept ? 1 : 0.9), cy, cx + reach * (kept ? 1 : 0.9));
  // Where a pinned view differs: a dot in a ring (kept there), a hole in a disc (removed there).
  if (differs) circle(kept ? holes : marks, cx, cy, size * 0.17);
}

function circle(path, x, y, radius) {
  path.moveTo(x + radius, y);
  path.arc(x, y, radius, 0, 2 * Math.PI);
}

function line(path, x, y, end) {
  path.moveTo(x, y);
  path.lineTo(end, y);
}
