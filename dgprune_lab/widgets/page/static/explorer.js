// The live pruning explorer: draws what the model's traits hold, sends what the user chooses.
// draw() needs only get/on/off/set/save_changes/send of its model, so a static page can fake one.

import { embedCharts, endCharts, paintCharts } from "./charts.js";
import { createControls, showChoice } from "./controls.js";
import { button, lendKeys, node, say, show } from "./elements.js";
import { createMemory, curveKey, frameAt, maskOf, nearest, planKey, sharedWith } from "./memory.js";
import { createNotices, showCode, showNotice, showPins, showWarning } from "./notices.js";
import { answerOffline, precomputed, settleOffline } from "./offline.js";
import { clearPanels, createPanels, showPanels } from "./panels.js";
import { createStrip, drawStrip } from "./strip.js";
import { inksOf, loadVega } from "./views.js";
import { isGone, watchKernel, watchSize, watchTheme } from "./watch.js";

const SEND_EVERY = 60; // ms between two choices sent while the slider moves
const QUIET = 120; // ms without an event after which a moving slider counts as resting
const BUSY_AFTER = 2000; // ms without an answer until Python counts as busy

export function draw(el, model, host) {
  const page = createPage(el, model, host);
  learn(page);
  layOut(page);
  const stops = [listen(page), watchSize(page), watchTheme(page, () => embedAgain(page)), watchKernel(page), lendKeys(page.root)];
  paint(page);
  loadVega(page, embedCharts, Object.values(page.boxes));
  return () => {
    page.ended = true;
    cancelAnimationFrame(page.frame);
    clearTimeout(page.sending);
    clearTimeout(page.resting);
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
  page.schedule = () => schedule(page);
  page.current = () => current(page);
  page.choose = (change) => choose(page, change);
  page.scorer = () => scorerOf(page);
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
  const a = panelBox("A", "Accuracy", boxes.a, legendLine(page));
  a.heading.append(page.progress);
  const b = panelBox("B", "Filters kept", page.strip.scroll, page.strip.about);
  b.heading.append(orderToggle(page));
  const c = panelBox("C", "Size and cost", boxes.c, page.latency);
  page.exposures = node("div", { class: "dgx-about" });
  const d = panelBox("D", "Accuracy change", boxes.d, page.exposures);
  const { strip, warning, code, chips } = page.notices;
  page.headline = node("div", { class: "dgx-headline" }, page.sentence, chips);
  page.main = node("div", { class: "dgx-main" }, a.box, b.box, node("div", { class: "dgx-side" }, c.box, d.box));
  page.root = node(
    "div", { class: "dgx" },
    node("div", { class: "dgx-view" }, page.controls.box, strip, warning, page.headline, page.main),
    code, page.panels.bar, page.panels.body,
  );
  page.el.append(page.root);
  if (page.fixed.offline) settleOffline(page);
}

function legendLine(page) {
  page.none = node("span", { text: "No target domain yet: Study(targets=[...])" });
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
  const number = button("number", flip(false), { class: "dgx-flip", "aria-label": "by number", "aria-pressed": "true" });
  const score = button("score", flip(true), { class: "dgx-flip", "aria-label": "by score", "aria-pressed": "false" });
  return node("span", { class: "dgx-flips" }, node("span", { class: "dgx-by", text: "by" }), number, score);
}

// --- state from Python ---------------------------------------------------------------------------------------------

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
  for (const plan of model.get("plans") ?? []) memory.learnPlan(plan);
  for (const curve of model.get("curves") ?? []) memory.learnCurve(curve);
  memory.learnPlan(model.get("plan"));
  memory.learnCurve(model.get("frames"));
}

// A scorer joined the menu: the controls are made again, the charts stay.
function restart(page) {
  page.fixed = page.model.get("static");
  const { controls } = page;
  page.controls = createControls(page.fixed, page.acts);
  page.controls.info.body.hidden = controls.info.body.hidden; // an option was changed in it: keep it open
  controls.info.dispose();
  controls.box.replaceWith(page.controls.box);
  schedule(page);
}

function embedAgain(page) {
  if (!page.embed) return;
  endCharts(page);
  embedCharts(page);
}

function onStatus(page) {
  const status = page.model.get("status") ?? {};
  if ((status.ack ?? 0) >= page.lastSent) {
    clearTimeout(page.waiting);
    page.busy = false;
    page.silent = false;
  }
  page.gone = false;
  schedule(page);
}

// A choice made in a cell (or in another view of this widget) moves the controls, but no slider that is being dragged.
function onChoice(page) {
  const choice = page.model.get("choice");
  if (choice.by === "page" && choice.id <= page.lastSent) return;
  const ratio = page.controls.slider.held || page.moving ? page.choice.ratio : choice.ratio;
  page.choice = { ...choice, ratio };
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
  page.choice = page.fixed.offline ? precomputed(page.memory, next, change) : next;
  page.saved = null;
  schedule(page);
  // While the slider moves, at most one message per SEND_EVERY; Python measures when the last one reports it at rest.
  page.sliding = "ratio" in change;
  clearTimeout(page.resting);
  if (page.sliding) page.resting = setTimeout(() => sendChoice(page, false), QUIET);
  if (page.sending) return;
  const wait = Math.max(0, SEND_EVERY - (performance.now() - (page.sentAt ?? -SEND_EVERY)));
  page.sending = setTimeout(() => sendChoice(page, page.sliding), wait);
}

