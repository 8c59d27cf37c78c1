// Hands a file to the browser's downloads.

import { node } from "./elements.js";

export function saveBlob(blob, name) {
  const url = URL.createObjectURL(blob);
  node("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000); // a browser may ask first where to
}
