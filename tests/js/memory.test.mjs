import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import {
  costData, createMemory, curveKey, dropData, frameAt, inked, maskOf, nearest, pinsAlongside, placeNames, planKey, sweepData, widest,
} from "../../dgprune_lab/widgets/page/static/memory.js";

const fixture = JSON.parse(readFileSync(new URL("fixture.json", import.meta.url)));
const INKS = { ink: (colour) => colour, quiet: "#quiet", hole: "transparent" };
const CHOICE = { scorer: "a|b", scope: "layer", budget: "filters", batchnorm: "as_is" };

function sweep(more = {}) {
  const { fixed, curve, ratio, height, width } = fixture.a;
  return sweepData({ fixed, curve, frame: frameAt(curve.rows, ratio), stale: false, pins: [], ratio, height, width, inks: INKS, ...more });
}

test("chart A has the rows that Python draws", () => {
  const data = sweep();
  for (const [name, rows] of Object.entries(fixture.a.data)) {
    const dashless = (row) => Object.fromEntries(Object.entries(row).filter(([field]) => field !== "stretch"));
    const [mine, theirs] = name === "dots" ? [data[name].map(dashless), rows.map(dashless)] : [data[name], rows];
    assert.deepEqual(mine, theirs, name);
  }
});

test("a pin of another step has no curve on an axis of shares of other filters", () => {
  const points = [{ domain: "s", removed: 20, value: 90, colour: "#0072B2" }, { domain: "s", removed: 60, value: 50, colour: "#0072B2" }];
  const pins = [{ letter: "a", points, choice: CHOICE }, { letter: "b", points, choice: { ...CHOICE, step: 2 } }];
  const drawn = (choice) => sweep({ pins: pinsAlongside(pins, choice) });
  for (const [step, letter] of [[0, "a"], [2, "b"]]) {
    const data = drawn({ ...CHOICE, step });
    assert.deepEqual([...new Set([...data.pinned, ...data.letters].map(({ pin }) => pin))], [letter]);
  }
  assert.deepEqual(drawn({ ...CHOICE, step: 1 }).pinned, []);
});

test("names are placed as in Python", () => {
  const { rows, placed, ...around } = fixture.names;
  assert.deepEqual(placeNames(rows, around), placed);
});

test("names stay where they are while the curves are measured", () => {
  const { curve, ratio } = fixture.a;
  const frame = frameAt(curve.rows, ratio);
  const first = { ...curve, lines: { ...curve.lines, names: curve.lines.names.map((row) => ({ ...row, value: 40 })) } };
  assert.deepEqual(sweep({ curve: first, frame }).names.map((row) => row.value), sweep({ frame }).names.map((row) => row.value));
});

test("the mask of a step keeps the filters that Python keeps", () => {
  const { plan, keep } = fixture.masks;
  plan.steps.forEach((step, k) => assert.deepEqual(maskOf(plan, step), keep[k], `ratio ${step.ratio}`));
});

test("stale numbers are pale and quiet, and the lines stay", () => {
  const data = sweep({ stale: true });
  assert.ok(data.dots.every((row) => row.opacity < 1 && row.colour === "#quiet"));
  assert.deepEqual(data.curves, sweep().curves);
});

test("an estimate without a line is named where it stands", () => {
  const { curve } = fixture.a;
  const alone = { ...curve, lines: { curves: [], gaps: [], names: [] } };
  assert.deepEqual(sweep({ curve: alone }).names.map((row) => row.domain), sweep().dots.map((row) => row.domain));
  assert.equal(sweep({ curve: undefined, frame: null }).dots.length, 0);
});

test("pins keep the domain's colour, have a letter, and the chosen one is strong", () => {
  const { points } = fixture.a;
  const { pinned, letters } = sweep({ pins: [{}, { letter: "b", points }, { points: points.slice(0, 2) }], pin: 1 });
  assert.deepEqual(pinned.filter(({ pin }) => pin === "b"), fixture.a.pinned);
  assert.deepEqual(letters.filter(({ pin }) => pin === "b"), fixture.a.letters);
  assert.deepEqual(pinned.filter(({ pin }) => pin === "c").map(({ opacity }) => opacity), [0.4, 0.4]);
});

