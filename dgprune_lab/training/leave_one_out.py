"""Leave one domain out: train on all domains but one, report on that one, for each domain."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import Any
from urllib.parse import quote
from weakref import WeakSet

import numpy as np
import pandas as pd
import torch
from torch import nn

from ..core import (
    MORE,
    STAGES,
    Count,
    DgpruneError,
    Domain,
    Outcomes,
    Provenance,
    Repeats,
    Seed,
    Seen,
    check_domains,
    check_writable_folder,
    preserved_rng,
    progress_bar,
    provenance_of,
    set_provenance,
    stepwise,
    tidy,
    yielding,
)
from ..measurement import evaluating, has_batchnorm, outcome_rows, worst_rows
from ..models import save
from ..pruning import deep_copy, prove_copies
from ..stats import intervals
from .events import EpochEvent
from .loop import train as train_network
from .objectives import check_objective
from .options import TrainingOptions

Training = Callable[[list[Domain], int], Any]
Steps = Generator[tuple[int, int, str], None, pd.DataFrame]
_ALL = "all"


@stepwise(progress_bar)
def leave_one_out(
    domains: Sequence[Domain],
    *,
    train: Training | TrainingOptions,
    network: Callable[[int], nn.Module] | None = None,
    seeds: Repeats | Sequence[Seed] = 1,
    select: str | None = "score",
    images: Count | None = None,
    folder: str | Path | None = None,
    progress: bool = False,
) -> Steps:
    """Train a network on all domains but one and report its accuracy on that one, for each domain and seed.

    A run gives `train` the splits `train` and `select` of the other domains. `train` never gets the held-out domain, of
    which all images are reported (split "all"). If a run makes several networks, with several settings or after each
    epoch, the one with the highest mean accuracy over the sources' `select` splits is reported: the training-domain
    validation of Gulrajani and Lopez-Paz 2021 (arXiv:2007.01434, section 3). The provenance records this as selection.

    Args:
        domains: at least two domains with labels, one image size and the same classes.
        train: function from (sources, seed) to the trained network, to a list of networks to select from, or to a
            generator of training events, as the `train` of this package returns. Or the options of the package's own
            training, whose seed is replaced by that of the run.
        network: function from the seed to the network before training, where `train` is options; it must not have read
            the held-out domain.
        seeds: number of training seeds, counted from 0, or the seeds.
        select: split of the sources on which the network is selected; None for the last epoch, without selection.
        images: report on the first `images` images of the held-out domain; None for all.
        folder: folder in which each network is saved as without_DOMAIN_seed_N.safetensors, with its provenance, for
            pruning it afterwards (`dg.load`); an earlier file of that name is replaced. None saves none.
        progress: whether to draw a tqdm bar.

    Returns:
        A tidy table. A row per held-out domain with the metric `accuracy`, and two rows over all of them:
        `mean_accuracy`, and `worst_domain_accuracy`, the row of the domain with the lowest accuracy (with the lowest
        interval ends of all, see `dg.measure`). For several seeds the values are means with a t interval over seeds;
        for one seed they have a bootstrap interval over images. A network without a record of its training is assumed
        to have read the labels of all that `train` was given; what else the function reads cannot be detected here.

    Raises:
        DgpruneError: fewer than two domains, or domains that do not fit together; a domain without labels or without a
            split that is needed; options without `network`; a network that has read the held-out domain.
    """
    folder = None if folder is None else check_writable_folder(folder, argument="folder")
    runs = _Runs(domains=domains, train=train, network=network, select=select, images=images)
    numbers = list(range(seeds)) if isinstance(seeds, int) else list(dict.fromkeys(seeds))
    if not numbers:
        raise DgpruneError("seeds must name at least one seed; got none.")
    return _table(runs, numbers, folder=folder)


def _table(runs: _Runs, seeds: Sequence[int], *, folder: Path | None) -> Steps:
    """Train and evaluate run by run, and return the table."""
    rows: list[dict[str, Any]] = []
    outcomes: list[list[Outcomes]] = []
    for number, target in enumerate(runs.domains):
        columns: dict[str, Any] = {"domain": target.name, "role": "target", "split": _ALL}
        of_domain, provenance = [], Provenance(training={})
        for k, seed in enumerate(seeds):
            at = (number * len(seeds) + k, len(runs.domains) * len(seeds), f"without {target.name}, seed {seed}")
            model = yield from yielding(runs.trained(target, seed), at)
            if folder is not None:
                file = f"without_{quote(target.name, safe=' ')}_seed_{seed}"
                save(model, folder / file, card={"held_out": target.name})
            reads = {stage: getattr(provenance_of(model), stage) for stage in STAGES}
            provenance = reduce(lambda both, stage: both.adding(stage, reads[stage]), STAGES, provenance)
            full = replace(target, splits={_ALL: torch.cat(list(target.splits.values()))})
            of_domain.append((yield from yielding(evaluating(model, full, _ALL, images=runs.images), at)))
            columns["batchnorm"] = "as_is" if has_batchnorm(model) else None
        columns |= {"images": len(of_domain[0]), **provenance.columns(target.name, _ALL, roles=runs.roles(target))}
        rows.append({**columns, **_accuracy([of_domain], seeds), "metric": "accuracy"})
        outcomes.append(of_domain)
    worst = next(worst_rows(rows))
    shared = {"role": "target", "split": _ALL, "images": sum(row["images"] for row in rows)}
    shared |= {name: worst[name] for name in ("batchnorm", "target_aware")}
    return tidy([*rows, {**shared, **_accuracy(outcomes, seeds), "metric": "mean_accuracy"}, worst])


def _accuracy(outcomes: Sequence[Sequence[Outcomes]], seeds: Sequence[int]) -> dict[str, Any]:
    """Return the mean accuracy over domains (rows) and seeds (columns), with its interval."""
    cells: dict[str, Any] = {"unit": "share", "training_seed": seeds[0] if len(seeds) == 1 else None}
    if len(seeds) > 1:
        value, low, high = intervals.over_seeds(
            np.mean([[o.accuracy for o in row] for row in outcomes], axis=0).tolist()
        )
        return {**cells, "value": value, "low": max(low, 0.0), "high": min(high, 1.0), "interval": "seeds"}
    each = [next(row for row in outcome_rows(only) if row["metric"] == "accuracy") for (only,) in outcomes]
    value, low, high = (float(np.mean([row[end] for row in each])) for end in ("value", "low", "high"))
    varied = [only.correct.double().numpy()[:, None] for (only,) in outcomes if only.correct is not None]
    if len(outcomes) > 1 and any(np.ptp(right) for right in varied):  # otherwise the exact bounds, as for one domain
        low, high = np.percentile(np.mean([intervals.resampled_means(right) for right in varied], axis=0), [2.5, 97.5])
    return {**cells, "value": value, "low": float(low), "high": float(high), "interval": "images"}


@dataclass(kw_only=True)
class _Runs:
    """The arguments of `leave_one_out`, checked, and the training of one run."""

    domains: Sequence[Domain]
    train: Training | TrainingOptions
    network: Callable[[int], nn.Module] | None
    select: str | None
    images: int | None
    _earlier: WeakSet[nn.Module] = field(default_factory=WeakSet)

    def __post_init__(self) -> None:
        domains, train = self.domains, self.train
        names = [domain.name for domain in domains]
        if len(set(names)) < max(2, len(names)):
            raise DgpruneError(f"domains must be two or more, with different names; got {', '.join(names) or 'none'}.")
        if isinstance(train, nn.Module) or (isinstance(train, TrainingOptions) and self.network is None):
            raise DgpruneError(
                "train must be a function from (sources, seed) to a trained network, or TrainingOptions together with "
                "network=, a function from the seed to an untrained network, so that every run begins anew."
            )
        if isinstance(train, TrainingOptions):
            check_objective(train, sources=len(domains) - 1)
        for domain in domains:
            if domain.labels is None:
                raise DgpruneError(f"domain {domain.name!r} has no labels: it can be neither trained nor reported on.")
            if domain.shape != domains[0].shape:
                raise DgpruneError(
                    f"domain {domain.name!r} has images of {domain.shape}, {domains[0].name!r} of {domains[0].shape}; "
                    "bring them to one size first."
                )
            for split in self.splits:
                domain.rows(split)
        check_domains(domains)

    @property
    def splits(self) -> list[str]:
        """Splits of the sources that a run may read."""
        return list(dict.fromkeys(["train", *([self.select] if self.select else [])]))

    def roles(self, target: Domain) -> dict[str, str | None]:
        """Return the roles of all domains in the run without `target`."""
        return {domain.name: "target" if domain is target else "source" for domain in self.domains}

    def trained(self, target: Domain, seed: int) -> Generator[None, None, nn.Module]:
        """Train without one domain, yielding between steps; return the network with its provenance."""
        sources = [
            replace(domain, splits={split: domain.rows(split) for split in self.splits}, role="source")
            for domain in self.domains
            if domain is not target
        ]
        with preserved_rng():
            torch.manual_seed(seed)
            trained: Any = self._start_training(sources, seed)
        best, chosen = yield from self._select_best(trained, sources)
        provenance = provenance_of(best)
        if provenance.training is None or MORE in provenance.training:
            reads: dict[str, Seen] = {f"{source.name}/{split}": "labels" for source in sources for split in self.splits}
            provenance = provenance.declaring(reads)
        if chosen:
            provenance = provenance.adding(
                "selection", {f"{source.name}/{self.select}": "labels" for source in sources}
            )
        for stage in STAGES:
            if provenance.seen_anywhere(stage, target.name) in ("images", "labels"):
                raise DgpruneError(
                    f"the network trained without {target.name!r} has read it ({stage}), according to its record; "
                    "start from a network that has not."
                )
        if not chosen:
            prove_copies(best, sources[0].take(torch.arange(1)).images)
            best = deep_copy(best)
        set_provenance(best, provenance)
        return best

    def _start_training(self, sources: list[Domain], seed: int) -> Any:
        if not isinstance(self.train, TrainingOptions):
            trained = _call_function(self.train, [*sources], seed, form="train(sources, seed)")
            if trained in self._earlier:
                raise DgpruneError(
                    "train returned the network of an earlier run, which has read the held-out domain; make a new one."
                )
            self._earlier |= {trained} if isinstance(trained, nn.Module) else set()
            return trained
        is_one = isinstance(self.network, nn.Module | type)
        network = None if is_one or self.network is None else _call_function(self.network, seed, form="network(seed)")
        if not isinstance(network, nn.Module):
            raise DgpruneError("network must be a function from the seed to a new network: network=lambda seed: Net().")
        return train_network(network, sources=sources, options=replace(self.train, seed=seed))

    def _select_best(self, trained: Any, sources: list[Domain]) -> Generator[None, None, tuple[nn.Module, bool]]:
        """Return the best network of a run, or the last one; and whether there were several to select from."""
        best, highest, count, networks = None, -1.0, 0, _networks(trained)
        while True:
            try:
                model = next(networks)
            except StopIteration as end:
                return (end.value, False) if best is None or count == 1 else (best, True)
            if model is not None and self.select is not None:
                if count == 0:
                    prove_copies(model, sources[0].take(torch.arange(1)).images)
                accuracy, count = (yield from self._accuracy(model, sources)), count + 1
                if accuracy > highest:
                    best, highest = deep_copy(model), accuracy
            yield

    def _accuracy(self, model: nn.Module, sources: list[Domain]) -> Generator[None, None, float]:
        """Return the mean over the sources of the accuracy on the `select` split."""
        assert self.select is not None
        accuracies = []
        for source in sources:
            accuracies.append((yield from evaluating(model, source, self.select)).accuracy)
        return float(np.mean(accuracies))


def _networks(trained: Any) -> Generator[nn.Module | None, None, nn.Module]:
    """Yield the networks of a run, and None between them; return the last one."""
    if isinstance(trained, Generator):
        while True:
            try:
                event = next(trained)
            except StopIteration as end:
                return _network(end.value)
            yield event.model if isinstance(event, EpochEvent) else None
    if isinstance(trained, list | tuple):
        for model in trained:
            yield _network(model)
        trained = trained[-1] if trained else trained
    return _network(trained)


def _network(trained: Any) -> nn.Module:
    if not isinstance(trained, nn.Module):
        raise DgpruneError(
            "train must return a network (nn.Module), a list of networks or a generator of training events; got "
            f"{type(trained).__name__}{' without networks' * isinstance(trained, list | tuple)}."
        )
    return trained


def _call_function(function: Callable[..., Any], *values: Any, form: str) -> Any:
    """Return the result of a user's function; refuse one that does not take these values, but pass on its errors."""
    try:
        inspect.signature(function).bind(*values)
    except TypeError as error:
        raise DgpruneError(f"{form.partition('(')[0]} must be a function called as {form}: {error}.") from None
    except ValueError:  # a function without a signature, written in C
        pass
    return function(*values)
