"""The settled choices of an explorer, for undo and redo."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

from ...core import Lock
from .choices import CONTROLS
from .frames import percent

Entry = dict[str, Any]
_WORDS = {"ratio": "ratio", "scorer": "scorer", "scope": "scope", "budget": "what the ratio counts"}
_WORDS |= {"batchnorm": "BatchNorm", "layers": "layers by hand", "forced": "filters by hand"}


class History:
    """The settled choices in order, and the place of the present one.

    Args:
        start: the first choices.
        step_label: function from the numbers of two steps to what leads from the first to the second.
    """

    def __init__(self, start: Mapping[str, Any], *, step_label: Callable[[int, int], str]) -> None:
        self._entries, self._place, self._step_label = [entry_of(start)], 0, step_label
        self._lock, self._moving = Lock(), False

    def settle(self, choices: Mapping[str, Any], *, is_present: Callable[[], bool] = lambda: True) -> bool:
        """Make these choices the present ones and drop undone ones; return whether they are new.

        A measurement settles choices in a thread of its own, by when the view may have changed: nothing is settled if
        `is_present` returns False, or while a move is under way.
        """
        entry = entry_of(choices)
        with self._lock:
            if self._moving or not is_present() or entry == self._entries[self._place]:
                return False
            self._entries = [*self._entries[: self._place + 1], entry]
            self._place += 1
            return True

    def move(self, by: int, *, go: Callable[[Entry], object]) -> bool:
        """Go back (-1) or forth (1) by one, by calling `go` with the choices there; return False at the end."""
        with self._lock:
            place = self._place + by
            if not 0 <= place < len(self._entries):
                return False
            self._place, self._moving = place, True
        try:
            go(deepcopy(self._entries[place]))
        except BaseException:
            self._place -= by
            raise
        finally:
            self._moving = False
        return True

    def labels(self) -> dict[str, str | None]:
        """Return in words what undo would take back and what redo would restore; None for nothing."""
        place = self._place
        back = self._change(place - 1, place) if place else None
        forth = self._change(place, place + 1) if place + 1 < len(self._entries) else None
        return {"undo": back, "redo": forth}

    def to_json(self) -> dict[str, list[Entry]]:
        """Return the choices to which undo and redo go, as plain values, each list in the order of time."""
        return deepcopy({"undo": self._entries[: self._place], "redo": self._entries[self._place + 1 :]})

    def restore(self, undo: Sequence[Entry], redo: Sequence[Entry]) -> None:
        """Put earlier choices before the present ones, and undone choices after them."""
        now = self._entries[self._place]
        self._entries, self._place = [*map(entry_of, undo), now, *map(entry_of, redo)], len(undo)

    def _change(self, first: int, second: int) -> str:
        """Return in words what leads from one entry to the next."""
        before, after = self._entries[first], self._entries[second]
        if before["step"] != after["step"]:
            return self._step_label(before["step"], after["step"])
        changed = [name for name in CONTROLS if before[name] != after[name]]
        if changed == ["ratio"]:
            return f"ratio {percent(before['ratio'])} \N{RIGHTWARDS ARROW} {percent(after['ratio'])}"
        return ", ".join(_WORDS[name] for name in changed)


def entry_of(choices: Mapping[str, Any]) -> Entry:
    """Return what history keeps of checked choices, a copy."""
    missing = {"step": 0, "layers": {}, "forced": {}}
    return {name: deepcopy(choices.get(name, missing.get(name))) for name in CONTROLS}