test("the axis of chart D only grows, and pins are ghosts on it", () => {
  const [first, , , , last] = fixture.a.curve.rows;
  const narrow = widest([], undefined, first);
  const wide = widest(narrow, { rows: [first, { span: [{ change: -50 }, { change: 10 }] }] }, last);
  assert.deepEqual(wide, [{ change: -50 }, { change: 10 }]);
  assert.deepEqual(widest(wide, undefined, null), wide);
  const drops = first.drops.map((row) => ({ ...row, label: "by another scorer" }));
  const data = dropData({ frame: last, stale: false, pins: [{}, { drops }], pin: 0, span: wide, height: 110, inks: INKS });
  assert.deepEqual(data.ghosts.map(({ pin, label, change }) => [pin, label, change]),
    last.drops.map((row, k) => ["b", row.label, first.drops[k].change]));
});

test("rows of charts C and D are passed on", () => {
  const [step] = fixture.plan.steps;
  assert.deepEqual(costData({ step, stale: false }).left, step.left);
  assert.ok(costData({ step, stale: true }).left.every((row) => row.opacity < 1));
  assert.deepEqual(costData({ step: null, stale: false }).left, []);
  const frame = fixture.a.curve.rows[3];
  const shown = (height) => dropData({ frame, stale: false, span: frame.span, height, inks: INKS });
  assert.deepEqual(shown(110), { drops: frame.drops, ghosts: [], span: frame.span });
  assert.deepEqual(shown(60).drops.map(({ range }) => range), ["", "", ""], "no room for intervals");
});

test("colours are mixed, and a hollow mark covers what lies behind it", () => {
  const ink = (colour) => colour.toUpperCase();
  const rows = [{ colour: "#abc", fill: "transparent", text: "a" }, { line: "#def", fill: "#abc" }];
  assert.deepEqual(inked(rows, ink, "white"), [{ colour: "#ABC", fill: "white", text: "a" }, { line: "#DEF", fill: "#ABC" }]);
  assert.equal(inked(rows, ink)[0].fill, "transparent");
  assert.equal(rows[0].colour, "#abc", "the rows themselves stay");
});

test("the nearest ratio, and the frame of exactly this one", () => {
  const list = [{ ratio: 0 }, { ratio: 0.1 }, { ratio: 0.3 }];
  assert.deepEqual([-1, 0.04, 0.06, 0.21, 9].map((ratio) => nearest(list, ratio).ratio), [0, 0, 0.1, 0.3, 0.3]);
  assert.equal(nearest([], 0.5), null);
  assert.equal(frameAt(list, 0.1 + 0.2).ratio, 0.3);
  assert.equal(frameAt(list, 0.31), null);
  assert.equal(frameAt(undefined, 0.3), null);
});

test("keys hold any name, and a curve replaces the earlier one", () => {
  assert.deepEqual(JSON.parse(planKey(CHOICE)), ["a|b", "layer", "filters", 0, [[], [], []]]);
  const memory = createMemory();
  const key = ["a|b", "layer", "filters", "as_is"];
  for (const count of [2, 1]) memory.learnCurve({ key, rows: Array(count).fill({ ratio: 0 }) });
  memory.learnCurve({});
  memory.learnPlan(undefined);
  assert.equal(memory.curves.get(curveKey(CHOICE)).rows.length, 1);
  assert.equal(memory.plans.size, 0);
  memory.learnPlan(fixture.plan);
  const { order, groups } = [...memory.plans.values()][0];
  order.forEach((filters, g) => assert.equal(groups[g].rank[filters[0]], filters.length - 1, "the last removed comes first"));
});

test("what is set by hand is part of the keys, in Python's order", () => {
  const forced = { remove: { b: [3, 1], a: [] }, keep: { c: [10, 9] } };
  const choice = { ...CHOICE, step: 2, layers: { z: 0.25, y: 0 }, forced };
  const hand = [[["y", 0], ["z", 0.25]], [["b", [1, 3]]], [["c", [9, 10]]]];
  assert.deepEqual(JSON.parse(planKey(choice)), ["a|b", "layer", "filters", 2, hand]);
  assert.deepEqual(JSON.parse(curveKey(choice)), ["a|b", "layer", "filters", "as_is", 2, hand]);
});
