"""Which filters belong together, which of them stay, and the smaller network."""

from .allocate import Order, allocate, checked_ratio, removal_order
from .fold_batchnorm import folded
from .surgery import device_of, masked, private, prune, pruned_view, rebuild
from .tracing import ending_in_relu, run_order
from .verify import read_groups, refuse_hooks
