"""What a panel of the explorer is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from ...core import BatchNorm, Mask, Scores
from ...scorers import SCORERS, Scorer
from ...study import Study

Rows = list[dict[str, Any]]


Frames = Mapping[str, Mapping[str, Rows] | Mapping[str, int] | Mapping[str, Any] | Rows | str]


class View:
    """What a panel is shown: study, mask, options and menu (scorers by name) of the explorer at rest."""

    def __init__(
        self,
        study: Study,
        mask: Mask,
        *,
        batchnorm: BatchNorm,
        selected: Any = None,
        menu: Mapping[str, Scorer | Scores] = SCORERS,
    ) -> None:
        self.study, self.mask, self.selected, self.menu = study, mask, selected, menu
        self.batchnorm: BatchNorm = batchnorm


class Panel(Protocol):
    """One question below the explorer.

    A chart's `usermeta` may ask the page for more:

    - {"follows": {"ratio": "at"}}: its parameter `at` is the slider's ratio, before Python answers; so for the other
      choices. With "calm": 120 it is drawn at most every 120 ms meanwhile.
    - {"picks": "cells", "label": "..."}: a mark with `group` and `filter` is picked by a click, and by arrow keys over
      the rows of the data `cells`, which have `line` and `place` too. Its parameter `picked` is "group|filter" or "".
    - {"brushes": "brush"}: its interval selection `brush` goes to `selected["brush"]` when it rests.

    A panel may have `takes_filters = True`: the first such panel opens when a filter is picked while none is open. It
    may have `close()`, which ends what it keeps running: called when it is closed, another one opens, the explorer is
    closed or its last page is gone; perhaps more than once, and perhaps in another thread while `tick` is at work.

    Attributes:
        name: unique.
        label: words on its button.
        charts: chart name -> Vega-Lite specification with named data.
        selected: what the user picked in it, if anything: {"group": ..., "filter": ...}, {"page": ...}, the value of a
            control under its name, {"brush": {"x": [low, high], "y": None}} or {"brush": None} where there is none.
    """

    name: str
    label: str
    charts: Mapping[str, dict[str, Any]]
    selected: Any

    def unavailable(self, study: Study) -> str | None:
        """Why it has nothing to show here; None where it has."""
        ...

    def tick(self, view: View) -> Frames | Iterator[Frames]:
        """Chart name -> data name -> rows, for this view; quick enough to follow a slider at rest.

        Under the name "text", in place of data: words above the charts. Under "pages", {"at": 0, "of": 3}: buttons to
        browse; they set `selected["page"]`. Under "controls", a list of {"name": "layer", "label": "Layer",
        "value": "conv1", "choices": [["conv1", "first"], ...]}: menus above the charts; values are plain JSON, and the
        chosen one is `selected[name]`. Under "picked", {"group": ..., "filter": ...} or {}: the cell that is outlined.
        What a frame leaves out stays. Work of many steps is an iterator, which gives way to the slider between two of
        its frames; a frame may be empty.
        """
        ...

    def background(self, view: View) -> Iterator[Frames]:
        """Further frames that take longer, one at a time; it is dropped when the view changes."""
        ...


ESTIMATE_IMAGES = 250
