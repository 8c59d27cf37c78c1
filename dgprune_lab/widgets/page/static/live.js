// A run in the background: a chart that grows, a progress line, and a button to stop and resume.

import { chartMenu } from "./chart_menu.js";
import { button, lendKeys, listenTo, node, perFrame, say, show } from "./elements.js";
import { inked } from "./memory.js";
import { fillNotice } from "./notices.js";
import { endPage, feed, inksOf, loadVega, redraw } from "./views.js";
import { isGone, watchKernel, watchTheme } from "./watch.js";

const BUSY_AFTER = 2000; // ms without an answer to a button until Python counts as busy
const QUIET_AFTER = 4000; // ms without news of a run until its kernel is checked
const STATES = { running: "running", stopped: "stopped", finished: "finished", failed: "failed", closed: "ended" };

function render({ model, el, host }) {
  const page = { model, host, fixed: model.get("static"), chart: null, embed: null, pressedIn: null, busy: false, gone: false };
  page.schedule = () => perFrame(page, paint);
  layOut(page);
  el.append(page.root);
  page.inks = inksOf(page.root);
  const observer = new ResizeObserver(page.schedule);
  observer.observe(page.root);
  const again = () => embed(page);
  const stops = [() => observer.disconnect(), listen(page), watchTheme(page, again), watchKernel(page), lendKeys(page.root)];
  paint(page);
  loadVega(page, embed, [page.box]);
  return () => {
    endPage(page, stops);
    clearTimeout(page.waiting);
    clearTimeout(page.quiet);
  };
}

function layOut(page) {
  page.badge = node("span", { class: "dgx-badge", role: "status" });
  page.stop = button("Stop", () => press(page, "stop"));
  page.resume = button("Resume", () => press(page, "resume"));
  page.progress = node("div", { class: "dgx-words" });
  page.box = node("div", { class: "dgx-chart" });
  page.noticeText = node("span", { class: "dgx-grow" });
  page.notice = node("div", { class: "dgx-notice", role: "alert" }, page.noticeText);
  const title = node("span", { class: "dgx-title-words", text: page.fixed.title });
  const buttons = node("span", { class: "dgx-buttons" }, page.stop, page.resume, chartMenu(() => page.chart, page.fixed.title));
  page.root = node(
    "div", { class: "dgx dgx-live", "data-theme": page.fixed.theme },
    node("div", { class: "dgx-row" }, title, page.badge, buttons), page.progress, page.notice, page.box,
  );
}

function listen(page) {
  const status = () => {
    if (page.pressedIn && page.model.get("status").state !== page.pressedIn) answered(page);
    watchSilence(page);
    page.schedule();
  };
  watchSilence(page);
  return listenTo(page.model, { "change:status": status, "change:data": page.schedule });
}

// A run reports several times a second; JupyterLab reports a stopped kernel late, so check after silence.
function watchSilence(page) {
  clearTimeout(page.quiet);
  page.silent = false;
  if (page.ended || page.model.get("status").state !== "running") return;
  page.quiet = setTimeout(() => {
    page.silent = true;
    page.gone = isGone(page);
    page.schedule();
    if (!page.gone) watchSilence(page);
  }, QUIET_AFTER);
}

// A button is disabled until the run has changed its state.
function press(page, type) {
  page.pressedIn = page.model.get("status").state;
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
  Object.assign(page, { pressedIn: null, busy: false });
}

function embed(page) {
  if (!page.embed) return;
  redraw(page, () => page.fixed.spec, { label: page.fixed.title });
  page.schedule();
}

function paint(page) {
  page.inks ??= inksOf(page.root);
  const { state, progress, error, message } = page.model.get("status");
  say(page.badge, page.gone && state === "running" ? "no kernel" : STATES[state]);
  page.badge.dataset.state = { running: "estimate", finished: "exact" }[state] ?? "stale";
  say(page.progress, progress ?? "");
  show(page.stop, state === "running");
  show(page.resume, state === "stopped");
  for (const pressed of [page.stop, page.resume]) pressed.disabled = Boolean(page.pressedIn) || page.gone;
  fillNotice(page.notice, page.noticeText, { error, gone: page.gone, busy: page.busy, message, done: "measured" });
  if (!page.chart) return;
  const { ink } = page.inks;
  feed(page.chart, Object.fromEntries(Object.entries(page.model.get("data")).map(([name, rows]) => [name, inked(rows, ink)])));
}

export default { render };
