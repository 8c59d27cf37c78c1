"""One number per filter, higher = keep: the contract, the menu, one file per kind of evidence."""

from .contract import Menu, Scorer, scorer
from .domains import cosine
from .gc_net import MIN_IMAGES, correlation, expected_null, note_if_few
from .menu import SCORERS, hybrid, refusal, resolve, reverse, run
from .risks import combined, risk_variance, share, squared_over_mean, terms
from .torch_pruning import from_torch_pruning
from .citing import cite
from .inputs import Inputs
from .view import GroupView
