// The controls of the rows of B: each layer's own ratio, its lock, and the field that finds layers. Real elements, for keys and readers.

import { isMeant } from "./by_hand.js";
import { button, node, say, show, swallow } from "./elements.js";
import { rounded } from "./rounding.js";

const MANY = 12; // layers from which on they are found by typing

export function createRows(strip) {
  const box = node("div", { class: "dgx-layers" });
  const rows = { box, list: [], key: "", wanted: "", finder: createFinder(strip) };
  rows.matches = (name) => isMeant(name, rows.wanted);
  rows.show = () => showRows(strip, rows);
  return rows;
}

function createLayer(strip, { full, name }) {
  const label = node("span", { class: "dgx-layer-name", title: full }, node("bdi", { text: name }));
  const number = node("output", { class: "dgx-layer-number" });
  const input = node("input", {
    type: "range", class: "dgx-handle", min: 0, max: 99, step: 1, "aria-label": `${full}: share removed`, "aria-keyshortcuts": "L F Delete",
    title: "This layer's own ratio. L: lock, F or Delete: follow the main slider",
  });
  const follow = button("lock", () => strip.acts.rows({ [full]: layer.own === undefined ? 0 : null }), { class: "dgx-follow", tabindex: -1 });
  const layer = { full, label, number, input, follow, held: false };
  input.addEventListener("pointerdown", () => (layer.held = true));
  for (const end of ["pointerup", "pointercancel", "blur", "change"]) input.addEventListener(end, () => (layer.held = false));
  input.addEventListener("input", () => strip.acts.rows({ [full]: Number(input.value) / 100 }, true));
  input.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const change = { l: 0, f: null, Delete: null, Backspace: null }[event.key.length > 1 ? event.key : event.key.toLowerCase()];
    if (change === undefined) return;
    swallow(event);
    strip.acts.rows({ [full]: change });
  });
  layer.box = node("div", { class: "dgx-layer", role: "group", "aria-label": full }, label, number, input, follow);
  return layer;
}

// A layer each; they are made again only for another network.
export function placeRows(strip) {
  const { controls: rows, view } = strip;
  const key = JSON.stringify(view.groups);
  if (rows.key !== key) {
    rows.key = key;
    rows.list = view.groups.map((group) => createLayer(strip, group));
    rows.box.replaceChildren(...rows.list.map(({ box }) => box));
  }
  const placed = new Map(strip.rows.map((row) => [row.g, row]));
  rows.list.forEach(({ box }, g) => {
    show(box, placed.has(g));
    if (placed.has(g)) box.style.top = `${placed.get(g).top}px`;
  });
}

function showRows(strip, rows) {
  const { mask, choice, offline, gone, coming } = strip.view;
  const fixed = Boolean(offline);
  rows.finder.show(strip, rows);
  for (const { g } of strip.states) {
    const layer = rows.list[g];
    const kept = mask[g].reduce((sum, keeps) => sum + keeps, 0);
    const own = choice.layers?.[layer.full];
    const share = rounded(100 * (own ?? 1 - kept / mask[g].length));
    const text = own === 0 ? "locked" : `${share} %${own === undefined ? "" : " *"}`;
    layer.own = own;
    say(layer.number, text);
    say(layer.follow, own === undefined ? "lock" : "follow");
    layer.box.dataset.own = own === undefined ? "" : own === 0 ? "locked" : "own";
    layer.box.dataset.coming = String(Boolean(coming) && own === undefined); // the share of a layer that follows is on its way
    const whole = `${kept} of ${mask[g].length} filters kept`;
    if (layer.number.title !== whole) layer.number.title = whole;
    if (!layer.held && Number(layer.input.value) !== share) layer.input.value = String(share);
    const spoken = `${own === 0 ? "locked" : `${share} % removed`}${own ? ", by hand" : ""}; ${whole}`;
    if (layer.input.getAttribute("aria-valuetext") !== spoken) layer.input.setAttribute("aria-valuetext", spoken);
    layer.input.style.setProperty("--dgx-share", `${share}%`);
    show(layer.input, !fixed);
    show(layer.follow, !fixed);
    layer.input.disabled = layer.follow.disabled = Boolean(gone);
  }
}

// Type a part of a name, or a pattern with "*"; what is found can be locked, or follow, at once.
function createFinder(strip) {
  const input = node("input", { type: "search", class: "dgx-find", placeholder: "find layer, e.g. layer1.*", "aria-label": "Find layer" });
  const count = node("span", { class: "dgx-by" });
  const set = (ratio) => () => {
    const { groups } = strip.view;
    const found = groups.filter(({ full }) => strip.controls.matches(full)).map(({ full }) => full);
    strip.acts.rows(Object.fromEntries(found.map((name) => [name, ratio])));
  };
  const lock = button("", set(0), { class: "dgx-flip" });
  const follow = button("", set(null), { class: "dgx-flip" });
  input.addEventListener("input", () => {
    strip.controls.wanted = input.value.trim();
    strip.scroll.scrollTop = 0;
    strip.changed();
  });
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter") strip.controls.list[strip.rows[0]?.g]?.input.focus();
  });
  const box = node("div", { class: "dgx-finder" }, input, count, lock, follow);
  box.hidden = true;
  return {
    box,
    show: ({ view, rows }, { wanted }) => {
      show(box, view.groups.length >= MANY);
      const named = wanted || "all layers";
      say(count, wanted ? `${rows.length} of ${view.groups.length}` : "");
      say(lock, `lock ${named}`);
      say(follow, `follow ${named}`);
      for (const one of [lock, follow]) {
        show(one, !view.offline);
        one.disabled = Boolean(view.gone) || !rows.length;
      }
    },
  };
}
