"""Which filters belong together, which of them stay, and the smaller network."""

from .limits import Limits
from .removal_order import Order, cached_order, removal_order
from .allocate import allocate, by_scope, checked_ratio
from .copies import deep_copy, device_of, rebuild, shared_copy
from .fold_batchnorm import folded
from .holders import refuse_other_types, refuse_uncopyable, unregistered
from .proof import prove_copies, prove_copies_if_suspect
from .surgery import masked, prune, pruned_view
from .tracing import autograd_nodes, ending_in_relu, layer_hooks, run_order
from .verify import read_groups
