"""Which scorer is best once the network was pruned in rounds and fine-tuned, over several trainings of it?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import pandas as pd

from ..core import (
    COLUMNS,
    STAGES,
    BatchNorm,
    Budget,
    DgpruneError,
    Provenance,
    Scope,
    note,
    provenance_of,
    roles_of,
    said_once,
    tidy,
)
from ..scorers import Scorer, resolve
from ..stats import intervals
from ..study import Study
from ..training import DENSE, Steps, TrainingOptions, finish_run, rounds_of, scorer_name, tuning_steps
from ._contract import diagnostic

Choice = str | Scorer | None
Row = dict[str, Any]
Key = tuple[int, str, float]
"""Number of the study, name of the scorer, ratio."""

EXTRA = ("rounds", "epochs", "seeds", "smallest_effect", "p_value", "p_holm")


@dataclass(frozen=True)
class _End:
    """What one run came to: its rows of accuracy by domain, and what was read on the way."""

    rows: Mapping[str, Row]
    record: Provenance


@diagnostic(
    "after_finetuning", extra=EXTRA, cite="Sun 2023, arXiv:2306.13237, for the rounds; Holm 1979, Scand. J. Statist. 6"
)
def after_finetuning(
    studies: Study | Sequence[Study],
    *,
    scorers: Sequence[Choice],
    ratios: float | Sequence[float] = (0.5,),
    epochs: int = 1,
    rounds: int | None = None,
    baseline: Choice = "l1",
    options: TrainingOptions | None = None,
    batchnorm: BatchNorm = "as_is",
    scope: Scope = "layer",
    budget: Budget = "filters",
    seed: int = 0,
    split: str = "report",
    images: int | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Accuracy after pruning in rounds with fine-tuning, per training seed, and what a scorer wins over a baseline.

    Metric "accuracy": a row per study, scorer, ratio and domain, of the network at the end (interval: images).
    Metric "difference": per scorer, ratio and domain the mean over the studies of accuracy(scorer) -
    accuracy(baseline), both of one study and tuned with one order of images (interval: seeds, paired t, 95 %).
    Above 0 is better than the baseline; a mean within +- `smallest_effect` could not have been told from 0.

    Args:
        studies: the same network trained with several seeds, such as `dg.training_seeds()`; of a single one there are
            no differences, and a note says so.
        scorers: names, Scorers, or None for the dense control, "dense", which is tuned alike and loses no filter.
        ratios: one or several shares removed.
        epochs, rounds, options, batchnorm, scope, of, seed, split, images: as in `dg.prune_and_tune`.
        baseline: what the others are compared with; it is run too where it is not on the list.
        progress: draw a tqdm bar.

    Returns:
        A tidy table in shares. Extra columns: rounds, epochs (of each); of a difference seeds (the training seeds),
        smallest_effect (half the width of the interval), p_value (paired t test) and p_holm (adjusted for the number
        of ratios); its `seen_by_*` are the more of what the two have seen. Ctrl-C leaves the runs that are complete.

    Raises:
        DgpruneError: no study, scorer or ratio; studies of other domains or of the same network; two scorers of one
            name; and what `dg.prune_and_tune` refuses, before anything runs.
    """
    listed = [studies] if isinstance(studies, Study) else list(studies)
    asked = [float(ratios)] if isinstance(ratios, int | float) else list(dict.fromkeys(map(float, ratios)))
    if not listed or not scorers or not asked:
        raise DgpruneError("tuned needs at least one study, one scorer and one ratio.")
    _check_alike(listed)
    chosen = _named([*scorers, baseline])

    def start(key: Key) -> Steps:
        number, name, ratio = key
        return tuning_steps(
            listed[number],
            chosen[name],
            ratio=ratio,
            rounds=rounds,
            epochs=epochs,
            options=options,
            batchnorm=batchnorm,
            scope=scope,
            budget=budget,
            seed=seed,
            split=split,
            images=images,
            measure="end",
        )

    keys = [(number, name, ratio) for ratio in asked for number in range(len(listed)) for name in chosen]
    for key in keys:
        start(key).close()  # for what it refuses
    with said_once():
        ends = _run_all(keys, start, rounds=rounds, progress=progress)
    others = [name for name in chosen if name != scorer_name(baseline)]
    rows = [row for end in ends.values() for row in end.rows.values()]
    rows += _differences(listed, ends, asked, others, scorer_name(baseline))
    spent = [{"rounds": rounds_of(row["ratio_requested"], rounds), "epochs": epochs} for row in rows]
    return tidy([{**row, **more} for row, more in zip(rows, spent, strict=True)], extra=EXTRA)


def _named(scorers: Sequence[Choice]) -> dict[str, Choice]:
    """The scorers by name, each once."""
    found: dict[str, Choice] = {}
    for scorer in scorers:
        name = scorer_name(scorer)
        first, second = (None if one is None else resolve(one) for one in (found.setdefault(name, scorer), scorer))
        if (first and first.function) is not (second and second.function):
            raise DgpruneError(f"two scorers are called {name!r}, and a table could not tell them apart; rename one.")
    return found


