"""The state of an explorer that Python and the page share, the controls as attributes, and the steps."""

from __future__ import annotations

import threading
from copy import deepcopy
from dataclasses import replace
from typing import Any, cast

import pandas as pd
import traitlets
from torch import nn

from ...core import Count, DgpruneError, Mask, note, public, rounded, unknown
from ...training import FINETUNING, TrainingOptions
from ..page.comm import CommWidget
from .choices import CONTROLS, Choices
from .frames import AGREEMENT
from .session import Session


class _Control:
    """An attribute that reads the current view; setting it moves the controls."""

    def __init__(self, doc: str) -> None:
        self.__doc__ = doc

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, explorer: Controls | None, owner: type) -> Any:
        return self if explorer is None else explorer.view[self._name]

    def __set__(self, explorer: Controls, value: Any) -> None:
        explorer.choose(**{self._name: value})


@public
class Controls(CommWidget):
    """The controls of an explorer as attributes, the steps, and what its page is told."""

    _session: Session

    static = traitlets.Dict().tag(sync=True)
    choice = traitlets.Dict().tag(sync=True)
    plan = traitlets.Dict().tag(sync=True)
    frames = traitlets.Dict().tag(sync=True)
    status = traitlets.Dict().tag(sync=True)
    pins = traitlets.List().tag(sync=True)
    panels = traitlets.Dict().tag(sync=True)
    tree = traitlets.Dict().tag(sync=True)
    silent = traitlets.Dict().tag(sync=True)

    ratio = _Control("The pruning ratio, in [0, 1).")
    scorer = _Control("Name of the scorer; a Scorer or Scores may be set.")
    scope = _Control('"layer" or "global", see `dg.allocate`.')
    budget = _Control("What the ratio counts, see `dg.allocate`.")
    batchnorm = _Control('"recalibrate" or "as_is".')
    layers = _Control("Layers with a ratio of their own, {'conv2': 0.2}; 0 keeps a layer whole. See `dg.allocate`.")
    forced = _Control("Filters by hand, {'remove': {'conv2': [0, 5]}, 'keep': {'conv1': [3]}}. See `dg.allocate`.")
    step = _Control("Number of the step whose network the slider prunes; setting it goes to that network as it is.")

    @property
    def view(self) -> Choices:
        """The state of the controls, a copy: the last valid choices."""
        return deepcopy(self._session.view)

    def choose(self, **changes: Any) -> None:
        """Set several controls at once, by the names of the attributes.

        Raises:
            DgpruneError: a value that a control does not offer.
        """
        for name in changes:
            if name not in CONTROLS:
                raise unknown("control", name, CONTROLS)
        full = self._session.steps.full
        if not isinstance(changes.get("scorer", ""), str):
            changes["scorer"] = self._session.measurements.admit(changes["scorer"])
            self._show("scorers", full.static()["scorers"])
        changed = {**self._session.changed(changes), "id": self._number() + 1, "by": "kernel"}
        self.choice = dict(self._session.checked(changed))

    @property
    def mask(self) -> Mask:
        """The mask of the current view: which filters of the full network stay."""
        return self._session.measurements.full_mask(self._session.measurements.mask(self.view))

    @property
    def network(self) -> nn.Module:
        """The network of the current view, a copy: pruned, and with BatchNorm re-estimated if the view says so."""
        return self._session.measurements.network(self.view)

    @property
    def steps(self) -> pd.DataFrame:
        """The steps as a table to read: a line per network, with what was done and its accuracy in percent.

        For a domain without labels, it gives the agreement with the full network.
        """
        rows: list[dict[str, Any]] = []
        for step in self._session.steps.rows():
            plain = {name: step[name] for name in ("number", "parent", "kind", "label")}
            accuracy = {_column(row): rounded(100 * row["value"], 1) for row in step["accuracy"]}
            rows.append({**plain, "removed (%)": rounded(100 * step["removed"], 1), **accuracy})
        return pd.DataFrame(rows).astype({"parent": "Int64"}).set_index("number")

    @property
    def pins_table(self) -> pd.DataFrame:
        """The pinned views as a table to read: size, accuracy per domain, and its difference from the present view.

        Accuracies are in percent, with 95 % intervals over images; differences (pin minus present view) are in
        percentage points, paired by image. Waits until the present view is measured.
        """
        self._session.worker.wait("exact", "pin", "pins", timeout=threading.TIMEOUT_MAX)
        return self._session.board.table(self.view)

    def pin(self) -> None:
        """Pin the current view for comparison, at most three views; waits until it is measured.

        A view that is pinned already is not pinned again; a note says which pin it is.

        Raises:
            DgpruneError: three views are pinned already; the view cannot be measured; the explorer is closed.
        """
        session, view = self._session, self.view
        session.workbench.check_open()
        session.worker.wait("exact", "pin", "pins", timeout=threading.TIMEOUT_MAX)
        if letter := session.board.letter_of(session.steps.full, view):
            note(f"this view is pinned already, as {letter}.")
            return
        if session.board.is_full:
            raise DgpruneError("three views are pinned already; unpin one of them on the page first.")
        session.pin()
        session.worker.wait("pin", timeout=threading.TIMEOUT_MAX)
        if session.board.letter_of(session.steps.full, view) is None:
            raise DgpruneError(session.status["error"] or session.status["message"] or "the explorer is closed.")

    def apply(self) -> None:
        """Make the present mask a step: its filters are removed, and the slider prunes further from there.

        Layers that were locked and filters that were kept by hand stay so; everything else begins anew.

        Raises:
            DgpruneError: the present mask cannot be applied.
        """
        session, before = self._session, len(self._session.steps)
        session.workbench.apply()
        session.worker.wait("apply", timeout=threading.TIMEOUT_MAX)
        if len(session.steps) == before:
            raise DgpruneError(session.status["error"] or session.status["message"] or "the explorer is closed.")

    def finetune(self, epochs: Count = 1, options: TrainingOptions | None = None, *, wait: bool = False) -> None:
        """Train the present network on the `train` splits of the sources in the background; the result is a new step.

        Filters that are removed in the view are applied first. Returns at once: `wait_idle` waits, `cancel` ends it,
        and the slider works meanwhile. The weights are those of `dg.prune_and_tune` with one round and ratio 0.

        Args:
            epochs: how many epochs.
            options: how to train; None for the options of `dg.prune_and_tune`. Their `epochs` are not used.
            wait: whether to return only when the new step is there, however long that takes; Ctrl-C ends the waiting.

        Raises:
            DgpruneError: a fine-tuning is running already; the explorer is closed; with `wait`, it failed or was
                cancelled.
        """
        session, before = self._session, len(self._session.steps)
        session.workbench.finetune(replace(options or FINETUNING, epochs=epochs))
        if wait:
            session.worker.wait("finetune", timeout=threading.TIMEOUT_MAX)
            if all(step.kind != "finetune" for step in list(session.steps)[before:]):
                raise DgpruneError(session.status["error"] or session.status["message"] or "the fine-tuning ended.")

    def cancel(self) -> None:
        """End the fine-tuning; the step that it began from stays as it was."""
        self._session.workbench.cancel()

    def undo(self) -> None:
        """Go back to the choices before the present ones."""
        self._session.workbench.move(-1)

    def redo(self) -> None:
        """Restore the choices that were undone last."""
        self._session.workbench.move(1)

    def _number(self) -> int:
        """Number of the newest request, valid or not."""
        return int(cast(Any, self.choice.get("id")) or 0)

    def _chosen(self, choices: dict[str, Any]) -> None:
        try:
            checked = self._session.checked(choices)
        except (DgpruneError, KeyError, TypeError, ValueError) as error:
            self._session.failed(error)
            return
        if checked["by"] == "page":
            self._session.worker.show(True)
            if checked.get("step") != self.view.get("step"):  # sent before the page knew of the present step
                self.choose()
                return
        self._session.request(checked, moving=bool(choices.get("moving")))

    def _show(self, name: str, value: Any) -> None:
        """Take over what the session sends."""
        if name == "message":
            self.send(value)
        elif name == "choose":
            self.choose(**value)
        elif name == "scorers":
            if value != self.static.get("scorers"):
                self.static = {**self.static, "scorers": value}
        else:
            setattr(self, name, value)


def _column(row: dict[str, Any]) -> str:
    """The heading of a domain in the table of steps."""
    return f"{row['domain']}, agreement (%)" if row["metric"] == AGREEMENT else f"{row['domain']} (%)"
