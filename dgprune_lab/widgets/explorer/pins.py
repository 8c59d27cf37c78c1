"""Pinned views: at most three, compared with the present view in a table of their size and accuracy."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from ...charts.drop import drop_rows
from ...charts.sweep import ACCURACY
from ...charts.theme import domain_styles_of, points_text, records
from ...core import DIAMOND, BatchNorm, Exposure, Lock, Mask, Outcomes, exposure_of, note, percent, whole_percent
from ...diagnostics.drop import accuracy_change
from ...scorers import Scorer
from ...study import Study, fingerprint
from ..panels.protocol import Row
from .choices import Choices, as_lists, frame_key
from .frames import AGREEMENT, SPLIT
from .history import entry_of
from .measurements import Measurements

LETTERS = "abc"
MOST = len(LETTERS)
OUTDATED = " (its scorer has changed since)"


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
        scorer: identifies the function or the scores that ranked the filters when this was last checked.
        outdated: whether the scorer of that name now removes other filters; the label says so.
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
        """Return the pin for a replaced scorer that gives this mask; with another mask it is labelled as outdated."""
        outdated = mask.key != self.mask.key
        label = self.label.removesuffix(OUTDATED) + OUTDATED * outdated
        return replace(self, scorer=scorer, outdated=outdated, label=label)


class PinBoard:
    """The pinned views of an explorer, with what was measured of them."""

    def __init__(self) -> None:
        self._pins: list[tuple[Choices, Pinned]] = []
        self._now: Pinned | None = None
        self._lock = Lock()

    def __iter__(self) -> Iterator[tuple[Choices, Pinned]]:
        return iter(list(self._pins))

    @property
    def is_full(self) -> bool:
        """Whether as many views are pinned as can be."""
        return len(self._pins) >= MOST

    def add(self, measurements: Measurements, view: Choices) -> Generator[Any, None, None]:
        """Pin a measured view if it is not pinned yet; yields between batches if its outcomes are not cached."""
        if letter := self.letter_of(measurements, view):
            note(f"this view is pinned already, as {letter}.")
            return
        pinned = yield from _pinned(measurements, view)
        if pinned is not None and not self.is_full:
            with self._lock:
                self._pins = [*self._pins, (view, pinned)]

    def letter_of(self, measurements: Measurements, view: Choices) -> str | None:
        """Return the letter under which a view is pinned with its present numbers; None if it is not."""
        frame = measurements.exact(view)
        if frame is None or frame.mask is None:
            return None
        for letter, (_, pin) in zip(LETTERS, self, strict=False):
            if pin.key == _key(view) and pin.mask.key == frame.mask.key and pin.table.equals(frame.table):
                return letter
        return None

    def remove(self, *numbers: Any) -> None:
        """Remove these pins, or all of them without a number."""
        with self._lock:
            self._pins = [pin for k, pin in enumerate(self._pins) if numbers and k not in numbers]

    def compare(self, measurements: Measurements, view: Choices) -> Generator[Any, None, None]:
        """Make a view the present one, with which any pins are compared.

        Pins by a scorer of the same name that removes other filters by now say so.
        """
        self._rank_again(measurements, view)
        self._now = (yield from _pinned(measurements, view)) if self._pins else None

    def _rank_again(self, measurements: Measurements, view: Choices) -> None:
        """Update the pins with the scorer and step of a view, whose scores are known, if the scorer was replaced."""
        fresh: dict[int, Pinned] = {}
        for at, pin in self:
            if (at["scorer"], at.get("step", 0)) == (view["scorer"], view.get("step", 0)):
                scorer = _scorer(measurements, at)
                if scorer != pin.scorer:
                    mask = measurements.full_mask(measurements.mask(at))
                    fresh[id(pin)] = pin.ranked_again(mask, scorer=scorer)
        with self._lock:
            self._pins = [(at, fresh.get(id(pin), pin)) for at, pin in self._pins]

    def rows(self, measurements: Measurements) -> list[Row]:
        """Return the pins for the page.

        `kept` holds, per layer, whether a pin keeps each filter that the present step has; `points` its curve in chart
        A (none if its scorer has changed since), `drops` its rows in chart D, and `at` its ratio in percent.
        """
        with self._lock:
            pins, now = list(self._pins), self._now
        rows = pin_rows([pin for _, pin in pins], now)
        beside = [_beside(measurements, view, pin) for view, pin in pins]
        return [{**row, **more} for row, more in zip(rows, beside, strict=True)]

    def table(self, view: Choices) -> pd.DataFrame:
        """Return the table of the pins, to read; without differences if the pins are compared with another view."""
        with self._lock:
            now = self._now if self._now is not None and self._now.key == _key(view) else None
            return pins_frame(pin_rows([pin for _, pin in self._pins], now))


def _pinned(measurements: Measurements, view: Choices) -> Generator[Any, None, Pinned | None]:
    """A view with its outcomes; None if it is not measured on all images."""
    frame, load = measurements.exact(view), measurements.load
    if frame is None or frame.mask is None:
        return None
    mask, about = measurements.mask(view), {"images": load.images, "calibration": load.calibration}
    outcomes = yield from outcome_steps(measurements.study, mask, batchnorm=view["batchnorm"], **about)
    choices, label = entry_of(view), measurements.label(view)
    about_view: Any = {"choices": choices, "key": _key(view), "label": label, "scorer": _scorer(measurements, view)}
    return Pinned(**about_view, table=frame.table, mask=frame.mask, outcomes=outcomes)


def _key(view: Choices) -> list[Any]:
    return [*as_lists(frame_key(view)), view["ratio"]]


def _scorer(measurements: Measurements, view: Choices) -> str:
    """Return a key of a view's scorer, from its function and the variables which that reads, or from its scores."""
    item = measurements.menu[view["scorer"]]
    return fingerprint(item.function if isinstance(item, Scorer) else item.values).key


