"""Measurements of one explorer, cached; independent of the widget."""

from __future__ import annotations

import copy
from collections.abc import Generator, Mapping, Sequence
from typing import Any

from torch import nn

from ...core import Mask, Scores, duration
from ...diagnostics._removal import check_names
from ...measurement import LATENCY_IMAGES, recalibrate
from ...scorers import SCORERS, Scorer, resolve
from ...study import Study, fingerprint, scoring
from ..panels.menu_scores import label
from .choices import Choices, Key, as_lists, checked_choices, choices_of, frame_key, setting_words
from .frames import CALIBRATION, SPLIT, Frame, Origin, Row, all_images, curve_rows, latency_steps, with_latency
from .menu import static_state
from .plans import Plans, put_newest
from .workload import TIMED, Piece, Workload, reading_words

CURVE_RATIOS = [round(k / 20, 2) for k in range(20)]
_LONG, _SLOW = 5.0, 20.0  # seconds: for a curve that is announced; for one of which estimates come first


class Measurements:
    """The masks, plans and measured frames of a study with one menu of scorers.

    Args:
        study: the network and its domains.
        scorers: scorers for the menu, besides the built-in ones.
        images, calibration: see `Explorer`; images None for all.

    Attributes:
        menu: name -> scorer.
        evaluations: number of networks measured on request, and to fill the curves, without estimates.
        load: how much work measurements are.
        origin: the full network, where `study` is that of a later step; see `at`.
        full: the study of the full network.
    """

    def __init__(
        self,
        study: Study,
        *,
        scorers: Sequence[str | Scorer | Scores],
        images: int | None = None,
        calibration: int = CALIBRATION,
    ) -> None:
        self.study, self.load = study, Workload(study, images=images, calibration=calibration)
        self.full, self.origin = study, None
        self.menu: dict[str, Scorer | Scores] = dict(SCORERS)
        self.evaluations = {"requested": 0, "background": 0}
        self._frames: dict[Key, dict[float, Frame]] = {}
        self.plans = Plans(study, full=study, taken=None)
        self._content, self._graph = self._contents(), study.graph
        self._read: dict[str, str] = {}  # scorer -> its function and the variables that it reads
        self._known: dict[str, Scores] = {}  # scorer -> its latest scores
        self._full_latency: list[float] | None = None
        self._scoring: tuple[object, Generator[tuple[int, int], None, Scores]] | None = None
        check_names(list({id(item): item for item in scorers if not isinstance(item, str)}.values()))
        for item in scorers:
            self.admit(item)

    def at(self, study: Study, *, origin: Origin) -> Measurements:
        """Return the measurements of the network of a later step, with the same menu, plans and frames."""
        later = copy.copy(self)
        later.study, later.origin = study, origin
        later.plans = Plans(study, full=self.full, taken=origin.taken, cached=self.plans.cached)
        later.load = Workload(study, images=self.load.images, calibration=self.load.calibration, origin=origin)
        later._known, later._scoring, later._content = {}, None, later._contents()
        return later

    def _contents(self) -> tuple[str, str]:
        return self.full.content, self.study.content

    def admit(self, item: str | Scorer | Scores) -> str:
        """Add a scorer to the menu and return its name; it replaces a scorer of the same name and its results."""
        if isinstance(item, str):
            return item if item in self.menu else resolve(item).name
        name = self.study.score(item).scorer if isinstance(item, Scores) else resolve(item).name  # fits this network
        if self.menu.get(name) is not item:
            self.menu[name] = item
            self._forget(name)
        return name

    def _forget(self, name: str) -> None:
        """Discard the results of a scorer."""
        self._known.pop(name, None)
        for cache in (self._frames, self.plans.cached):
            for key in [key for key in cache if key[0] == name]:
                del cache[key]

    def checked(self, choices: Mapping[str, Any], *, steps: Sequence[int] = (0,)) -> Choices:
        """Return the choices if all of them are valid; see `checked_choices`."""
        name = self.admit(choices["scorer"])
        return checked_choices(choices, scorer=name, graph=self._graph, steps=steps)

    def static(self) -> Row:
        """Return the state of a page before anything is measured."""
        with self.study.assume_unchanged():
            return static_state(self.study, items=list(self.menu.values()))

    def unavailable(self, name: str) -> str | None:
        """Return why a scorer of the menu cannot run on this study; None if it can."""
        item = self.menu[name]
        return self.study.unavailable(item) if isinstance(item, Scorer) else None

    def label(self, choices: Choices, *, tree: bool = True) -> str:
        """Return the label of a view: scorer, ratio and what differs from the defaults, and with `tree` the step."""
        setting = setting_words(choices, has_batchnorm=self.full.has_batchnorm, tree=tree)
        return f"{label(self.full, self.menu[choices['scorer']])}, {setting}"

    def scoring(self, choices: Choices) -> Generator[str, None, None]:
        """Compute the scores of a view; yields the progress in words after each batch.

        If a job that was dropped had begun the same pass over the images, that pass is resumed.
        """
        item = self.menu[choices["scorer"]]
        if self._scoring is None or self._scoring[0] is not item:
            self._scoring = item, scoring(self.study, item, alongside=self._others())
        try:
            yield from reading_words("scoring", self._scoring[1])
        except GeneratorExit:
            raise
        except BaseException:
            self._scoring = None
            raise
        self._scoring = None

    def scores(self, choices: Choices) -> Scores:
        """Return the scores of a view's scorer; the pass over the images also serves other scorers of the menu."""
        return self.study.score_all([self.menu[choices["scorer"]]], alongside=self._others())[0]

    def _others(self) -> list[Scorer]:
        return [item for item in self.menu.values() if isinstance(item, Scorer)]

    def mask(self, choices: Choices) -> Mask:
        """Return the mask of a view: which filters of the step's network stay."""
        return self.plans.cut(self.scores(choices), choices).mask

    @property
    def taken(self) -> Mask | None:
        """Which filters of the full network the step has; None for the full network."""
        return None if self.origin is None else self.origin.taken

    def full_mask(self, mask: Mask) -> Mask:
        """Convert a mask of this step's network to a mask of the full network."""
        return mask if self.origin is None else self.origin.full_mask(mask)

    def possible_ratio(self, choices: Choices) -> float:
        """Return the possible ratio nearest to that of the choices, given layers and filters by hand."""
        return self.plans.cut(self.scores(choices), choices).ratio

    def network(self, choices: Choices) -> nn.Module:
        """Return a separate network of a view, ready to save: pruned, and recalibrated if the view says so."""
        network = self.study.network(self.mask(choices), batchnorm="as_is")
        again = choices["batchnorm"] == "recalibrate" and self.study.has_batchnorm
        return recalibrate(network, self.study.sources, self.load.calibration) if again else network

    def is_outdated(self, choices: Choices) -> bool:
        """Return whether the network, or a variable that the scorer reads, has changed since the last plan."""
        return self._is_outdated(choices["scorer"]) or self._contents() != self._content

    def _is_outdated(self, name: str) -> bool:
        """Whether a variable that a scorer reads has changed since its results were computed."""
        return self._read.setdefault(name, now := self._reading(name)) != now

    def _reading(self, name: str) -> str:
        item = self.menu[name]
        return fingerprint(item.function).key if isinstance(item, Scorer) else ""

    def plan(self, choices: Choices) -> Row:
        """Return the plan (removal order and steps) with a step for exactly this ratio, and the scorer's `exposure`.

        Discards what `is_outdated` finds to come from an earlier state of the network or scorer.
        """
        if self._contents() != self._content:
            self._content, self._graph = self._contents(), self.full.graph
            for cache in (self._frames, self.plans.cached, self._known):
                cache.clear()
            self.load.clear()
            self._full_latency = None
        if self._is_outdated(name := choices["scorer"]):
            self._forget(name)
            self._read[name] = self._reading(name)
        scores = self._known[name] = self.scores(choices)
        return self.plans.plan(scores, choices)

    def plan_at_once(self, choices: Choices) -> Row | None:
        """Return a plan with the step of this ratio only, for while a layer's handle moves; quick, as it reads no data.

        None if there is a whole plan already, or if the scores are not known yet.
        """
        scores = self._known.get(choices["scorer"])
        return None if scores is None else self.plans.at_once(scores, choices)

    def curve(self, choices: Choices) -> Row:
        """Return every frame of this view's curve by ratio, and the rows of the lines through frames on all images."""
        frames = [frame for _, frame in sorted(self._frames.get(frame_key(choices), {}).items())]
        exact = [f for f in frames if not f.is_estimate and self.plans.allows(choices, f.payload["ratio"])]
        rows, points = [frame.payload for frame in frames], [point for frame in exact for point in frame.points]
        return {"key": as_lists(frame_key(choices)), "rows": rows, "lines": curve_rows(points)}

    def tried(self) -> list[tuple[Choices, Frame]]:
        """Return all views measured on all images, of every step and setting, by scorers not changed since."""
        now = {name for name in {key[0] for key in [*self._frames]} & {*self.menu} if not self._is_outdated(name)}
        curves = [(key, list(frames.items())) for key, frames in list(self._frames.items()) if key[0] in now]
        pairs = [(key, ratio, frame) for key, frames in curves for ratio, frame in frames if not frame.is_estimate]
        return [(choices_of(key, ratio), frame) for key, ratio, frame in pairs]

    def exact(self, choices: Choices) -> Frame | None:
        """Return the frame of exactly this ratio on all images; None if not measured, or if its scorer has changed."""
        frame = self._frames.get(frame_key(choices), {}).get(choices["ratio"])
        return None if frame is None or frame.is_estimate or self._is_outdated(choices["scorer"]) else frame

    def measure(self, choices: Choices) -> Generator[tuple[str, bool], None, None]:
        """Measure a view; if that takes long, first estimate it.

        Yields what is being done, in words, and whether there is a new frame.
        """
        self.evaluations["requested"] += 1
        yield from (("", False) for _ in self.load.probe())
        mask, batchnorm = self.mask(choices), choices["batchnorm"]
        exact, estimate = self.load.exact(mask, batchnorm), self.load.estimate(mask, batchnorm)
        name = "all images" if all_images(self.study, exact.images) else f"{exact.images} images a domain"
        if estimate is not None:
            soon, later = (duration(self.load.seconds(piece)) for piece in (estimate, exact))
            yield f"estimate from {estimate.images} images a domain in about {soon}, {name} in about {later}", False
            yield from (("", False) for _ in self._add(choices, mask, piece=estimate))
            yield f"{name} in about {duration(self.load.seconds(exact))}", True
        for done in self._add(choices, mask, piece=exact):
            yield f"{name} in about {duration(self.load.pace.seconds(max(0.0, exact.work - done)))}", False
        yield "", True

    def fill(
        self, choices: Choices, ratios: Sequence[float] = CURVE_RATIOS
    ) -> Generator[tuple[int, int, str], None, None]:
        """Measure the missing ratios of the curve, the nearest to the view first; estimate slow ones before.

        Yields at each step the number of ratios done, the total number, and what is being done, in words.
        """
        batchnorm = choices["batchnorm"]
        possible = [ratio for ratio in ratios if self.plans.allows(choices, ratio)]
        nearest = sorted(possible, key=lambda ratio: abs(ratio - choices["ratio"]))
        views: list[Choices] = [{**choices, "ratio": ratio} for ratio in nearest]
        with self.study.assume_unchanged():
            masks = {view["ratio"]: self.mask(view) for view in views}
        exact = [(view, self.load.exact(masks[view["ratio"]], batchnorm)) for view in views]
        slow = self.load.seconds(*(piece for view, piece in exact if self._lacks(view, piece))) > _SLOW
        estimates = [(view, self.load.estimate(masks[view["ratio"]], batchnorm)) for view in views if slow]
        for verb, pieces in (("estimating", estimates), ("measuring", exact)):
            todo = [(view, piece) for view, piece in pieces if piece is not None and self._lacks(view, piece)]
            for k, (view, piece) in enumerate(todo):
                self.evaluations["background"] += not piece.estimate
                done, total = len(views) - len(todo) + k, len(views)
                seconds = self.load.seconds(*(later for _, later in todo[k:]))
                left = f", about {duration(seconds)} left" if seconds > _LONG else ""
                for _ in self._add(view, masks[view["ratio"]], piece=piece):
                    yield done, total, f"{verb} {done} of {total}{left}"
                yield done + 1, total, f"{verb} {done + 1} of {total}{left}"

    def _lacks(self, choices: Choices, piece: Piece) -> bool:
        """Whether there is neither this frame nor a better one."""
        frame = self._frames.get(frame_key(choices), {}).get(choices["ratio"])
        return frame is None or (frame.is_estimate and not piece.estimate)

    def time(self, choices: Choices) -> Generator[None, None, None]:
        """Add the latency to a measured view, compared with the full network's."""
        slow = self.load.pace.seconds(LATENCY_IMAGES) > TIMED
        if self._full_latency is None:
            self._full_latency = yield from latency_steps(self.full, None, slow=slow)
        frame = self.exact(choices)
        if frame is not None and frame.payload["latency"] is None:
            milliseconds = yield from latency_steps(self.study, self.mask(choices), slow=slow)
            images = min(LATENCY_IMAGES, len(self.study.domains[0].rows(SPLIT)))
            timed = with_latency(frame, milliseconds, full=self._full_latency, images=images)
            self._frames.get(frame_key(choices), {})[choices["ratio"]] = timed

    def _add(self, choices: Choices, mask: Mask, *, piece: Piece) -> Generator[float, None, None]:
        """Add a frame of a view; yields the work done so far."""
        frame = yield from self.load.run(piece, mask, choices["batchnorm"])
        key = frame_key(choices)
        put_newest(self._frames, key, {**self._frames.get(key, {}), choices["ratio"]: frame})
