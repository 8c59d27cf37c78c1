// The table of pinned views below the charts: what each is, its accuracy per domain, and how it differs from the present one.

import { button, node, say, show } from "./elements.js";
import { curveKey, letterOf } from "./memory.js";
import { percent, rounded } from "./rounding.js";

// acts: {send(message), pick(index)}
export function createPinTable(acts) {
  const head = node("thead");
  const body = node("tbody");
  const note = node("div", { class: "dgx-about dgx-pins-note" });
  const table = node("table", { class: "dgx-pins-table", "aria-label": "Pinned views" }, head, body);
  const scroll = node("div", { class: "dgx-pins-scroll" }, table);
  const box = node("section", { class: "dgx-pins", "aria-label": "Pinned views" }, scroll, note);
  box.hidden = true;
  return { acts, box, head, body, note, key: null };
}

// `choice`, `mask`, `total`: the present view, which filters it keeps, and how many the full network has; `ink`: colours of the page;
// `gone`: no kernel answers.
export function showPinTable(table, pins, { active, choice, mask, total, ink, gone = false }) {
  show(table.box, pins.length > 0);
  if (!pins.length) return (table.key = null);
  const rows = pins.map((pin, index) => ({
    ...pin, ratio: pin.choice?.ratio, points: null, drops: null, kept: null, chosen: index === active, gone,
    letter: letterOf(pin, index), differs: differsText(pin, mask, total), follows: Boolean(pin.kept && mask), stale: !isAgainst(pin.against, choice),
  }));
  say(table.note, noteOf(rows));
  const key = JSON.stringify([rows, ink("#0072b2")]);
  if (table.key === key) return;
  table.key = key;
  const focused = table.body.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  table.head.replaceChildren(headRow(rows[0].cells ?? [], ink));
  table.body.replaceChildren(...rows.map((row, index) => bodyRow(table.acts, row, index)));
  if (focused) [...table.body.querySelectorAll("button")].find((one) => one.dataset.key === focused)?.focus();
}

function headRow(cells, ink) {
  const names = ["Pin", "Choice", "Filters removed", "Parameters left"].map((text) => head(text));
  const domains = cells.map(({ domain, role, metric, colour }) => {
    const about = metric === "agreement" ? "agreement, %" : `${role}, %`;
    const name = node("span", { class: "dgx-pin-domain", text: domain });
    name.style.borderColor = ink(colour); // beside the name: as text the colours are too pale to read
    return node("th", { scope: "col" }, name, node("span", { class: "dgx-pin-role", text: about }));
  });
  const differs = head("Filters that differ", "Filters that only one of this pin and the present view keeps, as a share of all");
  return node("tr", {}, ...names, ...domains, differs, node("td"));
}

const head = (text, title) => node("th", { scope: "col", text, title });

function bodyRow(acts, row, index) {
  const letter = button(row.letter, () => acts.pick(index), {
    class: "dgx-pin-letter", "aria-pressed": String(row.chosen), "data-key": `pick${index}`,
    title: "Draw this pin strongly, and mark in B where it differs", "aria-label": `Pin ${row.letter}: ${row.label}`,
  });
  const go = button("Go to", () => acts.send({ type: "goto", choice: row.choice }), {
    class: "dgx-button dgx-pin-go", "data-key": `go${index}`, "aria-label": `Go to pin ${row.letter}`, disabled: !row.choice || row.gone,
  });
  const cross = button("\u00D7", () => acts.send({ type: "unpin", index }), {
    class: "dgx-button dgx-x", "data-key": `off${index}`, "aria-label": `Unpin ${row.letter}: ${row.label}`, title: "Unpin", disabled: row.gone,
  });
  const element = node(
    "tr", { class: "dgx-pin", "data-chosen": row.chosen, on: { click: (event) => event.target.closest("button") || acts.pick(index) } },
    node("td", {}, letter), node("th", { scope: "row", class: "dgx-pin-choice", text: row.label.replaceAll(" %", "\u00A0%"), title: row.label }),
    node("td", { text: row.removed ?? "" }), node("td", { text: row.parameters ?? "" }),
    ...(row.cells ?? []).map((cell) => accuracyCell(cell, row.stale)),
    node("td", { text: row.differs, "data-stale": row.stale && !row.follows }), node("td", { class: "dgx-pin-acts" }, go, cross),
  );
  return element;
}

