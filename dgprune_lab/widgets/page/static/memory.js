// What the page knows: plans and frames by key, and the rows of the charts made from them. No DOM in here.

export const PERCENT = 100;
const AWARE = "#CC79A7";
const FALLBACK = ["#0072B2", "#D55E00", "#009E73", "#56B4E9", "#8C6D31", "#6A51A3"];
const SHAPES = ["circle", "square", "triangle-up", "triangle-down", "triangle-right", "cross"];
const WORDS = { source: "trained on", target: "new look" };
const SPANS = [5, 10, 25, 50, 100];

export const planKey = (choice) => [choice.scorer, choice.scope, choice.budget].join("|");
export const frameKey = (choice) => [planKey(choice), choice.batchnorm].join("|");
// Ratios are compared in hundredths of a percent, so that 0.1 + 0.2 finds the frame of 0.3.
export const tick = (ratio) => Math.round(ratio * 10000);

export function createMemory() {
  const plans = new Map();
  const frames = new Map();
  return {
    plans,
    frames,
    // A trait carries the whole state of its key, so a key's rows are replaced, never merged.
    learnPlan(plan) {
      if (plan && plan.key && plan.steps) plans.set(plan.key, preparePlan(plan));
    },
    learnFrames(told) {
      if (told && told.key && told.rows) frames.set(told.key, [...told.rows].sort((a, b) => a.ratio - b.ratio));
    },
  };
}

function preparePlan(plan) {
  const steps = [...plan.steps].sort((a, b) => a.ratio - b.ratio);
  const order = plan.groups.map(({ rank }) => [...rank.keys()].sort((a, b) => rank[b] - rank[a]));
  return { ...plan, steps, order };
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
  const found = nearest(rows ?? [], ratio);
  return found && tick(found.ratio) === tick(ratio) ? found : null;
}

// A filter stays at a step when its rank is among the kept[group] highest of its group.
export function maskOf(plan, step) {
  return plan.groups.map(({ rank }, g) => rank.map((r) => (r >= rank.length - step.kept[g] ? 1 : 0)));
}

export function sharedWith(mask, pinned) {
  let kept = 0;
  let both = 0;
  mask.forEach((row, g) =>
    row.forEach((stays, f) => {
      kept += stays;
      both += stays && pinned[g]?.[f] ? 1 : 0;
    }),
  );
  return kept ? both / kept : 0;
}

// How a domain is drawn; `ink` adapts a colour to the page (a dark page needs lighter text and lines). `seen` is Python's
// word for what was looked at of it (charts/theme.py): "", "?", "seen", "target-aware" or "target-aware, seen".
export function lookOf(fixed, name, seen, ink) {
  const index = fixed.domains.findIndex((domain) => domain.name === name);
  const domain = fixed.domains[index] ?? {};
  const own = domain.colour ?? FALLBACK[Math.max(index, 0) % FALLBACK.length];
  const marked = isMarked(seen);
  const colour = ink(seen?.startsWith("target-aware") ? AWARE : own);
  return {
    colour,
    dash: Array.isArray(domain.dash) ? domain.dash : domain.role === "target" ? [9, 5] : [1, 0],
    shape: marked ? "diamond" : (domain.shape ?? SHAPES[Math.max(index, 0) % SHAPES.length]),
    fill: marked ? "transparent" : colour,
    words: marked ? seen : (WORDS[domain.role] ?? ""),
  };
}

// A hollow mark covers the line behind it with the page's own colour.
const hollow = (fill, hole) => (fill === "transparent" && hole ? hole : fill);

// What stands at a domain's name: behind it in brackets, after that, and in a line below where it would be too long.
// Without labels the number is how often the full network says the same.
function wordsOf({ agreement, seen }, look) {
  const long = isMarked(seen) && (agreement || seen === "target-aware, seen");
  return {
    words: agreement ? "as before" : long ? "" : look.words,
    after: seen === "?" ? " ?" : "", below: long ? `\u25C7 ${seen}` : "",
  };
}

const isMarked = (seen) => Boolean(seen) && seen !== "?";

// The words behind the marks of chart D, which has no room for them at its names.
export const marksOf = (shown) =>
  [...new Set((shown?.domains ?? []).map((domain) => domain.seen).filter(Boolean))]
    .map((seen) => (isMarked(seen) ? `\u25C7 ${seen}` : "? nobody said what was looked at")).join(" \u00B7 ");

function pointOf(fixed, row, domain, ink) {
  const look = lookOf(fixed, domain.name, domain.seen, ink);
  return {
    domain: domain.name, removed: PERCENT * row.ratio, value: PERCENT * domain.value,
    low: PERCENT * (domain.low ?? domain.value), high: PERCENT * (domain.high ?? domain.value),
    colour: look.colour, dash: look.dash, shape: look.shape,
    fill: row.estimate ? "transparent" : look.fill, ...wordsOf(domain, look), looked: domain.looked ?? "",
  };
}

