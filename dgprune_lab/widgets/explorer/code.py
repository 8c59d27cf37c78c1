"""The current view as code, with the steps before it."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from types import SimpleNamespace

import torch

from ...core import Scores
from ...scorers import SCORERS, Scorer, hybrid, reverse
from ...study import Study
from ...training import TrainingOptions
from ..panels.protocol import Item
from .choices import Choices, arguments, hand_reads, is_by_hand
from .frames import CALIBRATION, is_labelled
from .saved_session import SavedStep

_LINE = 90


def as_code(
    study: Study,
    view: Choices,
    *,
    steps: Sequence[SavedStep],
    menu: Mapping[str, Item],
    images: int | None,
    calibration: int,
    all_steps: bool = False,
) -> str:
    """Return the code of a notebook cell that rebuilds a view: study, steps, scores, mask, pruned network and table.

    It names the versions and the hash of the data. A study or scorer of the user's own is not in the code; a comment
    says what to supply.

    Args:
        study: the full network with its domains.
        view: the checked choices of the view.
        steps: all steps of the session; step 0, the full network, may be left out.
        menu: name -> scorer.
        images, calibration: see `Explorer`; images None for all.
        all_steps: whether to rebuild all steps, and not only those before the view.
    """
    known = {step.number: step for step in steps if step.kind != "full"}
    taken = sorted(known) if all_steps else _before(known, view.get("step", 0))
    writer = _Writer(study, known, menu=menu, calibration=calibration)
    pruned = {known[number].made["scorer"]: f"step {number}" for number in taken if known[number].kind == "prune"}
    supply = writer.supply({**pruned, view["scorer"]: "this view"})
    origin = f"study = {study.origin}\n" if study.origin else ""
    head = f"""\
# dgprune_lab {version("dgprune-lab")}, torch {torch.__version__}, data {study.key}
{supply}import dgprune_lab as dg

