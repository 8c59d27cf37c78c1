"""Do networks that pruning hurts more during training end better, and does that hold under a shift?

Bartoldson et al. 2020 (arXiv:1906.03728) report that runs with a lower mean stability end more accurate and with a
smaller gap, that pruned networks end more accurate than unpruned ones, and that noise gives part of the gain where no
filter is removed for good. This study repeats it over training seeds and adds a shifted test set.

Every arm trains for equally many epochs from the same initial weights, with images in the same order; only
`unpruned_longer` trains longer: by as many epochs as lie between the first and the last event, and its learning rate
falls at the same shares of its epochs. Arms:

- `unpruned`, `unpruned_longer`; `before`, which loses the same shares of random filters before the first epoch;
- `smallest_low`, `largest_low` (filters of smallest or largest L2 norm, few at each of many events), `smallest_high`,
  `random_high`, `largest_high` (many at each of few events);
- not permanent, with the events and the filters of `largest_high`: `zero_short`, `zero_middle`, `zero_long` (zero
  for some batches, then free to regrow) and `noise` (normal noise for as many batches as `zero_long`).

The paper zeroes for 1, 50 and 1,105 batches of an epoch with 391; here it is the same share of an epoch, at least one
batch. (As shares of the whole training the first two would both be one batch.)

Reviewers' settings, each once, on the first data set: SGD with weight decay, augmentation, dropout; each for
`unpruned`, `smallest_high` and `largest_high`.

Data: CIFAR-10, and its reported images with less contrast; MNIST, and the published MNIST-M. The last events come
earlier than at the paper's share of the epochs, so that the few batches after them can repair their cost; this was set
with training seed 100, which is not in the study. Flatness is that of the training loss at the last epoch, on a few
images, for the runs with the training settings of the protocol.

Nothing is chosen by test images or by the shifted ones: numbers are those of the last epoch (stage "last") and of the
epoch that was best on other images of the source ("selected on score"). The epoch that was best on the reported images
of the source, as the paper reports it, is a stage of its own, "selected on test". Both may be an epoch before the last
event, or before any; the claims rest on the last epoch alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch.nn.utils import convert_conv2d_weight_memory_format

from ...core import Count, DgpruneError, Domain
from ...models import network_key, networks
from ...training import How, PruneSchedule, Remove, TrainingOptions, train_with_pruning
from ..experiment import Experiment, Finding, Scratch, Settings
from ..settings import grid
from ._common import data_sets, fitting, part
from ._training_rows import flatness_rows, follow_run, run_rows
from .instability_claims import PAPER, instability_claims

_PAPER_RATES = (
    "The rate is the share of the filters of all scheduled layers that an event removes, and an event holds one layer: "
    ".25 % and 2.4 %, where the paper counts those of conv8 alone: 1.3 % and 13 %.",
)
_BATCHES = 391
"""Batches of an epoch in the paper: 50,000 images, 128 at a time."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """The treatment of filters in a run.

    Attributes:
        events: when filters are treated: at the events of the low or the high rate, before training, or never.
        remove: which filters are removed first.
        how: removed for good, or treated for a while.
        batches: duration of the treatment, in batches of the paper.
        longer: whether the epochs between first and last event are added.
    """

    events: Literal["low", "high", "before"] | None = None
    remove: Remove = "smallest"
    how: How = "remove"
    batches: int | None = None
    longer: bool = False


_temporary = partial(Arm, events="high", remove="largest")
ARMS: Mapping[str, Arm] = {
    "unpruned": Arm(),
    "unpruned_longer": Arm(longer=True),
    "before": Arm(events="before", remove="random"),
    **{f"{which}_low": Arm(events="low", remove=which) for which in ("smallest", "largest")},
    **{f"{which}_high": Arm(events="high", remove=which) for which in ("smallest", "random", "largest")},
    "zero_short": _temporary(how="zero", batches=1),
    "zero_middle": _temporary(how="zero", batches=50),
    "zero_long": _temporary(how="zero", batches=1105),
    "noise": _temporary(how="noise", batches=1105),
}
KNOBS: Mapping[str, Mapping[str, Any]] = {
    "none": {},
    "weight_decay": {"optimiser": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4},
    "augmentation": {"augmentation": "crop_flip"},
    "dropout": {"dropout": 0.3},
}
"""Reviewers' settings, which replace training options of the protocol."""
KNOB_ARMS = ("unpruned", "smallest_high", "largest_high")

