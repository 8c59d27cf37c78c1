// The filter grid as an SVG: every layer, without the handles, in the colours of the light page on white.

import { cellShapes } from "./cells.js";

const EDGE = 12;
const HEAD = 44; // title and legend
const NAME = 21; // letters of a layer's name that have room beside its cells
const FONT = "system-ui, sans-serif";

// The methods of Path2D that cells use, written as the text of an SVG path; its arcs are full circles.
class SvgPath {
  text = "";
  add(...parts) {
    this.text += parts.map((part) => (typeof part === "number" ? Number(part.toFixed(2)) : part)).join(" ");
  }
  moveTo(x, y) {
    this.add("M", x, y);
  }
  lineTo(x, y) {
    this.add("L", x, y);
  }
  rect(x, y, width, height) {
    this.add("M", x, y, "h", width, "v", height, "h", -width, "z");
  }
  arc(x, y, radius) {
    for (const end of [x - radius, x + radius]) this.add("A", radius, radius, 0, 1, 1, end, y);
  }
}

// rows: as `cellShapes` takes them, each with `name` and `share` (text); `width`, `height` of the cells with their names.
export function gridSvg({ rows, title, notes, width, height, inks, paper }) {
  const shapes = cellShapes(rows, inks, () => new SvgPath()).filter(({ path }) => path.text);
  const drawn = shapes.map(({ path, fill, stroke, width: line }) =>
    `<path d="${path.text}" ${fill ? `fill="${fill}"` : `fill="none" stroke="${stroke}" stroke-width="${line}"`}/>`,
  );
  const names = rows.flatMap(({ name, share, top }) => [text(name.length > NAME ? `…${name.slice(1 - NAME)}` : name, 0, top + 12, { ink: inks.mark }), text(share, 0, top + 26, { ink: inks.words, size: 11 })]);
  const [wide, tall] = [Math.max(width, 6.2 * notes.length, 7 * title.length) + 2 * EDGE, height + HEAD + 2 * EDGE].map(Math.ceil);
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${wide}" height="${tall}" viewBox="0 0 ${wide} ${tall}">`,
    `<rect width="${wide}" height="${tall}" fill="${paper}"/><g transform="translate(${EDGE} ${EDGE})">`,
    text(title, 0, 13, { ink: inks.mark, weight: 600 }), text(notes, 0, 31, { ink: inks.words, size: 11 }),
    `<g transform="translate(0 ${HEAD})">`, ...drawn, ...names, "</g></g></svg>",
  ].join("\n");
}

function text(words, x, y, { ink, size = 12, weight = 400 }) {
  return `<text x="${x}" y="${y}" font-family="${FONT}" font-size="${size}" font-weight="${weight}" fill="${ink}">${escaped(words)}</text>`;
}

const escaped = (words) => String(words).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
