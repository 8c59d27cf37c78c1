// The menus above a panel's charts: what Python offers, and what the user chose of it.

import { node, select, show } from "./elements.js";

export function createMenus(pick) {
  return { box: node("div", { class: "dgx-row dgx-panel-menus" }), lists: new Map(), key: "", pick };
}

// A menu lives as long as its name is offered, so it keeps the focus. `fresh`: the controls are newer than the last choice here.
export function showMenus(menus, controls, fresh) {
  show(menus.box, controls.length > 0);
  const key = JSON.stringify(controls.map(({ name, label }) => [name, label]));
  if (menus.key !== key) arrange(menus, controls, key);
  for (const { name, choices, value } of controls) fillMenu(menus.lists.get(name), choices, fresh ? value : undefined);
}

function arrange(menus, controls, key) {
  const focused = document.activeElement;
  const kept = ({ name, label }) => (menus.lists.get(name)?.label === label ? menus.lists.get(name) : null);
  menus.lists = new Map(controls.map((control) => [control.name, kept(control) ?? createMenu(menus, control)]));
  menus.box.replaceChildren(...[...menus.lists.values()].map(({ box }) => box));
  menus.key = key;
  if (menus.box.contains(focused)) focused.focus();
}

function createMenu(menus, { name, label }) {
  const menu = { label, choices: [], key: "" };
  return Object.assign(menu, select(label, () => menus.pick(name, menu.choices[menu.list.selectedIndex][0])));
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
