"""Is one choice better than another? Differences paired by training seed, from the table of an experiment."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..core import COLUMNS, SEEN, DgpruneError, Tidy, is_missing, note, public, tidy, unknown
from ..stats import PAIRED, difference_row, with_holm

EXTRA = ("baseline", "pairs", "missing", *PAIRED)
MEASURED = {"metric", "value", "low", "high", "interval", "images", "ratio_achieved", "run", *SEEN, "target_aware"}
"""Columns that are neither settings nor seeds of a run."""
_MOST_LISTED = 4

Row = dict[str, Any]
Codes = tuple[int, ...]
"""One number per setting of a row, numbering its values by order of appearance; -1 where the setting is empty."""


@public
def compare(
    frame: Tidy,
    *,
    baseline: str | bool | float,
    of: str = "scorer",
    metric: str = "accuracy",
    over: str = "ratio_requested",
    by: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Return the mean difference of every other choice from the baseline, paired by training seed.

    For each value of the column `of` and each group of equal settings (domain, ratio, ...): the mean over training
    seeds of value - baseline's value, with the 95 % t interval of paired differences. Above 0 the value is higher. A
    setting that is empty on one side (such as the scope of "dense") does not apply to that side and need not agree.

    Args:
        frame: table with a row per run and domain, such as `Results.table()`.
        baseline: the value of `of` with which the others are compared.
        of: column that holds the choices.
        metric: the metric that is compared.
        over: column over whose values the p-values are adjusted (Holm 1979).
        by: columns that must agree within a pair, besides `domain` and `over`; None for all that vary and are
            neither seeds nor results.

    Returns:
        A tidy table of metric "difference", in the unit of the metric. Further columns: `baseline`, `seeds` (the
        training seeds) and `pairs` (how many), `missing` (training seeds that one side lacks),
        `minimum_detectable_effect` (half the width of the interval: a mean closer to 0 is not significant), `p_value`
        (paired t test) and `p_holm`. `seen_by_*` and `target_aware` hold the most that either side has seen.

    Raises:
        DgpruneError: an unknown column, metric or baseline; a value that is not a finite number; a row without a
            training seed, or only one seed; several rows for one side of a pair; no pair.
    """
    rows = _select_rows(frame, metric, [of, over, "training_seed", *(by or ())])
    varied = (name for name in settings_of(rows) if len(set(_codes(rows[name])[0])) > 1)
    names = [name for name in (varied if by is None else by) if name not in (of, "domain", over)]
    table = _Table(rows, of, ["domain", over, *dict.fromkeys(names)])
    if baseline not in table.sides:
        raise unknown(of, baseline, map(str, table.sides))
    differences, notes = [], []
    for value in table.sides:
        if value != baseline:
            new_rows, messages = table.differences(value, baseline)
            differences, notes = [*differences, *new_rows], [*notes, *messages]
    if not differences:
        raise DgpruneError(f"no {of} can be compared with {baseline!r}: {_join(notes) or f'there is no other {of}'}.")
    if notes:
        note(f"compared with {baseline!r}: {_join(notes)}.")
    families: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in differences:
        families[tuple(str(row[name]) for name in (of, *table.names) if name != over)].append(row)
    adjusted = [row for family in families.values() for row in with_holm(family)]
    return tidy(adjusted, extra=[*(name for name in (of, *table.names) if name not in COLUMNS), *EXTRA])


class _Entry(NamedTuple):
    """One row: the codes of its settings, its training seed and its cells."""

    codes: Codes
    seed: int
    row: Row


_Side = Sequence[_Entry]


