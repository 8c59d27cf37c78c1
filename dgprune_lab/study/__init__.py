"""A network with its domains and a cache of what was computed; the built-in demos; GC-Net."""

from .demo import demo, training_seeds
from .gc_net import GCNet, gc_net
from .rows import checked_tolerances, left, mask_columns, mask_provenance, named, network_names, pooled, refuse
from .study import Study
