"""Measurements of one explorer, cached; independent of the widget."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypedDict

from ...core import BatchNorm, Budget, Mask, Scope, Scores, choice, roles_of
from ...diagnostics._removal import check_names
from ...measurement import LATENCY_IMAGES
from ...pruning import allocate, checked_ratio, removal_order
from ...scorers import SCORERS, Scorer, resolve
from ...study import Study, fingerprint, mask_provenance, scoring
from ..panels.menu_scores import label
from . import plans
from .frames import CALIBRATION, SPLIT, Frame, Row, all_images, curve_rows, latency_steps, latency_text
from .menu import static_state
from .workload import TIMED, Piece, Workload, duration

CURVE_RATIOS = [round(k / 20, 2) for k in range(20)]
_LONG, _SLOW = 5.0, 20.0  # seconds: for a curve that is announced; for one of which estimates come first

Key = tuple[str, ...]


class Choices(TypedDict):
    """The state of the controls. `id` grows with each change; `by` says whether the web page or Python made it."""

    id: int
    ratio: float
    scorer: str
    scope: Scope
    budget: Budget
    batchnorm: BatchNorm
    by: str


def frame_key(choices: Choices) -> Key:
    """Return the choices that all frames of one curve share, as a key."""
    return choices["scorer"], choices["scope"], choices["budget"], choices["batchnorm"]


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
        self.menu: dict[str, Scorer | Scores] = dict(SCORERS)
        self.evaluations = {"requested": 0, "background": 0}
        self._frames: dict[Key, dict[float, Frame]] = {}
        self._plans: dict[Key, Row] = {}
        self._content = study.content
        self._read: dict[str, str] = {}  # scorer -> its function and the variables that it reads
        self._full_latency: list[float] | None = None
        self._scoring: tuple[object, Generator[tuple[int, int], None, Scores]] | None = None
        check_names(list({id(item): item for item in scorers if not isinstance(item, str)}.values()))
        for item in scorers:
            self.admit(item)

    def admit(self, item: str | Scorer | Scores) -> str:
        """Add a scorer to the menu and return its name; it replaces a scorer of the same name and its results."""
        if isinstance(item, str):
            return item if item in self.menu else resolve(item).name
        name = item.scorer if isinstance(item, Scores) else resolve(item).name
        if isinstance(item, Scores):
            self.study.score(item)  # refuses those of another network
        if self.menu.get(name) is not item:
            self.menu[name] = item
            self._forget(name)
        return name

    def _forget(self, name: str) -> None:
        """Discard the results of a scorer."""
        for cache in (self._frames, self._plans):
            for key in [key for key in cache if key[0] == name]:
                del cache[key]

    def checked(self, choices: Mapping[str, Any]) -> Choices:
        """Return the choices if their ratio, scorer, scope, budget and BatchNorm setting are valid.

        Raises:
            DgpruneError: one of them is not.
        """
        name = self.admit(choices["scorer"])
        return Choices(
            id=int(choices["id"]),
            ratio=checked_ratio(choices["ratio"]),
            scorer=name,
            by=str(choices["by"]),
            scope=choice("scope", choices["scope"], Scope),  # type: ignore[typeddict-item]
            budget=choice("budget", choices["budget"], Budget),  # type: ignore[typeddict-item]
            batchnorm=choice("batchnorm", choices["batchnorm"], BatchNorm),  # type: ignore[typeddict-item]
        )

    def static(self) -> Row:
        """Return the state of a page before anything is measured."""
        with self.study.assume_unchanged():
            return static_state(self.study, items=list(self.menu.values()))

    def unavailable(self, name: str) -> str | None:
        """Return why a scorer of the menu cannot run on this study; None if it can."""
        item = self.menu[name]
        return self.study.unavailable(item) if isinstance(item, Scorer) else None

    def label(self, choices: Choices) -> str:
        """Return the label of a view: scorer and ratio."""
        return f"{label(self.study, self.menu[choices['scorer']])}, {100 * choices['ratio']:.0f} %"

    def scoring(self, choices: Choices) -> Generator[str, None, None]:
        """Compute the scores of a view; yields after each batch what is being done, in words.

        If a job that was dropped had begun the same pass over the images, it goes on where it was.
        """
        item = self.menu[choices["scorer"]]
        if self._scoring is None or self._scoring[0] is not item:
            self._scoring = item, scoring(self.study, item, alongside=self._others())
        start, begun = time.perf_counter(), 0
        while True:
            try:
                done, total = next(self._scoring[1])
            except BaseException as end:
                self._scoring = None
                if isinstance(end, StopIteration):
                    return
                raise
            left = (time.perf_counter() - start) / max(1, done - begun) * (total - done) if begun else None
            begun = begun or done
            yield f"scoring: {done:,} of {total:,} images" + ("" if left is None else f", about {duration(left)} left")

    def scores(self, choices: Choices) -> Scores:
        """Return the scores of a view's scorer; the pass over the images also serves other scorers of the menu."""
        return self.study.score_all([self.menu[choices["scorer"]]], alongside=self._others())[0]

    def _others(self) -> list[Scorer]:
        return [item for item in self.menu.values() if isinstance(item, Scorer)]

    def mask(self, choices: Choices) -> Mask:
        """Return the mask of a view: which filters stay."""
        return allocate(self.scores(choices), ratio=choices["ratio"], scope=choices["scope"], budget=choices["budget"])

    def plan(self, choices: Choices) -> Row:
        """Return the plan (removal order and steps) with a step for exactly this ratio, and the scorer's `exposure`.

        Discards all earlier results if the network was changed in place, and a scorer's results if a variable that it
        reads has changed.
        """
        if self.study.content != self._content:
            self._content = self.study.content
            self._frames.clear()
            self._plans.clear()
            self.load.clear()
            self._full_latency = None
        item = self.menu[choices["scorer"]]
        read = fingerprint(item.function).key if isinstance(item, Scorer) else ""
        if self._read.setdefault(choices["scorer"], read) != read:
            self._read[choices["scorer"]] = read
            self._forget(choices["scorer"])
        scope, budget, ratio = choices["scope"], choices["budget"], choices["ratio"]
        scores = self.scores(choices)
        key = frame_key(choices)[:3]
        if key not in self._plans:
            self._plans[key] = plans.plan(scores, scope=scope, budget=budget)
        plan = self._plans[key]
        if all(step["ratio"] != ratio for step in plan["steps"]):
            order = removal_order(scores, scope=scope)
            step = plans.step(scores, order, ratio=ratio, scope=scope, budget=budget)
            plan = self._plans[key] = {**plan, "steps": sorted([*plan["steps"], step], key=lambda s: s["ratio"])}
        mask, batchnorm = self.mask(choices), choices["batchnorm"]
        provenance = mask_provenance(self.study.provenance, mask, batchnorm=batchnorm, study=self.study)
        notice = provenance.notice(roles_of(self.study.domains), split=SPLIT)
        return {**plan, "exposure": None if notice is None else notice._asdict()}

    def curve(self, choices: Choices) -> Row:
        """Return every frame of this view's curve by ratio, and the rows of the lines through frames on all images."""
        frames = [frame for _, frame in sorted(self._frames.get(frame_key(choices), {}).items())]
        points = [point for frame in frames if not frame.is_estimate for point in frame.points]
        rows = [frame.payload for frame in frames]
        return {"key": list(frame_key(choices)), "rows": rows, "lines": curve_rows(points)}

    def exact(self, choices: Choices) -> Frame | None:
        """Return the frame of exactly this ratio on all images; None if it is not measured."""
        frame = self._frames.get(frame_key(choices), {}).get(choices["ratio"])
        return None if frame is None or frame.is_estimate else frame

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

    def fill(self, choices: Choices) -> Generator[tuple[int, int, str], None, None]:
        """Measure the missing ratios of the curve, the nearest to the view first; estimate slow ones before.

        Yields at each step the number of ratios done, that of all, and what is being done, in words.
        """
        batchnorm = choices["batchnorm"]
        nearest = sorted(CURVE_RATIOS, key=lambda ratio: abs(ratio - choices["ratio"]))
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
        """Whether there is neither such a frame nor a better one."""
        frame = self._frames.get(frame_key(choices), {}).get(choices["ratio"])
        return frame is None or (frame.is_estimate and not piece.estimate)

    def time(self, choices: Choices) -> Generator[None, None, None]:
        """Add the latency to a measured view, compared with the full network's."""
        slow = self.load.pace.seconds(LATENCY_IMAGES) > TIMED
        if self._full_latency is None:
            self._full_latency = yield from latency_steps(self.study, None, slow=slow)
        frame = self.exact(choices)
        if frame is not None and frame.payload["latency"] is None:
            milliseconds = yield from latency_steps(self.study, self.mask(choices), slow=slow)
            images = min(LATENCY_IMAGES, len(self.study.domains[0].rows(SPLIT)))
            latency = latency_text(milliseconds, full=self._full_latency, images=images)
            timed = replace(frame, payload={**frame.payload, "latency": latency})
            self._frames[frame_key(choices)][choices["ratio"]] = timed

    def _add(self, choices: Choices, mask: Mask, *, piece: Piece) -> Generator[float, None, None]:
        """Add a frame of a view; yields the work done so far."""
        frame = yield from self.load.run(piece, mask, choices["batchnorm"])
        self._frames.setdefault(frame_key(choices), {})[choices["ratio"]] = frame
