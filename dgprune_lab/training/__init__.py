"""The training loop; pruning in rounds; pruning while training."""

from . import presets
from .events import BatchEvent, EpochEvent, Events, PruneEvent, StageEvent, event_bar, finish
from .loop import train
from .leave_one_out import leave_one_out
from .options import TrainingOptions
from .rounds import DENSE, EXTRA, MeasureWhen, Steps, Tuned, with_network
from .presets import Preset
from .prune_and_tune import FINETUNING, prune_and_tune, rounds_of, scorer_name
from .scheduled.plan import PruningRun, Remove
from .scheduled.schedules import LayerSchedule, PruneSchedule
from .scheduled.train_treatments import train_treatments
from .scheduled.train_with_pruning import train_with_pruning
from .scheduled.treatments import How
