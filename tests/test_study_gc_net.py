"""The study of GC-Net: its masks and one accuracy against numpy, its rows, and its claims on planted tables."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch import nn

import dgprune_lab as dg
from dgprune_lab.core import collect_notes
from dgprune_lab.experiments import Experiment
from dgprune_lab.experiments.scratch import Scratch
from dgprune_lab.experiments.studies._common import part
from dgprune_lab.experiments.studies.gc_net import connection_arms, filter_arms, gc_net, run_gc_net
from dgprune_lab.experiments.studies.gc_net_claims import DEPTH, MIDDLE, gc_net_claims, gc_net_outcomes

Array = NDArray[np.float64]
FROM_2 = "hybrid(l1, gc_net, by depth from 2)"


class Ran(NamedTuple):
    tables: dict[str, Any]
    experiment: Experiment
    dense: nn.Module
    source: dg.Domain
    noisy: dg.Domain


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The runs of one training seed of the quick twin, and the network and domains of its garments."""
    experiment, made, tables = gc_net(quick=True), [], {}

    class Kept(Scratch):
        def network(self, key: Any, make: Any, **options: Any) -> nn.Module:
            made.append(super().network(key, make, **options))
            return made[-1]

    scratch = Kept(tmp_path_factory.mktemp("gc_net"), device=torch.device("cpu"))
    state = torch.random.get_rng_state()
    for number in range(4):
        settings = experiment.settings(number)
        with collect_notes(lambda _: None):  # that 13 images of a class are few
            finding = run_gc_net(settings, scratch)
        assert finding.weights is not None and len(finding.data) == 3
        tables[str(settings["level"])] = dg.tidy(finding.rows, extra=experiment.extra)
    assert torch.equal(torch.random.get_rng_state(), state)
    name, sizes = "fashion", {size: experiment.protocol[size] for size in ("train", "score", "report", "shifted")}
    source = part(name, name=name, train=sizes["train"], score=sizes["score"], report=sizes["report"])
    return Ran(tables, experiment, made[0], source, dg.data.noise(part(name, name=name, report=sizes["shifted"])))


def accuracy(table: Any, scorer: str, *, domain: str, finetuned: bool = False) -> float:
    chosen = (table["scorer"] == scorer) & (table["domain"] == domain) & (table["finetuned"] == finetuned)
    (value,) = table.loc[chosen, "value"]
    return float(value)


def convolved(x: Array, weight: Array, *, stride: int) -> Array:
    size = weight.shape[-1]
    edge = size // 2
    windows = sliding_window_view(np.pad(x, ((0, 0), (0, 0), (edge, edge), (edge, edge))), (size, size), axis=(2, 3))
    return np.einsum("bchwij,ocij->bohw", windows[:, :, ::stride, ::stride], weight, optimize=True)


def logits(tensors: Mapping[str, Array], x: Array, *, running: dict[str, tuple[Array, Array]], estimate: bool) -> Array:
    """digits_net in numpy; with `estimate`, BatchNorm uses those of the batch and writes them to `running`."""
    x = (x - tensors["normalise.mean"][:, None, None]) / tensors["normalise.std"][:, None, None]
    for number in range(1, 6):
        x = convolved(x, tensors[f"conv{number}.weight"], stride=2 if number == 1 else 1)
        name, axes = f"bn{number}", (0, 2, 3)
        if estimate:
            running[name] = x.mean(axes), x.var(axes, ddof=1)
        mean, variance = (x.mean(axes), x.var(axes)) if estimate else running[name]
        scale = tensors[f"{name}.weight"] / np.sqrt(variance + 1e-5)
        x = (x - mean[:, None, None]) * scale[:, None, None] + tensors[f"{name}.bias"][:, None, None]
        x = np.maximum(x, 0)
        if number in (1, 3):
            side = x.shape[-1] // 2
            x = x[..., : 2 * side, : 2 * side].reshape(*x.shape[:2], side, 2, side, 2).max((3, 5))
    return x.mean((2, 3)) @ tensors["head.weight"].T + tensors["head.bias"]


