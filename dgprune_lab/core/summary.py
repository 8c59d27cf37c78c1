"""A short, readable form of a tidy table: the columns that vary, the value with its interval, a verdict."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any, NamedTuple, cast

import pandas as pd

from .border import public
from .errors import DgpruneError, unknown
from .exposure import DIAMOND, is_missing, scorer_exposure
from .kinds import Tidy
from .rounding import rounded
from .tables import COLUMNS, batchnorm_words

_ALWAYS = ("domain", "metric")
_HIDDEN = {"value", "low", "high", "unit", "interval", "images", *(name for name in COLUMNS if "seen_by" in name)}
# Metrics that are never below 0, so that an interval above 0 is no verdict.
_LEVELS = re.compile(
    r"(\w+_)?accuracy|loss|calibration_error|(changed|right_to_wrong|wrong_to_right)(_count)?|filters_differ|filters|"
    "parameters|macs|bytes|latency|conditional_mutual_information(_pgdl)?"
)
_NUMBERS = ("value", "low", "high")
_PERCENT = ("share", "%", "percent")
_COUNTS = ("count", "per image", "bytes")
_SETTINGS = ("scope", "budget", "split", "seed", "training_seed")  # empty where they do not apply
_FIXED = ("metric", "unit", "domain", "scorer", "network", "ratio_requested", "scope", "budget", "batchnorm", "split")
_RATIOS = {"ratio_requested": "removed", "ratio_achieved": "achieved"}
_INTERVALS = {"images": "over images", "seeds": "over training seeds", "runs": "over runs"}


@public
def summary(
    frame: Tidy,
    *,
    metric: str | Iterable[str] | None = None,
    domain: str | Iterable[str] | None = None,
    verdict: tuple[str, str] | None = None,
) -> pd.DataFrame:
    """Return a short table for reading: the columns that vary, each value with its 95 % interval, and a verdict.

    Args:
        frame: a tidy table of this package.
        metric, domain: keep only the rows of these metrics and domains; None keeps all.
        verdict: labels for an interval above 0 and for one below 0, such as ("better", "worse"); an interval
            that covers 0 is "not significant". None gives no verdicts; metrics that cannot be below 0, such as
            accuracy, loss and flips, never get one.

    Raises:
        DgpruneError: a metric or domain that the table does not hold.

    Returns:
        One line per row; the column `target_aware` is there if any row is target-aware. Values of the unit "share" are
        shown in percent; with `verdict` they are taken as differences and shown in percentage points. The column
        heading names the BatchNorm setting, where the network has BatchNorm.

    >>> rows = [{"domain": "a", "metric": "difference", "value": 0.02, "low": 0.01, "high": 0.03, "unit": "share"}]
    >>> summary(pd.DataFrame(rows), verdict=("better", "worse")).to_dict("records")
    [{'domain': 'a', 'metric': 'difference', 'value': '+2.0 points (+1.0 to +3.0)', 'verdict': 'better'}]
    """
    frame = chosen_rows(frame, metric=metric, domain=domain)
    names = [
        name
        for name, column in frame.items()
        if name not in _HIDDEN
        and column.notna().any()
        and (name in _ALWAYS or column.nunique(dropna=name in _SETTINGS) > 1 or _is_aware(str(name), column))
    ]
    rows = frame.to_dict("records")
    table = cast(pd.DataFrame, frame[names]).reset_index(drop=True).rename(columns=_RATIOS)
    for name in (name for name in _RATIOS.values() if name in table.columns):
        table[name] = ["" if is_missing(ratio) else f"{100 * ratio:.4g} %" for ratio in table[name]]
    table["value"] = [_number(row, sign=verdict is not None and not _is_level(row)) for row in rows]
    if verdict is not None:
        table["verdict"] = ["" if _is_level(row) else _verdict(row, *verdict) for row in rows]
    table.columns.name = batchnorm_words(row.get("batchnorm") for row in rows) or None
    return table


class Answer(NamedTuple):
    """Answer to "which is highest?".

    Attributes:
        choice: the name with the highest value, or the lowest if that was asked for.
        sentence: every name with its value and interval, and whether the intervals leave the order open.
    """

    choice: str
    sentence: str


@public
def answer(
    frame: Tidy,
    *,
    of: str,
    metric: str | Iterable[str] | None = None,
    domain: str | Iterable[str] | None = None,
    lowest: bool = False,
) -> Answer:
    """Return which scorer, domain or other choice has the highest value, with the numbers in a sentence.

    Args:
        frame: a tidy table of this package.
        of: column that holds the choices, such as "scorer" or "domain"; one row for each of them.
        metric, domain: keep only the rows of these metrics and domains; None keeps all.
        lowest: whether the lowest value is wanted.

    Returns:
        The choice, and a sentence with all values in order, which also says whose intervals overlap the first one's:
        the numbers do not decide between those choices. Target-aware rows have a ◇.

    Raises:
        DgpruneError: an unknown column, metric or domain; fewer than two values; an infinite number; several rows of
            one choice; rows that differ in their metric, unit, domain, scorer, network, ratio or a setting other than
            `of`.

    >>> rows = [{"domain": d, "metric": "accuracy", "value": v, "unit": "share"} for d, v in (("a", 0.9), ("b", 0.5))]
    >>> answer(pd.DataFrame(rows), of="domain", lowest=True)
    Answer(choice='b', sentence='b 50.0 %, a 90.0 %.')
    """
    frame = chosen_rows(frame, metric=metric, domain=domain)
    choices = [str(name) for name in frame.columns if name not in _NUMBERS]
    if of not in choices:
        raise unknown("column of choices", of, choices)
    rows = [row for row in frame.to_dict("records") if not is_missing(row["value"]) and not is_missing(row[of])]
    if names := [str(row[of]) for row in rows if any(map(_is_infinite, map(row.get, _NUMBERS)))]:
        raise DgpruneError(
            f"frame holds an infinite number for {names[0]!r}; leave it out: frame[frame[{of!r}] != {names[0]!r}]."
        )
    count = len({str(row[of]) for row in rows})
    table: Any = pd.DataFrame(rows)
    mixed = [name for name in _FIXED if name != of and name in table and table[name].nunique() > 1]
    if count < 2 or count < len(rows) or mixed:
        raise DgpruneError(
            f"frame must hold two or more choices in the column {of!r}, one row for each and all else alike; got "
            f"{len(rows)} rows of {count}{f', with several values of {mixed[0]!r}' if mixed else ''}. Choose the rows "
            "by metric=, domain= or frame.query(...)."
        )
    first, *others = sorted(rows, key=lambda row: row["value"], reverse=not lowest)
    texts = [
        f"{row[of]}{f' {DIAMOND}' * (scorer_exposure([row]) == 'target-aware')} {_number(row, sign=not _is_level(row))}"
        for row in (first, *others)
    ]
    units = [text for name, text in _INTERVALS.items() if name in {row.get("interval") for row in rows}]
    setting = batchnorm_words(row.get("batchnorm") for row in rows)
    context = "; ".join(filter(None, [f"95 % intervals {' and '.join(units)}" if units else "", setting]))
    sentence = f"{', '.join(texts)}{f' ({context})' if context else ''}."
    if close := [str(row[of]) for row in others if _overlap(first, row)]:
        sentence += f" The interval of {first[of]} overlaps with that of {' and '.join(close)}: their order is open."
    return Answer(str(first[of]), sentence)


def _is_infinite(value: object) -> bool:
    return isinstance(value, float) and math.isinf(value)


def _overlap(first: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether two intervals have a point in common; without intervals, whether the values are equal."""
    ends = [
        [row["value"] if is_missing(row.get(end)) else row[end] for end in ("low", "high")] for row in (first, other)
    ]
    return max(ends[0][0], ends[1][0]) <= min(ends[0][1], ends[1][1])


