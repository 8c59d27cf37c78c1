import assert from "node:assert/strict";
import { test } from "node:test";

import { NO_BRUSH, cellOf, endsOf, isSameBrush, nameOf, neighbour } from "../../dgprune_lab/widgets/page/static/picking.js";

// Three lines of cells: three, two and three of them.
const CELLS = Object.entries({ a: [0, 1, 2], "b|c": [1, 2.4], d: [0, 2, 4] }).flatMap(([group, places], line) =>
  places.map((place, filter) => ({ group, filter, line, place, fill: "#fff" })),
);
const pick = (group, filter, arrow) => cellOf(neighbour(CELLS, { group, filter }, `Arrow${arrow}`));

test("arrows move to the nearest cell of the line or of the next one", () => {
  assert.deepEqual(pick("a", 0, "Right"), { group: "a", filter: 1 });
  assert.deepEqual(pick("a", 2, "Right"), { group: "a", filter: 2 }, "nothing lies ahead");
  assert.deepEqual(pick("a", 2, "Down"), { group: "b|c", filter: 1 });
  assert.deepEqual(pick("b|c", 0, "Down"), { group: "d", filter: 0 }, "a tie goes to the left");
  assert.deepEqual(pick("d", 2, "Up"), { group: "b|c", filter: 1 });
  assert.deepEqual(pick("d", 0, "Up"), { group: "b|c", filter: 0 });
  assert.deepEqual(pick("a", 1, "Up"), { group: "a", filter: 1 });
});

test("keys begin at the first cell, whatever the order of the rows", () => {
  assert.deepEqual(cellOf(neighbour([...CELLS].reverse(), {}, "ArrowLeft")), { group: "a", filter: 0 });
  assert.equal(neighbour([], {}, "ArrowLeft"), null);
  const apart = CELLS.filter(({ line }) => line !== 1);
  assert.deepEqual(cellOf(neighbour(apart, { group: "a", filter: 2 }, "ArrowDown")), { group: "d", filter: 1 });
});

test("only a row with group and filter is a cell", () => {
  assert.deepEqual(cellOf({ group: "a", filter: 0, x: 3 }), { group: "a", filter: 0 });
  for (const datum of [undefined, {}, { group: "a" }, { group: null, filter: 1 }]) assert.deepEqual(cellOf(datum), {});
});

test("a network is picked by its name, and arrows pass its other points", () => {
  const rows = ["full", "full", "half"].map((network, k) => ({ network, domain: `d${k}`, line: 0, place: Math.floor(k / 2) }));
  assert.deepEqual(cellOf(rows[0]), { network: "full" });
  assert.deepEqual(cellOf(neighbour(rows, { network: "full" }, "ArrowRight")), { network: "half" });
  assert.equal(nameOf({ group: "a", filter: 0 }), "a, filter 0");
  assert.equal(nameOf({ network: null }), "");
});

test("a brush has its lower end first, and none where nothing is brushed", () => {
  assert.deepEqual(endsOf([]), NO_BRUSH);
  assert.deepEqual(endsOf([{ fields: [{ channel: "x" }], values: [[4, 1]] }]), { x: [1, 4], y: null });
});

test("a brush is the same within rounding", () => {
  const brush = { x: [1, 4], y: null };
  assert.ok(isSameBrush(brush, { x: [1 + 1e-9, 4], y: null }));
  assert.ok(!isSameBrush(brush, { x: [1.01, 4], y: null }));
  assert.ok(!isSameBrush(brush, NO_BRUSH));
  assert.ok(isSameBrush(NO_BRUSH, { ...NO_BRUSH }));
});
