import assert from "node:assert/strict";
import { test } from "node:test";

import { createMemory } from "../../dgprune_lab/widgets/page/static/memory.js";
import { answerOffline, precomputed } from "../../dgprune_lab/widgets/page/static/offline.js";

const memory = createMemory();
for (const scorer of ["l1", "dss"])
  for (const batchnorm of scorer === "l1" ? ["as_is", "recalibrate"] : ["recalibrate"])
    memory.learnCurve({ key: [scorer, "layer", "filters", batchnorm], rows: [0, 0.05, 0.1].map((ratio) => ({ ratio })) });

const choice = { scorer: "l1", scope: "layer", budget: "filters", batchnorm: "as_is", ratio: 0.05, id: 3 };
const move = (change) => precomputed(memory, { ...choice, ...change }, change);

test("the slider stops at the nearest precomputed ratio", () => {
  assert.deepEqual(move({ ratio: 0.081 }), { ...choice, ratio: 0.1 });
});

test("a control takes the nearest view that has its value", () => {
  assert.deepEqual(move({ scorer: "dss" }), { ...choice, scorer: "dss", batchnorm: "recalibrate" });
  assert.deepEqual(move({ batchnorm: "recalibrate" }), { ...choice, batchnorm: "recalibrate" });
});

test("a value that was not computed changes nothing else", () => {
  assert.deepEqual(move({ scope: "global" }), { ...choice, scope: "global" });
});

test("a pin is named with the ratio that the slider shows", () => {
  const traits = { pins: [] };
  const model = { get: (name) => traits[name], set: (name, value) => (traits[name] = value), save_changes() {} };
  const page = { model, memory, choice: { ...choice, ratio: 0.125 }, fixed: { domains: [] }, schedule() {}, scorer: () => ({ label: "L1 norm" }) };
  page.current = () => ({ mask: [[1]], frame: null, step: null, curve: null });
  answerOffline(page, { type: "pin" });
  assert.equal(traits.pins[0].label, "L1 norm, 12.5 %");
});
