// The live pruning explorer: draws what the model's traits hold, sends what the user chooses.
// draw() needs only get/on/off/set/save_changes/send of its model, so a static page can fake one.

import { createControls, showChoice } from "./controls.js";
import { button, node, say, show } from "./elements.js";
import {
  anyAware, createMemory, dropData, frameAt, frameKey, leftData, maskOf, nearest, planKey, sharedWith, sweepData, tick,
} from "./memory.js";
import { createNotices, showCode, showNotice, showPins, showWarning } from "./notices.js";
import { clearPanels, createPanels, showPanels } from "./panels.js";
import { createStrip, drawStrip } from "./strip.js";
import { createView, dragInPlot, endView, feed, inksOf, plotSize } from "./views.js";

const SEND_EVERY = 60; // ms between two choices sent while the slider moves
const BUSY_AFTER = 2000; // ms without an answer until Python counts as busy

export function draw(el, model, host) {
  const page = createPage(el, model, host);
  layOut(page);
  const stops = [listen(page), watchSize(page), watchTheme(page), watchKernel(page)];
  learn(page);
  paint(page);
  loadCharts(page);
  return () => {
    page.ended = true;
    cancelAnimationFrame(page.frame);
    clearTimeout(page.sending);
    clearTimeout(page.waiting);
    stops.forEach((stop) => stop());
    page.controls.info.dispose();
    endCharts(page);
    clearPanels(page.panels);
    page.root.remove();
  };
}

function createPage(el, model, host) {
  const page = {
    el, model, host, fixed: model.get("static"), memory: createMemory(), charts: {}, embed: null, pin: 0,
    choice: { ...model.get("choice") }, start: { ...model.get("choice") }, lastSent: 0, busy: false, gone: false, moving: false,
  };
  page.acts = {
    ratio: (ratio) => choose(page, { ratio }),
    choose: (field, value) => choose(page, { [field]: value }),
    send: (message) => sendMessage(page, message),
    instead: () => useInstead(page),
  };
  return page;
}

// --- layout -------------------------------------------------------------------------------------------------------

function panelBox(letter, title, ...children) {
  const heading = node("div", { class: "dgx-title" }, node("span", { class: "dgx-letter", text: letter }), node("span", { text: title }));
  return { heading, box: node("section", { class: `dgx-card dgx-${letter.toLowerCase()}`, "aria-label": title }, heading, ...children) };
}

function layOut(page) {
  page.controls = createControls(page.fixed, page.acts);
  page.notices = createNotices(page.acts);
  page.panels = createPanels(page.acts);
  page.sentence = node("div", { class: "dgx-sentence", "aria-live": "polite" });
  page.strip = createStrip({
    open: (group, filter) => sendMessage(page, { type: "filter", group, filter }),
    changed: () => schedule(page),
  });
  const boxes = { a: node("div", { class: "dgx-chart" }), c: node("div", { class: "dgx-chart" }), d: node("div", { class: "dgx-chart" }) };
  page.boxes = boxes;
  page.latency = node("div", { class: "dgx-about" });
  page.progress = node("span", { class: "dgx-progress" });
  const a = panelBox("A", "How well it still reads", boxes.a, legendLine(page));
  a.heading.append(page.progress);
  const b = panelBox("B", "Which filters stay", page.strip.scroll, page.strip.about);
  b.heading.append(orderToggle(page));
  const c = panelBox("C", "What is left", boxes.c, page.latency);
  const d = panelBox("D", "Change from full network", boxes.d);
  page.aware = node("span", { class: "dgx-progress", text: "\u25C7 target-aware" });
  d.heading.append(page.aware);
  const { strip, warning, code, chips } = page.notices;
  page.main = node("div", { class: "dgx-main" }, a.box, b.box, node("div", { class: "dgx-side" }, c.box, d.box));
  page.root = node(
    "div", { class: "dgx" },
    node("div", { class: "dgx-view" }, page.controls.box, strip, warning, node("div", { class: "dgx-headline" }, page.sentence, chips), page.main),
    code, page.panels.bar, page.panels.body,
  );
  page.el.append(page.root);
  if (page.fixed.offline) settleOffline(page);
}

function legendLine(page) {
  page.none = node("span", { text: "No new-look images yet: Study(targets=[...])" });
  show(page.none, !page.fixed.domains.some((domain) => domain.role === "target"));
  page.legend = node("span", { text: "full network \u2013 \u2013" });
  return node("div", { class: "dgx-about" }, page.legend, page.none);
}

