import assert from "node:assert/strict";
import { test } from "node:test";

import { checked } from "../../dgprune_lab/widgets/page/static/finetuning.js";
import { chosenAfter, differsText, isAgainst, noteOf, pinKey, pinOf } from "../../dgprune_lab/widgets/page/static/pins.js";
import { elbows, layTree, neighbourOf, stepWords } from "../../dgprune_lab/widgets/page/static/step_tree.js";
import { isText, undoOf } from "../../dgprune_lab/widgets/page/static/steps.js";

// 0 - 1 - 2 - 3 and, from 1, 4; from 0, 5.
const TREE = [[0, null], [1, 0], [2, 1], [3, 2], [4, 1], [5, 0]].map(([number, parent]) => ({ number, parent }));

test("a chain stays in its row, and a branch gets a row of its own", () => {
  const places = Object.fromEntries(layTree(TREE).map(({ number, column, row }) => [number, [column, row]]));
  assert.deepEqual(places, { 0: [0, 0], 1: [1, 0], 2: [2, 0], 3: [3, 0], 4: [2, 1], 5: [1, 2] });
  const taken = Object.values(places).map(String);
  assert.equal(new Set(taken).size, taken.length);
});

test("lines end where the steps stand", () => {
  const lines = elbows(layTree(TREE), { width: 100, height: 40, across: 20, down: 10 });
  assert.equal(lines.length, 5);
  assert.deepEqual(lines.at(-1), { x: 110, y: 20, width: 10, height: 100 });
  assert.deepEqual(lines[0], { x: 100, y: 20, width: 20, height: 0 });
});

test("arrows lead to the parent, the first child, and the rows beside", () => {
  const places = layTree(TREE);
  const to = (number, key) => neighbourOf(places, number, key);
  assert.deepEqual([to(2, "ArrowLeft"), to(1, "ArrowRight"), to(3, "ArrowRight"), to(0, "ArrowLeft")], [1, 2, 3, 0]);
  assert.deepEqual([to(2, "ArrowDown"), to(4, "ArrowDown"), to(5, "ArrowUp"), to(0, "ArrowUp")], [4, 5, 4, 0]);
  assert.deepEqual([to(3, "Home"), to(0, "End"), to(0, "Enter"), to(9, "Home")], [0, 5, null, null]);
});

test("a long chain needs no recursion", () => {
  const chain = Array.from({ length: 20_000 }, (_, number) => ({ number, parent: number ? number - 1 : null }));
  assert.equal(layTree(chain).at(-1).column, 19_999);
});

test("a step says its accuracies by role, and marks those of a target that was looked at", () => {
  const cell = (domain, role, value, aware = false) => ({ domain, role, value, low: value - 0.02, high: value + 0.02, target_aware: aware });
  const accuracy = [cell("a", "source", 0.951), cell("b", "source", 0.92), cell("t", "target", 0.444, true)];
  const { text, full } = stepWords({ label: "L1 norm 50 %", removed: 0.5, accuracy, stored: "disk" });
  assert.equal(text, "sources 95 / 92, target 44 \u25C7");
  assert.equal(full.split("\n")[0], "L1 norm 50 %");
  const named = (label) => (({ name, share }) => [name, share])(stepWords({ label, removed: 0, accuracy: [] }));
  assert.deepEqual(named("DSS (a vs b) \u25C7 target-aware, 30 %, by hand"), ["DSS (a vs b) \u25C7", ", 30 %, by hand"]);
  assert.deepEqual([named("fine-tuned, 2 epochs"), named("L1 norm 12.5 %")], [["fine-tuned, 2 epochs", ""], ["L1 norm", " 12.5 %"]]);
  assert.ok(full.includes("50 % of the filters removed") && full.includes("stored on disk"));
  assert.ok(full.includes("t (target, \u25C7 target-aware): 44 % (42\u201346)"));
  assert.equal(stepWords({ label: "x", removed: 0, accuracy: [{ domain: "a", role: "source", value: null }] }).text, "not measured yet");
});

test("a step tells agreement with the full network from accuracy, and rounds halves up", () => {
  const cell = (domain, role, metric, value) => ({ domain, role, metric, value, low: value - 0.01, high: value });
  const accuracy = [cell("a", "source", "accuracy", 0.985), cell("b", "target", "accuracy", 0.925), cell("c", "target", "agreement", 1)];
  const { text, full } = stepWords({ label: "full network", removed: 0, accuracy });
  assert.equal(text, "source 99, target 93, agreement 100");
  assert.ok(full.includes("c (target): 100 % (99\u2013100) agreement with the full network") && !full.includes("93 % (92\u201393) agreement"));
});

