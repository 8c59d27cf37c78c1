import assert from "node:assert/strict";
import { test } from "node:test";

import { createPanels, showPanels } from "../../dgprune_lab/widgets/page/static/panels.js";
import { createPinTable, showPinTable } from "../../dgprune_lab/widgets/page/static/pins.js";
import { createSteps, showSteps } from "../../dgprune_lab/widgets/page/static/steps.js";
import { watchKernel } from "../../dgprune_lab/widgets/page/static/watch.js";
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

test("a kernel that another program has restarted is another process with the same connection", () => {
  const signals = Object.fromEntries(["statusChanged", "connectionStatusChanged", "disposed", "iopubMessage"].map((name) => [name, new Set()]));
  const connected = ([name, held]) => [name, { connect: (act) => held.add(act), disconnect: (act) => held.delete(act) }];
  const kernel = { status: "idle", connectionStatus: "connected", ...Object.fromEntries(Object.entries(signals).map(connected)) };
  const page = { model: { widget_manager: { kernel }, on() {}, off() {} }, fixed: {}, gone: false, schedule() {} };
  const end = watchKernel(page);
  const hear = (session, msg_type, execution_state) => signals.iopubMessage.forEach((act) => act(kernel, { header: { session, msg_type }, content: { execution_state } }));
  hear("first", "comm_msg"); // the cell may have ended before the page listens
  for (const state of ["busy", "idle", "busy"]) hear("first", "status", state);
  hear("server", "status", "restarting"); // of the server, which has a session too
  hear("other", "comm_msg");
  assert.equal(page.gone, false);
  hear("second", "status", "busy");
  assert.equal(page.gone, true);
  end();
  assert.ok(Object.values(signals).every((held) => held.size === 0));
  const other = { ...page, gone: false, lost: false };
  watchKernel(other);
  signals.statusChanged.forEach((act) => act(kernel, "busy"));
  assert.equal(other.gone, false);
  signals.statusChanged.forEach((act) => act(kernel, "restarting"));
  assert.equal(other.gone, true);
});