function orderToggle(page) {
  const flip = (byScore) => () => {
    page.strip.byScore = byScore;
    number.setAttribute("aria-pressed", String(!byScore));
    score.setAttribute("aria-pressed", String(byScore));
    schedule(page);
  };
  const number = button("by number", flip(false), { class: "dgx-flip", "aria-pressed": "true" });
  const score = button("by score", flip(true), { class: "dgx-flip", "aria-pressed": "false" });
  return node("span", { class: "dgx-flips" }, number, score);
}

// --- what Python says ---------------------------------------------------------------------------------------------

function listen(page) {
  const { model } = page;
  const again = () => {
    learn(page);
    schedule(page);
  };
  const handlers = {
    "change:plan": again, "change:frames": again, "change:pins": again, "change:panels": again, "change:static": () => restart(page),
    "change:status": () => onStatus(page), "change:choice": () => onChoice(page), "msg:custom": (message) => onMessage(page, message),
  };
  for (const [event, handler] of Object.entries(handlers)) model.on(event, handler);
  return () => Object.entries(handlers).forEach(([event, handler]) => model.off(event, handler));
}

function learn(page) {
  const { model, memory } = page;
  for (const plan of model.get("plans_by_key") ?? []) memory.learnPlan(plan);
  for (const frames of model.get("frames_by_key") ?? []) memory.learnFrames(frames);
  memory.learnPlan(model.get("plan"));
  memory.learnFrames(model.get("frames"));
}

function restart(page) {
  page.fixed = page.model.get("static");
  endCharts(page);
  loadCharts(page);
}

function onStatus(page) {
  const status = page.model.get("status") ?? {};
  if ((status.ack ?? 0) >= page.lastSent) {
    clearTimeout(page.waiting);
    page.busy = false;
  }
  page.gone = false;
  schedule(page);
}

// A choice made in a cell (or in another view of this widget) moves the controls, but never a slider in a hand.
function onChoice(page) {
  const told = page.model.get("choice");
  if (told.by === "page" && told.id === page.lastSent) return;
  const ratio = page.controls.slider.held || page.moving ? page.choice.ratio : told.ratio;
  page.choice = { ...told, ratio };
  schedule(page);
}

function onMessage(page, message) {
  if (message?.type === "code") showCode(page.notices, message.text);
  if (message?.type === "saved") {
    page.saved = message.text;
    schedule(page);
  }
}

// --- what the user chooses ----------------------------------------------------------------------------------------

function choose(page, change) {
  const next = { ...page.choice, ...change };
  page.choice = page.fixed.offline ? precomputed(page, next, change) : next;
  page.saved = null;
  schedule(page);
  // At most one message per SEND_EVERY, and always the last one.
  if (page.sending) return;
  const wait = Math.max(0, SEND_EVERY - (performance.now() - (page.sentAt ?? -SEND_EVERY)));
  page.sending = setTimeout(() => sendChoice(page), wait);
}

function sendChoice(page) {
  page.sending = null;
  page.sentAt = performance.now();
  const known = Math.max(page.choice.id ?? 0, page.model.get("choice")?.id ?? 0, page.lastSent);
  page.lastSent = known + 1;
  page.choice = { ...page.choice, id: page.lastSent, by: "page" };
  toKernel(page, () => {
    page.model.set("choice", { ...page.choice });
    page.model.save_changes();
  });
  if (page.fixed.offline) return;
  clearTimeout(page.waiting);
  page.waiting = setTimeout(() => onSilence(page), BUSY_AFTER);
}

function onSilence(page) {
  page.gone = isGone(page);
  page.busy = !page.gone && (page.model.get("status")?.ack ?? 0) < page.lastSent;
  schedule(page);
}

function toKernel(page, act) {
  try {
    Promise.resolve(act()).catch(() => onSilence(page));
  } catch {
    page.gone = true;
    schedule(page);
  }
}

function sendMessage(page, message) {
  if (page.fixed.offline) return answerOffline(page, message);
  toKernel(page, () => page.model.send(message));
}

function useInstead(page) {
  const scorer = scorerOf(page);
  if (page.fixed.scorers.some((one) => one.name === scorer?.instead)) choose(page, { scorer: scorer.instead });
  else sendMessage(page, { type: "instead" });
}

const scorerOf = (page) => page.fixed.scorers.find((scorer) => scorer.name === page.choice.scorer);

// --- a page without a kernel --------------------------------------------------------------------------------------

