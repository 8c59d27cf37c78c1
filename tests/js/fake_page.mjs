// As much of a page as the page's own functions need to build their elements; nothing is laid out or drawn.

class FakeElement {
  constructor(tag) {
    Object.assign(this, { tagName: tag.toUpperCase(), children: [], attributes: {}, dataset: {}, handlers: {}, hidden: false, textContent: "" });
    this.style = { setProperty: (name, value) => (this.style[name] = value) };
  }
  setAttribute(name, value) {
    this.attributes[name] = String(value);
    if (name === "disabled") this.disabled = true;
  }
  getAttribute(name) {
    return this.attributes[name] ?? null;
  }
  addEventListener(name, handler) {
    this.handlers[name] = handler;
  }
  append(...children) {
    this.children.push(...children);
  }
  replaceChildren(...children) {
    this.children = children;
  }
  contains() {
    return false;
  }
  // Every element inside, in the order of the page.
  get inner() {
    return this.children.flatMap((child) => [child, ...child.inner]);
  }
}

export function openPage() {
  globalThis.navigator ??= { platform: "" };
  globalThis.document = { createElement: (tag) => new FakeElement(tag), activeElement: null };
}

export const named = (box, label) => box.inner.find((one) => one.attributes["aria-label"]?.startsWith(label) || one.textContent === label);

// Whether a click does nothing.
export const isOff = (element) => Boolean(element.disabled) || element.getAttribute("aria-disabled") === "true";
