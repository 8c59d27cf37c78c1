// The state of the page: what it learns from Python, and what the user chooses.

import { createControls } from "./controls.js";
import { listenTo, saveBlob } from "./elements.js";
import { answerOffline, precomputed } from "./offline.js";
import { showCode } from "./notices.js";
import { isGone } from "./watch.js";

const SEND_EVERY = 60; // ms between two choices sent while the slider moves
const QUIET = 120; // ms without an event after which a moving slider counts as resting
const BUSY_AFTER = 2000; // ms without an answer until Python counts as busy

// --- state from Python ---------------------------------------------------------------------------------------------

export function listen(page) {
  const again = () => {
    learn(page);
    page.schedule();
  };
  return listenTo(page.model, {
    "change:plan": again, "change:frames": again, "change:pins": again, "change:silent": again, "change:panels": again, "change:tree": page.schedule, "change:static": () => restart(page),
    "change:status": () => onStatus(page), "change:choice": () => onChoice(page), "msg:custom": (message, buffers) => onMessage(page, message, buffers),
  });
}

export function learn(page) {
  const { model, memory } = page;
  for (const plan of model.get("plans") ?? []) memory.learnPlan(plan);
  for (const curve of model.get("curves") ?? []) memory.learnCurve(curve);
  memory.learnPlan(model.get("plan"));
  memory.learnCurve(model.get("frames"));
}

// A scorer joined the menu: the controls are made again, the charts stay.
export function restart(page) {
  page.fixed = page.model.get("static");
  const { controls } = page;
  page.controls = createControls(page.fixed, page.acts);
  page.controls.info.body.hidden = controls.info.body.hidden; // an option was changed in it: keep it open
  controls.info.dispose();
  controls.box.replaceWith(page.controls.box);
  controls.further.remove(); // on a projector it stands below the charts
  page.schedule();
}

function onStatus(page) {
  const status = page.model.get("status") ?? {};
  if ((status.ack ?? 0) >= page.lastSent) {
    clearTimeout(page.waiting);
    page.busy = false;
    page.silent = false;
  }
  page.gone = false;
  page.schedule();
}

// A choice made in a cell (or in another view of this widget) moves the controls, but no slider that is being dragged.
function onChoice(page) {
  const choice = page.model.get("choice");
  if (choice.by === "page" && choice.id <= page.lastSent) return;
  const ratio = page.controls.slider.held || page.moving ? page.choice.ratio : choice.ratio;
  page.choice = { ...choice, ratio };
  page.schedule();
}

function onMessage(page, message, buffers) {
  if (message?.type === "file") saveBlob(new Blob(buffers, { type: message.mime }), message.name);
  if (message?.type === "code") showCode(page.notices, message.text);
  if (message?.type === "saved") {
    page.saved = message.text;
    page.schedule();
  }
}

// --- what the user chooses ----------------------------------------------------------------------------------------

// `sliding`: the change is one of many, of a handle that moves.
export function choose(page, change, sliding = false) {
  const next = { ...page.choice, ...change };
  page.choice = page.fixed.offline ? precomputed(page.memory, next, change) : next;
  page.saved = null;
  page.schedule();
  // While a handle moves, at most one message per SEND_EVERY; Python measures when the last one reports it at rest.
  page.sliding = sliding;
  clearTimeout(page.resting);
  if (page.sliding) page.resting = setTimeout(() => sendChoice(page, false), QUIET);
  if (page.sending) return;
  const wait = Math.max(0, SEND_EVERY - (performance.now() - (page.sentAt ?? -SEND_EVERY)));
  page.sending = setTimeout(() => sendChoice(page, page.sliding), wait);
}

function sendChoice(page, moving) {
  clearTimeout(page.sending);
  page.sending = null;
  const known = Math.max(page.choice.id ?? 0, page.model.get("choice")?.id ?? 0, page.lastSent);
  page.lastSent = known + 1;
  page.choice = { ...page.choice, id: page.lastSent, by: "page", moving };
  toKernel(page, () => {
    page.model.set("choice", { ...page.choice });
    page.model.save_changes();
  });
  page.sentAt = performance.now();
  if (page.fixed.offline) return;
  clearTimeout(page.waiting);
  page.waiting = setTimeout(() => onSilence(page), BUSY_AFTER);
}

function onSilence(page) {
  page.silent = true;
  page.gone = isGone(page);
  page.busy = !page.gone && (page.model.get("status")?.ack ?? 0) < page.lastSent;
  // JupyterLab reports a stopped kernel late, so check repeatedly.
  if (page.busy && !page.ended) page.waiting = setTimeout(() => onSilence(page), BUSY_AFTER);
  page.schedule();
}

function toKernel(page, act) {
  try {
    Promise.resolve(act()).catch(() => onSilence(page));
  } catch {
    page.gone = true;
    page.schedule();
  }
}

export function sendMessage(page, message) {
  if (page.fixed.offline) return answerOffline(page, message);
  toKernel(page, () => page.model.send(message));
}

export function useInstead(page) {
  const scorer = scorerOf(page);
  if (page.fixed.scorers.some(({ name }) => name === scorer?.instead)) choose(page, { scorer: scorer.instead });
  else sendMessage(page, { type: "instead" });
}

export const scorerOf = (page) => page.fixed.scorers.find((scorer) => scorer.name === page.choice.scorer);
