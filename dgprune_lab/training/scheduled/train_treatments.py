"""The same training with different filters removed, beside controls, from several initial weights."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Literal, cast, get_args

from torch import nn

from ...core import Count, DgpruneError, Domain, Seed, progress_bar, stepwise, yielding
from ..options import TrainingOptions
from .plan import PruningRun, Remove
from .schedules import PruneSchedule
from .train_with_pruning import train_with_pruning

Treatment = Literal["smallest", "largest", "random", "nothing", "before"]
"""Filters to remove; the control without removal; the control that loses random filters before training."""

Runs = dict[str, PruningRun]
Step = tuple[int, int, str]


@stepwise(partial(progress_bar, unit="run"))
def train_treatments(
    build: Callable[[int], nn.Module],
    *,
    sources: Sequence[Domain],
    targets: Sequence[Domain] = (),
    schedule: PruneSchedule,
    treatments: Sequence[Treatment] = get_args(Treatment),
    seeds: Sequence[Seed] = (0,),
    options: TrainingOptions | None = None,
    images: Count | None = None,
    progress: bool = False,
) -> Generator[Step, None, Runs]:
    """Train a network once for each treatment and seed, with `dg.train_with_pruning`.

    The runs of one seed have the same initial weights and the same order of images; only the treatment differs.

    Args:
        build: function from a seed to an untrained network.
        sources, targets, schedule, images: see `dg.train_with_pruning`.
        treatments: "smallest", "largest", "random": the filters removed at the events of the schedule. "nothing":
            the control without removal. "before": the same number of random filters, removed before the first epoch.
        seeds: seeds of the initial weights, of the order of images and of random choices.
        options: options of training; their seed is replaced.
        progress: whether to draw a tqdm bar.

    Returns:
        The runs by name, such as "smallest, seed 0", for `diagnostics.instability` and `diagnostics.run_ends`.

    Raises:
        DgpruneError: no treatment or no seed, a repeated one, a function that builds no network, and what
            `dg.train_with_pruning` refuses.
    """
    if isinstance(build, nn.Module):
        raise DgpruneError(
            "build must be a function from a seed to a new network, build=lambda seed: Net(); got a network."
        )
    for name, values in (("treatments", treatments), ("seeds", seeds)):
        if not values or len(set(values)) < len(values):
            raise DgpruneError(f"{name} must hold one or more different values; got {list(values)}.")
    schedules = {"nothing": None, "before": schedule.before_training()}

    def start_run(seed: int, treatment: Treatment) -> Generator[object, None, PruningRun]:
        network = build(seed)
        if not isinstance(network, nn.Module):
            raise DgpruneError(f"build must return a network (nn.Module); got {type(network).__name__}.")
        return train_with_pruning.steps(
            network,
            sources=sources,
            targets=targets,
            schedule=schedules.get(treatment, schedule),
            options=replace(options or TrainingOptions(), seed=seed),
            remove="random" if treatment in schedules else cast(Remove, treatment),
            images=images,
            seed=seed,
        )

    def steps() -> Generator[Step, None, Runs]:
        runs: Runs = {}
        for seed, treatment in product(seeds, treatments):
            name, total = f"{treatment}, seed {seed}", len(seeds) * len(treatments)
            step = (len(runs), total, name)
            yield step
            runs[name] = yield from yielding(start_run(seed, treatment), step)
            yield len(runs), total, name
        return runs

    return steps()
