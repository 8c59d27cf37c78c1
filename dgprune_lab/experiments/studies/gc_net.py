"""Does GC-Net guidance keep more accuracy under shift than magnitude, and is the hybrid by depth best?

Question. Wisell and Yasaei Sekeh 2024 (arXiv:2411.09199) prune connections by how strongly consecutive layers are
correlated. They state that this keeps more accuracy under distribution shifts than pruning by magnitude, and that
pruning early layers by magnitude and later layers by correlation is best.

Protocol. A narrow VGG-11 with BatchNorm is trained on Fashion-MNIST (padded to 32 x 32) or CIFAR-10, once per training
seed. Its connections (whole kernels, `dg.gc_net`) or its filters are removed, the same share of every layer, by L1
norm, GC-Net, the hybrids of both by depth (one for each layer l0 from which GC-Net decides) and by score, at random, by
GC-Net reversed, and filters also by Taylor. No l0 is chosen: all are reported, and their mean and the middle one count.
Each network is measured with BatchNorm re-estimated, at once and after a short fine-tuning with the removed weights
held at zero, on clean test images and under every shift of `dgprune_lab.data` at its default strength: no strength was
chosen here. Controls: the dense network, and the dense network with the same extra epoch, which is the same for all
ratios. The outcome declared beforehand is the mean accuracy over all shifts and ratios; accuracy on clean images and
under the worst shift are reported beside it. The spread of rho against that of randomly paired images is in the table
(level "connectivity"): where they are similar, pruning by rho is close to random.

What differs from the paper is listed in `Experiment.differences`; first of all, only its abstract was available, so
the formulas are our reconstruction.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, cast

import torch
from torch import nn

from ...core import Domain, Mask, WeightMask, WeightScores, drain, generator, provenance_of, roles_of
from ...data import SHIFTS
from ...diagnostics import gc_net as connectivity
from ...measurement import evaluating, recalibrate
from ...models import network_key
from ...pruning import allocate, masked, prune
from ...scorers import hybrid, reverse
from ...study import Study
from ...study import gc_net as measure_gc_net
from ...training import DENSE, TrainingOptions, finish, train
from ..experiment import Experiment, Finding, Scratch, Settings
from ._common import data_hashes, data_sets, dense_network, part
from .gc_net_claims import PAPER, gc_net_claims

EXTRA = ("finetuned", "start", "group", "layer")
DENSE_TUNED = "dense_tuned"
_BATCH = 250

_FULL: Mapping[str, Any] = {
    "network": "vgg11_bn_32",
    "widths": (16, 24, 32, 32, 48, 48, 64, 64),
    "pixels": 32,
    "train": 12_000,
    "score": 2_000,
    "report": 1_000,
    "shifted": 300,
    "shifts": tuple(SHIFTS),
    "epochs": 8,
    "batch_size": 64,
    "lr": 0.05,
    "finetuning_images": 3_000,
    "finetuning_lr": 0.01,
}
_QUICK: Mapping[str, Any] = {
    **_FULL,
    "network": "digits_net",
    "widths": (8, 8, 12, 12, 16),
    "pixels": 28,
    "train": 300,
    "score": 200,
    "report": 100,
    "shifted": 60,
    "shifts": ("noise", "contrast"),
    "epochs": 8,
    "batch_size": 32,
    "finetuning_images": 96,
}
_RATIOS = {"connectivity": (None,), "connection": (0.5, 0.7, 0.9), "filter": (0.3, 0.5, 0.7)}


def gc_net(*, quick: bool = False, seeds: int | None = None) -> Experiment:
    """Return the study of GC-Net.

    Args:
        quick: bundled data, a tiny network, one ratio and two shifts; connections with garments, filters with digits.
        seeds: number of training seeds; None for 5, or 2 if `quick`.
    """
    names = tuple(_RATIOS)
    levels = {"fashion": names[:2], "mnist": names[::2]} if quick else {"fashion_mnist": names, "cifar10": names}
    return Experiment(
        name="gc_net_quick" if quick else "gc_net",
        question="Does GC-Net guidance keep more accuracy under shift than magnitude, and is the hybrid by depth best?",
        run=run_gc_net,
        protocol=_QUICK if quick else _FULL,
        grid=tuple(
            {"training_seed": seed, "data_set": data_set, "level": level, "ratio_requested": ratio}
            for seed in range((2 if quick else 5) if seeds is None else seeds)
            for data_set in levels
            for level in levels[data_set]
            for ratio in _RATIOS[level]
            if not quick or ratio in (None, 0.5)
        ),
        extra=EXTRA,
        ready=data_sets(*levels),
        claims=gc_net_claims,
        cite=PAPER,
        differences=_differences(_QUICK if quick else _FULL),
        tolerance=0.1,
    )


def _differences(protocol: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what differs from the paper, a sentence each."""
    images, few = f"{protocol['train']:,} images", f"{protocol['finetuning_images']:,}"
    return (
        "Only the abstract of the paper was available: the formulas of rho, of the masks and of the hybrids are our "
        "reconstruction, and the filter score is ours.",
        f"The network is {protocol['network']} of widths {', '.join(map(str, protocol['widths']))}, trained for "
        f"{protocol['epochs']} epochs on {images} without augmentation, then fine-tuned for one on {few} of them.",
        "A connection is a whole kernel; the kernels of the first layer, which read the image, have no rho and stay.",
        "The shifts are those of this toolkit at their default strength; Tiny-ImageNet is left out.",
    )


