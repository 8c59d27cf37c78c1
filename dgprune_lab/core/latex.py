"""A tidy table as LaTeX."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping

from .border import public
from .errors import DgpruneError
from .exposure import Exposure, exposure_of, is_missing, scorer_exposure, strongest_exposure
from .kinds import Tidy
from .summary import chosen_rows, summary

_SIGNS = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_SIGNS |= {sign: f"\\{sign}" for sign in "&%$#_{}"}
_SIGNS |= {sign: f"{{{sign}}}" for sign in "[]*"} | {"`": r"\textasciigrave{}"}  # r"\\ [a]" and r"\\ *" have a meaning
_SIGNS |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "−": "$-$", "◇": r"$\diamond$"}
_ESCAPES = str.maketrans(_SIGNS)
_REDUNDANT = ("target_aware", "role")  # shown by the marks and by the domain
_AWARE, _SEEN, _UNKNOWN = r"$^{\diamond}$", r"$^{\dagger}$", r"$^{?}$"
_NOTES = {
    _AWARE: "Target-aware: scorer, fine-tuning or selection looked at a target; no measure of generalisation.",
    _SEEN: "Scorer, fine-tuning or selection looked at the reported images.",
    _UNKNOWN: "What scorer, fine-tuning or selection looked at is not recorded.",
}


@public
def latex(
    frame: Tidy,
    *,
    metric: str | Iterable[str] | None = None,
    domain: str | Iterable[str] | None = None,
    verdict: tuple[str, str] | None = None,
    caption: str | None = None,
    label: str | None = None,
) -> str:
    """Return a table as LaTeX (package booktabs): the columns that vary, each value with its 95 % interval, footnotes.

    The rows and columns are those of `summary`. A footnote marks what is target-aware; others name the BatchNorm
    setting and what the intervals are over. All text is escaped; letters beyond Latin need XeLaTeX or LuaLaTeX.

    Args:
        frame: a tidy table of this package.
        metric, domain, verdict: see `summary`.
        caption, label: with either, the tabular stands in a table environment.

    Raises:
        DgpruneError: a table without rows; a metric or domain that it does not hold.

    >>> row = {"domain": "a_b", "metric": "accuracy", "value": 0.9, "low": 0.85, "high": 0.94, "unit": "share"}
    >>> import dgprune_lab as dg
    >>> print(latex(dg.tidy([{**row, "target_aware": False}])).splitlines()[4])
    a\\_b & 90.0 \\% (85.0 to 94.0) \\\\
    """
    rows = chosen_rows(frame, metric=metric, domain=domain)
    if rows.empty:
        raise DgpruneError("frame has no rows, so there is nothing to print; check how it was selected.")
    table, records = summary(rows, verdict=verdict), rows.to_dict("records")
    head = [text for text in (table.columns.name, _intervals(records)) if text]
    dropped = [name for name in _REDUNDANT if name in table]
    if "metric" in table and table.metric.nunique() == 1:
        head, dropped = [f"Value: {table.metric[0]}", *head], [*dropped, "metric"]
    table = table.drop(columns=dropped)
    parts = rows.groupby("scorer", sort=False)
    scorers: dict[object, Exposure] = {name: scorer_exposure(part.to_dict("records")) for name, part in parts}
    lines, marks = [], []
    for record, (_, cells) in zip(records, table.iterrows(), strict=True):
        exposure, scorer = exposure_of(record), scorers.get(record.get("scorer"), "")
        if "scorer" not in cells or is_missing(cells["scorer"]):  # no cell for the scorer's mark
            exposure = strongest_exposure([exposure, scorer_exposure([record])])
        row_marks = {"value": _mark(exposure), "scorer": _mark(scorer)}
        marks += [row_marks[name] for name in row_marks if name in cells]
        lines.append([f"{_cell(name, value)}{row_marks.get(str(name), '')}" for name, value in cells.items()])
    heads = [_escaped(str(name).replace("_", " ")) for name in table.columns]
    body = [r"\begin{tabular}{" + "l" * len(heads) + "}", r"\toprule", _line(heads), r"\midrule"]
    body += [*map(_line, lines), r"\bottomrule", r"\end{tabular}"]
    notes = [f"{mark} {text}" for mark, text in _NOTES.items() if mark in marks]
    notes += [_escaped(f"{text}.") for text in head]
    body += [r"\par\smallskip", *(rf"{{\footnotesize {note}\par}}" for note in notes)] if notes else []
    if caption is None and label is None:
        return "\n".join(body) + "\n"
    title = rf"\caption{{{_escaped(caption or '')}}}"
    title += rf"\label{{{re.sub(r'[^A-Za-z0-9:.-]', '-', label)}}}" if label else ""
    return "\n".join([r"\begin{table}", r"\centering", title, *body, r"\end{table}"]) + "\n"


def _mark(exposure: Exposure) -> str:
    if exposure.startswith("target-aware"):
        return _AWARE
    return {"seen": _SEEN, "?": _UNKNOWN}.get(exposure, "")


def _intervals(records: Iterable[Mapping[Hashable, object]]) -> str:
    """Return what the intervals are over, as text."""
    texts = {"images": "images (bootstrap)", "seeds": "training seeds (t)", "range": "repeats (range, no interval)"}
    texts["draws"] = "random vectors (t)"
    present = [text for kind, text in texts.items() if any(record.get("interval") == kind for record in records)]
    return f"In brackets: 95 % intervals over {' or '.join(present)}" if present else ""


def _cell(name: Hashable, value: object) -> str:
    if is_missing(value):
        return ""
    text = _escaped(f"{value:.4g}" if isinstance(value, float) else str(value))
    return re.sub(r"(?<![\w.])-(?=\d)", "$-$", text) if name == "value" else text


def _line(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _escaped(text: str) -> str:
    return " ".join(text.translate(_ESCAPES).replace("--", "{-}{-}").split())
