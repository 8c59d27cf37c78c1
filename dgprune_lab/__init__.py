"""See what filter pruning does to a neural network when the data shift."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import charts, data, diagnostics, models, widgets
    from .pruning.allocate import allocate
    from .study.gc_net import Companion, companion
    from .scorers.contract import Diagnostic, Menu, Scorer, diagnostic, scorer
    from .pruning.verify import read_groups
    from .measurement.outcomes import evaluate, measure
    from .diagnostics.sweep import demo, grid, sweep, training_seeds
    from .models.saving import load, save
    from .scorers import SCORERS, from_torch_pruning, hybrid, reverse
    from .study.study import Study
    from .training.scheduled.plan import PruningRun
    from .training.scheduled.train_with_pruning import train_with_pruning, training_steps
    from .measurement.recalibrate import recalibrate
    from .training.scheduled.schedules import LayerSchedule, PruneSchedule
    from .pruning.surgery import masked, prune
    from .training.prune_and_tune import Tuned, prune_and_tune, tuning_steps
    from .core.domain import Domain
    from .core.errors import DgpruneError, DgpruneNote
    from .core.masks import Mask, Scores, WeightMask, WeightScores
    from .core.graph import FilterGraph, FilterGroup
    from .core.outcomes import Outcomes
    from .core.provenance import Record, record_of
    from .core.tables import tidy
    from .training.events import TrainingOptions
    from .widgets.explorer.explorer import Explorer
    from .widgets.prediction import predict

__version__ = "0.1.0"

# Where each public name lives, in the order of the flow. A name is loaded when it is first asked for, so that the
# command line and a plain import do not wait for torch, Altair or widgets.
_WHERE = {
    "data": "data", "models": "models", "charts": "charts", "diagnostics": "diagnostics", "widgets": "widgets",
    "Domain": "types.domain", "Study": "study", "demo": "recipes", "training_seeds": "recipes", "read_groups": "gate",
    "SCORERS": "scorers", "scorer": "contract", "Scorer": "contract", "Menu": "contract",
    "from_torch_pruning": "scorers", "reverse": "scorers", "hybrid": "scorers",
    "diagnostic": "contract", "Diagnostic": "contract",
    "Scores": "types.filters", "allocate": "allocate", "Mask": "types.filters", "FilterGraph": "types.graph",
    "FilterGroup": "types.graph", "WeightScores": "types.filters", "WeightMask": "types.filters",
    "companion": "companion", "Companion": "companion",
    "prune": "surgery", "masked": "surgery", "recalibrate": "recalibration",
    "record_of": "types.record", "Record": "types.record",
    "prune_and_tune": "tuning", "tuning_steps": "tuning", "Tuned": "tuning", "TrainingOptions": "types.training",
    "PruneSchedule": "pruning.schedules", "LayerSchedule": "pruning.schedules", "PruningRun": "pruning.plan",
    "train_with_pruning": "pruning.training", "training_steps": "pruning.training",
    "evaluate": "measure", "measure": "measure", "Outcomes": "types.outcomes", "tidy": "types.tables",
    "sweep": "recipes", "grid": "recipes", "save": "saving", "load": "saving",
    "Explorer": "widgets.explorer", "predict": "widgets.prediction",
    "DgpruneError": "types.errors", "DgpruneNote": "types.errors",
}  # fmt: skip

__all__ = sorted(_WHERE)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'dgprune_lab' has no attribute {name!r}")
    module = importlib.import_module(f".{_WHERE[name]}", __name__)
    found = module if name == _WHERE[name] and not hasattr(module, name) else getattr(module, name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return [*globals(), *_WHERE]


class _Package(ModuleType):
    def __setattr__(self, name: str, value: Any) -> None:
        # Importing the module `measure` sets the attribute of that name; the public name is the function in it.
        if isinstance(value, ModuleType) and _WHERE.get(name) == name:
            value = getattr(value, name, value)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
