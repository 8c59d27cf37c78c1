// The panels: their buttons, and the open panel's charts, embedded once, their data swapped.

import { chartMenu } from "./chart_menu.js";
import { button, enable, node, say, show } from "./elements.js";
import { createActions, createMenus, showActions, showMenus } from "./menus.js";
import { NO_BRUSH, cellOf, chartBox, nameOf, watchBrush, watchCells } from "./picking.js";
import { createView, endView, enlarge, feed } from "./views.js";

export function createPanels(acts) {
  const bar = node("div", { class: "dgx-row dgx-more" });
  const text = node("p", { class: "dgx-panel-text" });
  const error = node("div", { class: "dgx-notice" });
  error.dataset.kind = "error";
  const pager = createPager(acts);
  const menus = createMenus((name, value) => send(panels, { type: "control", name, value }));
  const actions = createActions((message) => press(panels, message));
  const charts = node("div", { class: "dgx-panel-charts" });
  const announced = node("span", { class: "dgx-said", "aria-live": "polite" });
  const body = node("div", { class: "dgx-panel" }, error, text, menus.box, actions.box, pager.box, charts, announced);
  body.hidden = true;
  const panels = { bar, body, text, error, menus, actions, pager, charts, announced, acts, views: new Map(), open: null, number: 0, ack: 0, picked: {} };
  return panels;
}

// What is picked is numbered: until Python has acknowledged the last number, what it sends is older.
function send(panels, message) {
  panels.number = Math.max(panels.number, panels.ack) + 1;
  panels.acts.send({ ...message, number: panels.number });
}

// A button's message: "force" changes the page's own choice, "press" is the panel's, "goto" the explorer's.
function press(panels, message) {
  if (message.type === "force") panels.acts.force?.(message.cells, message.to);
  else if (message.type === "press") send(panels, message);
  else panels.acts.send(message);
}

function acknowledge(panels, { open, ack }) {
  panels.ack = ack ?? 0;
  if (panels.open !== open) Object.assign(panels, { open, number: panels.ack, picked: {} });
  panels.fresh = panels.ack >= panels.number;
}

// Two buttons and the page between them; Python gets the page's number, counted from 0.
function createPager(acts) {
  const pager = { at: 0, of: 0, key: null };
  const turn = (step) => () => {
    pager.at = Math.min(Math.max(pager.at + step, 0), pager.of - 1);
    acts.send({ type: "page", page: pager.at });
    paintPager(pager);
  };
  pager.before = button("\u2039", turn(-1), { "aria-label": "Previous page" });
  pager.after = button("\u203A", turn(1), { "aria-label": "Next page" });
  pager.label = node("span", { class: "dgx-panel-page", "aria-live": "polite" });
  pager.box = node("div", { class: "dgx-row dgx-pager" }, pager.before, pager.label, pager.after);
  return pager;
}

// Without a kernel nothing answers a button.
function allow({ children }, gone) {
  for (const child of children) if (child.tagName === "BUTTON") enable(child, !gone);
}

function showPager(pager, pages, gone) {
  const key = JSON.stringify(pages ?? null);
  pager.gone = gone;
  if (key !== pager.key) Object.assign(pager, { key, at: pages?.at ?? 0, of: pages?.of ?? 0 });
  paintPager(pager);
}

function paintPager(pager) {
  show(pager.box, pager.of > 1);
  say(pager.label, `page ${pager.at + 1} of ${pager.of}`);
  enable(pager.before, !pager.gone && pager.at > 0);
  enable(pager.after, !pager.gone && pager.at < pager.of - 1);
}

// `state`: what Python sent; `choice`: the page's own controls at this moment, for the charts that follow them; `gone`: no kernel answers.
export function showPanels(panels, state, { embed, dark, choice, gone = false }) {
  const list = state?.list ?? [];
  showBar(panels, list, state?.open ?? null);
  allow(panels.bar, gone);
  const open = list.some((panel) => panel.name === state?.open);
  panels.label = list.find((panel) => panel.name === state?.open)?.label;
  show(panels.body, open);
  acknowledge(panels, { open: open ? state.open : null, ack: state?.ack });
  if (!open) return clearPanels(panels);
  say(panels.text, state.text ?? "");
  say(panels.error, state.error ?? "");
  show(panels.text, Boolean(state.text));
  show(panels.error, Boolean(state.error));
  showMenus(panels.menus, state.controls ?? [], panels.fresh);
  showActions(panels.actions, state.actions ?? []);
  for (const { list, input } of panels.menus.lists.values()) (list ?? input).disabled = gone;
  allow(panels.actions.box, gone);
  showPager(panels.pager, state.pages, gone);
  if (state.picked && panels.fresh) panels.picked = cellOf(state.picked);
  panels.choice = choice;
  if (embed) showCharts(panels, state, { embed, dark });
}

