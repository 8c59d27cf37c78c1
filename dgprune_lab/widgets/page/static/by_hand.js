// Layers and filters that are set by hand, as values: {layers: {layer: ratio}, forced: {remove, keep: {layer: [filter]}}}.

const sorted = (object) => Object.entries(object).sort(([a], [b]) => (a < b ? -1 : 1));

// In the order that Python writes, for keys.
export function byHand({ layers = {}, forced = {} }) {
  const lists = (filters = {}) => sorted(filters).filter(([, list]) => list.length).map(([layer, list]) => [layer, [...list].sort((a, b) => a - b)]);
  return [sorted(layers ?? {}), lists(forced?.remove), lists(forced?.keep)];
}

// The own ratios after a change {layer: ratio, or null to follow the main slider again}.
export const withLayers = (layers, change) => Object.fromEntries(Object.entries({ ...layers, ...change }).filter(([, ratio]) => ratio !== null));

// The forced filters after `cells` [{group, filter}] are to "remove", "keep", or left to the "score".
export function withForced(forced, cells, to) {
  const sets = { remove: {}, keep: {} };
  for (const kind of ["remove", "keep"]) for (const [layer, list] of Object.entries(forced?.[kind] ?? {})) sets[kind][layer] = new Set(list);
  for (const { group, filter } of cells) {
    for (const kind of ["remove", "keep"]) sets[kind][group]?.delete(filter);
    if (to in sets) (sets[to][group] ??= new Set()).add(filter);
  }
  const listed = (kind) => Object.fromEntries(sorted(sets[kind]).filter(([, set]) => set.size).map(([layer, set]) => [layer, [...set].sort((a, b) => a - b)]));
  return { remove: listed("remove"), keep: listed("keep") };
}

// Whether a layer is meant by what was typed: a part of its name, or a pattern with "*" for any text.
export function isMeant(name, typed) {
  const wanted = typed.trim();
  if (!wanted.includes("*")) return name.includes(wanted);
  const parts = wanted.split("*").map((part) => part.replace(/[.+?^${}()|[\]\\]/g, "\\$&"));
  return new RegExp(`^${parts.join(".*")}$`).test(name);
}

// How many of `filters` stay when a layer has its own ratio, as in `dg.allocate`.
export const keptAt = (filters, ratio) => Math.max(1, filters - Math.floor(ratio * filters + 1e-9));

// What a plan without `choice`'s own ratios and forced filters shows of them, until Python has sent the plan with them.
export function previewed(plan, kept, choice) {
  const names = plan.groups.map(({ name }) => name);
  const own = (g) => choice.layers?.[names[g]];
  const counts = kept.map((count, g) => (own(g) === undefined ? count : keptAt(plan.groups[g].rank.length, own(g))));
  const mask = plan.groups.map(({ rank }, g) => rank.map((r) => (r >= rank.length - counts[g] ? 1 : 0)));
  for (const [kind, keeps] of [["remove", 0], ["keep", 1]])
    for (const [layer, list] of Object.entries(choice.forced?.[kind] ?? {})) {
      const g = names.indexOf(layer);
      for (const filter of list) {
        const f = plan.groups[g]?.index ? plan.groups[g].index.indexOf(filter) : filter;
        if (mask[g]?.[f] !== undefined) mask[g][f] = keeps;
      }
    }
  return mask;
}
