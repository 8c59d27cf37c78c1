"""What panels get: the view, and everything that was tried so far."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
from torch import nn

from ...core import Mask, tidy
from ..panels.protocol import Tried, View
from .choices import Choices
from .frames import EXTRA
from .history import entry_of
from .pins import LETTERS

if TYPE_CHECKING:
    from .session import Session


def view_of(session: Session, selected: Any) -> View:
    """Return the view of a session for a panel."""
    view = session.view
    measured = session.steps.at(view.get("step", 0))
    mask, taken, frame = measured.mask(view), measured.taken, measured.exact(view)
    empty = tidy([], extra=EXTRA)
    full_mask = measured.full_mask(mask)
    present = _tried(session, "ratio", view, measured.label(view), full_mask, empty if frame is None else frame.table)
    return View(
        study=measured.study,
        mask=mask,
        scorer=session.item,
        batchnorm=view["batchnorm"],
        selected=selected,
        scorers=tuple(measured.menu.values()),
        images=measured.load.images,
        calibration=measured.load.calibration,
        choice=entry_of(view),
        full=None if taken is None else session.study,
        original=None if taken is None else {name: taken.kept(name) for name in taken.keep},
        silent=session.silent,
        tried=_all_tried(session),
        present=present,
        seconds=measured.load.pace.seconds,
    )


def _all_tried(session: Session) -> tuple[Tried, ...]:
    """Every step that was measured, every pin, and every view that was measured on all images."""
    tried = []
    for step in session.steps:
        if step.table is not None:
            about = {"step": step.number, "ratio": 0.0, "layers": {}, "forced": {}}
            about["batchnorm"] = step.made.get("batchnorm", "as_is")
            network = partial(session.steps.network, step.number)
            name, choice = f"step {step.number}: {step.label}", {**entry_of(session.view), **about}
            rest: Any = {"table": step.table, "mask": step.mask, "choice": choice, "parent": step.parent}
            tried.append(Tried(name=name, kind="step", network=network, **rest))
    for letter, (view, pin) in zip(LETTERS, session.board, strict=False):
        tried.append(_tried(session, "pin", view, f"pin {letter}: {pin.label}", pin.mask, pin.table))
    for view, frame in session.steps.full.tried():
        if frame.mask is not None:
            table = frame.table if frame.timed is None else frame.timed
            tried.append(_tried(session, "ratio", view, session.steps.full.label(view), frame.mask, table))
    return tuple(tried)


def _tried(
    session: Session, kind: Literal["pin", "ratio"], view: Choices, name: str, mask: Mask, table: pd.DataFrame
) -> Tried:
    step = view.get("step", 0)

    def network() -> nn.Module:  # that of another step than the present one is examined for it
        return session.steps.apart(step).network(view)

    return Tried(name=name, kind=kind, table=table, mask=mask, network=network, choice=entry_of(view), parent=step)
