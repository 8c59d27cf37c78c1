// A study that is watched: how far it is, its chart, the runs that ended last, and those that failed.

import { chartMenu } from "./chart_menu.js";
import { lendKeys, listenTo, node, perFrame, say, select, show } from "./elements.js";
import { inked } from "./memory.js";
import { fillNotice } from "./notices.js";
import { endPage, endView, feed, inksOf, loadVega, redraw } from "./views.js";
import { isGone, watchKernel, watchTheme } from "./watch.js";

const STATES = { waiting: "no results", running: "running", stopped: "not running", finished: "finished" };
const BADGES = { running: "estimate", finished: "exact" };

function render({ model, el, host }) {
  const page = { model, host, fixed: model.get("static"), chart: null, embed: null, gone: false };
  page.schedule = () => perFrame(page, paint);
  layOut(page);
  el.append(page.root);
  const again = () => embed(page);
  const news = { "change:status": page.schedule, "change:data": page.schedule, "change:runs": page.schedule, "change:chart": again };
  const stops = [listenTo(model, news), watchTheme(page, again), watchKernel(page), lendKeys(page.root)];
  paint(page);
  loadVega(page, embed, [page.box]);
  return () => endPage(page, stops);
}

function layOut(page) {
  page.title = node("span", { class: "dgx-title-words" });
  page.badge = node("span", { class: "dgx-badge", role: "status" });
  page.bar = node("progress", { class: "dgx-study-bar", max: 1, "aria-label": "Runs that have ended" });
  page.progress = node("div", { class: "dgx-words" });
  page.notice = node("div", { class: "dgx-notice", role: "alert" });
  page.against = select("Accuracy compared with", (value) => ask(page, value));
  page.words = node("div", { class: "dgx-words" });
  page.box = node("div", { class: "dgx-live-chart-box" });
  page.framed = node("div", { class: "dgx-framed" }, page.box, chartMenu(() => page.chart, page.fixed.folder));
  page.failed = list("Failed runs");
  page.latest = list("Latest runs");
  page.root = node(
    "div", { class: "dgx dgx-study", "data-theme": page.fixed.theme },
    node("div", { class: "dgx-row" }, page.title, page.badge), page.bar, page.progress, page.notice,
    page.against.box, page.words, page.framed, page.failed.box, page.latest.box,
  );
}

function list(words) {
  const summary = node("summary", { text: words, tabindex: 0 });
  const rows = node("div", { class: "dgx-study-rows" });
  return { words, summary, rows, box: node("details", {}, summary, rows), drawn: null };
}

function ask(page, value) {
  try {
    page.model.send({ type: "baseline", value: value || null });
  } catch {
    page.gone = true;
    page.schedule();
  }
}

// The chart is made once more only when its kind changes; runs that are added change its rows.
function embed(page) {
  page.schedule();
  const { spec } = page.model.get("chart");
  if (!page.embed) return;
  page.inks = inksOf(page.root);
  const text = spec && JSON.stringify([spec, page.inks.dark]);
  if (text === page.drawn) return;
  page.drawn = text;
  if (spec) return redraw(page, () => spec, { fit: false });
  if (page.chart) endView(page.chart);
  page.chart = null;
  page.box.replaceChildren();
}

function paint(page) {
  page.inks ??= inksOf(page.root);
  const { title, state, progress, share, error } = page.model.get("status");
  const { words, names, baseline } = page.model.get("chart");
  page.gone ||= isGone(page);
  say(page.title, title);
  say(page.badge, page.gone ? "no kernel" : STATES[state]);
  page.badge.dataset.state = page.gone ? "stale" : (BADGES[state] ?? "stale");
  show(page.bar, share !== null);
  page.bar.value = share ?? 0;
  say(page.progress, progress);
  fillNotice(page.notice, page.notice, { gone: page.gone, message: error, done: "read" });
  choose(page.against, names, baseline);
  show(page.words, Boolean(words));
  say(page.words, words ?? "");
  show(page.framed, Boolean(page.chart));
  const { latest, failed } = page.model.get("runs");
  fill(page.failed, failed, failedRun);
  fill(page.latest, latest, latestRun);
  if (page.chart) feed(page.chart, { cells: inked(page.model.get("data").cells, page.inks.ink) }, false);
}

function choose({ box, list: chooser }, names, baseline) {
  show(box, names.length > 1);
  const values = ["", ...names];
  if (JSON.stringify(values) !== chooser.dataset.values) {
    chooser.replaceChildren(...values.map((value) => node("option", { value, text: value || "nothing: the accuracy itself" })));
    chooser.dataset.values = JSON.stringify(values);
  }
  if (document.activeElement !== chooser) chooser.value = baseline ?? "";
}

// Rows are made anew only when they changed, so that a traceback that is open stays open.
function fill(part, runs, draw) {
  const text = JSON.stringify(runs);
  if (text === part.drawn) return;
  part.drawn = text;
  show(part.box, runs.length > 0);
  say(part.summary, `${part.words} (${runs.length})`);
  const open = new Set([...part.rows.querySelectorAll("details[open]")].map((one) => one.dataset.what));
  part.rows.replaceChildren(...runs.map(draw));
  for (const one of part.rows.querySelectorAll("details")) one.open = open.has(one.dataset.what);
}

const failedRun = ({ what, error, traceback }) =>
  node(
    "details", { "data-what": what }, node("summary", { text: `${what}: ${error}`, tabindex: 0 }),
    node("pre", { class: "dgx-study-trace", text: traceback, tabindex: 0 }),
  );

const latestRun = ({ what, values, seconds }) =>
  node("div", { class: "dgx-study-run" }, node("span", { text: what }), node("span", { text: values }), node("span", { text: seconds }));

export default { render };
