"""Many runs on any executor, in a table that resumes; the studies that test published claims."""

from . import executors
from .averages import averages, over_targets
from .claims import Claim, claims_table, verdict
from .compare import compare
from .convergence import convergence
from .experiment import Experiment, Finding, Scratch, Settings
from .instability_correlations import instability_correlations
from .tables import export, recompute, shipped, shipped_card, shipped_names, study_named
from .predictors import predictors
from .results import Results
from .runner import run
from .settings import grid
from .shipped_claims import claims_in_words, claims_view, shipped_claims, shipped_comparison, verdict_sentences
from .shipped_networks import export_networks
from .studies import STUDIES

__all__ = ["STUDIES", "Claim", "Experiment", "Finding", "Results", "Scratch", "averages", "claims_in_words"]
__all__ += ["claims_table", "claims_view", "compare", "convergence", "executors", "export", "export_networks", "grid"]
__all__ += ["instability_correlations", "over_targets", "predictors", "recompute", "run", "shipped", "shipped_card"]
__all__ += ["shipped_claims", "shipped_comparison", "shipped_names", "study_named", "verdict", "verdict_sentences"]
