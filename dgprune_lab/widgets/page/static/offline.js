// A page without a kernel: it moves over a grid that was computed before, and hides what needs Python.

import { node, show } from "./elements.js";
import { curveKey, nearest } from "./memory.js";
import { pinOf } from "./pins.js";
import { percent } from "./rounding.js";
import { pictureOf } from "./strip.js";

// Controls stay only where at least two values were precomputed.
export function settleOffline(page) {
  const { controls, memory } = page;
  const keys = [...memory.curves.keys()].map((key) => JSON.parse(key));
  const has = (place, value) => keys.some((key) => key[place] === value);
  const many = (place) => new Set(keys.map((key) => key[place])).size > 1;
  for (const option of controls.scorers.querySelectorAll("option")) if (!has(0, option.value)) option.remove();
  for (const group of controls.scorers.querySelectorAll("optgroup")) if (!group.children.length) group.remove();
  controls.scope.allow((scope) => has(1, scope));
  show(controls.scope.box, many(1));
  for (const option of [...controls.budget.options]) if (!has(2, option.value)) option.remove();
  show(controls.budgetBox, many(2));
  show(controls.recalibrateBox, many(3));
  for (const name of ["code", "save", "download"]) show(controls.buttons[name], false);
  const draw = page.schedule;
  page.schedule = () => {
    fitSlider(page);
    draw();
  };
  fitSlider(page);
  const paper = node("div", { class: "dgx-on-paper" });
  page.strip.scroll.before(paper);
  addEventListener("beforeprint", () => {
    const picture = new DOMParser().parseFromString(pictureOf(page.strip), "image/svg+xml").documentElement;
    paper.replaceChildren(document.importNode(picture, true));
    page.root.toggleAttribute("data-dark", Boolean(page.inks?.dark));
  });
}

// The slider stops where ratios were measured, which may be closer for one scorer than for another.
function fitSlider({ controls: { slider }, memory, choice }) {
  const ratios = (memory.curves.get(curveKey(choice))?.rows ?? []).map((row) => row.ratio);
  const grid = Math.max(1, Math.round(100 * Math.min(...ratios.slice(1).map((ratio, index) => ratio - ratios[index]))));
  if (slider.grid === grid) return;
  slider.grid = grid;
  Object.assign(slider.input, { step: grid, max: Math.round(100 * Math.max(...ratios, 0.01)) });
}

// The nearest view that was computed: the key with the changed value and most of the others, its nearest ratio.
export function precomputed(memory, next, change) {
  const fields = ["scorer", "scope", "budget", "batchnorm"];
  const fixed = Object.keys(change)[0];
  let best = null;
  for (const key of memory.curves.keys()) {
    const values = Object.fromEntries(fields.map((field, index) => [field, JSON.parse(key)[index]]));
    if (fields.includes(fixed) && values[fixed] !== next[fixed]) continue;
    const score = fields.filter((field) => values[field] === next[field]).length;
    if (!best || score > best.score) best = { score, values };
  }
  const choice = { ...next, ...best?.values };
  const row = nearest(memory.curves.get(curveKey(choice))?.rows ?? [], choice.ratio);
  return { ...choice, ratio: row ? row.ratio : choice.ratio };
}

export function answerOffline(page, message) {
  const pins = [...(page.model.get("pins") ?? [])];
  const now = page.current();
  if (message.type === "pin" && now.mask) {
    const label = `${page.scorer()?.label ?? page.choice.scorer}, ${percent(page.choice.ratio, 2)}`;
    pins.push(pinOf(now, { choice: page.choice, label, domains: page.fixed.domains }));
    page.model.set("pins", pins.slice(-3));
  }
  if (message.type === "goto") page.choice = precomputed(page.memory, { ...page.choice, ...message.choice }, message.choice);
  if (message.type === "unpin") page.model.set("pins", pins.filter((_, index) => index !== message.index));
  if (message.type === "reset") {
    page.model.set("pins", []);
    page.choice = { ...page.start };
  }
  page.model.save_changes();
  page.schedule();
}
