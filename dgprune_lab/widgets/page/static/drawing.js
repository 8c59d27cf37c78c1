// What the page shows now, drawn at most once per frame of the screen.

import { showChoice } from "./controls.js";
import { perFrame, say, show } from "./elements.js";
import { previewed } from "./by_hand.js";
import { costData, curveKey, dropData, frameAt, isAtStep, isStepOf, maskOf, nearest, pinsAlongside, planKey, sweepData, widest } from "./memory.js";
import { showNotice, showWarning } from "./notices.js";
import { showPanels } from "./panels.js";
import { chosenAfter, pinKey, showPinTable } from "./pins.js";
import { showProjector } from "./projector.js";
import { scorerOf } from "./state.js";
import { showSteps } from "./steps.js";
import { drawStrip } from "./strip.js";
import { createView, dragInPlot, endView, feed, inksOf, plotSize } from "./views.js";

export const schedule = (page) => perFrame(page, paint);

// What is shown now: the plan's step and mask, the measured rows, and the frame whose numbers are shown.
export function current(page) {
  const { memory, choice } = page;
  const exact = memory.plans.get(planKey(choice));
  const plan = exact ?? page.lastPlan ?? null;
  const step = plan ? nearest(plan.steps, choice.ratio) : null;
  const stepIs = Boolean(exact && step && isStepOf(exact, step, choice.ratio));
  // Until Python has sent the plan with what was set by hand, the page shows it on the one before.
  const isNear = plan && !exact && alike(plan.key, choice);
  const mask = !step ? null : isNear ? previewed(plan, step.kept, choice) : maskOf(plan, step);
  const curve = memory.curves.get(curveKey(choice));
  const frame = frameAt(curve?.rows, choice.ratio);
  if (exact) page.lastPlan = exact;
  if (frame) page.last = { frame, key: curveKey(choice), label: scorerOf(page)?.label ?? choice.scorer };
  const shown = page.last?.frame ?? null;
  return { plan, step, curve, frame, shown, stale: !frame, planStale: !stepIs, mask, maskStale: !exact && !isNear, isNear };
}

// Whether a plan is of the same scores: scorer, scope, budget and step.
const alike = (key, { scorer, scope, budget, step = 0 }) =>
  JSON.stringify([...key.slice(0, 3), key[3] ?? 0]) === JSON.stringify([scorer, scope, budget, step]);

export function paint(page) {
  const now = current(page);
  const { controls, choice, notices } = page;
  page.inks ??= inksOf(page.root);
  page.moving = controls.slider.held || Boolean(page.dragging);
  const spread = now.planStale ? "" : now.plan.spread;
  showChoice(controls, choice, { scorer: scorerOf(page), hold: controls.slider.held, spread, range: now.planStale ? null : now.plan.range });
  showWarning(notices, scorerOf(page), now.planStale ? null : now.plan.exposure);
  const status = page.model.get("status") ?? {};
  showNotice(notices, { error: status.error, gone: page.gone, busy: page.busy, message: page.saved ?? status.message });
  const pins = page.model.get("pins") ?? [];
  paintPins(page, pins, now);
  paintSteps(page, now);
  showProjector(page);
  paintWords(page, now, status);
  paintCharts(page, pins, now);
  showPanels(page.panels, page.fixed.offline ? null : page.model.get("panels"), { embed: page.embed, dark: page.inks.dark, choice, gone: page.gone });
}

function paintSteps(page, now) {
  const { steps, fixed, gone } = page;
  showSteps(steps, page.model.get("tree"), { defaults: fixed.finetuning, gone, stale: now.planStale });
}