_SMALL: Settings = {
    # name, data set of the source, that of the shifted test, shift; images to train on, of `score`, to report
    "data_sets": (
        ("cifar10", "cifar10", "cifar10", "contrast", 10_000, 500, 1500),
        ("digits", "mnist_full", "mnist_m_published", None, 1024, 500, 1500),
    ),
    "builder": "vgg_small",
    "widths": (16, 32, 64, 64),
    "epochs": 30,
    "batch_size": 64,
    "lr": 0.001,
    "milestones": (14, 28),
    # layer, epoch of the first and of the last event, share of its filters
    "schedule": (("conv2", 2, 14, 0.3), ("conv3", 2, 14, 0.3), ("conv4", 2, 18, 0.75)),
    "every_low": 1,  # epochs from one event to the next
    "every_high": 4,
    "arms": tuple(ARMS),
    "knobs": tuple(KNOBS)[1:],
    "flatness_images": 128,
}
PROTOCOLS: Mapping[str, Settings] = {
    "small": _SMALL,
    "paper": {
        **_SMALL,
        "data_sets": (("cifar10", "cifar10", "cifar10", "contrast", 16_000, 1000, 5000),),
        "builder": "vgg11_bn_32",
        "widths": (64, 128, 256, 256, 512, 512, 512, 512),
        "epochs": 325,
        "batch_size": 128,
        "milestones": (150, 300),
        "schedule": (("conv5", 3, 150, 0.3), ("conv6", 4, 150, 0.3), ("conv7", 5, 150, 0.3), ("conv8", 6, 275, 0.9)),
        "every_low": 4,
        "every_high": 40,
        "knobs": ("weight_decay", "augmentation"),  # this network has no dropout
    },
    "quick": {
        **_SMALL,
        "data_sets": (("digits", "mnist", "mnist_m", None, 384, 60, 80),),
        "widths": (8, 12, 16, 16),
        "epochs": 6,
        "batch_size": 16,
        "lr": 0.01,
        "milestones": (4,),
        "schedule": (("conv3", 1, 3, 0.4), ("conv4", 1, 3, 0.5)),
        "every_high": 2,
        "arms": ("unpruned", "smallest_low", "smallest_high", "largest_high", "zero_long"),
        "knobs": (),
        "flatness_images": 0,
    },
}


def instability(
    *, quick: bool = False, seeds: Count | None = None, protocol: Literal["small", "paper"] = "small"
) -> Experiment:
    """Return the study of pruning while training; see the module.

    Args:
        quick: a small network on a few of the digits that come with this package; its numbers mean nothing.
        seeds: number of training seeds, counted from 0; None for 5, or 2 if quick.
        protocol: "paper" for its VGG-11 and 325 epochs, which need a GPU; "small" for one to three hours on two cores.
    """
    name = "quick" if quick else protocol
    values: Any = PROTOCOLS[name]
    names = [entry[0] for entry in values["data_sets"]]
    runs: list[Settings] = []
    for seed in range(seeds or (2 if quick else 5)):
        runs += grid(training_seed=[seed], data_set=names, knob=["none"], arm=values["arms"])
        if values["knobs"]:
            runs += grid(training_seed=[seed], data_set=names[:1], knob=values["knobs"], arm=KNOB_ARMS)
    return Experiment(
        name="instability" if name == "small" else f"instability_{name}",
        question="Do networks that pruning hurts more while they train end better, also under a shift?",
        run=run_instability,
        grid=runs,
        protocol=values,
        extra=("stage", "rate", "events", "epochs_trained"),
        ready=data_sets(*dict.fromkeys(name for entry in values["data_sets"] for name in entry[1:3])),
        claims=instability_claims,
        cite=PAPER,
        differences=_differences(values) + (_PAPER_RATES if name == "paper" else ()),
        tolerance=0.1,
    )


def run_instability(settings: Settings, scratch: Scratch) -> Finding:
    """Train one network, and report its events, its last epoch and its best ones on source and shifted images.

    Raises:
        DgpruneError: training diverged, so that the run has no result.
    """
    plan: Any = settings
    arm, seed = ARMS[plan["arm"]], plan["training_seed"]
    source, target = domains(plan)
    untrained = networks.build(plan["builder"], widths=tuple(plan["widths"]), **fitting(source), seed=seed)
    # A third faster on a CPU, except with few filters.
    order = torch.channels_last if max(plan["widths"]) >= 64 else torch.contiguous_format
    batches = {"images": len(source.rows("train")), "size": plan["batch_size"]}
    steps = train_with_pruning.steps(
        convert_conv2d_weight_memory_format(untrained.to(scratch.device), order),
        sources=[source],
        targets=[target],
        schedule=schedule_of(plan, arm),
        options=options_of(plan, arm),
        remove=arm.remove,
        how=arm.how,
        batches=None if arm.batches is None else scaled(arm.batches, **batches),
        seed=seed,
    )
    run, best = follow_run(steps, source)
    if not run.finished:
        raise DgpruneError(
            f"arm {plan['arm']!r} of training seed {seed} has no result, because its training diverged in epoch "
            f"{run.reached.removeprefix('diverged in epoch ')}; lower the learning rate {plan['lr']:g} of the protocol."
        )
    rows = run_rows(run, best, domains=[source, target])
    if plan["flatness_images"] and plan["knob"] == "none":
        rows += flatness_rows(run, source, images=plan["flatness_images"])
    shared = {"training_seed": seed, "rate": run.rate, "epochs_trained": run.settings["options"]["epochs"]}
    return Finding(
        rows=[{**row, **shared} for row in rows],
        data={domain.name: domain.key for domain in (source, target)},
        weights=network_key(run.network),
    )