def _check_alike(studies: Sequence[Study]) -> None:
    """Refuse studies that no difference can be averaged over."""
    names = [", ".join(domain.name for domain in study.domains) for study in studies]
    if len({study.key for study in studies}) > 1:
        said = "; ".join(dict.fromkeys(names))
        raise DgpruneError(f"the studies must have the same domains, image for image, in one order; got {said}.")
    if len({study.content for study in studies}) < len(studies):
        raise DgpruneError(
            "two of the studies hold the same network, so they count as one; a training seed needs a training of its "
            "own, as in dg.training_seeds()."
        )


def _run_all(
    keys: Sequence[Key], start: Callable[[Key], Steps], *, rounds: int | None, progress: bool
) -> dict[Key, _End]:
    """Run after run until all are done or Ctrl-C comes; the dense control once for all ratios of as many rounds."""
    from tqdm.auto import tqdm

    ends: dict[Key, _End] = {}
    dense: dict[tuple[int, int], _End] = {}
    with suppress(KeyboardInterrupt), tqdm(keys, unit="run", disable=not progress) as bar:
        for key in bar:
            number, name, ratio = key
            bar.set_postfix_str(f"{name} {100 * ratio:g} %, network {number + 1}")
            alike = (number, rounds_of(ratio, rounds))
            end = dense.get(alike) if name == DENSE else None
            if end is None:
                result = finish_run(start(key))
                if not result.finished:
                    break
                frame = cast(pd.DataFrame, result.table.loc[result.table["metric"] == "accuracy", list(COLUMNS)])
                rows = cast("list[Row]", frame.to_dict("records"))
                end = _End({str(row["domain"]): row for row in rows}, provenance_of(result.network))
            if name == DENSE:
                dense[alike] = end
            ends[key] = _End({d: {**row, "ratio_requested": ratio} for d, row in end.rows.items()}, end.record)
    if len(ends) < len(keys):
        note(f"stopped: {len(ends)} of {len(keys)} runs are complete, and the table holds those.")
    return ends


def _differences(
    studies: Sequence[Study], ends: Mapping[Key, _End], ratios: Sequence[float], others: Sequence[str], baseline: str
) -> list[Row]:
    """A row per scorer, ratio and domain; p_holm over the ratios of one scorer and domain."""
    if len(studies) < 2:
        note("with one study there are no differences over training seeds; pass several, as dg.training_seeds() gives.")
    rows: list[Row] = []
    for name in others:
        for domain in studies[0].domains:
            pairs = [_pairs(ends, domain.name, name, baseline, ratio) for ratio in ratios]
            found = [_difference(studies, domain.name, pair) for pair in pairs if len(pair) > 1]
            adjusted = intervals.holm([row["p_value"] for row in found])
            rows += [{**row, "p_holm": p} for row, p in zip(found, adjusted, strict=True)]
    order = {name: place for place, name in enumerate(others)}
    return sorted(rows, key=lambda row: (ratios.index(row["ratio_requested"]), order[row["scorer"]]))


def _pairs(
    ends: Mapping[Key, _End], domain: str, name: str, baseline: str, ratio: float
) -> dict[int, tuple[_End, _End]]:
    """Number of the study -> the ends of scorer and baseline, where both are complete and have an accuracy."""
    found = {}
    for number in dict.fromkeys(number for number, _, _ in ends):
        mine, other = ends.get((number, name, ratio)), ends.get((number, baseline, ratio))
        if mine is not None and other is not None and domain in mine.rows and domain in other.rows:
            found[number] = mine, other
    return found


def _difference(studies: Sequence[Study], domain: str, pairs: Mapping[int, tuple[_End, _End]]) -> Row:
    """One scorer against the baseline on one domain at one ratio, over the training seeds."""
    first = next(iter(pairs.values()))[0].rows[domain]
    gaps = [mine.rows[domain]["value"] - other.rows[domain]["value"] for mine, other in pairs.values()]
    record = Provenance(training={})
    for end in (end for pair in pairs.values() for end in pair):
        for stage in STAGES:
            record = record.adding(stage, getattr(end.record, stage))
    names = [study.name if study.training_seed is None else str(study.training_seed) for study in studies]
    mean, low, high = intervals.over_seeds(gaps)
    return {
        **first,
        "ratio_achieved": sum(mine.rows[domain]["ratio_achieved"] for mine, _ in pairs.values()) / len(pairs),
        "training_seed": None,
        "metric": "difference",
        "value": mean,
        "low": low,
        "high": high,
        "interval": "seeds",
        "seeds": ", ".join(names[number] for number in pairs),
        "smallest_effect": intervals.smallest_effect(gaps),
        "p_value": intervals.paired_p(gaps),
        **record.columns(domain, first["split"], roles=roles_of(studies[0].domains)),
    }
