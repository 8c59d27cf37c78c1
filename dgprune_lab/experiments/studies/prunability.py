"""Does prunability predict generalisation, better than norms, margins and flatness, and does it still under shift?

Kuhn et al. 2021 (arXiv:2103.06002) claim that the smallest share of weights that keeps the training loss predicts how
well networks generalise, better than other measures, and beyond what these predict. Only the abstract was available: it
gives no figure to compare a few small networks with, and the settings are ours. Whether a measure also predicts
the loss on shifted images has not been published.

Protocol: networks in network (`models.networks.nin`, without BatchNorm) on images of Fashion-MNIST, on a grid of two
levels each of width (filters of the first block; other blocks have twice that), depth (blocks), dropout, weight decay,
batch size and learning rate, for two training seeds. A training ends with the first epoch after which the cross-entropy
on its images, in eval mode, is at most `until`; one that does not reach it within `epochs` did not converge: it stays
in the table with its outcomes, and is left out of every comparison, which is a selection (`experiments.convergence`
tables it by level). All measures read the training images alone, and the reported images serve to report only. Their
shifted copy is a target domain: nothing reads it before.

Stated before the runs: the outcome is the loss on reported images; a claim holds if its interval, over resampled cells
of the grid, lies above 0. A pilot set `until`, `epochs` and the levels by training losses and computing time. Its
slowest corner (small width, batches of 64, low learning rate, dropout and weight decay) reached .35 after 23 epochs (3
blocks) and 18 (4 blocks); two corners of batches of 32 and the high learning rate, one of each width, after 12. So all
four corners tried reached it. With 2 blocks it was at .70 after 15 epochs, so 2 blocks were left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from ...core import Count, Domain, Outcomes, Tidy, is_missing
from ...diagnostics import (
    distance_from_initialisation,
    hessian_trace,
    l2_norm,
    margin,
    parameter_count,
    random_perturbation,
    sam_sharpness,
    sharpness,
)
from ...diagnostics import prunability as prunability_of
from ...measurement import evaluate, measure, prunable
from ...models import network_key, networks
from ...pruning import allocate
from ...study import Study
from ...training import EpochEvent, TrainingOptions, train
from ..claims import Claim
from ..experiment import Experiment, Finding, Scratch, Settings
from ..predictors import predictors
from ..settings import grid
from ._common import data_hashes, data_sets, filled, fitting, gap_row, part

PAPER = "Kuhn et al. 2021, arXiv:2103.06002"
HYPERPARAMETERS = ("width", "depth", "dropout", "weight_decay", "batch_size", "lr")
"""The settings in which the networks differ, besides the training seed."""
MEASURE = "prunability"
RIVALS = {
    "sharpness": "sharpness",
    "sam_sharpness": "SAM's sharpness",
    "hessian_trace": "the Hessian's trace",
    "random_perturbation": "a random perturbation of the same norm",
    "margin": "the margin",
    "l2_norm": "the L2 norm",
    "distance_from_initialisation": "the distance from initialisation",
    "parameter_count": "the number of parameters",
    "weights_kept": "the number of weights that are enough",
    "sum_of_training_losses": "the sum of training losses",
    "training_loss": "the final training loss",
    "drop_at_once": "the accuracy lost when half of the filters are removed",
}
"""The measure -> its name in a sentence; the paper's abstract names margin, flatness and speed of optimisation."""


_FULL: Settings = {
    "data_set": "fashion_mnist",
    "train": 4000,
    "report": 4000,
    "shift": "blur",
    "optimiser": "adam",
    "until": 0.35,
    "epochs": 40,
    "tolerance": 0.1,
    "step": 0.01,
    "few": 500,
}
_QUICK: Settings = {**_FULL, "data_set": "fashion", "train": 150, "report": 100, "until": 1.9, "few": 50, "step": 0.05}
_LEVELS: dict[str, Any] = {
    "width": (12, 24),
    "depth": (3, 4),
    "dropout": (0.0, 0.1),
    "weight_decay": (0.0, 0.0001),
    "batch_size": (32, 64),
    "lr": (0.002, 0.005),
}
_QUICK_LEVELS: dict[str, Any] = {
    "width": (4, 8),
    "depth": (1,),
    "dropout": (0.0,),
    "weight_decay": (0.0,),
    "batch_size": (16, 32),
    "lr": (0.02,),
}
EXTRA = ("better_direction", "training_loss", "converged", "epochs_trained", "weights", "training_log")