function accuracyCell({ text, difference, target_aware: aware, exposure }, stale) {
  const change = node("span", { class: "dgx-pin-change", text: difference ?? "" });
  if (stale) change.dataset.stale = "true";
  const sign = aware && node("span", { class: "dgx-diamond", "aria-hidden": "true", text: "\u25C7" });
  const mark = exposure && node("span", { class: "dgx-pin-aware" }, sign, node("span", { text: exposure }));
  return node("td", {}, node("span", { class: "dgx-pin-value", text }), change, mark);
}

// What the differences are; those of an earlier view are grey until the present one is measured.
export function noteOf(rows) {
  if (!rows.some(({ cells }) => (cells ?? []).some(({ difference }) => difference))) return "95 % intervals over images in brackets.";
  const stale = rows.some((row) => row.stale);
  const of = stale ? "an earlier view (the present one is being measured)" : "the present view";
  return `95 % intervals over images in brackets. Below: pin minus ${of}, in points, paired by image.`;
}

// Whether differences were taken from this very view: the key of its curve, and its ratio.
export function isAgainst(against, choice) {
  if (!against) return false;
  const ratio = against.at(-1);
  return JSON.stringify(against.slice(0, -1)) === curveKey(choice) && Math.round(10000 * ratio) === Math.round(10000 * choice.ratio);
}

// Follows the slider. `kept` is about the filters of the present step; those that a pin keeps besides, of its `filters`, differ.
export function differsText({ kept, filters, differs }, mask, total) {
  if (!kept || !mask) return differs ?? "";
  const count = (test) => mask.reduce((sum, row, g) => sum + row.filter((keeps, f) => test(Boolean(keeps), Boolean(kept[g]?.[f]))).length, 0);
  const within = count((_, other) => other);
  const differing = count((keeps, other) => keeps !== other) + (filters ?? within) - within;
  return percent(differing / Math.max(total, 1));
}

// What tells one pin from another while the texts of its row change.
export const pinKey = ({ choice, removed, parameters, filters }) => JSON.stringify([choice, removed, parameters, filters]);

// Where the chosen pin is after others went or came; null where it went itself, and the first where all are new.
export function chosenAfter(before, after, chosen) {
  const at = before.map(() => -1);
  let next = 0;
  before.forEach((key, index) => {
    const found = after.indexOf(key, next);
    if (found >= 0) [at[index], next] = [found, found + 1];
  });
  if (!at.some((place) => place >= 0)) return 0;
  return chosen === null || at[chosen] < 0 ? null : at[chosen];
}

// A pin made without Python, from the measured frame that the page shows; without images there are no paired differences.
// Only domains with labels have a value of the full network; the others have agreement with it.
export function pinOf({ frame, step, curve, mask }, { choice, label, domains }) {
  const roles = Object.fromEntries(domains.map(({ name, role }) => [name, role]));
  const labelled = new Set((frame?.full ?? []).map(({ domain }) => domain));
  const cells = (frame?.dots ?? []).map(({ domain, value, low, high, colour, looked }) => ({
    domain, role: roles[domain], metric: labelled.has(domain) ? "accuracy" : "agreement", colour, difference: "", ...exposureOf(looked, roles[domain]),
    text: `${rounded(value)} (${rounded(low)}\u2013${rounded(high)})`,
  }));
  const share = (what) => step?.left.find((row) => row.what === what)?.share;
  const words = (value) => (value === undefined ? "" : percent(value / 100));
  return {
    label, cells, removed: words(share("Filters") === undefined ? undefined : 100 - share("Filters")), parameters: words(share("Parameters")),
    choice: { ...choice }, against: null, kept: mask, points: curve?.lines.curves ?? [], drops: frame?.drops ?? [], at: 100 * choice.ratio,
  };
}

// What the rows of the charts say of a domain ("looked"), in the words of the table.
function exposureOf(looked = "no", role = "") {
  if (looked.startsWith("unknown")) return { exposure: "data use not recorded", target_aware: false };
  const seen = looked.startsWith("yes");
  return { exposure: !seen ? "" : role === "target" ? "target-aware" : "seen", target_aware: seen && role === "target" };
}
