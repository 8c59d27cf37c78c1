"""When filters leave during a training: per layer a start, an end, a step and a share, and the exact counts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from itertools import pairwise
from numbers import Integral, Real
from typing import Any

from ...core import DgpruneError, unknown

EVERY_LAYER = "*"
Numbers = tuple[int, int, int, float]


@dataclass(frozen=True)
class LayerSchedule:
    """What leaves one layer, and when.

    Attributes:
        layer: dotted name of a convolution; "*" for every one that is not named beside it.
        start: epoch of the first event, counted from 1; 0 is before the training.
        end: last epoch that may have one; it has one where `every` leads there.
        every: epochs from one event to the next.
        ratio: share of the layer's filters that is gone after the last event, 0 <= ratio < 1.
    """

    layer: str
    start: int
    end: int
    every: int
    ratio: float

    def __post_init__(self) -> None:
        for name, least in (("start", 0), ("end", 0), ("every", 1)):
            value = getattr(self, name)
            if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
                raise DgpruneError(
                    f"the schedule of layer {self.layer!r}: {name} must be a whole number of epochs, at least {least}; "
                    f"got {value!r}."
                )
        if self.end < self.start:
            raise DgpruneError(
                f"the schedule of layer {self.layer!r} ends (epoch {self.end}) before it starts (epoch {self.start}); "
                "give (start, end, every, ratio) with end >= start."
            )
        if not isinstance(self.ratio, Real) or not 0 <= self.ratio < 1:
            raise DgpruneError(
                f"the schedule of layer {self.layer!r}: ratio must lie in 0 to below 1, since 1 would empty the layer; "
                f"got {self.ratio!r}."
            )

    @property
    def epochs(self) -> tuple[int, ...]:
        """The epochs at whose end it acts."""
        return tuple(range(self.start, self.end + 1, self.every))

    def kept(self, filters: int, *, least: int | None = None) -> list[int]:
        """How many filters are left after each of its T events.

            kept(t) = ceil(K + (N - K)(T - t) / T), t = 1 .. T = floor((end - start) / every) + 1

        in whole numbers, with K = N - floor(ratio N) where it is not given: exact, whatever the ratio is in binary.

        Args:
            filters: N, how many there are before the first event.
            least: K, how many there are after the last.

        Source: Bartoldson et al. 2020, arXiv:1906.03728, their code, which computes ceil((1 - ratio) N) in floats.

        >>> LayerSchedule("conv", 3, 15, 4, 0.5).kept(10)
        [9, 8, 7, 5]
        """
        least = filters - _share(self.ratio, filters) if least is None else least
        gone, count = filters - least, len(self.epochs)
        return [least - (-gone * (count - t) // count) for t in range(1, count + 1)]


@dataclass(frozen=True)
class PruneSchedule:
    """When filters leave which layers; layers due at the end of one epoch leave together, in one event.

    Attributes:
        layers: {"conv4": (start, end, every, ratio)}, or a list of `LayerSchedule`; "*" names every layer that is not
            named itself. A layer may have several that follow each other; their ratios, shares of all its filters, add
            up.

    Raises:
        DgpruneError: a schedule that ends before it starts, a step below 1, a ratio outside [0, 1), two of one layer
            that overlap.

    >>> PruneSchedule({"conv4": (3, 15, 4, 0.5)}).epochs
    (3, 7, 11, 15)
    """

    layers: Mapping[str, Numbers] | Sequence[LayerSchedule]

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", _listed(self.layers))
        for name, held in self._by_layer().items():
            for first, second in pairwise(held):
                if second.start <= first.end:
                    raise DgpruneError(
                        f"two schedules of layer {name!r} overlap: epochs {first.start} to {first.end} and "
                        f"{second.start} to {second.end}; let one end before the other starts."
                    )

    @classmethod
    def everywhere(cls, *, start: int, end: int, every: int, ratio: float) -> PruneSchedule:
        """The same for every layer.

        >>> PruneSchedule.everywhere(start=1, end=3, every=1, ratio=0.3).layers[0].layer
        '*'
        """
        return cls([LayerSchedule(EVERY_LAYER, start, end, every, ratio)])

    @property
    def epochs(self) -> tuple[int, ...]:
        """Epochs at whose end something may be due."""
        return tuple(sorted({epoch for held in self._all() for epoch in held.epochs}))

    def before_training(self) -> PruneSchedule:
        """The same shares removed in one event before the training begins: the control that trains from scratch."""
        total: dict[str, float] = defaultdict(float)
        for held in self._all():
            total[held.layer] += held.ratio
        return PruneSchedule([LayerSchedule(layer, 0, 0, 1, ratio) for layer, ratio in total.items()])

    def timetable(self, filters: Mapping[str, int], *, epochs: int | None = None) -> dict[int, dict[str, int]]:
        """Epoch -> layer -> how many of its filters are left then; epochs and layers at which none goes are left out.

        Args:
            filters: layer -> N, for all layers that can be named.
            epochs: of the training; nothing may be due after it.

        Raises:
            DgpruneError: an unknown layer, one that would be emptied, an event after the training.
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
            for held in named.get(layer, named.get(EVERY_LAYER, [])):
                ratio += held.ratio  # rounded once, so that `before_training` removes as many
                for epoch, kept in zip(held.epochs, held.kept(left, least=count - _share(ratio, count)), strict=True):
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
        """Plain lists, for a card."""
        return [list(astuple(held)) for held in self._all()]

    def _all(self) -> tuple[LayerSchedule, ...]:
        return tuple(self.layers)  # pyright: ignore[reportReturnType]  # normalised when it was made

    def _by_layer(self) -> dict[str, list[LayerSchedule]]:
        """Each layer's schedules, in the order of their starts."""
        found: dict[str, list[LayerSchedule]] = defaultdict(list)
        for held in sorted(self._all(), key=lambda held: held.start):
            found[held.layer].append(held)
        return dict(found)


def _share(ratio: float, filters: int) -> int:
    """How many filters that share is, rounded down."""
    return int(ratio * filters + 1e-9)


def _listed(given: Any) -> tuple[LayerSchedule, ...]:
    """Layer schedules from a dict of four numbers each, or from a list of them."""
    if not isinstance(given, Mapping):
        listed = tuple(given)
        if any(not isinstance(held, LayerSchedule) for held in listed):
            raise DgpruneError('a schedule is {"conv4": (start, end, every, ratio)} or a list of dg.LayerSchedule.')
        return listed
    for layer, numbers in given.items():
        if not isinstance(numbers, tuple | list) or len(numbers) != 4:
            raise DgpruneError(
                f"the schedule of layer {layer!r} needs four numbers, (start, end, every, ratio); got {numbers!r}."
            )
    return tuple(LayerSchedule(layer, *numbers) for layer, numbers in given.items())
