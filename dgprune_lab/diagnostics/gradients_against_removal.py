"""Do gradients rank filters as removing them does? The forms of risk variance against their slow twins."""

from __future__ import annotations

from typing import Any, Literal, cast, get_args

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

from ..core import tidy
from ..scorers import GroupView, Scorer, combined, risk_variance, scorer, share, squared_over_mean, terms
from ..study import Study
from ._contract import diagnostic

Form = Literal["additive", "joint", "signed"]
_RESAMPLES = 1000
_ROUNDING = 1e-9  # of the largest: below it an effect, which is squared, is the rounding of float32


@diagnostic("gradients_against_removal", extra=("against", "filters", "count"))
def gradients_against_removal(study: Study, *, beta: float = 1.0, split: str = "score") -> pd.DataFrame:
    """Spearman correlation of each form of `risk_variance` with what removing every filter by itself really does.

    Each form is held against "additive", the oracle of `risk_variance(mode="oracle")`, and against "its own" formula on
    the removed effects; over all filters, and over those whose removal changes some risk (dead filters are easy). A
    last row tells the median over the filters of the share that the variance term has in the additive score. One
    network is evaluated per filter and source.

    Args:
        study: with at least two labelled sources.
        beta: weight of the variance.
        split: the part that is read.

    Returns:
        A tidy table; metric "rank_correlation" with a bootstrap interval over filters (1,000 seeded resamples), and
        "variance_share". Extra columns: against, filters ("all" or "with an effect"), count of them.
    """
    found: dict[Form, dict[str, Tensor]] = {}
    forms: tuple[Form, ...] = get_args(Form)
    for form in forms:
        found[form] = dict(study.score(risk_variance, options={"mode": form, "beta": beta}, split=split).values)
    removed = {form: dict(study.score(_removed(form), options={"beta": beta}, split=split).values) for form in found}
    effect = _flat(removed["additive"])
    alive = effect > _ROUNDING * effect.max()
    rows: list[dict[str, Any]] = []
    for form, scores in found.items():
        for against in [other for other in forms if other in ("additive", form)]:
            for filters, chosen in (("all", np.ones_like(alive)), ("with an effect", alive)):
                value, low, high = _spearman(_flat(scores)[chosen], _flat(removed[against])[chosen])
                rows.append(
                    {
                        "scorer": f"risk_variance[mode={form}]",
                        "against": "its own" if against == form else against,
                        "filters": filters,
                        "count": int(chosen.sum()),
                        "metric": "rank_correlation",
                        "value": value,
                        "low": low,
                        "high": high,
                        "interval": "filters",
                        "unit": "correlation",
                        "split": split,
                        "images": _images(study, split),
                    }
                )
    rows.append(
        {
            "scorer": "risk_variance[mode=additive]",
            "metric": "variance_share",
            "value": _share(study, beta, split),
            "unit": "share",
            "split": split,
            "images": _images(study, split),
        }
    )
    return tidy(rows, extra=("against", "filters", "count"))


def in_words(frame: pd.DataFrame) -> list[str]:
    """The table of `oracle` as lines of Markdown: a row per form and reference."""
    listed = cast("list[dict[str, Any]]", frame.to_dict("records"))
    cells: dict[tuple[str, str], list[str]] = {}
    for row in listed:
        if row["metric"] == "rank_correlation":
            ends = f"{row['low']:.2f} to {row['high']:.2f}"
            cells.setdefault((row["scorer"], row["against"]), []).append(
                f"{row['value']:.2f} ({ends}), {row['count']:.0f}"
            )
    lines = ["| form | held against | all filters | filters with an effect |", "|---|---|---|---|"]
    lines += [f"| {scorer} | {against} | {' | '.join(found)} |" for (scorer, against), found in cells.items()]
    share = next(row["value"] for row in listed if row["metric"] == "variance_share")
    return [
        *lines,
        f"Median share of the variance term in the additive score, filters with an effect: {100 * share:.2g} %.",
    ]


def _removed(form: Form) -> Scorer:
    """The same formula on the effects of really removing a filter."""

    @scorer("removed", needs=("risk", "removal"), reads={"source": "labels"}, level="network")
    def removed(views: dict[str, GroupView], *, beta: float = 1.0) -> dict[str, Tensor]:
        """The formula of a form of risk variance on the effects of removal."""
        return combined(*terms(views, removed=True), mode=form, beta=beta)

    return removed


def _share(study: Study, beta: float, split: str) -> float:
    found: list[float] = []

    @scorer("shares", needs=("gate", "risk"), reads={"source": "labels"}, level="network")
    def shares(views: dict[str, GroupView]) -> dict[str, Tensor]:
        """Keeps the share that the variance has in the additive score."""
        mean, spread = (squared_over_mean(part) for part in terms(views, removed=False))
        found.append(share(mean, {name: beta * value for name, value in spread.items()}))
        return mean

    study.score(shares, split=split)
    return found[0]


def _flat(scores: dict[str, Tensor]) -> NDArray[np.float64]:
    return torch.cat(list(scores.values())).numpy()


def _images(study: Study, split: str) -> int:
    return sum(len(domain.rows(split)) for domain in study.sources)


def _spearman(first: NDArray[np.float64], second: NDArray[np.float64]) -> tuple[float, float, float]:
    """Spearman's correlation with its bootstrap interval over filters."""
    ranks = np.stack([rankdata(first), rankdata(second)])
    draws = np.random.default_rng(0).integers(0, len(first), (_RESAMPLES, len(first)))
    resampled = [float(np.corrcoef(ranks[:, draw])[0, 1]) for draw in draws]
    low, high = np.percentile(resampled, [2.5, 97.5])
    return float(np.corrcoef(ranks)[0, 1]), float(low), float(high)
