"""One number per filter, higher = keep: the contract, the menu, one file per kind of evidence."""

from .contract import Menu, Scorer, read_scores, scorer
from .domains import cosine
from .gc_net import LEAST, correlation, expected_floor, say_if_few
from .menu import SCORERS, hybrid, refusal, resolve, reverse, run
from .risks import combined, share, squared_over_mean, terms
from .torch_pruning import from_torch_pruning
from .view import ScorerInputs, GroupView
from .risks import risk_variance
