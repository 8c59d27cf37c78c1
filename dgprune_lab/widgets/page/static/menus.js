// The controls above a panel's charts: menus, fields for a number, and buttons; what Python offers, and what was chosen.

import { button, node, say, select, show } from "./elements.js";

export function createMenus(pick) {
  return { box: node("div", { class: "dgx-row dgx-panel-menus" }), lists: new Map(), key: "", pick };
}

// A menu lives as long as its name is offered, so it keeps the focus. `fresh`: the controls are newer than the last choice here.
export function showMenus(menus, controls, fresh) {
  show(menus.box, controls.length > 0);
  const key = JSON.stringify(controls.map(({ name, label, kind }) => [name, label, kind]));
  if (menus.key !== key) arrange(menus, controls, key);
  for (const control of controls) {
    const menu = menus.lists.get(control.name);
    if (control.kind === "number") fillNumber(menu, control, fresh);
    else fillMenu(menu, control.choices, fresh ? control.value : undefined);
  }
}

function arrange(menus, controls, key) {
  const focused = document.activeElement;
  const kept = ({ name, label, kind }) => {
    const old = menus.lists.get(name);
    return old?.label === label && old.kind === kind ? old : null;
  };
  menus.lists = new Map(controls.map((control) => [control.name, kept(control) ?? createControl(menus, control)]));
  menus.box.replaceChildren(...[...menus.lists.values()].map(({ box }) => box));
  menus.key = key;
  if (menus.box.contains(focused)) focused.focus();
}

function createControl(menus, { kind, name, label }) {
  if (kind === "number") return createNumber(label, (value) => menus.pick(name, value));
  const menu = { label, choices: [], key: "" };
  return Object.assign(menu, select(label, () => menus.pick(name, menu.choices[menu.list.selectedIndex][0])));
}

// A field whose number is sent when it is complete; one outside its ends stays in the field, which says so.
function createNumber(label, pick) {
  const unit = node("span", { class: "dgx-label" });
  const send = () => input.value !== "" && input.checkValidity() && pick(Number(input.value));
  const input = node("input", { type: "number", class: "dgx-select dgx-number", "aria-label": label, on: { change: send } });
  return { kind: "number", label, input, unit, box: node("label", { class: "dgx-field" }, node("span", { class: "dgx-label", text: label }), input, unit) };
}

function fillNumber({ input, unit }, { value, low, high, step, unit: words }, fresh) {
  Object.assign(input, { min: low, max: high ?? "", step: step ?? "any" });
  input.title = high === undefined ? `from ${low}` : `${low} to ${high}`;
  say(unit, words ?? "");
  if (fresh && input !== document.activeElement && input.value !== String(value)) input.value = value;
}

// Values may be any JSON, so they are compared as text; without one the present choice stays where it is still offered.
function fillMenu(menu, choices, value) {
  const wanted = JSON.stringify(value === undefined ? menu.choices[menu.list.selectedIndex]?.[0] : value);
  const key = JSON.stringify(choices);
  if (menu.key !== key) {
    Object.assign(menu, { key, choices });
    menu.list.replaceChildren(...choices.map(([, text]) => node("option", { text })));
  }
  const index = choices.findIndex(([choice]) => JSON.stringify(choice) === wanted);
  if (menu.list.selectedIndex !== index) menu.list.selectedIndex = index;
}

// The buttons of a panel, and sentences beside them. A button is kept while its words stay, so that it keeps the focus.
export function createActions(press) {
  return { box: node("div", { class: "dgx-row dgx-panel-actions" }), key: "[]", list: [], press };
}

export function showActions(actions, list) {
  show(actions.box, list.length > 0);
  actions.list = list;
  const key = JSON.stringify(list.map(({ label, title, pressed, message }) => [label, title, pressed, Boolean(message)]));
  if (actions.key === key) return;
  actions.key = key;
  const focused = [...actions.box.children].indexOf(document.activeElement);
  actions.box.replaceChildren(...list.map((action, index) => createAction(actions, action, index)));
  actions.box.children[focused]?.focus();
}

function createAction(actions, { label, title, pressed, message }, index) {
  if (!message) return node("span", { text: label });
  const attributes = { title, "aria-pressed": pressed === undefined ? undefined : String(pressed) };
  return button(label, () => actions.press(actions.list[index].message), attributes);
}
