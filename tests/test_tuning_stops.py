"""Pruning with fine-tuning that ends early: Ctrl-C loses nothing, and bad input is refused before any work."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from material import domain, fingerprint, norm_net, plain_net, randomise
from torch import Tensor, nn
from tuned_study import QUICK, same, study, tuned

import dgprune_lab as dg
from dgprune_lab.training.events import EpochEvent, StageEvent
from dgprune_lab.training.prune_and_tune import finish_run


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


@pytest.mark.parametrize(
    ("at", "number", "stage", "words"), [(3, 1, "cut", "round 1 of 2, cut"), (13, 2, "cut", "round 2 of 2, cut")]
)
def test_ctrl_c_in_a_training_gives_back_the_last_completed_stage(at: int, number: int, stage: str, words: str) -> None:
    given = stopping(at)
    before = fingerprint(given.model)
    with pytest.warns(dg.DgpruneNote, match=rf"stopped early; .* last completed stage \({words}\)"):
        found = tuned(given)
    assert (found.finished, found.reached) == (False, words)
    assert fingerprint(given.model) == before and Stops.count == at
    Stops.at = 0
    assert accuracy(found.table, stage=stage, round=number) == dg.evaluate(found.network, given.sources[0]).accuracy
    assert found.mask.ratio_achieved == pytest.approx({1: 0.214, 2: 0.429}[number], abs=0.08)
    assert len(found.network.dgprune_masks) == number  # type: ignore[arg-type]
    assert tuned(given).finished, "the study is as good as new"


def test_a_later_round_that_cannot_be_done_loses_no_earlier_one() -> None:
    given = study()
    whole = {group.name: group.filters for group in given.graph.groups}

    @dg.scorer("once")
    def once(view: Any) -> Tensor:
        """Scores whole layers only."""
        if view.filters < whole[view.name]:
            raise dg.DgpruneError("this layer is not whole.")
        return view.weight.abs().sum(1)

    with pytest.warns(dg.DgpruneNote) as said:
        found = tuned(given, once)
    assert any("round 2 of 2 could not be done: this layer is not whole." in str(one.message) for one in said)
    assert (found.finished, found.reached) == (False, "round 1 of 2, tuned") and found.mask.ratio_achieved > 0

    @dg.scorer("never")
    def never(view: Any) -> Tensor:
        """Always raises."""
        raise dg.DgpruneError("no.")

    with pytest.raises(dg.DgpruneError, match=r"^no\.$"):
        tuned(given, never)


@pytest.mark.parametrize(("kind", "reached"), [(StageEvent, "the full network"), (EpochEvent, "round 1 of 2, cut")])
def test_ctrl_c_between_two_events_is_the_same(kind: Any, reached: str) -> None:
    given = study()

    def watch(event: Any) -> None:
        if isinstance(event, kind):
            raise KeyboardInterrupt

    steps = dg.tuning_steps(given, "l1", ratio=0.5, epochs=2, options=QUICK)
    found = finish_run(steps, watch)
    assert (found.finished, found.reached) == (False, reached) and not found.table.empty
    assert same(found.network, given.model) == (kind is StageEvent)


CASES: dict[str, tuple[dict[str, Any], str]] = {
    "ratio": ({"ratio": 1.0}, r"ratio must lie in \[0, 1\)"),
    "negative ratio": ({"ratio": -0.1}, r"ratio must lie in \[0, 1\)"),
    "rounds": ({"rounds": 0}, r"rounds must be a whole number, at least 1; got 0"),
    "half a round": ({"rounds": 1.5}, r"rounds must be a whole number, at least 1; got 1.5"),
    "epochs": ({"epochs": -1}, r"epochs must be a whole number, 0 \(cut only\) or more; got -1"),
    "two epochs": ({"epochs": 3}, r"the options say 2 epochs and epochs= says 3"),
    "batchnorm": ({"batchnorm": "fold"}, r"batchnorm must be one of 'as_is'"),
    "scope": ({"scope": "network"}, r"scope must be one of 'layer', 'global'"),
    "budget": ({"budget": "bytes"}, r"of must be one of 'filters'"),
    "measure": ({"measure": "never"}, r"measure must be one of 'epochs', 'rounds', 'end'"),
    "split": ({"split": "test"}, r"domain 'a' has no part 'test'"),
    "images": ({"images": 0}, r"images must be at least 1"),
    "scorer": ({"scorer": "l11"}, r"unknown scorer 'l11'.*Did you mean 'l1'"),
    "no scorer": ({"scorer": 3}, r"a scorer is a name or a function decorated"),
    "cannot run": ({"scorer": "bn_scale"}, r"scorer 'bn_scale' cannot run on this study: .*BatchNorm"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_sentence_before_any_work(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    changed, words = CASES[case]
    given, worked = study(), []
    monkeypatch.setattr("dgprune_lab.training.rounds.Run.steps", lambda _: worked.append(1))
    with pytest.raises(dg.DgpruneError, match=words):
        tuned(given, **{"scorer": "l1", **changed})
    assert not worked


def test_sources_that_nobody_can_train_on() -> None:
    net = randomise(norm_net(), dtype=torch.float32)
    bare = dg.Study(net, sources=[domain("a", labelled=False)])
    with pytest.raises(dg.DgpruneError, match="'a' has no labels"):
        tuned(bare)
    assert tuned(bare, epochs=0).finished, "to cut needs no labels"
    parts = {"score": range(20), "report": range(20, 60)}
    partless = dg.Study(net, sources=[domain("a", splits={key: list(rows) for key, rows in parts.items()})])
    with pytest.raises(dg.DgpruneError, match="'a' has no part 'train'"):
        tuned(partless)
    with pytest.raises(dg.DgpruneError, match="needs a source with a train part"):
        tuned(partless, epochs=0, batchnorm="recalibrate")
