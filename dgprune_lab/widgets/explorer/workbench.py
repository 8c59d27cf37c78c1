"""Make and undo steps: apply, fine-tune (in pieces), cancel, undo, redo, and go to a step."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import nn

from ...core import BatchNorm, DgpruneError, duration
from ...core import seed as seeded
from ...data import AUGMENTATIONS
from ...measurement import recalibrate
from ...study import Study
from ...training import FINETUNING, BatchEvent, TrainingOptions, train
from ..worker import CURVES, EXACT, Job
from .choices import Choices
from .history import entry_of
from .steps import Step

if TYPE_CHECKING:
    from .session import Session

MESSAGES = ("apply", "finetune", "cancel", "undo", "redo", "goto")
_SAID_EVERY = 0.25  # seconds between two reports of progress
_FEW = 4  # batches before the time left is announced
Progress = dict[str, Any]


class Workbench:
    """Makes steps in the thread of a session, and goes between them.

    Attributes:
        job: progress of the fine-tuning, for the page; None if there is none.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.job: Progress | None = None
        self._wanted = FINETUNING

    def check_open(self) -> None:
        """Refuse to work for a closed session.

        Raises:
            DgpruneError: the session was closed.
        """
        if self._session.closed:
            raise DgpruneError("this explorer is closed; what it has measured can be read. Make a new one to go on.")

    def handle_message(self, content: Mapping[str, Any]) -> None:
        """Act on a message of the page."""
        kind = content.get("type")
        try:
            if kind == "goto":
                self._session.choose(dict(content.get("choice") or {}))
            elif kind == "finetune":
                wanted = {"lr": content.get("lr"), "augmentation": content.get("augment")}
                self.finetune(replace(FINETUNING, **wanted, epochs=content.get("epochs", 1)))
            elif kind in ("undo", "redo"):
                self.move(-1 if kind == "undo" else 1)
            elif kind in ("apply", "cancel"):
                getattr(self, kind)()
        except (DgpruneError, KeyError, TypeError, ValueError) as error:
            self._session.failed(error)

    def apply(self) -> None:
        """Make the present mask a step, in the background."""
        self.check_open()
        self._session.say(error=None, message=None)
        view = self._session.view
        self._session.worker.put("apply", lambda: self._apply(view), priority=EXACT)

    def finetune(self, options: TrainingOptions) -> None:
        """Fine-tune the present network in the background, after applying the removals of the view.

        Raises:
            DgpruneError: a fine-tuning is running; the explorer is closed.
        """
        self.check_open()
        if self.job is not None:
            raise DgpruneError("a fine-tuning is running; cancel it, or wait for it, before you start another one.")
        self._wanted = options
        self._say({"words": "Fine-tuning: about to begin", "done": 0, "total": 0})
        view = self._session.view
        self._session.worker.put("finetune", lambda: self._finetune(view), priority=CURVES)

    def again(self) -> None:
        """Start the last fine-tuning again, after it failed."""
        self.finetune(self._wanted)

    def cancel(self) -> None:
        """End a fine-tuning; the step that it began from stays as it was."""
        if self.job is not None:
            self._session.worker.drop("finetune")
            self._say(None)
            self._session.say(message="The fine-tuning was cancelled; the network it began from is unchanged.")

    def move(self, by: int) -> None:
        """Go back to the choices before the present ones (-1), or to those that were undone last (1)."""
        session = self._session
        session.history.settle(session.view)  # a choice that has not come to rest is one step of its own
        if not session.history.move(by, go=session.choose):
            session.say(message="There is nothing to undo." if by < 0 else "There is nothing to redo.")
        session.show_tree()

    def _apply(self, view: Choices) -> Job:
        number = yield from self._applied(view)
        if number == view.get("step", 0):
            self._session.say(message="Nothing is removed, so there is nothing to apply; move the slider first.")

    def _applied(self, view: Choices) -> Generator[None, None, int | None]:
        """Make the mask of a view a step and go there; return its number.

        If nothing is removed, that is the number of the view's step; None if nothing could be pruned from there.
        """
        session, number = self._session, view.get("step", 0)
        measurements = session.steps.at(number)
        yield from (None for _ in measurements.scoring(view))
        mask, frame = measurements.mask(view), measurements.exact(view)
        full_mask = measurements.full_mask(mask)
        if mask.cost.filters == mask.graph.free:
            return number
        if all(len(full_mask.kept(name)) == 1 for name in full_mask.keep):
            session.say(message="One filter would be left in every layer: nothing could be pruned from there.")
            return None
        yield
        network, made = measurements.network(view), {**entry_of(view), "ratio": measurements.possible_ratio(view)}
        label = measurements.label(view, tree=False)
        step = session.steps.add(network, full_mask, parent=number, kind="prune", label=label, made=made)
        step.table = None if frame is None else frame.table
        locked = {name: ratio for name, ratio in view.get("layers", {}).items() if ratio == 0}
        forced = {name: lists for name, lists in view.get("forced", {}).items() if name == "keep"}
        session.choose({"step": step.number, "ratio": 0.0, "layers": locked, "forced": forced})
        return step.number

    def _finetune(self, view: Choices) -> Job:
        session, options, epochs = self._session, self._wanted, self._wanted.epochs
        try:
            number = yield from self._applied(view)
            if number is None:
                return
            network, batchnorm, reported = session.steps.network(number), view["batchnorm"], 0.0
            pieces = tuning_steps(network, session.study, epochs=epochs, options=options, batchnorm=batchnorm)
            while True:
                try:
                    progress = next(pieces)
                except StopIteration as end:
                    tuned = end.value
                    break
                if time.monotonic() - reported >= _SAID_EVERY:
                    reported = time.monotonic()
                    self._say(progress)
                yield
            made = {"epochs": epochs, "options": options.to_json(), "batchnorm": batchnorm}
            label, parent = f"fine-tuned, {epochs} epoch{'s' * (epochs > 1)}", session.steps[number]
            self._arrive(session.steps.add(tuned, parent.mask, parent=number, kind="finetune", label=label, made=made))
        finally:
            self._say(None)

    def _arrive(self, step: Step) -> None:
        """Go to the new step, unless the user has gone elsewhere meanwhile."""
        session, view = self._session, self._session.view
        if view.get("step", 0) == step.parent and view["ratio"] == 0:
            session.choose(
                {"step": step.number, "ratio": 0.0, "layers": view.get("layers"), "forced": view.get("forced")}
            )
        else:
            session.say(message=f"The fine-tuned network is step {step.number}; go there in the tree of steps.")

    def _say(self, progress: Progress | None) -> None:
        self.job = progress
        self._session.show_tree()


