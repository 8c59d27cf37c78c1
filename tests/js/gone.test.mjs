import assert from "node:assert/strict";
import { test } from "node:test";

import { createPanels, showPanels } from "../../dgprune_lab/widgets/page/static/panels.js";
import { createPinTable, showPinTable } from "../../dgprune_lab/widgets/page/static/pins.js";
import { createSteps, showSteps } from "../../dgprune_lab/widgets/page/static/steps.js";
import { isOff, named, openPage } from "./fake_page.mjs";

openPage();

// Off without a kernel, and on again once another one answers.
const follows = (draw, buttons) => {
  for (const gone of [false, true, false]) {
    draw(gone);
    for (const [what, find] of Object.entries(buttons)) assert.equal(isOff(find()), gone, `${what}, gone: ${gone}`);
  }
};

test("pins can be looked at without a kernel, but not gone to or taken off", () => {
  const table = createPinTable({ send() {}, pick() {} });
  const pins = [{ letter: "a", label: "L1, 50 %", choice: { ratio: 0.5 }, cells: [], against: null, kept: null }];
  const draw = (gone) => showPinTable(table, pins, { active: 0, choice: {}, mask: null, total: 1, ink: (colour) => colour, gone });
  follows(draw, { "Go to": () => named(table.body, "Go to pin a"), unpin: () => named(table.body, "Unpin a") });
  draw(true);
  assert.ok(!isOff(named(table.body, "Pin a")));
});

test("no step can be gone to without a kernel", () => {
  const steps = createSteps({ send() {} });
  const tree = { current: 0, steps: [{ number: 0, parent: null, kind: "full", label: "full network", removed: 0, accuracy: [] }] };
  follows((gone) => showSteps(steps, tree, { gone, defaults: null, stale: false }), { step: () => named(steps.inner, "Step 0"), apply: () => steps.apply });
});

test("no panel can be opened, set or turned over without a kernel", () => {
  const panels = createPanels({ send() {} });
  const controls = [{ name: "x", label: "X", choices: [["p", "P"], ["q", "Q"]], value: "p" }, { name: "y", label: "Y", kind: "number", value: 1, low: 0, high: 9 }];
  const actions = [{ label: "Press", message: { type: "press" } }];
  const state = { list: [{ name: "trade_off", label: "Trade-off" }], open: "trade_off", ack: 0, controls, actions, pages: { at: 0, of: 3 } };
  follows((gone) => showPanels(panels, state, { embed: null, dark: false, choice: {}, gone }), {
    bar: () => named(panels.bar, "Trade-off"), menu: () => panels.menus.lists.get("x").list,
    number: () => panels.menus.lists.get("y").input, action: () => named(panels.actions.box, "Press"), pager: () => panels.pager.after,
  });
});
