// The steps of the session: a small tree, left to right, and what makes and undoes them.

import { button, enable, node, show, swallow } from "./elements.js";
import { createFinetuning, showFinetuning } from "./finetuning.js";
import { elbows, layTree, neighbourOf, stepWords } from "./step_tree.js";

const CELL = { width: 196, height: 40, across: 24, down: 8 };

export function createSteps(acts) {
  const steps = { acts, key: null, buttons: new Map() };
  steps.undo = button("Undo", () => acts.send({ type: "undo" }));
  steps.redo = button("Redo", () => acts.send({ type: "redo" }));
  steps.history = node("span", { class: "dgx-buttons" }, steps.undo, steps.redo);
  steps.apply = button("Apply", () => acts.send({ type: "apply" }), {
    title: "Make the present choice a step: its filters are removed, and the slider goes on from there",
  });
  steps.finetuning = createFinetuning(acts);
  steps.inner = node("div", { class: "dgx-tree", role: "tree", "aria-label": "Steps", "aria-orientation": "horizontal" });
  steps.scroll = node("div", { class: "dgx-tree-scroll" }, steps.inner);
  steps.inner.addEventListener("keydown", (event) => onArrow(steps, event));
  const title = node("span", { class: "dgx-steps-title", text: "Steps" });
  const bar = node("div", { class: "dgx-row dgx-steps-bar" }, title, steps.finetuning.job,
    node("span", { class: "dgx-buttons" }, steps.apply, steps.finetuning.open));
  steps.box = node("section", { class: "dgx-steps", "aria-label": "Steps" }, bar, steps.finetuning.form, steps.scroll);
  return steps;
}

// `tree`: the trait; a page without a kernel has none. `stale`: the plan of the present choice is not there yet.
export function showSteps(steps, tree, { gone, defaults, stale }) {
  const list = tree?.steps ?? [];
  show(steps.box, list.length > 0);
  show(steps.history, list.length > 0);
  if (!list.length) return;
  const busy = Boolean(tree.job) || gone;
  const key = /Mac/.test(navigator.platform) ? "Cmd" : "Ctrl";
  showHistory(steps.undo, "Undo", busy ? null : tree.undo, `${key}+Z`);
  showHistory(steps.redo, "Redo", busy ? null : tree.redo, `${key}+Shift+Z`);
  enable(steps.apply, !busy && !stale);
  showFinetuning(steps.finetuning, tree.job, { defaults, gone });
  const text = JSON.stringify([list, tree.current]);
  if (steps.key !== text) drawTree(steps, list, tree.current, text);
  for (const element of steps.buttons.values()) enable(element, !gone);
}

function showHistory(element, verb, label, keys) {
  enable(element, Boolean(label));
  const title = label ? `${verb}: ${label} (${keys})` : `Nothing to ${verb.toLowerCase()}`;
  if (element.title !== title) element.title = title;
}

function drawTree(steps, list, current, key) {
  const focused = steps.inner.contains(document.activeElement) ? Number(document.activeElement.dataset.step) : null;
  const moved = steps.current !== current || steps.count !== list.length;
  Object.assign(steps, { key, current, count: list.length, places: layTree(list) });
  steps.buttons = new Map(list.map((step) => [step.number, stepButton(steps, step)]));
  const columns = 1 + Math.max(...steps.places.map(({ column }) => column));
  const rows = 1 + Math.max(...steps.places.map(({ row }) => row));
  steps.inner.style.width = `${columns * (CELL.width + CELL.across)}px`;
  steps.inner.style.height = `${rows * (CELL.height + CELL.down)}px`;
  steps.inner.replaceChildren(...elbows(steps.places, CELL).map(link), ...steps.buttons.values());
  const wanted = steps.buttons.get(focused ?? current);
  if (focused !== null) wanted?.focus({ preventScroll: true });
  if (moved) intoView(steps, steps.buttons.get(current));
}

