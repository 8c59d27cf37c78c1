"""A network with its domains and a cache of what was computed; the built-in demos; GC-Net."""

from .demo import DEMO_DOMAINS, demo, training_seeds
from .fingerprint import fingerprint
from .gc_net import GCNet
from .measure_gc_net import gc_net
from .domains import prunable_words
from .rows import batchnorm_cell, labelled_studies, mask_columns, mask_provenance, network_names, pooled
from .rows import remaining_cost, why_no_loss
from .scoring import scoring
from .study import Study
from . import pickling
