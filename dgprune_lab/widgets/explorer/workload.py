"""How long measurements take on this machine, and how many images an estimate may use."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar
from weakref import WeakKeyDictionary

from ...core import BatchNorm, Mask, duration, yielding
from ...measurement import calibration_count
from ...study import Study
from .frames import SPLIT, Frame, Origin, measure_frame, time_share, weighted

QUICK = 0.25
"""Seconds; if all images take less, no estimate comes first."""
TIMED = 0.05
"""Seconds; a timing below this is not precise enough to learn from."""
_SOON, _LATER = 0.7, 2.5  # seconds that an estimate may take, and one from few images that spares much more time
_FEW, _SPARED = 32, 8
_SIZES = (8, 16, _FEW, 64, 125, 250)  # possible numbers of images per domain of an estimate
_PROBES = (1, 4, 32, 250)  # images on which the full network is timed; a first image warms up
_paces: WeakKeyDictionary[Study, Pace] = WeakKeyDictionary()
Result = TypeVar("Result")


class Pace:
    """Seconds that a piece of work takes, learned from the latest pieces.

    Work is counted in images of the full network; an image of a pruned network counts as its `time_share`. What was
    learned before counts as much as 32 images, so that one slow batch changes little of what is announced.
    """

    def __init__(self) -> None:
        self._seconds: float | None = None
        self._images = 0.0  # from which it was learned

    @property
    def known(self) -> bool:
        """Whether anything was timed yet."""
        return self._seconds is not None

    def seconds(self, work: float) -> float:
        """Return how long a piece of work will take; 0 if nothing was timed yet."""
        return work * (self._seconds or 0.0)

    def timed(self, steps: Generator[float, None, Result]) -> Generator[float, None, Result]:
        """Run a generator that yields pieces of work, and learn from it; yield the work done so far.

        Steps without work, such as results from a cache, teach nothing.
        """
        done = seconds = 0.0
        before = min(self._images, _FEW)
        known = self.seconds(before)
        while True:
            start = time.perf_counter()
            try:
                work = next(steps)
            except StopIteration as end:
                return end.value
            if work:
                done, seconds = done + work, seconds + time.perf_counter() - start
                if seconds > TIMED or not self.known:
                    self._images = before + done
                    self._seconds = (known + seconds) / self._images
            yield done


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One measurement, or an estimate of it.

    Attributes:
        images: images of each domain; None for all.
        calibration: source images on which BatchNorm is re-estimated; 0 if it is not.
        estimate: whether it is an estimate.
        work: see `Pace`.
    """

    images: int | None
    calibration: int
    estimate: bool
    work: float


class Workload:
    """The measurements of an explorer: how much work each is, and how long it takes.

    Args:
        study: the network and its domains; explorers of one study share its `pace`, as they share its results.
        images, calibration: see `Explorer`; images None for all.
        origin: the full network, where `study` is that of a smaller one.
    """

    def __init__(self, study: Study, *, images: int | None, calibration: int, origin: Origin | None = None) -> None:
        self.study, self.images, self.calibration, self.origin = study, images, calibration, origin
        self.pace = _paces.setdefault(study, Pace())
        self._full: set[int | None] = set()  # images on which the full network was evaluated

    def clear(self) -> None:
        """Forget which results the study has, because its network or images have changed."""
        self._full.clear()

    def exact(self, mask: Mask, batchnorm: BatchNorm) -> Piece:
        """Return the measurement of a mask."""
        return self._piece(mask, batchnorm, images=self.images, estimate=False)

    def estimate(self, mask: Mask, batchnorm: BatchNorm) -> Piece | None:
        """Return the estimate that comes first; None where all images are measured at once."""
        most = max(len(domain.rows(SPLIT, self.images)) for domain in self.study.domains)
        sizes = [size for size in _SIZES if size < most] or [most]
        pieces = [self._piece(mask, batchnorm, images=size, estimate=True) for size in sizes]
        exact = self.seconds(self.exact(mask, batchnorm))
        chosen = affordable(sizes, [self.seconds(piece) for piece in pieces], exact=exact)
        piece = pieces[sizes.index(chosen)]
        return piece if exact > QUICK and exact > 2 * self.seconds(piece) else None

    def seconds(self, *pieces: Piece) -> float:
        """Return how long measurements will take."""
        return self.pace.seconds(sum(piece.work for piece in pieces))

    def probe(self) -> Generator[None, None, None]:
        """Time the full network, if not done yet, on a few images, then on more while that is too quick to time."""
        if self.pace.known:
            return
        yield from yielding(self._few(_PROBES[0]), None)
        for images in _PROBES[1:]:
            if self.pace.seconds(images) <= TIMED:
                yield from yielding(self.pace.timed(self._few(images)), None)

    def run(self, piece: Piece, mask: Mask, batchnorm: BatchNorm) -> Generator[float, None, Frame]:
        """Return the frame of a mask; yields the work done so far."""
        steps = measure_frame(
            self.study,
            mask,
            batchnorm=batchnorm,
            images=piece.images,
            calibration=piece.calibration or self.calibration,
            estimate=piece.estimate,
            origin=self.origin,
        )
        frame = yield from self.pace.timed(steps)
        self._full.add(piece.images)
        return frame

    def _few(self, images: int) -> Generator[float, None, object]:
        steps = self.study.steps(None, domain=self.study.domains[0].name, split=SPLIT, images=images)
        return weighted(steps, 1.0)

    def _piece(self, mask: Mask, batchnorm: BatchNorm, *, images: int | None, estimate: bool) -> Piece:
        """A measurement; an estimate re-estimates BatchNorm on no more images than it measures."""
        measured = sum(len(domain.rows(SPLIT, images)) for domain in self.study.domains)
        calibration = 0
        if batchnorm == "recalibrate" and self.study.has_batchnorm:
            most = min(self.calibration, max(2, measured)) if estimate else self.calibration
            calibration = calibration_count(self.study.domains, most)
        work = time_share(mask) * (measured + calibration) + measured * (images not in self._full)
        return Piece(images=images, calibration=calibration, estimate=estimate, work=work)


def affordable(sizes: Sequence[int], seconds: Sequence[float], *, exact: float) -> int:
    """Return the number of images of an estimate, given how long estimates of each size and the exact numbers take.

    The largest size that takes less than 0.7 seconds and half the time of the exact numbers; a size up to 32 may take
    2.5 seconds, if that is less than an eighth of the exact numbers' time; at least the smallest size.

    >>> affordable([8, 16, 32, 64, 125], [0.08, 0.16, 0.32, 0.64, 1.25], exact=9.0)
    64
    >>> affordable([8, 16, 32, 64, 125], [1.0, 2.0, 4.0, 8.0, 16.0], exact=90.0)
    16
    >>> affordable([8, 16, 32], [0.25, 0.5, 1.0], exact=1.5)
    16
    """
    soon, later = min(_SOON, exact / 2), min(_LATER, exact / _SPARED)
    fit = [s for s, t in zip(sizes, seconds, strict=True) if t < soon or (s <= _FEW and t < later)]
    return max([min(sizes), *fit])


def reading_words(verb: str, steps: Iterable[tuple[int, int]]) -> Generator[str, None, None]:
    """Yield (images read, images in all) in words, with the time left; `steps` are not closed with this generator."""
    start, begun = time.perf_counter(), 0
    for done, total in steps:
        left = (time.perf_counter() - start) / max(1, done - begun) * (total - done) if begun else None
        begun = begun or done
        yield f"{verb}: {done:,} of {total:,} images" + ("" if left is None else f", about {duration(left)} left")
