"""Code shared by the studies: parts of data sets, the dense network of a training seed, the rows of a tuned network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ...core import COLUMNS, DgpruneError, Domain, is_missing
from ...data import SHIFTS, load
from ...models import networks
from ...study import Study
from ...training import TrainingOptions, Tuned, finish, train
from ..experiment import Scratch


@lru_cache(maxsize=32)
def part(
    data_set: str,
    *,
    name: str,
    train: int = 0,
    score: int = 0,
    report: int = 0,
    skip: int = 0,
    shift: str | None = None,
) -> Domain:
    """Return the first images of each split of a data set as a domain of its own, cached within the process.

    Args:
        data_set: name of the data set for `data.load`.
        name: name of the domain.
        train, score, report: number of images of each split; 0 leaves the split out. `report` is taken from the test
            split of a data set that has one.
        skip: number of images of each split that are skipped, so that two parts share no image.
        shift: name of a distribution shift in `data.SHIFTS`, at its default strength; None for no shift.

    Raises:
        DgpruneError: a data set that is missing or has too few images.
    """
    full = load(data_set)
    names = {"train": "train", "score": "score", "report": "test" if "test" in full.splits else "report"}
    rows: dict[str, Tensor] = {}
    for split, count in {"train": train, "score": score, "report": report}.items():
        if count:
            taken = full.rows(names[split])[skip : skip + count]
            if len(taken) < count:
                raise DgpruneError(
                    f"data set {data_set!r} has {len(taken)} of the {count} images of its split {names[split]!r} that "
                    f"the study needs after the first {skip}; ask for fewer."
                )
            rows[split] = taken
    domain = of_rows(full, rows, name=name)
    return domain if shift is None else replace(SHIFTS[shift](domain), name=name)


def of_rows(domain: Domain, rows: Mapping[str, Tensor], *, name: str) -> Domain:
    """Return a domain of these images alone, in this order.

    Args:
        domain: the domain that they are taken from.
        rows: split -> row numbers of its images in `domain`.
        name: name of the new domain.
    """
    indices, ends = torch.cat([*rows.values()]), [0, *accumulate(map(len, rows.values()))]
    return Domain.from_arrays(
        name,
        images=domain.images[indices],
        labels=None if domain.labels is None else domain.labels[indices],
        splits={split: range(*pair) for split, pair in zip(rows, pairwise(ends), strict=True)},
        classes=domain.class_names or domain.classes,
        origin=domain.origin,
    )


def data_sets(*names: str) -> Callable[[], None]:
    """Return a function that loads these data sets, and so refuses a missing one."""

    def ready() -> None:
        for name in names:
            load(name)

    return ready


def fitting(*sources: Domain) -> dict[str, Any]:
    """Return the options of a network's builder that follow from its sources: classes, mean and std.

    mean and std, with which the network normalises, are per channel, over the train images of all sources.
    """
    pixels = torch.cat([source.take(source.rows("train")).images for source in sources])
    mean, std = pixels.mean((0, 2, 3)).tolist(), pixels.std((0, 2, 3)).tolist()
    return {"classes": sources[0].classes, "mean": mean, "std": std}


def dense_network(
    scratch: Scratch, sources: Sequence[Domain], *, builder: str, options: TrainingOptions, widths: tuple[int, ...]
) -> nn.Module:
    """Return the network trained on the sources, made once per results folder.

    `options.seed` is the training seed: it draws the initial weights too. The first layer normalises by mean and
    standard deviation of the sources' train images.
    """

    def make() -> nn.Module:
        network = networks.build(builder, **fitting(*sources), seed=options.seed, widths=widths)
        return finish(train(network.to(scratch.device), sources=sources, options=options))

    key = {"builder": builder, "widths": widths, **options.to_json()}
    return scratch.network({**key, "sources": tuple(f"{source.name} {source.key}" for source in sources)}, make)


def completed(result: Tuned) -> Tuned:
    """Return the result of a run that reached its end.

    Raises:
        DgpruneError: the run ended early, because its training diverged.
    """
    if not result.finished:
        raise DgpruneError(f"pruning {result.mask.scorer!r} ended early, after {result.reached}: training diverged.")
    return result


def end_rows(result: Tuned) -> list[dict[str, Any]]:
    """Return the rows of accuracy at the end of pruning and fine-tuning, without their empty cells.

    Raises:
        DgpruneError: a run that did not reach its end, because its training diverged.
    """
    table: Any = completed(result).table
    last = table[table["round"] == table["round"].max()]
    last = last[last["stage"].eq("tuned") | ~last["stage"].eq("tuned").any()]
    return [filled(row) for row in last[last["metric"] == "accuracy"].to_dict("records")]


def filled(row: Mapping[Any, Any], *extra: str) -> dict[str, Any]:
    """Return the shared columns of a row, and those in `extra`, without its empty cells."""
    return {name: row[name] for name in (*COLUMNS, *extra) if not is_missing(row[name])}


def gap_row(row: Mapping[str, Any], *, trained: float) -> dict[str, Any]:
    """Return the row of the generalization gap: accuracy on training images minus that in `row`; it has no interval."""
    cells = {name: cell for name, cell in row.items() if name not in ("low", "high", "interval")}
    return {**cells, "metric": "generalization_gap", "value": trained - row["value"]}


def data_hashes(study: Study) -> dict[str, str]:
    """Return name of each domain of the study -> hash of its images, labels and splits."""
    return {domain.name: domain.key for domain in study.domains}
