"""The state of an explorer that Python and the page share, and the controls as attributes."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, cast

import traitlets

from ...core import DgpruneError, public, unknown
from ..page.comm import CommWidget
from .choices import CONTROLS, Choices
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
    """The controls of an explorer as attributes, and what its page is told."""

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
