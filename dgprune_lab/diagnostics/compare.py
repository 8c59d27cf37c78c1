"""How do two networks of one study differ: accuracy, classes, single predictions, calibration, filters, size?"""

from __future__ import annotations

import numpy as np
from torch import nn

from ..core import STAGES, BatchNorm, Count, Domain, Mask, Outcomes, tidy, yielding
from ..measurement import CLASS, metric_rows, outcome_rows, worst_rows
from ..stats import intervals
from ..study import Study
from ._choices import Choice, choice_of
from ._contract import Row, Rows, Steps, diagnostic
from ._removal import mask_cells
from .drop import MIN_CLASS_IMAGES
from .flips import flip_rows, flipped

EXTRA = ("choice", "group", *CLASS)
BOTH = "a - b"


@diagnostic("compare", extra=EXTRA, cite="Efron, Tibshirani 1993, chapter 8; Guo et al. 2017, arXiv:1706.04599")
def compare(
    study: Study,
    a: Mask | nn.Module | None,
    b: Mask | nn.Module | None,
    *,
    batchnorm: BatchNorm = "recalibrate",
    split: str = "report",
    images: Count | None = None,
    progress: bool = False,
) -> Steps:
    """Compare two networks of one study on the same images; `b` is the reference.

    For each of them (column `choice`: "a" or "b"): accuracy, loss (nats) and calibration_error per domain,
    class_accuracy per class, worst_domain_accuracy of the sources and of the targets; filters, parameters, macs, bytes.
    For the pair (`choice` "a - b"), per domain:

    difference         accuracy of a minus accuracy of b, in [-1, 1], with a bootstrap interval paired by image.
    class_difference   the same on the images of one class; empty for a class of fewer than 5 images.
    calibration_difference  calibration_error of a minus that of b, in [-1, 1]; above 0 where b is better calibrated.
    right_to_wrong     share of the images that b classifies correctly and a does not; wrong_to_right the reverse;
                       changed: another class is predicted. With the suffix `_count`, the number of images.
    filters_differ     number of filters that one keeps and the other removes, per layer (column `group`) and in all.

    Domains without labels have only `changed`. The calibration error is that of `stats.calibration_error`. Its
    difference has no interval: chance raises both errors, the smaller one more, and simulated intervals of the
    difference (paired bootstrap, basic and percentile) covered the truth in 41 to 100 % of cases.

    Args:
        study: the network and its domains.
        a, b: a mask of the study's network; a network pruned from it, such as one that was fine-tuned; None for the
            full network as given.
        batchnorm: for masks, see `diagnostics.drop`; networks and the full network are measured as they are.
        split, images: compare on the first `images` images of this split; None for all.
        progress: whether to show a progress bar.

    Returns:
        A tidy table with the columns `choice`, `group`, `class` and `class_name`. For a network that `dg.prune` did not
        make there are no rows of filters.

    Raises:
        DgpruneError: a mask that does not fit the network (one made for other weights fits); a network of
            another study; no image in the split.
    """
    pair = [choice_of(study, name, chosen, batchnorm=batchnorm) for name, chosen in (("a", a), ("b", b))]
    for domain in study.domains:
        domain.rows(split)
    return _steps(pair, split=split, images=images)


def _steps(pair: list[Choice], *, split: str, images: int | None) -> Steps:
    """Measure both on every domain, and return the table; yields (done, total)."""
    study, measured, rows = pair[0].study, 0, []
    total = 2 * len(study.domains)
    with study.assume_unchanged():
        for domain in study.domains:
            outcomes, errors = [], list[float]()
            for choice in pair:
                steps = choice.outcomes(domain, split=split, images=images)
                outcomes.append((yield from yielding(steps, (measured, total))))
                measured += 1
                yield measured, total
                cells = {**choice.cells(domain=domain, split=split), "choice": choice.name}
                class_rows = metric_rows(outcomes[-1], domain, metrics=("per_class", "calibration_error"))
                metrics = [*outcome_rows(outcomes[-1]), *class_rows]
                measured_rows = [{**cells, "images": len(outcomes[-1]), **row} for row in metrics]
                errors += [row["value"] for row in measured_rows if row["metric"] == "calibration_error"]
                rows += measured_rows
            rows += _difference_rows(pair, outcomes, domain=domain, split=split, errors=errors)
    for choice in pair:
        rows += worst_rows([row for row in rows if row["choice"] == choice.name])
        rows += [{**row, "choice": choice.name} for row in choice.size_rows()]
    return tidy([*rows, *_filter_rows(pair)], extra=EXTRA).astype({"class": "Int64"})


def _difference_rows(
    pair: list[Choice], outcomes: list[Outcomes], *, domain: Domain, split: str, errors: list[float]
) -> Rows:
    """Return the rows about both networks on one domain: flips, and differences where there are labels."""
    first, second = outcomes
    shared = {**_pair_columns(pair, domain=domain, split=split), "images": len(first), "interval": "images"}
    rows = flip_rows(flipped(second, first.predicted), shared)
    if first.correct is None or second.correct is None or first.labels is None:
        return rows
    right, labels = np.stack([first.correct.numpy(), second.correct.numpy()]).astype(np.float64), first.labels.numpy()
    for label in (None, *range(domain.classes)):
        correct_a, correct_b = right if label is None else right[:, labels == label]
        cells: Row = {"metric": "difference", "unit": "share"}
        if label is not None:
            name = domain.class_label(label) if domain.class_names else None
            cells |= {"metric": "class_difference", "class": label, "class_name": name, "images": len(correct_a)}
        if label is None or len(correct_a) >= MIN_CLASS_IMAGES:
            low, high = intervals.difference(correct_a, correct_b)
            cells |= {"value": correct_a.mean() - correct_b.mean(), "low": low, "high": high}
        rows.append({**shared, **cells})
    cells = {"metric": "calibration_difference", "value": errors[0] - errors[1], "unit": "share", "interval": None}
    return [*rows, {**shared, **cells}]


def _filter_rows(pair: list[Choice]) -> Rows:
    """Return the rows of `filters_differ`, in all and per layer; none where the filters of a network are unknown."""
    first, second = (choice.mask for choice in pair)
    if first is None or second is None:
        return []
    differ: dict[str | None, int] = {name: int((keep ^ second.keep[name]).sum()) for name, keep in first.keep.items()}
    shared = {**_pair_columns(pair), "metric": "filters_differ", "unit": "count"}
    return [{**shared, "group": name, "value": value} for name, value in {None: sum(differ.values()), **differ}.items()]


def _pair_columns(pair: list[Choice], *, domain: Domain | None = None, split: str | None = None) -> Row:
    """Return the columns of a row about both networks: the most that either has seen, and no ratio."""
    study, (first, second), provenance = pair[0].study, pair, pair[0].provenance
    for stage in STAGES:
        provenance = provenance.adding(stage, getattr(second.provenance, stage))
    cells = mask_cells(study, None, batchnorm="as_is", domain=domain, split=split, provenance=provenance)
    setting = (second if first.full else first).cells()["batchnorm"]
    return {**cells, "ratio_requested": None, "ratio_achieved": None, "batchnorm": setting, "choice": BOTH}
