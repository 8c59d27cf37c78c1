// A, C and D: the Vega views of the explorer and what is fed to them.

import { say, show } from "./elements.js";
import { costData, dropData, pinsAlongside, sweepData, widest } from "./memory.js";
import { createView, dragInPlot, endView, feed, inksOf, plotSize } from "./views.js";

export function paintCharts(page, pins, now) {
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
