"""Arrays in, numbers with intervals out; knows no network and no study."""

from .rank_tests import auroc, p_values, q_values
from .calibration import calibration_error
from .comparability import alike, unlike
from .correlation import CORRELATIONS, POOLED, correlation_over_runs, correlation_over_seeds, rate_words, tau_b
from .discrepancy import cka, coral, mmd, proxy_a_distance, silhouette, trustworthiness
from .effect_sizes import NOT_FINITE, class_moments, cohens_d, filled, matched_d, merged, resolution
from .features import FEWEST, median_distance, standardised
from .intervals import Estimate, Floats, LEVEL, PAIRED, RESAMPLES, crossed_difference, difference_row, with_holm
from .rank_agreement import ALL, LEAST, Values
from .rank_agreement import chance_spread, correlations, over_filters, overlaps, random_matchings, weighted
from .trade_offs import pareto_front
from .umap_process import Fit, fit_steps
