"""The study of double descent: noisy labels, rows, claims from planted curves, and the chart."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import dgprune_lab as dg
from dgprune_lab.core import DgpruneError
from dgprune_lab.experiments.scratch import Scratch
from dgprune_lab.experiments.studies.double_descent import (
    double_descent,
    double_descent_claims,
    noisy,
    run_double_descent,
)

pytestmark = pytest.mark.filterwarnings("ignore::dgprune_lab.core.errors.DgpruneNote")
WIDTHS = (2, 6, 24, 256)


def settings(**more: Any) -> dict[str, Any]:
    return {**double_descent(quick=True).settings(0), "train": 50, "report": 30, "epochs": 3, "step": 0.1, **more}


def test_a_fifth_of_the_training_labels_is_wrong_and_no_reported_one() -> None:
    clean, first, other = (
        noisy(settings(noise=noise, training_seed=seed)) for noise, seed in ((0.0, 0), (0.2, 0), (0.2, 1))
    )
    labels: list[Any] = [domain.labels for domain in (clean, first, other)]
    wrong = [int((labels[0][clean.rows("train")] != each[clean.rows("train")]).sum()) for each in labels]
    assert wrong == [0, 10, 10] and not torch.equal(labels[1], labels[2])
    assert all(torch.equal(labels[0][clean.rows("report")], each[clean.rows("report")]) for each in labels)
    assert int(labels[1].max()) < clean.classes


def test_a_run_measures_loss_and_prunability_on_the_labels_as_trained(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path, device=torch.device("cpu"))
    found = run_double_descent(settings(width=4), scratch)
    assert run_double_descent(settings(width=4), scratch) == found
    rows: dict[str, Any] = {row["metric"]: row for row in found.rows}
    assert set(rows) == {"loss", "accuracy", "parameters", "training_loss", "prunability"}
    assert rows["parameters"]["value"] == 2352 * 4 + 4 + 10 * 4 + 10
    assert (rows["loss"]["split"], rows["prunability"]["split"]) == ("report", "train")
    assert rows["training_loss"]["value"] == rows["loss"]["training_loss"] != rows["loss"]["value"]
    assert 0 < rows["prunability"]["value"] <= 1 and {row["weights"] for row in found.rows} == {found.weights}
    with pytest.raises(DgpruneError):
        run_double_descent(settings(lr=1e30), scratch)


def planted(*, share: Any, loss: Any, seeds: int = 5) -> pd.DataFrame:
    """A table with these curves over WIDTHS, and some noise per seed, of 500 training images."""
    random, rows = np.random.default_rng(0), []
    for seed, (place, width) in product(range(seeds), enumerate(WIDTHS)):
        about = {"training_seed": seed, "width": width, "domain": "fashion", "role": "source"}
        for metric, value, split in (
            ("loss", loss[place], "report"),
            ("prunability", share[place], "train"),
            ("training_loss", 1 / width, "train"),
        ):
            cells = {"metric": metric, "split": split, "images": 500, "value": value + 0.01 * random.random()}
            rows.append({**about, **cells})
    return dg.tidy(rows, extra=["width"])


def turned_seed(share: Any, loss: Any) -> pd.DataFrame:
    """Another training seed, in which prunability falls where the loss rises."""
    return planted(share=[1 - each for each in share], loss=loss, seeds=1).assign(training_seed=1)


def test_claims_follow_from_planted_curves() -> None:
    descent, other = [2.2, 3.5, 2.0, 1.8], [0.5, 0.9, 0.3, 0.2]
    claims = double_descent_claims(planted(share=other, loss=descent))
    assert [claim.verdict for claim in claims] == ["yes"] * 3 and "from 6 to 256" in claims[0].claim
    assert claims[0].estimate == pytest.approx(1.7, abs=0.02) and claims[1].estimate == pytest.approx(0.99)
    turned = double_descent_claims(planted(share=[-each for each in other], loss=[-each for each in descent]))
    assert [claim.verdict for claim in turned][:2] == ["no", "yes"]
    assert double_descent_claims(planted(share=[0.1, 0.2, 0.3, 0.4], loss=descent))[1].verdict == "no"
    few = double_descent_claims(pd.concat([planted(share=other, loss=descent, seeds=1), turned_seed(other, descent)]))
    assert all(-1 <= claim.low < claim.high <= 1 and claim.verdict == "cannot tell" for claim in few[1:2])
    assert -2 <= few[2].low < few[2].high <= 2, "a difference of correlations"
    with pytest.raises(DgpruneError, match="holds 1 training seeds"):
        double_descent_claims(planted(share=other, loss=descent, seeds=1))


def test_the_chart_draws_both_on_one_axis_of_widths_with_intervals_over_seeds() -> None:
    frame = planted(share=[0.5, 0.9, 0.3, 0.2], loss=[2.2, 3.5, 2.0, 1.8])
    chart = dg.charts.double_descent(frame)
    (panels,) = chart.to_dict()["hconcat"]
    data = [panel["data"] if "data" in panel else panel["layer"][0]["data"] for panel in panels["vconcat"]]
    assert [each["name"] for each in data] == ["loss", "prunability", "training_loss"]
    for each in data:
        assert [row["width"] for row in each["values"]] == list(WIDTHS)
        assert all(row["low"] < row["value"] < row["high"] and row["seeds"] == 5 for row in each["values"])
    peak: Any = max(data[0]["values"], key=lambda row: row["value"])
    assert peak["width"] == 6 and peak["value"] == pytest.approx(3.5, abs=0.02)
    assert dg.charts.svg(chart).count("<path") > 8
    alone = dg.charts.double_descent(planted(share=[0.5, 0.9, 0.3, 0.2], loss=[2.2, 3.5, 2.0, 1.8], seeds=1))
    assert "NaN" not in str(alone.to_dict())
    with pytest.raises(DgpruneError, match="table of another kind"):
        dg.charts.double_descent(frame.assign(metric="accuracy"))
