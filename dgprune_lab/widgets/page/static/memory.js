// The cache of the page: plans and curves by key. Python makes the rows of the charts; here they are only chosen, placed
// and coloured. No DOM in here.

export const planKey = (choice) => JSON.stringify([choice.scorer, choice.scope, choice.budget]);
export const curveKey = (choice) => JSON.stringify([choice.scorer, choice.scope, choice.budget, choice.batchnorm]);
// Ratios are compared in hundredths of a percent, so that 0.1 + 0.2 finds the frame of 0.3.
const tick = (ratio) => Math.round(ratio * 10000);
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
      if (plan?.key && plan.steps) plans.set(JSON.stringify(plan.key), preparePlan(plan));
    },
    learnCurve(curve) {
      if (curve?.key && curve.rows) curves.set(JSON.stringify(curve.key), curve);
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

// A filter is kept at a step when its rank is among the kept[group] highest of its group.
export function maskOf(plan, step) {
  return plan.groups.map(({ rank }, g) => rank.map((r) => (r >= rank.length - step.kept[g] ? 1 : 0)));
}

// The share of the kept filters that a pinned view keeps too.
export function sharedWith(mask, pinned) {
  let kept = 0;
  let both = 0;
  mask.forEach((row, g) =>
    row.forEach((keeps, f) => {
      kept += keeps;
      both += keeps && pinned[g]?.[f] ? 1 : 0;
    }),
  );
  return kept ? both / kept : 0;
}

// Rows in the page's colours: a dark page needs lighter ones. `hole` fills a hollow mark, so that it covers what lies behind it.
export function inked(rows, ink, hole = "transparent") {
  return rows.map((row) => {
    const copy = { ...row };
    for (const field of ["colour", "line"]) if (row[field]) copy[field] = ink(row[field]);
    if (row.fill) copy.fill = row.fill === "transparent" ? hole : ink(row.fill);
    return copy;
  });
}

// The data of chart A. `frame` is drawn as dots; `stale` says that it is not of the current view. `height`: of the plot.
export function sweepData({ fixed, curve, frame, stale, pins, ratio, height, inks }) {
  const { curves, gaps, names } = curve?.lines ?? NO_LINES;
  const shown = frame ?? NO_FRAME;
  const named = new Set(names.map((row) => row.domain));
  const unnamed = shown.names.filter((row) => !named.has(row.domain)); // only estimates so far: no line to be named at
  const labels = [...inked(names, inks.ink), ...inked(unnamed, stale ? () => inks.quiet : inks.ink)];
  return {
    curves: inked(curves, inks.ink),
    gaps: inked(gaps, inks.ink),
    names: spreadLabels(labels, (100 * fixed.label_height) / Math.max(height, 60)),
    full: shown.full,
    dots: faded(shown.dots, stale, inks),
    pinned: pins.flatMap((pin, k) => (pin.points ?? []).map(({ domain, removed, value }) => ({ pin: `${k}`, domain, removed, value }))),
    chance: fixed.chance,
    now: [{ removed: 100 * ratio }],
  };
}

export function dropData({ frame, stale, inks }) {
  const { drops, span } = frame ?? NO_FRAME;
  return { drops: faded(drops, stale, inks), span };
}

export const costData = ({ step, stale }) => ({ left: (step?.left ?? []).map((row) => ({ ...row, opacity: stale ? 0.4 : 1 })) });

const faded = (rows, stale, { ink, quiet, hole }) =>
  inked(rows, stale ? () => quiet : ink, hole).map((row) => ({ ...row, opacity: stale ? 0.55 : 1 }));

// Labels are moved apart until neighbours are at least `gap` apart, within `low` to `high`.
export function spreadLabels(rows, gap, low = 0, high = 100) {
  const ordered = [...rows].sort((a, b) => a.value - b.value);
  for (const row of ordered) {
    row.value = Math.max(row.value, low);
    low = row.value + gap;
  }
  for (const row of ordered.reverse()) {
    row.value = Math.min(row.value, high);
    high = row.value - gap;
  }
  return rows;
}
