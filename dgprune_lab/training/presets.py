"""Complete settings of published experiments: network, data, loss, schedule, rounds, and what still differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import pandas as pd
import torch
from torch import nn

from ..core import (
    Count,
    DgpruneError,
    Domain,
    Frozen,
    Ratio,
    Repeats,
    Seed,
    provenance_of,
    public,
    set_provenance,
    tidy,
)
from ..data import BUILTIN
from ..models import shipped
from ..models.networks import build
from ..scorers import Scorer
from ..study import Study
from .events import event_bar, finish
from .loop import train
from .options import TrainingOptions
from .prune_and_tune import FINETUNING as plain_finetuning
from .prune_and_tune import prune_and_tune, rounds_of
from .rounds import EXTRA, MeasureWhen, Tuned

__all__ = ["Preset", "dss_mnist_m"]

Constants = tuple[Sequence[float], Sequence[float]]
"""Mean and standard deviation per channel, in the units of images in [0, 1]."""

TRAINING = TrainingOptions(epochs=100, batch_size=32, lr=0.01, momentum=0.9, schedule="dss", double_softmax=True)
"""The options with which the code of Sun 2023 (arXiv:2306.13237) trains its network for MNIST."""
FINETUNING = replace(plain_finetuning, double_softmax=True)
"""The options of its fine-tuning after each round: the schedule restarts and divides by 100 epochs, as in training."""
_MNIST: Constants = ([0.2973] * 3, [0.3278] * 3)
_MNIST_M: Constants = ([0.2973, 0.2992, 0.2754], [0.3278, 0.3229, 0.3206])


@public
@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Preset:
    """The settings of one published experiment; the methods `study`, `prune` and `table` use them.

    Attributes:
        name: name of the function that makes the preset.
        source: paper and code.
        sources, targets: names of built-in domains.
        builder: name of the network in `dg.models.networks`.
        normalisation: domain -> mean and standard deviation by which its images are normalised; each domain has its
            own. A target's values were computed from its images, so every number of the study is target-aware, whatever
            the scorer; the provenance records this ("mnist_m/normalisation", under selection).
        training, finetuning: options of training, and of the fine-tuning after each round.
        ratios: the ratios in the paper's table. Two rounds up to 60 %, three from 70 %.
        scorers: the paper's scorer, its baseline, and None for the dense control, which is fine-tuned equally long.
        split, score_split: the split that is reported, and the split that the scorer reads; both are the same images.
        images: use only the first `images` images of each split; None for all.
        checkpoint: name of the shipped network that was trained with these settings and seed 0.
    """

    name: str
    source: str
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    builder: str
    normalisation: Mapping[str, Constants]
    training: TrainingOptions
    finetuning: TrainingOptions
    ratios: tuple[float, ...]
    scorers: tuple[str | None, ...]
    split: str
    score_split: str
    images: int | None
    checkpoint: str

    @property
    def differences(self) -> tuple[str, ...]:
        """Remaining differences from the published experiment, a sentence each."""
        (source, *_), (target, *_) = self._domains("sources"), self._domains("targets")
        sizes = {split: f"{len(source.rows(split)):,}" for split in ("train", "report")}
        differences = [
            f"Source: {sizes['train']} MNIST digits to train on and {sizes['report']} to report, of the 5,000 that "
            "come with this package; the paper trains on 60,000 and reports 10,000.",
            f"Target: another build of MNIST-M, {len(target.rows('report')):,} of the same digits on bundled "
            "photographs; the paper reports 10,000 images of its own build. The constants that normalise it are those "
            "of the paper's build.",
            "Filters are removed from the network; the code masks them.",
            "Initial weights and the orders of the images are those of this package's seeds; the published table is "
            "one run, and repeats of it differ by 0.5 to 1.1 points.",
        ]
        if self.training.epochs != TRAINING.epochs:
            differences.append(f"Epochs of training: {self.training.epochs}; the paper's: {TRAINING.epochs}.")
        if self.finetuning.epochs != FINETUNING.epochs:
            differences.append(f"Epochs after each round: {self.finetuning.epochs}; the paper's: {FINETUNING.epochs}.")
        return tuple(differences)

    def __repr__(self) -> str:
        training, finetuning = self.training, self.finetuning
        lines = [
            f"Preset {self.name}: {self.source}",
            f"  {self.builder} on {', '.join(self.sources)}, target {', '.join(self.targets)}",
            f"  epochs: {training.epochs}, then {finetuning.epochs} after each round; batches of "
            f"{training.batch_size}, momentum {training.momentum:g}, learning rate {training.lr:g} / (1 + 10 p)^0.75 "
            f"with p = epochs done / {training.schedule_epochs}, a softmax before the cross-entropy in both",
            f"  scores split {self.score_split!r}, reports split {self.split!r}; every domain normalised by its own "
            "constants: target-aware",
            "  What still differs:",
        ]
        return "\n".join([*lines, *(f"  - {difference}" for difference in self.differences)])

    @public
    def study(self, *, seed: Seed = 0, progress: bool = False) -> Study:
        """Return the trained network with its domains, ready to prune.

        Args:
            seed: random seed of the initial weights and of the order of the images. For 0, with all epochs and images,
                the shipped network is loaded, which was trained with these settings; any other network is trained now.
            progress: whether to draw a tqdm bar.
        """
        sources, targets = self._domains("sources"), self._domains("targets")
        is_complete = seed == 0 and self.images is None and self.training.epochs == TRAINING.epochs
        network = shipped(self.checkpoint) if is_complete else self._trained(sources, seed=seed, progress=progress)
        reads: Any = {f"{domain.name}/normalisation": "images" for domain in targets}
        set_provenance(network, provenance_of(network).adding("selection", reads))
        return Study(network, sources=sources, targets=targets, name=self.name)

    @public
    def prune(
        self,
        study: Study,
        scorer: str | Scorer | None,
        *,
        ratio: Ratio,
        rounds: Repeats | None = None,
        seed: Seed = 0,
        measure: MeasureWhen = "rounds",
        progress: bool = False,
    ) -> Tuned:
        """Prune a study in rounds with fine-tuning, with these settings; see `dg.prune_and_tune`.

        Args:
            study: a study that `study()` has made.
            scorer: a name, a Scorer, or None for the dense control with equally many epochs.
            ratio: share of the filters to remove.
            rounds: number of rounds; None for two up to 60 % and three above.
            seed, measure, progress: see `dg.prune_and_tune`.
        """
        return prune_and_tune(
            study,
            scorer,
            ratio=ratio,
            rounds=rounds,
            epochs=self.finetuning.epochs,
            options=self.finetuning,
            seed=seed,
            split=self.split,
            score_split=self.score_split,
            measure=measure,
            progress=progress,
        )

    @public
    def table(
        self,
        study: Study | None = None,
        *,
        ratios: Sequence[Ratio] | None = None,
        seed: Seed = 0,
        progress: bool = False,
    ) -> pd.DataFrame:
        """Return the paper's table: each scorer and the dense control at the end of fine-tuning, per ratio and domain.

        The dense control of a ratio has as many extra epochs as the ratio's rounds: 40 up to 60 %, 60 from 70 %. The
        columns are those of `dg.prune_and_tune`, with one row per scorer, ratio, domain and metric.

        Args:
            study: the study to prune; None for `study(seed=seed)`.
            ratios: shares to remove; None for the paper's.
            seed: random seed of the study, and of the order of the images in fine-tuning.
            progress: whether to draw tqdm bars.
        """
        study = self.study(seed=seed, progress=progress) if study is None else study
        rows: list[dict[Any, Any]] = []
        tables: dict[Any, list[dict[Any, Any]]] = {}
        for ratio, scorer in product(self.ratios if ratios is None else ratios, self.scorers):
            run = (scorer, rounds_of(ratio) if scorer is None else ratio)
            if run not in tables:
                result = self.prune(study, scorer, ratio=ratio, seed=seed, measure="end", progress=progress)
                tables[run] = result.table.to_dict("records")
            rows += [{**row, "ratio_requested": ratio} for row in tables[run]]
        return tidy(rows, extra=EXTRA)

    def _trained(self, sources: Sequence[Domain], *, seed: int, progress: bool) -> nn.Module:
        mean, std = (list(values) for values in self.normalisation[self.sources[0]])
        network = build(self.builder, mean=mean, std=std, seed=seed)
        with event_bar(self.name, progress=progress) as show:
            return finish(train(network, sources=sources, options=replace(self.training, seed=seed)), show)

    def _domains(self, role: str) -> list[Domain]:
        """Return the domains of a role, with at most `images` images per split.

        The network's first layer normalises by the source's constants; the pixels are rescaled so that its output is
        normalised by the domain's own constants.
        """
        source = self.normalisation[self.sources[0]]
        domains = []
        for name in getattr(self, role):
            domain = BUILTIN[name]()
            splits = {split: rows[: self.images] for split, rows in domain.splits.items()}
            domains.append(as_normalised(replace(domain, splits=splits), self.normalisation[name], layer=source))
        return domains


def as_normalised(domain: Domain, own: Constants, *, layer: Constants) -> Domain:
    """Return a domain whose images, after a network's first layer normalises by `layer`, are normalised by `own`.

    (x - own mean) / own std * layer std + layer mean, per channel; pixels may lie slightly outside [0, 1].
    """
    if own == layer:
        return domain
    if not isinstance(domain.images, torch.Tensor):
        raise DgpruneError(
            f"domain {domain.name!r} holds a Dataset, whose images cannot be normalised here; do it in its transform."
        )
    (own_mean, own_std), (mean, std) = (torch.tensor(part).double()[:, :, None, None] for part in (own, layer))
    pixels = domain.images.double() / (255 if domain.images.dtype == torch.uint8 else 1)
    moved = ((pixels - own_mean) / own_std * std + mean).float()
    return replace(domain, images=moved, origin=f"{domain.origin}; normalised by its own constants")


@public
def dss_mnist_m(*, epochs: Count = 100, epochs_per_round: Count = 20, images: Count | None = None) -> Preset:
    """Return the MNIST to MNIST-M experiment of the domain similarity score (Sun 2023), as its code runs it.

    LeNet with convolutions of 32 and 48 filters; a softmax before the cross-entropy, in training and fine-tuning;
    learning rate .01 / (1 + 10 p)^.75 over 100 epochs, restarted after each round with p still divided by 100; batches
    of 32, SGD with momentum .9. In each round, DSS of the maps right after the ReLU is computed on the images that are
    reported; two rounds up to 60 % and three from 70 %, the same ratio in each layer, 20 epochs after each round. Each
    domain is normalised by its own constants. What the paper calls L2 is the L1 norm of a filter, here `l1`.
    `preset.differences` lists what still differs.

    Scoring the reported images and normalising a target by its own constants is domain adaptation: no number of this
    preset is a measure of generalisation, and every table marks it target-aware.

    The paper's second experiment, ResNet-50 on PACS and OfficeHome, is not a preset. It compares raw outputs before
    BatchNorm, of all convolutions but the first: `dg.SCORERS["dss"].using(site="conv_output")`. Missing for it:
    a network pretrained on ImageNet and trained with MIRO; leaving out the first convolution; a score for each single
    convolution (here, filters that a residual sum ties together share one score, the mean over its convolutions); and
    the paper's masks, which do not change BatchNorm, so that a masked channel still outputs a constant.

    Args:
        epochs, epochs_per_round: epochs of training, and of fine-tuning after each round; fewer are quicker, but differ
            from the paper. The schedule still divides by 100.
        images: use only the first `images` images of each split, which differs from the paper too; None for all.

    Source: Sun 2023, Pruning for Better Domain Generalizability, ICML SCIS, arXiv:2306.13237, and its code.

    >>> import dgprune_lab as dg
    >>> preset = dg.presets.dss_mnist_m()
    >>> preset.training.double_softmax, preset.score_split, preset.finetuning.schedule_epochs
    (True, 'report', 100)
    """
    return Preset(
        name="dss_mnist_m",
        source="Sun 2023, arXiv:2306.13237, and its code",
        sources=("mnist",),
        targets=("mnist_m",),
        builder="lenet",
        normalisation=Frozen({"mnist": _MNIST, "mnist_m": _MNIST_M}),
        training=replace(TRAINING, epochs=epochs, schedule_epochs=TRAINING.epochs),
        finetuning=replace(FINETUNING, epochs=epochs_per_round),
        ratios=tuple(percent / 100 for percent in range(10, 100, 10)),
        scorers=("dss", "l1", None),
        split="report",
        score_split="report",
        images=images,
        checkpoint="lenet_paper",
    )
