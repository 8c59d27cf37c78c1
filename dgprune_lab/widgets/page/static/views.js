// Vega views: embedded once, their named data swapped, their size and colours following the page.

import { adopt, node, say } from "./elements.js";
import { placeIn, underZoom } from "./projector.js";

export const PAPER = "#ffffff";
export const LIGHT_INKS = { quiet: "#9aa1ab", cell: "#46566a", ring: "#b3bac3", words: "#5b6470", mark: "#5b6470", hole: PAPER, focus: "#1a73e8" };

// Fetch the page's Vega, then call `embed(page)`; an error is shown in every box.
export async function loadVega(page, embed, boxes) {
  try {
    const { exports } = await page.host.getWidget(page.fixed.host);
    if (page.ended) return;
    page.embed = exports.vegaEmbed;
    embed(page);
  } catch (problem) {
    for (const box of boxes) say(box, `The chart could not be loaded: ${problem.message}`);
  }
}

// Colours of a dark page -> those of the light one, for pictures that are saved.
const LIGHT = new Map([["#8d949e", "#9aa1ab"]]);

export function inksOf(root) {
  const [r, g, b] = (getComputedStyle(root).color.match(/[\d.]+/g) ?? [0, 0, 0]).map(Number);
  const hole = getComputedStyle(root).backgroundColor;
  const dark = 0.299 * r + 0.587 * g + 0.114 * b > 140;
  if (dark) LIGHT.set(hole, PAPER);
  // On a dark page the domain colours are mixed with white until lines and names can be read.
  const ink = dark ? (colour) => lighter(colour, 0.35) : (colour) => colour;
  return dark
    ? { dark, ink, quiet: "#8d949e", cell: "#b9c4d0", ring: "#7d8793", words: "#b4bcc6", mark: "#e6e9ed", hole, focus: "#7fb4ff" }
    : { dark, ink, ...LIGHT_INKS, hole };
}

function lighter(colour, share) {
  if (!String(colour).startsWith("#")) return colour;
  const number = parseInt(colour.slice(1), 16);
  const mix = (shift) => Math.round(((number >> shift) & 255) * (1 - share) + 255 * share);
  const mixed = `rgb(${mix(16)},${mix(8)},${mix(0)})`;
  LIGHT.set(mixed, colour);
  return mixed;
}

const DARK = {
  axis: { labelColor: "#b4bcc6", titleColor: "#b4bcc6", tickColor: "#3b424b", domainColor: "#5a636e", gridColor: "#2f353d" },
  title: { color: "#e6e9ed", subtitleColor: "#b4bcc6" },
  legend: { labelColor: "#b4bcc6", titleColor: "#b4bcc6" },
  header: { labelColor: "#b4bcc6", titleColor: "#b4bcc6" },
  style: {
    ink: { color: "#e6e9ed" }, words: { color: "#b4bcc6" }, strong: { color: "#e6e9ed" }, quiet: { color: "#8d949e" },
    track: { color: "#333a43" }, kept: { color: "#b9c4d0" },
  },
};

function merged(base, over) {
  const result = { ...base };
  for (const [name, value] of Object.entries(over))
    result[name] = value && typeof value === "object" && !Array.isArray(value) ? merged(result[name] ?? {}, value) : value;
  return result;
}

// For a screen reader a chart is one picture with a name: its numbers are in sentences and in the file that its menu saves.
function nameChart(box, spec, label) {
  const title = [spec.title?.text ?? spec.title].flat()[0];
  const around = box.closest("[aria-label]")?.getAttribute("aria-label");
  box.setAttribute("role", box.querySelector("input, select") ? "group" : "img");
  box.setAttribute("aria-label", label ?? (typeof title === "string" ? title : (around ?? "Chart")));
  box.removeAttribute("aria-roledescription");
  box.querySelector("svg, canvas").setAttribute("aria-hidden", "true");
}

// A view in `box`. Everything before the embedding ended is remembered, so callers never wait.
export function createView(box, spec, { embed, dark, fit = true, label }) {
  const holder = { spec, box, embed, view: null, wanted: {}, drawn: {}, signals: {}, size: null, ended: false };
  const { hole } = inksOf(box.closest(".dgx") ?? box); // what lies behind text and hollow marks
  const config = merged(merged({ background: "transparent", ...spec.config }, dark ? DARK : {}), { style: { halo: { color: hole, fill: hole, stroke: hole } } });
  const renderer = spec.usermeta?.embedOptions?.renderer ?? "svg";
  holder.ready = embed(box, { ...structuredClone(spec), config }, { actions: false, renderer, defaultStyle: false, logLevel: 1 })
    .then((result) => {
      if (holder.ended) return result.finalize();
      nameChart(box, spec, label);
      const free = underZoom(box.querySelector("svg, canvas"));
      holder.finalize = () => {
        free();
        result.finalize();
      };
      for (const input of box.querySelectorAll("input, select")) adopt(input); // those that the chart binds
      holder.view = box.vegaView = result.view; // on the element too, so that one can see the rows behind a chart
      settle(holder, fit);
      return null;
    });
  return holder;
}

const TITLE_HEIGHT = 72; // of a title with three lines below it

// The chart once more as it is shown, in the light theme's colours on white; calls `use` with its view. `title`: one for a chart without.
export async function drawnAnew({ spec, wanted, size, view, embed }, use, title) {
  const inLight = recoloured(title ? withTitle(spec, title) : spec);
  const config = { ...inLight.config, background: PAPER };
  const result = await embed(node("div"), { ...inLight, config }, { actions: false, renderer: "svg", defaultStyle: false, logLevel: 1 });
  try {
    for (const [name, rows] of Object.entries(wanted)) result.view.data(name, recoloured(rows));
    for (const { name, select } of (spec.params ?? []).filter(({ expr }) => expr === undefined)) {
      if (select) result.view.data(`${name}_store`, view.data(`${name}_store`));
      else result.view.signal(name, view.signal(name));
    }
    if (size) result.view.width(size.width).height(size.height);
    await result.view.runAsync();
    return await use(result.view);
  } finally {
    result.finalize();
  }
}