test("undo and redo are told apart, and a text field keeps its own", () => {
  const key = (more) => undoOf({ key: "z", ctrlKey: true, metaKey: false, altKey: false, shiftKey: false, ...more });
  assert.deepEqual([key(), key({ shiftKey: true, key: "Z" }), key({ ctrlKey: false, metaKey: true })], ["undo", "redo", "undo"]);
  assert.deepEqual([key({ ctrlKey: false }), key({ altKey: true }), key({ key: "y" }), undoOf({ ctrlKey: true })], [null, null, null, null]);
  const input = (type) => isText({ tagName: "INPUT", type });
  assert.deepEqual(["number", "text", "search", "range", "checkbox"].map(input), [true, true, true, false, false]);
  assert.ok(isText({ tagName: "TEXTAREA" }) && isText({ tagName: "DIV", isContentEditable: true }) && !isText({ tagName: "BUTTON" }));
});

test("a fine-tuning begins only with numbers that make sense", () => {
  assert.deepEqual(checked({ epochs: "2", lr: "0.01", augment: "none" }), { epochs: 2, lr: 0.01, augment: "none" });
  for (const epochs of ["0", "1.5", "", "-1", "1e3"]) assert.match(checked({ epochs, lr: "0.1", augment: "none" }).wrong, /^Epochs/);
  for (const lr of ["0", "", "x", "-1", "Infinity"]) assert.match(checked({ epochs: "1", lr, augment: "none" }).wrong, /^Learning rate/);
});

test("differences of another view are told from those of this one", () => {
  const choice = { scorer: "l1", scope: "layer", budget: "filters", batchnorm: "as_is", ratio: 0.1 + 0.2 };
  const key = ["l1", "layer", "filters", "as_is", 0, [[], [], []]];
  assert.ok(isAgainst([...key, 0.3], choice));
  assert.ok(!isAgainst([...key, 0.31], choice) && !isAgainst(null, choice) && !isAgainst([...key, 0.3], { ...choice, step: 1 }));
  const row = (difference, stale) => ({ stale, cells: [{ difference }] });
  assert.match(noteOf([row("+1.0 (0.0 to +2.0)", false)]), /minus the present view/);
  assert.match(noteOf([row("+1.0 (0.0 to +2.0)", true)]), /earlier view/);
  assert.doesNotMatch(noteOf([row("", false)]), /minus/);
});

test("the filters that differ are counted in both directions, as a share of the full network's", () => {
  assert.equal(differsText({ kept: [[1, 0, 1], [1, 1]] }, [[1, 1, 0], [1, 1]], 10), "20 %");
  assert.equal(differsText({ kept: [[true, false]] }, [[1, 0]], 2), "0 %");
  assert.equal(differsText({ kept: [[1, 1]], filters: 5 }, [[1, 1]], 10), "30 %", "three that the present step has lost");
  assert.equal(differsText({ kept: null, differs: "34 %" }, [[1]], 1), "34 %");
});

test("the chosen pin stays the chosen one when another is taken off", () => {
  const pin = (ratio, more) => pinKey({ choice: { ratio }, removed: "10 %", parameters: "20 %", filters: 3, differs: "1 %", ...more });
  const [a, b, c] = [pin(0.1), pin(0.2), pin(0.3)];
  assert.equal(chosenAfter([a, b, c], [b, c], 1), 0);
  assert.equal(chosenAfter([a, b, c], [a, b], 1), 1);
  assert.equal(chosenAfter([a, b, c], [a, c], 1), null, "it went itself");
  assert.equal(chosenAfter([a, c], [a, c, b], null), null, "nobody chose another");
  assert.deepEqual([chosenAfter([], [a], 0), chosenAfter([a], [], 0), chosenAfter([a], [b], null)], [0, 0, 0]);
  assert.equal(pin(0.1, { differs: "7 %", label: "other words" }), a, "words change with the present view");
});

test("a page without Python pins what it shows", () => {
  const dot = { domain: "t", value: 44.4, low: 41.2, high: 47.6, colour: "#D55E00", looked: "yes, other images of this domain" };
  const bare = { domain: "u", value: 92.5, low: 91.5, high: 100, colour: "#009E73", looked: "no" };
  const frame = { dots: [dot, bare], full: [{ domain: "t", value: 60 }] };
  const step = { left: [{ what: "Filters", share: 50.2 }, { what: "Parameters", share: 26.4 }] };
  const pin = pinOf({ frame, step, mask: [[1, 0]] }, { choice: { ratio: 0.5 }, label: "L1", domains: ["t", "u"].map((name) => ({ name, role: "target" })) });
  assert.deepEqual([pin.removed, pin.parameters, pin.at, pin.points], ["50 %", "26 %", 50, []]);
  assert.equal(pin.cells[0].text, "44 (41\u201348)");
  assert.deepEqual(pin.cells.map(({ metric }) => metric), ["accuracy", "agreement"]);
  assert.equal(pin.cells[1].text, "93 (92\u2013100)");
  assert.ok(pin.cells[0].target_aware && pin.cells[0].difference === "");
});