// The data of chart A. `shown` is the frame whose dots are drawn, `stale` says that it is not of the current ratio.
export function sweepData({ fixed, rows, choice, shown, stale, pins, height, ink, quiet, hole }) {
  const data = { curves: [], gaps: [], names: [], full: [], dots: [], pinned: [], chance: [] };
  const exact = rows.filter((row) => !row.estimate);
  const names = [...new Set(exact.flatMap((row) => row.domains.map((domain) => domain.name)))];
  for (const name of names) {
    // An estimate is a passing dot, never part of a curve.
    const points = exact.flatMap((row) =>
      row.domains.filter((domain) => domain.name === name).map((domain) => pointOf(fixed, row, domain, ink)),
    );
    joinPoints(data, points, PERCENT * (fixed.step ?? 0.05));
  }
  for (const domain of shown?.domains ?? []) {
    const point = pointOf(fixed, shown, domain, stale ? () => quiet : ink);
    data.dots.push({ ...point, fill: hollow(point.fill, hole), opacity: stale ? 0.55 : 1 });
    if (!names.includes(domain.name)) nameAt(data, point);
    if (domain.change !== undefined && domain.change !== null)
      data.full.push({ domain: domain.name, value: PERCENT * (domain.value - domain.change) });
  }
  data.names = spreadLabels(data.names, (PERCENT * 15) / Math.max(height, 60));
  pins.forEach((pin, index) =>
    (pin.rows ?? []).forEach((row) =>
      row.domains.forEach((domain) =>
        data.pinned.push({ pin: `${index}`, domain: domain.name, removed: PERCENT * row.ratio, value: PERCENT * domain.value }),
      ),
    ),
  );
  const levels = new Set(fixed.domains.map((domain) => domain.chance).filter((level) => level > 0));
  data.chance = [...levels].map((level) => ({ value: PERCENT * level, label: "chance" }));
  data.now = [{ removed: PERCENT * choice.ratio }];
  return data;
}

// Neighbours within a step are joined; what lies between others was not measured and is drawn as a gap.
function joinPoints(data, points, step) {
  let stretch = 0;
  points.forEach((point, index) => {
    const before = points[index - 1];
    if (before && point.removed - before.removed > step + 1e-6) {
      stretch += 1;
      for (const end of [before, point])
        data.gaps.push({ domain: end.domain, removed: end.removed, value: end.value, colour: end.colour, gap: stretch });
    }
    data.curves.push({ ...point, stretch });
  });
  const last = points[points.length - 1];
  if (last) nameAt(data, last);
}

function nameAt(data, last) {
  const words = `${last.words ? ` (${last.words})` : ""}${last.after}`;
  const label = shortened(last.domain, Math.min(22, Math.max(7, 27 - words.length))) + words;
  const row = { domain: last.domain, removed: last.removed, value: last.value, colour: last.colour };
  // Of two labels at one height the first comes to lie below.
  if (last.below) data.names.push({ ...row, label: last.below });
  data.names.push({ ...row, label });
}

// The words after a long name must not be cut off.
const shortened = (name, most) => (name.length <= most ? name : `${name.slice(0, most - 1)}\u2026`);

// Labels are moved apart until none overlaps, within 0 to 100.
export function spreadLabels(rows, gap) {
  const ordered = [...rows].sort((a, b) => a.value - b.value);
  let floor = 0;
  for (const row of ordered) {
    row.value = Math.max(row.value, floor);
    floor = row.value + gap;
  }
  let ceiling = PERCENT;
  for (const row of ordered.reverse()) {
    row.value = Math.min(row.value, ceiling);
    ceiling = row.value - gap;
  }
  return rows;
}

export const anyAware = (fixed, shown) => (shown?.domains ?? []).some((domain) => isAware(fixed, domain));

export function dropData({ fixed, shown, stale, ink, quiet, hole }) {
  const drops = (shown?.domains ?? [])
    .filter((domain) => domain.change !== undefined && domain.change !== null)
    .map((domain) => {
      const look = lookOf(fixed, domain.name, domain.seen, stale ? () => quiet : ink);
      const sign = isMarked(domain.seen) ? " \u25C7" : domain.seen ? " ?" : "";
      const change = PERCENT * domain.change;
      return {
        domain: domain.name, label: `${domain.name}${sign}`, change, looked: domain.looked ?? "",
        low: PERCENT * (domain.change_low ?? domain.change), high: PERCENT * (domain.change_high ?? domain.change),
        text: signed(change), colour: look.colour, shape: look.shape,
        fill: hollow(shown.estimate ? "transparent" : look.fill, hole), opacity: stale ? 0.55 : 1,
      };
    });
  // The axis moves in steps, so that it does not creep while the slider moves.
  const lost = Math.max(0, ...drops.map((row) => -row.low));
  const won = Math.max(0, ...drops.map((row) => row.high));
  const reach = (value) => SPANS.find((span) => value <= span) ?? PERCENT;
  return { drops, span: [{ change: -reach(lost) }, { change: reach(won) }] };
}

const signed = (value) => {
  const text = Math.abs(value).toFixed(1);
  return text === "0.0" ? "0.0" : `${value < 0 ? "\u2212" : "+"}${text}`;
};

export function leftData({ full, step, stale }) {
  const words = { filters: "Filters", parameters: "Weights", macs: "Computation", bytes: "File size" };
  const rows = Object.entries(words)
    .filter(([metric]) => full[metric] && step && step[metric] !== undefined && step[metric] !== null)
    .map(([metric, what]) => {
      const share = (PERCENT * step[metric]) / full[metric];
      const text = `${amount(step[metric], metric)} of ${amount(full[metric], metric)}`;
      return { what, share, text, percent: `${share > 0 && share < 1 ? share.toFixed(1) : Math.round(share)} %`, opacity: stale ? 0.4 : 1 };
    });
  return { left: rows };
}

export function amount(value, metric) {
  const unit = metric === "bytes" ? "B" : "";
  for (const [size, letter] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (value >= size && (value >= 1e4 || unit)) {
      const scaled = value / size;
      return `${scaled.toFixed(scaled < 10 ? 2 : scaled < 100 ? 1 : 0)} ${letter}${unit}`;
    }
  }
  return `${Math.round(value).toLocaleString("en")}${unit ? ` ${unit}` : ""}`;
}
