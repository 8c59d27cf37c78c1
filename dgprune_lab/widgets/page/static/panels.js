// The panels under "more:": buttons, and the open panel's charts, embedded once, their data swapped.

import { button, node, say, show } from "./elements.js";
import { createMenus, showMenus } from "./menus.js";
import { NO_BRUSH, cellKey, chartBox, watchBrush, watchCells } from "./picking.js";
import { createView, endView, feed } from "./views.js";

export function createPanels(acts) {
  const bar = node("div", { class: "dgx-row dgx-more" });
  const text = node("p", { class: "dgx-panel-text" });
  const error = node("div", { class: "dgx-notice" });
  error.dataset.kind = "error";
  const pager = createPager(acts);
  const menus = createMenus((name, value) => tell(panels, { type: "control", name, value }));
  const charts = node("div", { class: "dgx-panel-charts" });
  const picked = node("span", { class: "dgx-said", "aria-live": "polite" });
  const body = node("div", { class: "dgx-panel" }, error, text, menus.box, pager.box, charts, picked);
  body.hidden = true;
  const parts = { bar, body, text, error, menus, pager, charts, picked };
  const panels = { ...parts, acts, views: new Map(), open: null, number: 0, heard: 0, pick: "" };
  return panels;
}

// What is picked is numbered: until Python has heard the last number, what it says itself is older.
function tell(panels, message) {
  panels.number = Math.max(panels.number, panels.heard) + 1;
  panels.acts.send({ ...message, number: panels.number });
}

function hear(panels, { open, heard }) {
  panels.heard = heard ?? 0;
  if (panels.open !== open) Object.assign(panels, { open, number: panels.heard, pick: "" });
  panels.upToDate = panels.heard >= panels.number;
}

// Two buttons and where one is between them; Python is told the page's number, counted from 0.
function createPager(acts) {
  const pager = { at: 0, of: 0, told: null };
  const turn = (step) => () => {
    pager.at = Math.min(Math.max(pager.at + step, 0), pager.of - 1);
    acts.send({ type: "page", page: pager.at });
    paintPager(pager);
  };
  pager.before = button("\u2039", turn(-1), { "aria-label": "Previous page" });
  pager.after = button("\u203A", turn(1), { "aria-label": "Next page" });
  pager.words = node("span", { class: "dgx-panel-page", "aria-live": "polite" });
  pager.box = node("div", { class: "dgx-row dgx-pager" }, pager.before, pager.words, pager.after);
  return pager;
}

function showPager(pager, pages) {
  const told = JSON.stringify(pages ?? null);
  if (told !== pager.told) Object.assign(pager, { told, at: pages?.at ?? 0, of: pages?.of ?? 0 });
  paintPager(pager);
}

// A button at its end stays focusable: one that is disabled under the finger would lose the keyboard.
function paintPager(pager) {
  show(pager.box, pager.of > 1);
  say(pager.words, `page ${pager.at + 1} of ${pager.of}`);
  pager.before.setAttribute("aria-disabled", String(pager.at <= 0));
  pager.after.setAttribute("aria-disabled", String(pager.at >= pager.of - 1));
}

// `choice`: what the page's own controls say now, for the charts that follow them.
export function showPanels(panels, told, { embed, dark, choice }) {
  const list = told?.list ?? [];
  showBar(panels, list, told?.open ?? null);
  const open = list.some((panel) => panel.name === told?.open);
  show(panels.body, open);
  hear(panels, { open: open ? told.open : null, heard: told?.heard });
  if (!open) return clearPanels(panels);
  say(panels.text, told.text ?? "");
  say(panels.error, told.error ?? "");
  show(panels.text, Boolean(told.text));
  show(panels.error, Boolean(told.error));
  showMenus(panels.menus, told.controls ?? [], panels.upToDate);
  showPager(panels.pager, told.pages);
  if (told.picked && panels.upToDate) panels.pick = cellKey(told.picked);
  panels.choice = choice;
  if (embed) showCharts(panels, told, { embed, dark });
}

