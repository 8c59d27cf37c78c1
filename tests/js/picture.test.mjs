import assert from "node:assert/strict";
import { test } from "node:test";

import { gridSvg } from "../../dgprune_lab/widgets/page/static/picture.js";

const INKS = { cell: "#111", ring: "#222", mark: "#333", words: "#444", hole: "#fff", focus: "#00f" };
const state = (kept, more = {}) => ({ kept, forced: null, silent: false, differs: false, selected: false, ...more });
const row = (states) => ({ bins: states.map((_, f) => [f]), states, left: 100, top: 4, per: 8, size: 12, name: "a<b & c", share: "1 of 2" });
const draw = (rows) => gridSvg({ rows, title: "Filters kept", notes: "disc: kept", width: 200, height: 40, inks: INKS, paper: "#fff" });
const path = (svg, paint) => svg.match(new RegExp(`<path d="([^"]*)" ${paint}`))?.[1];

test("a disc stays, a ring is removed, and each lies where its cell lies", () => {
  const svg = draw([row([state(true), state(false)])]);
  assert.equal(path(svg, 'fill="#111"'), "M 110.6 10A 4.6 4.6 0 1 1 101.4 10A 4.6 4.6 0 1 1 110.6 10");
  assert.ok(path(svg, 'fill="none" stroke="#222"').startsWith("M 122.2 10A 4.2"));
  assert.equal((svg.match(/<path/g) ?? []).length, 2);
});

test("what was set by hand is a square or a cross; a line through it is silent", () => {
  const svg = draw([row([state(true, { forced: "keep" }), state(false, { forced: "remove" }), state(true, { silent: true })])]);
  assert.match(path(svg, 'fill="#111"'), /^M 101 5 h 10 v 10 h -10 z/);
  assert.match(path(svg, 'fill="none" stroke="#333"'), /^M [\d.]+ [\d.]+L [\d.]+ [\d.]+M [\d.]+ [\d.]+L/);
  assert.ok(path(svg, 'fill="none" stroke="#fff"').includes("L"));
});

test("names are escaped, and the picture is as large as what it holds", () => {
  const svg = draw([row([state(true)])]);
  assert.ok(svg.includes(">a&lt;b &amp; c</text>") && !svg.includes("a<b"));
  assert.match(svg, /^<svg xmlns="http:\/\/www.w3.org\/2000\/svg" width="224" height="108"/);
});

test("a name that is longer than the room beside its cells loses its beginning", () => {
  const svg = draw([{ ...row([state(true)]), name: "denseblock3.denselayer12.conv2" }]);
  assert.ok(svg.includes(">…3.denselayer12.conv2</text>") && !svg.includes("denseblock3"));
});