def prunability(*, quick: bool = False, seeds: Count | None = None) -> Experiment:
    """Return the study of prunability as a predictor of generalisation; see the module.

    Args:
        quick: four tiny networks for each of two seeds, on garments that come with this package; its numbers mean
            nothing.
        seeds: number of training seeds, counted from 0; None for 2.
    """
    protocol: Any = _QUICK if quick else _FULL
    levels = _QUICK_LEVELS if quick else _LEVELS
    return Experiment(
        name="prunability_quick" if quick else "prunability",
        question="Does prunability predict generalisation, better than other measures, and under shift too?",
        run=run_prunability,
        grid=grid(training_seed=range(seeds or 2), **levels),
        protocol=protocol,
        extra=EXTRA,
        ready=data_sets(protocol["data_set"]),
        claims=prunability_claims,
        cite=PAPER,
        differences=(
            "Networks and data: small networks in network without BatchNorm, in eval mode, on Fashion-MNIST.",
            f"Images: {protocol['train']:,} to train on, and {protocol['report']:,} to report on.",
            f"A training ends at a cross-entropy of {protocol['until']:g}, and after {protocol['epochs']} epochs.",
            "The search of prunability, the rivals and the intervals are ours, after the abstract alone.",
        ),
        tolerance=0.1,
    )


def run_prunability(settings: Settings, scratch: Scratch) -> Finding:
    """Train one network and measure how it generalises and what predicts it.

    Raises:
        DgpruneError: a missing data set; a training that diverges, or that reaches a loss of 0.
    """
    plan: Any = settings
    source, shifted = zoo_domains(settings)
    trained, losses = _trained(plan, source, device=scratch.device)
    key = {"study": "prunability", **settings, "source": source.key}
    network = scratch.network(key, lambda: trained)
    study = Study(network, sources=[source], targets=[shifted], name="prunability", device=scratch.device)
    outcomes = evaluate(network, source, "train")
    reached = float(outcomes.loss.mean())
    shared = {
        "training_seed": plan["training_seed"],
        "training_loss": reached,
        "converged": reached <= plan["until"],
        "epochs_trained": len(losses),
        "weights": network_key(network),
    }
    rows = [*_outcome_rows(study, outcomes), *_measure_rows(study, plan, losses, reached)]
    return Finding(rows=[{**row, **shared} for row in rows], data=data_hashes(study), weights=shared["weights"])


def zoo_domains(settings: Settings) -> tuple[Domain, Domain]:
    """Return the source of a run, and its reported images shifted, which are the target."""
    plan: Any = settings
    return _domains(plan["data_set"], plan["train"], plan["report"], plan["shift"])


@lru_cache(maxsize=4)
def _domains(data_set: str, train_images: int, report: int, shift: str) -> tuple[Domain, Domain]:
    source = part(data_set, name="fashion", train=train_images, report=report)
    return source, part(data_set, name=f"fashion, {shift}", report=report, shift=shift)


def _trained(plan: Any, source: Domain, *, device: torch.device) -> tuple[nn.Module, list[float]]:
    """Return the network after the first epoch with a low enough loss, or the last, and the losses of its epochs."""
    network = networks.nin(
        **fitting(source),
        widths=[plan["width"], *[2 * plan["width"]] * (plan["depth"] - 1)],
        dropout=plan["dropout"],
        seed=plan["training_seed"],
    )
    options = TrainingOptions(
        epochs=plan["epochs"],
        batch_size=plan["batch_size"],
        optimiser=plan["optimiser"],
        lr=plan["lr"],
        weight_decay=plan["weight_decay"],
        schedule="constant",
        seed=plan["training_seed"],
    )
    losses: list[float] = []
    events = train(network.to(device), sources=[source], options=options)
    for event in events:
        if isinstance(event, EpochEvent):
            losses.append(event.loss)
            network = event.model
            if float(evaluate(network, source, "train").loss.mean()) <= plan["until"]:
                break
    events.close()
    return network, losses


def _outcome_rows(study: Study, trained: Outcomes) -> Iterator[dict[str, Any]]:
    """Yield loss, accuracy, error and gap of the reported images of each domain."""
    table: Any = measure(study.model, study.domains, latency=False)
    for row in table[table["metric"].isin(("loss", "accuracy"))].to_dict("records"):
        cells = filled(row)
        yield cells
        if row["metric"] == "accuracy":
            ends = {name: 1 - row[other] for name, other in (("low", "high"), ("high", "low"))}
            yield {**cells, "metric": "error", "value": 1 - row["value"], **ends}
            yield gap_row(cells, trained=trained.accuracy)


