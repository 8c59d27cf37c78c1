"""Arrays in, numbers with intervals out; knows no network and no study."""

from .auroc import auroc, p_values, q_values
from .comparability import unlike
from .discrepancy import (
    FEWEST,
    cka,
    coral,
    median_distance,
    mmd,
    proxy_a_distance,
    silhouette,
    standardised,
    trustworthiness,
)
from .effect_sizes import class_moments, cohens_d, matched_d, merged
from .intervals import Estimate, LEVEL, RESAMPLES
from .rank_agreement import (
    ALL,
    Floats,
    LEAST,
    Values,
    chance_spread,
    correlations,
    over_filters,
    overlaps,
    random_matchings,
    weighted,
)
from .umap_process import Fit, fit_steps
