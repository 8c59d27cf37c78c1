"""The table of pinned views: size and accuracy of each, and its difference from the present view."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from ...charts.sweep import ACCURACY
from ...charts.theme import domain_styles_of, points_text, records
from ...core import DIAMOND, BatchNorm, Exposure, Mask, Outcomes, exposure_of, percent, whole_percent
from ...diagnostics.drop import accuracy_change
from ...study import Study
from .frames import AGREEMENT, SPLIT

LETTERS = "abc"
OUTDATED = " (its scorer has changed since)"
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Pinned:
    """One view, measured on all images.

    Attributes:
        choices: the state of the controls.
        key: identifies the view among those of an explorer; plain values.
        label: scorer and ratio, in words.
        table: the table of its frame.
        mask: the filters that stay, in the indices of the full network.
        outcomes: domain -> the outcomes behind the accuracies of the table.
        scorer: identifies the function or the scores that ranked the filters when this was last looked at.
        outdated: whether the scorer of that name removes other filters by now; the label says so.
    """

    choices: Mapping[str, Any]
    key: Sequence[Any]
    label: str
    table: pd.DataFrame
    mask: Mask
    outcomes: Mapping[str, Outcomes]
    scorer: str = ""
    outdated: bool = False

    def ranked_again(self, mask: Mask, *, scorer: str) -> Pinned:
        """Return the pin with the label that it has where the scorer of its name was replaced and gives this mask."""
        outdated = mask.key != self.mask.key
        label = self.label.removesuffix(OUTDATED) + OUTDATED * outdated
        return replace(self, scorer=scorer, outdated=outdated, label=label)


def outcome_steps(
    study: Study, mask: Mask, *, batchnorm: BatchNorm, images: int | None, calibration: int
) -> Generator[int, None, dict[str, Outcomes]]:
    """Return the outcomes behind a frame, by domain; they come from the study's cache right after it was measured.

    Yields the number of images after each batch; the arguments are those of `measure_frame`.
    """
    outcomes: dict[str, Outcomes] = {}
    for domain in study.domains:
        run = {"domain": domain.name, "split": SPLIT, "images": images}
        outcomes[domain.name] = yield from study.steps(mask, **run, batchnorm=batchnorm, calibration=calibration)
    return outcomes


def pin_rows(pins: Sequence[Pinned], now: Pinned | None) -> list[Row]:
    """Return the rows of the table of pins, for the page.

    `cells` has, per domain, the accuracy in percent with its 95 % interval over images (without labels: the agreement
    with the full network), and `difference`: accuracy of the pin minus that of the present view, in points, paired by
    image. `differs` is the number of filters that one of both keeps and the other removes, divided by the number of
    filters that can be removed. Both are empty where the present view is not measured (`now` is None); `against` is its
    key.
    """
    return [_pin_row(letter, pin, now) for letter, pin in zip(LETTERS, pins, strict=False)]


def pins_frame(rows: Sequence[Row]) -> pd.DataFrame:
    """Return the same rows as a table to read, indexed by the letter of the pin; it is empty without pins."""
    table = []
    for row in rows:
        cells: Row = {"choice": row["label"], "filters removed": row["removed"], "parameters left": row["parameters"]}
        for cell in row["cells"]:
            name, marked = cell["domain"], f" {DIAMOND}" if cell["target_aware"] else ""
            cells |= {f"{name}, {cell['metric']} (%)": cell["text"] + marked, f"{name}, difference": cell["difference"]}
        table.append({**cells, "filters that differ": row["differs"]})
    return pd.DataFrame(table, index=pd.Index([row["letter"] for row in rows], name="pin", dtype=object))


def _pin_row(letter: str, pin: Pinned, now: Pinned | None) -> Row:
    left, full = pin.mask.cost, pin.mask.graph.full
    return {
        "letter": letter,
        "label": pin.label,
        "filters": left.filters,
        "removed": share_words(1 - left.filters / full.filters),
        "parameters": share_words(left.parameters / full.parameters),
        "cells": _cells(pin, now),
        "differs": "" if now is None else share_words(_filters_that_differ(pin.mask, now.mask)),
        "choice": dict(pin.choices),
        "against": None if now is None else list(now.key),
    }


def _cells(pin: Pinned, now: Pinned | None) -> list[Row]:
    """The cells of a row, one per domain, with the difference from the present view."""
    cells = []
    for cell in accuracy_cells(pin.table):
        name = cell["domain"]
        change = None if now is None else accuracy_change(pin.outcomes[name], now.outcomes[name])
        cells.append({**cell, "difference": _points(change)})
    return cells


def accuracy_cells(table: pd.DataFrame) -> list[Row]:
    """Return a cell per domain; `text` is its accuracy with its interval in percent, without labels the agreement."""
    styles, cells = domain_styles_of(table), []
    for row in records(table):
        if row["metric"] not in (ACCURACY, AGREEMENT):
            continue
        name, exposure = str(row["domain"]), exposure_of(row)
        value, low, high = (whole_percent(row[column]) for column in ("value", "low", "high"))
        text = {"text": f"{value} ({low}\N{EN DASH}{high})", "metric": row["metric"], "exposure": _words(exposure)}
        cell = {"domain": name, "role": row["role"], "colour": styles[name].colour, **text}
        cells.append({**cell, "target_aware": exposure.startswith("target")})
    return cells


def _points(change: tuple[float, float, float] | None) -> str:
    """A difference with its interval, "+2 (−1 to +4)"; empty for None."""
    if change is None:
        return ""
    value, low, high = (points_text(100 * end) for end in change)
    return f"{value} ({low} to {high})"


def _words(exposure: Exposure) -> str:
    """What was looked at of a domain, in words; empty for nothing."""
    return "data use not recorded" if exposure == "?" else exposure


def _filters_that_differ(mask: Mask, other: Mask) -> float:
    """Share of all filters that one of two masks keeps and the other removes."""
    return sum(int((keep ^ other.keep[name]).sum()) for name, keep in mask.keep.items()) / max(mask.graph.free, 1)


def share_words(share: float) -> str:
    """Return a share in percent, without decimals."""
    return percent(share, decimals=0)
