// The panels under "more:": buttons, and the open panel's charts, embedded once, their data swapped.

import { button, node, say, show } from "./elements.js";
import { createView, endView, feed } from "./views.js";

export function createPanels(acts) {
  const bar = node("div", { class: "dgx-row dgx-more" });
  const text = node("p", { class: "dgx-panel-text" });
  const error = node("div", { class: "dgx-notice" });
  error.dataset.kind = "error";
  const charts = node("div", { class: "dgx-panel-charts" });
  const body = node("div", { class: "dgx-panel" }, error, text, charts);
  body.hidden = true;
  return { bar, body, text, error, charts, views: new Map(), acts };
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