function paintPins(page, pins, now) {
  const keys = pins.map(pinKey);
  page.pin = chosenAfter(page.pinKeys ?? [], keys, page.pin);
  page.pinKeys = keys;
  const gone = page.gone && !page.fixed.offline;
  const total = (now.plan?.groups ?? []).reduce((sum, { full, rank }) => sum + (full ?? rank.length), 0);
  const table = { active: page.pin, choice: page.choice, mask: now.maskStale ? null : now.mask, total, ink: page.inks.ink, gone };
  showPinTable(page.pinTable, pins, table);
  for (const name of ["pin", "reset", "code", "save", "download"]) page.controls.buttons[name].disabled = gone;
  page.controls.buttons.pin.disabled ||= pins.length >= 3;
  drawStrip(page.strip, {
    plan: now.plan, step: now.step, mask: now.mask, groups: page.fixed.groups, pinned: pins[page.pin]?.kept ?? null,
    refused: page.fixed.refused, prunable: page.fixed.prunable, choice: page.choice, silent: silentOf(page),
    offline: page.fixed.offline, gone: page.gone, stale: now.maskStale, coming: now.isNear, inks: page.inks,
  });
  page.forcing.show(!page.fixed.offline && !page.gone);
  const here = pins.some((one) => isAtStep(one, page.choice));
  const removed = page.choice.step ? `removed: of the filters of step ${page.choice.step} \u00B7 ` : "";
  say(page.legend, `${removed}full network \u2013 \u2013${here ? " \u00B7 letters: pinned views" : ""}`);
}

// Python finds silent filters in the background, for the present step.
function silentOf(page) {
  const silent = page.model.get("silent");
  return silent?.key?.[0] === (page.choice.step ?? 0) ? silent.groups : null;
}

function paintWords(page, { frame, shown, stale }, status) {
  const { badge } = page.controls;
  const state = !frame ? "stale" : frame.estimate ? "estimate" : "exact";
  const every = page.fixed.offline ? `, every ${page.controls.slider.grid} %` : "";
  // Old numbers are called so, with the scorer where it was another.
  const before = page.last && page.last.key !== curveKey(page.choice) ? `${page.last.label}, last measured` : "Last measured";
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
  say(page.sentence, stale && shown ? `${before}: ${text}` : text);
  page.sentence.dataset.stale = String(stale);
  const { progress } = status;
  say(page.progress, progress && progress.done < progress.total ? progress.words : "");
  page.progress.title = page.progress.textContent;
  say(page.latency, (!stale && shown?.latency?.text) || "");
}

// --- A, C and D: the Vega views and what is fed to them --------------------------------------------------------------

function paintCharts(page, pins, now) {
  const { a, c, d } = page.charts;
  if (!a) return;
  const { fixed, choice, inks, pin } = page;
  const { shown: frame, stale, curve } = now;
  feed(c, costData({ step: now.step, stale: now.planStale }));
  page.span = widest(page.span ?? [], curve, frame);
  feed(a, sweepData({ fixed, curve, frame, stale, pins: pinsAlongside(pins, choice), pin, ratio: choice.ratio, ...plotSize(a), inks }));
  feed(d, dropData({ frame, stale, pins, pin, span: page.span, height: plotSize(d).height, inks }));
  show(page.exposures, Boolean(frame?.exposures));
  say(page.exposures, frame?.exposures ?? "");
}

export function embedCharts(page) {
  const { specs } = page.fixed;
  page.inks = inksOf(page.root);
  for (const name of ["a", "c", "d"]) {
    page.boxes[name].replaceChildren();
    page.charts[name] = createView(page.boxes[name], specs[name], { embed: page.embed, dark: page.inks.dark });
    page.charts[name].ready.catch((problem) => say(page.boxes[name], `This chart could not be drawn: ${problem.message}`));
  }
  page.undrag = dragInPlot(page.charts.a, (ratio, moving) => {
    page.dragging = moving;
    if (ratio !== null) page.choose({ ratio: Math.min(Math.round(100 * ratio), Number(page.controls.slider.input.max)) / 100 });
  });
  page.schedule();
}

export function endCharts(page) {
  page.undrag?.();
  Object.values(page.charts).forEach(endView);
  page.charts = {};
}
