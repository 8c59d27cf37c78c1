// What stands beside the numbers: errors, a busy or missing kernel, the target-aware warning, pins, code.

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
  const chips = node("span", { class: "dgx-chips" });
  return { strip, text, retry, warning, sign, exposure, instead, code, box, hint, chips };
}

export function showNotice(notices, { error, gone, busy, message }) {
  const text = gone
    ? "Run this cell again: the kernel has stopped. What was computed is still shown."
    : (error ?? (busy ? "Python is busy with another cell" : message));
  show(notices.strip, Boolean(text));
  show(notices.retry, Boolean(error) && !gone);
  notices.strip.dataset.kind = gone || error ? "error" : "quiet";
  say(notices.text, text ?? "");
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

// One chip per pin; pressing a chip compares the strip with it, its x removes it.
export function showPins(notices, pins, { active, shares, pick, unpin }) {
  const key = JSON.stringify([pins.map((pin) => pin.label), active, shares]);
  if (notices.pinKey === key) return;
  notices.pinKey = key;
  notices.chips.replaceChildren(
    ...pins.map((pin, index) => {
      const many = index === active ? " % of the kept filters" : " %";
      const share = shares[index] === null ? "" : ` \u00B7 shares ${Math.round(100 * shares[index])}${many}`;
      const label = button(`${pin.label}${share}`, () => pick(index), {
        class: "dgx-chip-words", "aria-pressed": String(index === active), title: "Mark in B where this view differs",
      });
      const cross = button("\u00D7", () => unpin(index), { class: "dgx-x", "aria-label": `Unpin ${pin.label}` });
      return node("span", { class: index === active ? "dgx-chip dgx-active" : "dgx-chip" }, label, cross);
    }),
  );
}
