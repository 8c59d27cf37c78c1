"""Does pruning lose accuracy on an unseen domain first, and does the variance of the source risks keep more of it?

Cai, Li and Kot 2022 (arXiv:2210.13810) claim (1) that pruning keeps the accuracy on the domains of training while the
accuracy on other domains decays, and (2) that a score with the variance of the domains' risks keeps more of the latter
at the same ratio. Only the abstract was available: it gives no figure, and the formulas of `risk_variance` are our
reconstruction.

Protocol: four domains of digits (MNIST; other MNIST digits in random colours; USPS; UCI), each left out in turn as the
target, and the published MNIST-M as a target for all four. Per target and training seed, `digits_net` is trained on the
sources; every arm scores its filters on the sources' `score` split, removes the same share in each layer in one round,
and is reported without fine-tuning and after a few epochs of it. BatchNorm statistics are re-estimated on source images
in every row, also where nothing is removed. No step reads a target: it holds only the images that are reported.

Stated before the runs: in-domain accuracy counts as kept if it falls by at most one percentage point (`MARGIN`) below
the dense network with the same extra epochs; claim (1) also needs a larger fall on the target. Its two parts are judged
separately, on the mean of L1 and Taylor. Claim (2) compares the share of the dense network's accuracy on the target
that is kept, averaged over targets and ratios. Every average over targets is taken within a training seed; the
intervals are over training seeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from ...core import COLUMNS, Count, DgpruneError, Domain, Tidy
from ...diagnostics import sweep
from ...models import network_key
from ...scorers import SCORERS, Scorer, reverse, share
from ...study import Study, pooled
from ...training import DENSE, TrainingOptions, prune_and_tune
from ..claims import Claim, over_seeds
from ..experiment import Experiment, Finding, Scratch, Settings
from ..settings import grid
from ._common import data_hashes, data_sets, dense_network, end_rows, part
from ._held_out import held_out_measures

PAPER = "Cai, Li, Kot 2022, arXiv:2210.13810"
PUBLISHED = "no figure in the abstract"
MARGIN = 0.01
TUNED = "dense_tuned"
VARIANCE = "variance_term_share"
"""Metric: the weight of the variance term in the score of the median filter; below .01 the score is nearly Taylor."""

_MAIN = SCORERS["risk_variance"]
_USUAL = ("l1", "taylor")
_SCORERS = (
    *(_MAIN, _MAIN.using(mode="joint"), _MAIN.using(mode="signed"), _MAIN.using(mode="oracle")),
    *(SCORERS[name] for name in ("gradient_agreement", "gradient_snr", "dss_sources", "taylor", "l1", "random")),
    reverse(_MAIN),
)
ARMS: Mapping[str, Scorer | None] = {DENSE: None, TUNED: None, **{scorer.name: scorer for scorer in _SCORERS}}
"""Name of each arm -> its scorer; the dense network as trained, and the one with the same extra epochs, have none."""

_FULL: Settings = {
    # name, data set, images of each split to skip, shift, images to report
    "domains": (
        ("mnist", "mnist_full", 0, None, 1000),
        ("coloured", "mnist_full", 1000, "colour", 1000),
        ("usps", "usps", 0, None, 1000),
        ("uci_digits", "uci_digits", 0, None, 497),
    ),
    "targets_only": (("mnist_m", "mnist_m_published", 0, None, 1000),),
    "train": 1000,
    "score": 300,
    "builder": "digits_net",
    "widths": (24, 32, 48, 64, 64),
    "ratios": (0.3, 0.5, 0.7),
    "epochs": 8,
    "batch_size": 64,
    "lr": 0.05,
    "extra_epochs": 3,
}
_QUICK: Settings = {
    "domains": (
        ("mnist", "mnist", 0, None, 100),
        ("coloured", "mnist", 200, "colour", 100),
        ("uci_digits", "uci_digits", 0, None, 100),
    ),
    "targets_only": (("mnist_m", "mnist_m", 0, None, 100),),
    "train": 200,
    "score": 60,
    "builder": "lenet",
    "widths": (6, 8),
    "ratios": (0.5,),
    "epochs": 6,
    "batch_size": 64,
    "lr": 0.1,
    "extra_epochs": 1,
}


def several_sources(*, quick: bool = False, seeds: Count | None = None) -> Experiment:
    """Return the study of risk variance with several sources; see the module.

    Args:
        quick: one target, one ratio, two seeds, a small network and digits that come with this package; its numbers
            mean nothing.
        seeds: number of training seeds, counted from 0; None for 5, or for 2 where `quick`.
    """
    protocol: Any = _QUICK if quick else _FULL
    names = [entry[0] for entry in (*protocol["targets_only"], *protocol["domains"])]
    return Experiment(
        name="several_sources_quick" if quick else "several_sources",
        question="Does pruning lose accuracy on an unseen domain first, and does risk variance keep more of it?",
        run=run_several_sources,
        grid=grid(
            training_seed=range(seeds or (2 if quick else 5)), target=names[:1] if quick else names, scorer=tuple(ARMS)
        ),
        protocol=protocol,
        extra=("finetuned",),
        ready=data_sets(*(entry[1] for entry in (*protocol["targets_only"], *protocol["domains"]))),
        claims=several_sources_claims,
        cite=PAPER,
        differences=(
            "Networks and data: digits and one small network; the abstract does not name the paper's.",
            "Formulas of risk variance: our reconstruction from the abstract.",
            f"Images: {protocol['train']} to train on and {protocol['score']} to score on per source.",
            f"Epochs: {protocol['epochs']}, and {protocol['extra_epochs']} after removal, which is one round.",
            "Objective: the mean cross-entropy (ERM).",
        ),
        tolerance=0.05,
    )


def run_several_sources(settings: Settings, scratch: Scratch) -> Finding:
    """Measure one arm on one target at every ratio, without and with fine-tuning."""
    plan: Any = settings
    seed, name, ratios = plan["training_seed"], plan["scorer"], plan["ratios"]
    sources, target = _domains(settings)
    options: dict[str, Any] = {"batch_size": plan["batch_size"], "lr": plan["lr"], "seed": seed}
    network = dense_network(
        scratch,
        sources,
        builder=plan["builder"],
        widths=tuple(plan["widths"]),
        options=TrainingOptions(epochs=plan["epochs"], **options),
    )
    study = Study(network, sources=sources, targets=[target], name="several_sources", device=scratch.device)
    scorer, weights = ARMS[name], network_key(network)
    rows: list[dict[str, Any]] = []
    if name != TUNED:
        item, removed = ("l1", [0.0]) if scorer is None else (scorer, ratios)
        table: Any = sweep(study, scorers=[item], ratios=removed, seeds=[seed], batchnorm="recalibrate")
        rows += [
            {**row, "finetuned": False}
            for row in table.loc[table["metric"] == "accuracy", list(COLUMNS)].to_dict("records")
        ]
    for ratio in [] if name == DENSE else ratios[:1] if scorer is None else ratios:
        result = prune_and_tune(
            study,
            scorer,
            ratio=ratio,
            rounds=1,
            epochs=plan["extra_epochs"],
            options=TrainingOptions(epochs=plan["extra_epochs"], **options),
            batchnorm="recalibrate",
            seed=seed,
            measure="end",
        )
        rows += [{**row, "finetuned": True} for row in end_rows(result)]
        weights = network_key(result.network)
    if scorer is None:  # one network stands at every ratio
        rows = [{**row, "scorer": name, "ratio_requested": ratio} for ratio in ratios for row in rows]
    rows += [_variance_row(study, seed)] if scorer is _MAIN else []
    return Finding(rows=[{**row, "training_seed": seed} for row in rows], data=data_hashes(study), weights=weights)


def _domains(settings: Settings) -> tuple[list[Domain], Domain]:
    """Return the sources of a run, and its target, which holds the reported images only."""
    plan: Any = settings
    images = {"train": plan["train"], "score": plan["score"]}
    entries = (*plan["domains"], *plan["targets_only"])
    sources = [_part(entry, **images) for entry in plan["domains"] if entry[0] != plan["target"]]
    return sources, next(_part(entry) for entry in entries if entry[0] == plan["target"])


def _part(entry: Any, *, train: int = 0, score: int = 0) -> Domain:
    name, data_set, skip, shift, report = entry
    return part(data_set, name=name, skip=skip, shift=shift, train=train, score=score, report=report)


def _variance_row(study: Study, seed: int) -> dict[str, Any]:
    """Return the row with the weight of the variance term in the additive score."""
    both, first = study.score_all([_MAIN, _MAIN.using(beta=0.0)])
    second = {layer: values - first.values[layer] for layer, values in both.values.items()}
    value = share(first.values, {layer: values.clamp_min(0) for layer, values in second.items()})
    cells = pooled(study, "score", images=None, reads=both.reads)
    return {**cells, "scorer": _MAIN.name, "finetuned": False, "metric": VARIANCE, "value": value, "unit": "share"}


def several_sources_claims(frame: Tidy) -> list[Claim]:
    """Return the paper's two claims with our estimates, without and with fine-tuning.

    Raises:
        DgpruneError: fewer than two training seeds in which every run is done.
    """
    measures = held_out_measures(frame, dense=(DENSE, TUNED))
    return [*_decay(measures), *(claim for baseline in (*_USUAL, "random") for claim in _keeps(measures, baseline))]


def _decay(measures: pd.DataFrame) -> Iterator[Claim]:
    """Yield the two parts of claim (1) at every ratio: kept within the margin in-domain, a larger fall elsewhere."""
    wide: Any = _wide(
        measures, "accuracy_lost", ["role", "scorer"], scorers=_USUAL, index=["finetuned", "ratio_requested"]
    )
    note = "Mean of L1 and Taylor."
    for (finetuned, ratio), lost in wide.groupby(level=["finetuned", "ratio_requested"]):
        inside, where = lost["source"].mean(axis=1), f"{_describe_tuning(finetuned)}, at {100 * ratio:g} %"
        sentence = f"Pruning keeps accuracy in-domain to {100 * MARGIN:g} point, {where}"
        yield _claim(sentence, -inside, note=note, margin=MARGIN)
        yield _claim(
            f"Pruning loses more on the target than in-domain, {where}", lost["target"].mean(axis=1) - inside, note=note
        )


def _keeps(measures: pd.DataFrame, baseline: str) -> Iterator[Claim]:
    """Yield claim (2) against one baseline: the mean over ratios of the difference in accuracy kept on the target."""
    of_target: Any = measures[measures["role"] == "target"]
    scorers = (_MAIN.name, baseline)
    wide: Any = _wide(of_target, "accuracy_kept", ["scorer", "ratio_requested"], scorers=scorers, index=["finetuned"])
    for finetuned, shares in wide.groupby(level="finetuned"):
        gain = shares[_MAIN.name] - shares[baseline]
        each = ", ".join(f"{100 * value:+.1f} at {100 * float(ratio):g} %" for ratio, value in gain.mean().items())
        yield _claim(
            f"Risk variance keeps more accuracy on the target than {baseline}, {_describe_tuning(finetuned)}",
            gain.mean(axis=1),
            note=f"Mean over ratios, in shares of the dense network's accuracy; points: {each}.",
            ours=baseline == "random",
        )


def _wide(
    measures: pd.DataFrame, metric: str, columns: list[str], *, scorers: tuple[str, ...], index: list[str]
) -> pd.DataFrame:
    """Return the values of a metric, a row per training seed; a seed with a missing value is left out."""
    rows: Any = measures[(measures["metric"] == metric) & measures["scorer"].isin(scorers)]
    wide = rows.pivot(index=[*index, "training_seed"], columns=columns, values="value").dropna()
    complete = len(wide) and set(scorers) <= set(rows["scorer"])
    if (count := wide.groupby(level=index).size().min() if complete else 0) < 2:
        raise DgpruneError(
            f"frame holds too few training seeds in which every run is done ({count}): an interval over training seeds "
            "needs two. Wait until the study has more runs, or run it with more seeds."
        )
    return wide


def _claim(sentence: str, by_seed: Any, *, note: str, margin: float = 0.0, ours: bool = False) -> Claim:
    """Return the claim that a number per training seed is above 0 on average, or above -margin."""
    values = dict(zip(by_seed.index.get_level_values("training_seed"), by_seed.tolist(), strict=True))
    published = "" if ours else PUBLISHED
    return Claim.from_row(
        over_seeds(values), claim=sentence, paper=PAPER, published=published, margin=margin, note=note, ours=ours
    )


def _describe_tuning(finetuned: Any) -> str:
    return "after fine-tuning" if finetuned else "without fine-tuning"
