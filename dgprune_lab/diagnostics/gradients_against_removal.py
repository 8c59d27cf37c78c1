"""Do gradients rank filters as removing them does? Each form of risk variance against the effects of removal."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..core import NotNegative, tidy
from ..scorers import GroupView, Scorer, combined, risk_variance, scorer, share, squared_over_mean, terms
from ..stats import ALL, Floats, correlations, over_filters
from ..study import Study, batchnorm_cell
from ._contract import Row, Rows, diagnostic

Form = Literal["additive", "joint", "signed"]
EXTRA = ("against", "filters", "count")
_ROUNDING = 1e-9  # (squared) effects below this share of the largest are rounding errors of float32


@diagnostic("gradients_against_removal", extra=EXTRA)
def gradients_against_removal(study: Study, *, beta: NotNegative = 1.0, split: str = "score") -> pd.DataFrame:
    """Return Spearman's correlation of each form of `risk_variance` with the effects of removing each filter alone.

    Each form is compared with "additive", the oracle of `risk_variance(mode="oracle")`, and with "its own" formula
    applied to the effects of removal; over all filters, and over those whose removal changes any risk (dead filters
    always agree). A last row has the share of the variance term in the additive score, the median over filters. One
    network is evaluated per filter and source.

    Args:
        study: a study with at least two labelled sources.
        beta: weight of the variance term.
        split: the split that is read.

    Returns:
        A tidy table; metric "rank_correlation" with a bootstrap interval over filters (1,000 seeded resamples), and
        "variance_share". Extra columns: against, filters ("all" or "with an effect"), and count, their number.
    """

    def values(item: Scorer, **options: Any) -> Floats:
        scores = study.score(item, options={"beta": beta, **options}, split=split)
        return torch.cat(list(scores.values.values())).numpy()

    forms: tuple[Form, ...] = get_args(Form)
    scores = {form: values(risk_variance, mode=form) for form in forms}
    removed = {form: values(_removal_scorer(form)) for form in forms}
    effective = removed["additive"] > _ROUNDING * removed["additive"].max()
    shared: Row = {"batchnorm": batchnorm_cell(study, "as_is")}
    shared |= {"split": split, "images": sum(len(domain.rows(split)) for domain in study.sources)}
    rows: Rows = []
    for form in forms:
        for against in dict.fromkeys(("additive", form)):
            for filters, chosen in (("all", np.ones_like(effective)), ("with an effect", effective)):
                value, low, high = _spearman(scores[form][chosen], removed[against][chosen])
                named = {"scorer": f"risk_variance[mode={form}]", "against": "its own" if against == form else against}
                over = {"filters": filters, "count": int(chosen.sum()), "interval": "filters"}
                cells = {"metric": "rank_correlation", "unit": "correlation", "value": value, "low": low, "high": high}
                rows.append({**shared, **named, **over, **cells})
    cells = {"scorer": "risk_variance[mode=additive]", "metric": "variance_share", "unit": "share"}
    rows.append({**shared, **cells, "value": _variance_share(study, beta=beta, split=split)})
    return tidy(rows, extra=EXTRA)


def _removal_scorer(form: Form) -> Scorer:
    """Return a scorer: this form of risk variance, applied to the effects of removing each filter."""

    @scorer("removed", needs=("risk", "removal"), reads={"source": "labels"}, level="network")
    def removed(views: dict[str, GroupView], *, beta: float = 1.0) -> dict[str, Tensor]:
        """Risk variance of this form, from the effects of removal instead of gate gradients."""
        return combined(*terms(views, removed=True), mode=form, beta=beta)

    return removed


def _variance_share(study: Study, *, beta: float, split: str) -> float:
    shares: list[float] = []

    @scorer("shares", needs=("gate", "risk"), reads={"source": "labels"}, level="network")
    def probe(views: dict[str, GroupView]) -> dict[str, Tensor]:
        """Record the share of the variance term in the additive score."""
        mean, spread = (squared_over_mean(part) for part in terms(views, removed=False))
        shares.append(share(mean, {name: beta * value for name, value in spread.items()}))
        return mean

    study.score(probe, split=split)
    return shares[0]


def _spearman(first: Floats, second: Floats) -> tuple[float, float, float]:
    """Return Spearman's correlation with its bootstrap interval over filters."""
    pair = [{ALL: torch.from_numpy(values)} for values in (first, second)]
    low, high = (float(end[0, 1]) for end in over_filters(pair, scope="global", seed=0))
    return correlations(pair[0], pair[1], scope="global")[ALL], low, high
