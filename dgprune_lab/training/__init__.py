"""The training loop; pruning in rounds; pruning while training."""

from .events import BatchEvent, EpochEvent, Events, PruneEvent, StageEvent
from .loop import accuracy_by_part, finish, train, with_progress
from .options import TrainingOptions
from .prune_and_tune import (
    DENSE,
    EXTRA,
    MeasureWhen,
    Steps,
    Tuned,
    finish_run,
    prune_and_tune,
    rounds_of,
    scorer_name,
    tuning_steps,
)
from .scheduled.plan import PruningRun, Remove
from .scheduled.schedules import LayerSchedule, PruneSchedule
from .scheduled.train_with_pruning import train_with_pruning, training_steps
from .scheduled.treatments import How
