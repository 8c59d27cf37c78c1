"""Runs a network over images: statistics, outcomes, cost, attributions."""

from .attributions import Attributor, Method, TOGETHER, separated
from .chance import ChanceWatch, at_chance
from .co_moments import PAIRS, pairs, too_large
from .cost import LATENCY_IMAGES, cost_rows, latency_row, timings
from .curvature import Curvature, EIGENVECTOR_BYTES
from .evaluator import Evaluator
from .hooks import ConsumerInput, Site, produced
from .lanczos import lanczos_vectors
from .memory_format import layout_of
from .metrics import CLASS, metric_rows, worst_rows
from .outcomes import evaluate, evaluating, measure, outcome_rows
from .recalibrate import calibration_count, calibration_sources, has_batchnorm, recalibrate
from .batch_size import GRADIENT_IMAGES, batch_size
from .statistics import MapShapes, gather, gathering, map_shapes, paired_cosines
from .weight_masking import Norm, WeightMasking, WeightScorer, prunable
