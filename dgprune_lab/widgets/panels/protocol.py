"""The protocol of a panel, the view that it receives, and helpers shared by panels."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import pandas as pd
from torch import nn

from ...core import BatchNorm, Mask, Scores, public
from ...scorers import SCORERS, Scorer
from ...study import Study

ESTIMATE_IMAGES, CALIBRATION = 250, 500

Result = TypeVar("Result")
Item = Scorer | Scores
Row = dict[str, Any]
Rows = list[Row]
Frames = Mapping[str, Mapping[str, Any] | Sequence[Any] | str]
Cell = tuple[str, int]
"""A filter: its layer and its number in the layer."""


@public
@dataclass(frozen=True, kw_only=True, eq=False)
class Tried:
    """A network that was tried in the explorer.

    Attributes:
        name: its name on screen.
        kind: "step", "pin", or "ratio" for any other measured view.
        table: its measurements on all images of the explorer, with a row of latency if it was timed.
        mask: the filters of the full network that it keeps.
        network: function that returns the network.
        choice: settings of the explorer's controls that show it.
        parent: the step from which it was made; None for the full network.
    """

    name: str
    kind: Literal["step", "pin", "ratio"]
    table: pd.DataFrame = field(repr=False)
    mask: Mask
    network: Callable[[], nn.Module]
    choice: Mapping[str, Any]
    parent: int | None = None


@public
@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """The state of the explorer at rest, passed to a panel.

    Attributes:
        study: the network of the present step and the domains.
        mask: the mask of the view: which filters of this network are kept.
        scorer: the scorer from which the mask comes.
        batchnorm: the BatchNorm setting of the pruned network.
        selected: what the user picked in this panel; see `Panel.selected`.
        scorers: all scorers of the explorer's menu, in its order.
        images, calibration: see `Explorer`; `images` is None for all.
        choice: settings of the explorer's controls; {} in a panel used without an explorer.
        full: the full network and the domains; None if it is the network of the present step.
        original: layer -> number in the full network of each filter of `study`; None if `study` is the full network.
        silent: layer -> full-network numbers of filters that are 0 on all sources' `score` images; None if unknown.
        tried: all networks tried, including the view once it is measured.
        present: the view itself; its table is empty until it is measured.
        seconds: function from a number of images to the seconds that the full network takes for them; 0.0 if unknown.
    """

    study: Study
    mask: Mask
    scorer: Item
    batchnorm: BatchNorm
    selected: Any = None
    scorers: tuple[Item, ...] = tuple(SCORERS.values())
    images: int | None = None
    calibration: int = CALIBRATION
    choice: Mapping[str, Any] = field(default_factory=dict)
    full: Study | None = None
    original: Mapping[str, Sequence[int]] | None = None
    silent: Mapping[str, Sequence[int]] | None = None
    tried: tuple[Tried, ...] = ()
    present: Tried | None = None
    seconds: Callable[[float], float] = field(default=lambda _: 0.0, repr=False)

    @property
    def measured(self) -> str:
        """The images used for the accuracies, as text: "all images" or "the first 70 images of each domain"."""
        if self.images is None or all(len(domain.rows("report")) <= self.images for domain in self.study.domains):
            return "all images"
        return f"the first {self.images:,} images of each domain"


@runtime_checkable
class Panel(Protocol):
    """One question below the explorer.

    A class that inherits from this one needs `name`, `label`, `charts` and `tick`; the rest has defaults.

    A chart's `usermeta` can hold these options for the page:

    - {"follows": {"ratio": "at"}}: the chart's parameter `at` follows the slider before Python answers; likewise for
      the other choices. With "calm": 120 the chart is drawn at most every 120 ms while the slider moves.
    - {"picks": "cells", "label": "..."}: a mark with `group` and `filter` is picked by a click, and by arrow keys over
      the rows of the data `cells`, which need `line` and `place` too. The chart's parameter `picked` is {group, filter}
      or {}. Rows with `network` instead are picked likewise; if they have `choice`, a click or Enter sets the
      explorer's controls to it.
    - {"brushes": "brush"}: the chart's interval selection `brush` is sent to `selected["brush"]` when it rests.

    Attributes:
        name: unique name of the panel.
        label: text on its button.
        charts: chart name -> Vega-Lite specification with named data.
        selected: what the user picked in the panel, if anything: {"group": ..., "filter": ...} and "cells", several
            (group, filter) or None; {"page": ...}; the value of a control under its name; {"brush": {"x": [low, high],
            "y": None}}, or {"brush": None} for none; {"pressed": button name}, an entry that the panel removes.
        takes_filters: whether the panel shows a picked filter; the first such panel opens when a filter is picked in
            the grid, unless another such panel is open.
    """

    name: str
    label: str
    charts: Mapping[str, dict[str, Any]]
    selected: Any = None
    takes_filters: bool = False

    def unavailable(self, study: Study) -> str | None:
        """Return why the panel cannot be shown for this study, or None."""
        return None

    def tick(self, view: View) -> Frames | Iterator[Frames]:
        """Return chart name -> data name -> rows for this view; must be quick, since it runs when the slider rests.

        Besides names of charts, a frame can have: "text", shown above the charts; "pages", {"at": 0, "of": 3}, buttons
        to browse, which set `selected["page"]`; "controls", a list of {"name": "layer", "label": "Layer", "value":
        "conv1", "choices": [["conv1", "first"], ...]}, menus above the charts (values in plain JSON, the chosen one in
        `selected[name]`), or {"kind": "number", "name": ..., "label": ..., "value": 3, "low": 0, "unit": "ms"}, a
        number field, optionally with "high": 9; "actions", a list of {"label": "Find", "message": {"type":
        "press", "name": "find"}}, buttons, or sentences if they have no message; "hidden", names of charts to hide;
        "charts", chart name -> specification of charts that have changed; "picked", {"group": ..., "filter": ...}
        or {}, the outlined cell.
        Anything absent from a frame stays unchanged. Return an iterator of frames for work of many steps: the slider
        takes precedence between two frames, and a frame may be empty.
        """
        ...

    def background(self, view: View) -> Iterator[Frames]:
        """Yield further frames, which take longer; those still to come are dropped when the view changes."""
        return iter(())

    def close(self) -> None:
        """Stop the panel's background work.

        Called when the panel is closed, another panel opens, the explorer is closed, or no page shows it any more. It
        may be called more than once, and from another thread while `tick` runs.
        """


class Specs:
    """The `charts` of a panel class, made once, on first access, because making them takes up to a second."""

    def __init__(self, charts: Mapping[str, Callable[[], Any]]) -> None:
        self._charts = charts
        self._specs: Mapping[str, dict[str, Any]] | None = None

    def __get__(self, panel: Panel | None, owner: type) -> Mapping[str, dict[str, Any]]:
        if self._specs is None:
            self._specs = {name: chart().to_dict() for name, chart in self._charts.items()}
        return self._specs


def frames_of(
    steps: Generator[tuple[Any, ...], None, Result], describe: Callable[..., str]
) -> Generator[Frames, None, Result]:
    """Run a generator and return its result; yield `describe(*step)` as the text after each step."""
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            return end.value
        yield {"text": describe(*step)}


def button(label: str, name: str) -> Row:
    """Return a button; pressing it sets `selected["pressed"]` to its name."""
    return {"label": label, "message": {"type": "press", "name": name}}


def controls_of(choice: Mapping[str, Any]) -> Row:
    """Return the settings of the explorer's controls, without fields that differ from one page request to the next."""
    return {name: value for name, value in choice.items() if name not in ("id", "by", "moving")}


def drop_oldest(cache: dict[Any, Any], *, most: int) -> None:
    """Remove the oldest entries of a cache until at most `most` remain."""
    while len(cache) > most:
        del cache[next(iter(cache))]
