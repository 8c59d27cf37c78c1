"""Which filters belong together, which of them stay, and the smaller network."""

from .allocate import Order, allocate, checked_ratio, removal_order
from .fold_batchnorm import folded
from .surgery import deep_copy, device_of, masked, prune, pruned_view, rebuild, shared_copy
from .tracing import ending_in_relu, run_order
from .verify import read_groups, refuse_hooks