def test_a_hybrid_by_depth_and_its_accuracy_agree_with_numpy(ran: Ran) -> None:
    """Kernels into conv2 and conv3 by L1 norm, those into the later layers by rho; then BatchNorm, then accuracy."""
    study = dg.Study(ran.dense, sources=[ran.source])
    with collect_notes(lambda _: None):
        network = dg.gc_net(study)
        (mask,) = (arm.mask for arm in connection_arms(study, ratio=0.5, seed=0) if arm.scorer == FROM_2)
    tensors = {name: tensor.double().numpy().copy() for name, tensor in ran.dense.state_dict().items()}
    rho = {pair.layer: network.rho(pair.name).numpy() for pair in network.pairs}
    assert isinstance(mask, dg.WeightMask) and list(rho) == ["conv2", "conv3", "conv4", "conv5", "head"]
    for layer, strength in rho.items():
        weight = tensors[f"{layer}.weight"]
        kernels = weight.reshape(*weight.shape[:2], -1)
        importance = np.abs(kernels).sum(2) if layer in ("conv2", "conv3") else strength
        kernels.reshape(importance.size, -1)[np.argsort(importance.ravel(), kind="stable")[: importance.size // 2]] = 0
        assert np.array_equal(mask.keep[f"{layer}.weight"].numpy(), weight != 0), layer
    running: dict[str, tuple[Array, Array]] = {}
    train = next(ran.source.batches("train", size=300)).images.double().numpy()
    logits(tensors, train, running=running, estimate=True)
    for domain, count in ((ran.source, 100), (ran.noisy, 60)):
        batch = next(domain.batches("report", size=count))
        assert batch.labels is not None
        predicted = logits(tensors, batch.images.double().numpy(), running=running, estimate=False).argmax(1)
        by_hand = float((predicted == batch.labels.numpy()).mean())
        measured = accuracy(ran.tables["connection"], FROM_2, domain=domain.name)
        assert measured == pytest.approx(by_hand, abs=1 / count + 1e-9)  # one image may lie between two classes
        assert abs(measured - accuracy(ran.tables["connection"], "dense", domain=domain.name)) > 0.1


def test_filters_of_early_layers_are_those_of_l1_and_of_late_layers_those_of_gc_net(ran: Ran) -> None:
    study = dg.Study(ran.dense, sources=[ran.source])
    with collect_notes(lambda _: None):
        arms = {arm.scorer: arm for arm in filter_arms(study, ratio=0.5, seed=0)}
        again = {arm.scorer: arm for arm in filter_arms(study, ratio=0.5, seed=1)}
    for start in range(1, 5):
        arm = arms[f"hybrid(l1, gc_net, by depth from {start})"]
        assert arm.start == start and isinstance(arm.mask, dg.Mask)
        for depth, name in enumerate(study.graph.names):
            other = arms["l1" if depth < start else "gc_net"].mask
            assert isinstance(other, dg.Mask) and torch.equal(arm.mask.keep[name], other.keep[name]), (start, name)
    first, second = arms["random"].mask, again["random"].mask
    assert isinstance(first, dg.Mask) and isinstance(second, dg.Mask)
    assert any(not torch.equal(first.keep[name], second.keep[name]) for name in study.graph.names)


def test_every_arm_is_measured_at_once_and_finetuned_on_every_domain(ran: Ran) -> None:
    common = {"l1", "random", "gc_net", "reverse(gc_net)"} | {
        f"hybrid(l1, gc_net, by depth from {start})" for start in range(1, 5)
    }
    own = {"connection": {"hybrid(l1, gc_net, by score)"}, "filter": {"hybrid(l1, gc_net, by rank)", "taylor"}}
    for (level, more), name in zip(own.items(), ("fashion", "mnist"), strict=True):
        table = ran.tables[level]
        wanted = {*product(common | more, (False, True)), ("dense", False), ("dense_tuned", True)}
        for domain, rows in table.groupby("domain"):
            assert set(zip(rows["scorer"], rows["finetuned"], strict=True)) == wanted and len(rows) == len(wanted)
            assert (rows["images"] == (100 if domain == name else 60)).all()
        assert set(table["domain"]) == {name, f"{name} noise 0.2", f"{name} contrast x 0.4"}
        pruned = table[~table["scorer"].str.startswith("dense")]
        assert pruned["ratio_achieved"].between(0.45, 0.5).all() and (table["ratio_requested"] == 0.5).all()
        assert not table["target_aware"].any() and set(table["seen_by_training"]) == {"none"}
        tuned = table[table["finetuned"]].set_index(["scorer", "domain"])["value"]
        assert (tuned != table[~table["finetuned"]].set_index(["scorer", "domain"])["value"].reindex(tuned.index)).any()
    rho = ran.tables["connectivity"]
    assert set(rho["metric"]) == {"rho_mean", "rho_spread", "rho_null", "rho_null_spread"} and len(rho) == 20


def test_the_grid_holds_whole_seeds_in_order() -> None:
    experiment = gc_net(seeds=3)
    grid: Any = pd.DataFrame(experiment.grid)
    assert grid["training_seed"].is_monotonic_increasing and len(grid) == 3 * 2 * 7
    assert (grid.groupby(["training_seed", "data_set"])["level"].first() == "connectivity").all()
    assert set(grid["data_set"]) == {"fashion_mnist", "cifar10"} and experiment.protocol["shifts"] == tuple(
        dg.data.SHIFTS
    )
    assert len({experiment.key(number) for number in range(len(grid))}) == len(grid)
    assert "12,000 images" in gc_net().differences[1] and "300 images" in gc_net(quick=True).differences[1]
    assert {gc_net().name, gc_net(quick=True).name} == {"gc_net", "gc_net_quick"} and len(gc_net().grid) == 5 * 2 * 7


def planted(gains: Mapping[str, float], *, seeds: int = 5, spread: float = 0.002) -> Any:
    """A table in which every scorer has the accuracy .5 + its gain on shifted images, with noise by seed."""
    noise = np.random.default_rng(0)
    rows = []
    levels: list[Any] = [("connection", (0.5, 0.9)), ("filter", (0.3,))]
    for seed, data, (level, ratios), tuned in product(range(seeds), ("a", "b"), levels, (False, True)):
        shared = {"training_seed": seed, "data_set": data, "level": level, "finetuned": tuned, "metric": "accuracy"}
        arms: list[Any] = list(gains.items())
        for ratio, (scorer, gain), shift in product(ratios, arms, (-0.1, 0.1)):
            start = float(scorer.split()[-1][:-1]) if "from" in scorer else np.nan
            cells = {**shared, "ratio_requested": ratio, "scorer": scorer, "start": start}
            rows.append({**cells, "role": "target", "value": 0.5 + gain + shift + noise.normal(0, spread)})
            rows.append({**cells, "role": "source", "value": 0.9})
    return pd.DataFrame(rows)


def by_depth(gains: tuple[float, ...]) -> dict[str, float]:
    return {f"hybrid(l1, gc_net, by depth from {start})": gain for start, gain in enumerate(gains, start=1)}


def test_a_planted_effect_is_found_and_a_planted_null_is_not() -> None:
    gains = {"l1": 0.0, "random": 0.0, "gc_net": 0.03, **by_depth((0.02, 0.06, 0.01))}
    rho = pd.DataFrame({"metric": ["rho_spread", "rho_spread", "rho_null_spread"], "value": [0.1, 0.3, 0.01]})
    claims = gc_net_claims(pd.concat([planted(gains), rho]))
    assert [claim.verdict for claim in claims] == ["yes", "yes", "cannot tell", "yes"] * 3
    assert [claim.estimate for claim in claims[:4]] == pytest.approx([0.03, 0.03, 0.0, 0.03], abs=0.003)
    assert all(claim.low < claim.estimate < claim.high and claim.seeds == "0, 1, 2, 3, 4" for claim in claims)
    assert (
        "clean images +0.000" in claims[1].note
        and "spread of 0.200, with randomly paired images 0.010" in claims[1].note
    )
    assert claims[4].claim.startswith("Pruning connections by GC-Net keeps") and claims[4].claim.endswith(
        " (fine-tuned)"
    )
    assert [claim.published == claims[0].published for claim in claims] == [True] * 8 + [False] * 4
    assert float(claims[1].note.split("middle l0 ")[1].split()[0]) == pytest.approx(0.06, abs=0.003)
    assert [claim.verdict for claim in gc_net_claims(planted({**gains, "gc_net": -0.03}))[:4:3]] == ["no", "no"]


def test_the_best_l0_is_never_picked() -> None:
    """One l0 far above magnitude, the others below: their mean counts."""
    claim = gc_net_claims(planted({"l1": 0.0, "random": 0.0, "gc_net": 0.0, **by_depth((-0.06, 0.0, 0.03))}))[1]
    assert claim.verdict == "no" and claim.estimate == pytest.approx(-0.01, abs=0.003)


def test_outcomes_average_and_take_the_worst_over_the_shifts() -> None:
    outcomes: Any = gc_net_outcomes(planted({"l1": 0.0, **by_depth((0.1, 0.2, 0.3))}, spread=0.0)).set_index("scorer")
    assert outcomes.loc["l1", ["clean", "shifted", "worst"]].drop_duplicates().values.tolist() == [
        pytest.approx([0.9, 0.5, 0.4])
    ]
    for scorer in (DEPTH, MIDDLE):
        assert outcomes.loc[scorer, "worst"].to_list() == pytest.approx([0.6] * len(outcomes.loc[scorer]))


def test_a_seed_without_all_its_runs_is_left_out() -> None:
    table = planted({"l1": 0.0, "random": 0.0, "gc_net": 0.03, **by_depth((0.0, 0.0, 0.0))})
    lost = (table["training_seed"] == 3) & (table["data_set"] == "b") & (table["ratio_requested"] == 0.9)
    claims = gc_net_claims(table[~lost])
    assert [claims[0].seeds, claims[-1].seeds] == ["0, 1, 2, 4", "0, 1, 2, 3, 4"]
    assert gc_net_claims(table[table["training_seed"] == 0]) == []  # no interval, so no claim
    assert len(gc_net_claims(table[table["level"] == "filter"])) == 4
