// The small form that starts a fine-tuning, and its progress while it runs.

import { button, enable, node, say, select, show, swallow } from "./elements.js";

export function createFinetuning(acts) {
  const epochs = node("input", { type: "number", class: "dgx-select dgx-short", min: 1, step: 1, "aria-label": "Epochs" });
  const rate = node("input", { type: "number", class: "dgx-select dgx-short", min: 0, step: "any", "aria-label": "Learning rate" });
  const { box: augmentBox, list: augment } = select("Augmentation", () => {}, "What changes the source images while training");
  const wrong = node("span", { class: "dgx-wrong", role: "alert" });
  const parts = { epochs, rate, augment, wrong, key: null };
  parts.start = button("Start", () => begin(parts, acts));
  const close = button("Close", () => turn(parts, false));
  parts.open = button("Fine-tune\u2026", () => turn(parts, parts.form.hidden), {
    "aria-expanded": "false", title: "Train the present network on the source domains; the result becomes a step",
  });
  const field = (text, input) => node("label", { class: "dgx-field" }, node("span", { class: "dgx-label", text }), input);
  parts.form = node(
    "div", { class: "dgx-row dgx-finetuning", role: "group", "aria-label": "Fine-tune" },
    field("Epochs", epochs), field("Learning rate", rate), augmentBox, parts.start, close, wrong,
  );
  parts.form.hidden = true;
  parts.form.addEventListener("keydown", (event) => onKey(parts, event, acts));
  parts.words = node("span", { class: "dgx-job-words", role: "status" });
  parts.bar = node("progress", { class: "dgx-job-bar", "aria-label": "Progress of the fine-tuning" });
  parts.cancel = button("Cancel", () => {
    enable(parts.cancel, false);
    acts.send({ type: "cancel" });
  });
  parts.job = node("span", { class: "dgx-job" }, parts.words, parts.bar, parts.cancel);
  return parts;
}

// `defaults`: {epochs, lr, augmentations}; without them nothing can be fine-tuned here.
export function showFinetuning(parts, job, { defaults, gone }) {
  const key = JSON.stringify(defaults ?? null);
  if (parts.key !== key) fill(parts, defaults, key);
  show(parts.open, Boolean(defaults));
  enable(parts.open, !job && !gone);
  const [inForm, inJob] = [parts.form, parts.job].map((part) => part.contains(document.activeElement));
  show(parts.job, Boolean(job));
  if (job || gone) turn(parts, false, { keep: true });
  if (inForm && job) parts.cancel.focus(); // the button that had the focus is hidden
  if (inJob && !job) parts.open.focus();
  if (!job) {
    enable(parts.cancel, true);
    return;
  }
  say(parts.words, job.words ?? "");
  if (parts.bar.max !== (job.total || 1)) parts.bar.max = job.total || 1;
  parts.bar.value = job.done ?? 0;
}

function fill(parts, defaults, key) {
  parts.key = key;
  if (!defaults) return;
  parts.epochs.value = String(defaults.epochs);
  parts.rate.value = String(defaults.lr);
  const words = (name) => name.replaceAll("_", " ");
  parts.augment.replaceChildren(...defaults.augmentations.map((name) => node("option", { value: name, text: words(name) })));
}

// `keep`: the focus stays where it is.
function turn(parts, visible, { keep = false } = {}) {
  if (parts.form.hidden !== visible) return;
  show(parts.form, visible);
  parts.open.setAttribute("aria-expanded", String(visible));
  say(parts.wrong, "");
  if (!keep) (visible ? parts.epochs : parts.open).focus();
}

function onKey(parts, event, acts) {
  if (event.key === "Escape") turn(parts, false);
  else if (event.key === "Enter" && event.target.tagName === "INPUT") begin(parts, acts);
  else return;
  swallow(event);
}

function begin(parts, acts) {
  const wanted = checked({ epochs: parts.epochs.value, lr: parts.rate.value, augment: parts.augment.value });
  say(parts.wrong, wanted.wrong ?? "");
  if (!wanted.wrong) acts.send({ type: "finetune", ...wanted });
}

// The options as numbers, or what is wrong with them.
export function checked({ epochs, lr, augment }) {
  const [count, rate] = [Number(epochs), Number(lr)];
  if (!/^\d+$/.test(epochs.trim()) || count < 1) return { wrong: "Epochs: a whole number, at least 1." };
  if (!lr.trim() || !Number.isFinite(rate) || rate <= 0) return { wrong: "Learning rate: a number above 0, such as 0.01." };
  return { epochs: count, lr: rate, augment };
}