function showBar(panels, list, open) {
  const key = JSON.stringify([list, open]);
  show(panels.bar, list.length > 0);
  if (panels.key === key) return;
  panels.key = key;
  const focused = panels.bar.contains(document.activeElement) ? document.activeElement.dataset.name : null;
  panels.bar.replaceChildren(
    node("span", { class: "dgx-label", text: "Panels:" }),
    ...list.map(({ name, label, unavailable }) =>
      button(label, () => panels.acts.send({ type: "panel", name: name === open ? null : name }), {
        "data-name": name, "aria-expanded": String(name === open), disabled: Boolean(unavailable), title: unavailable,
      }),
    ),
  );
  if (focused !== null) [...panels.bar.children].find((child) => child.dataset.name === focused)?.focus();
}

function showCharts(panels, state, { embed, dark }) {
  const specs = state.charts ?? {};
  const room = panels.charts.clientWidth;
  for (const id of [...panels.views.keys()]) if (!(id in specs)) endPanelView(panels, id);
  for (const [id, wide] of Object.entries(specs)) {
    const spec = specFor(wide, room);
    if (!isDrawn(panels.views.get(id), spec, dark)) createPanelView(panels, id, spec, { embed, dark });
    const { box, holder } = panels.views.get(id);
    show(box, !(state.hidden ?? []).includes(id));
    feed(holder, state.data?.[id] ?? {}, false, signalsOf(panels, spec));
    enlarge(holder, room);
  }
}

// A chart may bring another one, over the same data, for a page that is too narrow for it.
function specFor(wide, room) {
  const narrow = wide.usermeta?.narrow;
  return narrow && room && room < narrow.below ? narrow.spec : wide;
}

// Whether a chart is drawn as specified; the text is compared only where another object is sent.
function isDrawn(view, spec, dark) {
  if (!view || view.dark !== dark) return false;
  if (view.spec !== spec && view.text !== JSON.stringify(spec)) return false;
  view.spec = spec;
  return true;
}

function createPanelView(panels, id, spec, { embed, dark }) {
  const brushed = panels.views.get(id)?.brush ?? NO_BRUSH;
  endPanelView(panels, id);
  const wishes = spec.usermeta ?? {};
  const chart = chartBox(wishes);
  const holder = createView(chart, spec, { embed, dark, fit: false, label: `${panels.label}, ${id}` });
  const box = node("div", { class: "dgx-framed" }, chart, chartMenu(() => holder));
  panels.charts.append(box);
  const view = { spec, text: JSON.stringify(spec), dark, box, holder, brush: NO_BRUSH };
  panels.views.set(id, view);
  holder.ready
    .then(() => watch(panels, view, wishes))
    .catch((problem) => say(chart, `This chart could not be drawn: ${problem.message}`));
  if (brushed !== NO_BRUSH) sendBrush(panels, view, NO_BRUSH); // a chart that is drawn again has none
}

function watch(panels, view, wishes) {
  const { holder } = view;
  if (holder.ended) return;
  enlarge(holder, panels.charts.clientWidth);
  if (wishes.picks) watchCells(holder, wishes, { picked: () => panels.picked, pick: (row, opens) => pickCell(panels, row, opens) });
  if (wishes.brushes) watchBrush(holder, wishes.brushes, { sent: () => view.brush, send: (ends) => sendBrush(panels, view, ends) });
}

function sendBrush(panels, view, ends) {
  view.brush = ends;
  panels.acts.send({ type: "brush", ...ends });
}

// What a chart's parameters are set to: those that follow the page's choice, and the picked cell.
function signalsOf(panels, { usermeta = {}, params = [] }) {
  const follows = Object.entries(usermeta.follows ?? {}).map(([field, name]) => [name, panels.choice[field]]);
  const wanted = usermeta.picks ? [...follows, ["picked", panels.picked]] : follows;
  return Object.fromEntries(wanted.filter(([name]) => params.some((param) => param.name === name)));
}

// The page outlines a cell at once; Python's answer comes later. `opens`: by a click or Enter, which goes to a row's choice.
function pickCell(panels, row, opens) {
  const isNew = nameOf(row) !== nameOf(panels.picked);
  panels.picked = cellOf(row);
  say(panels.announced, nameOf(row));
  for (const { spec, holder } of panels.views.values()) feed(holder, {}, false, signalsOf(panels, spec));
  if (panels.picked.group !== undefined && isNew) send(panels, { type: "filter", ...panels.picked });
  if (panels.picked.network !== undefined && row.choice && opens) panels.acts.send({ type: "goto", choice: row.choice });
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
