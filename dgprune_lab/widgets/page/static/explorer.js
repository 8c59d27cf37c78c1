// The live pruning explorer: draws what the model's traits hold, sends what the user chooses.
// render() needs only get/on/off/set/save_changes/send of its model, so a static page can fake one.

import { chartMenu, drawnMenu } from "./chart_menu.js";
import { filterRows } from "./chart_rows.js";
import { createControls, settingOf } from "./controls.js";
import { button, lendKeys, node, show } from "./elements.js";
import { createMemory } from "./memory.js";
import { createNotices } from "./notices.js";
import { settleOffline } from "./offline.js";
import { createProjector } from "./projector.js";
import { current, embedCharts, endCharts, paint, schedule } from "./drawing.js";
import { clearPanels, createPanels } from "./panels.js";
import { choose, learn, listen, scorerOf, sendMessage, useInstead } from "./state.js";
import { createPinTable } from "./pins.js";
import { createSteps, keepInView, undoKeys } from "./steps.js";
import { withForced, withLayers } from "./by_hand.js";
import { clearSelection, createForcing, listenToCells } from "./selection.js";
import { createStrip, pictureOf } from "./strip.js";
import { loadVega } from "./views.js";
import { watchKernel, watchSize, watchTheme } from "./watch.js";

function render({ model, el, host }) {
  const page = createPage(el, model, host);
  learn(page);
  layOut(page);
  const stops = [listen(page), watchSize(page, () => keepInView(page.steps)), watchTheme(page, () => embedAgain(page)), watchKernel(page), lendKeys(page.root), undoKeys(page.root, page.steps)];
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
  page.choose = (change) => choose(page, change, true);
  page.scorer = () => scorerOf(page);
  page.acts = {
    ratio: (ratio) => choose(page, { ratio }, true),
    rows: (change, moving = false) => canAsk(page) && choose(page, { layers: withLayers(page.choice.layers, change) }, moving),
    force: (cells, to) => canAsk(page) && choose(page, { forced: withForced(page.choice.forced, cells, to) }),
    open: (cells) => sendMessage(page, { type: "filter", ...(cells.length > 1 ? { cells } : cells[0]) }),
    choose: (field, value) => choose(page, { [field]: value }),
    send: (message) => sendMessage(page, message),
    reset: () => {
      clearSelection(page.strip);
      sendMessage(page, { type: "reset" });
      schedule(page);
    },
    instead: () => useInstead(page),
    pick: (index) => {
      page.pin = index;
      schedule(page);
    },
  };
  return page;
}

// What is set by hand needs Python: no grid of it was computed before.
const canAsk = (page) => !page.fixed.offline && !page.gone;

// --- layout -------------------------------------------------------------------------------------------------------

function panelBox(letter, title, ...children) {
  const heading = node("div", { class: "dgx-title" }, node("span", { class: "dgx-letter", text: letter }), node("span", { text: title }));
  return { heading, box: node("section", { class: `dgx-card dgx-${letter.toLowerCase()}`, "aria-label": title }, heading, ...children) };
}

function layOut(page) {
  page.controls = createControls(page.fixed, page.acts);
  page.notices = createNotices(page.acts);
  page.panels = createPanels(page.acts);
  page.steps = createSteps(page.acts);
  page.pinTable = createPinTable(page.acts);
  page.projector = createProjector(page);
  page.sentence = node("div", { class: "dgx-sentence", "aria-live": "polite" });
  page.strip = createStrip(page.acts, page.schedule);
  listenToCells(page.strip);
  page.forcing = createForcing(page.strip);
  const boxes = { a: node("div", { class: "dgx-chart" }), c: node("div", { class: "dgx-chart" }), d: node("div", { class: "dgx-chart" }) };
  page.boxes = boxes;
  page.latency = node("div", { class: "dgx-about" });
  page.progress = node("span", { class: "dgx-progress" });
  const a = panelBox("A", "Accuracy", boxes.a, legendLine(page));
  a.heading.append(page.progress);
  const b = panelBox("B", "Filters kept", page.strip.controls.finder.box, page.strip.scroll, page.strip.about);
  b.heading.append(page.forcing.box, orderToggle(page));
  const c = panelBox("C", "Size and cost", boxes.c, page.latency);
  page.exposures = node("div", { class: "dgx-about" });
  const d = panelBox("D", "Accuracy change", boxes.d, page.exposures);
  const setting = () => settingOf(page, { scorer: scorerOf(page), stale: page.current().stale });
  b.heading.append(drawnMenu({ picture: () => pictureOf(page.strip, setting()), rows: () => filterRows(page.current()) }, "Filters kept"));
  for (const [name, { heading, box }] of Object.entries({ a, c, d }))
    heading.append(chartMenu(() => page.charts[name], box.getAttribute("aria-label"), setting));
  const { strip, warning, code } = page.notices;
  page.headline = node("div", { class: "dgx-headline" }, page.sentence);
  page.main = node("div", { class: "dgx-main" }, a.box, b.box, node("div", { class: "dgx-side" }, c.box, d.box));
  page.root = node(
    "div", { class: "dgx dgx-explorer" },
    node("div", { class: "dgx-view" }, page.controls.box, strip, warning, page.headline, page.main,
      page.steps.box, page.pinTable.box, code, page.panels.bar, page.panels.body),
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

function embedAgain(page) {
  if (!page.embed) return;
  endCharts(page);
  embedCharts(page);
}

export default { render };
