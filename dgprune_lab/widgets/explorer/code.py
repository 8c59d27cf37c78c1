"""The present view as code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ...core import Scores
from ...scorers import SCORERS, Scorer
from ...study import Study


def as_code(study: Study, view: Mapping[str, Any], *, scorer: Scorer | Scores) -> str:
    """A cell that rebuilds a view: study, scores, mask, pruned network, table; with versions and the data's hash.

    Args:
        study: what it is about.
        view: ratio, scorer, scope, of, batchnorm.
        scorer: the one of the view. One of the user's own is named, not quoted.
    """
    from ... import __version__

    made = study.origin or "study  # the Study of this notebook: dg.Study(model, sources=[...], targets=[...])"
    if view["scorer"] in SCORERS:
        written = repr(view["scorer"])
    elif isinstance(scorer, Scorer) and scorer.code:
        written = scorer.code
    else:
        written = f"{view['scorer']}  # the scorer or scores of this notebook"
    lines = [
        f"# dgprune_lab {__version__}, torch {torch.__version__}, data {study.key}",
        "import dgprune_lab as dg",
        "",
        f"study = {made}",
        f'assert study.key == "{study.key}", "these are other data"',
        f"scorer = {written}",
        f"mask = dg.allocate(study.score(scorer), ratio={view['ratio']!r}, scope={view['scope']!r}, of={view['budget']!r})",
        "small = dg.prune(study.model, mask)",
        f"dg.measure(small, study.domains, batchnorm={view['batchnorm']!r})",
    ]
    return "\n".join(lines)
