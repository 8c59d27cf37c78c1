import assert from "node:assert/strict";
import { test } from "node:test";

import { cell, csvOf, fileName, filterRows, rowsOf } from "../../dgprune_lab/widgets/page/static/chart_rows.js";

test("cells are quoted as RFC 4180 wants, and no text becomes a formula", () => {
  assert.deepEqual([1.5, -3, true, null, undefined, NaN].map(cell), ["1.5", "-3", "true", "", "", ""]);
  assert.deepEqual(['a,b', 'say "x"', "two\nlines"].map(cell), ['"a,b"', '"say ""x"""', '"two\nlines"']);
  assert.deepEqual(["=1+1", "+1", "-1", "@x", "\tx", "a=b"].map(cell), ["'=1+1", "'+1", "'-1", "'@x", "'\tx", "a=b"]);
  assert.equal(cell('=HYPERLINK("x")'), `"'=HYPERLINK(""x"")"`);
  assert.equal(cell({ a: [1, 2] }), '"{""a"":[1,2]}"');
});

const LAYERS = {
  data: { name: "outer", values: [{ k: 1 }] },
  layer: [
    { data: { name: "curves" }, mark: { type: "line" } },
    { data: { name: "names" }, mark: { type: "text" } },
    { data: { name: "span", values: [{ x: -5 }] }, mark: { type: "point", opacity: 0 } },
    { mark: "bar" },
    { data: { name: "curves" }, mark: { type: "text" } },
  ],
  datasets: { curves: [{ domain: "old" }] },
};

test("only data that marks show are written, and those that the page feeds replace the others", () => {
  const fed = { curves: [{ domain: "mnist", value: 97.25, colour: "#fff", low: null }], names: [{ label: "mnist" }] };
  assert.deepEqual(rowsOf(LAYERS, fed).map(({ name }) => name), ["curves", "outer"]);
  assert.equal(csvOf(LAYERS, fed), "data,domain,value,low,k\r\ncurves,mnist,97.25,,\r\nouter,,,,1\r\n");
  assert.deepEqual(rowsOf(LAYERS)[0].rows, [{ domain: "old" }]);
});

test("a chart of one data set has no column for its name; charts side by side have all of theirs", () => {
  const one = { data: { values: [{ a: 1, "b,c": "x" }, { a: 2 }] }, mark: "point" };
  assert.equal(csvOf(one), 'a,"b,c"\r\n1,x\r\n2,\r\n');
  const beside = { hconcat: [{ spec: { ...one, data: { name: "p" } }, facet: {} }, { ...one, data: { name: "q" } }] };
  assert.deepEqual(rowsOf(beside, { p: [{ a: 1 }], q: [{ a: 2 }] }).map(({ name }) => name), ["p", "q"]);
});

test("where there is nothing but text, the texts are written", () => {
  assert.equal(csvOf({ data: { name: "words", values: [{ text: "0.3" }] }, mark: { type: "text" } }), "text\r\n0.3\r\n");
  assert.equal(csvOf({ mark: "bar" }), "\r\n");
});

test("a file's name comes from the title, in letters that every system takes", () => {
  assert.equal(fileName("Size and cost", "svg"), "size-and-cost.svg");
  assert.equal(fileName("../../etc: 50 % <b>", "csv"), "etc-50-b.csv");
  assert.equal(fileName(undefined, "png"), "chart.png");
});

test("the filters of the grid have their original numbers, and rank 1 is removed first", () => {
  const plan = { groups: [{ name: "conv1", rank: [1, 0], score: [0.5, 0.25], index: [3, 7] }] };
  assert.deepEqual(filterRows({ plan, mask: [[1, 0]] }), [
    { layer: "conv1", filter: 3, kept: true, rank: 2, score: 0.5 },
    { layer: "conv1", filter: 7, kept: false, rank: 1, score: 0.25 },
  ]);
  assert.deepEqual(filterRows({ plan: null, mask: null }), []);
});