def defaults() -> dict[str, Any]:
    """Return what the page offers: the number of epochs and the learning rate at the start, and all augmentations."""
    return {"epochs": 1, "lr": FINETUNING.lr, "augmentations": ["none", *(n for n in AUGMENTATIONS if n != "none")]}


def tuning_steps(
    network: nn.Module, study: Study, *, epochs: int, options: TrainingOptions, batchnorm: BatchNorm
) -> Generator[Progress, None, nn.Module]:
    """Fine-tune a network on the `train` splits of the sources and return the result; the argument stays unchanged.

    Weights and random numbers are those of `dg.prune_and_tune(study of this network, None, ratio=0.0, rounds=1,
    epochs=epochs, options=options, batchnorm=batchnorm)`. Yields {words, done, total} after each batch.
    """
    again = batchnorm == "recalibrate" and study.has_batchnorm
    settled = replace(options, epochs=epochs, seed=seeded("tuning", 0, options.seed, 1))
    network = recalibrate(network, study.sources) if again else network
    events = train(network.to(study.device), sources=study.sources, options=settled, stage="finetuning")
    spent = 0.0
    while True:
        start = time.perf_counter()
        try:
            event = next(events)
        except StopIteration as end:
            return recalibrate(end.value, study.sources) if again else end.value
        spent += time.perf_counter() - start
        if isinstance(event, BatchEvent):
            done, total = (event.epoch - 1) * event.batches + event.batch, event.epochs * event.batches
            text = f"Fine-tuning: epoch {event.epoch} of {event.epochs}, batch {event.batch} of {event.batches}"
            if done >= _FEW:
                text += f", about {duration(spent / done * (total - done))} of work left"
            yield {"words": text, "done": done, "total": total}
