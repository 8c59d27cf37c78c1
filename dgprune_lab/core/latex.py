"""A tidy table, or a table of claims, as LaTeX."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping

import pandas as pd

from .border import public
from .claims import Claims, claim_texts
from .errors import DgpruneError
from .exposure import DIAMOND, Exposure, exposure_of, is_missing, scorer_exposure, strongest_exposure
from .kinds import Tidy
from .summary import chosen_rows, summary

_SIGNS = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_SIGNS |= {sign: f"\\{sign}" for sign in "&%$#_{}"}
_SIGNS |= {sign: f"{{{sign}}}" for sign in "[]*"} | {"`": r"\textasciigrave{}"}  # r"\\ [" and r"\\ *" begin an option
_SIGNS |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "−": "$-$", "◇": r"$\diamond$"}
_ESCAPES = str.maketrans(_SIGNS)
_REDUNDANT = ("target_aware", "role")  # the marks and the domain show these
_AWARE, _SEEN, _UNKNOWN = r"$^{\diamond}$", r"$^{\dagger}$", r"$^{?}$"
_NOTES = {
    _AWARE: "Target-aware: scorer, fine-tuning or selection looked at a target; no measure of generalisation.",
    _SEEN: "Scorer, fine-tuning or selection looked at the reported images.",
    _UNKNOWN: "What scorer, fine-tuning or selection looked at is not recorded.",
}
_CLAIM_NOTES = (
    "In brackets: 95 % intervals over training seeds, unless a note says otherwise",
    "Detectable: half of the interval; a smaller effect would not be significant",
)
_WIDTHS = {"claim": r"p{.3\linewidth}", "published": r"p{.15\linewidth}"}  # of columns of sentences


@public
def latex(
    frame: Tidy | Claims,
    *,
    metric: str | Iterable[str] | None = None,
    domain: str | Iterable[str] | None = None,
    verdict: tuple[str, str] | None = None,
    caption: str | None = None,
    label: str | None = None,
) -> str:
    """Return a table as LaTeX (package booktabs): the columns that vary, each value with its 95 % interval, footnotes.

    The rows and columns are those of `summary`. A footnote marks what is target-aware; others name the BatchNorm
    setting and what the intervals are over. All text is escaped; non-Latin letters need XeLaTeX or LuaLaTeX.
    A table of claims gives a row per claim: who makes it, what is published, our estimate and the verdict; notes on a
    claim are footnotes.

    Args:
        frame: a tidy table of this package, or a table of claims (`experiments.claims_table`).
        metric, domain, verdict: see `summary`; claims take none of them.
        caption, label: if either is given, the tabular is put into a table environment.

    Raises:
        DgpruneError: a table without rows; a metric or domain that it does not hold.

    >>> row = {"domain": "a_b", "metric": "accuracy", "value": 0.9, "low": 0.85, "high": 0.94, "unit": "share"}
    >>> import dgprune_lab as dg
    >>> print(latex(dg.tidy([{**row, "target_aware": False}])).splitlines()[4])
    a\\_b & 90.0 \\% (85.0 to 94.0) \\\\
    """
    if "metric" in frame:
        rows = chosen_rows(frame, metric=metric, domain=domain)
        heads, lines, notes = _tidy_parts(rows, verdict=verdict) if len(rows) else ([], [], [])
    elif metric is domain is verdict is None:
        heads, lines, notes = _claim_parts(frame)
    else:
        raise DgpruneError("a table of claims has neither metrics nor domains, and its own verdicts; choose its rows.")
    if not lines:
        raise DgpruneError("frame has no rows, so there is nothing to print; check how its rows were chosen.")
    columns = "".join(_WIDTHS.get(name, "l") for name in heads)
    body = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", _join_cells(map(_escape, heads)), r"\midrule"]
    body += [*map(_join_cells, lines), r"\bottomrule", r"\end{tabular}"]
    body += [r"\par\smallskip", *(rf"{{\footnotesize {note}\par}}" for note in notes)] if notes else []
    if caption is None and label is None:
        return "\n".join(body) + "\n"
    title = rf"\caption{{{_escape(caption or '')}}}"
    title += rf"\label{{{re.sub(r'[^A-Za-z0-9:.-]', '-', label)}}}" if label else ""
    return "\n".join([r"\begin{table}", r"\centering", title, *body, r"\end{table}"]) + "\n"


def _tidy_parts(rows: pd.DataFrame, *, verdict: tuple[str, str] | None) -> tuple[list[str], list[list[str]], list[str]]:
    """Return the column heads, the cells and the footnotes of a tidy table."""
    table, records = summary(rows, verdict=verdict), rows.to_dict("records")
    remarks = [text for text in (table.columns.name, _interval_note(records)) if text]
    dropped = [name for name in _REDUNDANT if name in table]
    if "metric" in table and table.metric.nunique() == 1:
        remarks, dropped = [f"Value: {table.metric[0]}", *remarks], [*dropped, "metric"]
    table = table.drop(columns=dropped)
    scorers: dict[object, Exposure] = {
        name: scorer_exposure(r for r in records if r.get("scorer") == name) for name in _scorer_names(records)
    }
    lines, marks = [], []
    for record, (_, cells) in zip(records, table.iterrows(), strict=True):
        exposure, scorer = exposure_of(record), scorers.get(record.get("scorer"), "")
        if "scorer" not in cells or is_missing(cells["scorer"]):  # no name to carry the scorer's mark
            exposure = strongest_exposure([exposure, scorer_exposure([record])])
        row_marks = {"value": _mark(exposure), "scorer": _mark(scorer)}
        marks += [row_marks[name] for name in row_marks if name in cells]
        lines.append([f"{_cell(name, value)}{row_marks.get(str(name), '')}" for name, value in cells.items()])
    notes = [f"{mark} {text}" for mark, text in _NOTES.items() if mark in marks]
    return [str(name).replace("_", " ") for name in table.columns], lines, notes + [_escape(f"{t}.") for t in remarks]


def _claim_parts(frame: pd.DataFrame) -> tuple[list[str], list[list[str]], list[str]]:
    """Return column heads, cells and footnotes of a table of claims; a claim carries the marks of its footnotes."""
    rows, marks = [], {}
    for row in frame.to_dict("records"):
        texts = {name: row.get(name) for name in ("table", "published", "verdict", "note")}
        cells = {name: _cell("value", text) for name, text in {**texts, **claim_texts(row)}.items()}
        row_marks = [marks.setdefault(_NOTES[_AWARE], _AWARE)] if str(row["claim"]).startswith(DIAMOND) else []
        if cells["note"]:
            number = 1 + len(marks.keys() - {_NOTES[_AWARE]})
            row_marks.append(marks.setdefault(cells["note"], f"$^{{{number}}}$"))
        cells["claim"] = _escape(str(row["claim"]).removeprefix(f"{DIAMOND} ")) + "".join(row_marks)
        rows.append(cells)
    order = ("table", "claim", "paper", "published", "seeds", "estimate", "detectable", "verdict")
    heads = [name for name in order if any(cells[name] for cells in rows)]
    notes = [f"{mark} {text}" for text, mark in marks.items()] + [_escape(f"{text}.") for text in _CLAIM_NOTES]
    return heads, [[cells[name] for name in heads] for cells in rows], notes


def _scorer_names(records: Iterable[Mapping[Hashable, object]]) -> set[object]:
    return {record["scorer"] for record in records if not is_missing(record.get("scorer"))}


def _mark(exposure: Exposure) -> str:
    if exposure.startswith("target-aware"):
        return _AWARE
    return {"seen": _SEEN, "?": _UNKNOWN}.get(exposure, "")


def _interval_note(records: Iterable[Mapping[Hashable, object]]) -> str:
    """Return a note on what the intervals are taken over, such as images or training seeds."""
    texts = {"images": "images (bootstrap)", "seeds": "training seeds (t)", "range": "repeats (range, no interval)"}
    texts["draws"] = "random vectors (t)"
    present = [text for kind, text in texts.items() if any(record.get("interval") == kind for record in records)]
    return f"In brackets: 95 % intervals over {' or '.join(present)}" if present else ""


def _cell(name: Hashable, value: object) -> str:
    if is_missing(value):
        return ""
    text = _escape(f"{value:.4g}" if isinstance(value, float) else str(value))
    return re.sub(r"(?<![\w.])-(?=\d)", "$-$", text) if name == "value" else text


def _join_cells(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _escape(text: str) -> str:
    return " ".join(text.translate(_ESCAPES).replace("--", "{-}{-}").split())