{origin}assert study.key == "{study.key}", "these are other data"
"""
    rebuilt = "".join(f"\n{writer.step(known[number])}\n" for number in taken)
    return head + rebuilt + "\n" * bool(taken) + writer.view(view, images=images)


def _before(steps: Mapping[int, SavedStep], number: int) -> list[int]:
    """Return the numbers of a step and its ancestors, the oldest first."""
    numbers: list[int] = []
    while number in steps:
        numbers.append(number)
        number = steps[number].parent or 0
    return numbers[::-1]


class _Writer:
    """Writes the calls that make steps and views."""

    def __init__(
        self, study: Study, steps: Mapping[int, SavedStep], *, menu: Mapping[str, Item], calibration: int
    ) -> None:
        self._study, self._steps, self._menu = study, steps, menu
        self._calibrated = "" if calibration == CALIBRATION else f", images={calibration}"
        self._variables: dict[str, str] = {}

    def supply(self, scorers: Mapping[str, str]) -> str:
        """Return the comments that say what the user must supply: the study, and scorers that code cannot make.

        `scorers` maps the name of each scorer to where it is used, in words.
        """
        own = "# Supply `study`: dg.Study(model, sources=[...], targets=[...]), as in this view.\n"
        lines = "" if self._study.origin else own
        for name, where in scorers.items():
            item = self._menu.get(name)
            if _expression(name, item) is None:
                self._variables[name] = _variable(item, taken=self._variables.values())
                kind = "Scores" if isinstance(item, Scores) else "Scorer"
                lines += f"# Supply `{self._variables[name]}`: the {kind} of {where}, named {name!r}.\n"
        return lines

    def step(self, step: SavedStep) -> str:
        """Return the calls that make the network of a step, and its study."""
        before, made = _study_of(step.parent or 0), step.made
        network = f"network_{step.number}"
        lines = [f"# Step {step.number}: {' '.join(step.label.split())}"]
        if step.kind == "prune":
            choices = Choices(**made)  # type: ignore[typeddict-item]
            pruned = f"dg.prune({before}.model, mask)"
            if choices["batchnorm"] == "recalibrate" and self._study.has_batchnorm:
                pruned = f"dg.recalibrate({pruned}, study.sources{self._calibrated})"
            lines += [f"mask = {self._allocated(choices, self._scorer(choices['scorer']))}", f"{network} = {pruned}"]
        else:
            options, plain = made["options"], TrainingOptions().to_json()
            settings = [
                f"{name}={value!r}" for name, value in options.items() if name != "epochs" and value != plain[name]
            ]
            call = [before, "None", "ratio=0.0", "rounds=1", f"epochs={made['epochs']!r}", "options=options"]
            call += [f"batchnorm={made['batchnorm']!r}", 'measure="end"']
            lines += [
                f"options = dg.TrainingOptions({', '.join(settings)})",
                f"tuned = dg.prune_and_tune({_argument_list(call)})",
                f"{network} = tuned.network",
            ]
        layers = "" if self._study.layers == "conv" else f", layers={self._study.layers!r}"
        named = f"{network}, sources=study.sources, targets=study.targets{layers}, device=study.device"
        return "\n".join([*lines, f"{_study_of(step.number)} = dg.Study({named})"])

    def view(self, view: Choices, *, images: int | None) -> str:
        """Return the calls that make the mask, the network and the short table of a view."""
        before, batchnorm = _study_of(view.get("step", 0)), view["batchnorm"]
        value = self._scorer(view["scorer"])
        named = "" if value == "scorer" else f"scorer = {value}\n"
        made = f"dg.prune({before}.model, mask)"
        if batchnorm == "recalibrate" and self._calibrated:
            made, batchnorm = f"dg.recalibrate({made}, study.sources{self._calibrated})", "as_is"
        first = "" if images is None else f", images={images}"
        metric = ', metric="accuracy"' if is_labelled(self._study) else ""
        return f"""\
{named}mask = {self._allocated(view, "scorer")}
small = {made}
table = dg.measure(small, study.domains{first}, batchnorm={batchnorm!r}, latency=False)
dg.summary(table{metric})"""

    def _scorer(self, name: str) -> str:
        return self._variables.get(name) or str(_expression(name, self._menu.get(name)))

    def _allocated(self, choices: Choices, scorer: str) -> str:
        step = choices.get("step", 0)
        taken = self._steps[step].mask if step in self._steps else None
        hand = arguments(choices, taken=taken, graph=self._study.graph)
        left = self._study.graph.names if taken is None else [n for n in taken.keep if len(taken.kept(n)) > 1]
        hand = {name: {key: value for key, value in layers.items() if key in left} for name, layers in hand.items()}
        options = [f"{name}={choices[name]!r}" for name in ("ratio", "scope", "budget")]
        options += [f"{name}={layers!r}" for name, layers in hand.items() if layers]
        if is_by_hand(choices):
            options.append(f"reads={dict(hand_reads(self._study) or {})!r}")
        return f"dg.allocate({_argument_list([f'{_study_of(step)}.score({scorer})', *options])})"


def _argument_list(arguments: Sequence[str]) -> str:
    """Return the arguments of a call on one line, or on a line each if that is too long."""
    line = ", ".join(arguments)
    return line if len(line) <= _LINE else "\n" + "".join(f"    {argument},\n" for argument in arguments)


def _study_of(step: int) -> str:
    return f"study_{step}" if step else "study"


def _variable(item: Item | None, *, taken: Iterable[str]) -> str:
    """Return an unused variable name for a user's own scorer."""
    own = getattr(item.function, "__name__", "") if isinstance(item, Scorer) else ""
    reserved = re.fullmatch(r"dg|study(_\d+)?|network_\d+|mask|small|table|tuned|options", own)
    name = own if own.isidentifier() and not keyword.iskeyword(own) and not reserved else "scorer"
    used = set(taken)
    return name if name not in used else next(n for k in range(2, 10**6) if (n := f"{name}_{k}") not in used)


def _expression(name: str, item: Item | None) -> str | None:
    """Return the expression that makes a scorer; None for a user's own."""
    if not isinstance(item, Scorer):
        return None
    if name in SCORERS and item is SCORERS[name]:
        return repr(name)
    return item.code if item.code and _is_complete(item) else None


def _is_complete(item: Scorer) -> bool:
    """Return whether a scorer's expression is enough to make it; it is not if it uses a user's own scorer."""
    dg = SimpleNamespace(SCORERS=SCORERS, reverse=reverse, hybrid=hybrid)
    try:
        return eval(item.code, {"__builtins__": {}, "dg": dg}).name == item.name  # the text is made by this package
    except Exception:
        return False