def chosen_rows(
    frame: pd.DataFrame, *, metric: str | Iterable[str] | None, domain: str | Iterable[str] | None
) -> pd.DataFrame:
    """Return the rows of these metrics and domains; None takes all.

    Raises:
        DgpruneError: a metric or domain that the table does not hold.
    """
    for column, names in (("metric", metric), ("domain", domain)):
        if names is not None:
            chosen, present = [names] if isinstance(names, str) else list(names), set(frame[column].dropna())
            if not chosen:
                raise DgpruneError(f"{column} must name what to keep; got an empty list. None keeps all.")
            if absent := [name for name in chosen if name not in present]:
                raise unknown(column, absent[0], sorted(present))
            frame = cast(pd.DataFrame, frame[frame[column].isin(chosen)])
    return frame


def _is_aware(name: str, column: pd.Series) -> bool:
    """Return whether the column marks target-aware rows; such a column is shown even if it marks all rows."""
    return name == "target_aware" and bool(column.eq(True).any())


def _is_level(row: dict[str, Any]) -> bool:
    return _LEVELS.fullmatch(str(row.get("metric"))) is not None


def _number(row: dict[str, Any], *, sign: bool) -> str:
    value, unit = row["value"], row.get("unit")
    if is_missing(value):
        return "-"
    scale, suffix = (100, " points" if sign else " %") if unit in _PERCENT else (1, "")
    scale = 1 if unit in ("%", "percent") else scale  # already in percent
    numbers: list[Any] = [cell for cell in (value, row.get("low"), row.get("high")) if not is_missing(cell)]
    cells = [scale * cell for cell in numbers]
    if unit in _COUNTS and float(value).is_integer():
        decimals = 0
    else:
        decimals = _decimals(cells, sign=sign) if unit in _PERCENT else None
    value, *ends = (_format_number(cell, decimals, sign=sign) for cell in cells)
    return f"{value}{suffix} ({ends[0]} to {ends[1]})" if len(ends) == 2 else f"{value}{suffix}"


def _decimals(cells: list[float], *, sign: bool) -> int:
    """Return the number of decimals: 1, or up to 3 for differences, so that only 0 is shown as 0."""
    limit = 3 if sign else 1
    return next((d for d in range(1, limit) if all(rounded(cell, d) or not cell for cell in cells)), limit)


def _format_number(cell: float, decimals: int | None, *, sign: bool) -> str:
    """Return a number with this many decimals, or with three significant digits; 0 has no sign."""
    places = decimals
    if places is None:
        places = min(2 - math.floor(math.log10(abs(cell))), 300) if cell and math.isfinite(cell) else 0
    cell = rounded(cell, places)
    return f"{cell:{'+' if sign and cell else ''}{'.3g' if decimals is None else f',.{decimals}f'}}"


def _verdict(row: dict[str, Any], above: str, below: str) -> str:
    low, high = row.get("low"), row.get("high")
    if low is None or high is None or low != low or high != high:
        return "no interval"
    return above if low > 0 else below if high < 0 else "not significant"
