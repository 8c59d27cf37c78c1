// A page without a kernel: it moves over a grid that was computed before, and hides what needs Python.

import { show } from "./elements.js";
import { frameKey, nearest } from "./memory.js";

// Controls stay only where at least two values were precomputed.
export function settleOffline(page) {
  const { controls, memory } = page;
  const keys = [...memory.frames.keys()].map((key) => key.split("|"));
  const has = (place, value) => keys.some((key) => key[place] === value);
  const many = (place) => new Set(keys.map((key) => key[place])).size > 1;
  for (const option of controls.scorers.querySelectorAll("option")) if (!has(0, option.value)) option.remove();
  for (const group of controls.scorers.querySelectorAll("optgroup")) if (!group.children.length) group.remove();
  controls.share.allow((scope) => has(1, scope));
  show(controls.share.box, many(1));
  for (const option of [...controls.count.options]) if (!has(2, option.value)) option.remove();
  show(controls.countBox, many(2));
  show(controls.refreshBox, many(3));
  show(controls.buttons.code, false);
  show(controls.buttons.save, false);
  const { slider } = controls;
  const ratios = (memory.frames.get(frameKey(page.choice)) ?? []).map((row) => row.ratio);
  slider.grid = Math.max(1, Math.round(100 * Math.min(...ratios.slice(1).map((ratio, index) => ratio - ratios[index]))));
  Object.assign(slider.input, { step: slider.grid, max: Math.round(100 * Math.max(...ratios, 0.01)) });
}

// The nearest view that was computed: the key with the changed value and most of the others, its nearest ratio.
export function precomputed(page, next, change) {
  const fields = ["scorer", "scope", "budget", "batchnorm"];
  const fixed = Object.keys(change)[0];
  let best = null;
  for (const key of page.memory.frames.keys()) {
    const values = Object.fromEntries(key.split("|").map((value, index) => [fields[index], value]));
    if (fields.includes(fixed) && values[fixed] !== next[fixed]) continue;
    const score = fields.filter((field) => values[field] === next[field]).length;
    if (!best || score > best.score) best = { score, values };
  }
  const choice = { ...next, ...best?.values };
  const row = nearest(page.memory.frames.get(frameKey(choice)) ?? [], choice.ratio);
  return { ...choice, ratio: row ? row.ratio : choice.ratio };
}

export function answerOffline(page, message) {
  const pins = [...(page.model.get("pins") ?? [])];
  const now = page.current();
  if (message.type === "pin" && now.mask) {
    const label = `${page.scorer()?.label ?? page.choice.scorer} \u00B7 ${Math.round(100 * page.choice.ratio)} %`;
    pins.push({ label, key: frameKey(page.choice), ratio: page.choice.ratio, rows: now.rows, kept: now.mask });
    page.model.set("pins", pins.slice(-3));
  }
  if (message.type === "unpin") page.model.set("pins", pins.filter((_, index) => index !== message.index));
  if (message.type === "reset") {
    page.model.set("pins", []);
    page.choice = { ...page.start };
  }
  page.model.save_changes();
  page.schedule();
}