function showBar(panels, list, open) {
  const key = JSON.stringify([list, open]);
  show(panels.bar, list.length > 0);
  if (panels.key === key) return;
  panels.key = key;
  const focused = panels.bar.contains(document.activeElement) ? document.activeElement.dataset.name : null;
  panels.bar.replaceChildren(
    node("span", { class: "dgx-label", text: "more:" }),
    ...list.map(({ name, label, unavailable }) =>
      button(label, () => panels.acts.send({ type: "panel", name: name === open ? null : name }), {
        "data-name": name, "aria-expanded": String(name === open), disabled: Boolean(unavailable), title: unavailable,
      }),
    ),
  );
  if (focused !== null) [...panels.bar.children].find((child) => child.dataset.name === focused)?.focus();
}

function showCharts(panels, told, { embed, dark }) {
  const specs = told.charts ?? {};
  for (const id of [...panels.views.keys()]) if (!(id in specs)) endPanelView(panels, id);
  for (const [id, spec] of Object.entries(specs)) {
    if (!isDrawn(panels.views.get(id), spec, dark)) createPanelView(panels, id, spec, { embed, dark });
    feed(panels.views.get(id).holder, told.data?.[id] ?? {}, false, signalsOf(panels, spec));
  }
}

// Whether a chart is drawn as it is told; the text is compared only where another object is told.
function isDrawn(view, spec, dark) {
  if (!view || view.dark !== dark) return false;
  if (view.spec !== spec && view.text !== JSON.stringify(spec)) return false;
  view.spec = spec;
  return true;
}

function createPanelView(panels, id, spec, { embed, dark }) {
  const brushed = panels.views.get(id)?.brush ?? NO_BRUSH;
  endPanelView(panels, id);
  const asked = spec.usermeta ?? {};
  const box = chartBox(asked);
  panels.charts.append(box);
  const holder = createView(box, spec, { embed, dark, fit: false });
  const view = { spec, text: JSON.stringify(spec), dark, box, holder, brush: NO_BRUSH };
  panels.views.set(id, view);
  holder.ready
    .then(() => watch(panels, view, asked))
    .catch((problem) => say(box, `This chart could not be drawn: ${problem.message}`));
  if (brushed !== NO_BRUSH) tellBrush(panels, view, NO_BRUSH); // drawn anew, it has none
}

function watch(panels, view, asked) {
  const { holder } = view;
  if (holder.ended) return;
  if (asked.picks) watchCells(holder, asked, { picked: () => panels.pick, pick: (cell) => pickCell(panels, cell) });
  if (asked.brushes) watchBrush(holder, asked.brushes, { told: () => view.brush, tell: (ends) => tellBrush(panels, view, ends) });
}

function tellBrush(panels, view, ends) {
  view.brush = ends;
  panels.acts.send({ type: "brush", ...ends });
}

// What a chart's parameters are set to: those that follow the page's choice, and the picked cell.
function signalsOf(panels, { usermeta = {}, params = [] }) {
  const follows = Object.entries(usermeta.follows ?? {}).map(([field, name]) => [name, panels.choice[field]]);
  const wanted = usermeta.picks ? [...follows, ["picked", panels.pick]] : follows;
  return Object.fromEntries(wanted.filter(([name]) => params.some((param) => param.name === name)));
}

// The page outlines a cell at once; Python's answer comes later.
function pickCell(panels, { group, filter }) {
  panels.pick = cellKey({ group, filter });
  say(panels.picked, `${group}, filter ${filter}`);
  for (const { spec, holder } of panels.views.values()) feed(holder, {}, false, signalsOf(panels, spec));
  tell(panels, { type: "filter", group, filter });
}

function endPanelView(panels, id) {
  const view = panels.views.get(id);
  if (!view) return;
  endView(view.holder);
  view.box.remove();
  panels.views.delete(id);
}

export function clearPanels(panels) {
  for (const id of [...panels.views.keys()]) endPanelView(panels, id);
}