def run_gc_net(settings: Settings, scratch: Scratch) -> Finding:
    """Train the dense network, remove connections or filters in every way, and measure each network twice.

    Settings: those of `gc_net`. The level "connectivity" reports rho and its null level for each pair of layers.

    Raises:
        DgpruneError: a missing data set; training that diverges.
    """
    values = cast("dict[str, Any]", dict(settings))
    source, shifted = _domains(*(values[name] for name in _DATA))
    seed, ratio = values["training_seed"], values["ratio_requested"]
    shape = {"batch_size": values["batch_size"], "seed": seed}
    options = TrainingOptions(epochs=values["epochs"], lr=values["lr"], **shape)
    dense = dense_network(scratch, [source], builder=values["network"], widths=values["widths"], options=options)
    study = Study(dense, sources=[source], targets=shifted, name=values["data_set"])
    if values["level"] == "connectivity":
        rows = _connectivity_rows(study)
    else:
        few = replace(source, splits={**source.splits, "train": source.rows("train", values["finetuning_images"])})
        finetuning = TrainingOptions(epochs=1, lr=values["finetuning_lr"], **shape)
        arms = (connection_arms if values["level"] == "connection" else filter_arms)(study, ratio=ratio, seed=seed)
        rows = []
        for arm in [Arm(DENSE), *arms]:
            network = arm.network(dense)
            rows += arm.rows(network, study, ratio=ratio, finetuned=False)
            tuned = finish(train(network, sources=[few], options=finetuning, stage="finetuning"))
            rows += arm.rows(tuned, study, ratio=ratio, finetuned=True)
    return Finding(rows=rows, data=data_hashes(study), weights=network_key(dense))


_DATA = ("data_set", "pixels", "train", "score", "report", "shifted", "shifts")


@lru_cache(maxsize=2)
def _domains(
    data_set: str, pixels: int, train: int, score: int, report: int, shifted: int, shifts: Sequence[str]
) -> tuple[Domain, tuple[Domain, ...]]:
    """Return the source, and its first `shifted` reported images under every shift."""
    source = part(data_set, name=data_set, train=train, score=score, report=report).padded(pixels)
    few = part(data_set, name=data_set, report=shifted).padded(pixels)
    return source, tuple(SHIFTS[shift](few) for shift in shifts)