def _beside(measurements: Measurements, view: Choices, pin: Pinned) -> Row:
    """What the charts need of a pin."""
    taken = measurements.taken
    keep_left = {name: keep if taken is None else keep[taken.keep[name]] for name, keep in pin.mask.keep.items()}
    return {
        "kept": [keep.int().tolist() for keep in keep_left.values()],
        "points": [] if pin.outdated else measurements.curve(view)["lines"]["curves"],
        "drops": drop_rows(pin.table),
        "at": 100 * view["ratio"],
    }


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
    with the full network), and `difference`: accuracy of the pin minus that of the present view, paired by image, in
    percentage points. `differs` is the number of filters that one of the two keeps and the other removes, divided by
    the number that can be removed. `difference` and `differs` are empty if the present view is not measured (`now` is
    None); `against` is the key of that view.
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
        text = {
            "text": f"{value} ({low}\N{EN DASH}{high})",
            "metric": row["metric"],
            "exposure": _exposure_words(exposure),
        }
        cell = {"domain": name, "role": row["role"], "colour": styles[name].colour, **text}
        cells.append({**cell, "target_aware": exposure.startswith("target")})
    return cells


def _points(change: tuple[float, float, float] | None) -> str:
    """A difference with its interval, "+2 (−1 to +4)"; empty for None."""
    if change is None:
        return ""
    value, low, high = (points_text(100 * end) for end in change)
    return f"{value} ({low} to {high})"


def _exposure_words(exposure: Exposure) -> str:
    """What data of a domain was looked at, in words; empty for nothing."""
    return "data use not recorded" if exposure == "?" else exposure


def _filters_that_differ(mask: Mask, other: Mask) -> float:
    """Share of all filters that one of two masks keeps and the other removes."""
    return sum(int((keep ^ other.keep[name]).sum()) for name, keep in mask.keep.items()) / max(mask.graph.free, 1)


def share_words(share: float) -> str:
    """Return a share in percent, without decimals."""
    return percent(share, decimals=0)
