"""The present view as code."""

from __future__ import annotations

from importlib.metadata import version

import torch

from ...core import Scores
from ...scorers import SCORERS, Scorer
from ...study import Study
from .measurements import Choices


def as_code(study: Study, view: Choices, *, scorer: Scorer | Scores) -> str:
    """Return a cell that rebuilds a view: study, scores, mask, pruned network, table; with versions and data hash.

    A scorer of the user's own is named, not quoted.
    """
    origin = study.origin or "study  # the Study of this notebook: dg.Study(model, sources=[...], targets=[...])"
    if view["scorer"] in SCORERS:
        written = repr(view["scorer"])
    elif isinstance(scorer, Scorer) and scorer.code:
        written = scorer.code
    else:
        written = f"{view['scorer']}  # the scorer or scores of this notebook"
    options = f"ratio={view['ratio']!r}, scope={view['scope']!r}, budget={view['budget']!r}"
    return f"""\
# dgprune_lab {version("dgprune-lab")}, torch {torch.__version__}, data {study.key}
import dgprune_lab as dg

study = {origin}
assert study.key == "{study.key}", "these are other data"
scorer = {written}
mask = dg.allocate(study.score(scorer), {options})
small = dg.prune(study.model, mask)
dg.measure(small, study.domains, batchnorm={view["batchnorm"]!r})"""
