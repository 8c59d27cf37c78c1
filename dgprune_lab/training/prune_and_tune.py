"""Pruning as it is done: in rounds, the scores computed anew in each, fine-tuning after each."""

from __future__ import annotations

from collections.abc import Callable, Generator
from numbers import Integral
from typing import TypeVar

from ..core import BatchNorm, Budget, DgpruneError, Scope, choice, note
from ..measurement import calibration_sources
from ..pruning import checked_ratio
from ..scorers import Scorer, resolve
from ..study import Study
from .events import BatchEvent, EpochEvent, PruneEvent, RunEvent
from .loop import train
from .options import TrainingOptions
from .rounds import DENSE, EXTRA, MeasureWhen, Plan, Run, Steps, Tuned

__all__ = ["DENSE", "EXTRA", "PAPER", "Steps", "Tuned", "finish_run", "prune_and_tune", "rounds_of", "tuning_steps"]

Result = TypeVar("Result")
PAPER = TrainingOptions(
    epochs=20, batch_size=32, optimiser="sgd", lr=0.01, momentum=0.9, schedule="dss", schedule_epochs=100
)
"""How Sun 2023 (arXiv:2306.13237, its code) fine-tunes after each round."""


def prune_and_tune(
    study: Study,
    scorer: str | Scorer | None,
    *,
    ratio: float,
    rounds: int | None = None,
    epochs: int = 20,
    options: TrainingOptions | None = None,
    batchnorm: BatchNorm = "as_is",
    scope: Scope = "layer",
    budget: Budget = "filters",
    seed: int = 0,
    split: str = "report",
    images: int | None = None,
    measure: MeasureWhen = "rounds",
    progress: bool = False,
) -> Tuned:
    """Prune in rounds, fine-tuning on the sources' labels after each.

    Each of T rounds scores the network as it is by then, removes r = 1 - (1 - ratio)^(1/T) of what is left, lowest
    first (per layer floor(r C + 1e-9) of C filters), and trains the smaller network for `epochs` epochs on the train
    parts of the sources. Removed filters are gone, not zeroed: no optimiser can bring them back.

    Source: Sun 2023, arXiv:2306.13237, its code: T = 2 up to 60 %, 3 above; SGD with momentum .9, batches of 32, lr
    .01 / (1 + 10 p)^.75 with p = epoch / 100 starting at 0 in each round. We deviate: the code counts int(r C), which
    floating point can turn into one filter less; it reports on one target, here every domain is reported.

    Args:
        study: the network and its domains; untouched.
        scorer: a name, a Scorer of one's own, or None for the dense control: nothing goes, the tuning is the same.
        ratio: the share removed in the end, 0 <= ratio < 1; the dense control needs it for the number of rounds.
        rounds: T; the paper's rule where None.
        epochs: of tuning after each round; 0 only cuts.
        options: how to tune; the paper's rule where None. Their `epochs` are not read and must not contradict `epochs`.
        batchnorm: "recalibrate" re-estimates BatchNorm statistics right after each cut.
        scope: in each round the same share of every layer, or the lowest scores anywhere.
        of: what the share counts.
        seed: of a scorer that draws and, with `options.seed`, of the order of the images; each round derives its own.
        split: part that is reported.
        images: only the first so many of each domain are reported on.
        measure: after every stage ("rounds"), after every epoch too ("epochs"), or only the last network ("end").
        progress: draw a tqdm bar.

    Returns:
        The network, its mask and the table: metrics accuracy and loss per domain (intervals: bootstrap over images);
        filters, parameters, macs and bytes. `stage` is "full" (the network as given), "cut" or "tuned"; `epoch`
        counts over all rounds; `ratio_requested` is what was asked of the rounds so far (of the dense control: what it
        is the control of, and `ratio_achieved` is 0). Ctrl-C ends it early: see `Tuned.finished`.

    Raises:
        DgpruneError: an option outside its range, an unknown scorer or one that cannot run here, a source without
            labels or train part (all before any work); a loss that is no longer a number.
    """
    steps = tuning_steps(
        study,
        scorer,
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
        measure=measure,
    )
    found = _with_bar(steps, f"{scorer_name(scorer)} {100 * ratio:g} %", rounds_of(ratio, rounds) * epochs, progress)
    if not found.finished:
        note(f"stopped early; the network is that of the last completed stage ({found.reached}), finished=False.")
    return found


