"""The values that flow (domains, filter groups, scores, masks, outcomes, provenance), tables, errors, seeds."""

from .domain import Batch, Domain, Pixels, Role
from .datasets import DatasetImages
from .labels import check_domains, listed_names
from .pixels import kind_of_picture, pixels_of_picture
from .splits import cut, cut_counts
from .layers import BATCHNORM, CONV, TRANSPOSED, is_depthwise
from .graph import FilterGraph, FilterGroup, Member
from .statistics import APART, COSTLY, LABELLED, ClassMap, ClassMoments, CoMoments, Moments, Need, Outcomes
from .statistics import Statistics
from .connections import NEARLY, UNIFORM, Connections, Pair, Spread, pair_names
from .scores import Scores, WeightMask, WeightScores
from .filter_lists import Forced, forced_filters, forced_lists
from .masks import Mask
from .provenance import MORE, STAGES, Provenance, Reads, declared, merged, provenance_of, roles_of, set_provenance
from .exposure import DIAMOND, EXPOSURE_WORDS, Exposure, exposure_label, exposure_of, is_missing, is_target_aware
from .exposure import most_seen, scorer_exposure, strongest_exposure, with_scorer_exposure
from .tables import COLUMNS, BatchNorm, Budget, Scope, Seen, batchnorm_words, choice, tidy
from .claims import Claims, claim_texts, claimed_by
from .network_table import OUTCOMES, NetworkTable, network_table, larger_is_better
from .summary import answer, summary
from .latex import latex
from .errors import DgpruneError, DgpruneNote, checked_name, collect_notes, note, note_once, unknown
from .kinds import NUMBERS, SEEN, Columns, Count, NotNegative, Positive, Probability, Ratio, Repeats, Seed, Share
from .kinds import Side, Tidy, Whole, Within
from .border import border_of, public, resolved_hints
from .frozen import Frozen, cloned, mapped
from .files import card_text, code_key, parse_card, parse_json, read_card, settled_folder, versions, whole_folder
from .files import at_home, check_writable_file, check_writable_folder, notebook_folders, write_file, written
from .rounding import percent, rounded, whole_percent
from .steps import Cancelled, Stepwise, cancelled_when, drain, duration, has_stderr, late_bar
from .steps import interruptible, progress_bar, stepwise, yielding
from .random import generator, preserved_rng, reproducible, seed
from .dispatch import MacCounter, Observer
from .machine import device, full_precision, machine_description, threads
from .memory import cache_room, give_back_memory, pass_room
from .locks import Lock, end_with_parent, renew_after_fork
