// Small DOM pieces. Text always goes through textContent: names and messages come from users.

// JupyterLab handles keys of every element without this attribute: arrows would move cells.
const KEYS = "data-lm-suppress-shortcuts";
const FOCUSABLE = new Set(["input", "select", "button", "textarea", "canvas", "a"]);

export function node(tag, { text, on, ...attributes } = {}, ...children) {
  const element = document.createElement(tag);
  if (FOCUSABLE.has(tag) || attributes.tabindex !== undefined) element.setAttribute(KEYS, "true");
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    element.setAttribute(name, value === true ? "" : String(value));
  }
  if (text !== undefined) element.textContent = text;
  for (const [event, handler] of Object.entries(on ?? {})) element.addEventListener(event, handler);
  element.append(...children.filter(Boolean));
  return element;
}

// An input that Vega made: it keeps its keys, and its name is the text beside it.
export function adopt(input) {
  input.setAttribute(KEYS, "true");
  const label = input.closest("label, .vega-bind")?.textContent.trim();
  if (label) input.setAttribute("aria-label", label);
}

// Keys with Ctrl or Cmd stay the notebook's (save, run all): the mark is off while JupyterLab handles such a key. Undo is not
// lent: in a text field it is the browser's, and elsewhere it would change cells that the user does not look at.
export function lendKeys(root) {
  const lend = (event) => {
    const element = event.target;
    if (!(event.ctrlKey || event.metaKey) || event.key?.toLowerCase() === "z" || !root.contains(element) || !element.hasAttribute(KEYS)) return;
    element.removeAttribute(KEYS);
    setTimeout(() => element.setAttribute(KEYS, "true"), 0);
  };
  window.addEventListener("keydown", lend, true);
  return () => window.removeEventListener("keydown", lend, true);
}

// Listens to a model, {event: handler}; returns a function that ends it.
export function listenTo(model, handlers) {
  for (const [event, handler] of Object.entries(handlers)) model.on(event, handler);
  return () => Object.entries(handlers).forEach(([event, handler]) => model.off(event, handler));
}

// A key that was answered here: neither the browser nor the notebook acts on it.
export function swallow(event) {
  event.preventDefault();
  event.stopPropagation();
}

export function button(text, press, attributes = {}) {
  const click = (event) => event.currentTarget.getAttribute("aria-disabled") === "true" || press(event);
  return node("button", { type: "button", class: "dgx-button", text, on: { click }, ...attributes });
}

// A button with nothing to do stays focusable: one that is disabled while it is pressed would lose the keyboard.
export function enable(element, able) {
  if (element.getAttribute("aria-disabled") !== String(!able)) element.setAttribute("aria-disabled", String(!able));
}

// Writes only what differs: an untouched node costs no layout and keeps a reader's selection.
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function show(element, visible) {
  if (element.hidden === visible) element.hidden = !visible;
}

// Radios need one name per group: random, so two explorers on a page do not collide.
export function radios(legend, options, pick) {
  const name = `dgx-${Math.random().toString(36).slice(2)}`;
  const inputs = new Map();
  const box = node("span", { class: "dgx-field", role: "radiogroup", "aria-label": legend });
  box.append(node("span", { class: "dgx-label", text: legend }));
  for (const [value, text, title] of options) {
    const input = node("input", { type: "radio", name, value, on: { change: () => pick(value) } });
    inputs.set(value, input);
    box.append(node("label", { class: "dgx-option", title }, input, node("span", { text })));
  }
  return {
    box,
    set: (value) => {
      const input = inputs.get(value);
      if (input) input.checked = true;
    },
    allow: (allowed) => inputs.forEach((input, value) => show(input.parentElement, allowed(value))),
  };
}

export function select(legend, pick, title) {
  const list = node("select", { class: "dgx-select", "aria-label": legend, on: { change: () => pick(list.value) } });
  const box = node("label", { class: "dgx-field", title }, node("span", { class: "dgx-label", text: legend }), list);
  return { box, list };
}

// Calls `paint` at the next frame of the screen: many events between two frames are one drawing.
export function perFrame(page, paint) {
  if (page.frame || page.ended) return;
  page.frame = requestAnimationFrame(() => {
    page.frame = null;
    if (!page.ended) paint(page);
  });
}

// Hands a file to the browser's downloads.
export function saveBlob(blob, name) {
  const url = URL.createObjectURL(blob);
  node("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000); // a browser may ask first where to
}
