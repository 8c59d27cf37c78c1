// A chart's menu: its picture as SVG or PNG, and its rows as CSV. Nothing leaves the page but the file that is saved.

import { csvOf, csvText, fileName, rowsOf } from "./chart_rows.js";
import { button, node, saveBlob, show, swallow } from "./elements.js";
import { drawnAnew } from "./views.js";

const PIXELS = 2; // per unit, so that a PNG is sharp in print
const TITLES = { SVG: "As a picture of lines", PNG: "As a picture of pixels", CSV: "The numbers that it shows, as a table" };

// The menu of a chart; `holder` returns it as `createView` made it. `title` names the file; without one the chart's own does.
// `setting` returns the lines that stand below the title in a saved picture.
export const chartMenu = (holder, title, setting) => saveMenu(KINDS, { holder, title, setting });

// The menu of what is no Vega view: `picture` returns it as an SVG, `rows` its rows.
export const drawnMenu = ({ picture, rows }, title) =>
  saveMenu({ SVG: () => svgBlob(picture()), PNG: () => pngOf(picture()), CSV: () => csvBlob(csvText([{ name: "rows", rows: rows() }])) }, { title });

function saveMenu(kinds, { holder = () => null, title, setting }) {
  const menu = node("span", { class: "dgx-save-menu", role: "menu", "aria-label": "Save this chart" });
  const open = button("\u2193", () => turn(menu.hidden), {
    class: "dgx-save-open", "aria-label": "Save this chart", title: "Save this chart", "aria-haspopup": "menu", "aria-expanded": "false",
  });
  const turn = (visible) => {
    show(menu, visible);
    open.setAttribute("aria-expanded", String(visible));
    if (visible) menu.firstChild.focus();
  };
  const failed = node("span", { class: "dgx-save-failed", role: "alert" });
  const press = async (kind) => {
    turn(false);
    open.focus();
    failed.textContent = "";
    try {
      if (holder() && isEmpty(holder())) throw new Error("nothing is drawn yet.");
      saveBlob(await kinds[kind](holder(), setting && { text: title, subtitle: setting() }), fileName(title ?? titleOf(holder()), kind.toLowerCase()));
    } catch (problem) {
      failed.textContent = `Not saved: ${problem.message}`;
    }
  };
  for (const kind of Object.keys(kinds))
    menu.append(button(kind, () => press(kind), { role: "menuitem", tabindex: -1, class: "dgx-button dgx-save-item", title: TITLES[kind] }));
  menu.hidden = true;
  const box = node("span", { class: "dgx-save" }, failed, menu, open);
  box.addEventListener("keydown", (event) => onKey(event, { menu, open, turn }));
  box.addEventListener("focusout", (event) => !box.contains(event.relatedTarget) && turn(false));
  return box;
}

const STEPS = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };

function onKey(event, { menu, open, turn }) {
  if (menu.hidden) return;
  const items = [...menu.children];
  const at = items.indexOf(document.activeElement);
  if (event.key === "Escape") {
    turn(false);
    open.focus();
  } else if (event.key in STEPS) items[(at + STEPS[event.key] + items.length) % items.length].focus();
  else if (event.key === "Home") items[0].focus();
  else if (event.key === "End") items.at(-1).focus();
  else return;
  swallow(event);
}

const isEmpty = ({ spec, wanted }) => rowsOf(spec, wanted).every(({ rows }) => !rows.length);

function titleOf({ spec }) {
  const text = spec.title?.text ?? spec.title;
  return Array.isArray(text) ? text[0] : text;
}

async function pngOf(svgText) {
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svgText)}`;
  await image.decode();
  const canvas = node("canvas", { width: PIXELS * image.width, height: PIXELS * image.height });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return pngBlob(canvas);
}

const csvBlob = (text) => new Blob([text], { type: "text/csv;charset=utf-8" });
const svgBlob = (text) => new Blob([text], { type: "image/svg+xml" });
const pngBlob = (canvas) => new Promise((resolve) => canvas.toBlob(resolve, "image/png"));

const KINDS = {
  SVG: (holder, title) => drawnAnew(holder, async (view) => svgBlob(await view.toSVG()), title),
  PNG: async (holder, title) => pngBlob(await drawnAnew(holder, (view) => view.toCanvas(PIXELS), title)),
  CSV: ({ spec, wanted }) => csvBlob(csvOf(spec, wanted)),
};
