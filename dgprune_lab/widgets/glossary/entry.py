"""One word of the glossary as a notebook shows it."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

from . import pictures, pictures_of_training

PICTURES = {**pictures.PICTURES, **pictures_of_training.PICTURES}
STYLE = """<style>
.dg-words { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 520px), 1fr)); gap: 18px 28px; }
.dg-word { --dg-source: #0072B2; --dg-target: #D55E00; display: flex; flex-wrap: wrap; gap: 4px 18px; max-width: 860px;
  font-family: system-ui, sans-serif; }
[data-jp-theme-light="false"] .dg-word, .vscode-dark .dg-word { --dg-source: #5FB0E5; --dg-target: #F5955A; }
.dg-word svg { flex: none; width: 240px; height: 120px; overflow: visible; }
.dg-word > div { flex: 1 1 200px; min-width: 0; font-size: 14px; line-height: 1.4; }
.dg-word p { margin: 0 0 5px; }
.dg-word code { font-size: 13px; background: none; padding: 0; color: inherit; }
</style>"""


@dataclass(frozen=True, kw_only=True, repr=False)
class Entry:
    """One word of the glossary.

    Attributes:
        word: the word.
        text: what it means, in plain words.
        formula: one formula, or "".
        where: where it stands in code.
    """

    word: str
    text: str
    formula: str = ""
    where: str

    @property
    def picture(self) -> str:
        """The picture as an SVG element for a light and a dark page; its colours are in `STYLE`."""
        label = html.escape(f"Picture: {self.word}", quote=True)
        return f'<svg viewBox="0 0 200 100" role="img" aria-label="{label}">{PICTURES[self.word]()}</svg>'

    def html(self) -> str:
        """Return picture and words, without the style."""
        formula = f"<p><code>{html.escape(self.formula)}</code></p>" if self.formula else ""
        explanation = f"<p><strong>{html.escape(self.word)}</strong></p><p>{html.escape(self.text)}</p>{formula}"
        code = f"<p>In code: <code>{html.escape(self.where)}</code></p>"
        return f'<div class="dg-word">{self.picture}<div>{explanation}{code}</div></div>'

    def __repr__(self) -> str:
        return "\n".join(filter(None, [f"{self.word}: {self.text}", self.formula, f"In code: {self.where}"]))

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/html": STYLE + self.html(), "text/plain": repr(self)}
