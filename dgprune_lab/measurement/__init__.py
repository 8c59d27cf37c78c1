"""Runs a network over images: statistics, outcomes, cost, attributions."""

from .attributions import Attributor, Method, TOGETHER, separated
from .chance import ChanceWatch, at_chance
from .co_moments import PAIRS, pairs, too_large
from .curvature import Curvature, EIGENVECTOR_BYTES
from .evaluator import Evaluator
from .hooks import ConsumerInput, Site, produced
from .lanczos import lanczos_vectors
from .metrics import CLASS, LATENCY_IMAGES, cost_rows, latency_row, metric_rows, outcome_rows, timings, worst_rows
from .outcomes import evaluate, evaluating, measure
from .recalibrate import calibration_count, calibration_sources, has_batchnorm, recalibrate
from .batch_size import GRADIENT_IMAGES, batch_size, layout_of
from .statistics import MapShapes, gather, gathering, map_shapes, paired_cosines
from .weight_masking import Norm, WeightMasking, WeightScorer, prunable
