import assert from "node:assert/strict";
import { test } from "node:test";

import { isMeant, keptAt, previewed, withForced, withLayers } from "../../dgprune_lab/widgets/page/static/by_hand.js";

test("a layer gets its own ratio, is locked, and follows again", () => {
  assert.deepEqual(withLayers({ a: 0.2 }, { b: 0 }), { a: 0.2, b: 0 });
  assert.deepEqual(withLayers({ a: 0.2, b: 0 }, { a: null }), { b: 0 });
  assert.deepEqual(withLayers(undefined, { a: 0.5 }), { a: 0.5 });
});

test("filters are removed, kept, and given back to the score", () => {
  const cells = [9, 10, 2].map((filter) => ({ group: "a", filter }));
  const removed = withForced(undefined, cells, "remove");
  assert.deepEqual(removed, { remove: { a: [2, 9, 10] }, keep: {} });
  const kept = withForced(removed, cells.slice(0, 1), "keep");
  assert.deepEqual(kept, { remove: { a: [2, 10] }, keep: { a: [9] } });
  assert.deepEqual(withForced(kept, cells, "score"), { remove: {}, keep: {} });
  assert.deepEqual(removed, { remove: { a: [2, 9, 10] }, keep: {} }, "the choice before stays as it was");
});

test("layers are found by a part of their name, or by a pattern", () => {
  const names = ["conv1", "layer1.0.conv1", "layer10.0.conv1"];
  const found = (typed) => names.filter((name) => isMeant(name, typed));
  assert.deepEqual(found(""), names);
  assert.deepEqual(found(" layer1 "), names.slice(1));
  assert.deepEqual(found("layer1.*"), ["layer1.0.conv1"]);
  assert.deepEqual(found("*conv1"), names);
  assert.deepEqual(found("conv1*"), ["conv1"]);
  assert.deepEqual(found("(["), []);
});

test("as many filters stay as dg.allocate keeps", () => {
  assert.deepEqual([0, 0.2, 0.29, 0.5, 0.99].map((ratio) => keptAt(24, ratio)), [24, 20, 18, 12, 1]);
});

test("what is set by hand shows before Python has answered", () => {
  const groups = [{ name: "a", rank: [0, 1, 2, 3], index: [0, 2, 5, 7] }, { name: "b", rank: [1, 0] }];
  const mask = (choice) => previewed({ groups }, [2, 1], choice);
  assert.deepEqual(mask({}), [[0, 0, 1, 1], [1, 0]]);
  assert.deepEqual(mask({ layers: { a: 0.25, b: 0 } }), [[0, 1, 1, 1], [1, 1]]);
  const forced = { remove: { a: [7], gone: [1] }, keep: { a: [0], b: [1] } };
  assert.deepEqual(mask({ forced }), [[1, 0, 1, 0], [1, 1]], "by the numbers of the full network");
});
