// What stands beside the numbers: errors, a busy or missing kernel, the target-aware warning, code.

import { button, node, say, show } from "./elements.js";

export function createNotices(acts) {
  const text = node("span", { class: "dgx-grow" });
  const retry = button("Try again", () => acts.send({ type: "retry" }));
  const strip = node("div", { class: "dgx-notice", role: "alert" }, text, retry);
  const instead = button("Use the target-free version", acts.instead);
  const sign = node("span", { class: "dgx-diamond", "aria-hidden": "true" });
  const exposure = node("span", { class: "dgx-exposure" });
  const warning = node("div", { class: "dgx-warning", role: "status" }, sign, exposure, instead);
  const box = node("textarea", { class: "dgx-code", readonly: true, rows: 8, "aria-label": "Code of this view" });
  const hint = node("span", { class: "dgx-grow" });
  const close = button("Close", () => show(code, false));
  const code = node("div", { class: "dgx-codebox" }, node("div", { class: "dgx-row" }, hint, close), box);
  for (const hidden of [strip, warning, code]) hidden.hidden = true;
  return { strip, text, retry, warning, sign, exposure, instead, code, box, hint };
}

export function showNotice(notices, state) {
  fillNotice(notices.strip, notices.text, { ...state, done: "computed" });
  show(notices.retry, Boolean(state.error) && !state.gone);
}

// `done`: what a stopped kernel has done, in a word.
export function fillNotice(strip, words, { error, gone, busy, message, done }) {
  const stopped = `Run this cell again: the kernel has stopped. What was ${done} is still shown.`;
  const text = gone ? stopped : (error ?? (busy ? "Python is busy with another cell" : message));
  show(strip, Boolean(text));
  strip.dataset.kind = gone || error ? "error" : "quiet";
  say(words, text ?? "");
}

// The sentence comes from Python, where the data used by the scorer are recorded.
export function showWarning(notices, scorer, exposure) {
  show(notices.warning, Boolean(exposure));
  show(notices.instead, Boolean(scorer?.instead));
  say(notices.sign, exposure?.sign ?? "");
  say(notices.exposure, exposure?.text ?? "");
}

// The clipboard is often blocked, so the code is always shown too.
export async function showCode(notices, text) {
  notices.box.value = text;
  notices.box.rows = text.split("\n").length + 1;
  show(notices.code, true);
  say(notices.hint, "A cell that rebuilds this view:");
  try {
    await navigator.clipboard.writeText(text);
    say(notices.hint, "Copied. A cell that rebuilds this view:");
  } catch {
    notices.box.focus();
    notices.box.select();
    say(notices.hint, "Select and copy; a cell that rebuilds this view:");
  }
}
