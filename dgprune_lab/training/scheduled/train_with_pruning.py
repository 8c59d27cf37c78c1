"""Train a network and remove filters at the ends of certain epochs, and measure the cost of each removal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path

from torch import Tensor, nn

from ...core import Count, DgpruneError, Domain, Seed, check_writable_folder, note, stepwise, unknown
from ...pruning import deep_copy, device_of, prove_copies_if_suspect
from ...scorers import Scorer, resolve
from ...study import Study
from ..events import run_events
from ..loop import check_training
from ..options import TrainingOptions
from ..random_streams import draws_by_itself
from .plan import PruningPlan, PruningSteps, Remove
from .producers import Producer, find_producers
from .run import NORMS, PruningLoop
from .schedules import EVERY_LAYER, PruneSchedule
from .treatments import How


@stepwise(partial(run_events, label="training with pruning"))
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
    batches: Count | None = None,
    split: str = "score",
    report: str = "report",
    seed: Seed = 0,
    images: Count | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = False,
) -> PruningSteps:
    """Train a copy of a network and remove filters at the ends of certain epochs.

    An event is the end of an epoch at which at least one filter is removed, together in all layers scheduled for it.
    Its cost is measured at once, without training in between: with accuracy a before it and b after it, on the same
    images,

        instability(event) = (a - b) / a          may be negative; empty where a is at chance
        mean stability of the run = 100 (1 - mean over the events), in percent; 100 without any event

    At chance: the lower end of the 95 % interval of a is not above 1 / (number of classes).

    A schedule names convolutions. A removed filter is exactly zero after every step of the optimiser: its weights, its
    BatchNorm's scale and shift, and the columns of its consumers. Where several convolutions write into one residual
    stream, only the named one loses the filter, together with the projection on the shortcut into the same sum; the
    layers that read this sum no longer see it. See `PruningRun.pruned`.

    Args:
        network: the network before the first epoch, fresh or trained; it stays unchanged.
        sources, targets: domains as in a `Study`; only the sources' train splits are trained on.
        schedule: at which epochs which layers lose how many filters; None for the control without pruning.
        options: options of training: epochs, optimiser, weight decay, augmentation, dropout, learning rate, ...
        scorer: computed again at every event. "l1" and "l2" are norms of the named layer's own weights; any other
            scorer scores the whole group as in a `Study` of the current network.
        remove: which filters to remove: those with the lowest scores, with the highest, or drawn at random.
        how: "remove" permanently; "zero" for `batches` batches, then free to regrow; "noise": normal noise added before
            each of `batches` batches; "restore": zero for `batches` batches, then as before. See `Treatment`.
        batches: number of batches that the treatment lasts, at least 1; only if `how` is not "remove".
        split: the split on which events are measured and the best of all epochs is chosen, which may be one before any
            filter was removed.
        report: the split that is reported in the end. To reproduce the paper, use a data set's test split for both.
        seed: random seed of the scorer, of `remove` and of the noise.
        images: measure the first `images` images of each split only; at the end, the whole train split.
        checkpoint: folder for the state of the run after every epoch. If it already holds a state, the same call
            resumes the run, and on one CPU thread gives the same numbers as without the interruption.
        progress: whether to draw a tqdm bar.

    Returns:
        A `PruningRun` with network, curve, events and end. Ctrl-C ends the run early, as does a loss that is not
        finite: then `finished` is False, and tables and network are those of the last complete epoch. `.steps(...)`
        yields a `BatchEvent` per step, an `EpochEvent` per epoch, at every epoch's end a `PruneEvent` if filters were
        removed or else a `StageEvent`, with their rows of the curve, and None while it measures.

    Raises:
        DgpruneError: a schedule that does not fit, an option outside its range, an unknown scorer or one that cannot
            run here, a missing split, a network that draws random numbers in eval mode, a checkpoint of another run or
            in which nothing can be written.

    Source: Bartoldson, Morcos, Barbu, Erlebacher 2020, The Generalization-Stability Tradeoff in Neural Network
    Pruning, NeurIPS, arXiv:1906.03728, section 3 and their code. We deviate: events are measured on held-out images,
    not on the test set; an identity shortcut has no weights, so the output of earlier layers in a stream reaches later
    sums, where the code cuts it.
    """
    folder = None if checkpoint is None else check_writable_folder(checkpoint, argument="checkpoint")
    _check_batches(how, batches)
    options = options or TrainingOptions()
    check_training(network, sources=sources, options=options)
    study = Study(network, sources=sources, targets=targets, name="training")
    example = sources[0].take(sources[0].rows("train", 4), device=device_of(network)).images
    _check_randomness(network, example)
    for domain, measured in product(study.domains, (split, report)):
        domain.rows(measured, images)
    resolved = resolve(scorer)
    if remove != "random" and resolved.name not in NORMS and (why := study.unavailable(resolved)):
        raise DgpruneError(f"scorer {resolved.name!r} cannot run on this network: {why.rstrip('.')}.")
    schedule = _check_schedule(schedule)
    producers = find_producers(network, study.graph, example=example)
    plan = PruningPlan(
        study=study,
        producers=producers,
        schedule=schedule,
        timetable=schedule.timetable(_filters(study, producers, schedule), epochs=options.epochs),
        options=options,
        scorer=resolved,
        remove=remove,
        how=how,
        batches=batches or 1,
        split=split,
        report=report,
        seed=seed,
        images=images,
        checkpoint=folder,
    )
    return PruningLoop(plan).steps()


def _check_schedule(schedule: PruneSchedule | None) -> PruneSchedule:
    """Return the schedule, an empty one for the control; refuse one that names no layer."""
    if schedule is not None and not schedule.entries:
        raise DgpruneError("schedule names no layer; give one layer or more, or schedule=None for the control.")
    return schedule or PruneSchedule({})


def _check_batches(how: How, batches: int | None) -> None:
    if (how == "remove") != (batches is None):
        raise DgpruneError(
            'batches says how many batches "zero", "noise" or "restore" last, at least 1; with how="remove" leave it '
            f"out, since removal is permanent. Got how={how!r}, batches={batches!r}."
        )


def _filters(study: Study, producers: Mapping[str, Producer], schedule: PruneSchedule) -> dict[str, int]:
    """Return layer -> number of filters; of layers that are pruned together only the named one, or else the first.

    Raises:
        DgpruneError: the schedule names a layer that is unknown or cannot be pruned, or two that are pruned together.
    """
    named = [entry.layer for entry in schedule.entries if entry.layer != EVERY_LAYER]
    for layer in named:
        if layer in study.graph.refused:
            raise DgpruneError(f"the filters of layer {layer!r} cannot be pruned: {study.graph.refused[layer]}.")
        if layer not in producers:
            raise unknown("layer", layer, producers)
    filters: dict[str, int] = {}
    for producer in producers.values():
        together = [layer for layer in dict.fromkeys(named) if layer in producer.layers]
        if len(together) > 1:
            raise DgpruneError(
                f"two schedules overlap: {' and '.join(map(repr, together))} are added together, so their filters "
                "are removed together; name one of them."
            )
        filters[(together or producer.layers)[0]] = len(producer.filters)
    return filters


def _check_randomness(network: nn.Module, example: Tensor) -> None:
    """Issue a note if a run cannot be repeated exactly.

    Raises:
        DgpruneError: a network whose copies in train mode would not be independent of it; a network that draws random
            numbers in eval mode too, so that no measurement can be repeated.
    """
    prove_copies_if_suspect(network, example, training=True)
    twin = deep_copy(network)
    if draws_by_itself(twin, example, training=False):
        raise DgpruneError(
            "this network draws random numbers in eval mode too (functional dropout that is always on?), so no "
            "measurement is repeatable and the effects of its filters cannot be distinguished; use nn.Dropout layers, "
            "or pass training=self.training."
        )
    if draws_by_itself(twin, example, training=True):
        note(
            "this network draws random numbers outside nn.Dropout layers (functional dropout?), from the generator "
            "that other cells use: a run repeats exactly only while no other cell draws. Use nn.Dropout layers."
        )
