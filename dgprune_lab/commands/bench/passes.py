"""Time the one pass that serves all scorers, against a bare forward and backward pass and a pass per scorer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from ...core import Need, Scores, collect_notes, full_precision
from ...measurement import GRADIENT_IMAGES, gather, layout_of
from ...pruning import read_groups
from ...scorers import SCORERS
from ...study import Study
from .cases import domains, network
from .timing import Row, race, race_calls, require_same, seconds

AWARE = ("dss", "dss_sources", "risk_variance", "gradient_agreement", "gradient_snr")
AWARE += ("gc_net", "taylor", "activation_l1", "apoz")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A network, the number of images in the pass, and how often to time the pass and all scorers."""

    name: str
    pixels: int
    images: int
    repeats: tuple[int, int]


FULL = (
    Plan(name="lenet", pixels=28, images=500, repeats=(15, 7)),
    Plan(name="resnet18", pixels=32, images=500, repeats=(9, 5)),
)
QUICK = (Plan(name="lenet", pixels=28, images=60, repeats=(1, 1)),)


def pass_rows(device: torch.device, quick: bool) -> Iterator[Row]:
    """Time the one pass for all domain-aware scorers, and their scores from it, on LeNet and ResNet-18."""
    for plan in QUICK if quick else FULL:
        yield _single_pass_row(plan, device)
        yield _shared_pass_row(plan, device)


def needs() -> list[Need]:
    """Return what all domain-aware scorers together need measured, with their default options."""
    return sorted(set().union(*(SCORERS[name].gathered(SCORERS[name].settled({})) for name in AWARE)))


def _single_pass_row(plan: Plan, device: torch.device) -> Row:
    model = network(plan.name).to(device)
    full = domains(plan.pixels)[0].to(device)
    domain = replace(full, splits={"score": full.rows("train", plan.images)})
    layout = layout_of(model, domain)
    graph = read_groups(model, domain.take(torch.arange(2), device=device).images)
    wanted, risks = needs(), [0.0, 0.0]

    def ours() -> None:
        statistics = gather(model, graph, domain=domain, needs=wanted, layout=layout)
        assert statistics.risk is not None
        risks[0] = statistics.risk

    def bare() -> None:
        model.zero_grad()
        risks[1] = 0.0
        for images, labels, _ in domain.batches("score", size=GRADIENT_IMAGES, device=device, layout=layout):
            assert labels is not None
            with full_precision(device):
                loss = F.cross_entropy(model(images), labels, reduction="sum")
                loss.backward()
            risks[1] += float(loss.detach()) / plan.images

    times = race_calls({"ours": ours, "bare": bare}, device, repeats=plan.repeats[0], unit="ms")
    check_risks(*risks)
    note = (
        f"peer: gradients of all parameters and nothing else; ours: all that {len(AWARE)} domain-aware scorers need "
        f"({', '.join(wanted)}); {plan.images} images of {plan.pixels} px, batches of {GRADIENT_IMAGES}"
    )
    row = {"name": f"one pass, {plan.name}: against forward + backward", "ours": times["ours"], "peer": times["bare"]}
    return Row(**row, unit="ms", repeats=plan.repeats[0], device=device.type, aim=">= 0.67", note=note)


def _shared_pass_row(plan: Plan, device: torch.device) -> Row:
    model = network(plan.name).to(device)
    used = [
        replace(domain, splits={"score": domain.rows("score", plan.images)})
        for domain in domains(plan.pixels, ("mnist", "uci_digits", "mnist_m"))
    ]
    results: dict[str, list[Scores]] = {}

    def timed(action: Callable[[Study], Sequence[Scores]], key: str) -> float:
        study = Study(model, sources=used[:2], targets=used[2:])
        assert study.key and study.unavailable(SCORERS["dss"]) is None  # reads the groups; no pass has run
        with study.assume_unchanged(), collect_notes(lambda _: None):
            return seconds(lambda: results.setdefault(key, []).extend(action(study)), device)

    def together() -> float:
        results["together"] = []
        return timed(lambda study: study.score_all(AWARE), "together")

    def alone() -> float:
        results["alone"] = []
        return sum(timed(lambda study, name=name: [study.score(name)], "alone") for name in AWARE)

    times = race({"ours": together, "alone": alone}, repeats=plan.repeats[1])
    check_scores(results["together"], results["alone"])
    note = (
        f"peer: our own scorers, each on a study that has run no pass; {len(AWARE)} scorers, two sources and a target "
        f"of {' + '.join(str(len(domain.rows('score'))) for domain in used)} images"
    )
    name = f"domain-aware scorers, {plan.name}: against a pass for each"
    row = {"name": name, "ours": times["ours"], "peer": times["alone"]}
    return Row(**row, repeats=plan.repeats[1], device=device.type, aim=">= 5", note=note)


def check_risks(ours: float, other: float) -> None:
    """Require that both sides computed the same mean cross-entropy."""
    require_same(abs(ours - other) <= 1e-4 * abs(other), "risks")


def check_scores(ours: Sequence[Scores], other: Sequence[Scores]) -> None:
    """Require that both sides gave the same scores, in the same order."""
    for a, b in zip(ours, other, strict=True):
        same = a.scorer == b.scorer and all(torch.allclose(a.values[k], b.values[k], atol=1e-4) for k in a.values)
        require_same(same, "scores")
