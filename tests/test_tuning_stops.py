"""Pruning in rounds that ends early: Ctrl-C keeps completed stages, and bad input is refused before any work."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from material import domain, fingerprint, norm_net, plain_net, randomise
from torch import Tensor, nn
from tuned_study import QUICK, same, study, tuned

import dgprune_lab as dg
from dgprune_lab.training import finish
from dgprune_lab.training.events import EpochEvent, StageEvent


def accuracy(table: Any, *, stage: str, round: int, domain: str = "a") -> float:
    rows = table[(table.metric == "accuracy") & (table.stage == stage) & (table["round"] == round)]
    return rows[rows.domain == domain].value.item()


class Stops(nn.Module):
    """Raises KeyboardInterrupt in its n-th training pass, as Ctrl-C would."""

    count = 0
    at = 0

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            Stops.count += 1
            if Stops.count == Stops.at:
                raise KeyboardInterrupt
        return x


def stopping(at: int) -> dg.Study:
    Stops.count, Stops.at = 0, at
    return study(nn.Sequential(*randomise(plain_net(), dtype=torch.float32), Stops()).eval())


@pytest.mark.parametrize(("at", "number", "reached"), [(3, 1, "round 1 of 2, cut"), (13, 2, "round 2 of 2, cut")])
def test_ctrl_c_in_a_training_returns_the_last_completed_stage(at: int, number: int, reached: str) -> None:
    given = stopping(at)
    before = fingerprint(given.model)
    with pytest.warns(dg.DgpruneNote, match=f"stopped early; .*{reached}"):
        found = tuned(given)
    assert (found.finished, found.reached) == (False, reached)
    assert fingerprint(given.model) == before and Stops.count == at
    Stops.at = 0
    assert accuracy(found.table, stage="cut", round=number) == dg.evaluate(found.network, given.sources[0]).accuracy
    assert found.mask.ratio_achieved == pytest.approx({1: 0.214, 2: 0.429}[number], abs=0.08)
    assert len(found.network.dgprune_masks) == number  # type: ignore[arg-type]
    assert tuned(given).finished, "the study is as good as new"


def test_a_failing_round_keeps_the_earlier_ones() -> None:
    given = study()
    whole = {group.name: group.filters for group in given.graph.groups}

    @dg.scorer("once")
    def once(view: Any) -> Tensor:
        """Scores whole layers only."""
        if view.filters < whole[view.name]:
            raise dg.DgpruneError("this layer is not whole.")
        return view.weight.abs().sum(1)

    with pytest.warns(dg.DgpruneNote) as notes:
        found = tuned(given, once)
    assert any("round 2 of 2 failed: this layer is not whole." in str(warning.message) for warning in notes)
    assert (found.finished, found.reached) == (False, "round 1 of 2, tuned") and found.mask.ratio_achieved > 0

    @dg.scorer("never")
    def never(view: Any) -> Tensor:
        """Always raises."""
        raise dg.DgpruneError("no.")

    with pytest.raises(dg.DgpruneError, match=r"^no\.$"):
        tuned(given, never)


@pytest.mark.parametrize(("kind", "reached"), [(StageEvent, "the full network"), (EpochEvent, "round 1 of 2, cut")])
def test_ctrl_c_between_two_events_acts_the_same(kind: Any, reached: str) -> None:
    given = study()

    def watch(event: Any) -> None:
        if isinstance(event, kind):
            raise KeyboardInterrupt

    steps = dg.prune_and_tune.steps(given, "l1", ratio=0.5, epochs=2, options=QUICK)
    found = finish(steps, watch)
    assert (found.finished, found.reached) == (False, reached) and not found.table.empty
    assert same(found.network, given.model) == (kind is StageEvent)


CASES: dict[str, tuple[dict[str, Any], str]] = {
    "ratio": ({"ratio": 1.0}, r"ratio must lie in \[0, 1\)"),
    "negative ratio": ({"ratio": -0.1}, r"ratio must lie in \[0, 1\)"),
    "rounds": ({"rounds": 0}, r"rounds must lie in 1 to 1,000; got 0"),
    "half a round": ({"rounds": 1.5}, r"rounds must be a whole number or None; got 1\.5"),
    "epochs": ({"epochs": -1}, "epochs must be at least 0; got -1"),
    "two epochs": ({"epochs": 3}, r"the options say 2 epochs and epochs= says 3"),
    "batchnorm": ({"batchnorm": "fold"}, r"batchnorm must be one of 'as_is'"),
    "scope": ({"scope": "network"}, r"scope must be one of 'layer', 'global'"),
    "budget": ({"budget": "bytes"}, r"budget must be one of 'filters'"),
    "measure": ({"measure": "never"}, r"measure must be one of 'epochs', 'rounds', 'end'"),
    "split": ({"split": "test"}, r"domain 'a' has no split 'test'"),
    "images": ({"images": 0}, r"images must be at least 1"),
    "scorer": ({"scorer": "l11"}, r"unknown scorer 'l11'.*Did you mean 'l1'"),
    "not a scorer": ({"scorer": 3}, r"a scorer \(a name or a Scorer\) or None; got 3"),
    "cannot run": ({"scorer": "bn_scale"}, r"scorer 'bn_scale' cannot run on this study: .*BatchNorm"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_refused_before_any_work(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    changed, message = CASES[case]
    given, worked = study(), []
    monkeypatch.setattr("dgprune_lab.training.rounds.Run.steps", lambda _: worked.append(1))
    with pytest.raises(dg.DgpruneError, match=message):
        tuned(given, **{"scorer": "l1", **changed})
    assert not worked


def test_sources_without_labels_or_train_split_are_refused() -> None:
    net = randomise(norm_net(), dtype=torch.float32)
    bare = dg.Study(net, sources=[domain("a", labelled=False)])
    with pytest.raises(dg.DgpruneError, match="'a' has no labels"):
        tuned(bare)
    assert tuned(bare, epochs=0).finished, "pruning alone needs no labels"
    parts = {"score": range(20), "report": range(20, 60)}
    partless = dg.Study(net, sources=[domain("a", splits={key: list(rows) for key, rows in parts.items()})])
    with pytest.raises(dg.DgpruneError, match="'a' has no split 'train'"):
        tuned(partless)
    with pytest.raises(dg.DgpruneError, match="needs a source with a train split"):
        tuned(partless, epochs=0, batchnorm="recalibrate")
