"""A sweep over ratios and scorers on two domains, against loops over the peer and against the forward passes alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ...core import Domain, Scores
from ...diagnostics import grid, sweep
from ...measurement import layout_of
from ...pruning import allocate, prune
from ...study import Study
from . import peer
from .cases import domains, network
from .timing import Row, race, seconds

SCORERS = ("random", "l1", "l2", "fpgm", "taylor_weight")
_SIZE = 250


@dataclass(frozen=True)
class Plan:
    """How large a sweep is.

    Attributes:
        name: of the network.
        pixels: height and width of the images.
        images: of each of the two domains.
        repeats: counted turns.
        aim: how many times faster than the loop over the peer.
        ratios: shares removed.
        scorers: whose scores decide.
    """

    name: str
    pixels: int
    images: int
    repeats: int
    aim: str
    ratios: tuple[float, ...] = tuple(grid(0, 0.95, 20))
    scorers: tuple[str, ...] = SCORERS


FULL = (Plan("lenet", 28, 250, 3, ">= 4"), Plan("resnet18", 32, 250, 2, ">= 2"), Plan("vgg16_bn", 32, 32, 1, ">= 4"))
QUICK = (Plan("lenet", 28, 64, 1, "", tuple(grid(0, 0.9, 4)), ("random", "l1")),)


def sweep_rows(device: torch.device, quick: bool) -> Iterator[Row]:
    """20 ratios by 5 scorers on 2 domains: LeNet, ResNet-18, VGG-16-bn."""
    for plan in QUICK if quick else FULL:
        yield from _rows(_Sweep(plan, device), device)


class _Sweep:
    """One plan, and the four ways to run it; scores are made beforehand for all."""

    def __init__(self, plan: Plan, device: torch.device) -> None:
        self.plan, self.device = plan, device
        self.model = network(plan.name).to(device)
        self.domains = [domain.to(device) for domain in domains(plan.pixels)]
        study = self._study()
        self.scores = study.score_all(plan.scorers)
        self.layers = {group.name: group.filters for group in study.graph.groups}
        self.batches = [self._batches(domain) for domain in self.domains]
        self.example = self.batches[0][0][0][:1]

    def _study(self) -> Study:
        return Study(self.model, sources=self.domains[:1], targets=self.domains[1:])

    def _batches(self, domain: Domain) -> peer.Batches:
        layout = layout_of(self.model, domain)  # the peer reads images in the layout that is faster, as we do
        found = domain.batches("report", size=_SIZE, images=self.plan.images, device=self.device, layout=layout)
        return [(images, labels) for images, labels, _ in found if labels is not None]

    def ours(self) -> peer.Found:
        """A new study, so that nothing is cached, and its sweep with losses and intervals."""
        frame = sweep(self._study(), scorers=self.scores, ratios=self.plan.ratios, images=self.plan.images)
        mine = frame[frame.metric == "accuracy"]
        scorers = {name: k for k, name in enumerate(self.plan.scorers)}
        places = {domain.name: k for k, domain in enumerate(self.domains)}
        columns = zip(mine["scorer"], mine["ratio_requested"], mine["domain"], mine["value"], strict=True)
        return {(scorers[name], ratio, places[domain]): value for name, ratio, domain, value in columns}

    def loop(self) -> peer.Found:
        """Torch-Pruning: a copy, a graph and a cut for each network."""
        return self._peer(lambda _: lambda removed: peer.cut_a_copy(self.model, self.example, removed))

    def stepwise(self) -> peer.Found:
        """Torch-Pruning: one copy and one graph per scorer, cut further at each ratio."""
        return self._peer(lambda _: peer.Stepwise(self.model, self.example, self.layers))

    def _peer(self, cutter: Callable[[peer.Scored], Callable[[Mapping[str, Sequence[int]]], nn.Module]]) -> peer.Found:
        return peer.sweep(cutter, [scores.values for scores in self.scores], self.plan.ratios, self.batches)

    def bare(self) -> float:
        """Seconds of the forward passes of all pruned networks, and of nothing else."""
        return sum(self._forward(scores, ratio) for scores in self.scores for ratio in self.plan.ratios)

    def _forward(self, scores: Scores, ratio: float) -> float:
        small = prune(self.model, allocate(scores, ratio=ratio)).eval()
        return seconds(lambda: [peer.accuracy(small, batches) for batches in self.batches], self.device)


def _rows(item: _Sweep, device: torch.device) -> Iterator[Row]:
    plan = item.plan
    results: dict[str, peer.Found] = {}

    def timed(name: str, side: Callable[[], peer.Found]) -> Callable[[], float]:
        return lambda: seconds(lambda: results.__setitem__(name, side()), device)

    found = race(
        {
            "ours": timed("ours", item.ours),
            "bare": item.bare,
            "stepwise": timed("stepwise", item.stepwise),
            "loop": timed("loop", item.loop),
        },
        repeats=plan.repeats,
        warm_up=False,
    )
    for name in ("stepwise", "loop"):
        check_accuracies(results["ours"], results[name], images=plan.images, exact=device.type == "cpu")
    counts = f"{len(plan.ratios)} ratios x {len(plan.scorers)} scorers x 2 domains"
    size = f"{counts} of {plan.images} images of {plan.pixels} px, scores ready"
    notes = {
        "loop": ("a copy and a graph per network", plan.aim, f"peer: a user's loop over Torch-Pruning; {size}"),
        "stepwise": ("one graph per scorer", "", f"peer: Torch-Pruning cut further ratio by ratio; {size}"),
        "bare": ("forward passes alone", "> 1", f"peer: predictions of ready pruned networks, nothing else; {size}"),
    }
    for key, (words, aim, note) in notes.items():
        name = f"sweep, {plan.name}: against {words}"
        yield Row(name, found["ours"], found[key], "s", plan.repeats, device.type, aim, note)


def check_accuracies(ours: peer.Found, other: peer.Found, *, images: int, exact: bool) -> None:
    """Both sides found the same accuracies: to the image on the CPU, to 2 % on a GPU.

    Raises:
        RuntimeError: they did not, so their times mean nothing.
    """
    slack = 1e-9 if exact else 0.02 + 1 / images
    if ours.keys() != other.keys() or any(abs(ours[key] - other[key]) > slack for key in ours):
        raise RuntimeError("the sweep and the peer's loop found different accuracies; their times cannot be compared.")
