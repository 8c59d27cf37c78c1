// The controls above the charts: plain DOM, so that they work before the charts are drawn.

import { byHand } from "./by_hand.js";
import { button, node, radios, say, select, show } from "./elements.js";
import { percent, rounded } from "./rounding.js";

const KINDS = [
  ["weights", "weights"],
  ["source", "source images"],
  ["target", "target-aware (!)"],
  ["control", "controls"],
  ["given", "ready-made scores"],
];
const COUNTED = { filters: "filters", parameters: "parameters", macs: "MACs" };
const BATCHNORM = { recalibrate: "BatchNorm re-estimated", as_is: "BatchNorm as is" };
const SCOPES = [
  ["layer", "per layer", "The same share in every layer"],
  ["global", "global", "The lowest scores anywhere in the network"],
];

// acts: {ratio(value, moving), choose(field, value), reset(), send(message)}
export function createControls(fixed, acts) {
  const slider = createSlider(acts);
  const { box: scorerBox, list: scorers } = select("Scorer", (name) => acts.choose("scorer", name), "How the filters are ranked");
  fillScorers(scorers, fixed.scorers);
  const info = createInfo(fixed, acts);
  const scope = radios("Scope", SCOPES, (value) => acts.choose("scope", value));
  const { box: budgetBox, list: budget } = select("Budget", (value) => acts.choose("budget", value), "What the ratio counts");
  for (const [value, text] of Object.entries(COUNTED)) budget.append(node("option", { value, text }));
  const recalibrate = node("input", {
    type: "checkbox", on: { change: () => acts.choose("batchnorm", recalibrate.checked ? "recalibrate" : "as_is") },
  });
  const recalibrateBox = node(
    "label", { class: "dgx-option", title: "Estimate the BatchNorm statistics again on source images after removal" },
    recalibrate, node("span", { text: "Recalibrate BatchNorm" }),
  );
  const buttons = createButtons(acts);
  const badge = node("span", { class: "dgx-badge", role: "status" });
  const device = node("span", { class: "dgx-device", text: fixed.device ?? "" });
  const further = node("div", { class: "dgx-row dgx-further" }, scope.box, budgetBox, recalibrateBox,
    node("span", { class: "dgx-row dgx-tail" }, buttons.box, node("span", { class: "dgx-state" }, badge, device)));
  const first = node("div", { class: "dgx-row" }, slider.box, node("span", { class: "dgx-choose" }, scorerBox, info.box));
  const box = node("div", { class: "dgx-controls" }, first, further);
  show(recalibrateBox, Boolean(fixed.has_batchnorm));
  return { box, further, slider, scorers, info, scope, budget, budgetBox, recalibrate, recalibrateBox, badge, buttons };
}

function createSlider(acts) {
  const input = node("input", { type: "range", class: "dgx-slider", min: 0, max: 99, step: 1, "aria-label": "Remove" });
  const amount = node("output", { class: "dgx-amount" });
  const slider = { input, amount, held: false };
  input.addEventListener("pointerdown", () => (slider.held = true));
  for (const end of ["pointerup", "pointercancel", "blur", "change"])
    input.addEventListener(end, () => (slider.held = false));
  input.addEventListener("input", () => acts.ratio(Number(input.value) / 100));
  slider.box = node("label", { class: "dgx-field dgx-remove", title: "Share that is removed" }, node("span", { class: "dgx-label", text: "Remove" }), input, amount);
  return slider;
}

function fillScorers(list, scorers) {
  for (const [kind, legend] of KINDS) {
    const group = node("optgroup", { label: legend });
    for (const scorer of scorers.filter((scorer) => scorer.kind === kind)) {
      const label = scorer.label.replace("\u25C7 target-aware", "\u25C7"); // the list is narrow; the line below says it
      const text = scorer.unavailable ? `${label} \u2013 ${scorer.unavailable}` : label;
      group.append(node("option", { value: scorer.name, text, disabled: Boolean(scorer.unavailable) }));
    }
    if (group.children.length) list.append(group);
  }
}

