"""Risk variance and its relatives: finite differences, closed forms, the removal oracle, notes and refusals."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from material import ResidualNet, domain, grouped_net, norm_net, plain_net, randomise
from torch import Tensor, nn

import dgprune_lab as dg
from dgprune_lab.diagnostics.gradients_against_removal import gradients_against_removal
from dgprune_lab.scorers import GroupView
from dgprune_lab.scorers.risks import combined, share, terms

NO_NOTE = pytest.mark.filterwarnings("ignore:risk_variance. the variance term makes up")
NETS = {"plain": plain_net, "norm": norm_net, "residual": ResidualNet}


def study_of(name: str = "plain", *, sources: int = 2, dtype: torch.dtype = torch.float32) -> dg.Study:
    """Sources of unlike size, whose labels are random, so their risks differ."""
    domains = [domain(key, count=60 + 60 * k, seed=k) for k, key in enumerate("abc"[:sources])]
    return dg.Study(randomise(NETS[name](), seed=4, dtype=dtype), sources=domains)


def seen(study: dg.Study, *, removed: bool = False) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The two terms as the scorer computes them."""
    scores: list[Any] = []

    @dg.scorer(
        "both",
        needs=("gate", "risk", "removal"),
        reads={"source": "labels"},
        level="network",
        gathers=lambda: ("gate", "risk"),
    )
    def both(views: dict[str, GroupView]) -> dict[str, Tensor]:
        """Keeps the terms."""
        scores.append(terms(views, removed=removed))
        return scores[0][0]

    study.score(both)
    return scores[0]


def risks(study: dg.Study, gated: nn.Module) -> Tensor:
    """(E,) mean cross-entropy of a network on each source's score part, in float64."""
    values = []
    for source in study.sources:
        batch = source.take(source.rows("score"))
        with torch.no_grad():
            values.append(F.cross_entropy(gated(batch.images.double()), batch.labels))  # type: ignore[arg-type]
    return torch.stack(values)


def gated(study: dg.Study, group: str, number: int, z: float) -> nn.Module:
    """The network in float64 with one filter's output multiplied by z: at the input of every layer that reads it."""
    net = randomise(NETS["plain"](), seed=4).double()
    net.load_state_dict({k: v.double() for k, v in study.model.state_dict().items()})
    for name, (places, filters) in study.graph[group].consumer_inputs.items():

        def hook(_: nn.Module, inputs: tuple[Tensor, ...], at: Tensor = places[filters == number]) -> tuple[Tensor]:
            x = inputs[0].clone()
            x[:, at] = z * x[:, at]
            return (x,)

        net.get_submodule(name).register_forward_pre_hook(hook)
    return net


@pytest.mark.parametrize("sources", [2, 3])
def test_the_derivative_of_the_variance_equals_central_differences(sources: int) -> None:
    study = study_of(sources=sources)
    mean, spread = seen(study)
    step = 1e-4
    for group in study.graph.groups:
        for number in range(0, group.filters, 2):
            ends = [risks(study, gated(study, group.name, number, 1 + sign * step)) for sign in (1, -1)]
            change = (ends[0].mean() - ends[1].mean()) / (2 * step)
            wider = (ends[0].var(correction=0) - ends[1].var(correction=0)) / (2 * step)
            assert float(mean[group.name][number]) == pytest.approx(float(change), rel=1e-3, abs=1e-6)
            assert float(spread[group.name][number]) == pytest.approx(float(wider), rel=1e-3, abs=1e-6)
    assert max(float(v.abs().max()) for v in spread.values()) > 1e-4, (
        "the sources' risks are the same, so the test is void"
    )


def test_sources_have_equal_weight_whatever_their_size() -> None:
    mean, _ = seen(study_of())
    alone = [
        dg.Study(study_of().model, sources=[source]).statistics(source.name, needs=["gate"]).gate
        for source in study_of().sources
    ]
    for name, value in mean.items():
        assert torch.allclose(value, (alone[0][name] + alone[1][name]) / 2)


