"""Pruning in rounds: in each, score, remove and fine-tune."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ..core import BatchNorm, Budget, Count, DgpruneError, Ratio, Repeats, Scope, Seed, Whole, stepwise
from ..measurement import calibration_sources
from ..scorers import Scorer, resolve
from ..study import Study
from .events import run_events
from .loop import train
from .options import TrainingOptions
from .rounds import DENSE, MeasureWhen, Plan, Run, Steps

FINETUNING = TrainingOptions(
    epochs=20, batch_size=32, optimiser="sgd", lr=0.01, momentum=0.9, schedule="dss", schedule_epochs=100
)
"""The fine-tuning after each round in the code of Sun 2023 (arXiv:2306.13237), but with the plain cross-entropy."""


@stepwise(partial(run_events, label="pruning in rounds"))
def prune_and_tune(
    study: Study,
    scorer: str | Scorer | None,
    *,
    ratio: Ratio,
    rounds: Repeats | None = None,
    epochs: Whole = 20,
    options: TrainingOptions | None = None,
    batchnorm: BatchNorm = "as_is",
    scope: Scope = "layer",
    budget: Budget = "filters",
    seed: Seed = 0,
    split: str = "report",
    score_split: str = "score",
    images: Count | None = None,
    measure: MeasureWhen = "rounds",
    progress: bool = False,
) -> Steps:
    """Prune in rounds, with fine-tuning on the sources' labels after each round.

    Each of T rounds scores the current network, removes the share r = 1 - (1 - ratio)^(1/T) of the remaining filters,
    lowest scores first (per layer floor(r C + 1e-9) of C filters), and trains the smaller network for `epochs` epochs
    on the train splits of the sources. Filters are removed physically, so the optimiser cannot revive them.

    Source: Sun 2023, arXiv:2306.13237, its code: T = 2 up to 60 %, 3 above; SGD with momentum .9, batches of 32, lr
    .01 / (1 + 10 p)^.75, where p = epochs done / 100 grows with every batch and starts at 0 in each round. We deviate:
    the code removes int(r C) filters, one fewer where floating point rounds down; it reports on one target, we on every
    domain. Its loss (a softmax before the cross-entropy), its scoring of the reported images and its normalisation are
    built into `dg.presets.dss_mnist_m()` only.

    Args:
        study: the network and its domains; it stays unchanged.
        scorer: a name, a Scorer, or None for the dense control, which is fine-tuned too but not pruned.
        ratio: share of the filters removed in the end, 0 <= ratio < 1; for the dense control it only sets the rounds.
        rounds: number of rounds T; None for the paper's rule.
        epochs: epochs of fine-tuning after each round; 0 only prunes.
        options: options of fine-tuning; None for the paper's optimiser and schedule with plain cross-entropy. Their
            `epochs` must not contradict `epochs`.
        batchnorm: "recalibrate" re-estimates BatchNorm statistics after each removal and after each fine-tuning: with
            a momentum of .01, as in EfficientNet, one short epoch leaves them far behind the weights.
        scope, budget: scope and budget of the allocation in each round; see `dg.allocate`.
        seed: random seed of the scorer and, with `options.seed`, of the order of the images; each round derives its own
            seeds.
        split: the split that is reported.
        score_split: the split that the scorer reads in each round; the provenance records it. The paper scores on the
            images on which it reports: "report".
        images: report on the first `images` images of each domain only.
        measure: measure after every stage ("rounds"), after every epoch too ("epochs"), or only the last network
            ("end").
        progress: whether to draw a tqdm bar.

    Returns:
        The network, its mask and the table: accuracy and loss per domain (interval: bootstrap over images); filters,
        parameters, macs and bytes. `stage` is "full" (the network as given), "cut" or "tuned"; `epoch` counts over all
        rounds; `ratio_requested` is the share that the rounds so far together should remove. Ctrl-C ends the run; see
        `Tuned.finished`. `.steps(...)` yields a `BatchEvent` and `EpochEvent` of each fine-tuning (epochs count within
        the round), a `PruneEvent` per round and a `StageEvent` per stage, with their rows of the table, and None while
        it measures.

    Raises:
        DgpruneError: before any work: an option outside its range, an unknown scorer or one that cannot run here, a
            source without labels or train split; during training: a loss that is not finite.
    """
    options = options or FINETUNING
    if epochs and options.epochs not in (epochs, TrainingOptions().epochs):
        raise DgpruneError(
            f"the options say {options.epochs} epochs and epochs= says {epochs}; give the number as epochs=, per round."
        )
    resolved = None if scorer is None else resolve(scorer)
    for domain in study.domains:
        domain.rows(split, images)
    if batchnorm == "recalibrate" and study.has_batchnorm:
        calibration_sources(study.sources)
    if epochs:
        trial = replace(options, epochs=epochs)
        train(study.model, sources=study.sources, options=trial).close()  # for its checks; nothing is trained
    if resolved is not None and (why := study.unavailable(resolved, split=score_split)):
        raise DgpruneError(f"scorer {resolved.name!r} cannot run on this study: {why.rstrip('.')}.")
    plan = Plan(
        study=study,
        scorer=resolved,
        ratio=ratio,
        rounds=rounds_of(ratio, rounds),
        epochs=epochs,
        options=options,
        batchnorm=batchnorm,
        scope=scope,
        budget=budget,
        seed=seed,
        split=split,
        score_split=score_split,
        images=images,
        measure=measure,
    )
    return Run(plan).steps()


def rounds_of(ratio: float, rounds: int | None = None) -> int:
    """Return the number of rounds: as given, or by the paper's rule, 2 for ratios up to 60 % and 3 above.

    >>> rounds_of(0.6), rounds_of(0.7), rounds_of(0.7, 1)
    (2, 3, 1)
    """
    return rounds or (2 if ratio <= 0.6 + 1e-9 else 3)


def scorer_name(scorer: str | Scorer | None) -> str:
    """Return the name of a scorer, or of the dense control, in tables."""
    return DENSE if scorer is None else resolve(scorer).name