def tuning_steps(
    study: Study,
    scorer: str | Scorer | None,
    *,
    ratio: float,
    rounds: int | None = None,
    epochs: int = 20,
    options: TrainingOptions | None = None,
    batchnorm: BatchNorm = "as_is",
    scope: Scope = "layer",
    budget: Budget = "filters",
    seed: int = 0,
    split: str = "report",
    images: int | None = None,
    measure: MeasureWhen = "rounds",
) -> Steps:
    """`prune_and_tune` as a generator, for whoever wants to watch and to stop; all is checked before it is made.

    Yields `BatchEvent` and `EpochEvent` of each tuning (their epochs count within the round), a `PruneEvent` per round
    and a `StageEvent` per stage, which carry the table's rows as they appear, and None while it measures. It returns
    the `Tuned`; KeyboardInterrupt, raised inside or thrown in, makes it return what there is.
    """
    item = None if scorer is None else resolve(scorer)
    ratio, count = checked_ratio(ratio), rounds_of(ratio, rounds)
    choice("batchnorm", batchnorm, BatchNorm)
    choice("scope", scope, Scope)
    choice("budget", budget, Budget)
    choice("measure", measure, MeasureWhen)
    chosen = options or PAPER
    if not isinstance(epochs, Integral) or epochs < 0:
        raise DgpruneError(f"epochs must be a whole number, 0 (cut only) or more; got {epochs}.")
    if epochs and chosen.epochs not in (epochs, TrainingOptions().epochs):
        raise DgpruneError(
            f"the options say {chosen.epochs} epochs and epochs= says {epochs}; give the number as epochs=, per round."
        )
    for domain in study.domains:
        domain.rows(split, images)
    if batchnorm == "recalibrate" and study.has_batchnorm:
        calibration_sources(study.sources)
    if epochs:
        train(study.model, sources=study.sources, options=chosen).close()  # for what it refuses; nothing is run
    if item is not None and (why := study.unavailable(item)):
        raise DgpruneError(f"scorer {item.name!r} cannot run on this study: {why.rstrip('.')}.")
    plan = Plan(study, item, ratio, count, epochs, chosen, batchnorm, scope, budget, seed, split, images, measure)
    return Run(plan).steps()


def finish_run(
    steps: Generator[RunEvent | None, None, Result], show: Callable[[RunEvent | None], None] = lambda _: None
) -> Result:
    """Run it to its end, showing each event; Ctrl-C between two events ends it as Ctrl-C inside it does."""
    while True:
        try:
            show(next(steps))
        except StopIteration as stop:
            return stop.value
        except KeyboardInterrupt as stopped:
            try:
                steps.throw(stopped)
            except StopIteration as stop:
                return stop.value


def _with_bar(steps: Steps, label: str, epochs: int, progress: bool) -> Tuned:
    """Run it to its end under a tqdm bar that counts batches, where one is wanted."""
    from tqdm.auto import tqdm

    with tqdm(desc=label, unit="batch", disable=not progress) as bar:
        words = ""

        def show(event: RunEvent | None) -> None:
            nonlocal words
            if isinstance(event, BatchEvent):
                bar.total = epochs * event.batches
                bar.update()
            elif isinstance(event, PruneEvent):
                words = f"round {event.round}/{event.rounds}"
                bar.set_postfix_str(words, refresh=False)
            elif isinstance(event, EpochEvent):
                said = f"{words}, epoch {event.epoch}/{event.epochs}, loss {event.loss:.3f}"
                bar.set_postfix_str(said, refresh=False)

        return finish_run(steps, show)


def rounds_of(ratio: float, rounds: int | None = None) -> int:
    """The number of rounds: as asked, else the paper's rule, 2 up to 60 % and 3 above.

    >>> rounds_of(0.6), rounds_of(0.7), rounds_of(0.7, 1)
    (2, 3, 1)
    """
    if rounds is None:
        return 2 if ratio <= 0.6 + 1e-9 else 3
    if not isinstance(rounds, Integral) or rounds < 1:
        raise DgpruneError(f"rounds must be a whole number, at least 1; got {rounds}.")
    return rounds


def scorer_name(scorer: str | Scorer | None) -> str:
    """What tables call a scorer, or the dense control."""
    return DENSE if scorer is None else resolve(scorer).name