@pytest.mark.parametrize("name", NETS)
def test_the_oracle_equals_removal(name: str) -> None:
    study = study_of(name)
    mean, spread = seen(study, removed=True)
    full = torch.tensor([float(study.outcomes(None, domain=d.name, split="score").loss.mean()) for d in study.sources])
    group = study.graph.groups[-1]
    for number in (0, group.filters - 1):
        small = dg.prune(study.model, dg.Mask.by_hand(study.graph, removed={group.name: [number]}))
        after = torch.stack(
            [
                F.cross_entropy(small(b.images), b.labels)  # type: ignore[arg-type]
                for b in (d.take(d.rows("score")) for d in study.sources)
            ]
        ).detach()
        assert float(mean[group.name][number]) == pytest.approx(float(full.mean() - after.mean()), abs=1e-5)
        wider = float(full.var(correction=0) - after.var(correction=0))
        assert float(spread[group.name][number]) == pytest.approx(wider, abs=1e-5)
    squares = [torch.cat([v.square() for v in part.values()]).mean() for part in (mean, spread)]
    expected = {k: mean[k].square() / squares[0] + 2 * spread[k].square() / squares[1] for k in mean}
    scores = study.score("risk_variance", options={"mode": "oracle", "beta": 2.0}).values
    assert all(torch.allclose(scores[k], expected[k], rtol=1e-4) for k in expected)


@NO_NOTE
def test_the_oracle_on_another_split_is_another() -> None:
    study, options = study_of(), {"mode": "oracle"}
    study.score("risk_variance", options=options)
    after, alone = (s.score("risk_variance", options=options, split="report").values for s in (study, study_of()))
    assert all(torch.equal(after[name], alone[name]) for name in alone)


def test_the_oracle_removes_tied_filters_together() -> None:
    sources = [domain("a"), domain("b", seed=1)]
    study = dg.Study(randomise(grouped_net(), seed=4, dtype=torch.float32), sources=sources)
    group, found = study.graph["0"], seen(study, removed=True)[0]["0"]
    tied = (group.units == group.units[-1]).nonzero().flatten().tolist()
    assert len(tied) == 2
    mask = dg.Mask.by_hand(study.graph, removed={"0": tied})
    drop = [
        float((before.loss - after.loss).mean())
        for before, after in (
            [study.outcomes(m, domain=name, split="score", batchnorm="as_is") for m in (None, mask)] for name in "ab"
        )
    ]
    assert found[tied].tolist() == pytest.approx([sum(drop) / 2] * 2, abs=1e-6)


def test_closed_forms() -> None:
    mean = {"x": torch.tensor([1.0, -2.0]), "y": torch.tensor([0.0])}
    spread = {"x": torch.tensor([0.5, 1.0]), "y": torch.tensor([-1.0])}
    additive = combined(mean, spread, mode="additive", beta=1.0)
    assert torch.allclose(additive["x"], torch.tensor([1 / (5 / 3) + 0.25 / 0.75, 4 / (5 / 3) + 1 / 0.75]))
    assert torch.equal(combined(mean, spread, mode="joint", beta=2.0)["x"], torch.tensor([4.0, 0.0]))
    signed = combined(mean, spread, mode="signed", beta=2.0)
    assert torch.equal(signed["x"], torch.tensor([0.0, 0.0])) and torch.equal(signed["y"], torch.tensor([2.0]))


def test_without_the_variance_it_ranks_as_taylor() -> None:
    study = study_of()
    taylor = study.score("taylor").values
    for mode in ("additive", "joint", "signed"):
        scores = study.score("risk_variance", options={"mode": mode, "beta": 0.0}).values
        assert all(torch.equal(scores[k].argsort(), taylor[k].argsort()) for k in taylor)


@NO_NOTE
def test_one_pass_serves_all_modes_and_reads_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    study = study_of()
    first = study.score("risk_variance")
    assert first.reads == {"a/score": "labels", "b/score": "labels"}
    monkeypatch.setattr("dgprune_lab.study.scorer_inputs.gathering", None)
    assert study.score("risk_variance", options={"mode": "joint"}).reads == first.reads


