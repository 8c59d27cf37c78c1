"""The scorers of a menu: their names on screen, and their scores as they are computed one by one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ...core import DgpruneError, Scores, collect_notes, exposure_label, roles_of, scorer_exposure
from ...scorers import Scorer
from ...study import Study, fingerprint
from .protocol import Item


def name_of(item: Item) -> str:
    """Return a scorer's name in the menu."""
    return item.name if isinstance(item, Scorer) else item.scorer


def plain_label(item: Item) -> str:
    """Return a scorer's label without the mark of its exposure."""
    return item.label if isinstance(item, Scorer) else item.scorer


def reads_target(item: Item, study: Study) -> bool:
    """Return whether a scorer reads a target, without computing its scores."""
    return isinstance(item, Scorer) and "target" in item.reads and bool(study.targets)


def label(study: Study, item: Item) -> str:
    """Return a scorer's label; a target-aware one is marked: "DSS ◇ target-aware"."""
    if isinstance(item, Scorer):
        return item.label + exposure_label("target-aware" if "target" in item.reads else "")
    alone = replace(study.provenance, scorer=item.reads, finetuning={}, selection={})
    aware = alone.target_aware(roles_of(study.domains))
    return item.scorer + exposure_label(scorer_exposure([{"target_aware": aware}]))


class MenuScores:
    """The scores of each scorer, or the reason why there are none.

    Scores are computed again if their scorer was replaced or reads a variable that has changed.
    """

    def __init__(self) -> None:
        self._cache: dict[str, tuple[Item, Scores | str, list[str], str]] = {}

    def get(self, item: Item) -> Scores | str | None:
        """Return the cached scores of a scorer, the reason why there are none, or None if nothing is cached."""
        entry = self._cache.get(name_of(item))
        if entry is None or entry[0] is not item or entry[3] != fingerprint(item).key:
            return None
        return entry[1]

    def notes(self, item: Item) -> list[str]:
        """Return the notes that were issued while scoring."""
        return self._cache[name_of(item)][2] if self.get(item) is not None else []

    def add_quick(self, study: Study, items: Iterable[Item]) -> None:
        """Compute the scores of the scorers that need no pass over images."""
        for item in items:
            if isinstance(item, Scores) or (not item.reads and set(item.needs) <= {"weights"}):
                self.add(study, item)

    def add(self, study: Study, item: Item) -> bool:
        """Compute the scores of one scorer, unless cached; return whether there is a new result."""
        if self.get(item) is not None:
            return False
        notes, key = list[str](), fingerprint(item).key
        with collect_notes(notes.append):
            try:
                reason = study.unavailable(item) if isinstance(item, Scorer) else None
                scores = reason or study.score(item)
            except Exception as error:  # a user's scorer may raise anything; the others are still shown
                scores = str(error) if isinstance(error, DgpruneError) else f"{type(error).__name__}: {error}"
        self._cache[name_of(item)] = item, scores, notes, key
        return True
