"""A study without networks, which takes no time: accuracies follow from the settings alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from dgprune_lab.experiments import Claim, Experiment, Finding, Scratch, compare, grid

EFFECT = 0.1
NAME = "made_up"
runs: list[Mapping[str, Any]] = []
before_each: list[Callable[[Mapping[str, Any]], None]] = []
"""Called with the settings of each run before it: to stop it, or to let it fail."""


def run_made_up(settings: Mapping[str, Any], scratch: Scratch) -> Finding:
    """Return 0.5 and noise of the seed and scorer; "good" has the effect on top."""
    for call in before_each:
        call(settings)
    runs.append(settings)
    seed, ratio, scorer = settings["training_seed"], settings["ratio_requested"], settings["scorer"]
    noise = ((7 * seed + 3 * len(scorer)) % 5 - 2) * settings["noise"]
    seen = dict.fromkeys(("seen_by_training", "seen_by_finetuning", "seen_by_selection"), "none")
    looks = scorer == "good"
    row = {"domain": "t", "role": "target", "split": "report", "images": 100, "metric": "accuracy", "unit": "share"}
    row |= {"value": 0.5 - ratio / 3 + noise + EFFECT * looks, "target_aware": looks, **seen}
    return Finding(rows=[{**row, "seen_by_scorer": "images" if looks else "none"}], data={"t": "the images"})


def made_up_claims(frame: pd.DataFrame) -> list[Claim]:
    """Return the claim that "good" is 50 points better."""
    row = compare(frame, baseline="plain").iloc[0]
    return [Claim.from_row(row, claim="It helps", paper="Nobody 2026", published="+50 points", claimed=0.5)]


def made_up(*, quick: bool = False, seeds: int | None = None) -> Experiment:
    """Return the experiment: two scorers, one ratio (quick) or two, three seeds."""
    return Experiment(
        name=f"{NAME}_quick" if quick else NAME,
        question="Does it help?",
        run=run_made_up,
        grid=grid(
            training_seed=range(seeds or 3), ratio_requested=(0.3,) if quick else (0.3, 0.6), scorer=("plain", "good")
        ),
        protocol={"noise": 0.001, "widths": (4, 6), "nothing": None},
        claims=made_up_claims,
        differences=("Nothing was published.",),
        tolerance=0.001,
    )
