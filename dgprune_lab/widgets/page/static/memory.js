// The cache of the page: plans and curves by key. Python makes the rows of the charts; here they are only chosen, placed
// and coloured. No DOM in here.

import { byHand } from "./by_hand.js";

const place = (choice) => [choice.step ?? 0, byHand(choice)];
export const planKey = (choice) => JSON.stringify([choice.scorer, choice.scope, choice.budget, ...place(choice)]);
export const curveKey = (choice) => JSON.stringify([choice.scorer, choice.scope, choice.budget, choice.batchnorm, ...place(choice)]);
// Pages without a kernel hold keys that end before the step: that is the full network, and nothing by hand.
const whole = (key, length) => JSON.stringify(key.length > length ? key : [...key, ...place({})]);
// Ratios are compared in hundredths of a percent, so that 0.1 + 0.2 finds the frame of 0.3.
const tick = (ratio) => Math.round(ratio * 10000);
const LETTERS = "abc";
const APART = 6; // least distance between two letters of a pin, in percent
const RIGHT_OF_NAMES = 55; // percent
const [LETTER, BEFORE] = [6.3, 22]; // width of a letter of a name, and of what stands before the name, in pixels
const CLEAR = 0.7; // least distance of a name from a line, in heights of a name
const FAR = 5; // distance of a name from its value up to which it covers points rather than moves on, in heights of a name
const ROW = 28; // least height of a row of chart D, in pixels, at which the interval stands below the number
const NO_LINES = { curves: [], gaps: [], names: [] };
const NO_FRAME = { dots: [], names: [], full: [], drops: [], span: [{ change: -5 }, { change: 5 }] };

export function createMemory() {
  const plans = new Map();
  const curves = new Map();
  return {
    plans,
    curves,
    // A trait carries the whole state of its key, so a key's rows are replaced, never merged.
    learnPlan(plan) {
      if (plan?.key && plan.steps) plans.set(whole(plan.key, 3), preparePlan(plan));
    },
    learnCurve(curve) {
      if (curve?.key && curve.rows) curves.set(whole(curve.key, 4), curve);
    },
  };
}

function preparePlan(plan) {
  const order = plan.groups.map(({ rank }) => [...rank.keys()].sort((a, b) => rank[b] - rank[a]));
  return { ...plan, order };
}

// The entry whose ratio is nearest; lists are sorted by ratio.
export function nearest(list, ratio) {
  let low = 0;
  let high = list.length - 1;
  if (high < 0) return null;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (list[middle].ratio <= ratio) low = middle;
    else high = middle;
  }
  return Math.abs(list[low].ratio - ratio) <= Math.abs(list[high].ratio - ratio) ? list[low] : list[high];
}

export function frameAt(rows, ratio) {
  const frame = nearest(rows ?? [], ratio);
  return frame && tick(frame.ratio) === tick(ratio) ? frame : null;
}

// Whether a step is the one of this ratio; a plan that was made for a moving handle has one step alone.
export const isStepOf = (plan, step, ratio) => plan.steps.length > 1 || tick(step.ratio) === tick(ratio);

// A filter is kept at a step when its rank is among the kept[group] highest of its group.
export function maskOf(plan, step) {
  return plan.groups.map(({ rank }, g) => rank.map((r) => (r >= rank.length - step.kept[g] ? 1 : 0)));
}

// Rows in the page's colours: a dark page needs lighter ones. `hole` fills a hollow mark, so that it covers what lies behind it.
export function inked(rows, ink, hole = "transparent") {
  return rows.map((row) => {
    const copy = { ...row };
    for (const field of ["colour", "line", "ring"]) if (row[field]) copy[field] = ink(row[field]);
    if (row.fill) copy.fill = row.fill === "transparent" ? hole : ink(row.fill);
    return copy;
  });
}

// The data of chart A. `frame` is drawn as dots; `stale` says that it is not of the current view. `height`: of the plot.
export function sweepData({ fixed, curve, frame, stale, pins, pin = 0, ratio, height, width, inks }) {
  const { curves, gaps, names } = curve?.lines ?? NO_LINES;
  const shown = frame ?? NO_FRAME;
  const named = new Set(names.map((row) => row.domain));
  const unnamed = shown.names.filter((row) => !named.has(row.domain)); // only estimates so far: no line to be named at
  const labels = [...inked(names, inks.ink), ...inked(unnamed, stale ? () => inks.quiet : inks.ink)];
  // Names stand near the full network's height, so that they stay where they are while the curves are measured.
  const full = Object.fromEntries(shown.full.map((row) => [row.domain, row.value]));
  for (const row of labels) row.value = full[row.domain] ?? row.value;
  const gap = (100 * fixed.label_height) / Math.max(height, 60);
  const pinned = pins.flatMap((one, k) => pinnedRows(one, letterOf(one, k), k === pin ? 1 : 0.4));
  return {
    curves: inked(curves, inks.ink),
    gaps: inked(gaps, inks.ink),
    names: placeNames(labels, { gap, width: Math.max(width, 60), ...obstacles({ curves: unnamed.length ? [...curves, ...shown.dots] : curves, full: shown.full, chance: fixed.chance }, gap) }),
    full: shown.full,
    dots: faded(shown.dots, stale, inks),
    pinned: inked(pinned, inks.ink),
    letters: inked(pins.flatMap((one, k) => letterRows(pinned, letterOf(one, k))), inks.ink),
    chance: fixed.chance,
    now: [{ removed: 100 * ratio }],
  };
}

