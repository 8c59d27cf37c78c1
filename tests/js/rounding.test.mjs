import assert from "node:assert/strict";
import { test } from "node:test";

import { percent, rounded } from "../../dgprune_lab/widgets/page/static/rounding.js";

test("half a unit is rounded away from zero, whatever the binary fraction", () => {
  assert.deepEqual([98.5, 92.5, 100 * 0.285, -0.5, 0.4].map((value) => rounded(value)), [99, 93, 29, -1, 0]);
  assert.deepEqual([0.25, -0.25, -2.35, -0.04, 1.005].map((value) => rounded(value, 1)), [0.3, -0.3, -2.4, 0, 1]);
  assert.ok(Object.is(rounded(-0.2), 0), "no minus before zero");
});

test("a share keeps as many of the decimals as it has", () => {
  assert.deepEqual([0.5, 0.125, 0.12345, 0.00125].map((share) => percent(share, 2)), ["50 %", "12.5 %", "12.35 %", "0.13 %"]);
  assert.equal(percent(0.985), "99 %");
});
