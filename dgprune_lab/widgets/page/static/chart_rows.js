// The rows that a chart shows, as text for other programs. No DOM in here.

// Fields that only say how a mark is drawn.
const DRAWING = new Set(["colour", "line", "fill", "shape", "dash", "stretch", "opacity", "url"]);

// A comma-separated table (RFC 4180) of the rows behind the marks of a chart. `fed`: the rows of data that the page swaps.
export const csvOf = (spec, fed = {}) => csvText(rowsOf(spec, fed));

// Where there are several data sets, the first column names them.
export function csvText(all) {
  const sets = all.filter(({ rows }) => rows.length);
  const fields = [...new Set(sets.flatMap(({ rows }) => rows.flatMap(Object.keys)))].filter((field) => !DRAWING.has(field));
  const named = sets.length > 1;
  const head = named ? ["data", ...fields] : fields;
  const lines = sets.flatMap(({ name, rows }) =>
    rows.map((row) => [...(named ? [name] : []), ...fields.map((field) => row[field])]),
  );
  return [head, ...lines].map((line) => `${line.map(cell).join(",")}\r\n`).join("");
}

// The data sets that marks other than texts show; those of the texts where there is nothing else.
export function rowsOf(spec, fed = {}) {
  const sets = new Map();
  visit(spec, undefined, (data, mark) => {
    const { name, rows } = resolved(data, spec, fed);
    if (!isShown(mark) || !rows) return;
    const set = sets.get(name) ?? { name, rows, words: true };
    set.words &&= (mark.type ?? mark) === "text";
    sets.set(name, set);
  });
  const all = [...sets.values()];
  const drawn = all.filter((set) => !set.words);
  return (drawn.length ? drawn : all).map(({ name, rows }) => ({ name, rows }));
}

// A part of a specification without data of its own has those of the part around it.
function visit(part, outer, found) {
  if (!part || typeof part !== "object") return;
  const data = part.data === undefined ? outer : part.data;
  if (part.mark && data) found(data, part.mark);
  for (const field of ["layer", "hconcat", "vconcat", "concat"]) for (const inner of part[field] ?? []) visit(inner, data, found);
  visit(part.spec, data, found);
}

function resolved(data, spec, fed) {
  const name = data.name ?? "rows";
  const rows = fed[name] ?? data.values ?? spec.datasets?.[name];
  return { name, rows: Array.isArray(rows) ? rows.map((row) => (row && typeof row === "object" ? row : { value: row })) : null };
}

// Points of opacity 0 only hold an axis open.
const isShown = (mark) => mark.opacity !== 0;

// Text that a spreadsheet would take for a formula begins with an apostrophe.
export function cell(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "";
  if (typeof value !== "object" && typeof value !== "string") return String(value);
  const text = typeof value === "object" ? JSON.stringify(value) : value.replace(/^[=+\-@\t\r]/, "'$&");
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

// The rows of the filter grid; rank 1 is removed first.
export function filterRows({ plan, mask }) {
  const groups = mask ? plan.groups : [];
  return groups.flatMap(({ name, rank, score, index }, g) =>
    rank.map((place, f) => ({ layer: name, filter: index?.[f] ?? f, kept: Boolean(mask[g][f]), rank: place + 1, score: score[f] })),
  );
}

// A file name from a title: letters and digits of any script, in lower case.
export function fileName(title, ending) {
  const words = String(title ?? "").toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? ["chart"];
  return `${words.join("-").slice(0, 60)}.${ending}`;
}
