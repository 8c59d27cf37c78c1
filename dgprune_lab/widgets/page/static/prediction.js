// A question with options: one is chosen and locked, then the measured answer is shown beside it. All state is the model's.

import { button, enable, lendKeys, listenTo, node, radios, say, show } from "./elements.js";
import { drawChart } from "./live_chart.js";

const TRAITS = ["chosen", "locked", "shown", "answer"];
// Static trait of a guess -> its view that was drawn last: charts of the answer stand there alone, mostly below the measurement.
const LAST = new WeakMap();

function render({ model, el, host }) {
  const page = { model, host, fixed: model.get("static"), ends: [] };
  const before = LAST.get(page.fixed);
  LAST.set(page.fixed, page);
  if (before) paint(before);
  layOut(page);
  el.append(page.root);
  const again = () => paint(page);
  const stops = [listenTo(model, Object.fromEntries(TRAITS.map((trait) => [`change:${trait}`, again]))), lendKeys(page.root)];
  paint(page);
  return () => {
    stops.forEach((stop) => stop());
    page.ended = true;
    page.ends.forEach((end) => end());
    page.root.remove();
  };
}

function layOut(page) {
  const set = (values) => {
    for (const [trait, value] of Object.entries(values)) page.model.set(trait, value);
    page.model.save_changes();
  };
  const { question, options } = page.fixed;
  const choices = radios(question, options.map((option, place) => [place, option]), (chosen) => set({ chosen })).box;
  page.inputs = [...choices.querySelectorAll("input")];
  page.tags = page.inputs.map((input) => input.parentElement.appendChild(node("span", { class: "dgx-guess-tag" })));
  page.lock = button("Lock my guess", () => set({ locked: true }));
  page.reveal = button("Show the answer", () => {
    set({ locked: true, shown: true });
    page.words.focus();
  });
  page.words = node("div", { class: "dgx-guess-words", role: "status", tabindex: -1 });
  page.charts = node("div", { class: "dgx-guess-charts" });
  page.code = node("code", {});
  page.copied = node("span", { role: "status" });
  page.line = node("div", { class: "dgx-guess-line" }, "For your teacher: ", page.code, button("Copy", () => copy(page)), page.copied);
  const buttons = node("div", { class: "dgx-buttons" }, page.lock, page.reveal);
  page.root = node("div", { class: "dgx dgx-guess", "data-theme": page.fixed.theme }, choices, buttons, page.words, page.line, page.charts);
}

function paint(page) {
  const [chosen, locked, shown, answer] = TRAITS.map((trait) => page.model.get(trait));
  const told = shown && answer.words;
  page.inputs.forEach((input, place) => {
    input.checked = place === chosen;
    input.disabled = locked;
    const tags = [locked && place === chosen && "your guess", told && place === answer.place && "measured"];
    say(page.tags[place], tags.filter(Boolean).join(", "));
  });
  enable(page.lock, !locked && chosen !== null);
  say(page.lock, locked && chosen !== null ? "Locked" : "Lock my guess");
  page.lock.title = chosen === null ? "Choose an option first." : "A locked guess cannot be changed.";
  page.reveal.title = locked ? "Show what was measured." : "This locks your guess: it cannot be changed afterwards.";
  show(page.lock, !shown);
  show(page.reveal, !shown && Boolean(answer.words));
  say(page.words, told ? answer.words[chosen ?? answer.words.length - 1] : "");
  show(page.line, locked && chosen !== null);
  say(page.code, locked && chosen !== null ? page.fixed.lines[chosen] : "");
  chart(page, told && LAST.get(page.fixed) === page ? answer : { charts: [] });
}

// The clipboard is often blocked; the line can be marked by hand.
async function copy(page) {
  try {
    await navigator.clipboard.writeText(page.code.textContent);
    say(page.copied, "Copied.");
  } catch {
    say(page.copied, "The browser does not allow it: mark the line and copy it.");
  }
}

// Charts are drawn once per answer, and only when it is shown.
function chart(page, { charts, host }) {
  if (page.ended) return;
  const text = JSON.stringify(charts);
  if (text === page.drawn) return;
  page.drawn = text;
  page.ends.forEach((end) => end());
  page.charts.replaceChildren();
  page.ends = charts.map((spec) => drawChart(page.charts, { model: page.model, host: page.host, fixed: { spec, host } }));
}

export default { render };
