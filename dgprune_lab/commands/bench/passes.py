"""The one pass that leaves what scorers need: against a bare forward and backward pass, and against a pass for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from ...core import Domain, Need, Scores, noted
from ...measurement import SIZE, gather, layout_of
from ...pruning import read_groups
from ...scorers import SCORERS
from ...study import Study
from .cases import domains, network
from .timing import Row, race, seconds

AWARE = (
    "dss",
    "dss_sources",
    "risk_variance",
    "gradient_agreement",
    "gradient_snr",
    "gc_net",
    "taylor",
    "activation_l1",
    "apoz",
)


@dataclass(frozen=True)
class Plan:
    """One network, and how often both sides run.

    Attributes:
        name: of the network.
        pixels: height and width of the images.
        images: of the one pass.
        repeats: counted turns of the pass, and of all scorers.
    """

    name: str
    pixels: int
    images: int
    repeats: tuple[int, int]


FULL = (Plan("lenet", 28, 500, (15, 7)), Plan("resnet18", 32, 500, (9, 5)))
QUICK = (Plan("lenet", 28, 60, (1, 1)),)


def pass_rows(device: torch.device, quick: bool) -> Iterator[Row]:
    """LeNet and ResNet-18: what all domain-aware scorers need in one pass, and their scores from it."""
    for plan in QUICK if quick else FULL:
        yield _one_pass(plan, device)
        yield _shared(plan, device)


def needs() -> list[Need]:
    """What all domain-aware scorers together gather with their defaults."""
    return sorted(set().union(*(SCORERS[name].gathered(SCORERS[name].settled({})) for name in AWARE)))


def _one_pass(plan: Plan, device: torch.device) -> Row:
    model = network(plan.name).to(device)
    full = domains(plan.pixels)[0].to(device)
    domain = replace(full, splits={"score": full.rows("train", plan.images)})
    layout = layout_of(model, domain)
    graph = read_groups(model, domain.take(torch.arange(2), device=device).images)
    wanted, risks = needs(), [0.0, 0.0]

    def ours() -> None:
        found = gather(model, graph, domain=domain, needs=wanted, layout=layout)
        assert found.risk is not None
        risks[0] = found.risk

    def bare() -> None:
        model.zero_grad()
        risks[1] = 0.0
        for images, labels, _ in domain.batches("score", size=SIZE, device=device, layout=layout):
            assert labels is not None
            loss = F.cross_entropy(model(images), labels, reduction="sum")
            loss.backward()
            risks[1] += float(loss.detach()) / plan.images

    found = race(
        {"ours": lambda: seconds(ours, device), "bare": lambda: seconds(bare, device)}, repeats=plan.repeats[0]
    )
    check_risks(*risks)
    return Row(
        f"one pass, {plan.name}: against forward + backward",
        found["ours"] * 1e3,
        found["bare"] * 1e3,
        "ms",
        plan.repeats[0],
        device.type,
        ">= 0.67",
        f"peer: gradients of all parameters and nothing else; ours: all that {len(AWARE)} domain-aware scorers need "
        f"({', '.join(wanted)}); {plan.images} images of {plan.pixels} px, batches of {SIZE}",
    )


def _shared(plan: Plan, device: torch.device) -> Row:
    model = network(plan.name).to(device)
    held = [_first(domain, plan.images) for domain in domains(plan.pixels, ("mnist", "uci_digits", "mnist_m"))]
    results: dict[str, list[Scores]] = {}

    def fresh() -> Study:
        """A study that has run no pass, but knows all that comes before one: groups, shapes of maps, its hashes."""
        study = Study(model, sources=held[:2], targets=held[2:])
        assert study.key and study.unavailable(SCORERS["dss"]) is None
        return study

    def timed(action: Callable[[Study], Sequence[Scores]], key: str) -> float:
        study = fresh()
        with study.held(), noted(lambda _: None):
            return seconds(lambda: results.setdefault(key, []).extend(action(study)), device)

    def together() -> float:
        results["together"] = []
        return timed(lambda study: study.score_all(AWARE), "together")

    def alone() -> float:
        results["alone"] = []
        return sum(timed(lambda study, name=name: [study.score(name)], "alone") for name in AWARE)

    found = race({"ours": together, "alone": alone}, repeats=plan.repeats[1])
    check_scores(results["together"], results["alone"])
    counts = " + ".join(str(len(domain.rows("score"))) for domain in held)
    return Row(
        f"domain-aware scorers, {plan.name}: against a pass for each",
        found["ours"],
        found["alone"],
        "s",
        plan.repeats[1],
        device.type,
        ">= 5",
        f"peer: our own scorers, each on a study that has run no pass; {len(AWARE)} scorers, two sources and a target "
        f"of {counts} images",
    )


def _first(domain: Domain, images: int) -> Domain:
    return replace(domain, splits={"score": domain.rows("score", images)})


def check_risks(ours: float, other: float) -> None:
    """Both sides found the same mean cross-entropy.

    Raises:
        RuntimeError: they did not, so their times mean nothing.
    """
    if abs(ours - other) > 1e-4 * abs(other):
        raise RuntimeError("the pass and the peer found different risks; their times cannot be compared.")


def check_scores(ours: Sequence[Scores], other: Sequence[Scores]) -> None:
    """Both sides gave the same scores, in the same order.

    Raises:
        RuntimeError: they did not, so their times mean nothing.
    """
    for a, b in zip(ours, other, strict=True):
        if a.scorer != b.scorer or any(not torch.allclose(a.values[k], b.values[k], atol=1e-4) for k in a.values):
            raise RuntimeError("one pass and a pass for each gave different scores; their times cannot be compared.")
