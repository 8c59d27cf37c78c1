"""Time a sweep over ratios and scorers on two domains against loops over the peer, and against forward passes alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ...core import Domain, Scores, full_precision
from ...diagnostics import grid, sweep
from ...measurement import layout_of
from ...pruning import allocate, prune
from ...study import Study
from . import live, peer
from .cases import domains, network
from .timing import Row, race, require_same, seconds

SCORERS = ("random", "l1", "l2", "fpgm", "taylor_weight")
_SIZE = 250


@dataclass(frozen=True, kw_only=True)
class Plan(live.Plan):
    """A plan with the ratios and scorers of the sweep; its aim is a speed relative to the loop over the peer."""

    ratios: tuple[float, ...] = tuple(grid(0, 0.95, 20))
    scorers: tuple[str, ...] = SCORERS


GPU = (
    Plan(name="resnet18", pixels=32, images=1000, repeats=1),
    Plan(name="resnet18", pixels=96, images=1000, repeats=1),
)
FULL = (
    Plan(name="lenet", pixels=28, images=250, repeats=3, aim=">= 4"),
    Plan(name="resnet18", pixels=32, images=250, repeats=2, aim=">= 2"),
    Plan(name="vgg16_bn", pixels=32, images=32, repeats=1, aim=">= 4"),
)
QUICK = (Plan(name="lenet", pixels=28, images=64, repeats=1, ratios=tuple(grid(0, 0.9, 4)), scorers=("random", "l1")),)


def sweep_rows(device: torch.device, quick: bool) -> Iterator[Row]:
    """Time sweeps over 20 ratios and 5 scorers on 2 domains: LeNet, ResNet-18, VGG-16-bn; on a GPU ResNet-18."""
    for plan in QUICK if quick else FULL if device.type == "cpu" else GPU:
        yield from _rows(_Sweep(plan, device))


class _Sweep:
    """The four ways to run one plan, all with the same scores, which are computed beforehand."""

    def __init__(self, plan: Plan, device: torch.device) -> None:
        self.plan, self.device = plan, device
        self.model = network(plan.name).to(device)
        self.domains = [domain.to(device) for domain in domains(plan.pixels)]
        study = self._new_study()
        self.scores = study.score_all(plan.scorers)
        self.layers = {group.name: group.filters for group in study.graph.groups}
        self.batches = [self._read_batches(domain) for domain in self.domains]
        self.example = self.batches[0][0][0][:1]

    def _new_study(self) -> Study:
        return Study(self.model, sources=self.domains[:1], targets=self.domains[1:])

    def _read_batches(self, domain: Domain) -> peer.Batches:
        layout = layout_of(self.model, domain)  # the peer reads images in the faster layout, as we do
        batches = domain.batches("report", size=_SIZE, images=self.plan.images, device=self.device, layout=layout)
        return [(images, labels) for images, labels, _ in batches if labels is not None]

    def ours(self) -> peer.Accuracies:
        """Run our sweep on a new study with an empty cache, losses and intervals included."""
        frame = sweep(
            self._new_study(),
            scorers=self.scores,
            ratios=self.plan.ratios,
            images=self.plan.images,
            batchnorm="as_is",  # as the peer's loop
        )
        rows = frame[frame.metric == "accuracy"]
        scorers = {name: k for k, name in enumerate(self.plan.scorers)}
        positions = {domain.name: k for k, domain in enumerate(self.domains)}
        columns = zip(rows["scorer"], rows["ratio_requested"], rows["domain"], rows["value"], strict=True)
        return {(scorers[name], ratio, positions[domain]): value for name, ratio, domain, value in columns}

    def loop(self) -> peer.Accuracies:
        """Run Torch-Pruning with a new copy, a new graph and one pruning for each pruned network."""
        return self._run_peer(lambda: lambda removed: peer.prune_a_copy(self.model, self.example, removed))

    def stepwise(self) -> peer.Accuracies:
        """Run Torch-Pruning with one copy and one graph per scorer, pruned further at each ratio."""
        return self._run_peer(lambda: peer.Stepwise(self.model, self.example, layers=self.layers))

    def _run_peer(self, pruner: Callable[[], Callable[[Mapping[str, Sequence[int]]], nn.Module]]) -> peer.Accuracies:
        values = [scores.values for scores in self.scores]
        with full_precision(self.device):
            return peer.sweep(pruner, values, ratios=self.plan.ratios, domains=self.batches)

    def bare(self) -> float:
        """Return the seconds that the forward passes alone take, summed over all pruned networks."""
        return sum(self._time_forward(scores, ratio) for scores in self.scores for ratio in self.plan.ratios)

    def _time_forward(self, scores: Scores, ratio: float) -> float:
        small = prune(self.model, allocate(scores, ratio=ratio)).eval()
        with full_precision(self.device):
            return seconds(lambda: [peer.accuracy(small, batches) for batches in self.batches], self.device)


def _rows(item: _Sweep) -> Iterator[Row]:
    plan, device = item.plan, item.device
    results: dict[str, peer.Accuracies] = {}

    def timed(name: str) -> Callable[[], float]:
        return lambda: seconds(lambda: results.update({name: getattr(item, name)()}), device)

    sides = {"ours": timed("ours"), "bare": item.bare, "stepwise": timed("stepwise"), "loop": timed("loop")}
    times = race(sides, repeats=plan.repeats, warm_up=False)
    for name in ("stepwise", "loop"):
        check_accuracies(results["ours"], results[name], images=plan.images, exact=device.type == "cpu")
    counts = f"{len(plan.ratios)} ratios x {len(plan.scorers)} scorers x 2 domains"
    size = f"{counts} of {plan.images} images of {plan.pixels} px, scores ready"
    bare = "> 1" if device.type == "cpu" else ">= 0.83"  # a CPU runs the layers that no mask changes only once
    notes = {
        "loop": ("a copy and a graph per network", plan.aim, "a user's loop over Torch-Pruning"),
        "stepwise": ("one graph per scorer", "", "Torch-Pruning pruned further ratio by ratio"),
        "bare": ("forward passes alone", bare, "predictions of ready pruned networks, nothing else"),
    }
    shared = {"ours": times["ours"], "repeats": plan.repeats, "device": device.type}
    for key, (text, aim, note) in notes.items():
        name = f"sweep, {plan.name}, {plan.pixels} px: against {text}"
        yield Row(name=name, peer=times[key], aim=aim, note=f"peer: {note}; {size}", **shared)


def check_accuracies(ours: peer.Accuracies, other: peer.Accuracies, *, images: int, exact: bool) -> None:
    """Require that both sides computed the same accuracies: exactly on the CPU, within 2 % on a GPU."""
    slack = 1e-9 if exact else 0.02 + 1 / images
    same = ours.keys() == other.keys() and all(abs(ours[key] - other[key]) <= slack for key in ours)
    require_same(same, "accuracies")