function stepButton(steps, step) {
  const { row, column } = steps.places.find(({ number }) => number === step.number);
  const isCurrent = step.number === steps.current;
  const { name, share, text, full } = stepWords(step);
  const element = button("", () => steps.acts.send({ type: "goto", choice: { step: step.number, ratio: 0 } }), {
    class: "dgx-step", role: "treeitem", "data-step": step.number, "data-kind": step.kind, tabindex: isCurrent ? 0 : -1,
    "aria-current": isCurrent ? "step" : undefined, "aria-level": column + 1, title: full,
    "aria-label": `Step ${step.number}${isCurrent ? ", the current one" : ""}: ${full.replaceAll("\n", "; ")}`,
  });
  const label = node("span", { class: "dgx-step-label" }, node("span", { class: "dgx-step-name", text: name }), node("span", { class: "dgx-step-share", text: share }));
  element.append(label, node("span", { class: "dgx-step-about", text }));
  Object.assign(element.style, place({ x: column * (CELL.width + CELL.across), y: row * (CELL.height + CELL.down) }));
  Object.assign(element.style, { width: `${CELL.width}px`, height: `${CELL.height}px` });
  return element;
}

function link({ x, y, width, height }) {
  const element = node("span", { class: "dgx-link", "data-bent": height > 0, "aria-hidden": "true" });
  Object.assign(element.style, place({ x, y }), { width: `${width}px`, height: `${height}px` });
  return element;
}

const place = ({ x, y }) => ({ left: `${x}px`, top: `${y}px` });

// A narrower page would cut the current step at the right.
export function keepInView(steps) {
  if (steps.room === steps.scroll.clientWidth) return;
  steps.room = steps.scroll.clientWidth;
  intoView(steps, steps.buttons.get(steps.current));
}

// Only the strip scrolls, never the page around it.
function intoView({ scroll }, element) {
  if (!element) return;
  const { offsetLeft: x, offsetTop: y } = element;
  const within = (at, start, room, size) => Math.min(Math.max(start, at + size - room + 4), at - 4);
  scroll.scrollLeft = Math.max(0, within(x, scroll.scrollLeft, scroll.clientWidth, CELL.width));
  scroll.scrollTop = Math.max(0, within(y, scroll.scrollTop, scroll.clientHeight, CELL.height));
}

function onArrow(steps, event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const next = neighbourOf(steps.places, Number(document.activeElement.dataset.step), event.key);
  if (next === null) return;
  swallow(event);
  steps.buttons.forEach((element, number) => (element.tabIndex = number === next ? 0 : -1));
  steps.buttons.get(next).focus({ preventScroll: true });
  intoView(steps, steps.buttons.get(next));
}

// --- keys ---------------------------------------------------------------------------------------------------------

// Ctrl+Z and Ctrl+Shift+Z with the focus in the explorer, but not in a text field, which has its own. Neither reaches the
// notebook: `lendKeys` keeps them, and this listener is before JupyterLab's.
export function undoKeys(root, steps) {
  const handle = (event) => {
    const type = undoOf(event);
    if (!type || !isInside(root, event.target) || isText(event.target) || steps.history.hidden) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    steps[type].click();
  };
  window.addEventListener("keydown", handle, true);
  return () => window.removeEventListener("keydown", handle, true);
}

export function undoOf({ key, ctrlKey, metaKey, altKey, shiftKey }) {
  if (!(ctrlKey || metaKey) || altKey || key?.toLowerCase() !== "z") return null;
  return shiftKey ? "redo" : "undo";
}

const isInside = (root, target) => target instanceof Node && root.contains(target);

const NO_TEXT = new Set(["range", "checkbox", "radio", "button", "color", "file", "submit", "reset"]);

export function isText({ tagName, type, isContentEditable }) {
  return isContentEditable || tagName === "TEXTAREA" || (tagName === "INPUT" && !NO_TEXT.has(type));
}