def test_a_negligible_variance_term_is_noted() -> None:
    twins = [domain(key, seed=0) for key in "ab"]
    study = dg.Study(randomise(plain_net(), seed=4, dtype=torch.float32), sources=twins)
    for mode in ("additive", "joint", "signed"):
        with pytest.warns(dg.DgpruneNote, match=r"makes up 0 % .* raise beta"):
            study.score("risk_variance", options={"mode": mode})


@pytest.mark.parametrize("mode", ["joint", "signed"])
def test_the_variance_term_of_a_squared_sum_has_a_squared_weight(mode: Any) -> None:
    one = {"a": torch.ones(3, dtype=torch.float64)}
    with pytest.warns(dg.DgpruneNote, match=r"makes up 0\.25 %"):  # .05^2 / (1 + .05^2)
        combined(one, one, mode=mode, beta=0.05)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        combined(one, one, mode=mode, beta=0.2)
        combined(one, one, mode="additive", beta=0.05)


@pytest.mark.parametrize("name", ["risk_variance", "gradient_agreement", "gradient_snr"])
def test_one_source_is_refused(name: str) -> None:
    study = study_of(sources=1)
    assert "at least two sources" in (study.unavailable(dg.SCORERS[name]) or "")
    with pytest.raises(dg.DgpruneError, match=f"'{name}' cannot run here: it compares at least two sources"):
        study.score(name)


def test_an_unknown_mode_is_named() -> None:
    with pytest.raises(dg.DgpruneError, match="mode must be one of 'additive', 'joint', 'signed', 'oracle'; got 'sum'"):
        study_of().score("risk_variance", options={"mode": "sum"})


def gates(study: dg.Study) -> dict[str, Tensor]:
    per = [study.statistics(source.name, needs=["gate"]).gate for source in study.sources]
    return {name: torch.stack([gate[name] for gate in per]) for name in per[0]}


def test_gradient_agreement() -> None:
    study = study_of(sources=3)
    g, scores = gates(study), study.score("gradient_agreement").values
    largest = max(float(v.mean(0).abs().max()) for v in g.values())
    for name, value in g.items():
        agree = value.sign().mean(0).abs()
        assert torch.allclose(scores[name], agree + value.mean(0).abs() / (6 * largest))
        assert torch.equal((scores[name] * 3).floor().clamp(max=3), (agree * 3).round()), "a tie-break jumped a step"
    both = study_of()
    two, g = both.score("gradient_agreement").values, gates(both)
    unlike = torch.cat([(v[0].sign() != v[1].sign()) for v in g.values()])
    flat = torch.cat(list(two.values()))
    assert unlike.any() and flat[unlike].max() < flat[~unlike].min()


def test_gradient_snr_and_its_sign() -> None:
    study = study_of(sources=3)
    for name, value in gates(study).items():
        expected = value.mean(0).square() / (value.var(0, correction=0) + 1e-12)
        assert torch.allclose(study.score("gradient_snr").values[name], expected)
        assert torch.allclose(study.score("gradient_snr", options={"keep": "low"}).values[name], -expected)
    with pytest.raises(dg.DgpruneError, match=r"eps must be above 0; got 0"):
        study.score("gradient_snr", options={"eps": 0.0})


@NO_NOTE
def test_the_oracle_table() -> None:
    frame = gradients_against_removal(study_of("norm"))
    rows = frame.query("metric == 'rank_correlation'")
    assert set(rows["against"]) == {"additive", "its own"} and len(rows) == 10
    for low, value, high in rows[["low", "value", "high"]].to_numpy(dtype=float):
        assert -1 <= low <= value + 1e-9 and value <= high + 1e-9 and high <= 1 + 1e-9
    assert set(rows["interval"]) == {"filters"}
    share = float(frame.query("metric == 'variance_share'")["value"].item())
    assert 0 < share < 1 and not math.isnan(share)


def test_dead_filters_do_not_count_in_the_share_of_the_variance() -> None:
    first = {"a": torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64), "b": torch.zeros(5, dtype=torch.float64)}
    second = {"a": torch.tensor([0.0, 0.0, 0.0, 3.0], dtype=torch.float64), "b": torch.zeros(5, dtype=torch.float64)}
    assert share(first, second) == 0.75
    assert share({"b": first["b"]}, {"b": second["b"]}) == 0
