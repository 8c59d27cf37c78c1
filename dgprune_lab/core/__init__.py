"""The values that flow (domains, filter groups, scores, masks, outcomes, provenance), tables, errors, seeds."""

from .connections import NEARLY, Connections, Pair, Spread, UNIFORM, pair_names
from .domain import Batch, Domain, Role, cut, cut_counts
from .errors import DgpruneError, DgpruneNote, collect_notes, note, note_once, unknown
from .exposure import (
    DIAMOND,
    EXPOSURE_WORDS,
    Exposure,
    scorer_exposure,
    is_missing,
    is_target_aware,
    exposure_of,
    exposure_label,
    strongest_exposure,
    with_scorer_exposure,
)
from .files import card_text, read_card, write_file
from .graph import FilterGraph, FilterGroup, Member
from .layers import BATCHNORM, CONV, TRANSPOSED, is_depthwise
from .machine import device, threads
from .masks import Mask, WeightMask
from .outcomes import Outcomes
from .provenance import MORE, Reads, Provenance, Roles, STAGES, provenance_of, roles_of, set_provenance
from .random import generator, preserved_rng, seed
from .scores import Scores, WeightScores
from .statistics import APART, COSTLY, ClassMap, ClassMoments, CoMoments, LABELLED, Moments, Need, Statistics
from .steps import Stepwise, drain, progress_bar, stepwise, yielding
from .tables import BatchNorm, COLUMNS, Budget, SEEN, Scope, Seen, choice, tidy
from .summary import summary