def _measure_rows(study: Study, plan: Any, losses: list[float], reached: float) -> Iterator[dict[str, Any]]:
    """Yield every measure if the network converged, otherwise only its training losses."""
    source = study.sources[0]
    shared = {"domain": source.name, "role": "source", "split": "train", "images": plan["train"]}
    lower = {**shared, "better_direction": "lower"}
    log = " ".join(f"{loss:.4g}" for loss in losses)
    total = {"metric": "sum_of_training_losses", "value": sum(losses), "unit": "nats", "training_log": log}
    yield {**lower, **total}
    yield {**lower, "metric": "training_loss", "value": reached, "unit": "nats"}
    if reached > plan["until"]:
        return
    tolerance, step = {"tolerance": plan["tolerance"]}, {"step": plan["step"]}
    table: Any = prunability_of(study, search="fast", intervals=False, **tolerance, **step)
    value = float(table.loc[table["metric"] == "prunability", "value"].iloc[0])
    yield {**lower, "metric": "prunability", "value": value, "unit": "share"}
    weights = sum(weight.numel() for weight in prunable(study.model).values())
    weights_kept = weights - math.floor((1 - value) * weights + 1e-9)
    yield {**lower, "metric": "weights_kept", "value": weights_kept, "unit": "count"}
    mask = allocate(study.score("l1", split="train"), ratio=0.5)
    accuracies = [
        study.outcomes(m, domain=source.name, split="train", batchnorm="as_is").accuracy for m in (None, mask)
    ]
    yield {**lower, "metric": "drop_at_once", "value": accuracies[0] - accuracies[1], "unit": "share"}
    tables: tuple[Any, ...] = (
        *(of_weights(study) for of_weights in (parameter_count, l2_norm, distance_from_initialisation)),
        margin(study),
        sharpness(study, **tolerance),
        random_perturbation(study, **tolerance, **step),
        sam_sharpness(study),
        hessian_trace(study, images=plan["few"]),
    )
    for table in tables:
        for row in table[table["value"].notna()].to_dict("records"):
            cells = {name: cell for name, cell in filled(row).items() if name != "training_seed"}
            yield {**shared, **cells, "better_direction": row["better_direction"]}


def prunability_claims(frame: Tidy) -> list[Claim]:
    """Return the claims about prunability as a predictor of the loss on reported images, from a table of networks.

    All intervals are over cells of the grid of hyperparameters. A comparison without an interval is left out.

    Raises:
        DgpruneError: too few networks that converged.
    """
    measured = {str(name) for name in frame["metric"].unique()}
    names = [name for name in (MEASURE, *RIVALS) if name in measured]
    table: Any = predictors(frame, hyperparameters=HYPERPARAMETERS, outcomes=["loss"], measures=names)
    seeds = ", ".join(f"{seed:g}" for seed in sorted(frame["training_seed"].dropna().unique()))
    rows = [row for row in table[table["measure"] == MEASURE].to_dict("records") if not is_missing(row["low"])]
    return [claim for role in ("source", "target") for claim in _claims(rows, role, seeds)]


def _claims(rows: list[Any], role: str, seeds: str) -> Iterator[Claim]:
    """Yield the claims about the loss in-domain, or the one about the loss on shifted images."""
    for row in rows:
        rival = RIVALS.get(str(row["given"]))
        sentence = {
            "kendall_tau_a": "A lower prunability predicts a lower loss",
            "tau_difference": f"Prunability predicts the loss better than {rival}",
            "partial_correlation": f"Prunability predicts the loss beyond what {rival} tells",
        }.get(row["metric"])
        if row["role"] != role or sentence is None or (role == "target" and row["metric"] != "kendall_tau_a"):
            continue
        statistic = {
            "kendall_tau_a": "Kendall's tau-a",
            "tau_difference": "difference of Kendall's tau-a",
            "partial_correlation": "Spearman's partial correlation",
        }[row["metric"]]
        yield Claim.from_row(
            {**row, "minimum_detectable_effect": (row["high"] - row["low"]) / 2, "seeds": seeds},
            claim=f"{sentence} on new images" if role == "source" else f"{sentence} on shifted images",
            paper=PAPER,
            published="no figure in the abstract" if role == "source" else "not published; our question",
            ours=role == "target",
            note=f"{statistic} over {row['networks']:g} networks; interval over {row['cells']:g} cells of the grid.",
        )