// The (i): name in code, formula, paper and options. Closes with Escape, a second press or a press elsewhere.
function createInfo(fixed, acts) {
  const body = node("div", { class: "dgx-info", role: "note" });
  body.hidden = true;
  const box = node("span", { class: "dgx-infobox" });
  const press = button("i", () => (body.hidden = !body.hidden), { class: "dgx-i", "aria-label": "About this scorer" });
  const elsewhere = (event) => {
    if (!event.composedPath().includes(box)) body.hidden = true;
  };
  box.addEventListener("keydown", (event) => {
    if (event.key === "Escape") body.hidden = true;
  });
  document.addEventListener("pointerdown", elsewhere);
  box.append(press, body);
  return {
    box, body,
    dispose: () => document.removeEventListener("pointerdown", elsewhere),
    show: (scorer, spread) => {
      const text = [scorer?.label ?? "", scorer?.name ?? "", scorer?.summary ?? "", scorer?.cite ?? "", spread ?? ""];
      const key = JSON.stringify([text, scorer?.options]);
      if (body.dataset.key === key) return;
      body.dataset.key = key;
      body.replaceChildren(
        node("strong", { text: text[0] }), node("code", { text: text[1] }),
        node("p", { text: text[2] }), node("p", { class: "dgx-spread", text: text[4] }),
        ...(fixed.offline ? [] : (scorer?.options ?? [])).map((option) => optionControl(option, acts)),
        node("p", { class: "dgx-cite", text: text[3] }),
      );
    },
  };
}

// One keyword of a scorer; its own name is shown, as it is written in code.
function optionControl({ name, value, choices }, acts) {
  const label = (choice) => (choice === null ? "\u2013" : String(choice));
  const input = choices
    ? node("select", { on: { change: () => acts.send({ type: "option", name, value: choices[input.selectedIndex] }) } },
        ...choices.map((choice) => node("option", { text: label(choice), selected: choice === value })))
    : node("input", { type: "number", step: "any", value: String(value), on: { change: () => {
        if (Number.isFinite(input.valueAsNumber)) acts.send({ type: "option", name, value: input.valueAsNumber });
      } } });
  return node("label", { class: "dgx-option" }, node("code", { text: name }), input);
}

function createButtons(acts) {
  const pin = button("Pin to compare", () => acts.send({ type: "pin" }));
  const reset = button("Start again", acts.reset);
  const code = button("Copy as code", () => acts.send({ type: "code" }));
  const save = button("Save", () => acts.send({ type: "save" }));
  const what = "The whole session as one zip file: steps, networks, tables, charts and code";
  const download = button("Download", () => acts.send({ type: "download" }), { title: what });
  return { box: node("span", { class: "dgx-buttons" }, pin, reset, code, save, download), pin, reset, code, save, download };
}

// What a picture was measured with, in three short lines; the last is empty for a network without BatchNorm.
export function settingOf({ choice, fixed, controls }, { scorer, stale }) {
  const scope = SCOPES.find(([name]) => name === choice.scope)?.[1];
  const removed = [scope, `${controls.slider.amount.textContent} removed`];
  if (byHand(choice).some((part) => part.length)) removed.push("some by hand");
  const batchnorm = fixed.has_batchnorm ? BATCHNORM[choice.batchnorm] : "";
  return [(stale ? "Still being measured: " : "") + (scorer?.label ?? choice.scorer), removed.join(", "), batchnorm];
}

// Sets every control to the choice; `hold`: do not move a slider being dragged. `range`: the ratios that are possible.
export function showChoice(controls, choice, { scorer, hold, spread, range }) {
  const { slider } = controls;
  const share = rounded(100 * choice.ratio, 2);
  if (!hold && Number(slider.input.value) !== share) {
    // An off-grid ratio, set from a cell, needs a finer step than the keys' 1 %.
    slider.input.step = Number.isInteger(share) ? (slider.grid ?? 1) : 0.01;
    slider.input.value = String(share);
  } else if (hold && slider.input.step === "0.01") slider.input.step = String(slider.grid ?? 1);
  const [low, high] = byHand(choice).some((part) => part.length) ? (range ?? [0, 1]) : [0, 1];
  const possible = choice.ratio < low - 1e-9 ? low : choice.ratio > high + 1e-9 ? high : null;
  const limit = possible === null ? "" : ` (${percent(possible, 1)} possible)`;
  const amount = `${share} % of the ${choice.step ? "remaining " : ""}${COUNTED[choice.budget]}${limit}`;
  const most = Number(slider.input.max) || 99;
  slider.input.style.setProperty("--dgx-low", `${Math.min(100, (10000 * low) / most)}%`);
  slider.input.style.setProperty("--dgx-high", `${Math.min(100, (10000 * high) / most)}%`);
  slider.box.title = limit ? "Layers and filters by hand allow no more or less" : "Share that is removed";
  say(slider.amount, amount);
  slider.input.setAttribute("aria-valuetext", amount);
  slider.input.style.setProperty("--dgx-share", `${(100 * share) / (Number(slider.input.max) || 99)}%`);
  if (controls.scorers.value !== choice.scorer) controls.scorers.value = choice.scorer;
  if (controls.budget.value !== choice.budget) controls.budget.value = choice.budget;
  controls.scope.set(choice.scope);
  controls.recalibrate.checked = choice.batchnorm === "recalibrate";
  controls.info.show(scorer, spread);
}
