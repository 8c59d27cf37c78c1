"""Which scorer is best after pruning in rounds with fine-tuning, over several training seeds of a network?"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from typing import Any, cast

from ..core import (
    COLUMNS,
    BatchNorm,
    Budget,
    Count,
    DgpruneError,
    Ratio,
    Repeats,
    Scope,
    Seed,
    Whole,
    note,
    note_once,
    tidy,
)
from ..scorers import Scorer, resolve
from ..stats import PAIRED, difference_row, with_holm
from ..study import Study
from ..training import DENSE, TrainingOptions, finish, prune_and_tune, rounds_of, scorer_name
from ._contract import Row, Rows, Steps, diagnostic

Choice = str | Scorer | None
Key = tuple[int, str, float]
"""(index of the study, name of the scorer, ratio) of a run."""
_EndRows = Mapping[str, Row]
"""Domain -> its row of accuracy at the end of one run."""

EXTRA = ("network", "rounds", "epochs", *PAIRED)


@diagnostic(
    "after_finetuning", extra=EXTRA, cite="Sun 2023, arXiv:2306.13237, for the rounds; Holm 1979, Scand. J. Statist. 6"
)
def after_finetuning(
    studies: Study | Sequence[Study],
    *,
    scorers: Sequence[Choice],
    ratios: Sequence[Ratio] = (0.5,),
    epochs: Whole = 1,
    rounds: Repeats | None = None,
    baseline: Choice = "l1",
    options: TrainingOptions | None = None,
    batchnorm: BatchNorm = "as_is",
    scope: Scope = "layer",
    budget: Budget = "filters",
    seed: Seed = 0,
    split: str = "report",
    score_split: str = "score",
    images: Count | None = None,
    progress: bool = False,
) -> Steps:
    """Return the accuracy after pruning in rounds with fine-tuning, and each scorer's difference to a baseline.

    Metric "accuracy": a row per study, scorer, ratio and domain, for the network at the end (interval: over images).
    Metric "difference": for each scorer, ratio and domain, the mean over the studies of accuracy(scorer) -
    accuracy(baseline); both networks of a study are fine-tuned with the same order of images (interval: over training
    seeds, paired t, 95 %). Above 0 the scorer is better; a mean within +- `minimum_detectable_effect` is not
    significant.

    Args:
        studies: the same network trained with several seeds, such as `dg.training_seeds()`; for a single study there
            are no differences, and a note says so.
        scorers: names, Scorers, or None for the dense control, "dense": fine-tuned too, without removing a filter.
        ratios: one or several shares of filters to remove.
        epochs, rounds, options, batchnorm, scope, budget, seed, split, score_split, images: see `dg.prune_and_tune`.
        baseline: the scorer with which the others are compared; it is added to the list if it is missing.
        progress: whether to show a progress bar.

    Returns:
        A tidy table of shares; `rounds` and `epochs` (per round) are in every row, and `network`, the study's name, in
        the rows of a study whose training seed is unknown. A row of metric "difference" has further columns:
        `seeds` (the training seeds), `minimum_detectable_effect` (half the width of the interval), `p_value` (paired t
        test) and `p_holm` (adjusted for the number of ratios); its columns `seen_by_*` hold the most that either
        network has seen. After Ctrl-C the table holds the runs that are complete.

    Raises:
        DgpruneError: no study, scorer or ratio; studies of other domains or of the same network; two scorers of one
            name; and what `dg.prune_and_tune` refuses, before anything runs.
    """
    trained = _check_studies([studies] if isinstance(studies, Study) else list(studies))
    if not scorers or not ratios:
        raise DgpruneError("after_finetuning needs at least one scorer in scorers and one ratio in ratios.")
    items = _name_scorers([*scorers, baseline])

    tuning: Any = {"rounds": rounds, "epochs": epochs, "options": options, "batchnorm": batchnorm, "measure": "end"}
    tuning |= {"scope": scope, "budget": budget, "seed": seed}
    tuning |= {"split": split, "score_split": score_split, "images": images}

    def start(key: Key) -> Any:
        number, name, ratio = key
        return prune_and_tune.steps(trained[number], items[name], ratio=ratio, **tuning)

    def steps() -> Steps:
        ends = yield from _runs(keys, start, rounds=rounds, epochs=epochs)
        # Rows carry the network's name where no training seed identifies it.
        names = [{"network": study.name} if study.training_seed is None else {} for study in trained]
        rows = [row | names[number] for (number, *_), end in ends.items() for row in end.values()]
        return tidy([*rows, *_differences(trained, ends, baseline=scorer_name(baseline))], extra=EXTRA)

    keys = [
        (number, name, ratio) for ratio in dict.fromkeys(ratios) for number in range(len(trained)) for name in items
    ]
    for key in keys:
        start(key).close()  # only runs its checks
    return steps()


def _runs(
    keys: Sequence[Key], start: Callable[[Key], Any], *, rounds: int | None, epochs: int
) -> Generator[tuple[int, int] | tuple[int, int, str], None, dict[Key, _EndRows]]:
    """Run all keys one after the other, until Ctrl-C; the dense control runs once for all ratios with equal rounds."""
    ends: dict[Key, _EndRows] = {}
    dense: dict[tuple[int, int], _EndRows] = {}
    notes: set[str] = set()
    with suppress(KeyboardInterrupt):
        for key in keys:
            number, name, ratio = key
            count = rounds_of(ratio, rounds)
            yield len(ends), len(keys), f"{name} {100 * ratio:g} %, network {number + 1}"
            end = dense.get((number, count)) if name == DENSE else None
            if end is None:
                with note_once(notes):
                    result = finish(start(key))
                if not result.finished:
                    break
                frame = result.table.loc[result.table["metric"] == "accuracy", list(COLUMNS)]
                end = {str(row["domain"]): row for row in cast("Rows", frame.to_dict("records"))}
            if name == DENSE:
                dense[number, count] = end
            cells = {"ratio_requested": ratio, "rounds": count, "epochs": epochs}
            ends[key] = {domain: row | cells for domain, row in end.items()}
            yield len(ends), len(keys)
    if len(ends) < len(keys):
        note(f"stopped: {len(ends)} of {len(keys)} runs are complete, and the table holds those.")
    return ends


def _name_scorers(scorers: Sequence[Choice]) -> dict[str, Choice]:
    """Return name -> scorer; refuse two scorers with one name."""
    items: dict[str, Choice] = {}
    for scorer in scorers:
        name = scorer_name(scorer)
        first, second = (None if item is None else resolve(item) for item in (items.setdefault(name, scorer), scorer))
        if (first and first.function) is not (second and second.function):
            raise DgpruneError(f"two scorers are called {name!r}, and a table could not distinguish them; rename one.")
    return items


def _check_studies(studies: list[Study]) -> list[Study]:
    """Return the studies; refuse those whose differences cannot be averaged."""
    if not studies:
        raise DgpruneError("after_finetuning needs at least one study in studies.")
    if len({study.key for study in studies}) > 1:
        names = dict.fromkeys(", ".join(domain.name for domain in study.domains) for study in studies)
        raise DgpruneError(
            f"the studies must have the same domains, image for image, in one order; got {'; '.join(names)}."
        )
    if len({study.content for study in studies}) < len(studies):
        raise DgpruneError(
            "two of the studies hold the same network and would count as one; every training seed needs a training of "
            "its own, as in dg.training_seeds()."
        )
    return studies


def _differences(studies: Sequence[Study], ends: Mapping[Key, _EndRows], *, baseline: str) -> Rows:
    """Return the rows of differences, one per scorer, ratio and domain; p_holm adjusts over the ratios of a scorer."""
    if len(studies) < 2:
        note("with one study there are no differences over training seeds; pass several, as dg.training_seeds() gives.")
    numbers, names, ratios = (list(dict.fromkeys(column)) for column in zip(*ends, strict=True)) if ends else ([],) * 3
    seeds = [study.name if study.training_seed is None else str(study.training_seed) for study in studies]
    rows: Rows = []
    for name in (name for name in names if name != baseline):
        for domain in (domain.name for domain in studies[0].domains):
            tests = []
            for ratio in ratios:
                end_rows = [
                    (number, ends.get((number, name, ratio)), ends.get((number, baseline, ratio))) for number in numbers
                ]
                pairs = [
                    (seeds[number], row[domain], other[domain])
                    for number, row, other in end_rows
                    if row and other and domain in row and domain in other
                ]
                tests += [difference_row(pairs)] if len(pairs) > 1 else []
            rows += with_holm(tests)
    return sorted(rows, key=lambda row: (ratios.index(row["ratio_requested"]), names.index(row["scorer"])))
