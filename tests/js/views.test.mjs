import assert from "node:assert/strict";
import { test } from "node:test";

import { enlarge } from "../../dgprune_lab/widgets/page/static/views.js";

// A chart of which nothing but its size and its parameters is known; it counts how often it is drawn.
function chart() {
  const set = { side: 440, runs: 0 };
  const view = {
    signal(name, value) {
      if (value === undefined) return set[name];
      set[name] = value;
      return view;
    },
    width: (value) => Object.assign(view, { set: Object.assign(set, { width: value }) }),
    height: (value) => Object.assign(view, { set: Object.assign(set, { height: value }) }),
    run: () => (set.runs += 1),
  };
  const grows = { parameter: "side", from: 440, to: 620, beside: 156, above: 136 };
  return { set, holder: { view, spec: { usermeta: { grows }, padding: { left: 4, right: 4 } } } };
}

test("a chart that grows takes the room of the page, between its limits", () => {
  for (const [room, side] of [[464, 440], [700, 536], [2000, 620]]) {
    const { set, holder } = chart();
    enlarge(holder, room);
    assert.equal(set.side, side);
    if (side === 440) assert.equal(set.runs, 0, "nothing changes");
    else assert.deepEqual([set.width, set.height, set.runs], [side + 156, side + 136, 1]);
    enlarge(holder, room);
    assert.ok(set.runs <= 1, "the same room draws nothing");
  }
});

test("a chart that does not grow, is not drawn yet or has ended stays as it is", () => {
  enlarge({ view: null, spec: { usermeta: { grows: {} } } }, 900);
  enlarge({ view: {}, spec: {} }, 900);
  const { set, holder } = chart();
  enlarge({ ...holder, ended: true }, 900);
  assert.equal(set.side, 440);
});