function sendChoice(page, moving) {
  clearTimeout(page.sending);
  page.sending = null;
  page.sentAt = performance.now();
  const known = Math.max(page.choice.id ?? 0, page.model.get("choice")?.id ?? 0, page.lastSent);
  page.lastSent = known + 1;
  page.choice = { ...page.choice, id: page.lastSent, by: "page", moving };
  toKernel(page, () => {
    page.model.set("choice", { ...page.choice });
    page.model.save_changes();
  });
  if (page.fixed.offline) return;
  clearTimeout(page.waiting);
  page.waiting = setTimeout(() => onSilence(page), BUSY_AFTER);
}

function onSilence(page) {
  page.silent = true;
  page.gone = isGone(page);
  page.busy = !page.gone && (page.model.get("status")?.ack ?? 0) < page.lastSent;
  // JupyterLab reports a stopped kernel late, so check repeatedly.
  if (page.busy && !page.ended) page.waiting = setTimeout(() => onSilence(page), BUSY_AFTER);
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
  if (page.fixed.scorers.some(({ name }) => name === scorer?.instead)) choose(page, { scorer: scorer.instead });
  else sendMessage(page, { type: "instead" });
}

const scorerOf = (page) => page.fixed.scorers.find((scorer) => scorer.name === page.choice.scorer);

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
  const curve = memory.curves.get(curveKey(choice));
  const frame = frameAt(curve?.rows, choice.ratio);
  if (exact) page.lastPlan = exact;
  if (frame) page.last = { frame, key: curveKey(choice), label: scorerOf(page)?.label ?? choice.scorer };
  const shown = page.last?.frame ?? null;
  return { plan, step, curve, frame, shown, stale: !frame, planStale: !exact, mask: step ? maskOf(plan, step) : null };
}

function paint(page) {
  const now = current(page);
  const { controls, choice, notices } = page;
  page.inks ??= inksOf(page.root);
  page.moving = controls.slider.held || Boolean(page.dragging);
  showChoice(controls, choice, scorerOf(page), controls.slider.held, now.planStale ? "" : now.plan.spread);
  showWarning(notices, scorerOf(page), now.planStale ? null : now.plan.exposure);
  const status = page.model.get("status") ?? {};
  showNotice(notices, { error: status.error, gone: page.gone, busy: page.busy, message: page.saved ?? status.message });
  const pins = page.model.get("pins") ?? [];
  paintPins(page, pins, now);
  paintWords(page, now, status);
  paintCharts(page, pins, now);
  showPanels(page.panels, page.fixed.offline ? null : page.model.get("panels"), { embed: page.embed, dark: page.inks.dark, choice });
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
    refused: page.fixed.refused, prunable: page.fixed.prunable,
    stale: now.planStale, inks: page.inks,
  });
  say(page.legend, `full network \u2013 \u2013${pins.length ? " \u00B7 pinned \u00B7 \u00B7 \u00B7" : ""}`);
}

function paintWords(page, { frame, shown, stale }, status) {
  const { badge } = page.controls;
  const state = !frame ? "stale" : frame.estimate ? "estimate" : "exact";
  const every = page.fixed.offline ? `, every ${page.controls.slider.grid} %` : "";
  // Old numbers name the ratio they belong to, and the scorer where it was another.
  const other = page.last && page.last.key !== curveKey(page.choice) ? `${page.last.label}, ` : "";
  const images = `${frame?.images ?? "?"} images a domain`;
  const work = page.gone ? "" : status.work;
  const texts = {
    stale: page.gone ? "not measured" : work || "measuring\u2026",
    estimate: `estimate, ${images}${work ? ` \u00B7 ${work}` : ""}`,
    exact: `${frame?.all === false ? images : "all images"}${every}`,
  };
  badge.dataset.state = state;
  say(badge, texts[state]);
  badge.title = texts[state]; // it may be cut off
  if (frame?.estimate) page.headline.dataset.tall = "true"; // its sentence is longer: the charts stay where they are
  const text = shown?.sentence ?? "Measuring the first ratio\u2026";
  say(page.sentence, stale && shown ? `${other}${asPercent(shown.ratio)}: ${text}` : text);
  page.sentence.dataset.stale = String(stale);
  const { progress } = status;
  say(page.progress, progress && progress.done < progress.total ? progress.words : "");
  say(page.latency, (!stale && shown?.latency?.text) || "");
}

const asPercent = (ratio) => `${Math.round(10000 * ratio) / 100} %`;

function render({ model, el, host }) {
  return draw(el, model, host);
}

export default { render };