@dataclass(frozen=True)
class Arm:
    """One way to remove a share of the network: its name, its mask (None for dense), l0 and the random seed."""

    scorer: str
    mask: Mask | WeightMask | None = None
    start: int | None = None

    def network(self, dense: nn.Module) -> nn.Module:
        """Return the network with the kernels held at zero, or the filters removed."""
        if self.mask is None:
            return dense
        return prune(dense, self.mask) if isinstance(self.mask, Mask) else masked(dense, self.mask)

    def rows(self, network: nn.Module, study: Study, *, ratio: float, finetuned: bool) -> list[Any]:
        """Return the rows of accuracy on each domain, with BatchNorm re-estimated."""
        network = recalibrate(network, study.sources)
        provenance, roles = provenance_of(network), roles_of(study.domains)
        cells = {
            "scorer": DENSE_TUNED if self.mask is None and finetuned else self.scorer,
            "ratio_requested": ratio,
            "ratio_achieved": 0.0 if self.mask is None else self.mask.ratio_achieved,
            "scope": None if self.mask is None else self.mask.scope,
            "batchnorm": "recalibrate",
            "training_seed": study.training_seed,
            "seed": study.training_seed if self.scorer == "random" else None,
            "start": self.start,
            "finetuned": finetuned,
            "split": "report",
            "metric": "accuracy",
            "unit": "share",
        }
        rows = []
        for domain in study.domains:
            outcomes = drain(evaluating(network, domain, "report", size=_BATCH))
            measured = {"domain": domain.name, "role": domain.role, "images": len(outcomes), "value": outcomes.accuracy}
            rows.append({**cells, **measured, **provenance.columns(domain.name, "report", roles=roles)})
        return rows


def connection_arms(study: Study, *, ratio: float, seed: int) -> Iterator[Arm]:
    """Yield masks of whole kernels; l0 numbers the layers that have incoming connections."""
    network, stream = measure_gc_net(study), generator("gc_net connections", seed)
    rho = network.scores()
    layers = list(dict.fromkeys(pair.layer for pair in network.pairs))
    noise = {name: torch.rand(value.shape, generator=stream) for name, value in rho.values.items()}
    scores: dict[str, tuple[WeightScores, int | None]] = {
        "l1": (WeightScores("l1", network.magnitude, reads={}), None),
        "random": (WeightScores("random", noise, reads={}), None),
        "gc_net": (rho, None),
        "reverse(gc_net)": (replace(rho, values={name: -value for name, value in rho.values.items()}), None),
        "hybrid(l1, gc_net, by score)": (network.scores(weights="rank"), None),
    }
    for start, layer in enumerate(layers[1:], start=1):
        scores[f"hybrid(l1, gc_net, by depth from {start})"] = network.scores(start=layer), start
    for name, (values, start) in scores.items():
        yield Arm(name, network.kernels(allocate(values, ratio=ratio)), start)


def filter_arms(study: Study, *, ratio: float, seed: int) -> Iterator[Arm]:
    """Yield masks of filters; l0 numbers the convolutions."""
    starts: list[int | None] = list(range(1, len(study.graph.groups)))
    scorers = ["l1", "random", "gc_net", reverse("gc_net"), "taylor", hybrid("l1", "gc_net", by="rank")]
    by_depth = [hybrid("l1", "gc_net", by="depth", start=start) for start in starts]
    scored = study.score_all([*scorers, *by_depth], seed=seed)
    for scores, start in zip(scored, [None] * len(scorers) + starts, strict=True):
        yield Arm(scores.scorer, allocate(scores, ratio=ratio), start)


def _connectivity_rows(study: Study) -> list[Any]:
    """Return mean and spread of rho for each pair of layers, beside those of randomly paired images."""
    table: Any = connectivity(study).drop(columns=["filter", "output"])
    return table[table["metric"].isin(["rho_mean", "rho_spread", "rho_null", "rho_null_spread"])].to_dict("records")
