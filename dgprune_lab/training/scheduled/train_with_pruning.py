"""Pruning during training, as it happens: the events, what each costs at once, and what comes of it in the end."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ...core import DgpruneError, Domain, choice, note, unknown
from ...pruning import device_of, rebuild
from ...scorers import Scorer, resolve
from ...study import Study
from ..events import BatchEvent, PruneEvent, RunEvent, StageEvent
from ..loop import check_training
from ..options import TrainingOptions
from ..prune_and_tune import finish_run
from ..random_streams import draws_by_itself
from .members import Producer, find_producers
from .plan import PruningPlan, PruningRun, PruningSteps, Remove
from .run import NORMS, PruningLoop
from .schedules import EVERY_LAYER, PruneSchedule
from .treatments import How

__all__ = ["PruningRun", "PruningSteps", "train_with_pruning", "training_steps"]


def train_with_pruning(
    network: nn.Module,
    *,
    sources: Sequence[Domain],
    targets: Sequence[Domain] = (),
    schedule: PruneSchedule | None,
    options: TrainingOptions | None = None,
    scorer: str | Scorer = "l2",
    remove: Remove = "smallest",
    how: How = "remove",
    batches: int | None = None,
    split: str = "score",
    report: str = "report",
    seed: int = 0,
    images: int | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = False,
) -> PruningRun:
    """Train a copy of a network, and let filters go at the ends of certain epochs.

    An event is an epoch's end at which at least one filter goes, all layers then due together. It is measured at once,
    with no training in between: with a the accuracy before and b after, on the same images,

        instability(event) = (a - b) / a          may be negative; empty where a is at chance
        mean stability of the run = 100 (1 - mean over the events), in percent; 100 without any event

    At chance is where the lower end of the 95 % interval of a is not above 1 / (number of classes).

    What a schedule names are convolutions. A filter that is gone is exactly zero after every step, whatever the
    optimiser writes: its weights, its BatchNorm's scale and shift, and the columns of the layers that read it. Where
    several convolutions write into one residual stream only the named one's filter goes, with the projection on the
    shortcut into the same sum, and the layers that read this sum no longer see it; see `PruningRun.pruned`.

    Args:
        network: as it is before the first epoch, fresh or trained; untouched.
        sources, targets: domains as in a `Study`; only the sources' train parts are trained on.
        schedule: which layers, from when to when, how often, how much; None for the control that loses nothing.
        options: of the training: epochs, optimiser, weight decay, augmentation, dropout, learning-rate schedule, ...
        scorer: decides what is small, computed anew at every event. "l1" and "l2" are norms of the named layer's own
            weights; any other scorer scores the whole group as in a `Study` of the network of that moment.
        remove: what leaves: the lowest scores, the highest, or filters drawn at random.
        how: "remove" for good; "zero" for `batches` batches, then free to regrow; "noise": normal noise added before
            each of `batches` batches; "restore": zero for `batches` batches, then as before. See `Treatment`.
        batches: at least 1 where `how` is not "remove"; not to be given where it is.
        split: the part on which events are measured and the best epoch is chosen.
        report: the part that is reported in the end. To reproduce the paper, a data set's own test split for both.
        seed: of a scorer or a `remove` that draws, and of the noise.
        images: only the first so many of each measured part.
        checkpoint: a folder in which the run is put down after every epoch. Where it holds one already, the same
            call goes on with it, and on one CPU thread comes to the same numbers as without the interruption.
        progress: draw a tqdm bar.

    Returns:
        Network, curve, events and end. Ctrl-C ends it early, and a loss that is no longer a number does: then
        `finished` is False, and tables and network are those of the last whole epoch.

    Raises:
        DgpruneError: a schedule that does not fit, an option outside its range, an unknown scorer or one that cannot
            run here, a part that is not there, a network that draws random numbers in eval mode, a checkpoint of
            another run.

    Source: Bartoldson, Morcos, Barbu, Erlebacher 2020, The Generalization-Stability Tradeoff in Neural Network
    Pruning, NeurIPS, arXiv:1906.03728, section 3 and their code. We deviate: events are measured on held-out images,
    not on the test set; an identity shortcut has no weights, so what earlier layers wrote into a stream goes on to
    later sums, where the code cuts it.
    """
    steps = training_steps(
        network,
        sources=sources,
        targets=targets,
        schedule=schedule,
        options=options,
        scorer=scorer,
        remove=remove,
        how=how,
        batches=batches,
        split=split,
        report=report,
        seed=seed,
        images=images,
        checkpoint=checkpoint,
    )
    found = _with_bar(steps, progress)
    if not found.finished and not found.reached.startswith("diverged"):
        note(f"stopped early; network and tables are those of {found.reached}, finished=False.")
    return found


def training_steps(
    network: nn.Module,
    *,
    sources: Sequence[Domain],
    targets: Sequence[Domain] = (),
    schedule: PruneSchedule | None,
    options: TrainingOptions | None = None,
    scorer: str | Scorer = "l2",
    remove: Remove = "smallest",
    how: How = "remove",
    batches: int | None = None,
    split: str = "score",
    report: str = "report",
    seed: int = 0,
    images: int | None = None,
    checkpoint: str | Path | None = None,
) -> PruningSteps:
    """`train_with_pruning` as a generator, for whoever wants to watch and to stop; all is checked before it is made.

    Yields a `BatchEvent` per step, an `EpochEvent` per epoch, and at every epoch's end a `PruneEvent` where filters
    went, else a `StageEvent`; these carry the curve's rows and what the run gives back if it ends there. None while it
    measures. KeyboardInterrupt, raised inside or thrown in, makes it return what there is.
    """
    choice("remove", remove, Remove)
    choice("how", how, How)
    if (how == "remove") != (batches is None) or not (batches is None or _whole(batches)):
        raise DgpruneError(
            'batches says how many batches "zero", "noise" or "restore" last, at least 1; with how="remove" it is left '
            f"out (filters are gone for good). Got how={how!r}, batches={batches!r}."
        )
    chosen = TrainingOptions() if options is None else options
    check_training(network, sources=sources, options=chosen)
    example = sources[0].take(sources[0].rows("train", 4), device=device_of(network)).images
    _check_chance(network, example)
    study = Study(network, sources=sources, targets=targets, name="training")
    for domain in study.domains:
        domain.rows(split, images)
        domain.rows(report, images)
    item = resolve(scorer)
    if remove != "random" and item.name not in NORMS and (why := study.unavailable(item)):
        raise DgpruneError(f"scorer {item.name!r} cannot run on this network: {why.rstrip('.')}.")
    asked = PruneSchedule({}) if schedule is None else schedule
    producers = find_producers(network, study.graph, example)
    filters = _named(study, producers, asked)
    table = asked.timetable(filters, epochs=chosen.epochs)
    plan = PruningPlan(
        study,
        producers,
        asked,
        table,
        chosen,
        item,
        remove,
        how,
        int(batches or 1),
        split,
        report,
        seed,
        images,
        None if checkpoint is None else Path(checkpoint),
    )
    return PruningLoop(plan).steps()


def _whole(batches: Any) -> bool:
    return isinstance(batches, Integral) and not isinstance(batches, bool) and int(batches) >= 1


def _named(study: Study, producers: dict[str, Producer], schedule: PruneSchedule) -> dict[str, int]:
    """Layer -> its number of filters, one layer of those that go together: the named one, else the first.

    Raises:
        DgpruneError: a layer that is unknown or cannot be pruned, or two that go together.
    """
    named = [held.layer for held in schedule.layers if held.layer != EVERY_LAYER]  # pyright: ignore
    for layer in named:
        if layer in study.graph.refused:
            raise DgpruneError(f"the filters of layer {layer!r} cannot be pruned: {study.graph.refused[layer]}.")
        if layer not in producers:
            raise unknown("layer", layer, producers)
    found: dict[str, int] = {}
    for producer in producers.values():
        together = [layer for layer in dict.fromkeys(named) if layer in producer.layers]
        if len(together) > 1:
            raise DgpruneError(
                f"two schedules overlap: {' and '.join(map(repr, together))} meet in one sum, so their filters go "
                "together; name one of them."
            )
        found[(together or producer.layers)[0]] = len(producer.filters)
    return found


def _check_chance(network: nn.Module, example: Tensor) -> None:
    """Say where a network's own chance stands in the way of repeating a run to the number.

    Raises:
        DgpruneError: it draws in eval mode too, so nothing that is measured repeats.
    """
    twin = rebuild(network, lambda _, tensor: tensor.clone())
    if draws_by_itself(twin, example, training=False):
        raise DgpruneError(
            "this network draws random numbers in eval mode too (functional dropout that is always on?), so nothing "
            "that is measured would repeat, and its filters cannot be told apart; use nn.Dropout layers, or pass "
            "training=self.training."
        )
    if draws_by_itself(twin, example, training=True):
        note(
            "this network draws random numbers outside nn.Dropout layers (functional dropout?), from the generator "
            "that other cells use: a run repeats to the number only while no other cell draws. Use nn.Dropout layers."
        )


def _with_bar(steps: PruningSteps, progress: bool) -> PruningRun:
    """Run it to its end under a tqdm bar that counts batches, where one is wanted."""
    from tqdm.auto import tqdm

    with tqdm(desc="training with pruning", unit="batch", disable=not progress) as bar:

        def show(event: RunEvent | None) -> None:
            if isinstance(event, BatchEvent):
                bar.total = event.epochs * event.batches
                bar.update()
            elif isinstance(event, PruneEvent | StageEvent):
                found: PruningRun = event.so_far
                bar.set_postfix_str(f"{found.reached}, mean stability {found.stability():.1f} %", refresh=False)

        return finish_run(steps, show)