class _Table:
    """The rows of a table, grouped by choice, and the settings in which they may differ.

    Attributes:
        names: the columns that hold the settings.
        sides: choice -> its rows.
    """

    def __init__(self, rows: Any, of: str, names: Sequence[str]) -> None:
        self.names, self.sides = names, defaultdict[Any, list[_Entry]](list)
        coded = [_codes(rows[name]) for name in names]
        self._values = [values for _, values in coded]
        columns = dict.fromkeys((of, *names, *COLUMNS))
        filled = [name for name in columns if name in rows.columns and rows[name].notna().any()]
        settings = zip(*(codes for codes, _ in coded), strict=True)
        for codes, seed, row in zip(settings, rows["training_seed"], rows[filled].to_dict("records"), strict=True):
            if not is_missing(row[of]):
                self.sides[row[of]].append(_Entry(codes, int(seed), row))

    def differences(self, value: Any, baseline: Any) -> tuple[list[Row], list[str]]:
        """Return the rows of one choice's differences from the baseline, and messages on what could not be paired."""
        mine, theirs = self.sides[value], self.sides[baseline]
        pairs = self._pairs(mine, theirs)
        if not pairs:
            return [], [f"{value} has no partner{self._describe_conflict(mine, theirs)}"]
        rows, unpaired, expected = [], [], defaultdict[Codes, set[int]](set)
        for name, side in ((value, mine), (baseline, theirs)):
            indices = _used_settings(side)
            seeds = defaultdict[Codes, set[int]](set)
            for entry in side:
                seeds[_select(entry.codes, indices)].add(entry.seed)
            for group in pairs:
                expected[group] |= seeds[_select(group, indices)]
            paired = {_select(group, indices) for group in pairs}
            alone = (codes for codes in seeds if codes not in paired)
            unpaired += [f"{value}: {name} has no partner at {self._describe(indices, codes)}" for codes in alone]
        for group, by_seed in pairs.items():
            missing = ", ".join(str(seed) for seed in sorted(expected[group] - set(by_seed)))
            label = f"{value} at {self._describe(range(len(group)), group)}"
            unpaired += [f"{label}: training seed {missing} is on one side only"] if missing else []
            if len(by_seed) < 2:
                unpaired.append(f"{label}: one pair gives no interval")
                continue
            row = difference_row([(str(seed), *by_seed[seed]) for seed in sorted(by_seed)])
            draws = {str(first.get("seed")) for first, _ in by_seed.values()}
            settings = {
                name: self._value(k, code) for k, (name, code) in enumerate(zip(self.names, group, strict=True))
            }
            settings |= {"seed": None} if len(draws) > 1 else {}
            rows.append({**row, **settings, "baseline": baseline, "pairs": len(by_seed), "missing": missing})
        return rows, unpaired

    def _pairs(self, mine: _Side, theirs: _Side) -> dict[Codes, dict[int, tuple[Row, Row]]]:
        """Return group of settings -> training seed -> the two rows."""
        used = set(_used_settings(mine))
        shared = sorted(used & set(_used_settings(theirs)))
        partners = defaultdict[tuple[Codes, int], list[_Entry]](list)
        for entry in theirs:
            partners[_select(entry.codes, shared), entry.seed].append(entry)
        pairs = defaultdict[Codes, dict[int, tuple[Row, Row]]](dict)
        for codes, seed, row in mine:
            for partner in partners.get((_select(codes, shared), seed), ()):
                group = tuple(a if k in used else b for k, (a, b) in enumerate(zip(codes, partner.codes, strict=True)))
                if seed in pairs[group]:
                    raise DgpruneError(
                        f"training seed {seed} has several rows at {self._describe(range(len(group)), group)}, so its "
                        "pairs are ambiguous; compare part of the table, or name in by= the column that differs."
                    )
                pairs[group][seed] = row, partner.row
        return pairs

    def _value(self, index: int, code: int) -> Any:
        return self._values[index][code] if code >= 0 else None

    def _describe(self, indices: Sequence[int], codes: Codes) -> str:
        cells = zip(indices, codes, strict=True)
        return ", ".join(f"{self.names[k]} {self._value(k, code)}" for k, code in cells if code >= 0)

    def _describe_conflict(self, mine: _Side, theirs: _Side) -> str:
        """Name the settings in which two sides never agree, as the end of a sentence."""
        parts = []
        for k in sorted(set(_used_settings(mine)) & set(_used_settings(theirs))):
            first, second = ({entry.codes[k] for entry in side} for side in (mine, theirs))
            if not first & second:
                parts.append(f"{self.names[k]} ({self._value(k, min(first))} against {self._value(k, min(second))})")
        return f": they differ in {' and '.join(parts)}; by= names the columns that must agree" if parts else ""


def check_columns(frame: pd.DataFrame, names: Iterable[str]) -> None:
    """Refuse a table that lacks one of these columns."""
    for name in names:
        if name not in frame.columns:
            raise unknown("column", name, map(str, frame.columns))


def _select_rows(frame: pd.DataFrame, metric: str, columns: Sequence[str]) -> Any:
    """Return the rows of one metric; refuse those that cannot be paired."""
    check_columns(frame, columns)
    rows: Any = frame[frame["metric"] == metric].reset_index(drop=True)
    if rows.empty:
        raise unknown("metric", metric, map(str, dict.fromkeys(frame["metric"])))
    numbers: Any = pd.to_numeric(rows["value"], errors="coerce")
    if wrong := int((~np.isfinite(numbers.astype("float64"))).sum()):
        raise DgpruneError(
            f"{wrong} of {len(rows)} rows of {metric} hold no finite value; leave those runs out, or run them again."
        )
    if without := int(rows["training_seed"].isna().sum()):
        raise DgpruneError(
            f"{without} of {len(rows)} rows of {metric} have no training_seed, by which rows are paired; name the "
            "training of each network in this column."
        )
    if rows["training_seed"].nunique() < 2:
        raise DgpruneError(
            f"frame holds one training seed, {rows['training_seed'][0]}, and an interval over training seeds needs two "
            "or more; run the experiment with more seeds."
        )
    return rows


def settings_of(rows: pd.DataFrame) -> list[str]:
    """Return the columns that are neither results nor seeds."""
    return [str(name) for name in rows.columns if name not in MEASURED and not str(name).endswith("seed")]


def _codes(column: Any) -> tuple[list[int], list[Any]]:
    """Return the code of each cell, numbered by order of appearance (-1 where empty), and the values."""
    codes, values = pd.factorize(
        column.map(lambda cell: tuple(cell) if isinstance(cell, list) else cell).astype(object)
    )
    return codes.tolist(), list(values)


def _used_settings(side: _Side) -> list[int]:
    """Return the indices of the settings that at least one row of a side has."""
    return [k for k in range(len(side[0].codes)) if any(entry.codes[k] >= 0 for entry in side)]


def _select(codes: Codes, indices: Sequence[int]) -> Codes:
    return tuple(codes[k] for k in indices)


def _join(texts: Sequence[str]) -> str:
    more = len(texts) - _MOST_LISTED
    return "; ".join(texts[:_MOST_LISTED]) + (f"; and {more} more" if more > 0 else "")
