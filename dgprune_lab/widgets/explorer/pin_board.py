"""The board of pinned views: at most three, compared with the present view."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import pandas as pd

from ...charts.drop import drop_rows
from ...core import Lock, note
from ...scorers import Scorer
from ...study import fingerprint
from .choices import Choices, frame_key, listed
from .history import entry_of
from .measurements import Measurements
from .pins import LETTERS, Pinned, outcome_steps, pin_rows, pins_frame

MOST = 3
Row = dict[str, Any]


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
        """Whether no more view can be pinned."""
        return len(self._pins) >= MOST

    def add(self, measurements: Measurements, view: Choices) -> Generator[Any, None, None]:
        """Pin a view that is measured, once; yields between batches, should its outcomes be out of the cache."""
        if letter := self.letter_of(measurements, view):
            note(f"this view is pinned already, as {letter}.")
            return
        pinned = yield from _pinned(measurements, view)
        if pinned is not None and not self.is_full:
            with self._lock:
                self._pins = [*self._pins, (view, pinned)]

    def letter_of(self, measurements: Measurements, view: Choices) -> str | None:
        """Return the letter under which a view is pinned, with the numbers that it has now; None if it is not."""
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
        """Make a view the present one, with which the pins are compared, if there are any.

        Pins by a scorer of the same name that removes other filters by now say so.
        """
        self._rank_again(measurements, view)
        self._now = (yield from _pinned(measurements, view)) if self._pins else None

    def _rank_again(self, measurements: Measurements, view: Choices) -> None:
        """Look at the pins by the scorer of a view, at its step: there its scores are known, so this is quick."""
        fresh: dict[int, Pinned] = {}
        for at, pin in self:
            if (at["scorer"], at.get("step", 0)) == (view["scorer"], view.get("step", 0)):
                scorer = _scorer(measurements, at)
                if scorer != pin.scorer:
                    mask = measurements.whole(measurements.mask(at))
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
        """Return the table of the pins, to read; without differences if this view is not the one that is compared."""
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
    shown: Any = {"choices": choices, "key": _key(view), "label": label, "scorer": _scorer(measurements, view)}
    return Pinned(**shown, table=frame.table, mask=frame.mask, outcomes=outcomes)


def _key(view: Choices) -> list[Any]:
    return [*listed(frame_key(view)), view["ratio"]]


def _scorer(measurements: Measurements, view: Choices) -> str:
    """What identifies the scorer of a view: its function with the variables that this reads, or its values."""
    item = measurements.menu[view["scorer"]]
    return fingerprint(item.function if isinstance(item, Scorer) else item.values).key


def _beside(measurements: Measurements, view: Choices, pin: Pinned) -> Row:
    """What the charts need of a pin."""
    taken = measurements.taken
    shown = {name: keep if taken is None else keep[taken.keep[name]] for name, keep in pin.mask.keep.items()}
    return {
        "kept": [keep.int().tolist() for keep in shown.values()],
        "points": [] if pin.outdated else measurements.curve(view)["lines"]["curves"],
        "drops": drop_rows(pin.table),
        "at": 100 * view["ratio"],
    }
