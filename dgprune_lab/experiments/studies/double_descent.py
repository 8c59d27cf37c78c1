"""Does prunability follow the test loss through double descent, where the number of parameters does not?

With some labels wrong, the test loss of ever wider networks first falls, then rises to a peak where the network is just
wide enough to fit every label (Belkin et al. 2019, arXiv:1812.11118: about as many parameters as images times classes),
then falls again (Nakkiran et al. 2020, arXiv:1912.02292). Kuhn et al. 2021 (arXiv:2103.06002) state that prunability
correlates with the test loss there too. Only their abstract was available; it gives no figure.

Protocol: one hidden layer of 2 to 256 units, trained for a fixed number of epochs, without decay of weights or learning
rate, on a few images of which a fifth have the label of another class, drawn per training seed; the reported images
keep their labels. Prunability is that of the loss on the training images with the labels as trained. Networks below the
peak end at a higher training loss than those above it, so their prunabilities are compared at unequal losses: the table
and the chart show the training loss too.

Stated before the runs: the width at the peak is images x classes / (784 + classes), the width with as many parameters
as equations (the three channels of an image are equal), where a pilot of one seed in plain PyTorch had its largest test
loss too; correlations are Kendall's tau-b over widths within a training seed, and all intervals are over training
seeds, those of correlations on the scale of Fisher's z.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from ...core import Count, DgpruneError, Domain, Tidy
from ...diagnostics import prunability
from ...measurement import evaluate, measure
from ...models import network_key, networks
from ...stats import CORRELATIONS
from ...study import Study
from ...training import TrainingOptions, finish, train
from ..claims import Claim, over_seeds
from ..experiment import Experiment, Finding, Scratch, Settings
from ..settings import grid
from ._common import data_hashes, data_sets, filled, fitting, part

PAPER = "Kuhn et al. 2021, arXiv:2103.06002"
_CURVE = "Belkin et al. 2019, arXiv:1812.11118"
_tau = CORRELATIONS["kendall"]
_PIXELS, _CLASSES = 28 * 28, 10  # of an image; its three channels are equal
_NEAR_ONE = 0.99  # a tau of 1 has no finite z
EXTRA = ("training_loss", "weights")

_FULL: Settings = {
    "data_set": "fashion_mnist",
    "train": 500,
    "report": 2000,
    "noise": 0.2,
    "epochs": 300,
    "batch_size": 64,
    "lr": 0.02,
    "tolerance": 0.1,
    "step": 0.01,
}
_QUICK: Settings = {**_FULL, "data_set": "fashion", "train": 60, "report": 60, "epochs": 15, "step": 0.05}
_WIDTHS = (2, 3, 4, 6, 8, 12, 16, 24, 48, 96, 256)
_QUICK_WIDTHS = (2, 4, 8)


def double_descent(*, quick: bool = False, seeds: Count | None = None) -> Experiment:
    """Return the study of prunability and test loss over the width of a network; see the module.

    Args:
        quick: three widths, two seeds and 60 garments that come with this package; its numbers mean nothing.
        seeds: number of training seeds, counted from 0; None for 5, or for 2 where `quick`.
    """
    protocol: Any = _QUICK if quick else _FULL
    return Experiment(
        name="double_descent_quick" if quick else "double_descent",
        question="Does prunability follow the test loss through double descent?",
        run=run_double_descent,
        grid=grid(training_seed=range(seeds or (2 if quick else 5)), width=_QUICK_WIDTHS if quick else _WIDTHS),
        protocol=protocol,
        extra=EXTRA,
        ready=data_sets(protocol["data_set"]),
        claims=double_descent_claims,
        cite=f"{PAPER}; {_CURVE}; Nakkiran et al. 2020, arXiv:1912.02292",
        differences=(
            "Networks and data: one hidden layer, a few images of Fashion-MNIST; the abstract names none.",
            f"Labels: {protocol['noise']:.0%} of the training labels are those of another class.",
            f"Epochs: {protocol['epochs']} for every width, so the training losses differ.",
        ),
        tolerance=0.1,
    )


def run_double_descent(settings: Settings, scratch: Scratch) -> Finding:
    """Train one network on noisy labels and measure its losses and its prunability.

    Raises:
        DgpruneError: a missing data set; a training that diverges, or that ends at a loss of 0.
    """
    plan: Any = settings
    seed, source = plan["training_seed"], noisy(settings)
    options = TrainingOptions(
        epochs=plan["epochs"], batch_size=plan["batch_size"], lr=plan["lr"], schedule="constant", seed=seed
    )
    untrained = networks.build("one_hidden_layer", **fitting(source), widths=(plan["width"],), seed=seed).to(
        scratch.device
    )
    network = finish(train(untrained, sources=[source], options=options))
    study = Study(network, sources=[source], targets=[], name="double_descent", layers="all", device=scratch.device)
    loss = float(evaluate(network, source, "train").loss.mean())
    shared = {"training_seed": seed, "training_loss": loss, "weights": network_key(network)}
    rows = [{**row, **shared} for row in _rows(study, plan, loss)]
    return Finding(rows=rows, data=data_hashes(study), weights=shared["weights"])


def noisy(settings: Settings) -> Domain:
    """Return the source of a run, with wrong labels on a share of its training images."""
    plan: Any = settings
    return _noisy(plan["data_set"], plan["train"], plan["report"], plan["noise"], plan["training_seed"])


@lru_cache(maxsize=8)
def _noisy(data_set: str, train_images: int, report: int, noise: float, seed: int) -> Domain:
    domain = part(data_set, name="fashion", train=train_images, report=report)
    assert domain.labels is not None
    generator = torch.Generator().manual_seed(seed)
    rows, labels = domain.rows("train"), domain.labels.clone()
    wrong = rows[torch.randperm(len(rows), generator=generator)[: round(noise * len(rows))]]
    labels[wrong] += torch.randint(1, domain.classes, (len(wrong),), generator=generator)
    return replace(domain, labels=labels % domain.classes)


def _rows(study: Study, plan: Any, loss: float) -> Iterator[dict[str, Any]]:
    table: Any = measure(study.model, study.domains, latency=False)
    for row in table[table["metric"].isin(("loss", "accuracy", "parameters"))].to_dict("records"):
        yield filled(row)
    columns = {"domain": study.sources[0].name, "role": "source", "split": "train", "images": plan["train"]}
    yield {**columns, "metric": "training_loss", "value": loss, "unit": "nats"}
    result: Any = prunability(study, search="fast", tolerance=plan["tolerance"], step=plan["step"], intervals=False)
    value = float(result.loc[result["metric"] == "prunability", "value"].iloc[0])
    yield {**columns, "metric": "prunability", "value": value, "unit": "share"}


def double_descent_claims(frame: Tidy) -> list[Claim]:
    """Return whether the test loss falls again, and whether prunability follows it better than parameters do.

    Raises:
        DgpruneError: fewer than two training seeds in which every width is done.
    """
    wide = {
        metric: frame[frame["metric"] == metric].pivot(index="training_seed", columns="width", values="value").dropna()
        for metric in ("loss", "prunability", "training_loss")
    }
    loss, share = wide["loss"], wide["prunability"]
    if len(loss) < 2:
        raise DgpruneError(
            f"frame holds {len(loss)} training seeds in which every width is done; an interval over seeds needs two."
        )
    images = float(frame.loc[frame["metric"] == "training_loss", "images"].iloc[0])
    peak = min(loss.columns, key=lambda width: abs(width - images * _CLASSES / (_PIXELS + _CLASSES)))
    taus = {seed: _tau(share.loc[seed].to_numpy(), loss.loc[seed].to_numpy()) for seed in loss.index}
    widths = loss.columns.to_numpy(dtype=float)
    scope = f"tau-b over {len(loss.columns)} widths within a seed; the training losses differ between widths."
    return [
        _claim(
            f"The test loss falls again: from {peak:g} to {max(loss.columns):g} hidden units",
            (loss[peak] - loss[max(loss.columns)]).to_dict(),
            paper=_CURVE,
            unit="nats",
            note=f"{peak:g} units have about as many parameters as images times classes, the channels being equal.",
        ),
        _claim("Prunability rises and falls with the test loss", taus, unit="correlation", note=scope, most=1.0),
        _claim(
            "Prunability follows the test loss better than the number of parameters",
            {seed: tau - _tau(widths, loss.loc[seed].to_numpy()) for seed, tau in taus.items()},
            unit="correlation",
            note=f"Difference of {scope}",
            most=2.0,
        ),
    ]


def _claim(
    sentence: str, values: Mapping[Any, float], *, unit: str, note: str, paper: str = PAPER, most: float = math.inf
) -> Claim:
    """Return the claim that a number per training seed is above 0 on average; `most` is its largest possible value."""
    if most < math.inf:  # a correlation, or a difference of two, on the scale of Fisher's z
        z = np.arctanh(np.clip(np.array([*values.values()]) / most, -_NEAR_ONE, _NEAR_ONE)).tolist()
        row = over_seeds(dict(zip(values, z, strict=True)), unit=unit)
        row |= {name: most * math.tanh(row[name]) for name in ("value", "low", "high", "minimum_detectable_effect")}
    else:
        row = over_seeds(values, unit=unit)
    return Claim.from_row(row, claim=sentence, paper=paper, published="no figure in the abstract", note=note)
