"""When filters are removed during training: for each layer start, end, interval, ratio, and the exact counts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from itertools import pairwise
from numbers import Integral, Real
from typing import Annotated, Any, cast

from ...core import Count, DgpruneError, Ratio, public, unknown

EVERY_LAYER = "*"
MOST_EVENTS = 10_000
"""Maximum number of events in one schedule."""
Numbers = Annotated[tuple[int, int, int, float], "four numbers (start, end, every, ratio)"]


@public
@dataclass(frozen=True, kw_only=True)
class LayerSchedule:
    """The epochs at which one layer loses filters, and how many.

    Attributes:
        layer: dotted name of a convolution; "*" for every convolution that has no schedule of its own.
        start: epoch of the first event, counted from 1; 0 is before training.
        end: last epoch that may have an event; it has one if end - start is a multiple of `every`.
        every: epochs from one event to the next.
        ratio: share of the layer's filters that is removed by the last event, 0 <= ratio < 1.
    """

    layer: str
    start: int
    end: int
    every: int
    ratio: float

    def __post_init__(self) -> None:
        where = f"the schedule of layer {self.layer!r}"
        for name, least in (("start", 0), ("end", 0), ("every", 1)):
            value = getattr(self, name)
            if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
                raise DgpruneError(
                    f"{where}: {name} must be a whole number of epochs, at least {least}; got {value!r}."
                )
        if self.end < self.start:
            raise DgpruneError(
                f"{where} ends (epoch {self.end}) before it starts (epoch {self.start}); give (start, end, every, "
                "ratio) with end >= start."
            )
        if (events := len(range(self.start, self.end + 1, self.every))) > MOST_EVENTS:
            raise DgpruneError(
                f"{where} would make {events:,} events, at most {MOST_EVENTS:,} are possible; give (start, end, every, "
                "ratio) with a smaller end or a larger every."
            )
        if not isinstance(self.ratio, Real) or not 0 <= self.ratio < 1:
            raise DgpruneError(
                f"{where}: ratio must lie in 0 to below 1, since 1 would empty the layer; got {self.ratio!r}."
            )

    @property
    def epochs(self) -> tuple[int, ...]:
        """The epochs at whose end there is an event."""
        return tuple(range(self.start, self.end + 1, self.every))

    def kept(self, filters: Count, *, least: int | None = None) -> list[int]:
        """Return the number of filters left after each of the T events.

            kept(t) = ceil(K + (N - K)(T - t) / T), t = 1 .. T = floor((end - start) / every) + 1

        computed in integers, so that rounding of the ratio has no influence.

        Args:
            filters: number of filters N before the first event.
            least: number of filters K, at most N, after the last event; None for N - floor(ratio N).

        Source: Bartoldson et al. 2020, arXiv:1906.03728, their code, which computes ceil((1 - ratio) N) in floats.

        >>> LayerSchedule(layer="conv", start=3, end=15, every=4, ratio=0.5).kept(10)
        [9, 8, 7, 5]
        """
        least = filters - _count(self.ratio, filters) if least is None else least
        removed, events = filters - least, len(self.epochs)
        return [least - (-removed * (events - t) // events) for t in range(1, events + 1)]


@public
@dataclass(frozen=True)
class PruneSchedule:
    """The schedule of a training run: at the end of which epochs each layer loses filters.

    Layers that lose filters at the end of the same epoch share one event.

    Attributes:
        layers: {"conv4": (start, end, every, ratio)}, or a list of `LayerSchedule`; "*" stands for every layer that is
            not named itself. A layer may have several schedules one after the other; their ratios, each a share of all
            filters of the layer, add up.

    Raises:
        DgpruneError: a schedule that ends before it starts, `every` below 1, a ratio outside [0, 1), two overlapping
            schedules of one layer.

    >>> PruneSchedule({"conv4": (3, 15, 4, 0.5)}).epochs
    (3, 7, 11, 15)
    """

    layers: Mapping[str, Numbers] | Sequence[LayerSchedule]

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", _entries(self.layers))
        for layer, entries in self._by_layer().items():
            for first, second in pairwise(entries):
                if second.start <= first.end:
                    raise DgpruneError(
                        f"two schedules of layer {layer!r} overlap: epochs {first.start} to {first.end} and "
                        f"{second.start} to {second.end}; let one end before the other starts."
                    )

    @classmethod
    def everywhere(cls, *, start: int, end: int, every: int, ratio: Ratio) -> PruneSchedule:
        """Return a schedule that is the same for every layer.

        >>> PruneSchedule.everywhere(start=1, end=3, every=1, ratio=0.3).entries[0].layer
        '*'
        """
        return cls([LayerSchedule(layer=EVERY_LAYER, start=start, end=end, every=every, ratio=ratio)])

    @property
    def entries(self) -> tuple[LayerSchedule, ...]:
        """The schedules of the layers."""
        return cast("tuple[LayerSchedule, ...]", self.layers)

    @property
    def epochs(self) -> tuple[int, ...]:
        """The epochs at whose end filters may be removed."""
        return tuple(sorted({epoch for entry in self.entries for epoch in entry.epochs}))

    def before_training(self) -> PruneSchedule:
        """Return the schedule of the control trained from scratch: the same shares removed once, before training."""
        total: dict[str, float] = defaultdict(float)
        for entry in self.entries:
            total[entry.layer] += entry.ratio
        return PruneSchedule({layer: (0, 0, 1, ratio) for layer, ratio in total.items()})

    def timetable(self, filters: Mapping[str, Count], *, epochs: int | None = None) -> dict[int, dict[str, int]]:
        """Return epoch -> layer -> number of filters left, for every layer that loses filters at the epoch's end.

        Args:
            filters: layer -> number of its filters, for all layers that can be named.
            epochs: number of epochs of training; no event may come later.

        Raises:
            DgpruneError: an unknown layer, a layer that would be emptied, an event after the last epoch.
        """
        named = self._by_layer()
        for name in named:
            if name != EVERY_LAYER and name not in filters:
                raise unknown("layer", name, filters)
        if epochs is not None and self.epochs and self.epochs[-1] > epochs:
            raise DgpruneError(
                f"the schedule has an event at epoch {self.epochs[-1]}, and the training has {epochs}; let it end "
                "earlier, or train longer (options=TrainingOptions(epochs=...))."
            )
        table: dict[int, dict[str, int]] = {}
        for layer, count in filters.items():
            left, ratio = count, 0.0
            for entry in named.get(layer, named.get(EVERY_LAYER, [])):
                ratio += entry.ratio  # rounded once, so that `before_training` removes as many
                for epoch, kept in zip(entry.epochs, entry.kept(left, least=count - _count(ratio, count)), strict=True):
                    if kept < 1:
                        raise DgpruneError(
                            f"the schedules of layer {layer!r} would empty it at epoch {epoch}; it has {count} "
                            "filters, and at least one must stay."
                        )
                    if kept < left:
                        table.setdefault(epoch, {})[layer] = kept
                    left = kept
        return dict(sorted(table.items()))

    def to_json(self) -> list[list[Any]]:
        """Return the schedules as plain lists, for a JSON card."""
        return [list(astuple(entry)) for entry in self.entries]

    def _by_layer(self) -> dict[str, list[LayerSchedule]]:
        """Group the schedules by layer, in the order of their starts."""
        groups: dict[str, list[LayerSchedule]] = defaultdict(list)
        for entry in sorted(self.entries, key=lambda entry: entry.start):
            groups[entry.layer].append(entry)
        return dict(groups)


def _count(ratio: float, filters: int) -> int:
    """Return the share `ratio` of a number of filters, rounded down."""
    return int(ratio * filters + 1e-9)


def _entries(layers: Any) -> tuple[LayerSchedule, ...]:
    """Return layer schedules from a dict, layer -> (start, end, every, ratio), or from a list of LayerSchedule."""
    if not isinstance(layers, Mapping):
        return tuple(layers)
    names = ("start", "end", "every", "ratio")
    return tuple(
        LayerSchedule(layer=layer, **dict(zip(names, numbers, strict=True))) for layer, numbers in layers.items()
    )