// Controls stay only where at least two values were precomputed.
function settleOffline(page) {
  learn(page);
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
function precomputed(page, next, change) {
  const fields = ["scorer", "scope", "of", "batchnorm"];
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

function answerOffline(page, message) {
  const pins = [...(page.model.get("pins") ?? [])];
  const now = current(page);
  if (message.type === "pin" && now.mask) {
    const label = `${scorerOf(page)?.label ?? page.choice.scorer} \u00B7 ${Math.round(100 * page.choice.ratio)} %`;
    pins.push({ label, key: frameKey(page.choice), ratio: page.choice.ratio, rows: now.rows, kept: now.mask });
    page.model.set("pins", pins.slice(-3));
  }
  if (message.type === "unpin") page.model.set("pins", pins.filter((_, index) => index !== message.index));
  if (message.type === "reset") {
    page.model.set("pins", []);
    page.choice = { ...page.start };
  }
  page.model.save_changes();
  schedule(page);
}

// --- drawing ------------------------------------------------------------------------------------------------------

// Many events between two frames of the screen are one drawing.
function schedule(page) {
  if (page.frame || page.ended) return;
  page.frame = requestAnimationFrame(() => {
    page.frame = null;
    if (!page.ended) paint(page);
  });
}

// What is shown now: the plan's step and mask, the measured rows, and the frame whose numbers are shown.
function current(page) {
  const { memory, choice } = page;
  const exact = memory.plans.get(planKey(choice));
  const plan = exact ?? page.lastPlan ?? null;
  const step = plan ? nearest(plan.steps, choice.ratio) : null;
  const rows = memory.frames.get(frameKey(choice)) ?? [];
  const frame = frameAt(rows, choice.ratio);
  if (exact) page.lastPlan = exact;
  if (frame) page.last = { frame, key: frameKey(choice), label: scorerOf(page)?.label ?? choice.scorer };
  const shown = page.last?.frame ?? null;
  return { plan, step, rows, frame, shown, stale: !frame, planStale: !exact, mask: step ? maskOf(plan, step) : null };
}

function paint(page) {
  const now = current(page);
  const { controls, choice, notices } = page;
  page.inks ??= inksOf(page.root);
  page.moving = controls.slider.held || Boolean(page.dragging);
  showChoice(controls, choice, scorerOf(page), controls.slider.held);
  showWarning(notices, scorerOf(page));
  const status = page.model.get("status") ?? {};
  showNotice(notices, { error: status.error, gone: page.gone, busy: page.busy, message: page.saved ?? status.message });
  const pins = page.model.get("pins") ?? [];
  paintPins(page, pins, now);
  paintWords(page, now, status);
  paintCharts(page, pins, now);
  showPanels(page.panels, page.model.get("panels"), { embed: page.embed, dark: page.inks.dark });
}

function paintPins(page, pins, now) {
  page.pin = Math.min(page.pin, Math.max(pins.length - 1, 0));
  const shares = pins.map((pin) => (now.mask && pin.kept ? sharedWith(now.mask, pin.kept) : null));
  const pick = (index) => {
    page.pin = index;
    schedule(page);
  };
  showPins(page.notices, pins, { active: page.pin, shares, pick, unpin: (index) => sendMessage(page, { type: "unpin", index }) });
  page.controls.buttons.pin.disabled = pins.length >= 3;
  drawStrip(page.strip, {
    plan: now.plan, step: now.step, mask: now.mask, groups: page.fixed.groups, pinned: pins[page.pin]?.kept ?? null,
    stale: now.planStale, inks: page.inks,
  });
  say(page.legend, `full network \u2013 \u2013${pins.length ? " \u00B7 pinned \u00B7 \u00B7 \u00B7" : ""}`);
}

function paintWords(page, { frame, shown, stale }, status) {
  const { badge } = page.controls;
  const state = !frame ? "stale" : frame.estimate ? "estimate" : "exact";
  const every = page.fixed.offline ? `, every ${page.controls.slider.grid} %` : "";
  // Old numbers name the ratio they belong to, and the scorer where it was another.
  const other = page.last && page.last.key !== frameKey(page.choice) ? `${page.last.label}, ` : "";
  const words = {
    stale: "measuring\u2026",
    estimate: `estimate, ${frame?.images ?? "?"} images a domain`,
    exact: `all images${every}`,
  };
  badge.dataset.state = state;
  say(badge, words[state]);
  const text = shown?.sentence ?? "Measuring the first ratio\u2026";
  say(page.sentence, stale && shown ? `${other}${asPercent(shown.ratio)}: ${text}` : text);
  page.sentence.dataset.stale = String(stale);
  const { progress } = status;
  say(page.progress, progress && progress.done < progress.total ? `measuring ${progress.done} of ${progress.total}` : "");
  say(page.latency, (!stale && shown?.latency?.text) || "");
}

const asPercent = (ratio) => `${Math.round(10000 * ratio) / 100} %`;

function paintCharts(page, pins, now) {
  const { a, c, d } = page.charts;
  if (!a) return;
  const { fixed, choice, inks } = page;
  const shared = { fixed, shown: now.shown, stale: now.stale, ink: inks.ink, quiet: inks.quiet };
  feed(c, leftData({ full: fixed.full, step: now.step, stale: now.planStale }));
  feed(a, sweepData({ ...shared, rows: now.rows, choice, pins, height: plotSize(a).height }));
  feed(d, dropData(shared));
  show(page.aware, anyAware(fixed, now.shown));
}

// --- charts, size, theme, kernel ----------------------------------------------------------------------------------

async function loadCharts(page) {
  try {
    const { exports } = await page.host.getWidget(page.fixed.host);
    if (page.ended) return;
    page.embed = exports.vegaEmbed;
    embedCharts(page);
  } catch (problem) {
    for (const box of Object.values(page.boxes)) say(box, `The charts could not be loaded: ${problem.message}`);
  }
}

function embedCharts(page) {
  const { specs } = page.fixed;
  page.inks = inksOf(page.root);
  for (const name of ["a", "c", "d"]) {
    page.boxes[name].replaceChildren();
    page.charts[name] = createView(page.boxes[name], specs[name], { embed: page.embed, dark: page.inks.dark });
    page.charts[name].ready.catch((problem) => say(page.boxes[name], `This chart could not be drawn: ${problem.message}`));
  }
  page.undrag = dragInPlot(page.charts.a, (ratio, moving) => {
    page.dragging = moving;
    if (ratio !== null) choose(page, { ratio: Math.min(Math.round(100 * ratio), Number(page.controls.slider.input.max)) / 100 });
  });
  schedule(page);
}

function endCharts(page) {
  page.undrag?.();
  Object.values(page.charts).forEach(endView);
  page.charts = {};
}

function watchSize(page) {
  const observer = new ResizeObserver(() => {
    const width = page.root.clientWidth;
    const layout = width >= 1100 ? "wide" : width >= 920 ? "medium" : width >= 700 ? "small" : "stack";
    if (page.root.dataset.layout !== layout) page.root.dataset.layout = layout;
    schedule(page);
  });
  [page.root, page.main, page.strip.scroll].forEach((watched) => observer.observe(watched));
  return () => observer.disconnect();
}

// JupyterLab marks its theme on the body; a change needs new inks, and the charts once more.
function watchTheme(page) {
  const change = () => {
    const { dark } = inksOf(page.root);
    if (dark === page.inks?.dark) return;
    page.inks = null;
    if (page.embed) {
      endCharts(page);
      embedCharts(page);
    }
    schedule(page);
  };
  const observer = new MutationObserver(() => setTimeout(change, 50));
  observer.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light", "data-jp-theme-name", "class"] });
  const media = window.matchMedia("(prefers-color-scheme: dark)");
  media.addEventListener("change", change);
  return () => {
    observer.disconnect();
    media.removeEventListener("change", change);
  };
}

const kernelOf = (page) => page.model.widget_manager?.kernel;

function isGone(page) {
  if (page.fixed.offline || !page.model.widget_manager || !("kernel" in page.model.widget_manager)) return page.gone;
  const kernel = kernelOf(page);
  return page.lost || !kernel || kernel.isDisposed || ["dead", "terminating"].includes(kernel.status);
}

function watchKernel(page) {
  const check = () => {
    const gone = isGone(page);
    if (gone === page.gone) return;
    page.gone = gone;
    schedule(page);
  };
  // The model lost its comm: the kernel restarted, or the widget was closed.
  const lost = () => {
    page.lost = true;
    page.gone = true;
    schedule(page);
  };
  const kernel = kernelOf(page);
  kernel?.statusChanged?.connect(check);
  kernel?.disposed?.connect(check);
  page.model.on("comm_live_update", lost);
  page.model.on("destroy", lost);
  return () => {
    kernel?.statusChanged?.disconnect(check);
    kernel?.disposed?.disconnect(check);
    page.model.off("comm_live_update", lost);
    page.model.off("destroy", lost);
  };
}

function render({ model, el, host }) {
  return draw(el, model, host);
}

export default { render };