export const letterOf = (pin, place) => pin.letter ?? LETTERS[place];

export const isAtStep = (pin, choice) => (pin.choice?.step ?? 0) === (choice.step ?? 0);

// The pins for A. The shares of another step are of other filters: its pins have no curve here, but a place in D and in the table.
export const pinsAlongside = (pins, choice) => pins.map((pin) => (isAtStep(pin, choice) ? pin : { ...pin, points: [] }));

const pinnedRows = (pin, letter, opacity) =>
  (pin.points ?? []).map(({ domain, removed, value, colour }) => ({ pin: letter, domain, removed, value, colour, opacity }));

// Where the letter of a pin stands on its curves: as Python's `letter_rows`.
export function letterRows(rows, letter) {
  const wanted = 74 + 12 * (LETTERS.indexOf(letter) - 1);
  const letters = new Map();
  for (const row of rows.filter(({ pin, removed }) => pin === letter && removed >= RIGHT_OF_NAMES)) {
    const best = letters.get(row.domain);
    if (!best || Math.abs(row.removed - wanted) < Math.abs(best.removed - wanted)) letters.set(row.domain, row);
  }
  const isFree = (row, placed) => placed.every(({ value }) => Math.abs(row.value - value) >= APART);
  return [...letters.values()].reduce((placed, row) => (isFree(row, placed) ? [...placed, row] : placed), []);
}

// The ends of chart D's axis: the widest of this curve's and of those before, so that it only grows.
export function widest(before, curve, frame) {
  const ends = [...(curve?.rows ?? []), frame ?? NO_FRAME].flatMap(({ span }) => span.map(({ change }) => change));
  const all = [...ends, ...before.map(({ change }) => change)];
  return [{ change: Math.min(...all) }, { change: Math.max(...all) }];
}

export function dropData({ frame, stale, pins = [], pin = 0, span, height, inks }) {
  const every = (frame ?? NO_FRAME).drops;
  const drops = every.length * ROW > height ? every.map((row) => ({ ...row, range: "" })) : every;
  const label = Object.fromEntries(drops.map((row) => [row.domain, row.label]));
  const ghosts = pins.flatMap((one, k) =>
    (one.drops ?? []).filter(({ domain }) => label[domain])
      .map(({ domain, change, colour }) => ({ pin: letterOf(one, k), label: label[domain], change, colour, opacity: k === pin ? 1 : 0.5 })),
  );
  return { drops: faded(drops, stale, inks), ghosts: inked(ghosts, inks.ink), span };
}

export const costData = ({ step, stale }) => ({ left: (step?.left ?? []).map((row) => ({ ...row, opacity: stale ? 0.4 : 1 })) });

const faded = (rows, stale, { ink, quiet, hole }) =>
  inked(rows, stale ? () => quiet : ink, hole).map((row) => ({ ...row, opacity: stale ? 0.55 : 1 }));

// What names at the left must not, or should not, cover: as in Python's `obstacles`.
function obstacles({ curves, full, chance }, gap) {
  const levels = chance.map((row) => row.value);
  const points = curves.flatMap((row) => ["value", "low", "high"].map((key) => [row.removed, row[key]]));
  curves.slice(1).forEach((row, k) => {
    const before = curves[k];
    const steps = row.domain === before.domain ? Math.ceil(Math.abs(row.value - before.value) / gap) : 0;
    for (let j = 1; j < steps; j += 1) points.push(["removed", "value"].map((key) => before[key] + (j / steps) * (row[key] - before[key])));
  });
  return { lines: [...full.map((row) => row.value), ...levels], texts: levels.map((level) => level + 0.45 * gap), points };
}

// Each name, the highest first, gets the free height that is nearest to its value: as Python's `place_names`.
export function placeNames(rows, { gap, width, lines, texts, points }) {
  const taken = [...lines.map((height) => [height, CLEAR * gap]), ...texts.map((height) => [height, gap])];
  const steps = [...Array(Math.ceil(400 / gap)).keys()].flatMap((k) => [(-k * gap) / 4, (k * gap) / 4]);
  const orAll = (some, all) => (some.length ? some : all);
  let lowest = Infinity;
  return [...rows].sort((a, b) => b.value - a.value).map((row) => {
    const reach = (100 * (BEFORE + LETTER * row.label.length)) / width;
    const near = points.filter(([removed]) => removed <= reach).map(([, value]) => value);
    const inside = orAll(steps.map((step) => row.value + step).filter((y) => gap / 2 <= y && y <= 100 - gap / 2), [row.value]);
    const clear = orAll(inside.filter((y) => taken.every(([height, room]) => Math.abs(y - height) >= room - 1e-9)), inside);
    const cost = (y) => 1e10 * near.filter((value) => Math.abs(y - value) < CLEAR * gap).length + Math.round(1e6 * Math.abs(y - row.value));
    const nearby = orAll(clear.filter((y) => Math.abs(y - row.value) <= FAR * gap), clear);
    const close = orAll(nearby.filter((y) => y < lowest), nearby); // in the curves' order
    const costs = close.map(cost);
    const value = close[costs.indexOf(Math.min(...costs))];
    taken.push([value, gap]);
    lowest = Math.min(lowest, value);
    return { ...row, value };
  });
}