// The padding makes the room, as the size of the plot stays.
function withTitle(spec, title) {
  const padding = { ...spec.padding, top: (spec.padding?.top ?? 0) + TITLE_HEIGHT };
  return { ...spec, padding, title: { ...title, anchor: "start", frame: "bounds", offset: 12 } };
}

function recoloured(value) {
  if (Array.isArray(value)) return value.map(recoloured);
  if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, recoloured(inner)]));
  return LIGHT.get(value) ?? value;
}

// `signals`: the chart's parameters that the page sets, by name.
export function feed(holder, data, fit = true, signals = {}) {
  Object.assign(holder.wanted, data);
  Object.assign(holder.signals, signals);
  settle(holder, fit);
}

function settle(holder, fit) {
  if (!holder.view || holder.ended) return;
  const resized = fit && resize(holder);
  let changed = false;
  for (const [name, rows] of Object.entries(holder.wanted)) {
    if (holder.drawn[name]?.rows === rows) continue;
    // Comparing text is cheaper than one needless pulse through the dataflow.
    const text = JSON.stringify(rows);
    const same = holder.drawn[name]?.text === text;
    holder.drawn[name] = { rows, text };
    if (same) continue;
    holder.view.data(name, rows);
    changed = true;
  }
  const isNew = (name, value) => JSON.stringify(holder.view.signal(name)) !== JSON.stringify(value);
  const moved = Object.entries(holder.signals).filter(([name, value]) => isNew(name, value));
  if (moved.length && !changed && waits(holder)) return;
  for (const [name, value] of moved) holder.view.signal(name, value);
  if (!resized && !changed && !moved.length) return;
  holder.ranAt = performance.now();
  holder.view.run();
}

// A chart with `calm` is drawn at most once per `calm` ms while it follows the slider, so that its neighbour moves smoothly.
function waits(holder) {
  const left = (holder.spec.usermeta?.calm ?? 0) - (performance.now() - (holder.ranAt ?? -Infinity));
  if (left <= 0) return false;
  holder.later ??= setTimeout(() => {
    holder.later = null;
    settle(holder, false);
  }, left);
  return true;
}

function resize(holder) {
  const { width, height } = plotSize(holder);
  if (width < 20 || height < 20 || (holder.size?.width === width && holder.size?.height === height)) return false;
  holder.size = { width, height };
  holder.view.width(width).height(height);
  return true;
}

// A chart with `grows` is as large as the page has room for: it sets one parameter, and the view's size with it.
export function enlarge(holder, room) {
  const { grows } = holder.spec.usermeta ?? {};
  if (!grows || !holder.view || holder.ended) return;
  const { left = 0, right = 0 } = holder.spec.padding ?? {};
  const free = Math.floor(room - left - right - grows.beside);
  const side = Math.min(Math.max(free, grows.from), grows.to);
  if (holder.view.signal(grows.parameter) === side) return;
  holder.size = { width: side + grows.beside, height: side + grows.above };
  holder.view.signal(grows.parameter, side).width(holder.size.width).height(holder.size.height).run();
}

export function plotSize({ spec, box }) {
  const room = spec.padding ?? {};
  const width = Math.floor(box.clientWidth - (room.left ?? 0) - (room.right ?? 0));
  return { width, height: Math.floor(box.clientHeight - (room.top ?? 0) - (room.bottom ?? 0)) };
}

export function endView(holder) {
  holder.ended = true;
  clearTimeout(holder.later);
  holder.finalize?.();
}

// A page of one chart: draws it anew, in the inks of the present theme. `specOf` returns its specification in these inks.
export function redraw(page, specOf, options) {
  if (page.chart) endView(page.chart);
  page.box.replaceChildren();
  page.inks = inksOf(page.root);
  page.chart = createView(page.box, specOf(page.inks), { embed: page.embed, dark: page.inks.dark, ...options });
  page.chart.ready.catch((problem) => say(page.box, `The chart could not be drawn: ${problem.message}`));
}

export function endPage(page, stops) {
  page.ended = true;
  cancelAnimationFrame(page.frame);
  stops.forEach((stop) => stop());
  if (page.chart) endView(page.chart);
  page.root.remove();
}

// Click or drag inside the plot calls `move(0..1)`; outside the plot nothing happens.
export function dragInPlot(holder, move) {
  const { box, spec } = holder;
  let held = false;
  const share = (event) => {
    const place = placeIn(box, event);
    const { width, height } = plotSize(holder);
    const x = (place.x - (spec.padding?.left ?? 0)) / width;
    const y = (place.y - (spec.padding?.top ?? 0)) / height;
    return { x, inside: x >= 0 && x <= 1 && y >= 0 && y <= 1 };
  };
  const down = (event) => {
    const { x, inside } = share(event);
    if (!inside || event.button !== 0) return;
    held = true;
    box.setPointerCapture?.(event.pointerId);
    move(x, true);
  };
  const go = (event) => {
    const { x, inside } = share(event);
    box.style.cursor = inside || held ? "ew-resize" : "";
    if (held) move(Math.min(Math.max(x, 0), 1), true);
  };
  const up = () => {
    if (held) move(null, false);
    held = false;
  };
  const events = { pointerdown: down, pointermove: go, pointerup: up, pointercancel: up };
  for (const [name, handler] of Object.entries(events)) box.addEventListener(name, handler);
  return () => Object.entries(events).forEach(([name, handler]) => box.removeEventListener(name, handler));
}
