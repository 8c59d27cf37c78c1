// A run that is watched: a chart that grows, words of progress, and one button that stops it and goes on.

import { button, lendKeys, node, say, show } from "./elements.js";
import { createView, endView, feed, inksOf } from "./views.js";
import { isGone, watchKernel, watchTheme } from "./watch.js";

const BUSY_AFTER = 2000; // ms without an answer to a button until Python counts as busy
const QUIET_AFTER = 4000; // ms without news of a run until one looks whether its kernel is still there
const STATES = { running: "running", stopped: "stopped", finished: "finished", failed: "failed", closed: "ended" };

function draw(el, model, host) {
  const page = { model, host, fixed: model.get("static"), chart: null, embed: null, asked: null, busy: false, gone: false };
  page.schedule = () => schedule(page);
  layOut(page);
  el.append(page.root);
  page.inks = inksOf(page.root);
  const observer = new ResizeObserver(page.schedule);
  observer.observe(page.root);
  const again = () => embed(page);
  const stops = [() => observer.disconnect(), listen(page), watchTheme(page, again), watchKernel(page), lendKeys(page.root)];
  paint(page);
  load(page);
  return () => {
    page.ended = true;
    cancelAnimationFrame(page.frame);
    clearTimeout(page.waiting);
    clearTimeout(page.quiet);
    stops.forEach((stop) => stop());
    if (page.chart) endView(page.chart);
    page.root.remove();
  };
}

function layOut(page) {
  page.badge = node("span", { class: "dgx-badge", role: "status" });
  page.stop = button("Stop", () => ask(page, "stop"));
  page.go = button("Go on", () => ask(page, "go on"));
  page.words = node("div", { class: "dgx-words" });
  page.box = node("div", { class: "dgx-chart" });
  page.told = node("span", { class: "dgx-grow" });
  page.notice = node("div", { class: "dgx-notice", role: "alert" }, page.told);
  const title = node("span", { class: "dgx-title-words", text: page.fixed.title });
  const buttons = node("span", { class: "dgx-buttons" }, page.stop, page.go);
  page.root = node(
    "div", { class: "dgx dgx-live" },
    node("div", { class: "dgx-row" }, title, page.badge, buttons), page.words, page.notice, page.box,
  );
}

function listen(page) {
  const status = () => {
    if (page.asked && page.model.get("status").state !== page.asked) answered(page);
    hearken(page);
    page.schedule();
  };
  const handlers = { "change:status": status, "change:data": page.schedule };
  for (const [event, handler] of Object.entries(handlers)) page.model.on(event, handler);
  hearken(page);
  return () => Object.entries(handlers).forEach(([event, handler]) => page.model.off(event, handler));
}

// A run speaks several times a second; JupyterLab learns late that a kernel is gone, so silence is looked into.
function hearken(page) {
  clearTimeout(page.quiet);
  page.silent = false;
  if (page.ended || page.model.get("status").state !== "running") return;
  page.quiet = setTimeout(() => {
    page.silent = true;
    page.gone = isGone(page);
    page.schedule();
    if (!page.gone) hearken(page);
  }, QUIET_AFTER);
}

// A button rests until the run has changed its state.
function ask(page, type) {
  page.asked = page.model.get("status").state;
  page.waiting = setTimeout(() => {
    page.silent = true;
    page.gone = isGone(page);
    page.busy = !page.gone;
    page.schedule();
  }, BUSY_AFTER);
  try {
    page.model.send({ type });
  } catch {
    page.gone = true;
  }
  page.schedule();
}

function answered(page) {
  clearTimeout(page.waiting);
  Object.assign(page, { asked: null, busy: false });
}

async function load(page) {
  try {
    const { exports } = await page.host.getWidget(page.fixed.host);
    if (page.ended) return;
    page.embed = exports.vegaEmbed;
    embed(page);
  } catch (problem) {
    say(page.box, `The chart could not be loaded: ${problem.message}`);
  }
}

function embed(page) {
  if (!page.embed) return;
  if (page.chart) endView(page.chart);
  page.box.replaceChildren();
  page.inks = inksOf(page.root);
  page.chart = createView(page.box, page.fixed.spec, { embed: page.embed, dark: page.inks.dark });
  page.chart.ready.catch((problem) => say(page.box, `The chart could not be drawn: ${problem.message}`));
  page.schedule();
}

// Many events between two frames of the screen are one drawing.
function schedule(page) {
  if (page.frame || page.ended) return;
  page.frame = requestAnimationFrame(() => {
    page.frame = null;
    if (!page.ended) paint(page);
  });
}

function paint(page) {
  page.inks ??= inksOf(page.root);
  const { state, words, error, message } = page.model.get("status");
  say(page.badge, page.gone && state === "running" ? "gone" : STATES[state]);
  page.badge.dataset.state = { running: "estimate", finished: "exact" }[state] ?? "stale";
  say(page.words, words ?? "");
  show(page.stop, state === "running");
  show(page.go, state === "stopped");
  for (const one of [page.stop, page.go]) one.disabled = Boolean(page.asked) || page.gone;
  const gone = "Run this cell again: the kernel is gone. What was measured can still be looked at.";
  const text = page.gone ? gone : (error ?? (page.busy ? "Python is busy with another cell" : message));
  show(page.notice, Boolean(text));
  page.notice.dataset.kind = page.gone || error ? "error" : "quiet";
  say(page.told, text ?? "");
  if (page.chart) feed(page.chart, inked(page.model.get("data"), page.inks.ink));
}

// On a dark page the colours that travel in the rows are mixed with white.
function inked(data, ink) {
  const colours = (row) => Object.fromEntries(["line", "colour", "fill"].filter((key) => row[key]).map((key) => [key, ink(row[key])]));
  return Object.fromEntries(Object.entries(data).map(([name, rows]) => [name, rows.map((row) => ({ ...row, ...colours(row) }))]));
}

function render({ model, el, host }) {
  return draw(el, model, host);
}

export default { render };
