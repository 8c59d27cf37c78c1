// The projector's mode: all of a widget is zoomed by CSS, and an explorer begins with its slider, its sentence and chart A.

import { button } from "./elements.js";

// How much larger an element is shown than its own pixels.
export const zoomOf = (element) => (element.offsetWidth ? element.getBoundingClientRect().width / element.offsetWidth : 1);

// The pointer's place in an element, in the element's own pixels.
export function placeIn(element, { clientX, clientY }) {
  const { left, top } = element.getBoundingClientRect();
  const zoom = zoomOf(element);
  return { x: (clientX - left) / zoom, y: (clientY - top) / zoom };
}

// Vega subtracts the corner of its picture from the pointer's place, as if the picture had its own size on the page: it is
// told of a corner that is as many of its own pixels away. Returns a function that ends this.
export function underZoom(picture) {
  const events = ["pointerdown", "pointermove", "pointerup", "pointerover", "click", "wheel"];
  let last = null;
  const note = (event) => (last = event);
  for (const name of events) window.addEventListener(name, note, { capture: true, passive: true });
  const corner = picture.getBoundingClientRect.bind(picture);
  picture.getBoundingClientRect = () => {
    const rect = corner();
    const zoom = rect.width / Number.parseFloat(picture.style.width || picture.getAttribute("width"));
    if (!last || !(Math.abs(zoom - 1) > 0.001)) return rect;
    const [left, top] = [last.clientX - (last.clientX - rect.left) / zoom, last.clientY - (last.clientY - rect.top) / zoom];
    return new DOMRect(left, top, rect.width, rect.height);
  };
  return () => events.forEach((name) => window.removeEventListener(name, note, { capture: true }));
}

export function createProjector(page) {
  const projector = { theme: page.fixed.theme ?? "screen" };
  const turn = () => {
    projector.theme = projector.theme === "screen" ? "projector" : "screen";
    page.schedule();
  };
  const title = "Projector: larger type and lines, chart A first";
  projector.button = button("Aa", turn, { title, "aria-label": "Aa, for a projector", "aria-pressed": "false" });
  return projector;
}

// On a projector the further controls stand below the charts, so that keys reach what is in view first.
export function showProjector({ projector, controls, steps, root, main }) {
  const isOn = projector.theme === "projector";
  root.dataset.theme = projector.theme;
  projector.button.setAttribute("aria-pressed", String(isOn));
  const first = controls.box.firstChild; // new controls have none of these yet
  const row = isOn ? controls.further : first;
  if (projector.button.parentElement !== first) first.append(projector.button);
  if (steps.history.parentElement !== row) row.insertBefore(steps.history, isOn ? null : projector.button);
  if (isOn && controls.further.previousSibling !== main) main.after(controls.further);
  if (!isOn && controls.further.parentElement !== controls.box) controls.box.append(controls.further);
}
