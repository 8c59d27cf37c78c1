// The panels under "more:": buttons, and the open panel's charts, embedded once, their data swapped.

import { button, node, say, show } from "./elements.js";
import { createView, endView, feed } from "./views.js";

export function createPanels(acts) {
  const bar = node("div", { class: "dgx-row dgx-more" });
  const text = node("p", { class: "dgx-panel-text" });
  const error = node("div", { class: "dgx-notice" });
  error.dataset.kind = "error";
  const pager = createPager(acts);
  const charts = node("div", { class: "dgx-panel-charts" });
  const body = node("div", { class: "dgx-panel" }, error, text, pager.box, charts);
  body.hidden = true;
  return { bar, body, text, error, pager, charts, views: new Map(), acts };
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

export function showPanels(panels, told, { embed, dark }) {
  const list = told?.list ?? [];
  showBar(panels, list, told?.open ?? null);
  const open = list.some((panel) => panel.name === told?.open);
  show(panels.body, open);
  if (!open) return clearPanels(panels);
  say(panels.text, told.text ?? "");
  say(panels.error, told.error ?? "");
  show(panels.text, Boolean(told.text));
  show(panels.error, Boolean(told.error));
  showPager(panels.pager, told.pages);
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
    const key = JSON.stringify([spec, dark]);
    if (panels.views.get(id)?.key !== key) {
      endPanelView(panels, id);
      const box = node("div", { class: "dgx-panel-chart" });
      panels.charts.append(box);
      const holder = createView(box, spec, { embed, dark, fit: false });
      holder.ready.catch((problem) => say(box, `This chart could not be drawn: ${problem.message}`));
      panels.views.set(id, { key, box, holder });
    }
    feed(panels.views.get(id).holder, told.data?.[id] ?? {}, false);
  }
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
