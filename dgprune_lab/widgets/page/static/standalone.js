// The start of a page without a kernel: a widget per state, on a model like anywidget's. `entry` is the widget's module.
const states = JSON.parse(document.querySelector("script.state").textContent);
const places = document.querySelectorAll(".places > div");
const host = { getWidget: async () => ({ exports: { vegaEmbed: window.vegaEmbed } }) };
const fakeModel = (state, listeners = []) => {
  const tell = (event, ...values) => listeners.forEach(([name, listener]) => name === event && listener(...values));
  return {
    get: (name) => state[name],
    set: (name, value) => { state[name] = value; tell(`change:${name}`); },
    on: (event, listener) => listeners.push([event, listener]),
    off: (event, listener) => { listeners = listeners.filter((pair) => pair[0] !== event || pair[1] !== listener); },
    save_changes: () => {},
    send: () => {},
    tell,
  };
};
window.explorers = states.map((state, index) => {
  const model = fakeModel(state);
  return { model, end: entry.default.render({ model, el: places[index], host }) };
});
