// Where the steps of a session stand, left to right, and what is said of each. No DOM in here.

import { rounded } from "./rounding.js";

// A place per step: its column is its distance from the first one; the first child stays in the row of its parent, each
// further one begins a row below all that are there.
export function layTree(steps) {
  const children = new Map(steps.map(({ number }) => [number, []]));
  for (const { number, parent } of steps) children.get(parent)?.push(number);
  const places = [];
  let rows = 0;
  // A chain of steps may be long: a list of what is to do, no recursion.
  for (const root of steps.filter(({ parent }) => !children.has(parent))) {
    const todo = [{ number: root.number, parent: null, column: 0, row: null }];
    while (todo.length) {
      const { number, parent, column, row } = todo.pop();
      const place = { number, parent, column, row: row ?? rows++ };
      places.push(place);
      const next = children.get(number).map((child, k) => ({ number: child, parent: number, column: column + 1, row: k ? null : place.row }));
      todo.push(...next.reverse());
    }
  }
  return places;
}

// The lines between parents and children, in pixels: straight ones have height 0, bent ones go down in the gap.
export function elbows(places, { width, height, across, down }) {
  const at = new Map(places.map((place) => [place.number, place]));
  return places.filter(({ parent }) => parent !== null).map(({ parent, column, row }) => {
    const start = at.get(parent);
    const [x, y] = [column * (width + across) - across, start.row * (height + down) + height / 2];
    if (row === start.row) return { x, y, width: across, height: 0 };
    return { x: x + across / 2, y, width: across / 2, height: (row - start.row) * (height + down) };
  });
}

// The step that an arrow key leads to: parent, first child, the nearest one above or below; null for other keys.
export function neighbourOf(places, number, key) {
  const here = places.find((place) => place.number === number);
  if (!here) return null;
  const others = {
    ArrowLeft: () => places.filter((place) => place.number === here.parent),
    ArrowRight: () => places.filter((place) => place.parent === number),
    ArrowUp: () => nearest(places.filter(({ row }) => row < here.row), here),
    ArrowDown: () => nearest(places.filter(({ row }) => row > here.row), here),
    Home: () => places.slice(0, 1),
    End: () => places.slice(-1),
  };
  return key in others ? (others[key]()[0]?.number ?? number) : null;
}

function nearest(places, here) {
  const distance = ({ row, column }) => 1000 * Math.abs(row - here.row) + Math.abs(column - here.column);
  return [...places].sort((a, b) => distance(a) - distance(b));
}

// `name` may be cut on a narrow button, `share` may not; `text`: accuracy by role, in percent and in the order of the domains, then the agreement of those without labels; `full`: all of it, with the intervals.
export function stepWords({ label, removed, accuracy, stored }) {
  const known = (accuracy ?? []).filter(({ value }) => value !== null && value !== undefined);
  const agreement = known.filter(({ metric }) => metric === "agreement");
  const ofRole = (wanted) => known.filter(({ role, metric }) => role === wanted && metric !== "agreement");
  const parts = [...["source", "target"].map((role) => roleWords(role, ofRole(role))), valueWords("agreement", agreement)];
  const lines = known.map(
    ({ domain, role, value, low, high, target_aware, metric }) =>
      `${domain} (${role}${target_aware ? ", \u25C7 target-aware" : ""}): ${whole(value)} % (${whole(low)}\u2013${whole(high)})` +
      (metric === "agreement" ? " agreement with the full network" : ""),
  );
  const size = removed > 0 ? `${whole(removed)} % of the filters removed` : "nothing removed";
  const place = stored === "disk" ? ["weights stored on disk"] : [];
  const [, name, share] = label.replace(" \u25C7 target-aware", " \u25C7").match(/^(.*?)((?:,? [\d.]+ %.*)?)$/s);
  return { name, share, text: parts.filter(Boolean).join(", ") || "not measured yet", full: [label, size, ...lines, ...place].join("\n") };
}

const roleWords = (role, rows) => valueWords(`${role}${rows.length > 1 ? "s" : ""}`, rows);

function valueWords(what, rows) {
  if (!rows.length) return "";
  return `${what} ${rows.map(({ value, target_aware }) => whole(value) + (target_aware ? " \u25C7" : "")).join(" / ")}`;
}

const whole = (share) => (Number.isFinite(share) ? String(rounded(100 * share)) : "?");
