"""See what filter pruning does to a neural network when the data shift."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import charts, data, diagnostics, experiments, models, widgets
    from .charts import theme
    from .core import DgpruneError, DgpruneNote, Domain, FilterGraph, FilterGroup, Mask, Outcomes, Provenance
    from .core import Scores, WeightMask, WeightScores, answer, latex, provenance_of, summary, tidy
    from .diagnostics import Diagnostic, diagnostic, find, grid, sweep
    from .measurement import evaluate, measure, recalibrate
    from .models import load, load_weights, save
    from .pruning import allocate, masked, prune, read_groups
    from .scorers import SCORERS, Menu, Scorer, cite, from_torch_pruning, hybrid, reverse, scorer
    from .study import GCNet, Study, demo, gc_net, training_seeds
    from .training import LayerSchedule, PruneSchedule, PruningRun, TrainingOptions, Tuned
    from .training import leave_one_out, presets, prune_and_tune, train_treatments, train_with_pruning
    from .widgets import Explorer, glossary, predict, report, tally

# The folder that holds each public name, in the order of the flow. A name is loaded when it is first asked for, so
# that the command line and a plain import do not wait for torch, Altair or widgets.
_FOLDERS = {
    "core": "DgpruneError DgpruneNote Domain FilterGraph FilterGroup Mask Outcomes Provenance Scores WeightMask "
    "WeightScores answer latex provenance_of summary tidy",
    "pruning": "allocate masked prune read_groups",
    "measurement": "evaluate measure recalibrate",
    "models": "load load_weights save",
    "scorers": "SCORERS Menu Scorer cite from_torch_pruning hybrid reverse scorer",
    "study": "GCNet Study demo gc_net training_seeds",
    "training": "LayerSchedule PruneSchedule PruningRun TrainingOptions Tuned leave_one_out presets prune_and_tune "
    "train_treatments train_with_pruning",
    "diagnostics": "Diagnostic diagnostic find grid sweep",
    "charts": "theme",
    "widgets": "Explorer glossary predict report tally",
}
_OWNER = {name: folder for folder, names in _FOLDERS.items() for name in names.split()}
_MODULES = ("charts", "data", "diagnostics", "experiments", "models", "widgets")

__all__ = sorted([*_OWNER, *_MODULES])  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    if name in _OWNER:
        value = getattr(importlib.import_module(f".{_OWNER[name]}", __name__), name)
    elif name == "__version__":
        from importlib.metadata import version

        value = version("dgprune-lab")
    else:
        raise AttributeError(f"module 'dgprune_lab' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
