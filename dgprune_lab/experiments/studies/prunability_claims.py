"""What the table of the networks in `prunability` says about the claims of Kuhn et al., and about shifted images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...core import Tidy, is_missing
from ..claims import Claim
from ..predictors import predictors

PAPER = "Kuhn et al. 2021, arXiv:2103.06002"
HYPERPARAMETERS = ("width", "depth", "dropout", "weight_decay", "batch_size", "lr")
"""The settings in which the networks differ, beside the training seed."""
MEASURE = "prunability"
RIVALS = {
    "sharpness": "sharpness",
    "sam_sharpness": "SAM's sharpness",
    "hessian_trace": "the Hessian's trace",
    "random_perturbation": "a random perturbation of the same norm",
    "margin": "the margin",
    "l2_norm": "the L2 norm",
    "distance_from_initialisation": "the distance from initialisation",
    "parameter_count": "the number of parameters",
    "weights_kept": "the number of weights that are enough",
    "sum_of_training_losses": "the sum of training losses",
    "training_loss": "the final training loss",
    "drop_at_once": "the accuracy lost when half of the filters are removed",
}
"""The measure -> its name in a sentence; the paper's abstract names margin, flatness and speed of optimisation."""


def prunability_claims(frame: Tidy) -> list[Claim]:
    """Return what a table of trained networks says about prunability as a predictor of the loss on reported images.

    All intervals are over cells of the grid of hyperparameters. A comparison without an interval is left out.

    Raises:
        DgpruneError: too few networks that converged.
    """
    measured = {str(name) for name in frame["metric"].unique()}
    names = [name for name in (MEASURE, *RIVALS) if name in measured]
    table: Any = predictors(frame, hyperparameters=HYPERPARAMETERS, outcomes=["loss"], measures=names)
    seeds = ", ".join(f"{seed:g}" for seed in sorted(frame["training_seed"].dropna().unique()))
    rows = [row for row in table[table["measure"] == MEASURE].to_dict("records") if not is_missing(row["low"])]
    return [claim for role in ("source", "target") for claim in _claims(rows, role, seeds)]


def _claims(rows: list[Any], role: str, seeds: str) -> Iterator[Claim]:
    """Yield the claims about the loss in-domain, or the one about the loss on shifted images."""
    for row in rows:
        rival = RIVALS.get(str(row["given"]))
        sentence = {
            "kendall_tau_a": "A lower prunability predicts a lower loss",
            "tau_difference": f"Prunability predicts the loss better than {rival}",
            "partial_correlation": f"Prunability predicts the loss beyond what {rival} tells",
        }.get(row["metric"])
        if row["role"] != role or sentence is None or (role == "target" and row["metric"] != "kendall_tau_a"):
            continue
        about = {
            "kendall_tau_a": "Kendall's tau-a",
            "tau_difference": "difference of Kendall's tau-a",
            "partial_correlation": "Spearman's partial correlation",
        }[row["metric"]]
        yield Claim.from_row(
            {**row, "minimum_detectable_effect": (row["high"] - row["low"]) / 2, "seeds": seeds},
            claim=f"{sentence} on new images" if role == "source" else f"{sentence} on shifted images",
            paper=PAPER,
            published="no figure in the abstract" if role == "source" else "not published; our question",
            ours=role == "target",
            note=f"{about} over {row['networks']:g} networks; interval over {row['cells']:g} cells of the grid.",
        )