def domains(plan: Mapping[str, Any]) -> tuple[Domain, Domain]:
    """Return the source of a run, and the shifted domain, which has no images to train on."""
    (entry,) = (entry for entry in plan["data_sets"] if entry[0] == plan["data_set"])
    name, data_set, shifted, shift, train, score, report = entry
    images: dict[str, int] = {"score": score, "report": report}
    target_name = f"{name} {shift}" if shift else shifted.removesuffix("_published")
    source = part(data_set, name=name, train=train, **images)
    return source.as_role("source"), part(shifted, name=target_name, shift=shift, **images).as_role("target")


def schedule_of(plan: Mapping[str, Any], arm: Arm) -> PruneSchedule | None:
    """Return when filters of the arm are removed; None where none are."""
    if arm.events is None:
        return None
    every = plan["every_low" if arm.events == "low" else "every_high"]
    schedule = PruneSchedule({layer: (start, end, every, share) for layer, start, end, share in plan["schedule"]})
    return schedule.before_training() if arm.events == "before" else schedule


def options_of(plan: Mapping[str, Any], arm: Arm) -> TrainingOptions:
    """Return the training options of a run; in a longer run, the learning rate falls at the same shares of epochs."""
    epochs, milestones = plan["epochs"], plan["milestones"]
    if arm.longer:
        first, last = (choose(epochs_of(plan)) for choose in (min, max))
        milestones = tuple(round(epoch * (epochs + last - first) / epochs) for epoch in milestones)
        epochs += last - first
    return TrainingOptions(
        epochs=epochs,
        batch_size=plan["batch_size"],
        schedule="steps",
        milestones=milestones,
        seed=plan["training_seed"],
        **{"optimiser": "adam", "lr": plan["lr"], **KNOBS[plan["knob"]]},
    )


def epochs_of(plan: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the epochs at whose end the arms of the high rate have an event."""
    schedule = schedule_of(plan, Arm(events="high"))
    return () if schedule is None else schedule.epochs


def scaled(batches: int, *, images: int, size: int) -> int:
    """Return the number of batches that are the same share of an epoch as `batches` of the paper's, at least 1.

    >>> [scaled(batches, images=10_000, size=64) for batches in (1, 50, 1105)]
    [1, 20, 444]
    """
    return max(1, round(batches / _BATCHES * -(-images // size)))


def _differences(protocol: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what differs from the paper, a sentence each."""
    layers = "; ".join(
        f"{name} {100 * share:g} % from epoch {start} to {end}" for name, start, end, share in protocol["schedule"]
    )
    sets = [f"{entry[0]}: {entry[4]:,} to train on, {entry[6]:,} to report" for entry in protocol["data_sets"]]
    batches = [
        f"{entry[0]} " + ", ".join(str(scaled(n, images=entry[4], size=protocol["batch_size"])) for n in (1, 50, 1105))
        for entry in protocol["data_sets"]
    ]
    return (
        f"Network: {protocol['builder']} of widths {', '.join(map(str, protocol['widths']))} (VGG-11 and ResNet-18).",
        f"Images: {'; '.join(sets)} (CIFAR-10: 50,000 and 10,000).",
        f"Training: {protocol['epochs']} epochs (325), {protocol['batch_size']} images a batch (128), Adam "
        f"{protocol['lr']:g}, a tenth of it after epochs {', '.join(map(str, protocol['milestones']))} (150 and 300).",
        f"Filters removed: {layers}; an event each {protocol['every_low']} or {protocol['every_high']} epochs (4, 40).",
        f"Zeroing for 1, 50 and 1,105 of the paper's batches, as the same share of an epoch: {'; '.join(batches)}.",
        "Events are measured on held-out images of the source, the paper's on the test set.",
        "Noise has the standard deviation of all filters that no event has chosen, on training batches alone.",
    )
